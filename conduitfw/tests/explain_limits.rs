//! `conduitfw explain` where a rule limits registers, values, steps and rates, and of replies: a
//! denial names the rule and what it lacks.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use conduitfw::explain::cases::Words;
use conduitfw::explain::{Answer, Explainer, Stage};
use conduitfw::policy;

const POLICY: &str = r#"
[site]
name = "Waterworks North"
[zones.operations]
interfaces = ["eth0"]
networks = ["10.10.0.0/24"]
[zones.control]
interfaces = ["eth1"]
networks = ["10.20.0.0/24"]
[assets.hmi-1]
zone = "operations"
address = "10.10.0.5"
[assets.plc-dosing]
zone = "control"
address = "10.20.0.10"

[[conduits]]
name = "dosing"
from = ["hmi-1"]
to = ["plc-dosing"]
rationale = "Operators trim dosing"
[[conduits.modbus]]
name = "watch"
units = [1]
functions = ["read-holding-registers"]
registers = [{ first = 0, last = 99 }]
[[conduits.modbus]]
name = "setpoint"
units = [1]
functions = ["write-single-register", "write-multiple-registers", "mask-write-register"]
registers = ["40011-40014"]
values = { min = 0, max = 1500 }
[[conduits.modbus]]
name = "trim"
units = [1]
functions = ["write-single-register", "write-multiple-registers"]
registers = [{ first = 20, last = 27 }]
values = { min = 0, max = 1500 }
max_step = 50
[[conduits.modbus]]
name = "slow"
units = [1]
functions = ["write-single-register"]
registers = [30]
max_rate = "2/s"
[[conduits.modbus]]
name = "signed"
units = [1]
functions = ["write-single-register"]
registers = [31]
type = "i16"
values = { min = -100, max = 100 }
[[conduits.modbus]]
name = "chlorine"
units = [1]
functions = ["write-multiple-registers"]
registers = [{ first = 40, last = 43 }]
type = "f32"
word_order = "high-first"
values = { min = 0.2, max = 1.8 }
max_step = 0.11
[[conduits.modbus]]
name = "control-word"
units = [1]
functions = ["write-single-register", "mask-write-register"]
registers = [50]
bits = [0, 1, 2, 7]
[[conduits.modbus]]
name = "valves"
units = [1]
functions = ["write-single-coil", "write-multiple-coils"]
coils = [{ first = 0, last = 7 }]
values = [0]
[[conduits.modbus]]
name = "recipes"
units = [1]
functions = ["read-file-record"]
files = [4]
records = "0-9"
[[conduits.modbus]]
name = "vendor"
units = [1]
functions = [90]
max_length = 10
"#;

fn modbus(operation: &str) -> Words {
    Words {
        from: "hmi-1".to_owned(),
        to: "plc-dosing".to_owned(),
        modbus: Some(operation.to_owned()),
        ..Words::default()
    }
}

fn ask(words: &Words) -> Answer {
    ask_of(POLICY, words)
}

fn ask_of(text: &str, words: &Words) -> Answer {
    let loaded = policy::load_text("policy.toml", text);
    let policy = loaded
        .unwrap_or_else(|refusal| panic!("{}", refusal.render()))
        .policy;
    let explainer = Explainer::new(&policy).unwrap();
    let question = words.read().unwrap_or_else(|said| panic!("{said}"));
    explainer.answer(&question).unwrap()
}

/// The reason, and what is lacking.
fn denied(words: &Words) -> (&'static str, String) {
    let answer = ask(words);
    let Some(reason) = answer.found.reason else {
        panic!("{answer}");
    };
    let lacking: Vec<&str> = answer
        .lacking
        .iter()
        .map(|lack| lack.text.as_str())
        .collect();
    (reason.label(), lacking.join("\n"))
}

#[track_caller]
fn assert_allowed(words: &Words, rule: &str) {
    let answer = ask(words);
    assert_eq!(answer.found.reason, None, "{answer}");
    assert_eq!(answer.found.rule.as_deref(), Some(rule), "{answer}");
}

#[track_caller]
fn assert_denied(words: &Words, reason: &str, lacking: &str) {
    assert_eq!(denied(words), (reason_label(reason), lacking.to_owned()));
}

fn reason_label(label: &str) -> &'static str {
    let mut reasons = conduitfw_common::Reason::ALL.iter();
    reasons
        .find(|reason| reason.label() == label)
        .unwrap()
        .label()
}

