//! Every frame is counted once, and what was denied is told in words.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::peers::{Device, RawClient, connect_from};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{HMI, PLC, STRANGER, Scene, dosing};
use serde_json::Value;

const SHORT: Duration = Duration::from_millis(300);

/// Frames that the hosts have sent to the gateway.
fn sent(scene: &Scene) -> Result<u64> {
    let mut all = 0;
    for host in [scene.operations()?, scene.control()?] {
        let text = host.run("ip -j -s link show net0")?;
        let links: Value = serde_json::from_str(&text)?;
        all += links[0]["stats64"]["tx"]["packets"]
            .as_u64()
            .context("no statistics")?;
    }
    Ok(all)
}

/// What the hosts have sent and what conduitfw has seen, at a moment when both stand still.
fn accounts(scene: &Scene) -> Result<(u64, Value)> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        let before = sent(scene)?;
        let status = scene.status()?;
        std::thread::sleep(Duration::from_millis(50));
        if sent(scene)? == before && scene.status()?["frames"] == status["frames"] {
            return Ok((before, status));
        }
    }
    bail!("the lab does not come to rest")
}

fn number(value: &Value) -> Result<u64> {
    value
        .as_u64()
        .with_context(|| format!("{value} is no number"))
}

#[test]
fn frames_seen_are_allowed_or_denied() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let server = SocketAddr::from((PLC, 502));
    let _device = Device::start(scene.control()?, server)?;
    let (sent_before, before) = accounts(&scene)?;
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
    for id in 0..500 {
        client.exchange(&adu(id, 1, modbus::read(3, 0, 1)))?;
    }
    for _ in 0..20 {
        let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
        ensure!(
            client
                .exchange(&adu(1, 1, modbus::write_single(6, 0, 1)))
                .is_err()
        );
    }
    for _ in 0..3 {
        ensure!(connect_from(scene.operations()?, Some(STRANGER), server, SHORT).is_err());
    }
    let (sent_after, after) = accounts(&scene)?;
    let grown = |key: &str| -> Result<u64> {
        Ok(number(&after["frames"][key])? - number(&before["frames"][key])?)
    };
    let (seen, allowed, denied) = (grown("seen")?, grown("allowed")?, grown("denied")?);
    assert_eq!(seen, allowed + denied);
    assert_eq!(
        seen,
        sent_after - sent_before,
        "every frame that was sent was counted"
    );
    // By conduit and reason they add up to the same.
    let conduits = after["conduits"].as_array().context("no conduits")?;
    let mut by_reason = 0;
    for conduit in conduits {
        let reasons = conduit["reasons"].as_object().context("no reasons")?;
        let of_conduit: u64 = reasons
            .values()
            .filter_map(|reason| reason["frames"].as_u64())
            .sum();
        assert_eq!(
            of_conduit,
            number(&conduit["denied"]["frames"])?,
            "{conduit}"
        );
        by_reason += of_conduit;
    }
    assert_eq!(by_reason, number(&after["frames"]["denied"])?);
    let dosing = conduits
        .iter()
        .find(|conduit| conduit["name"] == "hmi-dosing");
    let dosing = dosing.context("no hmi-dosing")?;
    assert_eq!(dosing["reasons"]["function-not-allowed"]["frames"], 20);
    let rules = after["rules"].as_array().context("no rules")?;
    let operations: u64 = rules
        .iter()
        .filter_map(|rule| rule["operations"].as_u64())
        .sum();
    assert_eq!(operations, 500, "{rules:?}");
    Ok(())
}

