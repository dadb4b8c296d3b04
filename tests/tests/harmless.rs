//! Honest clients on lines that lose, delay, repeat and swap frames: every allowed transaction
//! completes, and no connection is cut off.
//!
//! `CONDUITFW_HONEST_TRANSACTIONS` is their number for each way to deny (1,000 unless said).

use std::thread;

use anyhow::{Result, anyhow};
use conduitfw_tests::lab::skipped_without_root;
use conduitfw_tests::proof::{self, HONEST_POLICIES};

#[test]
fn nobody_honest_is_cut_off() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let transactions = match std::env::var("CONDUITFW_HONEST_TRANSACTIONS") {
        Ok(text) => text.parse()?,
        Err(_) => 1000,
    };
    // All at a time: most of it is waiting for what was lost.
    thread::scope(|scope| {
        let runs = HONEST_POLICIES
            .map(|on_deny| scope.spawn(move || proof::honest_clients(on_deny, transactions, 1)));
        for (on_deny, run) in HONEST_POLICIES.into_iter().zip(runs) {
            let outcome = run.join().map_err(|_| anyhow!("a run panicked"))??;
            println!("on_deny {on_deny}: {outcome:?}");
        }
        Ok(())
    })
}
