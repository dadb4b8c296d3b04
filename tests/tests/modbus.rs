//! Modbus over real connections: what the policy allows gets through, what it does not is reset.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::lab::target_directory;
use conduitfw_tests::peers::{Device, ModbusClient, Plc, RawClient};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{DOSING, HMI, HMI_V6, PLANT, PLC, PLC_V6, Scene, dosing};

const FAMILIES: [(IpAddr, IpAddr); 2] = [(HMI, PLC), (HMI_V6, PLC_V6)];

/// The Python that has pymodbus.
fn python() -> Result<PathBuf> {
    let found = match std::env::var_os("CONDUITFW_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => target_directory()?.join("python/bin/python3"),
    };
    ensure!(
        found.exists(),
        "{} is missing: run `cargo xtask setup`",
        found.display()
    );
    Ok(found)
}

#[test]
fn pymodbus_reads_while_its_writes_are_reset() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/pymodbus_client.py");
    for (hmi, server) in FAMILIES {
        let plc = Plc::start(scene.control()?, (server, 502))?;
        let mut command = scene.operations()?.command(python()?);
        command
            .arg(script)
            .args([&hmi.to_string(), &server.to_string(), "502", "1"]);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("read done: ["), "{said}{complaint}");
        ensure!(said.contains("read-again done: ["), "{said}{complaint}");
        for write in [
            "write-single-register",
            "write-multiple-registers",
            "write-single-coil",
        ] {
            ensure!(
                said.contains(&format!("{write} failed")),
                "{said}{complaint}"
            );
        }
        assert_eq!(
            plc.service().functions(),
            [3, 3],
            "only the reads reached the PLC"
        );
    }
    Ok(())
}

#[test]
fn mbpoll_reads_while_its_writes_are_reset() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    // mbpoll takes the source address that routing gives, the asset's when it comes first.
    for (_, server) in FAMILIES {
        let plc = Plc::start(scene.control()?, (server, 502))?;
        let server = server.to_string();
        let poll = |extra: &[&str]| {
            let mut words = vec![
                "-m", "tcp", "-a", "1", "-r", "11", "-t", "4", "-1", "-o", "2",
            ];
            words.push(&server);
            words.extend(extra);
            scene.operations()?.output("mbpoll", words)
        };
        let read = poll(&[])?;
        let said = String::from_utf8_lossy(&read.stdout);
        ensure!(read.status.success() && said.contains("[11]:"), "{said}");
        let write = poll(&["900"])?;
        ensure!(
            !write.status.success(),
            "{}",
            String::from_utf8_lossy(&write.stdout)
        );
        assert_eq!(
            plc.service().functions(),
            [3],
            "only the read reached the PLC"
        );
        assert_eq!(plc.service().written(10), None);
    }
    Ok(())
}

#[test]
fn tokio_modbus_reads_while_its_writes_are_reset_with_and_without_offload() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    for offload in ["tx on", "tx off"] {
        scene.lab.offload(offload)?;
        for (hmi, server) in FAMILIES {
            let plc = Plc::start(scene.control()?, (server, 502))?;
            let connect =
                || ModbusClient::connect(scene.operations()?, Some(hmi), (server, 502), 1);
            let (mut bystander, mut client) = (connect()?, connect()?);
            assert_eq!(client.read(10, 2)?.len(), 2, "{offload}");
            let refused = client
                .write(10, 900)
                .err()
                .context("the write was not refused")?;
            let refused = format!("{refused:#}");
            ensure!(refused.contains("reset by peer"), "{offload}: {refused}");
            assert_eq!(bystander.read(10, 2)?.len(), 2, "other connections live on");
            assert_eq!(connect()?.read(10, 2)?.len(), 2, "and new ones come");
            assert_eq!(plc.service().written(10), None);
        }
    }
    Ok(())
}

/// The server's connections, as its own socket table has them.
fn sockets(scene: &Scene) -> Result<String> {
    scene
        .control()?
        .run("ss -Htn state established sport = :502")
}