#[test]
fn a_denied_write_is_told_with_all_its_names() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let server = SocketAddr::from((PLC, 502));
    let _device = Device::start(scene.control()?, server)?;
    let json = scene.conduitfw.events(&["--json"])?;
    let words = scene.conduitfw.events(&[])?;
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
    let port = client.address()?.port();
    client.exchange(&adu(6, 1, modbus::read(3, 0, 1)))?;
    ensure!(
        client
            .exchange(&adu(7, 1, modbus::write_single(6, 10, 900)))
            .is_err()
    );
    let event = json.find(|line| line.contains("function-not-allowed"))?;
    let event: Value = serde_json::from_str(&event)?;
    for (key, value) in [
        ("event", "deny".into()),
        ("reason", "function-not-allowed".into()),
        ("verdict", "reset".into()),
        ("conduit", "hmi-dosing".into()),
        ("source_zone", "operations".into()),
        ("source_asset", "hmi-1".into()),
        ("source", "10.10.0.5".into()),
        ("source_port", Value::from(port)),
        ("destination_zone", "control".into()),
        ("destination_asset", "plc-dosing".into()),
        ("destination", "10.20.0.10".into()),
        ("destination_port", Value::from(502)),
        ("transport", "tcp".into()),
        ("direction", "request".into()),
        ("interface", "eth0".into()),
        ("generation", Value::from(1)),
    ] {
        assert_eq!(event[key], value, "{key} of {event}");
    }
    for (key, value) in [
        ("transaction_id", Value::from(7)),
        ("unit", Value::from(1)),
        ("function", Value::from(6)),
        ("function_name", "write-single-register".into()),
        ("address", Value::from(10)),
    ] {
        assert_eq!(event["modbus"][key], value, "modbus.{key} of {event}");
    }
    let line = words.find(|line| line.contains("function not allowed"))?;
    ensure!(
        line.ends_with(
            " DENY hmi-dosing hmi-1 -> plc-dosing modbus unit 1 write-single-register (6) \
             address 10: function not allowed"
        ),
        "{line}"
    );
    Ok(())
}

#[test]
fn each_denial_has_its_reason() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let server = SocketAddr::from((PLC, 502));
    let _device = Device::start(scene.control()?, server)?;
    let events = scene.conduitfw.events(&["--json"])?;
    let ask = |adu: &[u8]| -> Result<()> {
        let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
        ensure!(client.exchange(adu).is_err(), "answered");
        Ok(())
    };
    let read = modbus::read(3, 0, 1);
    ask(&adu(1, 2, &read))?;
    ask(&adu(1, 1, modbus::diagnostics(1, 0)))?;
    ask(&modbus::with_header(1, 7, 6, 1, &read))?;
    ask(&modbus::with_header(1, 0, 300, 1, &read))?;
    ask(&modbus::with_header(
        1,
        0,
        8,
        1,
        &[&read[..], &[0, 0]].concat(),
    ))?;
    ensure!(connect_from(scene.operations()?, Some(STRANGER), server, SHORT).is_err());
    ensure!(connect_from(scene.control()?, Some(PLC), (HMI, 502), SHORT).is_err());
    let seen = events.within(Duration::from_secs(1)).join("\n");
    for reason in [
        "unit-not-allowed",
        "function-not-allowed",
        "modbus-protocol-id",
        "modbus-length",
        "modbus-length-mismatch",
        "no-conduit",
    ] {
        ensure!(
            seen.contains(&format!("\"{reason}\"")),
            "no {reason} in {seen}"
        );
    }
    Ok(())
}

#[test]
fn of_two_denials_in_a_row_the_second_is_told_of_as_soon() -> Result<()> {
    // Only the first of a tick wakes the controller, which then looks again by itself.
    let scene = scene!(&dosing(r#""reads""#));
    let events = scene.conduitfw.events(&["--json"])?;
    let pause = Duration::from_millis(1);
    let socket = scene.operations()?.enter(|| UdpSocket::bind((HMI, 0)))??;
    for round in 0..20_u16 {
        for port in [4000 + 2 * round, 4001 + 2 * round] {
            socket.send_to(b"?", (PLC, port))?;
        }
        let sent = Instant::now();
        for port in [4000 + 2 * round, 4001 + 2 * round] {
            events.find(|line| {
                serde_json::from_str::<Value>(line)
                    .is_ok_and(|event| event["destination_port"] == port)
            })?;
        }
        let took = sent.elapsed();
        ensure!(took < Duration::from_millis(500), "after {took:?}");
        // At another place of the tick each time.
        std::thread::sleep(pause * u32::from(round % 7));
    }
    Ok(())
}
