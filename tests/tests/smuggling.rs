//! No schedule of segments gets a denied operation to an application, whatever the habits of its
//! receiver (`no-smuggling`); and the oracle that says so can find one where there is one.
//!
//! `CONDUITFW_ORACLE_SEED` is the seed to start from.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use conduitfw_tests::lab::skipped_without_root;
use conduitfw_tests::oracle::attack;
use conduitfw_tests::oracle::gate::{Both, Simulated, Weak, Weakness};
use conduitfw_tests::oracle::live::{self, Live};
use conduitfw_tests::oracle::site::SITES;
use conduitfw_tests::peers::Maker;
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
