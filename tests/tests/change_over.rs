//! Tables of another version or for other limits, replaced while the plant runs: nothing that is denied gets
//! through at any moment, and who reads goes on reading.

use std::fs;
use std::net::UdpSocket;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use conduitfw::dataplane::maps::Plain;
use conduitfw_common::table::Settings;
use conduitfw_tests::lab::Host;
use conduitfw_tests::load::Load;
use conduitfw_tests::peers::{ModbusClient, Plc};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{HMI, PLC, STRANGER, Scene, dosing};
use nix::sys::signal::Signal;

/// The plant with room for so many flows.
fn plant(flows: u32) -> String {
    let limits = format!("[settings.limits]\nflows = {flows}\n\n[zones.operations]");
    dosing(r#""read-holding-registers""#).replace("[zones.operations]", &limits)
}

/// A stranger who never stops trying to reach the PLC, both ways.
struct Intruder<'a> {
    from_outside: UdpSocket,
    from_inside: UdpSocket,
    stop: &'a AtomicBool,
    sent: AtomicU64,
    arrived: AtomicU64,
}

impl<'a> Intruder<'a> {
    fn new(operations: &Host, control: &Host, stop: &'a AtomicBool) -> Result<Self> {
        let open = |host: &Host, at| -> Result<UdpSocket> {
            let socket = host.enter(|| UdpSocket::bind((at, 5000)))??;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            from_outside: open(operations, STRANGER)?,
            from_inside: open(control, PLC)?,
            stop,
            sent: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
        })
    }

    fn try_on(&self) {
        let mut bytes = [0; 16];
        while !self.stop.load(Ordering::Relaxed) {
            // Full queues and the like: the next one is soon.
            let _ = self.from_outside.send_to(b"let me in", (PLC, 5000));
            let _ = self.from_inside.send_to(b"let me out", (STRANGER, 5000));
            self.sent.fetch_add(2, Ordering::Relaxed);
            for socket in [&self.from_outside, &self.from_inside] {
                if socket.recv(&mut bytes).is_ok() {
                    self.arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Runs `work` while the intruder tries; what it tried, of which nothing arrived.
fn watched(scene: &mut Scene, work: impl FnOnce(&mut Scene) -> Result<()>) -> Result<u64> {
    let stop = AtomicBool::new(false);
    let intruder = Intruder::new(scene.operations()?, scene.control()?, &stop)?;
    thread::scope(|scope| {
        scope.spawn(|| intruder.try_on());
        let outcome = work(scene);
        thread::sleep(Duration::from_millis(50));
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    let arrived = intruder.arrived.load(Ordering::Relaxed);
    ensure!(arrived == 0, "{arrived} datagrams got through");
    Ok(intruder.sent.load(Ordering::Relaxed))
}

/// Names under the directory of pins of all instances that belong to this one.
fn pin_directories(scene: &Scene) -> Result<Vec<String>> {
    let pins = scene.conduitfw.files().pins();
    let own = pins.file_name().and_then(|name| name.to_str());
    let own = own.context("no name")?;
    let mut names = Vec::new();
    // It is gone with the last instance.
    let Ok(entries) = fs::read_dir(pins.parent().context("no parent")?) else {
        return Ok(names);
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.split('+').next() == Some(own) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_guarded(scene: &Scene) -> Result<()> {
    let status = scene.status()?;
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    ensure!(interfaces.len() == 2, "{status}");
    for interface in interfaces {
        ensure!(interface["mode"] == "native", "{interface}");
    }
    ensure!(pin_directories(scene)?.len() == 1, "pins are left");
    Ok(())
}

fn refused_without_leave(scene: &mut Scene, hint: &str) -> Result<()> {
    let error = scene.conduitfw.run(&[]).err().context("it took over")?;
    let said = format!("{error:#}");
    ensure!(
        said.contains(hint) && said.contains("--change-over"),
        "{said}"
    );
    Ok(())
}

#[test]
fn other_limits_come_without_a_gap() -> Result<()> {
    let mut scene = scene!(&plant(1024));
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let load = Load::start(scene.operations()?, HMI, (PLC, 502), 4)?;
    let sent = watched(&mut scene, |scene| {
        scene.conduitfw.stop(Signal::SIGTERM)?;
        fs::write(scene.conduitfw.files().policy(), plant(2048))?;
        refused_without_leave(scene, "flows = 2048")?;
        scene.conduitfw.run(&["--change-over"])?;
        let so_far = load.transactions();
        let started = Instant::now();
        while load.transactions() < so_far + 100 {
            ensure!(started.elapsed() < Duration::from_secs(3), "nobody reads");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })?;
    let transactions = load.stop().context("a transaction failed")?;
    println!("{transactions} transactions, {sent} datagrams that were denied");
    is_guarded(&scene)?;
    let status = scene.status()?;
    assert_eq!(status["generation"], 1, "everything begins anew");
    let adopted = status["controller"]["flows_adopted"].as_u64();
    assert_eq!(adopted, Some(4), "the connections were picked up: {status}");
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    assert!(client.write(0, 1).is_err(), "a write was answered");
    // What fits is taken over as ever.
    scene.conduitfw.stop(Signal::SIGKILL)?;
    scene.conduitfw.run(&["--change-over"])?;
    assert_eq!(scene.status()?["generation"], 2);
    Ok(())
}

#[test]
fn tables_of_another_version_are_replaced_when_told_to() -> Result<()> {
    let mut scene = scene!(&plant(1024));
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    scene.conduitfw.stop(Signal::SIGTERM)?;
    let settings = MapData::from_pin(scene.conduitfw.files().pins().join("SETTINGS"))?;
    let mut settings: Array<MapData, Plain<Settings>> = Array::try_from(Map::Array(settings))?;
    let mut earlier = settings.get(&0, 0)?;
    earlier.0.abi_version -= 1;
    settings.set(0, earlier, 0)?;
    drop(settings);
    watched(&mut scene, |scene| {
        refused_without_leave(scene, "another version")?;
        client.read(0, 1).context("the old tables are in force")?;
        scene.conduitfw.run(&["--change-over"])
    })?;
    client.read(0, 1).context("a connection from before")?;
    is_guarded(&scene)
}

#[test]
fn a_change_over_that_is_killed_at_any_moment_is_gone_on_with_or_back() -> Result<()> {
    let mut scene = scene!(&plant(1024));
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    scene.conduitfw.stop(Signal::SIGTERM)?;
    let files = scene.conduitfw.files().clone();
    watched(&mut scene, |scene| {
        for (round, flows) in (0..12_u64).zip([2048, 4096].into_iter().cycle()) {
            fs::write(files.policy(), plant(flows))?;
            let mut command = files.command("run");
            command
                .arg("--policy")
                .arg(files.policy())
                .arg("--change-over");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn()?;
            thread::sleep(Duration::from_millis(20 + round * 74 % 900));
            child.kill()?;
            child.wait()?;
        }
        fs::write(files.policy(), plant(8192))?;
        scene.conduitfw.run(&["--change-over"])
    })?;
    is_guarded(&scene)?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    Ok(())
}

#[test]
fn a_change_over_that_fails_leaves_what_was_in_force() -> Result<()> {
    let mut scene = scene!(&plant(1024));
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    scene.conduitfw.stop(Signal::SIGTERM)?;
    watched(&mut scene, |scene| {
        let policy = plant(2048).replace("[\"eth0\"]", "[\"eth0\", \"eth7\"]");
        fs::write(scene.conduitfw.files().policy(), policy)?;
        match scene.conduitfw.run(&["--change-over"]) {
            Err(error) => ensure!(format!("{error:#}").contains("eth7"), "{error:#}"),
            Ok(()) => bail!("it started"),
        }
        client.read(0, 1).context("the old tables are in force")?;
        fs::write(scene.conduitfw.files().policy(), plant(1024))?;
        scene.conduitfw.run(&[])
    })?;
    is_guarded(&scene)?;
    assert_eq!(scene.status()?["generation"], 2, "it took over");
    client.read(0, 1)?;
    Ok(())
}

/// The state between two links: the new tables are in force, and one link has not gone over.
fn leave_half_done(scene: &mut Scene) -> Result<()> {
    scene.conduitfw.stop(Signal::SIGKILL)?;
    let pins = scene.conduitfw.files().pins();
    let mut earlier = pins.clone().into_os_string();
    earlier.push("+earlier");
    fs::create_dir(&earlier)?;
    fs::rename(
        pins.join("link-eth1"),
        std::path::Path::new(&earlier).join("link-eth1"),
    )?;
    ensure!(pin_directories(scene)?.len() == 2);
    Ok(())
}

#[test]
fn a_change_over_that_ended_between_two_links_is_gone_on_with() -> Result<()> {
    let mut scene = scene!(&plant(1024));
    let _plc = Plc::start(scene.control()?, (PLC, 502))?;
    let mut client = ModbusClient::connect(scene.operations()?, Some(HMI), (PLC, 502), 1)?;
    client.read(0, 1)?;
    watched(&mut scene, |scene| {
        leave_half_done(scene)?;
        scene.conduitfw.run(&[])
    })?;
    is_guarded(&scene)?;
    assert_eq!(scene.status()?["generation"], 2, "it took over");
    client.read(0, 1)?;

    leave_half_done(&mut scene)?;
    let detached = scene.conduitfw.output("detach", &["--json"])?;
    let said: serde_json::Value = serde_json::from_slice(&detached.stdout)?;
    assert_eq!(said["interfaces"], serde_json::json!(["eth0", "eth1"]));
    assert!(pin_directories(&scene)?.is_empty());
    Ok(())
}
