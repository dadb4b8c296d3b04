//! Frames that are larger than one buffer of a driver: judged in generic mode, refused in words in
//! native mode, and noticed when an MTU is raised later.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::lab::{Conduitfw, Lab, skipped_without_root};
use conduitfw_tests::peers::{Plc, RawClient};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{DOSING, HMI, PLANT, PLC, Scene};
use serde_json::Value;

/// Writing many registers is allowed, and writing one is not.
fn policy() -> String {
    format!(
        "{PLANT}{DOSING}[[conduits.modbus]]\nunits = [1]\n\
         functions = [\"write-multiple-registers\"]\n"
    )
}

/// Sets the MTU of the gateway's interfaces and of their other ends.
fn set_mtu(lab: &Lab, mtu: u32) -> Result<()> {
    for (interface, zone) in [("eth0", "operations"), ("eth1", "control")] {
        for (host, end) in [(lab.gateway(), interface), (lab.host(zone)?, "net0")] {
            host.run(&format!("ip link set {end} mtu {mtu}"))?;
        }
    }
    Ok(())
}

fn interface(status: &Value, name: &str) -> Result<Value> {
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    let found = interfaces
        .iter()
        .find(|interface| interface["name"] == name);
    found.cloned().context("the interface is not in the status")
}

fn wait_for_log(scene: &Scene, words: &str) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        if scene.conduitfw.files().log().contains(words) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("not in the log: {words}; {}", scene.conduitfw.files().log())
}

#[test]
fn native_mode_is_refused_in_words_where_frames_do_not_fit() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(&policy())?;
    set_mtu(&lab, 9000)?;
    let Err(refusal) = Conduitfw::start_on(lab.gateway(), &policy(), &["--mode", "native"]) else {
        bail!("it started");
    };
    let said = format!("{refusal:#}");
    for words in [
        "interface `eth0`",
        "its MTU is 9000",
        "an MTU of 3498",
        "ip link set dev eth0 mtu 3498",
        "--mode generic",
    ] {
        ensure!(said.contains(words), "not said: {words}; {said}");
    }
    let links = lab.gateway().run("ip -d link show")?;
    ensure!(!links.contains("xdp"), "something stayed attached: {links}");
    // And what it tells to do works.
    set_mtu(&lab, 3498)?;
    let conduitfw = Conduitfw::start_on(lab.gateway(), &policy(), &["--mode", "native"])?;
    let status = conduitfw.json("status", &[])?;
    assert_eq!(interface(&status, "eth1")?["mode"], "native");
    assert_eq!(interface(&status, "eth1")?["mtu"], 3498);
    assert_eq!(interface(&status, "eth1")?["warning"], Value::Null);
    Ok(())
}

#[test]
fn large_frames_are_judged_whole_in_generic_mode() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(&policy())?;
    set_mtu(&lab, 9000)?;
    let conduitfw = Conduitfw::start(&lab, &policy())?;
    let scene = Scene { conduitfw, lab };
    let log = scene.conduitfw.files().log();
    ensure!(
        log.contains("generic mode, where each frame costs more: its MTU is 9000"),
        "{log}"
    );
    assert_eq!(interface(&scene.status()?, "eth0")?["mode"], "generic");

    let plc = Plc::start(scene.control()?, (PLC, 502))?;
    let events = scene.conduitfw.events(&["--json"])?;
    let writes = |value: u16| -> Vec<u8> {
        let write = |id| adu(id, 1, modbus::write_registers(100, &[value; 120]));
        (1..=14).flat_map(write).collect()
    };
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), (PLC, 502))?;
    client.send(&writes(7))?;
    for _ in 0..14 {
        client.read()?;
    }
    assert_eq!(plc.service().written(100), Some(7));

    let mut segment = writes(8);
    segment.extend(adu(15, 1, modbus::write_single(6, 10, 1)));
    client.send(&segment)?;
    let event = events.find(|line| line.contains("function-not-allowed"))?;
    let event: Value = serde_json::from_str(&event)?;
    let length = event["frame_length"].as_u64().context("no length")?;
    ensure!(length > segment.len() as u64, "in pieces: {length}");
    assert_eq!(
        plc.service().written(100),
        Some(7),
        "a part of a denied segment arrived"
    );
    Ok(())
}

#[test]
fn a_raised_mtu_is_noticed_and_reported() -> Result<()> {
    let scene = scene!(&policy());
    let before = interface(&scene.status()?, "eth0")?;
    ensure!(
        before["mode"] == "native" && before["warning"].is_null(),
        "{before}"
    );
    scene.lab.gateway().run("ip link set eth0 mtu 9000")?;
    wait_for_log(
        &scene,
        "its MTU is 9000: frames that come in and do not fit",
    )?;
    let after = interface(&scene.status()?, "eth0")?;
    let warning = after["warning"].as_str().context("no warning")?;
    ensure!(
        warning.contains("3498") && warning.contains("--mode generic"),
        "{warning}"
    );
    assert_eq!(interface(&scene.status()?, "eth1")?["warning"], Value::Null);
    scene.lab.gateway().run("ip link set eth0 mtu 1500")?;
    wait_for_log(&scene, "its MTU is 1500: every frame fits again")?;
    assert_eq!(interface(&scene.status()?, "eth0")?["warning"], Value::Null);
    Ok(())
}
