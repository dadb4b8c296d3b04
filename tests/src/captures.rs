//! Captures in the classic format (pcap), as far as the tests need them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The captures (`*.pcap`) of a directory, by name.
///
/// # Errors
/// When the directory cannot be read.
pub fn captures_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "pcap")
        {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// The frames of a capture with an Ethernet link; none of any other.
///
/// # Errors
/// When the file cannot be read.
pub fn frames_of(file: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(frames_in(&bytes))
}

fn frames_in(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Some((header, mut rest)) = bytes.split_first_chunk::<24>() else {
        return Vec::new();
    };
    let is_swapped = matches!(header, [0xa1, 0xb2, 0xc3 | 0x3c, 0xd4 | 0x4d, ..]);
    let number = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
        let bytes = bytes.copied().unwrap_or_default();
        if is_swapped {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    if number(header, 0) & 0xffff_0000 != 0xa1b2_0000 || number(header, 20) != 1 {
        return Vec::new();
    }
    let mut frames = Vec::new();
    while let Some((record, after)) = rest.split_at_checked(16) {
        let length = usize::try_from(number(record, 8)).unwrap_or(usize::MAX);
        let Some((frame, after)) = after.split_at_checked(length) else {
            break;
        };
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}
