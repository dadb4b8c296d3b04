//! Connections that were open before the gateway: when they are picked up, and when not.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conduitfw::dataplane::maps::open_settings;
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::lab::{Conduitfw, Lab, skipped_without_root};
use conduitfw_tests::peers::{Plc, RawClient};
use conduitfw_tests::scene::{DOSING, HMI, PLANT, PLC};
use nix::sys::signal::Signal;

const SHORT: Duration = Duration::from_millis(400);

/// Reads are allowed, and the window is open for this long.
fn policy(adopt: &str) -> String {
    let settings = format!("\n[settings]\nadopt = \"{adopt}\"\n");
    let rule = "\n[[conduits.modbus]]\nunits = [1]\nfunctions = [\"reads\"]\n";
    format!("{PLANT}{settings}{DOSING}{rule}")
}

fn server() -> SocketAddr {
    SocketAddr::from((PLC, 502))
}

/// A connection that is open before conduitfw is, and has been used.
fn early_client(lab: &Lab) -> Result<RawClient> {
    let mut client = RawClient::connect(lab.host("operations")?, Some(HMI), server())?;
    client.exchange(&read(1))?;
    client.patience(SHORT)?;
    Ok(client)
}

fn read(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, modbus::read(3, 0, 1))
}

fn adopt_until(conduitfw: &Conduitfw) -> Result<u64> {
    let settings = open_settings(&conduitfw.files().pins());
    Ok(settings.context("no settings")?.adopt_until_ticks)
}

#[test]
fn a_connection_is_picked_up_only_while_the_window_is_open() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for (adopt, wait, is_picked_up) in [("5m", 0, true), ("0s", 0, false), ("500ms", 800, false)] {
        let policy = policy(adopt);
        let lab = Lab::for_policy(&policy)?;
        let _plc = Plc::start(lab.host("control")?, server())?;
        let mut client = early_client(&lab)?;
        let _conduitfw = Conduitfw::start(&lab, &policy)?;
        thread::sleep(Duration::from_millis(wait));
        let answer = client.exchange(&read(2));
        ensure!(answer.is_ok() == is_picked_up, "{adopt}: {answer:?}");
    }
    Ok(())
}

#[test]
fn a_request_that_is_denied_picks_nothing_up() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let policy = policy("5m");
    let lab = Lab::for_policy(&policy)?;
    let _plc = Plc::start(lab.host("control")?, server())?;
    let mut client = early_client(&lab)?;
    let _conduitfw = Conduitfw::start(&lab, &policy)?;
    let write = adu(2, 1, modbus::write_single(6, 0, 1));
    ensure!(client.exchange(&write).is_err(), "a write was answered");
    Ok(())
}

#[test]
fn the_window_is_that_of_the_first_load() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let lab = Lab::for_policy(&policy("5m"))?;
    let mut conduitfw = Conduitfw::start(&lab, &policy("5m"))?;
    let first = adopt_until(&conduitfw)?;
    ensure!(first != 0, "the window is not open");
    let reload = conduitfw.reload(&policy("1h"))?;
    ensure!(reload.status == Some(0), "{}", reload.said);
    ensure!(
        adopt_until(&conduitfw)? == first,
        "a reload moved the window"
    );
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        conduitfw.stop(signal)?;
        conduitfw.run(&[])?;
        ensure!(
            adopt_until(&conduitfw)? == first,
            "{signal} moved the window"
        );
    }
    Ok(())
}
