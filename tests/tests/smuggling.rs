//! No schedule of segments gets a denied operation to an application, whatever the habits of its
//! receiver (`no-smuggling`); and the oracle that says so can find one where there is one.
//!
//! `CONDUITFW_ORACLE_SEED` is the seed to start from.

use std::io::Write as _;
use std::net::{IpAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use conduitfw_tests::frames::modbus::{adu, read, write_single};
use conduitfw_tests::lab::{Conduitfw, Lab, skipped_without_root};
use conduitfw_tests::oracle::attack;
use conduitfw_tests::oracle::gate::{Both, Simulated, Weak, Weakness};
use conduitfw_tests::oracle::live::{self, Live, policy_of};
use conduitfw_tests::oracle::site::SITES;
use conduitfw_tests::peers::{LoggedServer, Maker};
use conduitfw_tests::proof::oracle_live;

fn first_seed() -> Result<u64> {
    match std::env::var("CONDUITFW_ORACLE_SEED") {
        Ok(text) => text.parse().context("CONDUITFW_ORACLE_SEED"),
        Err(_) => Ok(1),
    }
}

#[test]
fn nothing_gets_past_the_decision() -> Result<()> {
    for site in SITES {
        let mut gate = Simulated::new(site)?;
        let outcome = attack(site, &mut gate, first_seed()?, |so_far| {
            so_far.schedules >= 500
        })?;
        println!("{}: {:?}", site.name, outcome.0);
        if let Some(found) = outcome.1 {
            bail!("{found}");
        }
        ensure!(outcome.0.requests > 400, "hardly anything was read");
    }
    Ok(())
}

#[test]
fn nothing_gets_past_the_program_in_the_kernel() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for site in SITES {
        let mut gate = Both::new(site)?;
        let outcome = attack(site, &mut gate, first_seed()?, |so_far| {
            so_far.schedules >= 100
        })?;
        println!("{}: {:?}", site.name, outcome.0);
        if let Some(found) = outcome.1 {
            bail!("{found}");
        }
    }
    Ok(())
}

#[test]
fn nothing_gets_to_real_servers() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let part = oracle_live(first_seed()?, Duration::from_secs(8));
    println!("{:?}", part.figures);
    ensure!(
        part.counterexamples.is_empty(),
        "{:?}",
        part.counterexamples
    );
    let requests = part
        .figures
        .iter()
        .find(|figure| figure.0 == "requests taken");
    ensure!(
        requests.is_some_and(|requests| requests.1 > 10),
        "hardly anything was taken"
    );
    Ok(())
}

#[test]
fn what_reaches_a_real_server_is_seen() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let site = &SITES[0];
    let policy = live::policy_of(site).replace("[3, 4, 16]", "[3, 4, 5, 6, 16]");
    for maker in [Maker::Libmodbus, Maker::Pymodbus] {
        let mut live = Live::start(maker)?;
        let outcome = live.attack(site, &policy, 1, |so_far| so_far.schedules >= 300)?;
        let taken = outcome
            .1
            .with_context(|| format!("{maker:?}: {:?}", outcome.0))?;
        println!("{maker:?}: {:?} {:?}", outcome.0, taken.request);
    }
    Ok(())
}

#[test]
fn the_oracle_finds_every_planted_hole() -> Result<()> {
    let site = &SITES[0];
    for weakness in Weakness::ALL {
        let mut gate = Weak::new(site, weakness)?;
        let outcome = attack(site, &mut gate, 1, |so_far| so_far.schedules >= 3000)?;
        let found = outcome
            .1
            .with_context(|| format!("{weakness:?} was not found"))?;
        println!(
            "{weakness:?} after {} schedules: {found}",
            outcome.0.schedules
        );
    }
    Ok(())
}

/// What a server throws away with a request that it refuses, or with one that it takes, is no request's first
/// half: with that gone it would read the next one in the middle, where a write stands.
#[test]
fn half_a_request_does_not_go_by_behind_one_that_waits() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let no_registers = adu(1, 1, read(3, 0, 0));
    let too_many = adu(1, 1, read(3, 0, 126));
    let neutralised = adu(1, 1, write_single(6, 0, 1));
    let one = adu(1, 1, read(3, 0, 1));
    for (maker, name, first, pause) in [
        (
            Maker::PatientLibmodbus,
            "registers, reset",
            &no_registers,
            100,
        ),
        (Maker::PatientLibmodbus, "functions, reset", &too_many, 100),
        (
            Maker::PatientLibmodbus,
            "functions, exception",
            &neutralised,
            100,
        ),
        (Maker::Pymodbus, "functions, reset", &one, 0),
        (Maker::Pymodbus, "functions, exception", &neutralised, 0),
    ] {
        let site = SITES.iter().find(|site| site.name == name);
        let site = site.context("no such site")?;
        let policy = policy_of(site);
        let lab = Lab::for_policy(&policy)?;
        let _conduitfw = Conduitfw::start(&lab, &policy)?;
        let plc = IpAddr::from([10, 20, 0, 10]);
        let mut server = LoggedServer::start(lab.host("field")?, (plc, 502), maker)?;
        let connect = || TcpStream::connect((plc, 502));
        let mut client = lab.host("control")?.enter(connect)??;
        client.set_nodelay(true)?;
        let (next, last) = (adu(0x0103, 1, read(3, 0, 6)), adu(0x0106, 1, read(3, 0, 6)));
        if pause == 0 {
            client.write_all(&[first, &next[..6]].concat())?;
        } else {
            client.write_all(first)?;
            thread::sleep(Duration::from_millis(pause));
            client.write_all(&next[..6])?;
        }
        thread::sleep(Duration::from_millis(900));
        // The connection may be over by now.
        let _ = client.write_all(&[&next[6..], &last].concat());
        thread::sleep(Duration::from_millis(700));
        let requests = server.requests()?;
        println!("{maker:?}, {name}: {requests:?}");
        ensure!(
            pause == 0 || !requests.is_empty(),
            "{maker:?} took nothing at all"
        );
        for request in &requests {
            ensure!(
                !site.denies(request),
                "{maker:?}, {name}: {request:?} was done"
            );
        }
    }
    Ok(())
}
