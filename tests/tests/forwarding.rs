//! Fast forwarding, with real connections through network namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use conduitfw::dataplane::maps::{Maps, Plain};
use conduitfw_common::forward::MAX_PORTS;
use conduitfw_common::table::InterfaceKey;
use conduitfw_tests::frames;
use conduitfw_tests::lab::{Conduitfw, Host, Lab, Tap, skipped_without_root};
use conduitfw_tests::peers::{Device, ModbusClient, Plc, RawClient, connect_from, ping};
use nix::sys::signal::Signal;

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
const PATIENCE: Duration = Duration::from_secs(3);

fn address(text: &str) -> Result<IpAddr> {
    Ok(text.parse()?)
}

/// The lab and its gateway; what hosts send has its checksums, as on a wire.
fn start(policy: &str) -> Result<(Lab, Conduitfw)> {
    let lab = Lab::for_policy(policy)?;
    lab.offload("tx off")?;
    let gateway = Conduitfw::start(&lab, policy)?;
    Ok((lab, gateway))
}

/// How many frames left fast, and how many were left to the kernel for a cause.
fn counts(gateway: &Conduitfw, cause: &str) -> Result<(u64, u64)> {
    let status = gateway.json("status", &[])?;
    let forwarding = &status["forwarding"];
    assert_eq!(forwarding["lost"], 0, "{forwarding}");
    let frames = &status["frames"];
    let sum = frames["allowed"].as_u64().unwrap_or(0) + frames["denied"].as_u64().unwrap_or(0);
    assert_eq!(frames["seen"].as_u64(), Some(sum));
    let fast = forwarding["fast"].as_u64().context("no count")?;
    Ok((fast, forwarding["kernel"][cause].as_u64().unwrap_or(0)))
}

/// How many more of each `work` makes.
fn more(gateway: &Conduitfw, cause: &str, work: impl FnOnce() -> Result<()>) -> Result<(u64, u64)> {
    let before = counts(gateway, cause)?;
    work()?;
    let after = counts(gateway, cause)?;
    Ok((after.0 - before.0, after.1 - before.1))
}

/// Writes and reads registers of a PLC, `times` each.
fn transactions(lab: &Lab, (hmi, plc): (&str, &str), times: u16) -> Result<()> {
    let server = (address(plc)?, 502);
    let _plc = Plc::start(lab.host("control")?, server)?;
    let client = lab.host("operations")?;
    let mut client = ModbusClient::connect(client, Some(address(hmi)?), server, 1)?;
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
    let (lab, gateway) = start(POLICY)?;
    for pair in [V4, V6] {
        let (fast, _) = more(&gateway, "hop-limit", || transactions(&lab, pair, 20))?;
        // Requests and replies, the handshake, the end.
        assert!(fast >= 80, "{fast} frames left fast");
    }
    Ok(())
}

#[test]
fn without_the_setting_nothing_leaves_fast() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let policy = POLICY.replace("\"fast\"", "\"kernel\"");
    let (lab, gateway) = start(&policy)?;
    let found = more(&gateway, "no-neighbour", || transactions(&lab, V4, 5))?;
    assert_eq!(found, (0, 0));
    Ok(())
}

#[test]
fn a_checksum_that_is_left_to_a_device_is_finished() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(POLICY)?;
    let gateway = Conduitfw::start(&lab, POLICY)?;
    for (hmi, plc) in [V4, V6] {
        let (fast, _) = more(&gateway, "checksum-unfinished", || {
            transactions(&lab, (hmi, plc), 10)
        })?;
        assert!(fast >= 40, "{fast}");
        // Long ones and odd ones, and datagrams.
        let (operations, server) = (lab.host("operations")?, address(plc)?);
        let server = SocketAddr::new(server, 7000);
        let listener = lab.host("control")?.enter(|| UdpSocket::bind(server))??;
        listener.set_read_timeout(Some(PATIENCE))?;
        let socket = operations.enter(|| UdpSocket::bind((address(hmi).ok()?, 0)).ok())?;
        let socket = socket.context("cannot bind")?;
        let mut bytes = [0; 2048];
        for length in [0, 1, 2, 3, 255, 1000, 1451, 1452] {
            socket.send_to(&vec![0xa7; length], server)?;
            assert_eq!(listener.recv_from(&mut bytes)?.0, length, "{hmi}");
        }
    }
    Ok(())
}

