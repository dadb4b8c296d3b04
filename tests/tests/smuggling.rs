//! No schedule of segments gets a denied operation to an application, whatever the habits of its
//! receiver (`no-smuggling`); and the oracle that says so can find one where there is one.
//!
//! `CONDUITFW_ORACLE_SEED` is the seed to start from.

use anyhow::{Context as _, Result, bail, ensure};
use conduitfw_tests::lab::skipped_without_root;
use conduitfw_tests::oracle::attack;
use conduitfw_tests::oracle::gate::{Both, Simulated, Weak, Weakness};
use conduitfw_tests::oracle::site::SITES;

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
        ensure!(outcome.0.requests > 4000, "hardly anything was read");
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
