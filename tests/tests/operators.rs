//! What operators see of registers, values and replies: in events, in the status, and when they ask
//! `explain` about it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::lab::{Conduitfw, Lab, skipped_without_root};
use conduitfw_tests::peers::{Plc, RawClient};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{DOSING, HMI, PLANT, PLC, Scene};
use serde_json::Value;

/// What hmi-1 may do with plc-dosing.
fn policy(on_deny: &str) -> String {
    format!(
        r#"{PLANT}{DOSING}
on_deny = "{on_deny}"
[[conduits.modbus]]
name = "watch"
units = [1]
functions = ["read-holding-registers"]
[[conduits.modbus]]
name = "setpoint"
units = [1]
functions = ["write-single-register"]
registers = ["40011-40014"]
values = {{ min = 0, max = 1500 }}
max_step = 500
"#
    )
}

fn explain(scene: &Scene, arguments: &[&str]) -> Result<Value> {
    let policy = scene.conduitfw.files().policy();
    let policy = policy.to_str().context("not UTF-8")?;
    let asked = ["--policy", policy, "--from", "hmi-1", "--to", "plc-dosing"];
    scene
        .conduitfw
        .json("explain", &[&asked, arguments].concat())
}

#[test]
fn an_event_and_explain_tell_the_same() -> Result<()> {
    let scene = scene!(&policy("reset"));
    let server = SocketAddr::from((PLC, 502));
    let _plc = Plc::start(scene.control()?, server)?;
    let events = scene.conduitfw.events(&["--json"])?;
    for (operation, asked, reason, lacking) in [
        (
            modbus::write_single(6, 10, 9999),
            &["--modbus", "unit=1 fc=6 address=10 value=9999"][..],
            "value-not-allowed",
            "rule `hmi-dosing/setpoint` allows values 0 to 1500, not 9999 (register 10)",
        ),
        (
            modbus::write_single(6, 14, 1),
            &["--modbus", "unit=1 fc=6 address=14 value=1"],
            "register-not-allowed",
            "rule `hmi-dosing/setpoint` allows holding registers 10 to 13 (40011 to 40014), not \
             holding register 14 (40015)",
        ),
        (
            modbus::write_single(6, 10, 701),
            &[
                "--modbus",
                "unit=1 fc=6 address=10 value=701",
                "--after",
                "unit=1 fc=6 address=10 value=200",
            ],
            "step-too-large",
            "rule `hmi-dosing/setpoint` allows steps of 500, not 501 from 200 to 701 (register \
             10)",
        ),
    ] {
        let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
        client.exchange(&adu(1, 1, modbus::write_single(6, 10, 200)))?;
        ensure!(client.exchange(&adu(2, 1, operation)).is_err(), "{reason}");
        let event = events.find(|line| line.contains("\"hmi-dosing\""))?;
        let event: Value = serde_json::from_str(&event)?;
        let answer = explain(&scene, asked)?;
        for key in ["reason", "verdict", "conduit", "meaning"] {
            assert_eq!(event[key], answer[key], "{key} of {event} and {answer}");
        }
        assert_eq!(event["reason"], reason);
        assert_eq!(answer["lacking"][0]["text"], lacking);
        assert_eq!(answer["lacking"][0]["rule"], "hmi-dosing/setpoint");
    }
    Ok(())
}

#[test]
fn an_exception_is_told_as_one() -> Result<()> {
    let scene = scene!(&policy("exception"));
    let server = SocketAddr::from((PLC, 502));
    let _plc = Plc::start(scene.control()?, server)?;
    let events = scene.conduitfw.events(&[])?;
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
    client.exchange(&adu(1, 1, modbus::write_single(6, 10, 9999)))?;
    let line = events.find(|line| line.contains("value not allowed"))?;
    ensure!(
        line.ends_with(
            " DENY hmi-dosing hmi-1 -> plc-dosing modbus unit 1 write-single-register (6) \
             address 10 value 9999: value not allowed, answered with exception 1"
        ),
        "{line}"
    );
    let answer = explain(&scene, &["--modbus", "unit=1 fc=6 address=10 value=9999"])?;
    assert_eq!(answer["verdict"], "exception");
    Ok(())
}

#[test]
fn a_connection_that_is_picked_up_is_told_and_counted() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let policy = policy("reset");
    let lab = Lab::for_policy(&policy)?;
    let server = SocketAddr::from((PLC, 502));
    let _plc = Plc::start(lab.host("control")?, server)?;
    let mut client = RawClient::connect(lab.host("operations")?, Some(HMI), server)?;
    client.exchange(&adu(1, 1, modbus::read(3, 0, 1)))?;
    let conduitfw = Conduitfw::start(&lab, &policy)?;
    let words = conduitfw.events(&[])?;
    let json = conduitfw.events(&["--json"])?;
    client.exchange(&adu(2, 1, modbus::read(3, 0, 1)))?;
    let line = words.find(|line| line.contains(" ADOPT "))?;
    ensure!(
        line.contains(" hmi-1 -> plc-dosing ")
            && line.ends_with(": a connection that was open before the gateway is picked up"),
        "{line}"
    );
    let event = json.find(|line| line.contains("flow-adopted"))?;
    let event: Value = serde_json::from_str(&event)?;
    assert_eq!(
        (&event["event"], &event["verdict"]),
        (&"adopt".into(), &"pass".into())
    );
    let status: Value = conduitfw.json("status", &[])?;
    assert_eq!(status["controller"]["flows_adopted"], 1, "{status}");
    assert_eq!(status["frames"]["would_deny"], 0, "{status}");
    Ok(())
}

#[test]
fn replies_are_counted_by_their_time() -> Result<()> {
    let scene = scene!(&policy("reset"));
    let server = SocketAddr::from((PLC, 502));
    let _plc = Plc::start(scene.control()?, server)?;
    let times = |status: &Value| {
        let conduits = status["conduits"].as_array().cloned().unwrap_or_default();
        let dosing = conduits
            .iter()
            .find(|conduit| conduit["name"] == "hmi-dosing");
        dosing.map(|conduit| conduit["response_times"].clone())
    };
    assert_eq!(times(&scene.status()?), Some(Value::Null));
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
    for id in 0..100 {
        client.exchange(&adu(id, 1, modbus::read(3, 0, 4)))?;
    }
    let counted = times(&scene.status()?).context("no hmi-dosing")?;
    assert_eq!(counted["replies"], 100, "{counted}");
    let buckets = counted["buckets"].as_array().context("no buckets")?;
    let in_buckets = buckets
        .iter()
        .filter_map(|bucket| bucket["replies"].as_u64());
    assert_eq!(in_buckets.sum::<u64>(), 100, "{counted}");
    let median = counted["median_under_ms"].as_f64().context("no median")?;
    ensure!(
        median <= 64.0,
        "a PLC on the same machine takes {median} ms"
    );
    let output = scene.conduitfw.output("status", &[])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("100 replies: half under "), "{text}");
    Ok(())
}
