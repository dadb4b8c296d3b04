//! Bridged pairs: a bump in the wire between two zones of one subnet, carried by a Linux bridge or by
//! the program itself.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use conduitfw_tests::frames;
use conduitfw_tests::lab::{Conduitfw, Lab, Tap, skipped_without_root};
use conduitfw_tests::peers::{Device, ModbusClient, Plc, RawClient, connect_from, ping};

const POLICY: &str = r#"
[site]
name = "A bump in the wire"
[settings]
forwarding = "fast"
[[bridges]]
name = "line-3"
ports = ["eth0", "eth1"]
stp = "forward"
lldp = "forward"
[zones.control]
interfaces = ["eth1"]
networks = ["10.20.0.0/24", "fd00:20::/64"]
nested = true
[zones.operations]
interfaces = ["eth0"]
networks = ["10.20.0.5/32", "fd00:20::5/128"]
[assets.hmi-1]
zone = "operations"
addresses = ["10.20.0.5", "fd00:20::5"]
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
on_deny = "exception"
[[conduits.modbus]]
units = [1]
functions = ["reads", "write-single-register"]
"#;

const V4: (&str, &str) = ("10.20.0.5", "10.20.0.10");
const V6: (&str, &str) = ("fd00:20::5", "fd00:20::10");
const PATIENCE: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_millis(300);

/// Who carries frames across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    /// A Linux bridge.
    Kernel,
    /// The program, with a Linux bridge beneath it.
    Both,
    /// The program alone.
    Alone,
}

const CARRIERS: [Carrier; 3] = [Carrier::Kernel, Carrier::Both, Carrier::Alone];

fn address(text: &str) -> Result<IpAddr> {
    Ok(text.parse()?)
}

fn start(policy: &str, carrier: Carrier) -> Result<(Lab, Conduitfw)> {
    let way = if carrier == Carrier::Kernel {
        "kernel"
    } else {
        "fast"
    };
    let policy = policy.replace("\"fast\"", &format!("\"{way}\""));
    let lab = Lab::for_policy(&policy)?;
    if carrier != Carrier::Alone {
        lab.bridge()?;
    }
    lab.offload("tx off")?;
    let gateway = Conduitfw::start(&lab, &policy)?;
    Ok((lab, gateway))
}

/// How many frames left fast.
fn fast(gateway: &Conduitfw) -> Result<u64> {
    let status = gateway.json("status", &[])?;
    assert_eq!(status["forwarding"]["lost"], 0);
    status["forwarding"]["fast"].as_u64().context("no count")
}

#[test]
fn a_connection_crosses_whoever_carries_it() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for carrier in CARRIERS {
        let (lab, gateway) = start(POLICY, carrier)?;
        let (operations, control) = (lab.host("operations")?, lab.host("control")?);
        for (hmi, plc) in [V4, V6] {
            let (hmi, server) = (address(hmi)?, (address(plc)?, 502));
            let before = fast(&gateway)?;
            let _plc = Plc::start(control, server)?;
            let mut client = ModbusClient::connect(operations, Some(hmi), server, 1)?;
            for value in 0..10 {
                client.write(10, value)?;
                assert_eq!(client.read(10, 1)?, [value]);
            }
            assert!(ping(operations, hmi, server.0, PATIENCE)?, "{carrier:?}");
            let crossed = fast(&gateway)? - before;
            match carrier {
                Carrier::Kernel => assert_eq!(crossed, 0),
                Carrier::Both | Carrier::Alone => assert!(crossed >= 40, "{carrier:?}: {crossed}"),
            }
        }
    }
    Ok(())
}

