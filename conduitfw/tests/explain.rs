//! `conduitfw explain`: the answer is the decision's, and a denial names what the policy lacks.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use conduitfw::expect::Expectations;
use conduitfw::explain::cases::{self, Words};
use conduitfw::explain::{Answer, Explainer, Part};
use conduitfw::policy::{self, Policy};
use proptest::prelude::*;

const POLICY: &str = r#"
[site]
name = "Waterworks North"
[gateway]
addresses = ["10.10.0.1", "10.20.0.1"]
[zones.operations]
interfaces = ["eth0"]
networks = ["10.10.0.0/24", "fd00:10::/64"]
[zones.control]
interfaces = ["eth1"]
vlans = ["100.20"]
networks = ["10.20.0.0/24", "fd00:20::/64"]
[assets.hmi-1]
zone = "operations"
addresses = ["10.10.0.5", "fd00:10::5"]
[assets.historian]
zone = "operations"
address = "10.10.0.9"
[assets.plc-dosing]
zone = "control"
addresses = ["10.20.0.10", "fd00:20::10"]
[assets.plc-pumps]
zone = "control"
address = "10.20.0.11"

[[conduits]]
name = "dosing"
from = ["hmi-1"]
to = ["plc-dosing"]
rationale = "Operators watch dosing"
[[conduits.modbus]]
name = "watch"
units = ["1-3"]
functions = ["read-holding-registers", "read-input-registers"]
[[conduits.modbus]]
name = "setpoint"
units = [1]
functions = ["write-single-register", "write-multiple-registers"]
[[conduits.modbus]]
name = "identity"
units = [1]
functions = [8, 43]
sub_functions = ["return-query-data", "10-12"]
mei_types = [14]

[[conduits]]
name = "history"
from = ["historian"]
to = ["control"]
rationale = "History"
mode = "observe"
tcp = [4840]
udp = ["47808-47810"]
icmp_echo = true
[[conduits.modbus]]
units = "all"
functions = ["reads"]

[[conduits]]
name = "time"
from = ["gateway"]
to = ["control"]
rationale = "The gateway reads the clock"
udp = [123]
tcp = [22]
"#;

fn policy(text: &str) -> Policy {
    let loaded = policy::load_text("policy.toml", text);
    loaded
        .unwrap_or_else(|refusal| panic!("{}", refusal.render()))
        .policy
}

fn ask(text: &str, words: &Words) -> Answer {
    let policy = policy(text);
    let explainer = Explainer::new(&policy).unwrap();
    let question = words.read().unwrap_or_else(|said| panic!("{said}"));
    explainer.answer(&question).unwrap()
}

fn modbus(operation: &str) -> Words {
    Words {
        from: "hmi-1".to_owned(),
        to: "plc-dosing".to_owned(),
        modbus: Some(operation.to_owned()),
        ..Words::default()
    }
}

fn path(from: &str, to: &str) -> Words {
    Words {
        from: from.to_owned(),
        to: to.to_owned(),
        ..Words::default()
    }
}

/// What an answer says, without its second line (who asks whom what).
fn said(answer: &Answer) -> String {
    let text = answer.to_string();
    let lines = text.lines().enumerate().filter(|(number, _)| *number != 1);
    lines
        .map(|(_, line)| line.trim())
        .collect::<Vec<_>>()
        .join("\n")
}

fn parts(answer: &Answer) -> Vec<&'static str> {
    answer
        .lacking
        .iter()
        .map(|lack| lack.part.label())
        .collect()
}

#[test]
fn an_allowed_operation_names_its_rule() {
    let answer = ask(POLICY, &modbus("unit=2 fc=3 address=10 quantity=4"));
    assert_eq!(
        answer.to_string(),
        "allowed\n  hmi-1 (10.10.0.5, operations) -> plc-dosing (10.20.0.10, control), tcp port \
         502, modbus unit 2 read-holding-registers (3) address 10 quantity 4\n  rule \
         `dosing/watch` allows it\n"
    );
    assert_eq!(answer.found.rule.as_deref(), Some("dosing/watch"));
}

