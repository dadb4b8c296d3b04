//! What memory the tables take, and the controller.

use std::{collections::BTreeMap, fs, os::fd::AsRawFd as _};

use aya::maps::MapData;
use serde::Serialize;

use crate::{
    dataplane::{Pins, maps::PINNED},
    memory::{bytes_of, number},
};

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
            controller: controller.and_then(|process| bytes_of(process, "VmRSS:")),
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
