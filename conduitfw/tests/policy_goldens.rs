//! The policies in `rules/`, in the documentation, and the messages for those that are wrong.
//!
//! Each file in `rules/rejected/` has one mistake; what is said about it stands beside it, in a
//! file that ends in `.stderr`. `UPDATE_GOLDENS=1 cargo test -p conduitfw --test policy_goldens`
//! writes those files anew.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};

use conduitfw::policy::{self, Ids, Loaded, Severity, Surroundings, keys};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn toml_files(directory: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = fs::read_dir(root().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            (
                format!("{directory}/{name}"),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

fn accepted(name: &str, text: &str) -> Loaded {
    policy::load_text(name, text).unwrap_or_else(|refusal| panic!("{}", refusal.render()))
}

#[test]
fn every_example_is_accepted_and_compiles() {
    let files = toml_files("rules");
    assert!(files.len() >= 4);
    for (name, text) in files {
        let loaded = accepted(&name, &text);
        let surroundings = Surroundings {
            ticks_per_second: 250,
            gateway_addresses: Vec::new(),
            generation: 1,
        };
        policy::compile(&loaded.policy, &mut Ids::default(), &surroundings).unwrap();
    }
}

#[test]
fn every_mistake_is_explained_as_its_golden_says() {
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    let mut wrong = Vec::new();
    let files = toml_files("rules/rejected");
    assert!(files.len() >= 20);
    for (name, text) in files {
        let Err(refusal) = policy::load_text(&name, &text) else {
            wrong.push(format!("{name} was accepted"));
            continue;
        };
        let said = refusal.render();
        let golden = root().join(&name).with_extension("stderr");
        if update {
            fs::write(&golden, &said).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            wrong.push(format!(
                "{name}\n--- said\n{said}\n--- expected\n{expected}"
            ));
        }
        for diagnostic in refusal.diagnostics() {
            assert_eq!(diagnostic.severity, Severity::Error, "{name}");
            assert!(!diagnostic.help.is_empty(), "{name} has no help");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_run_names_every_mistake() {
    let text = fs::read_to_string(root().join("rules/rejected/many-mistakes.toml")).unwrap();
    let refusal = policy::load_text("many-mistakes.toml", &text).unwrap_err();
    let codes: Vec<&str> = refusal
        .diagnostics()
        .iter()
        .map(|problem| problem.code)
        .collect();
    for code in [
        "unknown-key",
        "wrong-type",
        "overlapping-networks",
        "unknown-name",
        "outside-of-zone",
        "missing-key",
        "unknown-function",
        "range-upside-down",
        "port-used-twice",
    ] {
        assert!(codes.contains(&code), "{code} is missing in {codes:?}");
    }
    let lines: Vec<usize> = refusal
        .diagnostics()
        .iter()
        .map(|problem| problem.line)
        .collect();
    assert!(
        lines.is_sorted(),
        "problems stand in the order of the text: {lines:?}"
    );
}

#[test]
fn problems_are_also_told_to_machines() {
    let text = "[site]\nname = \"x\"\n\n[zone]\n";
    let refusal = policy::load_text("p.toml", text).unwrap_err();
    assert_eq!(
        refusal.to_json()[1],
        serde_json::json!({
            "file": "p.toml",
            "line": 4,
            "column": 2,
            "severity": "error",
            "code": "unknown-key",
            "message": "the policy has an unknown key `zone`",
            "help": "did you mean `zones`?",
        })
    );
}

#[test]
fn the_notes_of_an_example_tell_what_may_surprise() {
    let notes_of = |name: &str| {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let notes = accepted(name, &text).notes;
        notes
            .iter()
            .map(|note| format!("{} {}", note.code, note.message))
            .collect::<Vec<_>>()
    };
    assert_eq!(notes_of("rules/quickstart.toml"), [""; 0]);
    assert_eq!(
        notes_of("rules/historian-read-only.toml"),
        [
            "specific-conduit conduit `historian-serial` alone decides on port 502 from `historian` \
          to `serial-gateway`"
        ]
    );
    assert_eq!(
        notes_of("rules/engineering-access.toml"),
        ["observes conduit `engineering-flow-computer` only observes: nothing on it is denied"]
    );
}

#[test]
fn a_file_that_is_not_there_is_not_a_wrong_policy() {
    let refusal = policy::load(Path::new("/nonexistent/policy.toml")).unwrap_err();
    assert!(refusal.is_unreadable());
    assert!(
        refusal
            .render()
            .starts_with("error: cannot open it: No such file")
    );
}

#[test]
fn the_editor_of_another_system_does_no_harm() {
    let text = fs::read_to_string(root().join("rules/quickstart.toml")).unwrap();
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    accepted("windows.toml", &windows);
    let wrong = windows.replace("plc-dosing\"]", "plc-dosnig\"]");
    let refusal = policy::load_text("windows.toml", &wrong).unwrap_err();
    let shown = refusal.render();
    assert!(
        shown.contains("did you mean `plc-dosing`?") && !shown.contains('\r'),
        "{shown}"
    );
}

/// Blocks of TOML in a document: the line they begin at, whether they are marked as a whole
/// policy, and their text.
fn toml_blocks(document: &str) -> Vec<(usize, bool, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, bool, String)> = None;
    for (number, line) in document.lines().enumerate() {
        match &mut open {
            None => {
                let Some(info) = line.trim().strip_prefix("```") else {
                    continue;
                };
                let words: Vec<&str> = info.split([' ', ',']).collect();
                let is_toml = words.first() == Some(&"toml");
                // A block of something else is skipped to its end like one of TOML.
                open = Some((
                    number + 2,
                    is_toml && words.contains(&"policy"),
                    String::new(),
                ));
                if !is_toml {
                    open = Some((0, false, String::new()));
                }
            }
            Some(_) if line.trim() == "```" => {
                blocks.extend(open.take().filter(|(line, _, _)| *line > 0));
            }
            Some((_, _, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    blocks
}

/// A block that begins with `[site]` or is marked ```` ```toml policy ```` is a whole policy;
/// every other one must at least be TOML.
#[test]
fn every_policy_in_the_documentation_is_right() {
    let documents = fs::read_dir(root().join("docs")).unwrap();
    let mut documents: Vec<PathBuf> = documents.map(|entry| entry.unwrap().path()).collect();
    documents.push(root().join("README.md"));
    let mut policies = 0;
    for path in documents
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let Ok(document) = fs::read_to_string(path) else {
            continue;
        };
        for (line, whole, text) in toml_blocks(&document) {
            let name = format!("{} (block at line {line})", path.display());
            let first = text
                .lines()
                .find(|line| !line.is_empty() && !line.starts_with('#'));
            if whole || first == Some("[site]") {
                accepted(&name, &text);
                policies += 1;
            } else {
                assert!(text.parse::<toml::Table>().is_ok(), "{name} is not TOML");
            }
        }
    }
    assert!(policies >= 1, "docs/policy.md has a whole policy");
}

#[test]
fn every_key_is_documented() {
    let document = fs::read_to_string(root().join("docs/policy.md")).unwrap();
    for table in keys::ALL {
        for key in table.keys {
            let ways = [format!("`{key}`"), format!("`[{key}"), format!("`[[{key}")];
            let documented = ways.iter().any(|written| document.contains(written));
            assert!(documented, "{key} of {}", table.header);
        }
        for key in table.later {
            assert!(
                !document.contains(&format!("| `{key}` |")),
                "{key} is of a later version"
            );
        }
    }
}