#[test]
fn a_denied_unit_names_the_rule_with_the_function() {
    let answer = ask(POLICY, &modbus("unit=9 fc=3 address=10"));
    assert_eq!(
        said(&answer),
        "denied (reset): unit-not-allowed\nno rule of the conduit names this unit\nconduit \
         `dosing` decides\nrule `dosing/watch` allows read-holding-registers (3) on units 1 to 3, \
         not on unit 9"
    );
    assert_eq!(answer.lacking[0].part, Part::Unit);
    let answer = ask(POLICY, &modbus("unit=9 fc=90"));
    assert!(said(&answer).contains("neither function 90 nor unit 9 is among them"));
}

#[test]
fn a_denied_function_names_the_nearest_rules() {
    let answer = ask(POLICY, &modbus("unit=2 fc=6 address=10 value=9999"));
    assert_eq!(parts(&answer), ["function", "unit"]);
    assert_eq!(
        answer.lacking[0].text,
        "rule `dosing/watch` allows read-holding-registers (3) and read-input-registers (4) on \
         unit 2, not write-single-register (6)"
    );
    assert_eq!(
        answer.lacking[1].text,
        "rule `dosing/setpoint` allows write-single-register (6) on unit 1, not on unit 2"
    );
    // A rule about writes is nearer to a write.
    let answer = ask(POLICY, &modbus("unit=1 fc=15 address=0 values=1"));
    assert_eq!(answer.lacking[0].rule.as_deref(), Some("dosing/setpoint"));
}

#[test]
fn denied_sub_functions_and_mei_types_are_named() {
    let answer = ask(POLICY, &modbus("unit=1 fc=8 sub_function=4"));
    assert_eq!(
        answer.lacking[0].text,
        "rule `dosing/identity` allows sub-function return-query-data (0) and 10 to 12, not \
         force-listen-only-mode (4)"
    );
    let answer = ask(POLICY, &modbus("unit=1 fc=43 mei=canopen"));
    assert_eq!(parts(&answer), ["mei-type"]);
    let answer = ask(POLICY, &modbus("unit=1 fc=8 sub_function=11"));
    assert_eq!(answer.found.rule.as_deref(), Some("dosing/identity"));
}

#[test]
fn a_path_without_a_conduit_names_the_nearest_one() {
    let tcp = |from: &str, to: &str, port| Words {
        tcp: Some(port),
        ..path(from, to)
    };
    let text = |words: &Words| ask(POLICY, words).lacking[0].text.clone();
    assert_eq!(
        text(&tcp("hmi-1", "plc-dosing", 443)),
        "conduit `dosing` opens modbus on tcp port 502, not tcp port 443"
    );
    assert_eq!(
        text(&tcp("historian", "plc-pumps", 443)),
        "conduit `history` opens modbus on tcp port 502; tcp port 4840; udp port 47808 to 47810; \
         icmp echo, not tcp port 443"
    );
    assert_eq!(
        text(&tcp("hmi-1", "plc-pumps", 4840)),
        "conduit `history` is from historian, not from hmi-1"
    );
    assert_eq!(
        text(&tcp("plc-pumps", "historian", 4840)),
        "conduit `history` is the other way: from historian to control"
    );
    assert_eq!(
        text(&tcp("10.20.0.77", "10.10.0.77", 80)),
        "no conduit leads from 10.20.0.77 (control) to 10.10.0.77 (operations)"
    );
    assert_eq!(
        text(&tcp("hmi-1", "10.99.0.1", 80)),
        "10.99.0.1 belongs to no zone"
    );
    assert_eq!(
        text(&tcp("10.99.0.1", "hmi-1", 80)),
        "10.99.0.1 belongs to no zone"
    );
}

