//! What is remembered of the policy in force beside the pins: since when, and its text.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::instance::Instance;

const RECORD: &str = "in-force.json";
const TEXT: &str = "in-force.toml";

/// A policy in force, as it is remembered for `status` and for the next controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its generation.
    pub generation: u32,
    /// When it came into force.
    pub since: Timestamp,
    /// The file that it was read from.
    pub policy_file: String,
    /// The name of the site.
    pub site: String,
}

impl InForce {
    /// Remembers a policy that came into force.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written.
    pub fn save(&self, instance: &Instance, text: &str) -> io::Result<()> {
        let directory = instance.state();
        // A policy tells how the plant is built.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&directory)?;
        replace_file(&directory.join(TEXT), text.as_bytes())?;
        replace_file(&directory.join(RECORD), &serde_json::to_vec_pretty(self)?)
    }

    /// The policy that was remembered last, if it is of the generation that is in force.
    #[must_use]
    pub fn load(instance: &Instance, generation: u32) -> Option<Self> {
        let bytes = fs::read(instance.state().join(RECORD)).ok()?;
        let remembered: Self = serde_json::from_slice(&bytes).ok()?;
        (remembered.generation == generation).then_some(remembered)
    }

    /// Its text.
    #[must_use]
    pub fn text(instance: &Instance) -> Option<String> {
        fs::read_to_string(instance.state().join(TEXT)).ok()
    }
}

/// Another name first, so that a reader never sees half a file.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}