/// A server that takes so many bytes and then sends back how many they were.
fn takes(host: &Host, server: SocketAddr, bytes: usize) -> Result<()> {
    let listener = host.enter(|| TcpListener::bind(server))??;
    thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let mut taken = vec![0; bytes];
        if stream.read_exact(&mut taken).is_ok() {
            let _ = stream.write_all(&u64::try_from(bytes).unwrap_or(0).to_be_bytes());
        }
    });
    Ok(())
}

#[test]
fn a_packet_too_long_for_the_way_out_is_answered_by_the_kernel() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let (lab, gateway) = start(POLICY)?;
    let control = lab.host("control")?;
    lab.gateway().run("ip link set eth1 mtu 1300")?;
    for (hmi, plc) in [V4, V6] {
        let server = SocketAddr::new(address(plc)?, 7000);
        takes(control, server, 60_000)?;
        let (fast, long) = more(&gateway, "too-long", || {
            let client = lab.host("operations")?;
            let mut client = connect_from(client, Some(address(hmi)?), server, PATIENCE)?;
            client.set_read_timeout(Some(PATIENCE))?;
            client.write_all(&vec![7; 60_000])?;
            let mut taken = [0; 8];
            client.read_exact(&mut taken)?;
            assert_eq!(u64::from_be_bytes(taken), 60_000);
            Ok(())
        })?;
        assert!(long >= 1, "nothing was too long");
        assert!(fast >= 60_000 / 1300, "{fast} frames left fast");
    }
    Ok(())
}

#[test]
fn each_hop_counts_and_the_last_is_answered_by_the_kernel() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let (lab, gateway) = start(POLICY)?;
    let (operations, control) = (lab.host("operations")?, lab.host("control")?);
    let mut there = Tap::open(control, "net0")?;
    let mut here = Tap::open(operations, "net0")?;
    for (hmi, plc) in [V4, V6] {
        let (hmi, plc) = (address(hmi)?, address(plc)?);
        assert!(
            ping(operations, hmi, plc, PATIENCE)?,
            "the neighbours are known now"
        );
        // Somebody listens, so that nobody says that the port cannot be reached.
        let _listens = control.enter(|| UdpSocket::bind((plc, 7000)))??;
        let (header, hop_at) = if hmi.is_ipv4() {
            (14 + 20, 14 + 8)
        } else {
            (14 + 40, 14 + 7)
        };
        for hops in [64_u8, 2] {
            let marker = [0xa5, hops, 0x5a, hops];
            let frame = frames::udp((hmi, 9), (plc, 7000)).hop_limit(hops);
            let packet = frame.payload(marker).packet();
            let found = more(&gateway, "hop-limit", || {
                operations.send_packet(plc, &packet)
            })?;
            let frame = there.wait_for(PATIENCE, |frame| {
                frame.len() >= header + 12 && frame[header + 8..header + 12] == marker
            })?;
            let frame = frame.context("the datagram did not arrive")?;
            assert_eq!(frame[hop_at], hops - 1);
            if hmi.is_ipv4() {
                assert_eq!(frames::internet_checksum(&frame[14..34]), 0);
            }
            assert_eq!(found, (1, 0));
        }
        let last = frames::udp((hmi, 9), (plc, 7000))
            .hop_limit(1)
            .payload(*b"last")
            .packet();
        let found = more(&gateway, "hop-limit", || operations.send_packet(plc, &last))?;
        assert_eq!(found, (0, 1));
        // Time exceeded: ICMP type 11, ICMPv6 type 3.
        let exceeded = if hmi.is_ipv4() { 11 } else { 3 };
        let answer = here.wait_for(PATIENCE, |frame| {
            frame.len() > header && frame[header] == exceeded && frame[header - 1] != 0x88
        })?;
        assert!(answer.is_some(), "nobody said that the hops were used up");
    }
    Ok(())
}

#[test]
fn a_neighbour_that_is_not_known_is_asked_for_by_the_kernel() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let (lab, gateway) = start(POLICY)?;
    for pair in [V4, V6] {
        transactions(&lab, pair, 1)?;
        lab.gateway().run("ip neigh flush all")?;
        let (fast, unknown) = more(&gateway, "no-neighbour", || transactions(&lab, pair, 5))?;
        assert!(unknown >= 1 && fast >= 20, "{fast} fast, {unknown} unknown");
    }
    Ok(())
}