#[test]
fn plain_services_are_answered() {
    for words in [
        Words {
            tcp: Some(4840),
            ..path("historian", "control")
        },
        Words {
            udp: Some(47_809),
            ..path("10.10.0.9:50000", "10.20.0.200")
        },
        Words {
            icmp_echo: true,
            ..path("historian", "plc-pumps")
        },
        Words {
            udp: Some(123),
            ..path("gateway", "plc-pumps")
        },
        Words {
            tcp: Some(22),
            ..path("gateway", "control")
        },
        modbus("unit=1 fc=3 address=0"),
        Words {
            to: "plc-dosing:502".to_owned(),
            from: "hmi-1:1025".to_owned(),
            ..modbus("unit=1,fc=3,address=0")
        },
        Words {
            from: "fd00:10::5".to_owned(),
            to: "fd00:20::10".to_owned(),
            ..modbus("unit=1 fc=3 address=0")
        },
    ] {
        let answer = ask(POLICY, &words);
        assert_eq!(answer.found.reason, None, "{answer}");
        assert!(answer.found.conduit.is_some(), "{answer}");
    }
}

#[test]
fn what_is_inspected_and_what_is_not_is_remarked() {
    let words = Words {
        tcp: Some(502),
        ..path("hmi-1", "plc-dosing")
    };
    let remarks = ask(POLICY, &words).remarks;
    assert!(remarks[0].contains("each Modbus operation on it is judged by itself"));
    let words = Words {
        port: Some(4840),
        from: "historian".to_owned(),
        ..modbus("unit=1 fc=5 address=0 value=on")
    };
    let answer = ask(POLICY, &words);
    assert_eq!(answer.found.reason, None, "{answer}");
    assert_eq!(
        answer.remarks,
        ["what goes over tcp port 4840 is not inspected"]
    );
}

#[test]
fn the_gateway_needs_addresses_to_be_asked_about() {
    let text = POLICY.replace("[gateway]\naddresses = [\"10.10.0.1\", \"10.20.0.1\"]", "");
    let policy = policy(&text);
    let words = Words {
        udp: Some(123),
        ..path("gateway", "control")
    };
    let explainer = Explainer::new(&policy).unwrap();
    let said = explainer
        .answer(&words.read().unwrap())
        .unwrap_err()
        .to_string();
    assert!(said.contains("[gateway]"), "{said}");
}

#[test]
fn what_is_only_observed_says_so() {
    let words = Words {
        modbus: Some("unit=1 fc=5 address=0 value=on".to_owned()),
        ..path("historian", "plc-pumps")
    };
    let answer = ask(POLICY, &words);
    assert!(answer.would_deny);
    assert!(
        answer
            .to_string()
            .starts_with("would be denied, but is observed: function-not-allowed\n")
    );
    assert_eq!(answer.to_json()["verdict"], "pass");
    assert_eq!(answer.to_json()["reason"], "function-not-allowed");
}

#[test]
fn after_a_denied_operation_the_next_connection_is_asked() {
    let words = Words {
        after: vec!["unit=2 fc=6 address=0 value=1".to_owned()],
        ..modbus("unit=2 fc=3 address=0")
    };
    let answer = ask(POLICY, &words);
    assert_eq!(answer.found.reason, None, "{answer}");
    assert_eq!(answer.remarks.len(), 1, "{answer}");
}

#[test]
fn every_way_into_a_wrong_question_is_told() {
    let policy = policy(POLICY);
    let explainer = Explainer::new(&policy).unwrap();
    let told = |words: &Words| match words.read() {
        Err(said) => said,
        Ok(question) => explainer.answer(&question).unwrap_err().to_string(),
    };
    let tcp = |from: &str, to: &str| Words {
        tcp: Some(1),
        ..path(from, to)
    };
    for (words, said) in [
        (tcp("hmi-2", "plc-pumps"), "did you mean `hmi-1`?"),
        (tcp("hmi-1", "10.20.0.10:502"), "contradicts"),
        (tcp("fd00:10::5", "plc-pumps"), "same family"),
        (path("hmi-1", "plc-pumps"), "one of modbus, tcp, udp"),
        (
            Words {
                repeat: Some(2),
                ..tcp("hmi-1", "plc-pumps")
            },
            "`repeat` is for questions about modbus",
        ),
        (
            Words {
                every: Some("soon".to_owned()),
                ..modbus("unit=1 fc=3 address=0")
            },
            "`soon` is not a time",
        ),
        (
            Words {
                repeat: Some(0),
                ..modbus("unit=1 fc=3 address=0")
            },
            "out of range",
        ),
    ] {
        let found = told(&words);
        assert!(found.contains(said), "{found}");
    }
}

