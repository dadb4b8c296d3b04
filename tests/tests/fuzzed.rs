//! What a fuzzer found once stands in `fuzz/named`, and does not happen again.

use std::fs;

use anyhow::{Context as _, Result};
use conduitfw_tests::fuzzing;
use conduitfw_tests::lab::source_directory;

/// A target: any bytes, and a panic where something must not happen.
type Target = fn(&[u8]);

#[test]
fn what_was_found_once_does_not_happen_again() -> Result<()> {
    let targets: [(&str, Target); 3] = [
        ("frame", fuzzing::frame),
        ("stream", fuzzing::stream),
        ("policy", fuzzing::policy),
    ];
    for (name, target) in targets {
        let directory = source_directory().join("fuzz/named").join(name);
        let files = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for file in files {
            let file = file?.path();
            println!("{}", file.display());
            target(&fs::read(&file)?);
        }
    }
    Ok(())
}

#[test]
fn seeds_are_harmless_and_reach_the_targets() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("cfw-seeds-{}", std::process::id()));
    fuzzing::write_seeds(&directory, &source_directory().join("rules"))?;
    let targets: [(&str, Target); 3] = [
        ("frame", fuzzing::frame),
        ("stream", fuzzing::stream),
        ("policy", fuzzing::policy),
    ];
    for (name, target) in targets {
        let files: Vec<_> = fs::read_dir(directory.join(name))?.collect();
        assert!(files.len() >= SMALLEST, "{name}: {} seeds", files.len());
        for file in files {
            target(&fs::read(file?.path())?);
        }
    }
    fs::remove_dir_all(&directory)?;
    Ok(())
}

const SMALLEST: usize = 3;