#[test]
fn what_no_conduit_allows_does_not_cross() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for carrier in CARRIERS {
        let (lab, gateway) = start(POLICY, carrier)?;
        let (operations, control) = (lab.host("operations")?, lab.host("control")?);
        for (hmi, plc) in [V4, V6] {
            let (hmi, server) = (address(hmi)?, (address(plc)?, 502));
            let device = Device::start(control, server)?;
            let mut client = RawClient::connect(operations, Some(hmi), server)?;
            let denied = frames::modbus::write_registers(0, &[1, 2]);
            let answer = client.exchange(&frames::modbus::adu(1, 1, &denied))?;
            assert_eq!(answer, (1, vec![0x90, 1]), "{carrier:?}");
            assert!(!device.take().contains(&(1, denied)));
            let closed = connect_from(operations, Some(hmi), (server.0, 22), SHORT);
            assert!(closed.is_err(), "{carrier:?}");
            // The other way round there is no conduit.
            assert!(!ping(control, server.0, hmi, SHORT)?, "{carrier:?}");
        }
        let status = gateway.json("status", &[])?.to_string();
        assert!(status.contains("function-not-allowed") && status.contains("no-conduit"));
    }
    Ok(())
}

#[test]
fn an_address_of_the_other_side_is_forged_on_this_one() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for carrier in CARRIERS {
        let (lab, gateway) = start(POLICY, carrier)?;
        let mut from = Tap::open(lab.host("operations")?, "net0")?;
        let mut to = Tap::open(lab.host("control")?, "net0")?;
        let (plc, target) = (address(V4.1)?, to.address());
        let forged = frames::udp((plc, 9), (address("10.20.0.66")?, 7000)).payload(*b"forged");
        from.send(&forged.macs(from.address(), target).build())?;
        let question = frames::arp_request([10, 20, 0, 10].into(), [10, 20, 0, 66].into());
        from.send(&question.macs(from.address(), [0xff; 6]).build())?;
        let arrived = to.wait_for(SHORT, |frame| {
            frame.ends_with(b"forged") || frame[6..12] == from.address()
        })?;
        assert_eq!(arrived, None, "{carrier:?}");
        let status = gateway.json("status", &[])?.to_string();
        assert!(status.contains("spoofed-source"), "{status}");
    }
    Ok(())
}

/// A configuration message of the spanning tree (IEEE 802.1D §9.3.1) and one of LLDP.
fn link_frames(source: [u8; 6]) -> [Vec<u8>; 2] {
    let mut stp = vec![0x01, 0x80, 0xc2, 0, 0, 0];
    stp.extend(source);
    stp.extend([0, 38, 0x42, 0x42, 3]);
    stp.extend([0; 43]);
    let mut lldp = vec![0x01, 0x80, 0xc2, 0, 0, 0x0e];
    lldp.extend(source);
    lldp.extend([0x88, 0xcc, 2, 7, 4]);
    lldp.extend(source);
    lldp.extend([0; 40]);
    [stp, lldp]
}