#[test]
fn a_neighbour_that_moved_is_followed() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let (lab, gateway) = start(POLICY)?;
    let control = lab.host("control")?;
    transactions(&lab, V4, 1)?;
    control.run("ip link set net0 address 02:00:00:00:77:01")?;
    // What a device does that takes over an address (RFC 5227 §3).
    let mut tap = Tap::open(control, "net0")?;
    let plc = [10, 20, 0, 10];
    let announcement = frames::arp(1, (tap.address(), plc.into()), ([0; 6], plc.into()));
    tap.send(&announcement.macs(tap.address(), [0xff; 6]).build())?;
    let (fast, _) = more(&gateway, "no-neighbour", || transactions(&lab, V4, 5))?;
    assert!(fast >= 20, "{fast}");
    Ok(())
}

#[test]
fn a_route_that_changes_is_followed_and_a_closed_one_answered_by_the_kernel() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let (lab, gateway) = start(POLICY)?;
    let operations = lab.host("operations")?;
    let (hmi, plc) = (address(V4.0)?, address(V4.1)?);
    assert!(ping(operations, hmi, plc, PATIENCE)?);
    for kind in ["blackhole", "unreachable"] {
        lab.gateway()
            .run(&format!("ip route add {kind} 10.20.0.10"))?;
        let (fast, routes) = more(&gateway, "no-route", || {
            assert!(!ping(operations, hmi, plc, Duration::from_millis(200))?);
            Ok(())
        })?;
        assert_eq!((fast, routes), (0, 1), "{kind}");
        lab.gateway()
            .run(&format!("ip route del {kind} 10.20.0.10"))?;
    }
    let (fast, _) = more(&gateway, "no-route", || {
        assert!(ping(operations, hmi, plc, PATIENCE)?);
        Ok(())
    })?;
    assert_eq!(fast, 2);
    Ok(())
}

#[test]
fn what_is_not_addressed_to_the_gateway_does_not_leave_fast() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let (lab, gateway) = start(POLICY)?;
    let (operations, control) = (lab.host("operations")?, lab.host("control")?);
    let (hmi, plc) = (address(V4.0)?, address(V4.1)?);
    assert!(ping(operations, hmi, plc, PATIENCE)?);
    let mut from = Tap::open(operations, "net0")?;
    let mut to = Tap::open(control, "net0")?;
    // A switch that does not know yet where a host is sends its frames everywhere.
    let frame = frames::udp((hmi, 9), (plc, 7000)).payload(*b"astray");
    let frame = frame.macs(from.address(), [2, 0, 0, 0, 0x99, 0x99]);
    let found = more(&gateway, "not-addressed-to-port", || {
        from.send(&frame.build())
    })?;
    assert_eq!(found, (0, 1));
    let arrived = to.wait_for(Duration::from_millis(300), |frame| {
        frame.ends_with(b"astray")
    })?;
    assert_eq!(arrived, None);
    Ok(())
}

#[test]
fn a_frame_leaves_only_where_the_destination_is_at_home() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let third =
        "[zones.office]\ninterfaces = [\"eth2\"]\nnetworks = [\"10.30.0.0/24\"]\n[assets.hmi-1]";
    let policy = POLICY.replace("[assets.hmi-1]", third);
    let (lab, gateway) = start(&policy)?;
    let operations = lab.host("operations")?;
    let (hmi, plc) = (address(V4.0)?, address(V4.1)?);
    assert!(ping(operations, hmi, plc, PATIENCE)?);
    // A route that leads the PLC's address astray.
    lab.gateway()
        .run("ip route add 10.20.0.10 via 10.30.0.66")?;
    assert!(!ping(operations, hmi, plc, Duration::from_millis(300))?);
    let found = more(&gateway, "not-at-home", || {
        assert!(!ping(operations, hmi, plc, Duration::from_millis(300))?);
        Ok(())
    })?;
    assert_eq!(found, (0, 1));
    Ok(())
}

