//! `conduitfw check`: whether a policy is right, without root and without a kernel.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Failure, complain, print, print_json};
use crate::policy::{self, Diagnostic, Loaded, Refusal};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The policy
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn check(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = read_policy(&arguments.file, arguments.json)?;
    let policy = &loaded.policy;
    let rules: usize = policy
        .conduits
        .iter()
        .map(|conduit| conduit.modbus.len())
        .sum();
    let (zones, assets) = (policy.zones.len(), policy.assets.len());
    let conduits = policy.conduits.len();
    if arguments.json {
        return print_json(&json!({
            "ok": true,
            "site": policy.site.name,
            "zones": zones,
            "assets": assets,
            "conduits": conduits,
            "rules": rules,
            "notes": loaded.notes.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        }));
    }
    for note in &loaded.notes {
        complain(&format!("{note}\n"));
    }
    print(&format!(
        "{}: ok ({zones} zones, {assets} assets, {conduits} conduits, {rules} Modbus rules)\n",
        arguments.file.display()
    ))
}

/// One sentence about a file of which nothing else is known.
pub(crate) fn unreadable(refusal: &Refusal) -> String {
    let sentences = refusal
        .diagnostics()
        .iter()
        .map(|d| format!("{}: {}", d.file, d.message));
    sentences.collect::<Vec<_>>().join("; ")
}

/// Reads a policy, or says what is wrong with it.
pub(super) fn read_policy(file: &Path, as_json: bool) -> Result<Loaded, Failure> {
    policy::load(file).or_else(|refusal| refused(&refusal, as_json))
}

/// Says what is wrong with a policy.
pub(super) fn refused<T>(refusal: &Refusal, as_json: bool) -> Result<T, Failure> {
    if refusal.is_unreadable() {
        return Err(Failure::System(anyhow::anyhow!(unreadable(refusal))));
    }
    if as_json {
        // A standard output that is gone does not make the policy any better.
        let _ = print_json(&json!({ "ok": false, "problems": refusal.to_json() }));
    } else {
        complain(&refusal.render());
    }
    Err(Failure::Refused)
}