#[test]
fn registers_outside_of_the_rules_are_named_both_ways() {
    assert_allowed(&modbus("unit=1 fc=6 address=10 value=1"), "dosing/setpoint");
    assert_denied(
        &modbus("unit=1 fc=16 address=12 values=1,2,3,4"),
        "register-not-allowed",
        "rule `dosing/setpoint` allows holding registers 10 to 13 (40011 to 40014), not holding \
         registers 14 to 15 (40015 to 40016)",
    );
    assert_denied(
        &modbus("unit=1 fc=3 address=99 quantity=2"),
        "register-not-allowed",
        "rule `dosing/watch` allows holding registers 0 to 99 (40001 to 40100), not holding \
         register 100 (40101)",
    );
    assert_denied(
        &modbus("unit=1 fc=5 address=9 value=0"),
        "register-not-allowed",
        "rule `dosing/valves` allows coils 0 to 7 (00001 to 00008), not coil 9 (00010)",
    );
    assert_denied(
        &modbus("unit=1 fc=3 address=65535 quantity=2"),
        "register-not-allowed",
        "there is no holding register beyond 65535",
    );
}

#[test]
fn a_modicon_number_taken_for_an_address_is_noticed() {
    let answer = ask(&modbus("unit=1 fc=6 address=40011 value=1"));
    assert_eq!(
        answer.remarks,
        ["40011 counts from 0; the Modicon number 40011 is address 10: say register=40011"]
    );
    assert_allowed(
        &modbus("unit=1 fc=6 register=40011 value=1"),
        "dosing/setpoint",
    );
    assert_allowed(
        &modbus("unit=1 fc=6 address=\"40011\" value=1"),
        "dosing/setpoint",
    );
    assert!(
        ask(&modbus("unit=1 fc=6 address=30011 value=1"))
            .remarks
            .is_empty()
    );
}

#[test]
fn an_operation_does_not_cross_the_border_of_a_rate() {
    let border = POLICY
        .replace("registers = [30]", "registers = [28]")
        .replace(
            "functions = [\"write-single-register\"]\nregisters = [28]",
            "functions = [\"write-multiple-registers\"]\nregisters = [28]",
        );
    let answer = ask_of(&border, &modbus("unit=1 fc=16 address=27 values=1,2"));
    assert_eq!(answer.found.reason.unwrap().label(), "register-not-allowed");
    assert_eq!(
        answer.lacking[0].text,
        "rule `dosing/slow` has a `max_rate`, so that one operation cannot touch holding \
         registers of it and of another rule"
    );
}

#[test]
fn values_outside_of_the_rule_are_named() {
    assert_denied(
        &modbus("unit=1 fc=6 address=10 value=9999"),
        "value-not-allowed",
        "rule `dosing/setpoint` allows values 0 to 1500, not 9999 (register 10)",
    );
    assert_denied(
        &modbus("unit=1 fc=16 address=10 values=1,2,1501"),
        "value-not-allowed",
        "rule `dosing/setpoint` allows values 0 to 1500, not 1501 (register 12)",
    );
    assert_denied(
        &modbus("unit=1 fc=6 address=31 value=-101"),
        "value-not-allowed",
        "rule `dosing/signed` allows values -100 to 100, not -101 (register 31)",
    );
    assert_denied(
        &modbus("unit=1 fc=16 address=42 type=f32 value=1.9"),
        "value-not-allowed",
        "rule `dosing/chlorine` allows values 0.2 to 1.8, not 1.9 (register 42)",
    );
    assert_denied(
        &modbus("unit=1 fc=16 address=41 type=f32 value=1"),
        "value-not-allowed",
        "rule `dosing/chlorine` takes f32 in two registers; the write has half of one (register \
         41)",
    );
    assert_denied(
        &modbus("unit=1 fc=15 address=2 values=0,0,1"),
        "value-not-allowed",
        "rule `dosing/valves` allows values 0, not 1 (coil 4)",
    );
    assert_allowed(
        &modbus("unit=1 fc=6 address=31 value=-100"),
        "dosing/signed",
    );
    assert_allowed(&modbus("unit=1 fc=5 address=2 value=off"), "dosing/valves");
    assert_allowed(
        &modbus("unit=1 fc=16 address=40 type=f32 values=1.8,0.2"),
        "dosing/chlorine",
    );
}

#[test]
fn bits_and_masks_are_named() {
    assert_denied(
        &modbus("unit=1 fc=6 address=50 value=0x0109"),
        "value-not-allowed",
        "rule `dosing/control-word` allows bits 0 to 2 and 7; the write sets bits 3 and 8 \
         (register 50)",
    );
    assert_denied(
        &modbus("unit=1 fc=22 address=50 and=0xff00 or=0x0001"),
        "value-not-allowed",
        "rule `dosing/control-word` allows bits 0 to 2 and 7; the write touches bits 3 to 6 \
         (register 50)",
    );
    assert_denied(
        &modbus("unit=1 fc=22 address=10 and=0xff00 or=1"),
        "value-not-allowed",
        "rule `dosing/setpoint` limits values, so that a mask must have and=0, which writes all \
         bits",
    );
    assert_allowed(
        &modbus("unit=1 fc=22 address=50 and=0xfffe or=1"),
        "dosing/control-word",
    );
}