#[test]
fn a_denied_request_is_reset_or_answered_by_an_exception_all_the_same() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for on_deny in ["reset", "exception"] {
        let policy = POLICY.replace("tcp = [7000]", &format!("on_deny = \"{on_deny}\""));
        let (lab, gateway) = start(&policy)?;
        for (hmi, plc) in [V4, V6] {
            let server = (address(plc)?, 502);
            let device = Device::start(lab.host("control")?, server)?;
            let operations = lab.host("operations")?;
            let mut client = RawClient::connect(operations, Some(address(hmi)?), server)?;
            let read = frames::modbus::read(3, 0, 1);
            let denied = frames::modbus::write_registers(0, &[1, 2]);
            let adu = |id, pdu: &[u8]| frames::modbus::adu(id, 1, pdu);
            client.exchange(&adu(1, &read))?;
            assert_eq!(device.take(), [(1, read.clone())]);
            if on_deny == "exception" {
                assert_eq!(client.exchange(&adu(2, &denied))?, (1, vec![0x90, 1]));
                client.exchange(&adu(3, &read))?;
            } else {
                assert!(client.exchange(&adu(2, &denied)).is_err());
            }
            assert!(!device.take().contains(&(2, denied)));
        }
        let (fast, _) = counts(&gateway, "hop-limit")?;
        assert!(fast >= 10, "{fast}");
    }
    Ok(())
}

#[test]
fn a_reload_changes_the_way_of_forwarding_under_an_open_connection() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let kernel = POLICY.replace("\"fast\"", "\"kernel\"");
    let (lab, gateway) = start(&kernel)?;
    let server = (address(V4.1)?, 502);
    let _plc = Plc::start(lab.host("control")?, server)?;
    let operations = lab.host("operations")?;
    let mut client = ModbusClient::connect(operations, Some(address(V4.0)?), server, 1)?;
    for (policy, is_fast) in [(POLICY, true), (&kernel, false), (POLICY, true)] {
        let reload = gateway.reload(policy)?;
        assert_eq!(reload.status, Some(0), "{}", reload.said);
        assert!(
            reload.said.contains("setting forwarding"),
            "{}",
            reload.said
        );
        let (fast, _) = more(&gateway, "hop-limit", || {
            for value in 0..10 {
                client.write(10, value)?;
                assert_eq!(client.read(10, 1)?, [value]);
            }
            Ok(())
        })?;
        assert_eq!(fast >= 40, is_fast, "{fast}");
        assert_eq!(fast == 0, !is_fast, "{fast}");
    }
    Ok(())
}

#[test]
fn a_controller_that_is_killed_leaves_fast_forwarding_at_work() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let (lab, mut gateway) = start(POLICY)?;
    let server = (address(V4.1)?, 502);
    let _plc = Plc::start(lab.host("control")?, server)?;
    let operations = lab.host("operations")?;
    let mut client = ModbusClient::connect(operations, Some(address(V4.0)?), server, 1)?;
    client.write(10, 1)?;
    gateway.stop(Signal::SIGKILL)?;
    let (fast, _) = more(&gateway, "hop-limit", || {
        for value in 0..10 {
            client.write(10, value)?;
        }
        Ok(())
    })?;
    assert!(fast >= 20, "{fast}");
    gateway.run(&[])?;
    let (fast, _) = more(&gateway, "hop-limit", || client.write(10, 7))?;
    assert!(fast >= 2, "{fast}");
    Ok(())
}

#[test]
fn a_port_that_takes_no_frames_is_told_of_and_left_to_the_kernel() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(POLICY)?;
    lab.offload("tx off")?;
    lab.host("control")?.run("ethtool -K net0 gro off")?;
    let gateway = Conduitfw::start(&lab, POLICY)?;
    let (fast, port) = more(&gateway, "port-not-fast", || transactions(&lab, V4, 10))?;
    // The replies leave by the other port.
    assert!(fast >= 20 && port >= 20, "{fast} fast, {port} not");
    let log = gateway.files().log();
    assert!(
        log.contains("eth1") && log.contains("ndo_xdp_xmit"),
        "{log}"
    );
    assert!(!log.contains("interface=\"eth0\" takes"), "{log}");
    Ok(())
}

