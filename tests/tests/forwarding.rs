//! Fast forwarding and bridged pairs, with real connections through network namespaces.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use conduitfw_tests::lab::{Conduitfw, Lab, skipped_without_root};
use conduitfw_tests::peers::{ModbusClient, Plc};

const POLICY: &str = r#"
[site]
name = "Forwarding"
[settings]
forwarding = "fast"
[zones.operations]
interfaces = ["eth0"]
networks = ["10.10.0.0/24", "fd00:10::/64"]
[zones.control]
interfaces = ["eth1"]
networks = ["10.20.0.0/24", "fd00:20::/64"]
[assets.hmi-1]
zone = "operations"
addresses = ["10.10.0.5", "fd00:10::5"]
[assets.plc]
zone = "control"
addresses = ["10.20.0.10", "fd00:20::10"]
[[conduits]]
name = "hmi-plc"
from = ["hmi-1"]
to = ["plc"]
rationale = "Operators watch"
tcp = [7000]
udp = [7000]
icmp_echo = true
[[conduits.modbus]]
units = [1]
functions = ["reads", "write-single-register"]
"#;

const V4: (&str, &str) = ("10.10.0.5", "10.20.0.10");
const V6: (&str, &str) = ("fd00:10::5", "fd00:20::10");

fn address(text: &str) -> Result<IpAddr> {
    Ok(text.parse()?)
}

/// How many frames left fast.
fn left_fast(gateway: &Conduitfw) -> Result<u64> {
    let status = gateway.json("status", &[])?;
    Ok(status["forwarding"]["fast"].as_u64().unwrap_or(0))
}

/// How many were left to the kernel for a cause.
fn kept(gateway: &Conduitfw, cause: &str) -> Result<u64> {
    let status = gateway.json("status", &[])?;
    Ok(status["forwarding"]["kernel"][cause].as_u64().unwrap_or(0))
}

/// Reads registers from a PLC.
fn reads(lab: &Lab, (hmi, plc): (&str, &str), times: u16) -> Result<()> {
    let server = SocketAddr::new(address(plc)?, 502);
    let _plc = Plc::start(lab.host("control")?, (server.ip(), server.port()))?;
    let client = lab.host("operations")?;
    let mut client =
        ModbusClient::connect(client, Some(address(hmi)?), (server.ip(), server.port()), 1)?;
    for value in 0..times {
        client.write(10, value)?;
        assert_eq!(client.read(10, 1)?, [value]);
    }
    Ok(())
}

#[test]
fn a_routed_connection_leaves_fast() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(POLICY)?;
    lab.offload("tx off")?;
    let gateway = Conduitfw::start(&lab, POLICY)?;
    for pair in [V4, V6] {
        let before = left_fast(&gateway)?;
        reads(&lab, pair, 20)?;
        println!(
            "{}",
            String::from_utf8_lossy(&gateway.output("status", &[])?.stdout)
        );
        assert!(left_fast(&gateway)? - before >= 80);
    }
    Ok(())
}