#[test]
fn a_reset_frees_the_servers_socket() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let device = Device::start(scene.control()?, (PLC, 502))?;
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), (PLC, 502))?;
    client.exchange(&adu(1, 1, modbus::read(3, 0, 1)))?;
    ensure!(
        sockets(&scene)?.contains("10.10.0.5"),
        "the connection is not there"
    );
    client.send(&adu(2, 1, modbus::write_single(6, 0, 1)))?;
    // Well before the client's retransmission, 200 ms later.
    thread::sleep(Duration::from_millis(50));
    let left = sockets(&scene)?;
    ensure!(left.trim().is_empty(), "the server still holds {left}");
    let ended = client.read().err().context("the client was not told")?;
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    assert_eq!(device.take().len(), 1);
    Ok(())
}

#[test]
fn on_deny_drop_leaves_the_client_repeating_itself() -> Result<()> {
    let policy = dosing(r#""reads""#).replace("rationale", "on_deny = \"drop\"\nrationale");
    let scene = scene!(&policy);
    let device = Device::start(scene.control()?, (PLC, 502))?;
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), (PLC, 502))?;
    client.patience(Duration::from_millis(700))?;
    client.exchange(&adu(1, 1, modbus::read(3, 0, 1)))?;
    let silence = client.exchange(&adu(2, 1, modbus::write_single(6, 0, 1)));
    assert_eq!(
        silence.err().map(|error| error.kind()),
        Some(ErrorKind::WouldBlock)
    );
    assert_eq!(device.take().len(), 1);
    ensure!(
        !sockets(&scene)?.trim().is_empty(),
        "the server keeps its connection"
    );
    Ok(())
}

/// Sends one ADU over a connection of its own; true when it got an answer, false on a reset.
fn is_answered(scene: &Scene, source: IpAddr, server: SocketAddr, adu: &[u8]) -> Result<bool> {
    let mut client = RawClient::connect(scene.operations()?, Some(source), server)?;
    match client.exchange(adu) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(error).context("neither answer nor reset"),
    }
}

#[test]
fn every_function_code_can_be_allowed_and_denied() -> Result<()> {
    let codes = |parity: u16| {
        let codes = (0..=255_u16).filter(|code| code % 2 == parity);
        codes
            .map(|code| code.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let policy = format!(
        "{PLANT}{DOSING}new_flows = \"unlimited\"\n\
         [[conduits.modbus]]\nunits = [1]\nfunctions = [{}]\nsub_functions = \"all\"\n\
         [[conduits.modbus]]\nunits = [2]\nfunctions = [{}]\nmei_types = \"all\"\n",
        codes(0),
        codes(1)
    );
    let scene = scene!(&policy);
    let server = SocketAddr::from((PLC, 502));
    let device = Device::start(scene.control()?, server)?;
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
    for code in 0..=u8::MAX {
        let (unit, request) = (1 + code % 2, modbus::request(code));
        let answer = client.exchange(&adu(u16::from(code), unit, &request));
        let answer = answer.with_context(|| format!("function {code} allowed on unit {unit}"))?;
        assert_eq!(answer, (unit, vec![code | 0x80, 1]));
        assert_eq!(device.take(), [(unit, request)], "function {code}");
    }
    let denied = |code: u8| -> Result<()> {
        let adu = adu(u16::from(code), 2 - code % 2, modbus::request(code));
        let answered = is_answered(&scene, HMI, server, &adu)
            .with_context(|| format!("function {code} denied"))?;
        ensure!(!answered, "function {code} was answered");
        Ok(())
    };
    thread::scope(|scope| {
        let work = |part: u8| (part..=u8::MAX).step_by(16).try_for_each(denied);
        let parts: Vec<_> = (0..16)
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        parts
            .into_iter()
            .try_for_each(|part| part.join().unwrap_or_else(|_| Ok(())))
    })?;
    assert_eq!(
        device.take(),
        [],
        "nothing that was denied reached the device"
    );
    Ok(())
}

#[test]
fn sub_functions_and_mei_types_are_told_apart() -> Result<()> {
    let policy = format!(
        "{PLANT}{DOSING}\n[[conduits.modbus]]\nunits = [1]\n\
         functions = [\"diagnostics\", \"encapsulated-interface-transport\"]\n\
         sub_functions = [0, \"10-18\"]\nmei_types = [\"read-device-identification\"]\n"
    );
    let scene = scene!(&policy);
    let server = SocketAddr::from((PLC, 502));
    let _device = Device::start(scene.control()?, server)?;
    let asked = |pdu: Vec<u8>| is_answered(&scene, HMI, server, &adu(1, 1, pdu));
    for (sub_function, allowed) in [
        (0, true),
        (1, false),
        (9, false),
        (10, true),
        (18, true),
        (19, false),
    ] {
        assert_eq!(
            asked(modbus::diagnostics(sub_function, 0))?,
            allowed,
            "{sub_function}"
        );
    }
    assert!(asked(modbus::encapsulated(14, &[1, 0]))?);
    assert!(!asked(modbus::encapsulated(13, &[1, 0]))?);
    assert!(!asked(modbus::encapsulated(255, &[]))?);
    Ok(())
}

#[test]
fn units_are_told_apart() -> Result<()> {
    let policy = dosing(r#""reads""#).replace("units = [1]", "units = [1, \"10-20\", 255]");
    let scene = scene!(&policy);
    let server = SocketAddr::from((PLC, 502));
    let device = Device::start(scene.control()?, server)?;
    for (unit, allowed) in [
        (0, false),
        (1, true),
        (2, false),
        (9, false),
        (10, true),
        (20, true),
        (21, false),
        (255, true),
    ] {
        let adu = adu(1, unit, modbus::read(3, 0, 1));
        assert_eq!(
            is_answered(&scene, HMI, server, &adu)?,
            allowed,
            "unit {unit}"
        );
        assert_eq!(device.take().len(), usize::from(allowed), "unit {unit}");
    }
    Ok(())
}

#[test]
fn sixteen_requests_in_one_segment_pass_and_one_bad_among_them_does_not() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let device = Device::start(scene.control()?, (PLC, 502))?;
    let reads: Vec<u8> = (0..16)
        .flat_map(|id| adu(id, 1, modbus::read(3, id, 1)))
        .collect();
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), (PLC, 502))?;
    client.send(&reads)?;
    for _ in 0..16 {
        client.read()?;
    }
    assert_eq!(device.take().len(), 16);
    let mut mixed = reads;
    mixed[15 * 12 + 7] = 6;
    client.send(&mixed)?;
    let ended = client
        .read()
        .err()
        .context("the write among the reads was answered")?;
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    assert!(device.take().iter().all(|(_, pdu)| pdu[0] == 3));
    Ok(())
}

