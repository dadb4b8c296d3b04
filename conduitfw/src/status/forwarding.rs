//! Who forwarded the frames that passed, and why the kernel did where the program was to.

use std::collections::BTreeMap;

use aya::maps::MapError;
use conduitfw_common::{
    forward::{Kept, REFUSED_ROW},
    table::forwarding::FAST,
};
use serde::Serialize;

use crate::dataplane::maps::Maps;

/// Forwarding without the kernel, since the data plane was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForwardingStatus {
    /// `kernel` or `fast`.
    pub mode: &'static str,
    /// Frames that left by the program itself.
    pub fast: u64,
    /// Frames that were left to the kernel while the mode was `fast`, by cause.
    pub kernel: BTreeMap<&'static str, u64>,
    /// Frames that were lost because they could not be changed, or because a port did not take them.
    pub lost: u64,
}

impl ForwardingStatus {
    pub(super) fn read(maps: &Maps, mode: u32) -> Result<Self, MapError> {
        let count = |row: u32| -> Result<u64, MapError> {
            let counts = maps.forwarding.get(&row, 0)?;
            Ok(counts.iter().fold(0, |sum, n| sum.saturating_add(*n)))
        };
        let mut kernel = BTreeMap::new();
        for kept in Kept::ALL.iter().filter(|kept| **kept != Kept::Lost) {
            let frames = count(kept.row())?;
            if frames > 0 {
                kernel.insert(kept.label(), frames);
            }
        }
        Ok(Self {
            mode: if mode == FAST { "fast" } else { "kernel" },
            fast: count(0)?,
            kernel,
            lost: count(Kept::Lost.row())?.saturating_add(count(REFUSED_ROW)?),
        })
    }

    /// Whether there is anything to tell.
    pub(super) fn is_used(&self) -> bool {
        self.mode == "fast" || self.fast > 0
    }
}
