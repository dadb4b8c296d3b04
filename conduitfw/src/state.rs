//! What is remembered of the policy in force beside the pins: since when, and its text.

use std::{fmt::Write as _, fs, io, os::unix::fs::DirBuilderExt as _, path::Path};

use conduitfw_common::table::Settings;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zerocopy::IntoBytes as _;

use crate::{instance::Instance, policy::printable};

const RECORD: &str = "in-force.json";
/// What all files that are remembered begin with. The text is `in-force-GENERATION.toml`.
const NAME: &str = "in-force";

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
    /// The SHA-256 digest of its text, in hexadecimal; nothing where an earlier version did not keep it.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Who had it put in force; nothing where an earlier version did not keep it.
    #[serde(default)]
    pub by: Option<String>,
    /// What tells its tables from any others, which count generations from 1 as well ([`tables_id`]); nothing where an
    /// earlier version did not keep it.
    #[serde(default)]
    pub tables: Option<String>,
}

/// What tells these tables from any others: of the keys that were drawn for them, which are a secret, the digest.
#[must_use]
pub fn tables_id(settings: &Settings) -> String {
    sha256(settings.hash_keys.as_bytes())
}

/// A SHA-256 digest in hexadecimal, as `sha256sum` prints that of a file.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
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
        // Each text has a name of its own: to put a large file in the place of another one waits for the disk.
        let name = self.text_name();
        replace_file(&directory.join(&name), text.as_bytes())?;
        replace_file(&directory.join(RECORD), &serde_json::to_vec_pretty(self)?)?;
        forget_all_but(&directory, &name);
        Ok(())
    }

    /// The policy that was remembered last, if it is of the generation that is in force, in these tables.
    #[must_use]
    pub fn load(instance: &Instance, generation: u32, tables: Option<&str>) -> Option<Self> {
        let bytes = fs::read(instance.state().join(RECORD)).ok()?;
        let remembered: Self = serde_json::from_slice(&bytes).ok()?;
        let is_of = |kept: &String| Some(kept.as_str()) == tables;
        let is_it =
            remembered.generation == generation && remembered.tables.as_ref().is_none_or(is_of);
        is_it.then_some(remembered)
    }

    /// Says in the log what came into force, and by whom: the log is what lasts.
    pub fn log(&self) {
        let unknown = || "unknown".to_owned();
        tracing::info!(
            "generation {} of {} is in force, by {} (sha256 {})",
            self.generation,
            printable(&self.policy_file),
            self.by.clone().unwrap_or_else(unknown),
            self.sha256.clone().unwrap_or_else(unknown),
        );
    }

    /// Its text, if it still is that one.
    #[must_use]
    pub fn text(&self, instance: &Instance) -> Option<String> {
        let text = fs::read_to_string(instance.state().join(self.text_name())).ok()?;
        let is_it = self
            .sha256
            .as_ref()
            .is_none_or(|kept| *kept == sha256(text.as_bytes()));
        is_it.then_some(text)
    }

    fn text_name(&self) -> String {
        format!("{NAME}-{}.toml", self.generation)
    }
}

/// Removes what is left of earlier policies, as far as that goes: the next time tries again.
fn forget_all_but(directory: &Path, text: &str) {
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = file.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(NAME) && name != RECORD && name != text {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Another name first, so that a reader never sees half a file.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_policy_is_remembered_and_no_other() {
        let directory =
            std::env::temp_dir().join(format!("conduitfw-state-{}", std::process::id()));
        let instance = Instance {
            name: "one".parse().unwrap(),
            bpffs: directory.clone(),
            run_dir: directory.clone(),
            state_dir: directory.clone(),
        };
        let policy = |generation| InForce {
            generation,
            since: Timestamp::UNIX_EPOCH,
            policy_file: "policy.toml".to_owned(),
            site: "Works".to_owned(),
            sha256: Some(sha256(if generation == 1 { b"one" } else { b"two" })),
            by: Some("SIGHUP".to_owned()),
            tables: Some("these".to_owned()),
        };
        fs::create_dir_all(instance.state()).unwrap();
        for left in ["in-force.toml", "in-force-7.toml", "in-force-7.new"] {
            fs::write(instance.state().join(left), "earlier").unwrap();
        }
        policy(1).save(&instance, "one").unwrap();
        policy(2).save(&instance, "two").unwrap();
        assert_eq!(InForce::load(&instance, 1, Some("these")), None);
        // Generations begin at 1 again when the machine was started anew.
        assert_eq!(InForce::load(&instance, 2, Some("others")), None);
        let remembered = InForce::load(&instance, 2, Some("these")).unwrap();
        assert_eq!(remembered, policy(2));
        assert_eq!(remembered.text(&instance).as_deref(), Some("two"));
        let mut files: Vec<_> = fs::read_dir(instance.state())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["in-force-2.toml", "in-force.json"]);
        fs::write(instance.state().join("in-force-2.toml"), "three").unwrap();
        assert_eq!(remembered.text(&instance), None, "another text");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        // FIPS 180-4, the example of one block.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), digest);
    }

    #[test]
    fn what_an_earlier_version_remembered_is_read() {
        let record =
            r#"{"generation":7,"since":"2026-01-02T03:04:05Z","policy_file":"p","site":"s"}"#;
        let earlier: InForce = serde_json::from_str(record).unwrap();
        assert_eq!(
            (earlier.generation, earlier.sha256, earlier.tables),
            (7, None, None)
        );
    }
}