#[test]
fn a_request_may_come_in_any_two_pieces() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let device = Device::start(scene.control()?, (PLC, 502))?;
    let read = adu(1, 1, modbus::read(3, 0, 1));
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let pause = Duration::from_millis(5);
    for cut in 1..read.len() {
        let mut client = RawClient::connect(scene.operations()?, Some(HMI), (PLC, 502))?;
        client.send(&read[..cut])?;
        thread::sleep(pause);
        client.send(&read[cut..])?;
        client
            .read()
            .with_context(|| format!("a read cut at {cut}"))?;
        client.send(&write[..cut])?;
        thread::sleep(pause);
        // A write that was denied by its first piece has ended the connection already.
        let _ = client.send(&write[cut..]);
        ensure!(client.read().is_err(), "a write cut at {cut} was answered");
    }
    assert!(device.take().iter().all(|(_, pdu)| pdu[0] == 3));
    Ok(())
}

#[test]
fn malformed_headers_are_denied() -> Result<()> {
    let scene = scene!(&dosing(r#""all""#));
    let server = SocketAddr::from((PLC, 502));
    let device = Device::start(scene.control()?, server)?;
    let read = modbus::read(3, 0, 1);
    let with = |protocol_id, length| modbus::with_header(1, protocol_id, length, 1, &read);
    for (what, adu) in [
        ("protocol id 1", with(1, 6)),
        ("length 0", with(0, 0)),
        ("length 1", with(0, 1)),
        ("length 255", with(0, 255)),
        ("length 65,535", with(0, u16::MAX)),
        ("a read with a longer length", {
            let mut adu = with(0, 12);
            adu.extend_from_slice(&modbus::write_single(6, 0, 1));
            adu
        }),
    ] {
        let answered = is_answered(&scene, HMI, server, &adu).context(what)?;
        ensure!(!answered, "{what} was answered");
        assert_eq!(device.take(), [], "{what} reached the device");
    }
    Ok(())
}
