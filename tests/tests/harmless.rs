//! Honest clients on lines that lose, delay, repeat and swap frames: every allowed transaction
//! completes, and no connection is cut off.

use anyhow::Result;
use conduitfw_tests::lab::skipped_without_root;
use conduitfw_tests::proof::{self, HONEST_POLICIES};

#[test]
fn nobody_honest_is_cut_off() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    for on_deny in HONEST_POLICIES {
        let outcome = proof::honest_clients(on_deny, 1000, 1)?;
        println!("on_deny {on_deny}: {outcome:?}");
    }
    Ok(())
}
