//! What this machine has, what it lacks, and how to get it.

mod kernel;
mod network;
mod veth;

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::json;

use crate::{
    setup::{self, PYMODBUS, Purpose},
    shell,
    toolchain::{self, Found, Nightly, Toolchain},
};

/// How to say it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// How a finding stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It is as it should be.
    Good,
    /// It will do, with a drawback.
    Fair,
    /// It is missing or wrong.
    Bad,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Fair => "note",
            Self::Bad => "missing",
        }
    }
}

/// One line of the table.
pub(crate) struct Finding {
    pub(crate) topic: String,
    pub(crate) state: State,
    pub(crate) detail: String,
    pub(crate) remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub(crate) fn good(topic: &str, detail: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            state: State::Good,
            detail: detail.into(),
            remedy: None,
        }
    }

    /// It works, with a drawback.
    pub(crate) fn fair(topic: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state: State::Fair,
            remedy: Some(remedy.into()),
            ..Self::good(topic, detail)
        }
    }

    /// It does not work yet.
    pub(crate) fn bad(topic: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state: State::Bad,
            remedy: Some(remedy.into()),
            ..Self::good(topic, detail)
        }
    }
}

/// Looks at everything and prints it; an error when something is missing.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut findings = toolchains();
    findings.extend(kernel::findings());
    findings.extend(network::findings());
    findings.extend(tools());
    if arguments.json {
        println!("{:#}", as_json(&findings));
    } else {
        print!("{}", table(&findings));
    }
    let missing = findings
        .iter()
        .filter(|finding| finding.state == State::Bad)
        .count();
    if missing > 0 {
        bail!("{missing} of {} are missing or wrong", findings.len());
    }
    Ok(())
}

fn toolchains() -> Vec<Finding> {
    vec![rust(), bpf_target(), bpf_linker()]
}

fn rust() -> Finding {
    let mut command = shell::command("rustc");
    match shell::capture(command.arg("--version")) {
        Ok(version) => Finding::good("rust", version.trim()),
        Err(_) => Finding::bad("rust", "no rustc", "install it with https://rustup.rs"),
    }
}

fn bpf_target() -> Finding {
    let found = Found::look();
    if let Some(best) = found.best() {
        let version = best
            .version()
            .map(|version| version.release)
            .unwrap_or_default();
        let other = if best == Toolchain::Debian && found.nightly == Nightly::Complete {
            "; nightly with rust-src is here as well"
        } else {
            ""
        };
        return Finding::good("bpf target", format!("{}, {version}{other}", best.name()));
    }
    let detail = match found.nightly {
        Nightly::WithoutSource => "nightly is here, its rust-src is not",
        _ => "neither nightly with rust-src nor Debian's rustc-web",
    };
    Finding::bad("bpf target", detail, "cargo xtask setup --for build")
}

fn bpf_linker() -> Finding {
    let topic = "bpf-linker";
    let remedy = "cargo xtask setup --for build";
    let Ok(version) = shell::capture(shell::command("bpf-linker").arg("--version")) else {
        return Finding::bad(topic, "not found", remedy);
    };
    let version = version.trim();
    let compiler = Found::look().best().and_then(|best| best.version().ok());
    match (toolchain::linker_llvm(), compiler) {
        (Some(linker), Some(compiler)) if linker < compiler.llvm_major => {
            let detail = format!(
                "{version} has LLVM {linker}, rustc has {}",
                compiler.llvm_major
            );
            Finding::bad(topic, detail, remedy)
        }
        (Some(linker), _) => Finding::good(topic, format!("{version}, LLVM {linker}")),
        (None, _) => Finding::good(topic, version),
    }
}

fn tools() -> Vec<Finding> {
    let mut findings: Vec<Finding> = setup::tools(Purpose::Test)
        .map(|tool| match shell::which(tool.program) {
            Some(path) => Finding::good(tool.package, path.display().to_string()),
            None => Finding::bad(
                tool.package,
                format!("{} not found, for {}", tool.program, tool.purpose),
                format!("apt-get install {}", tool.package),
            ),
        })
        .collect();
    findings.push(if setup::python_is_complete() {
        Finding::good("pymodbus", "target/python")
    } else {
        Finding::bad(
            "pymodbus",
            format!("{PYMODBUS} is not in target/python"),
            "cargo xtask setup",
        )
    });
    findings
}

fn table(findings: &[Finding]) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.topic.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for Finding {
        topic,
        state,
        detail,
        remedy,
    } in findings
    {
        _ = writeln!(text, "{:<8} {topic:<width$}  {detail}", state.word());
        if let Some(remedy) = remedy {
            _ = writeln!(text, "{:<8} {:<width$}  -> {remedy}", "", "");
        }
    }
    text
}

fn as_json(findings: &[Finding]) -> serde_json::Value {
    let findings: Vec<serde_json::Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "topic": finding.topic,
                "state": finding.state.word(),
                "detail": finding.detail,
                "remedy": finding.remedy,
            })
        })
        .collect();
    json!({ "findings": findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_the_remedy_below_the_finding() {
        let findings = [
            Finding::good("rust", "1.95"),
            Finding::bad("bpf-linker", "not found", "get it"),
        ];
        assert_eq!(
            table(&findings),
            "ok       rust        1.95\nmissing  bpf-linker  not found\n                     -> get it\n"
        );
    }

    #[test]
    fn json_names_the_same_things() {
        let value = as_json(&[Finding::fair("jit", "off", "turn it on")]);
        assert_eq!(value.pointer("/findings/0/state").unwrap(), "note");
        assert_eq!(value.pointer("/findings/0/remedy").unwrap(), "turn it on");
    }
}