#[test]
fn tagged_frames_go_on_whatever_the_kernel_knows_of_vlans() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let tagged = [("[zones.control]", "[zones.control]\nvlans = [\"100.20\"]")];
    let both = [
        tagged[0],
        ("[zones.operations]", "[zones.operations]\nvlans = [10]"),
    ];
    for changes in [&tagged[..], &both[..]] {
        let mut policy = POLICY.to_owned();
        for (from, to) in changes {
            policy = policy.replace(from, to);
        }
        let (lab, gateway) = start(&policy)?;
        let knows_vlans = lab
            .gateway()
            .run("ip -o link show type vlan")?
            .contains("vlan");
        for pair in [V4, V6] {
            let (fast, _) = more(&gateway, "port-not-fast", || transactions(&lab, pair, 10))?;
            if knows_vlans {
                assert!(fast >= 40, "{fast}");
            }
        }
    }
    Ok(())
}

#[test]
fn datagrams_and_traffic_of_the_gateway_itself_go_where_they_should() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let own = "[[conduits]]\nname = \"admin\"\nfrom = [\"operations\"]\nto = [\"gateway\"]\n\
               rationale = \"Administration\"\nudp = [7001]\nicmp_echo = true\n";
    let (lab, gateway) = start(&format!("{POLICY}{own}"))?;
    let (operations, control) = (lab.host("operations")?, lab.host("control")?);
    for (host, server, there) in [
        (control, V4.1, true),
        (control, V6.1, true),
        (lab.gateway(), "10.10.0.1", false),
    ] {
        let port = if there { 7000 } else { 7001 };
        let server = SocketAddr::new(address(server)?, port);
        let client = address(if server.is_ipv4() { V4.0 } else { V6.0 })?;
        let socket = host.enter(|| UdpSocket::bind(server))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        let (fast, _) = more(&gateway, "no-route", || {
            let asks = operations.enter(|| UdpSocket::bind((client, 0)))??;
            asks.set_read_timeout(Some(PATIENCE))?;
            let mut bytes = [0; 16];
            for _ in 0..3 {
                asks.send_to(b"hello", server)?;
                let (length, from) = socket.recv_from(&mut bytes)?;
                socket.send_to(&bytes[..length], from)?;
                assert_eq!(asks.recv_from(&mut bytes)?, (5, server));
            }
            Ok(())
        })?;
        assert_eq!(fast >= 4, there, "{fast} to {server}");
        assert_eq!(fast == 0, !there, "{fast} to {server}");
    }
    Ok(())
}

#[test]
fn a_port_that_takes_no_frames_any_more_gives_way_to_the_kernel_without_a_controller() -> Result<()>
{
    if skipped_without_root() {
        return Ok(());
    }
    let (lab, mut gateway) = start(POLICY)?;
    let (operations, control) = (lab.host("operations")?, lab.host("control")?);
    let server = (address(V4.1)?, 502);
    let _plc = Plc::start(control, server)?;
    let mut client = ModbusClient::connect(operations, Some(address(V4.0)?), server, 1)?;
    client.write(10, 1)?;
    gateway.stop(Signal::SIGKILL)?;
    control.run("ethtool -K net0 gro off")?;
    for value in 2..12 {
        client.write(10, value)?;
        assert_eq!(client.read(10, 1)?, [value]);
    }
    let status = gateway.json("status", &[])?;
    let forwarding = &status["forwarding"];
    // The first one, and perhaps what was on its way with it.
    assert!(
        (1..4).contains(&forwarding["lost"].as_u64().unwrap_or(0)),
        "{forwarding}"
    );
    assert!(
        forwarding["kernel"]["port-not-fast"].as_u64().unwrap_or(0) >= 20,
        "{forwarding}"
    );
    // A controller that starts sees that it takes frames again.
    control.run("ethtool -K net0 gro on")?;
    gateway.run(&[])?;
    let before = gateway.json("status", &[])?["forwarding"]["fast"].as_u64();
    client.write(10, 20)?;
    let after = gateway.json("status", &[])?["forwarding"]["fast"].as_u64();
    assert!(
        after >= before.map(|before| before + 2),
        "{before:?} {after:?}"
    );
    Ok(())
}

