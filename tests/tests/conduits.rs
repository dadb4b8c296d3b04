//! Between zones only the documented conduits carry traffic.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conduitfw_tests::frames::{self, SYN};
use conduitfw_tests::lab::{Conduitfw, Host, Lab, skipped_without_root};
use conduitfw_tests::peers::{Listener, ModbusClient, Plc, connect_from, ping};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{DOSING, GATEWAY, HMI, HMI_V6, PLANT, PLC, PLC_V6, STRANGER, dosing};

/// Longer than any answer takes in the lab, shorter than a client's second try.
const SHORT: Duration = Duration::from_millis(600);
const FAMILIES: [(IpAddr, IpAddr); 2] = [(HMI, PLC), (HMI_V6, PLC_V6)];

fn plain(keys: &str) -> String {
    format!("{PLANT}{DOSING}{keys}\n")
}

fn connects(host: &Host, source: IpAddr, destination: (IpAddr, u16)) -> bool {
    connect_from(host, Some(source), destination, SHORT).is_ok()
}

fn udp(host: &Host, address: (IpAddr, u16)) -> Result<UdpSocket> {
    let socket = host.enter(|| UdpSocket::bind(address))??;
    socket.set_read_timeout(Some(SHORT))?;
    Ok(socket)
}

fn pings(host: &Host, source: IpAddr, destination: IpAddr) -> Result<bool> {
    ping(host, source, destination, SHORT)
}

#[test]
fn only_the_conduits_port_hosts_and_direction_are_open() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let (operations, control) = (scene.operations()?, scene.control()?);
    let _servers: Vec<Listener> = [
        Listener::echo(control, (PLC, 502))?,
        Listener::echo(control, (PLC, 503))?,
        Listener::echo(operations, (HMI, 502))?,
        Listener::echo(scene.lab.gateway(), (GATEWAY, 22))?,
    ]
    .into();
    assert!(connects(operations, HMI, (PLC, 502)), "the conduit itself");
    assert!(!connects(operations, STRANGER, (PLC, 502)), "a stranger");
    assert!(!connects(operations, HMI, (PLC, 503)), "another port");
    assert!(!connects(control, PLC, (HMI, 502)), "the other direction");
    assert!(
        !connects(operations, HMI, (GATEWAY, 22)),
        "the gateway itself"
    );
    assert!(!pings(operations, HMI, PLC)?, "a ping");
    assert!(!pings(operations, HMI, GATEWAY)?, "a ping of the gateway");
    Ok(())
}

