//! What memory the tables take, and the controller.

use std::{collections::BTreeMap, fs, os::fd::AsRawFd as _};

use aya::maps::MapData;
use serde::Serialize;

use crate::dataplane::{Pins, maps::PINNED};

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStatus {
    /// All maps together: fixed as long as they live.
    pub all_maps: u64,
    /// Each of them.
    pub maps: BTreeMap<&'static str, u64>,
    /// What is resident of the controller, the rings that it shares with the kernel included;
    /// nothing when none runs.
    pub controller: Option<u64>,
}

impl MemoryStatus {
    pub(super) fn read(pins: &Pins, controller: Option<u32>) -> Self {
        let map = |name: &&'static str| Some((*name, of_map(pins, name)?));
        let maps: BTreeMap<_, _> = PINNED.iter().filter_map(map).collect();
        Self {
            all_maps: maps.values().sum(),
            maps,
            controller: controller.and_then(resident),
        }
    }
}

/// As the kernel accounts for it (`bpf_map_show_fdinfo`).
fn of_map(pins: &Pins, name: &str) -> Option<u64> {
    let map = MapData::from_pin(pins.directory().join(name)).ok()?;
    let descriptor = std::os::fd::AsFd::as_fd(map.fd()).as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
    number(&info, "memlock:")
}

fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    number(&status, "VmRSS:").map(|kilobytes| kilobytes * 1024)
}

fn number(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_keys() {
        let text = "pos:\t0\nmemlock:\t4194304\nVmRSS:\t   21504 kB\n";
        assert_eq!(number(text, "memlock:"), Some(4_194_304));
        assert_eq!(number(text, "VmRSS:"), Some(21_504));
        assert_eq!(number(text, "VmHWM:"), None);
        assert!(resident(std::process::id()).unwrap() > 1 << 20);
    }
}