const CASES: &str = r#"
[[expect]]
name = "operators watch"
from = "hmi-1"
to = "plc-dosing"
modbus = "unit=1 fc=3 address=0 quantity=10"
verdict = "pass"
rule = "dosing/watch"

[[expect]]
from = "hmi-1"
to = "plc-dosing"
modbus = "unit=2 fc=6 address=0 value=1"
verdict = "reset"
reason = "unit-not-allowed"

[[expect]]
name = "the historian may try"
from = "historian"
to = "plc-pumps"
tcp = 4840
verdict = "pass"
reason = "none"
conduit = "history"
"#;

#[test]
fn cases_beside_the_policy_are_compared() {
    let policy = policy(POLICY);
    let explainer = Explainer::new(&policy).unwrap();
    let compare = |text: &str| {
        let expectations = Expectations::from_text("tests.toml", text);
        cases::compare(&explainer, &expectations)
    };
    let outcome = compare(CASES).unwrap();
    assert_eq!(
        outcome.to_string(),
        "tests.toml:10: hmi-1 -> plc-dosing: unit=2 fc=6 address=0 value=1\n  wanted  reset, \
         reason unit-not-allowed\n  found   reset, reason function-not-allowed, conduit dosing\n  \
         \x20       rule `dosing/watch` allows read-holding-registers (3) and read-input-registers \
         (4) on unit 2, not write-single-register (6); rule `dosing/setpoint` allows \
         write-single-register (6) on unit 1, not on unit 2\ntests.toml: 2 of 3 expectations hold\n"
    );
    assert!(
        compare(&CASES.replace("unit-not", "function-not"))
            .unwrap()
            .is_met()
    );
    let said = compare(&CASES.replace("hmi-1", "hmi-7")).unwrap_err();
    assert!(
        said.to_string()
            .starts_with("tests.toml:2: `hmi-7` is neither")
    );
}

/// Any operation that can be asked about, rightly or wrongly put.
fn operations() -> impl Strategy<Value = String> {
    let number = || prop_oneof![0_i64..20, -40_000_i64..70_000];
    let keys = prop_oneof![
        Just("address"),
        Just("quantity"),
        Just("value"),
        Just("values"),
        Just("and"),
        Just("or"),
        Just("sub_function"),
        Just("mei"),
        Just("file"),
        Just("record"),
        Just("read_address"),
        Just("read_quantity"),
        Just("register"),
        Just("nonsense"),
    ];
    let more = proptest::collection::vec((keys, number()), 0..6);
    let function = prop_oneof![0_u8..=24, Just(43), 0_u8..=255];
    (0_u8..=4, function, more).prop_map(|(unit, function, more)| {
        let more: Vec<String> = more
            .into_iter()
            .map(|(key, number)| format!("{key}={number}"))
            .collect();
        format!("unit={unit} fc={function} {}", more.join(" "))
    })
}

proptest! {
    #[test]
    fn any_words_are_refused_or_read(text in ".*", reply in ".*") {
        let words = Words { reply: Some(reply), ..modbus(&text) };
        let _ = words.read();
    }

    /// Whatever is asked has an answer, of some conduit, and a denial has a reason.
    #[test]
    fn any_operation_is_answered(operation in operations(), from in 0..2_usize) {
        let policy = policy(POLICY);
        let explainer = Explainer::new(&policy).unwrap();
        let from = ["hmi-1", "historian"][from];
        let words = Words { from: from.to_owned(), ..modbus(&operation) };
        let Ok(question) = words.read() else {
            return Ok(());
        };
        let answer = explainer.answer(&question).unwrap();
        prop_assert!(answer.found.conduit.is_some(), "{}", answer);
        let passes = answer.found.verdict == conduitfw_common::Verdict::Pass;
        prop_assert_eq!(passes, answer.found.reason.is_none() || answer.would_deny);
        prop_assert_eq!(answer.found.rule.is_some(), answer.found.reason.is_none());
    }
}