#[test]
fn plain_tcp_ports_and_ranges_carry_anything() -> Result<()> {
    let scene = scene!(&plain(r#"tcp = [4840, "5000-5010"]"#));
    for (hmi, plc) in FAMILIES {
        for (port, open) in [
            (4840, true),
            (4841, false),
            (4999, false),
            (5000, true),
            (5010, true),
            (5011, false),
        ] {
            let _server = Listener::echo(scene.control()?, (plc, port))?;
            assert_eq!(
                connects(scene.operations()?, hmi, (plc, port)),
                open,
                "{plc} {port}"
            );
        }
        let _server = Listener::echo(scene.control()?, (plc, 4840))?;
        let mut stream = connect_from(scene.operations()?, Some(hmi), (plc, 4840), SHORT)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let sent: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        let mut sender = stream.try_clone()?;
        let copy = sent.clone();
        let sending = std::thread::spawn(move || sender.write_all(&copy));
        let mut received = vec![0; sent.len()];
        stream
            .read_exact(&mut received)
            .context("a megabyte there and back")?;
        assert!(received == sent);
        sending.join().map_or(Ok(()), |sent| sent)?;
    }
    Ok(())
}

#[test]
fn udp_is_answered_but_not_asked() -> Result<()> {
    let scene = scene!(&plain("udp = [7000]"));
    for (hmi, plc) in FAMILIES {
        let client = udp(scene.operations()?, (hmi, 40_000))?;
        let server = udp(scene.control()?, (plc, 7000))?;
        let mut bytes = [0; 64];
        server.send_to(b"unasked", (hmi, 40_000))?;
        ensure!(
            client.recv_from(&mut bytes).is_err(),
            "a reply before any request"
        );
        client.send_to(b"question", (plc, 7000))?;
        let (length, from) = server.recv_from(&mut bytes).context("the request")?;
        assert_eq!((&bytes[..length], from.ip()), (&b"question"[..], hmi));
        server.send_to(b"answer", from)?;
        let (length, _) = client.recv_from(&mut bytes).context("the reply")?;
        assert_eq!(&bytes[..length], b"answer");
        let closed = udp(scene.control()?, (plc, 7001))?;
        client.send_to(b"question", (plc, 7001))?;
        ensure!(closed.recv_from(&mut bytes).is_err(), "another port");
    }
    Ok(())
}

#[test]
fn an_icmp_error_comes_back_for_a_known_flow() -> Result<()> {
    let scene = scene!(&plain("udp = [7000]"));
    for (hmi, plc) in FAMILIES {
        // Nobody listens: the PLC answers "port unreachable".
        let client = udp(scene.operations()?, (hmi, 0))?;
        client.connect((plc, 7000))?;
        client.send(b"question")?;
        let refused = client
            .recv(&mut [0; 8])
            .err()
            .context("an answer from nobody")?;
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{plc}");
    }
    Ok(())
}

#[test]
fn echo_passes_by_conduit_and_one_way_only() -> Result<()> {
    let scene = scene!(&plain("icmp_echo = true"));
    for (hmi, plc) in FAMILIES {
        assert!(pings(scene.operations()?, hmi, plc)?, "{hmi} to {plc}");
        assert!(!pings(scene.control()?, plc, hmi)?, "{plc} to {hmi}");
    }
    assert!(!pings(scene.operations()?, STRANGER, PLC)?, "a stranger");
    assert!(
        !connects(scene.operations()?, HMI, (PLC, 502)),
        "echo opens no port"
    );
    Ok(())
}

#[test]
fn a_spoofed_source_gets_nowhere() -> Result<()> {
    let policy = plain("udp = [7000]").replace("from = [\"hmi-1\"]", "from = [\"operations\"]");
    let scene = scene!(&policy);
    let server = udp(scene.control()?, (PLC, 7000))?;
    let mut bytes = [0; 64];
    let send = |source: IpAddr| {
        let frame = frames::udp((source, 9), (PLC, 7000)).payload(*b"hello");
        scene.operations()?.send_packet(PLC, &frame.packet())
    };
    for source in [
        "10.20.0.10",
        "10.20.0.99",
        "192.0.2.9",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
    ] {
        send(source.parse()?)?;
        ensure!(
            server.recv_from(&mut bytes).is_err(),
            "{source} came through"
        );
    }
    send(HMI)?;
    server
        .recv_from(&mut bytes)
        .context("the zone's own address")?;
    // A SYN in the PLC's name opens nothing either.
    let syn = frames::tcp((PLC, 1), (PLC, 502)).flags(SYN);
    scene.operations()?.send_packet(PLC, &syn.packet())?;
    Ok(())
}

#[test]
fn fragments_get_nowhere() -> Result<()> {
    let scene = scene!(&plain("udp = [7000]"));
    for (hmi, plc) in FAMILIES {
        let client = udp(scene.operations()?, (hmi, 40_000))?;
        let server = udp(scene.control()?, (plc, 7000))?;
        let mut bytes = [0; 4096];
        client.send_to(&[7; 4000], (plc, 7000))?;
        ensure!(
            server.recv_from(&mut bytes).is_err(),
            "a datagram in fragments from {hmi}"
        );
        client.send_to(&[7; 1400], (plc, 7000))?;
        server.recv_from(&mut bytes).context("a whole datagram")?;
    }
    Ok(())
}

#[test]
fn the_gateway_is_a_zone() -> Result<()> {
    let policy = format!(
        "{PLANT}\n\
         [[conduits]]\nname = \"maintenance\"\nfrom = [\"hmi-1\"]\nto = [\"gateway\"]\n\
         rationale = \"ssh\"\ntcp = [22]\nicmp_echo = true\n\
         [[conduits]]\nname = \"logs\"\nfrom = [\"gateway\"]\nto = [\"control\"]\n\
         rationale = \"syslog\"\ntcp = [6514]\nudp = [514]\nicmp_echo = true\n"
    );
    let scene = scene!(&policy);
    let (operations, control, gateway) =
        (scene.operations()?, scene.control()?, scene.lab.gateway());
    let _ssh = Listener::echo(gateway, (GATEWAY, 22))?;
    let _telnet = Listener::echo(gateway, (GATEWAY, 23))?;
    let _logs = Listener::echo(control, (PLC, 6514))?;
    let _other = Listener::echo(control, (PLC, 6515))?;
    assert!(
        connects(operations, HMI, (GATEWAY, 22)),
        "ssh to the gateway"
    );
    assert!(
        !connects(operations, STRANGER, (GATEWAY, 22)),
        "a stranger's ssh"
    );
    assert!(!connects(operations, HMI, (GATEWAY, 23)), "another port");
    assert!(pings(operations, HMI, GATEWAY)?, "a ping of the gateway");
    let own: IpAddr = [10, 20, 0, 1].into();
    let mut stream = connect_from(gateway, Some(own), (PLC, 6514), SHORT)
        .context("the gateway's own connection")?;
    stream.set_read_timeout(Some(SHORT))?;
    stream.write_all(b"line")?;
    stream
        .read_exact(&mut [0; 4])
        .context("the answer on the gateway's own connection")?;
    assert!(
        !connects(gateway, own, (PLC, 6515)),
        "answers from another port"
    );
    assert!(pings(gateway, own, PLC)?, "the gateway's own ping");
    let logs = udp(control, (PLC, 514))?;
    let sender = udp(gateway, (own, 40_000))?;
    sender.send_to(b"line", (PLC, 514))?;
    let (_, from) = logs.recv_from(&mut [0; 8])?;
    logs.send_to(b"thanks", from)?;
    sender
        .recv_from(&mut [0; 8])
        .context("the answer to the gateway's datagram")?;
    Ok(())
}

#[test]
fn observe_lets_pass_and_reports() -> Result<()> {
    let policy = dosing(r#""reads""#).replace("rationale", "mode = \"observe\"\nrationale");
    let scene = scene!(&policy);
    let plc = Plc::start(scene.control()?, (PLC, 502))?;
    let events = scene.conduitfw.events(&["--json"])?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(10, 1)?;
    client.write(10, 900)?;
    assert_eq!(plc.service().written(10), Some(900));
    assert_eq!(client.read(10, 1)?, [900], "and the connection lives on");
    let event = events.find(|line| line.contains("function-not-allowed"))?;
    let event: serde_json::Value = serde_json::from_str(&event)?;
    assert_eq!(event["event"], "would-deny");
    assert_eq!(event["verdict"], "pass");
    assert!(
        !connects(scene.operations()?, STRANGER, (PLC, 502)),
        "only the conduit observes"
    );
    Ok(())
}

#[test]
fn a_whole_policy_can_observe() -> Result<()> {
    let policy = dosing(r#""reads""#).replace("[site]", "[settings]\nmode = \"observe\"\n\n[site]");
    let scene = scene!(&policy);
    let plc = Plc::start(scene.control()?, (PLC, 502))?;
    let events = scene.conduitfw.events(&["--json"])?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(STRANGER), (PLC, 502), 1)?;
    client.write(10, 900)?;
    assert_eq!(plc.service().written(10), Some(900));
    let stranger = STRANGER.to_string();
    let event = events.find(|line| line.contains(&stranger) && line.contains("no-conduit"))?;
    ensure!(event.contains("would-deny"), "{event}");
    Ok(())
}

#[test]
fn an_idle_scanner_learns_nothing() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    // A segment of no connection gets no answer: neither from the PLC nor in its name.
    let destination = SocketAddr::from((PLC, 502));
    let server = Listener::echo(scene.control()?, destination)?;
    let sniffer = scene.operations()?.enter(|| {
        socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::TCP),
        )
    })??;
    sniffer.set_read_timeout(Some(SHORT))?;
    for flags in [
        frames::ACK,
        frames::RST,
        frames::FIN,
        frames::FIN | frames::SYN,
        0,
        0xff,
    ] {
        let probe = frames::tcp((HMI, 45_000), destination)
            .flags(flags)
            .seq(7)
            .ack(9);
        scene.operations()?.send_packet(PLC, &probe.packet())?;
    }
    let mut bytes = [0; 256];
    let answered = (&sniffer).read(&mut bytes);
    ensure!(
        answered.is_err(),
        "a probe was answered: {:?}",
        &bytes[..40]
    );
    drop(server);
    Ok(())
}

