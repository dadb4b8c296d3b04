//! Reading and laying out policies takes a bounded time, whatever their author had in mind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use conduitfw::policy::{self, CompiledTables, Ids, Policy, Surroundings};

const PLANT: &str = r#"
[site]
name = "Plant"

[zones.a]
interfaces = ["eth0"]
networks = ["10.0.0.0/24"]

[zones.b]
interfaces = ["eth1"]
networks = ["10.1.0.0/24"]

[assets.b1]
zone = "b"
address = "10.1.0.1"
"#;

const CONDUIT: &str = "
[[conduits]]
name = \"c\"
from = [\"a\"]
to = [\"b\"]
rationale = \"Test\"
";

fn read(text: &str) -> Policy {
    policy::load_text("p.toml", text)
        .unwrap_or_else(|refusal| panic!("{}\n{text}", refusal.render()))
        .policy
}

fn compile(policy: &Policy) -> CompiledTables {
    let surroundings = Surroundings {
        ticks_per_second: 250,
        gateway_addresses: Vec::new(),
        generation: 1,
    };
    policy::compile(policy, &mut Ids::default(), &surroundings).unwrap()
}

/// 250 conduits of four rules each.
fn thousand_rules() -> String {
    let mut text = PLANT.to_owned();
    for number in 0..250 {
        let _ = write!(
            text,
            "[[conduits]]\nname = \"c{number}\"\nfrom = [\"a\"]\nto = [\"b1\"]\nrationale = \
             \"Test\"\n"
        );
        for rule in 0..4 {
            let unit = (number * 4 + rule) % 256;
            let _ = write!(
                text,
                "[[conduits.modbus]]\nport = {}\nunits = [{unit}]\nfunctions = [\"reads\", 6]\n",
                1000 + number
            );
        }
    }
    text
}

#[test]
fn a_thousand_rules_compile_at_once() {
    let text = thousand_rules();
    let start = Instant::now();
    let policy = read(&text);
    let tables = compile(&policy);
    let took = start.elapsed();
    println!("1,000 rules: {took:?}");
    assert_eq!(tables.rule_sets.len(), 251);
    // Milliseconds when optimised; the limit leaves room for a slow build on a busy machine.
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// 10,000 rules, each with a register, values, a step and a rate of its own.
fn ten_thousand_rules() -> String {
    let mut text = format!("{PLANT}{CONDUIT}");
    for number in 0..10_000 {
        let _ = write!(
            text,
            "[[conduits.modbus]]\nname = \"r{number}\"\nunits = [1]\nfunctions = [3, 6, \
             16]\nregisters = [{}]\nvalues = {{ min = {}, max = {} }}\nmax_step = {}\n{}",
            number * 2,
            number % 100,
            1000 + number,
            1 + number % 50,
            if number % 10 == 0 {
                "max_rate = \"2/s\"\n"
            } else {
                ""
            }
        );
    }
    text
}

#[test]
fn ten_thousand_rules_compile_at_once() {
    let text = ten_thousand_rules();
    let start = Instant::now();
    let policy = read(&text);
    let read_in = start.elapsed();
    let tables = compile(&policy);
    let took = start.elapsed();
    println!("10,000 register rules: read in {read_in:?}, all in {took:?}");
    // One for what a rule lets read, and one for what it lets write.
    assert_eq!(tables.intervals.len(), 20_000);
    assert!(tables.rule(1, 1, 16, 19_998).is_some());
    assert_eq!(tables.rule(1, 1, 16, 19_999), None);
    if cfg!(debug_assertions) {
        // A build without optimisation, on a busy machine.
        assert!(took < Duration::from_secs(30), "{took:?}");
    } else {
        let compiled_in = took.saturating_sub(read_in);
        assert!(compiled_in < Duration::from_millis(100), "{compiled_in:?}");
    }
}

#[test]
fn the_worst_of_register_rules_are_judged_in_time() {
    let start = Instant::now();
    let rules: [fn(u32) -> String; 4] = [
        // Every range within all the others.
        |n| {
            format!(
                "units = [1]\nfunctions = [16]\nregisters = [{{ first = {n}, last = {} }}]\n",
                60_000 - n
            )
        },
        // All of them contradict one another.
        |n| format!("units = [1]\nfunctions = [6]\nvalues = [{n}]\n"),
        // Every unit has other rules.
        |n| {
            format!(
                "units = [\"{}-255\"]\nfunctions = [6]\nregisters = [{n}]\n",
                n % 256
            )
        },
        // Every function of every rule.
        |n| {
            format!(
                "units = [1]\nfunctions = \"all\"\nmax_rate = \"{}/s\"\n",
                1 + n
            )
        },
    ];
    for rule in rules {
        let mut text = format!("{PLANT}{CONDUIT}");
        for number in 0..2_000 {
            text.push_str("[[conduits.modbus]]\n");
            text.push_str(&rule(number));
        }
        let begin = Instant::now();
        let loaded = policy::load_text("p.toml", &text);
        let codes = loaded.err().map(|refusal| refusal.diagnostics()[0].code);
        println!("{:?}: {codes:?}", begin.elapsed());
        assert!(codes.is_none_or(|code| matches!(code, "does-not-fit" | "limited-twice")));
    }
    let took = start.elapsed();
    assert!(took < Duration::from_mins(2), "{took:?}");
}

/// An entry of a list by its number.
type Entry = fn(u32) -> String;

#[test]
fn the_longest_lists_are_read_in_time() {
    let head = format!("{PLANT}{CONDUIT}[[conduits.modbus]]\nunits = [1]\nfunctions = [16]\n");
    let entries: [(&str, Entry); 7] = [
        ("registers", |n| format!("{}", n % 65_536)),
        ("registers", |n| format!("\"{}\"", 400_001 + n % 65_536)),
        ("registers", |n| {
            format!("{{first={},last=65535}}", n % 65_536)
        }),
        ("registers", |_| "\"x\"".to_owned()),
        ("registers", |n| {
            if n % 2 == 0 { "\"40001\"" } else { "1" }.to_owned()
        }),
        ("values", |n| format!("{}", n * 7 % 65_536)),
        ("values", |n| format!("\"{}-65535\"", n % 65_536)),
    ];
    for (key, entry) in entries {
        let mut text = format!("{head}{key} = [");
        let mut number = 0;
        while text.len() < policy::MAX_POLICY_BYTES - 40 {
            text.push_str(&entry(number));
            text.push(',');
            number += 1;
        }
        text.push_str("]\n");
        let begin = Instant::now();
        let loaded = policy::load_text("p.toml", &text);
        let took = begin.elapsed();
        let found = loaded.map_or_else(
            |refusal| refusal.diagnostics()[0].message.clone(),
            |loaded| format!("{} notes", loaded.notes.len()),
        );
        println!("{number} of {key}: {took:?}, {found}");
        // Seconds, on a machine that has nothing else to do; what grows with the square needs hours.
        assert!(took < Duration::from_mins(3), "{key}: {took:?}");
    }
}

#[test]
fn a_policy_of_a_mebibyte_is_judged_in_time() {
    let start = Instant::now();
    for line in [
        "[zones.z{}]\n",
        "[assets.z{}]\n",
        "x{} = 1\n",
        "[[conduits]]#{}\n",
    ] {
        let mut text = String::new();
        let mut number = 0;
        while text.len() < (1 << 20) - 40 {
            text.push_str(&line.replace("{}", &number.to_string()));
            number += 1;
        }
        let begin = Instant::now();
        let refusal = policy::load_text("p.toml", &text).unwrap_err();
        println!("{line:?}: {:?}", begin.elapsed());
        assert!(refusal.diagnostics().len() <= 200);
        assert!(refusal.render().contains("more problems are not shown"));
    }
    let larger = "#".repeat(policy::MAX_POLICY_BYTES + 1);
    let refusal = policy::load_text("p.toml", &larger).unwrap_err();
    assert_eq!(refusal.diagnostics()[0].code, "file-too-large");
    assert!(
        start.elapsed() < Duration::from_mins(1),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_worst_of_rules_are_judged_in_time() {
    let start = Instant::now();
    let rules: [fn(u32) -> String; 3] = [
        |n| {
            format!(
                "ports = [\"{}-{}\"]\nunits = [1]\nfunctions = [1]\n",
                1 + n,
                60_000 - n
            )
        },
        |n| format!("port = {}\nunits = [1]\nfunctions = [1]\n", 1 + n),
        |n| {
            format!(
                "units = [\"{}-255\"]\nfunctions = [8]\nsub_functions = [{n}]\n",
                n % 256
            )
        },
    ];
    for rule in rules {
        let mut text = format!("{PLANT}{CONDUIT}");
        for number in 0..1_500 {
            text.push_str("[[conduits.modbus]]\n");
            text.push_str(&rule(number));
        }
        let begin = Instant::now();
        let loaded = policy::load_text("p.toml", &text);
        let code = loaded.err().map(|refusal| refusal.diagnostics()[0].code);
        println!("{:?}: {:?}", begin.elapsed(), code);
        assert!(code.is_none_or(|code| code == "does-not-fit"));
    }
    assert!(
        start.elapsed() < Duration::from_mins(2),
        "{:?}",
        start.elapsed()
    );
}
