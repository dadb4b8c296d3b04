//! What the documentation shows of `conduitfw explain` is what it says, and the expectations beside
//! the example policies hold.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};

use conduitfw::expect::Expectations;
use conduitfw::explain::Explainer;
use conduitfw::explain::cases::{self, Words};
use conduitfw::policy;

fn root() -> PathBuf {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_directory.parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The blocks of a page that begin with this line.
fn blocks<'t>(page: &'t str, fence: &str) -> Vec<&'t str> {
    let opening = format!("\n```{fence}\n");
    let rest = page.split(opening.as_str()).skip(1);
    rest.filter_map(|rest| rest.split("\n```\n").next())
        .collect()
}

fn holds(policy: &str, expectations: &Expectations) {
    let loaded = policy::load_text("policy.toml", policy);
    let policy = loaded
        .unwrap_or_else(|refusal| panic!("{}", refusal.render()))
        .policy;
    let explainer = Explainer::new(&policy).unwrap();
    let outcome = cases::compare(&explainer, expectations).unwrap();
    assert!(outcome.is_met(), "{outcome}");
    assert!(outcome.held > 0, "{outcome}");
}

#[test]
fn the_expectations_of_the_manual_hold() {
    let (policy, operations) = (read("docs/policy.md"), read("docs/operations.md"));
    let cases = blocks(&operations, "toml expect");
    assert_eq!(cases.len(), 1);
    let expectations = Expectations::from_text("docs/operations.md", cases[0]);
    holds(blocks(&policy, "toml policy")[0], &expectations);
}

#[test]
fn the_answers_in_the_manuals_are_given() {
    let manual = read("docs/policy.md");
    let policies = [
        (
            "docs/operations.md",
            blocks(&manual, "toml policy")[0].to_owned(),
        ),
        ("README.md", read("rules/water-treatment.toml")),
    ];
    for (page, text) in policies {
        let text = policy::load_text("policy.toml", &text).unwrap().policy;
        let explainer = Explainer::new(&text).unwrap();
        let page = read(page).replace("\\\n", " ").replace("\n    ", "\n");
        let (_, shown) = page.split_once("$ conduitfw explain --policy ").unwrap();
        let (question, rest) = shown.split_once('\n').unwrap();
        let after = |key: &str| question.split_once(key).unwrap().1.trim();
        let word = |key: &str| after(key).split(' ').next().unwrap().to_owned();
        let words = Words {
            from: word("--from "),
            to: word("--to "),
            modbus: Some(after("--modbus ").trim_matches('\'').to_owned()),
            ..Words::default()
        };
        let answer = explainer
            .answer(&words.read().unwrap())
            .unwrap()
            .to_string();
        assert!(rest.starts_with(&answer), "{answer}\n--- shown\n{rest}");
    }
}

#[test]
fn the_expectations_beside_the_examples_hold() {
    let mut compared = 0;
    for entry in fs::read_dir(root().join("rules/expect")).unwrap() {
        let path = entry.unwrap().path();
        let policy = root().join("rules").join(path.file_name().unwrap());
        holds(
            &fs::read_to_string(policy).unwrap(),
            &Expectations::open(&path).unwrap(),
        );
        compared += 1;
    }
    assert!(compared >= 2);
}
