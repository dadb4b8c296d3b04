//! `conduitfw explain` on the command line: what it prints where, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const POLICY: &str = r#"
[site]
name = "Works"
[zones.operations]
interfaces = ["eth0"]
networks = ["10.10.0.0/24"]
[zones.control]
interfaces = ["eth1"]
networks = ["10.20.0.0/24"]
[[conduits]]
name = "watch"
from = ["operations"]
to = ["control"]
rationale = "Operators watch"
[[conduits.modbus]]
units = [1]
functions = ["reads"]
"#;

const CASES: &str = r#"
[[expect]]
from = "operations"
to = "control"
modbus = "unit=1 fc=3 address=0"
verdict = "pass"
"#;

/// A directory with files, gone when the test is.
struct Files(PathBuf);

impl Files {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let directory = format!("conduitfw-explain-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            std::fs::write(directory.join(name), text).unwrap();
        }
        Self(directory)
    }

    fn explain(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(Path::new(env!("CARGO_BIN_EXE_conduitfw")))
            .arg("explain")
            .args(["--policy", "policy.toml"])
            .args(arguments)
            .current_dir(&self.0)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What stays behind lies in the directory for what is temporary.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const READ: &[&str] = &[
    "--from",
    "operations",
    "--to",
    "control",
    "--modbus",
    "unit=1 fc=3 address=0 quantity=2",
];

#[test]
fn an_answer_is_printed_and_ends_with_0() {
    let files = Files::new("answer", &[("policy.toml", POLICY)]);
    let (code, output, errors) = files.explain(READ);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(
        output,
        "allowed\n  10.10.0.1 (operations) -> 10.20.0.1 (control), tcp port 502, modbus unit 1 \
         read-holding-registers (3) address 0 quantity 2\n  rule `watch/modbus-1` allows it\n"
    );
    // A denial is an answer too.
    let (code, output, _) =
        files.explain(&["--from", "control", "--to", "operations", "--tcp", "1"]);
    assert_eq!(code, 0);
    assert!(
        output.starts_with("denied (drop): no-conduit\n"),
        "{output}"
    );
}

#[test]
fn json_is_one_object() {
    let files = Files::new("json", &[("policy.toml", POLICY)]);
    let write = [&READ[..5], &["unit=2 fc=6 address=0 value=1", "--json"]].concat();
    let (code, output, _) = files.explain(&write);
    assert_eq!(code, 0);
    let answer: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(answer["verdict"], "reset");
    assert_eq!(answer["reason"], "unit-not-allowed");
    assert_eq!(answer["conduit"], "watch");
    assert_eq!(answer["lacking"][0]["part"], "unit");
    assert_eq!(answer["lacking"][0]["rule"], "watch/modbus-1");
    assert_eq!(answer["from"]["zone"], "operations");
}

#[test]
fn a_policy_that_is_refused_ends_with_1() {
    let files = Files::new("refused", &[("policy.toml", "[site]\nname = 1\n")]);
    let (code, output, errors) = files.explain(READ);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(errors.contains("policy.toml:2:8"), "{errors}");
}

#[test]
fn a_question_that_is_none_ends_with_2() {
    let files = Files::new("usage", &[("policy.toml", POLICY)]);
    for (arguments, said) in [
        (
            &["--from", "operations", "--to", "control"][..],
            "ask about one of",
        ),
        (
            &["--from", "operation", "--to", "control", "--tcp", "1"],
            "did you mean `operations`?",
        ),
        (&["--to", "control", "--tcp", "1"], "--from"),
        (
            &["--expect", "nowhere.toml"],
            "nowhere.toml: cannot read it",
        ),
        (
            &[
                "--from",
                "operations",
                "--to",
                "control",
                "--tcp",
                "1",
                "--udp",
                "1",
            ],
            "cannot be used with",
        ),
    ] {
        let (code, _, errors) = files.explain(arguments);
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains(said), "{errors}");
    }
}

#[test]
fn expectations_end_with_0_or_1() {
    let denied = CASES.replace("pass", "reset");
    let wrong = CASES.replace("verdict", "verdicts");
    let files = Files::new(
        "expect",
        &[
            ("policy.toml", POLICY),
            ("good.toml", CASES),
            ("bad.toml", &denied),
            ("wrong.toml", &wrong),
        ],
    );
    let (code, output, _) = files.explain(&["--expect", "good.toml"]);
    assert_eq!(
        (code, output.as_str()),
        (0, "good.toml: 1 of 1 expectations hold\n")
    );
    let (code, output, _) = files.explain(&["--expect", "bad.toml"]);
    assert_eq!(code, 1);
    assert_eq!(
        output,
        "bad.toml:2: operations -> control: unit=1 fc=3 address=0\n  wanted  reset\n  found   \
         pass, rule watch/modbus-1\nbad.toml: 0 of 1 expectations hold\n"
    );
    let (code, output, _) = files.explain(&["--expect", "bad.toml", "--json"]);
    assert_eq!(code, 1);
    let outcome: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(outcome["failed"][0]["line"], 2);
    let (code, _, errors) = files.explain(&["--expect", "wrong.toml"]);
    assert_eq!(code, 2);
    assert!(
        errors.contains("wrong.toml:6: unknown field `verdicts`"),
        "{errors}"
    );
}