#[test]
fn what_only_passes_because_nothing_is_denied_is_forwarded_by_the_kernel() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let policy = POLICY.replace("[settings]", "[settings]\nmode = \"observe\"");
    let (lab, gateway) = start(&policy)?;
    let (operations, control) = (lab.host("operations")?, lab.host("control")?);
    let (hmi, plc) = (address(V4.0)?, address(V4.1)?);
    let listener = control.enter(|| UdpSocket::bind((plc, 7000)))??;
    listener.set_read_timeout(Some(PATIENCE))?;
    assert!(ping(operations, hmi, plc, PATIENCE)?);
    let datagram = frames::udp((hmi, 9), (plc, 7000)).payload([0x5c; 1000]);
    let found = more(&gateway, "no-route", || {
        for fragment in datagram.fragments(512) {
            operations.send_packet(plc, &fragment[14..])?;
        }
        Ok(())
    })?;
    assert_eq!(found, (0, 0));
    assert_eq!(listener.recv_from(&mut [0; 2000])?.0, 1000);
    Ok(())
}

/// The kernel of the tests' machine may know no VLAN interfaces. So the rows of one are written by hand:
/// what the routing table says leaves by `eth1` leaves with tags, and comes in with them.
fn pretend_tags(gateway: &Conduitfw, eth1: u32, tags: u32) -> Result<()> {
    let mut maps = Maps::open(&gateway.files().pins())?;
    let (slot, _) = maps.in_force()?;
    let row = slot * MAX_PORTS + eth1 % MAX_PORTS;
    let mut port = maps.ports.get(&row, 0)?;
    assert_eq!((port.0.device, port.0.port), (eth1, eth1));
    port.0.vlans = tags;
    port.0.tag_types = 0x88a8_8100;
    maps.ports.set(row, port, 0)?;
    let key = InterfaceKey {
        slot,
        ifindex: eth1,
        vlans: tags,
    };
    maps.tagged.insert(Plain(key), eth1, 0)?;
    Ok(())
}

#[test]
fn tags_are_put_on_and_taken_off_in_the_frame() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(POLICY)?;
    let policy = POLICY.replace("[zones.control]", "[zones.control]\nvlans = [\"100.20\"]");
    let mut gateway = Conduitfw::start(&lab, &policy)?;
    // It would see that there is no such VLAN.
    gateway.stop(Signal::SIGKILL)?;
    let eth1 = lab
        .gateway()
        .enter(|| nix::net::if_::if_nametoindex("eth1"))??;
    pretend_tags(&gateway, eth1, 0x0064_0014)?;
    let mut here = Tap::open(lab.host("operations")?, "net0")?;
    let mut there = Tap::open(lab.host("control")?, "net0")?;
    let inside = Tap::open(lab.gateway(), "eth0")?.address();
    let outside = Tap::open(lab.gateway(), "eth1")?.address();
    let text = |address: [u8; 6]| address.map(|byte| format!("{byte:02x}")).join(":");
    for (hmi, plc) in [V4, V6] {
        for (host, tap, end) in [(hmi, &here, "eth0"), (plc, &there, "eth1")] {
            let tap = text(tap.address());
            lab.gateway()
                .run(&format!("ip neigh replace {host} lladdr {tap} dev {end}"))?;
        }
        let (hmi, plc) = (address(hmi)?, address(plc)?);
        let request = frames::udp((hmi, 9), (plc, 7000)).payload(*b"there");
        let reply = frames::udp((plc, 7000), (hmi, 9)).payload(*b"and back");
        for _ in 0..2 {
            let found = more(&gateway, "port-not-fast", || {
                here.send(&request.clone().macs(here.address(), inside).build())?;
                let arrived = there.wait_for(PATIENCE, |frame| frame.ends_with(b"there"))?;
                let left = request.clone().hop_limit(63).macs(outside, there.address());
                // The socket shows the frame without its outer tag, which its kernel took off.
                let left = left.vlan2(100, 20).build();
                assert_eq!(arrived, Some([&left[..12], &left[16..]].concat()));
                let back = reply.clone().macs(there.address(), outside).vlan2(100, 20);
                there.send(&back.build())?;
                let is_back = |frame: &[u8]| frame[6..12] == inside && frame.ends_with(b"and back");
                let arrived = here.wait_for(PATIENCE, is_back)?;
                let left = reply.clone().hop_limit(63).macs(inside, here.address());
                assert_eq!(arrived, Some(left.build()));
                Ok(())
            })?;
            // And perhaps that nobody listens.
            assert!(found.0 >= 2 && found.1 == 0, "{found:?}");
        }
    }
    Ok(())
}
