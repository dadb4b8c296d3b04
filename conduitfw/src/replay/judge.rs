//! Who judges: the simulator, or the kernel's program.

use std::collections::BTreeMap;

use conduitfw_common::{
    Reason,
    event::EventOperation,
    flow::key::WAYS,
    judgement::Judgement,
    platform::{FlowTable, Platform as _},
    table::Settings,
};

use super::{ReplayError, interfaces::Port, world};
use crate::{
    dataplane::{FRAME_BYTES, PrivateDataPlane, TableSizes},
    policy::CompiledTables,
    simulator::Simulator,
};

/// What judges the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The decision in ordinary memory.
    Simulator,
    /// The kernel's program, loaded for this alone. Needs root.
    Kernel,
}

pub(super) enum Judge {
    Simulator {
        simulator: Box<Simulator>,
        opening_places: u32,
    },
    Kernel {
        data_plane: Box<PrivateDataPlane>,
        indexes: Vec<u32>,
        only_observes: bool,
    },
}

impl Judge {
    /// `names` are the interfaces by their port, the first being one without zones.
    pub(super) fn new(
        means: Means,
        sizes: TableSizes,
        settings: Settings,
        tables: &CompiledTables,
        names: &[String],
    ) -> Result<Self, ReplayError> {
        let known = |indexes: &[u32]| -> BTreeMap<String, u32> {
            let known = names.iter().cloned().zip(indexes.iter().copied());
            known.skip(1).collect()
        };
        if means == Means::Simulator {
            let indexes: Vec<u32> = (1..).take(names.len()).collect();
            let mut simulator = Box::new(Simulator::new(settings));
            simulator.apply(tables, &known(&indexes));
            return Ok(Self::Simulator {
                simulator,
                opening_places: settings.opening_bucket_mask.saturating_add(1) * WAYS,
            });
        }
        let indexes = world::interfaces(names.len())?;
        let data_plane = PrivateDataPlane::load(sizes, settings, tables, &known(&indexes))?;
        Ok(Self::Kernel {
            data_plane: Box::new(data_plane),
            indexes,
            only_observes: tables.generation.observe != 0,
        })
    }

    /// Judges a frame; `None` when the kernel does not take frames of its length.
    pub(super) fn judge(
        &mut self,
        frame: &[u8],
        Port(port): Port,
        now_ticks: u64,
        operations: &mut Vec<(EventOperation, Option<Reason>)>,
    ) -> Result<Option<Judgement>, ReplayError> {
        match self {
            Self::Simulator { simulator, .. } => {
                let ifindex = u32::try_from(port + 1).unwrap_or(u32::MAX);
                let judged = simulator.judge(frame, ifindex, now_ticks);
                operations.extend(judged.operations);
                Ok(Some(judged.judgement))
            }
            Self::Kernel { only_observes, .. } if frame.len() < *FRAME_BYTES.start() => {
                // No driver hands on a frame without an Ethernet header, so no program runs on it.
                let judgement = Judgement::deny(Reason::TruncatedFrame, 0);
                Ok(Some(if *only_observes {
                    judgement.observed()
                } else {
                    judgement
                }))
            }
            Self::Kernel { .. } if frame.len() > *FRAME_BYTES.end() => Ok(None),
            Self::Kernel {
                data_plane,
                indexes,
                ..
            } => {
                let ifindex = indexes.get(port).copied().unwrap_or(0);
                let judgement = data_plane.judge(frame, ifindex, now_ticks, operations)?;
                Ok(Some(judgement))
            }
        }
    }

    /// How many flows were opened: every entry counts those that have used it.
    pub(super) fn flows_opened(&self) -> Result<u64, ReplayError> {
        match self {
            Self::Simulator {
                simulator,
                opening_places,
            } => {
                let entries = (0..*opening_places)
                    .filter_map(|place| simulator.flow_seen(FlowTable::Openings, place));
                Ok(entries.map(|entry| u64::from(entry.serial)).sum())
            }
            Self::Kernel { data_plane, .. } => Ok(data_plane.flows_opened()?),
        }
    }
}
