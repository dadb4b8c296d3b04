//! What the controller keeps: little, however many policies went by, and all that events need.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conduitfw_tests::peers::{ModbusClient, Plc};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{HMI, PLC, dosing};

/// A policy of `count` rules, no two of them alike.
fn rules(count: usize, first_register: usize) -> String {
    let mut text = dosing("\"read-holding-registers\"");
    for rule in 1..count {
        let (unit, register) = (2 + rule % 200, first_register + 2 * (rule / 200));
        let _ = write!(
            text,
            "\n[[conduits.modbus]]\nunits = [{unit}]\nfunctions = [6, 16]\nregisters = [{register}]\n\
             values = {{ min = 0, max = {} }}\n",
            100 + rule
        );
    }
    text
}

/// Memory of a process that is its own, in MiB.
fn own_memory(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: u64 = number.context("no RssAnon")?.parse()?;
    Ok(kilobytes / 1024)
}

#[test]
fn ten_policies_of_ten_thousand_rules_leave_little_behind() -> Result<()> {
    let scene = scene!(&rules(1, 0));
    let process = scene.conduitfw.process().context("no controller")?;
    for round in 0..10 {
        scene.reload(&rules(10_000, round))?;
    }
    // What is beyond that is given back when nothing else is to do.
    thread::sleep(Duration::from_millis(2500));
    let own = own_memory(process)?;
    // What it keeps to read the next one in.
    ensure!(own <= 18, "{own} MiB after ten policies of 10,000 rules");
    let memory = &scene.status()?["memory"];
    let (all, controller) = (&memory["all_maps"], &memory["controller"]);
    ensure!(all.as_u64() > Some(1 << 20), "{memory}");
    ensure!(controller.as_u64() > Some(own << 20), "{memory}");
    let flows = memory["maps"]["FLOWS"].as_u64();
    ensure!(flows > Some(1 << 20), "{memory}");
    Ok(())
}

#[test]
fn an_old_event_keeps_the_names_of_the_policy_that_decided() -> Result<()> {
    let old = dosing("\"read-holding-registers\"").replace("hmi-1", "hmi-of-old");
    let scene = scene!(&old);
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    ensure!(client.write(0, 1).is_err(), "a write was answered");
    // More than there are policies whose names are kept.
    for _ in 0..10 {
        scene.reload(&dosing("\"read-holding-registers\""))?;
    }
    let output = scene.conduitfw.output("events", &["--json"])?;
    let text = String::from_utf8(output.stdout)?;
    let line = text
        .lines()
        .find(|line| line.contains("function-not-allowed"));
    let line = line.context("no event of the write")?;
    for name in ["\"source_asset\":\"hmi-of-old\"", "\"interface\":\"eth0\""] {
        ensure!(line.contains(name), "not told: {name}; {line}");
    }
    let told = text
        .lines()
        .filter(|line| line.contains("\"policy\""))
        .count();
    assert_eq!(told, 11, "{text}");
    Ok(())
}
