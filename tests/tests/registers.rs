//! Many register rules, in force in time and each of them where it belongs; and rates.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::peers::{Device, RawClient};
use conduitfw_tests::scene;
use conduitfw_tests::scene::{DOSING, HMI, PLANT, PLC};

const SHORT: Duration = Duration::from_millis(400);
const RULES: u16 = 10_000;

/// Every second register may be written, each with a value of its own as the largest.
fn policy(count: u16) -> String {
    let mut text =
        PLANT.to_owned() + &DOSING.replace("rationale", "on_deny = \"exception\"\nrationale");
    for rule in 0..count {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[[conduits.modbus]]\nunits = [1]\nfunctions = [6]\nregisters = [{}]\nvalues = {{ max \
             = {} }}\n",
            rule * 2,
            1000 + rule
        );
    }
    text
}

#[test]
fn ten_thousand_rules_come_into_force() -> Result<()> {
    let scene = scene!(&policy(10));
    let server = SocketAddr::from((PLC, 502));
    let device = Device::start(scene.control()?, server)?;
    let mut client = RawClient::connect(scene.operations()?, Some(HMI), server)?;
    client.patience(SHORT)?;
    let mut transaction = 0;
    let mut passes = |register: u16, value: u16| -> Result<bool> {
        transaction += 1;
        let write = modbus::write_single(6, register, value);
        client.exchange(&adu(transaction, 1, &write))?;
        Ok(device.take() == [(1, write)])
    };
    ensure!(passes(18, 1009)? && !passes(18, 1010)?);
    ensure!(!passes(20, 0)?, "there is no rule yet");
    let reload = scene.conduitfw.reload(&policy(RULES))?;
    ensure!(reload.status == Some(0), "{}", reload.said);
    println!("{RULES} rules are in force after {:?}", reload.took);
    for rule in (0..RULES).step_by(997).chain([RULES - 1]) {
        let (register, largest) = (rule * 2, 1000 + rule);
        ensure!(passes(register, largest)?, "{register} has a rule");
        ensure!(!passes(register, largest + 1)?, "{register} has a limit");
        ensure!(!passes(register + 1, 0)?, "{} has no rule", register + 1);
    }
    // A build without optimisation, on a busy machine.
    ensure!(reload.took < Duration::from_secs(20), "{:?}", reload.took);
    Ok(())
}

#[test]
fn a_rate_holds_for_all_connections_together() -> Result<()> {
    let rule = "[[conduits.modbus]]\nunits = [1]\nfunctions = [3, 6]\nregisters = \
                [\"40011-40014\"]\nmax_rate = \"1/s burst 3\"\n";
    let conduit = DOSING.replace("rationale", "on_deny = \"exception\"\nrationale");
    let scene = scene!(&format!("{PLANT}{conduit}{rule}"));
    let server = SocketAddr::from((PLC, 502));
    let device = Device::start(scene.control()?, server)?;
    let connect = || RawClient::connect(scene.operations()?, Some(HMI), server);
    let mut clients = [connect()?, connect()?];
    let mut passed = 0;
    for number in 0..6 {
        // Reads and writes are on one account.
        let request = if number % 2 == 0 {
            modbus::write_single(6, 10, number)
        } else {
            modbus::read(3, 10, 2)
        };
        let client = &mut clients[usize::from(number % 2)];
        client.patience(SHORT)?;
        client.exchange(&adu(number, 1, &request))?;
        passed += usize::from(device.take() == [(1, request)]);
    }
    ensure!(passed == 3, "{passed} passed at once");
    thread::sleep(Duration::from_millis(1200));
    let request = modbus::read(3, 10, 4);
    clients[0].exchange(&adu(100, 1, &request))?;
    ensure!(
        device.take() == [(1, request)],
        "a second later none passes"
    );
    Ok(())
}