#[test]
fn a_step_is_told_from_where_to_where() {
    let after = |operation: &str, before: &[&str]| Words {
        after: before.iter().map(ToString::to_string).collect(),
        ..modbus(operation)
    };
    assert_allowed(&modbus("unit=1 fc=6 address=20 value=1000"), "dosing/trim");
    assert_denied(
        &after(
            "unit=1 fc=6 address=20 value=200",
            &["unit=1 fc=6 address=20 value=100"],
        ),
        "step-too-large",
        "rule `dosing/trim` allows steps of 50, not 100 from 100 to 200 (register 20)",
    );
    // A register that was not written, and a value that did not pass, are nothing to compare with.
    assert_allowed(
        &after(
            "unit=1 fc=6 address=20 value=150",
            &[
                "unit=1 fc=6 address=21 value=900",
                "unit=1 fc=6 address=20 value=100",
                "unit=1 fc=6 address=20 value=1000",
            ],
        ),
        "dosing/trim",
    );
    assert_denied(
        &after(
            "unit=1 fc=16 address=40 type=f32 value=1",
            &["unit=1 fc=16 address=40 type=f32 value=0.8"],
        ),
        "step-too-large",
        "rule `dosing/chlorine` allows steps of 0.11, not 0.2 from 0.8 to 1 (register 40)",
    );
}

#[test]
fn a_rate_is_told_with_the_time_to_wait() {
    let often = |every: &str| Words {
        repeat: Some(3),
        every: Some(every.to_owned()),
        ..modbus("unit=1 fc=6 address=30 value=1")
    };
    assert_allowed(&often("500ms"), "dosing/slow");
    let answer = ask(&often("200ms"));
    assert_eq!(answer.stage, Stage::Operation { number: 2 }, "{answer}");
    assert_eq!(answer.found.reason.unwrap().label(), "rate-exceeded");
    assert_eq!(
        answer.lacking[0].text,
        "rule `dosing/slow` allows 2/s; the next one passes in 300 ms"
    );
}

#[test]
fn files_and_vendor_functions_are_named() {
    assert_allowed(
        &modbus("unit=1 fc=20 file=4 record=0 quantity=10"),
        "dosing/recipes",
    );
    assert_denied(
        &modbus("unit=1 fc=20 file=5 record=0"),
        "register-not-allowed",
        "rule `dosing/recipes` allows file 4, not file 5",
    );
    assert_denied(
        &modbus("unit=1 fc=20 file=4 record=8 quantity=3"),
        "register-not-allowed",
        "rule `dosing/recipes` allows records 0 to 9 of file 4, not 8 to 10",
    );
    assert_allowed(
        &modbus("unit=1 fc=90 data=0001020304050607"),
        "dosing/vendor",
    );
    let (_, lacking) = denied(&modbus("unit=1 fc=90 data=000102030405060708"));
    assert_eq!(
        lacking,
        "rule `dosing/vendor` allows function 90 with a length of 10 at most, not 11"
    );
}

#[test]
fn replies_are_held_against_their_request() {
    let replied = |reply: &str| Words {
        reply: Some(reply.to_owned()),
        ..modbus("unit=1 fc=3 address=0 quantity=9")
    };
    for right in ["", "exception=2", "bytes=18"] {
        let answer = ask(&replied(right));
        assert_eq!(answer.found.reason, None, "{right}: {answer}");
        assert_eq!(answer.stage, Stage::Reply);
    }
    assert_denied(
        &replied("unsolicited"),
        "unsolicited-reply",
        "no request with this transaction id waits for a reply",
    );
    let request = "the request is unit 1 read-holding-registers (3) address 0 quantity 9";
    for (reply, lacking) in [
        ("unit=2", "the reply is from unit 2"),
        ("fc=4", "the reply is read-input-registers (4)"),
        (
            "bytes=16",
            "its reply has 19 bytes behind the function code, not 17",
        ),
    ] {
        assert_denied(
            &replied(reply),
            "reply-mismatch",
            &format!("{request}; {lacking}"),
        );
    }
}

#[test]
fn a_denial_with_an_exception_keeps_the_connection() {
    let text = POLICY.replace(
        "rationale = \"Operators trim dosing\"",
        "rationale = \"Operators trim dosing\"\non_deny = \"exception\"",
    );
    let denied = ask_of(&text, &modbus("unit=1 fc=6 address=10 value=9999"));
    assert_eq!(denied.to_json()["verdict"], "exception");
    let words = Words {
        after: vec!["unit=1 fc=6 address=10 value=9999".to_owned(); 20],
        ..modbus("unit=1 fc=6 address=10 value=1")
    };
    let answer = ask_of(&text, &words);
    assert_eq!(answer.found.reason, None, "{answer}");
    assert_eq!(answer.found.rule.as_deref(), Some("dosing/setpoint"));
    // The handshake, a request and a refusal each, and the last request: one connection.
    assert_eq!(answer.frames.len(), 3 + 20 * 2 + 1, "{answer}");
    assert_eq!(answer.remarks.len(), 20, "{answer}");
}
