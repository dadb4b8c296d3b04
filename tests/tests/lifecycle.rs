//! Reloads, refusals, restarts: the plant notices none of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::lab::source_directory;
use conduitfw_tests::load::{Load, retransmissions};
use conduitfw_tests::peers::{Device, Listener, ModbusClient, Plc, RawClient, connect_from};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{DOSING, HMI, PLANT, PLC, STRANGER, Scene, dosing};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::Value;

/// Allows unit 1 to be read, and has `count` rules in all.
fn rules(count: usize) -> String {
    let functions = [
        "read-coils",
        "read-discrete-inputs",
        "read-input-registers",
        "write-single-coil",
    ];
    let more = (1..count).map(|rule| {
        let (unit, function) = (rule % 256, functions[rule / 256 % 4]);
        format!("\n[[conduits.modbus]]\nunits = [{unit}]\nfunctions = [\"{function}\"]\n")
    });
    dosing(r#""read-holding-registers""#) + &more.collect::<String>()
}

fn generation(scene: &Scene) -> Result<u64> {
    scene.status()?["generation"]
        .as_u64()
        .context("no generation")
}

fn wait_for_generation(scene: &Scene, wanted: u64) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        if generation(scene)? == wanted {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!(
        "generation {wanted} did not come; the log: {}",
        scene.conduitfw.files().log()
    )
}

fn write_is_reset(scene: &Scene) -> Result<()> {
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    ensure!(client.write(0, 1).is_err(), "a write was answered");
    Ok(())
}

#[test]
fn reloads_under_load_lose_nothing() -> Result<()> {
    let small = dosing(r#""reads""#);
    let scene = scene!(&small);
    let (operations, control) = (scene.operations()?, scene.control()?);
    let _plc = Plc::start(control, (PLC, 502))?;
    let load = Load::start(operations, HMI, (PLC, 502), 4)?;
    let before = retransmissions(operations)? + retransmissions(control)?;
    let large = rules(1000);
    let started = Instant::now();
    for round in 0..10 {
        let so_far = load.transactions();
        scene.reload(if round % 2 == 0 { &large } else { &small })?;
        let patience = Instant::now();
        while load.transactions() == so_far && patience.elapsed() < Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(5));
        }
    }
    let took = started.elapsed();
    let transactions = load.stop()?;
    let after = retransmissions(operations)? + retransmissions(control)?;
    println!("{transactions} transactions during 10 reloads in {took:?}");
    assert_eq!(after, before, "segments had to be sent again");
    assert_eq!(generation(&scene)?, 11);
    Ok(())
}

