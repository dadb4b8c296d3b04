//! The data plane as a measuring instrument: loaded for one process alone, neither pinned nor
//! attached, and run on given frames at given times.

use std::collections::BTreeMap;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunOptions},
};
use conduitfw_common::{
    Reason,
    event::{EventOperation, Trace},
    flow::entry::FlowEntry,
    judgement::Judgement,
    table::Settings,
};
use zerocopy::FromZeros as _;

use super::{
    DataPlaneError, TableSizes,
    load::{OBJECT, PROGRAM, load_error, object_error, program},
    maps::{Maps, Plain, put_in_force, take},
    slot::write_slot,
};
use crate::policy::CompiledTables;

/// The shortest and the longest frame that the kernel runs a program on: an Ethernet header, and
/// one page with the room that XDP wants.
pub const FRAME_BYTES: std::ops::RangeInclusive<usize> = 14..=3500;
/// The slot that the policy stands in.
const SLOT: u32 = 1;

/// A data plane of one's own.
pub struct PrivateDataPlane {
    ebpf: Ebpf,
    traces: Array<MapData, Plain<Trace>>,
    openings: Array<MapData, Plain<FlowEntry>>,
    trace: Trace,
}

impl PrivateDataPlane {
    /// Loads the program with tables of these sizes and puts a policy in force in it. Interfaces
    /// without an index are left out.
    ///
    /// # Errors
    ///
    /// No permission, or the kernel refuses the program or a row.
    pub fn load(
        sizes: TableSizes,
        settings: Settings,
        tables: &CompiledTables,
        indexes: &BTreeMap<String, u32>,
    ) -> Result<Self, DataPlaneError> {
        let mut loader = EbpfLoader::new();
        for (name, rows) in sizes.rounded().rows() {
            loader.map_max_entries(name, rows);
        }
        loader.override_global("TRACING", &1_u32, true);
        let mut ebpf = loader.load(OBJECT).map_err(object_error)?;
        program(&mut ebpf, PROGRAM)?
            .load()
            .map_err(|error| load_error(PROGRAM, error))?;
        let traces = take(&mut ebpf, "TRACES")?;
        let openings = take(&mut ebpf, "OPENINGS")?;
        let mut maps = Maps::take(&mut ebpf)?;
        let write = |what| move |source| DataPlaneError::Write { what, source };
        maps.settings
            .set(0, Plain(settings), 0)
            .map_err(write("settings"))?;
        write_slot(&mut maps, SLOT, tables, indexes)?;
        put_in_force(&mut maps.active, settings, SLOT, &tables.generation)
            .map_err(write("the slot"))?;
        Ok(Self {
            ebpf,
            traces,
            openings,
            trace: Trace::new_zeroed(),
        })
    }

    /// Judges a frame of [`FRAME_BYTES`] that came in on an interface of this network namespace
    /// at a time. Adds the operations that were judged to `operations`.
    ///
    /// # Errors
    ///
    /// The kernel does not run the program.
    pub fn judge(
        &mut self,
        frame: &[u8],
        ifindex: u32,
        now_ticks: u64,
        operations: &mut Vec<(EventOperation, Option<Reason>)>,
    ) -> Result<Judgement, DataPlaneError> {
        self.trace.now_ticks = now_ticks;
        self.trace.count = 0;
        self.traces
            .set(0, Plain(self.trace), 0)
            .map_err(|source| DataPlaneError::Write {
                what: "the time",
                source,
            })?;
        let context = context(frame, ifindex);
        program(&mut self.ebpf, PROGRAM)?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
            .map_err(|error| load_error(PROGRAM, error))?;
        let Plain(trace) = self.traces.get(&0, 0)?;
        let judged = trace.operations.iter().take(trace.count as usize);
        operations.extend(judged.map(|row| {
            let reason = u8::try_from(row.reason).ok().and_then(Reason::from_number);
            (row.operation, reason)
        }));
        Ok(Judgement::from_bits(trace.judgement))
    }

    /// How many flows were opened.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn flows_opened(&self) -> Result<u64, DataPlaneError> {
        let mut sum = 0;
        for entry in self.openings.iter() {
            sum += u64::from(entry?.0.serial);
        }
        Ok(sum)
    }
}

/// `struct xdp_md` (linux/bpf.h): data, end of data, metadata, interface, queue, way out.
fn context(frame: &[u8], ifindex: u32) -> [u8; 24] {
    let mut context = [0; 24];
    let end = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    for (place, word) in context.chunks_exact_mut(4).zip([0, end, 0, ifindex, 0, 0]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    context
}
