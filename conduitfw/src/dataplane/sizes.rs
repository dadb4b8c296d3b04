//! How much the kernel's tables hold.

use std::{fmt, io};

use conduitfw_common::{
    flow::key::WAYS,
    table::{ABI_VERSION, Settings},
};

use super::{DataPlaneError, rings::EventRoom};

/// How much the kernel's tables hold; fixed as long as they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Tracked flows.
    pub flows: u32,
    /// Flows that have not been answered.
    pub opening_flows: u32,
    /// Flows whose payload is inspected.
    pub inspected_flows: u32,
}

impl fmt::Display for TableSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flows,
            opening_flows,
            inspected_flows,
        } = self;
        write!(
            f,
            "flows = {flows}, opening_flows = {opening_flows}, inspected_flows = {inspected_flows}"
        )
    }
}

impl TableSizes {
    /// The sizes that the tables really get: powers of two, never below one bucket.
    #[must_use]
    pub fn rounded(self) -> Self {
        let round = |n: u32| n.clamp(WAYS, 1 << 24).next_power_of_two();
        Self {
            flows: round(self.flows),
            opening_flows: round(self.opening_flows),
            inspected_flows: round(self.inspected_flows),
        }
    }

    /// The sizes that tables in force were made with.
    pub(super) fn of(settings: &Settings) -> Self {
        let flows = |mask: u32| mask.saturating_add(1).saturating_mul(WAYS) / 2;
        Self {
            flows: flows(settings.flow_bucket_mask),
            opening_flows: flows(settings.opening_bucket_mask),
            inspected_flows: settings.stream_mask.saturating_add(1),
        }
    }

    /// Rows of each table, with twice the room so that buckets seldom fill.
    #[must_use]
    pub fn rows(self) -> [(&'static str, u32); 5] {
        [
            ("FLOW_BUCKETS", self.flows * 2 / WAYS),
            ("FLOWS", self.flows * 2),
            ("OPENING_BUCKETS", self.opening_flows * 2 / WAYS),
            ("OPENINGS", self.opening_flows * 2),
            ("STREAMS", self.inspected_flows),
        ]
    }

    /// What the program is told of them, and of what else is fixed as long as they live. The keys of the
    /// flow hash are drawn for each set of tables; without room for events none is written.
    #[must_use]
    pub fn settings(
        self,
        room: Option<EventRoom>,
        hash_keys: [u64; 12],
        adopt_until_ticks: u64,
    ) -> Settings {
        Settings {
            hash_keys,
            abi_version: ABI_VERSION,
            flow_bucket_mask: self.flows * 2 / WAYS - 1,
            opening_bucket_mask: self.opening_flows * 2 / WAYS - 1,
            stream_mask: self.inspected_flows - 1,
            events: room.map_or(0, EventRoom::records),
            reserved: 0,
            adopt_until_ticks,
        }
    }
}

/// Keys that nobody can know.
pub(super) fn hash_keys() -> Result<[u64; 12], DataPlaneError> {
    let mut keys = [0; 12];
    for key in &mut keys {
        *key = getrandom::u64().map_err(|error| DataPlaneError::System {
            action: "drawing the keys of the flow hash",
            source: io::Error::other(error.to_string()),
        })?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_back_from_the_settings_that_they_made() {
        let sizes = TableSizes {
            flows: 10_000,
            opening_flows: 3,
            inspected_flows: 2048,
        };
        let rounded = sizes.rounded();
        assert_eq!(rounded.flows, 16_384);
        assert_eq!(rounded.opening_flows, 8);
        let room = EventRoom::of_machine().unwrap();
        let settings = rounded.settings(Some(room), hash_keys().unwrap(), 0);
        assert_eq!(TableSizes::of(&settings), rounded);
        assert_eq!(settings.flow_bucket_mask, 16_384 * 2 / 8 - 1);
    }
}
