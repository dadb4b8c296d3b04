//! The lab itself: without a firewall everything gets through, tags and all.

use std::net::IpAddr;

use anyhow::Result;
use conduitfw_tests::frames;
use conduitfw_tests::lab::{Lab, skipped_without_root};
use conduitfw_tests::peers::{Device, ModbusClient, Plc, RawClient};

const PLAIN: &str = r#"
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
"#;

fn address(text: &str) -> Result<IpAddr> {
    Ok(text.parse()?)
}

fn reads_go_through(policy: &str) -> Result<()> {
    let lab = Lab::for_policy(policy)?;
    let operations = lab.host("operations")?;
    let control = lab.host("control")?;
    for (hmi, server) in [("10.10.0.5", "10.20.0.10"), ("fd00:10::5", "fd00:20::10")] {
        let server = address(server)?;
        let plc = Plc::start(control, (server, 502))?;
        let mut client = ModbusClient::connect(operations, Some(address(hmi)?), (server, 502), 1)?;
        assert_eq!(client.read(10, 4)?.len(), 4);
        client.write(10, 77)?;
        assert_eq!(client.read(10, 1)?, [77]);
        assert_eq!(plc.service().written(10), Some(77));
    }
    Ok(())
}

#[test]
fn modbus_crosses_the_gateway() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    reads_go_through(PLAIN)?;
    Ok(())
}

#[test]
fn modbus_crosses_a_trunk_with_one_tag_and_with_two() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let tagged = PLAIN.replace("[zones.control]", "[zones.control]\nvlans = [\"100.20\"]");
    reads_go_through(&tagged.replace("[zones.operations]", "[zones.operations]\nvlans = [10]"))?;
    let trunk = tagged.replace("eth1", "eth0");
    reads_go_through(&trunk.replace("[zones.operations]", "[zones.operations]\nvlans = [10]"))?;
    Ok(())
}

#[test]
fn a_device_answers_every_function_code() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(PLAIN)?;
    let server = (address("10.20.0.10")?, 502);
    let device = Device::start(lab.host("control")?, server)?;
    let mut client = RawClient::connect(lab.host("operations")?, None, server)?;
    for function in 0..=u8::MAX {
        let request = frames::modbus::request(function);
        let answer = client.exchange(&frames::modbus::adu(1, 7, &request))?;
        assert_eq!(answer, (7, vec![function | 0x80, 1]));
        assert_eq!(device.take(), [(7, request)]);
    }
    Ok(())
}

#[test]
fn spoofed_packets_leave_the_host() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(PLAIN)?;
    let control = lab.host("control")?;
    let socket = control.enter(|| std::net::UdpSocket::bind("10.20.0.10:7000"))??;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(3)))?;
    let spoofed = frames::udp(([192, 0, 2, 9], 9), ([10, 20, 0, 10], 7000)).payload(*b"hello");
    let operations = lab.host("operations")?;
    operations.send_packet(address("10.20.0.10")?, &spoofed.packet())?;
    let mut bytes = [0; 16];
    let (length, source) = socket.recv_from(&mut bytes)?;
    assert_eq!(
        (&bytes[..length], source.to_string()),
        (&b"hello"[..], "192.0.2.9:9".into())
    );
    Ok(())
}