#[test]
fn a_reload_allows_a_write_while_the_connection_goes_on() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(10, 1)?;
    scene.reload(&dosing(r#""reads", "write-single-register""#))?;
    client.write(10, 900)?;
    assert_eq!(client.read(10, 1)?, [900]);
    scene.reload(&dosing(r#""reads""#))?;
    assert_eq!(client.read(10, 1)?, [900]);
    ensure!(
        client.write(10, 901).is_err(),
        "the write after it was forbidden again"
    );
    Ok(())
}

#[test]
fn a_reload_ends_the_connections_that_it_forbids() -> Result<()> {
    let scene = scene!(&format!("{PLANT}{DOSING}tcp = [4840, 4841]\n"));
    let _one = Listener::echo(scene.control()?, (PLC, 4840))?;
    let _other = Listener::echo(scene.control()?, (PLC, 4841))?;
    let mut kept = RawClient::connect(scene.operations()?, Some(HMI), (PLC, 4840))?;
    let mut ended = RawClient::connect(scene.operations()?, Some(HMI), (PLC, 4841))?;
    let request = adu(1, 1, modbus::read(3, 0, 1));
    kept.exchange(&request)?;
    ended.exchange(&request)?;
    scene.reload(&format!("{PLANT}{DOSING}tcp = [4840]\n"))?;
    kept.exchange(&request)
        .context("the connection that is still allowed")?;
    let error = ended
        .exchange(&request)
        .err()
        .context("the forbidden connection goes on")?;
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    Ok(())
}

#[test]
fn a_refused_policy_leaves_the_old_one_in_force() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    let right = dosing(r#""all""#);
    for (broken, hint) in [
        (right.replace("units", "unitz"), "units"),
        (right.replace("rationale", "# rationale"), "rationale"),
        (right.replace("10.20.0.10", "10.99.0.10"), "10.99.0.10"),
        (
            right.replace("\"all\"", "\"write-singel-register\""),
            "write-single-register",
        ),
        (
            right.replace("[zones.control]", "[zones.control"),
            "policy.toml:",
        ),
        (String::new(), "policy.toml"),
    ] {
        let reload = scene.conduitfw.reload(&broken)?;
        assert_eq!(reload.status, Some(1), "{}", reload.said);
        ensure!(reload.said.contains(hint), "no {hint} in: {}", reload.said);
        client.read(0, 1).context("the running connection")?;
    }
    write_is_reset(&scene)?;
    assert_eq!(generation(&scene)?, 1);
    Ok(())
}

#[test]
fn sighup_and_watch_reload_too() -> Result<()> {
    let mut scene = scene!(&dosing(r#""reads""#));
    let policy = scene.conduitfw.files().policy();
    fs::write(&policy, rules(3))?;
    let process = i32::try_from(scene.conduitfw.process().context("no process")?)?;
    kill(Pid::from_raw(process), Signal::SIGHUP)?;
    wait_for_generation(&scene, 2)?;
    scene.conduitfw.stop(Signal::SIGTERM)?;
    scene.conduitfw.run(&["--watch"])?;
    let started = generation(&scene)?;
    fs::write(&policy, rules(4))?;
    wait_for_generation(&scene, started + 1)?;
    // Editors write beside the file and rename.
    let beside = policy.with_extension("new");
    fs::write(&beside, rules(5))?;
    fs::rename(&beside, &policy)?;
    wait_for_generation(&scene, started + 2)
}

/// The digest of a file as an auditor takes it.
fn sha256sum(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split(' ').next().context("no digest")?.to_owned())
}

#[test]
fn status_says_who_put_which_text_in_force_and_what_a_restart_would() -> Result<()> {
    let mut scene = scene!(&dosing(r#""reads""#));
    let policy = scene.conduitfw.files().policy();
    let mut events = scene.conduitfw.events(&["--json"])?;
    let found = |scene: &Scene| -> Result<[String; 3]> {
        let status = scene.status()?;
        let fields = [
            &status["by"],
            &status["sha256"],
            &status["controller"]["file_now"],
        ];
        Ok(fields.map(|field| field.as_str().unwrap_or("nothing").to_owned()))
    };
    let wanted = |by: &str, digest: &str, file: &str| [by, digest, file].map(str::to_owned);
    let first = sha256sum(&policy)?;
    assert_eq!(
        found(&scene)?,
        wanted("the start of the controller", &first, "in-force")
    );

    // By name: the controller's own file is another one still.
    let other = policy.with_extension("other");
    fs::write(&other, rules(3))?;
    let other_name = other.to_str().context("not UTF-8")?;
    let reload = scene.conduitfw.output("reload", &[other_name])?;
    ensure!(reload.status.success(), "{reload:?}");
    let second = sha256sum(&other)?;
    let status = found(&scene)?;
    ensure!(status[0].starts_with("root (uid 0)"), "{status:?}");
    assert_eq!(status[1..], wanted("", &second, "another")[1..]);
    let words = scene.conduitfw.output("status", &[])?;
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    for part in [
        ", by root (uid 0)",
        &format!("sha256 {second}\n"),
        "that file holds another text than the one in force",
    ] {
        ensure!(words.contains(part), "no `{part}` in: {words}");
    }
    let event = events.find(|line| line.contains(r#""event":"policy","generation":2"#))?;
    let event: Value = serde_json::from_str(&event)?;
    assert_eq!(event["sha256"], *second);
    assert_eq!(event["by"], *status[0]);

    let process = i32::try_from(scene.conduitfw.process().context("no process")?)?;
    kill(Pid::from_raw(process), Signal::SIGHUP)?;
    wait_for_generation(&scene, 3)?;
    assert_eq!(found(&scene)?, wanted("SIGHUP", &first, "in-force"));
    fs::rename(&policy, policy.with_extension("gone"))?;
    assert_eq!(found(&scene)?, wanted("SIGHUP", &first, "unreadable"));
    // Whoever opens it for reading waits for somebody who writes.
    mkfifo(&policy, Mode::S_IRUSR)?;
    assert_eq!(found(&scene)?, wanted("SIGHUP", &first, "unreadable"));
    let log = scene.conduitfw.files().log();
    let line = format!("is in force, by SIGHUP (sha256 {first})");
    ensure!(log.contains(&line), "no `{line}` in: {log}");

    // Without a controller it is known still; and who passes events on notices.
    scene.conduitfw.stop(Signal::SIGTERM)?;
    assert_eq!(found(&scene)?, wanted("SIGHUP", &first, "nothing"));
    assert_eq!(events.ended()?, Some(2));
    Ok(())
}

/// Names of the fields of an object, and of those within it; not of objects that are named by what they are about.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (field, value) in object {
                found.insert(field.clone());
                if !matches!(
                    field.as_str(),
                    "reasons" | "maps" | "forwarding" | "response_times"
                ) {
                    fields(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn the_fields_of_the_status_are_the_documented_ones() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let mut found = BTreeSet::new();
    fields(&scene.status()?, &mut found);
    let page = fs::read_to_string(source_directory().join("docs/operations.md"))?;
    let table = page
        .split_once("That of `status` is one object")
        .and_then(|(_, rest)| rest.split_once("## "))
        .context("no table")?
        .0;
    let is_word = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let words = table.split('`').skip(1).step_by(2);
    let documented: BTreeSet<String> = words
        .filter(|word| is_word(word))
        .map(str::to_owned)
        .collect();
    let values = [
        "another",
        "enforce",
        "generic",
        "missing",
        "native",
        "observe",
        "status",
        "unreadable",
    ];
    for field in &found {
        ensure!(documented.contains(field), "not documented: {field}");
    }
    for word in &documented {
        ensure!(
            found.contains(word) || values.contains(&word.as_str()),
            "documented, and not there: {word}"
        );
    }
    Ok(())
}

/// Frames that all conduits have counted.
fn seen(scene: &Scene) -> Result<u64> {
    scene.status()?["frames"]["seen"]
        .as_u64()
        .context("no frames")
}

#[test]
fn the_plant_outlives_the_controller() -> Result<()> {
    let mut scene = scene!(&dosing(r#""reads""#));
    let (operations, control) = (scene.operations()?.clone(), scene.control()?.clone());
    let _plc = Plc::start(&control, (PLC, 502))?;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let load = Load::start(&operations, HMI, (PLC, 502), 2)?;
        let before = retransmissions(&operations)? + retransmissions(&control)?;
        let counted = seen(&scene)?;
        scene.conduitfw.stop(signal)?;
        // Nobody is at the controls: reads go on, writes are reset, strangers get nowhere.
        thread::sleep(Duration::from_millis(300));
        let alone = load.transactions();
        thread::sleep(Duration::from_millis(300));
        ensure!(
            load.transactions() > alone,
            "reads stopped with the controller"
        );
        scene.conduitfw.run(&[])?;
        thread::sleep(Duration::from_millis(300));
        load.stop().with_context(|| format!("around {signal}"))?;
        let after = retransmissions(&operations)? + retransmissions(&control)?;
        assert_eq!(after, before, "{signal}: segments had to be sent again");
        ensure!(
            seen(&scene)? > counted,
            "{signal}: the counters started anew"
        );
    }
    scene.conduitfw.stop(Signal::SIGKILL)?;
    write_is_reset(&scene)?;
    let patience = Duration::from_millis(600);
    ensure!(connect_from(&operations, Some(STRANGER), (PLC, 502), patience).is_err());
    // The next controller gets the events that came while there was none, and those to come.
    scene.conduitfw.run(&[])?;
    let events = scene.conduitfw.events(&["--json"])?;
    events.find(|line| line.contains("function-not-allowed"))?;
    write_is_reset(&scene)?;
    events.find(|line| line.contains("function-not-allowed"))?;
    Ok(())
}

#[test]
fn detach_removes_everything() -> Result<()> {
    let mut scene = scene!(&dosing(r#""reads""#));
    let _device = Device::start(scene.control()?, (PLC, 502))?;
    let pins = scene.conduitfw.files().pins();
    ensure!(pins.exists(), "there are no pins at {}", pins.display());
    scene.conduitfw.stop(Signal::SIGTERM)?;
    let output = scene.conduitfw.output("detach", &[])?;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(!pins.exists(), "{} is still there", pins.display());
    let links = scene.lab.gateway().run("ip link show")?;
    ensure!(!links.contains("xdp"), "{links}");
    let mut client = RawClient::connect(scene.operations()?, Some(STRANGER), (PLC, 502))?;
    client.exchange(&adu(1, 1, modbus::write_single(6, 0, 1)))?;
    Ok(())
}

#[test]
fn status_says_where_nothing_is_filtered() -> Result<()> {
    let mut scene = scene!(&dosing(r#""reads""#));
    let pins = scene.conduitfw.files().pins();
    for (link, left) in [("link-eth1", true), ("link-eth0", false)] {
        fs::remove_file(pins.join(link))?;
        // The program is taken off after a grace period of the kernel.
        thread::sleep(Duration::from_millis(500));
        let status = scene.conduitfw.output("status", &[])?;
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        let name = link.trim_start_matches("link-");
        ensure!(said.contains(&format!("{name} not attached")), "{said}");
        ensure!(said.contains("NOTHING IS FILTERED") != left, "{said}");
    }
    scene.conduitfw.stop(Signal::SIGKILL)?;
    let status = scene.conduitfw.output("status", &[])?;
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(!said.contains("goes on being enforced"), "{said}");
    Ok(())
}

#[test]
fn an_interface_that_is_renamed_goes_on_and_comes_back() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    let gateway = scene.lab.gateway();
    for (name, wanted) in [("eth1 name eth7", "missing"), ("eth7 name eth1", "native")] {
        gateway.run(&format!("ip link set {name}"))?;
        let began = Instant::now();
        loop {
            let status = scene.status()?;
            let interfaces = status["interfaces"].as_array().context("no interfaces")?;
            let eth1 = interfaces
                .iter()
                .find(|interface| interface["name"] == "eth1");
            if eth1.is_some_and(|eth1| eth1["mode"] == wanted) && client.read(0, 1).is_ok() {
                break;
            }
            ensure!(began.elapsed() < Duration::from_secs(5), "{name}: {status}");
            thread::sleep(Duration::from_millis(20));
        }
        // The controller looks once a second.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            client.read(0, 1).with_context(|| format!("after {name}"))?;
            ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)
                .and_then(|mut other| other.read(0, 1))
                .with_context(|| format!("a new connection after {name}"))?;
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

#[test]
fn the_generic_mode_decides_the_same() -> Result<()> {
    let policy = dosing(r#""reads""#);
    let mut scene = scene!(&policy);
    scene.conduitfw.stop(Signal::SIGTERM)?;
    scene.conduitfw.output("detach", &[])?;
    scene.conduitfw.run(&["--mode", "generic"])?;
    let status = scene.status()?;
    ensure!(
        status["interfaces"].to_string().contains("generic"),
        "{status}"
    );
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    assert_eq!(client.read(0, 10)?.len(), 10);
    write_is_reset(&scene)?;
    assert_eq!(client.read(0, 10)?.len(), 10);
    Ok(())
}
