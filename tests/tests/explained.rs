//! What `conduitfw explain` answers is what the data plane does: its frames, replayed by the simulator
//! and by the program in the kernel, end in the same verdict for the same reason.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use conduitfw_tests::lab::{binary, skipped_without_root};
use conduitfw_tests::replay::{Place, replay, text};
use serde_json::Value;

const POLICY: &str = r#"
[site]
name = "Waterworks North"
[zones.operations]
interfaces = ["eth0"]
networks = ["10.10.0.0/24", "fd00:10::/64"]
[zones.control]
interfaces = ["eth1"]
vlans = ["100.20"]
networks = ["10.20.0.0/24", "fd00:20::/64"]
[[conduits]]
name = "dosing"
from = ["operations"]
to = ["control"]
rationale = "Operators trim dosing"
on_deny = "ON_DENY"
udp = [123]
icmp_echo = true
[[conduits.modbus]]
name = "watch"
units = [1]
functions = ["read-holding-registers", "read-coils", "encapsulated-interface-transport"]
holding_registers = [{ first = 0, last = 99 }]
coils = [{ first = 0, last = 99 }]
mei_types = [14]
max_outstanding = 4
[[conduits.modbus]]
name = "trim"
units = [1]
functions = ["write-single-register", "write-multiple-registers"]
registers = ["40011-40014"]
values = { min = 0, max = 1500 }
max_step = 50
max_rate = "2/s burst 2"
[[conduits.modbus]]
name = "chlorine"
units = [1]
functions = ["write-multiple-registers"]
registers = ["40041-40044"]
type = "f32"
word_order = "low-first"
values = { min = 0.2, max = 1.8 }
max_step = 0.11
[[conduits.modbus]]
name = "acknowledge"
units = [1]
functions = ["mask-write-register"]
registers = ["40051"]
bits = ["0-3"]
[[conduits.modbus]]
name = "recipes"
units = [1]
functions = ["read-file-record"]
files = [4]
records = "0-9"
"#;

/// What is asked, and the reason of the denial.
const QUESTIONS: &[(&[&str], Option<&str>)] = &[
    (&["--modbus", "unit=1 fc=3 address=0 quantity=100"], None),
    (
        &["--modbus", "unit=2 fc=3 address=0"],
        Some("unit-not-allowed"),
    ),
    (
        &["--modbus", "unit=1 fc=4 address=0"],
        Some("function-not-allowed"),
    ),
    (
        &["--modbus", "unit=1 fc=3 address=99 quantity=2"],
        Some("register-not-allowed"),
    ),
    (
        &["--modbus", "unit=1 fc=43 mei=13"],
        Some("mei-type-not-allowed"),
    ),
    (
        &["--modbus", "unit=1 fc=6 address=10 value=1501"],
        Some("value-not-allowed"),
    ),
    (
        &["--modbus", "unit=1 fc=16 address=10 values=1,2,3,1501"],
        Some("value-not-allowed"),
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=6 address=10 value=151",
            "--after",
            "unit=1 fc=6 address=10 value=100",
        ],
        Some("step-too-large"),
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=6 address=10 value=150",
            "--after",
            "unit=1 fc=6 address=10 value=100",
            "--after",
            "unit=1 fc=6 address=10 value=1600",
        ],
        None,
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=6 address=11 value=1",
            "--repeat",
            "4",
            "--every",
            "200ms",
        ],
        Some("rate-exceeded"),
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=6 address=11 value=1",
            "--repeat",
            "4",
            "--every",
            "500ms",
        ],
        None,
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=16 address=40 type=f32 word_order=low-first values=1.7,0.3",
        ],
        None,
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=16 address=41 type=f32 word_order=low-first value=1",
        ],
        Some("value-not-allowed"),
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=16 address=42 type=f32 word_order=low-first value=1",
            "--after",
            "unit=1 fc=16 address=42 type=f32 word_order=low-first value=0.8",
        ],
        Some("step-too-large"),
    ),
    (
        &["--modbus", "unit=1 fc=22 address=50 and=0xfff7 or=8"],
        None,
    ),
    (
        &["--modbus", "unit=1 fc=22 address=50 and=0xffef or=0"],
        Some("value-not-allowed"),
    ),
    (
        &["--modbus", "unit=1 fc=20 file=4 record=9 quantity=2"],
        Some("register-not-allowed"),
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=1 address=0 quantity=9",
            "--reply",
            "",
        ],
        None,
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=1 address=0 quantity=9",
            "--reply",
            "exception=4",
        ],
        None,
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=1 address=0 quantity=9",
            "--reply",
            "bytes=1",
        ],
        Some("reply-mismatch"),
    ),
    (
        &[
            "--modbus",
            "unit=1 fc=1 address=0 quantity=9",
            "--reply",
            "unsolicited",
        ],
        Some("unsolicited-reply"),
    ),
    (&["--tcp", "443"], Some("no-conduit")),
    (&["--tcp", "502"], None),
    (&["--udp", "123"], None),
    (&["--icmp-echo"], None),
];

/// The verdict, reason and conduit of the last frame.
fn last(policy: &Path, capture: &Path, how: &[&str]) -> Result<[Value; 3]> {
    let output = replay(policy, capture, how)?;
    let lines = text(&output.stdout);
    let last = lines.lines().last().context("no line")?;
    let line: Value = serde_json::from_str(last)?;
    Ok(["verdict", "reason", "conduit"].map(|key| line[key].clone()))
}

#[test]
fn explain_replay_and_the_kernel_say_the_same() -> Result<()> {
    let has_root = !skipped_without_root();
    let place = Place::new()?;
    let capture = place.path("asked.pcap");
    let variants = [
        ("reset", "operations", "control"),
        ("exception", "10.10.0.7:1024", "10.20.0.9"),
        ("drop", "fd00:10::7", "fd00:20::9"),
    ];
    for (variant, (on_deny, from, to)) in variants.into_iter().enumerate() {
        let policy = place.file("policy.toml", POLICY.replace("ON_DENY", on_deny))?;
        for (number, (asked, reason)) in QUESTIONS.iter().enumerate() {
            let output = Command::new(binary()?)
                .args(["explain", "--json", "--from", from, "--to", to, "--policy"])
                .arg(&policy)
                .arg("--pcap")
                .arg(&capture)
                .args(*asked)
                .output()?;
            ensure!(
                output.status.success(),
                "{asked:?}: {}",
                text(&output.stderr)
            );
            let answer: Value = serde_json::from_slice(&output.stdout)?;
            assert_eq!(answer["reason"].as_str(), *reason, "{asked:?}: {answer}");
            let answered = ["verdict", "reason", "conduit"].map(|key| answer[key].clone());
            let replayed = last(&policy, &capture, &["--json"])?;
            assert_eq!(replayed, answered, "replayed: {asked:?}, {on_deny}");
            // Loading the program takes its time: each question is asked of it once.
            if has_root && number % 3 == variant {
                let replayed = last(&policy, &capture, &["--json", "--kernel"])?;
                assert_eq!(replayed, answered, "in the kernel: {asked:?}, {on_deny}");
            }
        }
    }
    Ok(())
}