#[test]
fn spanning_tree_and_lldp_cross_where_the_policy_says_so() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for carrier in CARRIERS {
        for (stp, lldp) in [(true, true), (true, false), (false, true), (false, false)] {
            let word = |passes| if passes { "forward" } else { "drop" };
            let policy = POLICY
                .replace("stp = \"forward\"", &format!("stp = \"{}\"", word(stp)))
                .replace("lldp = \"forward\"", &format!("lldp = \"{}\"", word(lldp)));
            let (lab, _gateway) = start(&policy, carrier)?;
            let mut from = Tap::open(lab.host("control")?, "net0")?;
            let mut to = Tap::open(lab.host("operations")?, "net0")?;
            for (frame, passes) in link_frames(from.address()).into_iter().zip([stp, lldp]) {
                from.send(&frame)?;
                let patience = if passes { PATIENCE } else { SHORT };
                let arrived = to.wait_for(patience, |found| found == frame)?;
                assert_eq!(arrived.is_some(), passes, "{carrier:?} {frame:x?}");
            }
            // What only looks like them does not cross.
            let [mut stp, lldp] = link_frames(from.address());
            stp[14] = 0xaa;
            let mut elsewhere = lldp.clone();
            elsewhere[5] = 0x21;
            for frame in [stp, elsewhere] {
                from.send(&frame)?;
                let arrived = to.wait_for(SHORT, |found| found == frame)?;
                assert_eq!(arrived, None, "{carrier:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_routed_port_passes_neither_spanning_tree_nor_lldp() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let bridges = POLICY.find("[[bridges]]").context("no bridge")?;
    let zones = POLICY.find("[zones.control]").context("no zones")?;
    let policy = format!("{}{}", &POLICY[..bridges], &POLICY[zones..]);
    let policy = policy.replace("\"fast\"", "\"kernel\"");
    let policy = policy
        .replace("10.20.0.5/32", "10.10.0.0/24")
        .replace("10.20.0.5", "10.10.0.5")
        .replace("fd00:20::5/128", "fd00:10::/64")
        .replace("fd00:20::5", "fd00:10::5");
    let lab = Lab::for_policy(&policy)?;
    let gateway = Conduitfw::start(&lab, &policy)?;
    let mut from = Tap::open(lab.host("control")?, "net0")?;
    for frame in link_frames(from.address()) {
        from.send(&frame)?;
    }
    let status = gateway.json("status", &[])?.to_string();
    assert!(
        status.contains("\"ethertype-not-allowed\":{\"frames\":2,"),
        "{status}"
    );
    Ok(())
}

#[test]
fn tags_cross_a_bridge_as_they_are() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let policy = POLICY
        .replace("[zones.control]", "[zones.control]\nvlans = [\"100.20\"]")
        .replace(
            "[zones.operations]",
            "[zones.operations]\nvlans = [\"100.20\"]",
        );
    for carrier in [Carrier::Kernel, Carrier::Alone] {
        let untagged = POLICY.replace("vlans", "");
        // The lab's hosts stay untagged: the frames are put on the wire by hand.
        let lab = Lab::for_policy(&untagged)?;
        if carrier == Carrier::Kernel {
            lab.bridge()?;
        }
        let way = if carrier == Carrier::Kernel {
            "kernel"
        } else {
            "fast"
        };
        let policy = policy.replace("\"fast\"", &format!("\"{way}\""));
        let _gateway = Conduitfw::start(&lab, &policy)?;
        let mut from = Tap::open(lab.host("operations")?, "net0")?;
        let mut to = Tap::open(lab.host("control")?, "net0")?;
        let (hmi, plc) = (address(V4.0)?, address(V4.1)?);
        let frame = frames::udp((hmi, 9), (plc, 7000)).payload(*b"through a trunk");
        let frame = frame.macs(from.address(), to.address());
        for (tagged, passes) in [
            (frame.clone().vlan2(100, 20), true),
            (frame.clone().vlan2(100, 21), false),
            (frame.clone(), false),
        ] {
            let bytes = tagged.build();
            from.send(&bytes)?;
            let patience = if passes { PATIENCE } else { SHORT };
            let arrived = to.wait_for(patience, |found| found.ends_with(b"through a trunk"))?;
            // The socket shows the frame without its outer tag, which its kernel took off.
            let seen = [&bytes[..12], &bytes[16..]].concat();
            assert_eq!(arrived, passes.then_some(seen), "{carrier:?}");
        }
    }
    Ok(())
}

#[test]
fn ports_without_a_bridge_are_told_of() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let policy = POLICY.replace("\"fast\"", "\"kernel\"");
    let lab = Lab::for_policy(&policy)?;
    let gateway = Conduitfw::start(&lab, &policy)?;
    let log = gateway.files().log();
    assert!(log.contains("in no Linux bridge"), "{log}");
    Ok(())
}

#[test]
fn a_linux_bridge_that_speaks_the_spanning_tree_protocol_is_not_passed_by() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(POLICY)?;
    lab.bridge()?;
    lab.gateway()
        .run("ip link set br0 type bridge stp_state 1 forward_delay 200")?;
    lab.offload("tx off")?;
    let gateway = Conduitfw::start(&lab, POLICY)?;
    let log = gateway.files().log();
    assert!(log.contains("spanning tree"), "{log}");
    let (operations, hmi, plc) = (lab.host("operations")?, address(V4.0)?, address(V4.1)?);
    let mut tries = 0..20;
    assert!(tries.any(|_| ping(operations, hmi, plc, PATIENCE).unwrap_or(false)));
    assert_eq!(fast(&gateway)?, 0);
    Ok(())
}