#[test]
fn vlans_are_part_of_the_zone() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for (vlans, others) in [("20", ["21", "100.20"]), ("100.20", ["20", "100.21"])] {
        let policy = |vlans: &str| {
            let tagged = format!("[zones.control]\nvlans = [\"{vlans}\"]");
            dosing(r#""reads""#).replace("[zones.control]", &tagged)
        };
        let right = policy(vlans);
        let lab = Lab::for_policy(&right)?;
        let conduitfw = Conduitfw::start(&lab, &right)?;
        let (operations, control) = (lab.host("operations")?, lab.host("control")?);
        for (hmi, plc) in FAMILIES {
            let server = Plc::start(control, (plc, 502))?;
            let mut client = ModbusClient::connect(operations, Some(hmi), (plc, 502), 1)
                .with_context(|| format!("VLAN {vlans}"))?;
            assert_eq!(client.read(0, 2)?.len(), 2);
            ensure!(
                client.write(0, 1).is_err(),
                "VLAN {vlans}: a write was answered"
            );
            assert_eq!(server.service().functions(), [3]);
        }
        let _server = Listener::echo(control, (PLC, 502))?;
        for other in others {
            let reload = conduitfw.reload(&policy(other))?;
            assert_eq!(reload.status, Some(0), "{}", reload.said);
            assert!(
                !connects(operations, HMI, (PLC, 502)),
                "VLAN {vlans} passed for {other}"
            );
        }
        let reload = conduitfw.reload(&policy("any"))?;
        assert_eq!(reload.status, Some(0), "{}", reload.said);
        assert!(connects(operations, HMI, (PLC, 502)), "any VLAN");
    }
    Ok(())
}
