//! The program in the kernel, run on given frames at given times.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Array, HashMap, MapData};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use conduitfw::dataplane::maps::{Maps, NetworkRow, Plain, put_in_force};
use conduitfw::dataplane::rings::{EventRings, EventRoom};
use conduitfw::policy::CompiledTables;
use conduitfw_common::event::{EventOperation, EventRecord, Trace};
use conduitfw_common::flow::entry::{FlowEntry, Stream};
use conduitfw_common::flow::key::WAYS;
use conduitfw_common::judgement::Judgement;
use conduitfw_common::table::{
    Conduit, FUNCTIONS, InterfaceKey, LastValue, MAX_CONDUITS, MAX_INTERVALS, MAX_LIMITS,
    MAX_OPERATION_ROWS, MAX_PAGES, MAX_RULE_SETS, MAX_SERVICES, MAX_VALUE_RANGES, NetworkKey,
    PairKey, RegisterKey, Settings,
};
use conduitfw_common::{REASON_SLOTS, Reason};
use zerocopy::FromZeros as _;

use super::{LONGEST, LOOPBACK, Sizes, settings};
use crate::lab::ebpf_object;

const STREAM_BYTES: usize = size_of::<Stream>();
const FLOW_BYTES: usize = size_of::<FlowEntry>();

/// What the kernel made of a frame.
#[derive(Debug)]
pub(super) struct Verdict {
    /// What the program returned.
    pub(super) action: u32,
    /// The frame afterwards.
    pub(super) bytes: Vec<u8>,
    /// The judgement.
    pub(super) judgement: Judgement,
    /// The operations that were judged.
    pub(super) operations: Vec<(EventOperation, Option<Reason>)>,
    /// The event, if there was one.
    pub(super) event: Option<EventRecord>,
}

/// The loaded program and its maps.
pub(super) struct Kernel {
    ebpf: Ebpf,
    maps: Maps,
    events: EventRings,
    traces: Array<MapData, Plain<Trace>>,
    trace: Trace,
    buffer: Vec<u8>,
    slot: u32,
}

fn write_run<V>(
    table: &mut Array<MapData, Plain<V>>,
    first: u32,
    rows: impl IntoIterator<Item = V>,
) -> Result<()>
where
    Plain<V>: Pod,
{
    for (index, row) in (first..).zip(rows) {
        table.set(index, Plain(row), 0)?;
    }
    Ok(())
}

impl Kernel {
    pub(super) fn load(sizes: Sizes) -> Result<Self> {
        let object = ebpf_object();
        let mut loader = EbpfLoader::new();
        let rows_of = sizes.tables().rows().into_iter();
        for (name, rows) in rows_of.chain(EventRoom::of_machine()?.rows()) {
            loader.map_max_entries(name, rows);
        }
        loader.override_global("TRACING", &1_u32, true);
        let mut ebpf = loader
            .load_file(&object)
            .with_context(|| format!("{}: run `cargo xtask ebpf`", object.display()))?;
        let program: &mut Xdp = ebpf
            .program_mut("conduitfw")
            .context("the object has no program")?
            .try_into()?;
        program.load()?;
        let traces = ebpf.take_map("TRACES").context("no TRACES")?.try_into()?;
        let mut maps = Maps::take(&mut ebpf).map_err(|error| anyhow!("{error}"))?;
        let events =
            EventRings::take(&mut ebpf, &maps.reporting).map_err(|error| anyhow!("{error}"))?;
        maps.settings.set(0, Plain(settings(sizes)), 0)?;
        Ok(Self {
            ebpf,
            maps,
            events,
            traces,
            trace: Trace::new_zeroed(),
            buffer: vec![0; LONGEST + 256],
            slot: 0,
        })
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    /// Writes the fixed settings.
    pub(super) fn set(&mut self, settings: Settings) -> Result<()> {
        Ok(self.maps.settings.set(0, Plain(settings), 0)?)
    }

    /// Removes the rows of a slot that the next policy may not write over.
    pub(super) fn clear(&mut self, slot: u32) -> Result<()> {
        let maps = &mut self.maps;
        for key in maps.interfaces.keys().collect::<Vec<_>>() {
            let key = key?;
            if key.0.slot == slot {
                maps.interfaces.remove(&key)?;
            }
        }
        for key in maps.networks.keys().collect::<Vec<_>>() {
            let key = key?;
            if key.data().0.slot == slot {
                maps.networks.remove(&key)?;
            }
        }
        for key in maps.pairs.keys().collect::<Vec<_>>() {
            let key = key?;
            if u32::from(key.0.slot) == slot {
                maps.pairs.remove(&key)?;
            }
        }
        for id in 0..64 {
            let index = slot * MAX_CONDUITS + id;
            maps.conduits.set(index, Plain(Conduit::default()), 0)?;
        }
        Ok(())
    }

    /// Writes the rows of a policy, and puts them in force. The slot was not used before, or
    /// cleared.
    pub(super) fn apply(&mut self, slot: u32, tables: &CompiledTables) -> Result<()> {
        let maps = &mut self.maps;
        let mut interfaces: BTreeMap<u32, conduitfw_common::table::Interface> = BTreeMap::new();
        for (_, vlans, row) in &tables.interfaces {
            let sum = interfaces.entry(*vlans).or_default();
            *sum = sum.and(row);
        }
        for (vlans, row) in interfaces {
            let ifindex = LOOPBACK;
            let key = InterfaceKey {
                slot,
                ifindex,
                vlans,
            };
            maps.interfaces.insert(Plain(key), Plain(row), 0)?;
        }
        for (prefix, address, row) in &tables.networks {
            let address = *address;
            let key = NetworkRow::new(*prefix, Plain(NetworkKey { slot, address }));
            maps.networks.insert(&key, Plain(*row), 0)?;
        }
        for (key, row) in &tables.pairs {
            let slot = u16::from(slot != 0);
            let key = PairKey { slot, ..*key };
            maps.pairs.insert(Plain(key), Plain(*row), 0)?;
        }
        let services = tables.services.iter().copied();
        write_run(&mut maps.services, slot * MAX_SERVICES, services)?;
        for (id, row) in &tables.conduits {
            let index = slot * MAX_CONDUITS + u32::from(*id);
            maps.conduits.set(index, Plain(*row), 0)?;
        }
        let rule_sets = tables.rule_sets.iter().copied();
        write_run(&mut maps.rule_sets, slot * MAX_RULE_SETS, rule_sets)?;
        let operations = tables.operations.iter().flatten().copied();
        let first = slot * MAX_OPERATION_ROWS * FUNCTIONS;
        write_run(&mut maps.operations, first, operations)?;
        let intervals = tables.intervals.iter().copied();
        write_run(&mut maps.intervals, slot * MAX_INTERVALS, intervals)?;
        let pages = tables.pages.iter().copied();
        write_run(&mut maps.pages, slot * MAX_PAGES, pages)?;
        let limits = tables.limits.iter().copied();
        write_run(&mut maps.limits, slot * MAX_LIMITS, limits)?;
        let ranges = tables.value_ranges.iter().copied();
        write_run(&mut maps.value_ranges, slot * MAX_VALUE_RANGES, ranges)?;
        maps.generations.set(slot, Plain(tables.generation), 0)?;
        let settings = maps.settings.get(&0, 0)?.0;
        put_in_force(&mut maps.active, settings, slot, &tables.generation)?;
        self.slot = slot;
        Ok(())
    }

    /// Empties the flow tables, the streams and what is remembered of rates and values.
    pub(super) fn forget(&mut self, sizes: Sizes) -> Result<()> {
        for name in ["FLOW_BUCKETS", "OPENING_BUCKETS"] {
            let map = self.ebpf.map_mut(name).context(name)?;
            let mut map: Array<&mut MapData, [u32; 8]> = map.try_into()?;
            for bucket in 0..sizes.buckets {
                map.set(bucket, [0; 8], 0)?;
            }
        }
        // A processor may remember where they were.
        let map = self.ebpf.map_mut("FLOWS").context("no FLOWS")?;
        let mut map: Array<&mut MapData, [u8; FLOW_BYTES]> = map.try_into()?;
        for place in 0..sizes.buckets * WAYS {
            map.set(place, [0; FLOW_BYTES], 0)?;
        }
        let map = self.ebpf.map_mut("STREAMS").context("no STREAMS")?;
        let mut map: Array<&mut MapData, [u8; STREAM_BYTES]> = map.try_into()?;
        for stream in 0..sizes.streams {
            map.set(stream, [0; STREAM_BYTES], 0)?;
        }
        for (name, rows) in [("RATES", 64), ("RULE_RATES", 64)] {
            let map = self.ebpf.map_mut(name).context(name)?;
            let mut map: Array<&mut MapData, u64> = map.try_into()?;
            for row in 0..rows {
                map.set(row, 0, 0)?;
            }
        }
        let map = self.ebpf.map_mut("LAST_VALUES").context("no LAST_VALUES")?;
        let mut map: HashMap<&mut MapData, Plain<RegisterKey>, Plain<LastValue>> =
            map.try_into()?;
        let keys: Vec<_> = map.keys().collect();
        for key in keys {
            map.remove(&key?)?;
        }
        Ok(())
    }

    pub(super) fn judge(&mut self, frame: &[u8], now_ticks: u64) -> Result<Verdict> {
        self.trace.now_ticks = now_ticks;
        self.trace.count = 0;
        self.traces.set(0, Plain(self.trace), 0)?;
        let program: &mut Xdp = self
            .ebpf
            .program_mut("conduitfw")
            .context("the object has no program")?
            .try_into()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut self.buffer),
            ..TestRunOptions::new()
        })?;
        let length = usize::try_from(result.data_size_out)?;
        let bytes = self.buffer.get(..length).context("a frame too long")?;
        let bytes = bytes.to_vec();
        let Plain(trace) = self.traces.get(&0, 0)?;
        let count = usize::try_from(trace.count)?;
        let operation = |row: &conduitfw_common::event::TracedOperation| {
            let number = u8::try_from(row.reason).unwrap_or(u8::MAX);
            (row.operation, Reason::from_number(number))
        };
        let event = self.events.next();
        Ok(Verdict {
            action: result.return_value,
            bytes,
            judgement: Judgement::from_bits(trace.judgement),
            operations: trace.operations.iter().take(count).map(operation).collect(),
            event,
        })
    }

    /// Frames and bytes of a counter.
    pub(super) fn count(&self, index: u32) -> Result<(u64, u64)> {
        let values = self.maps.counters.get(&index, 0)?;
        let sum = values.iter().fold((0, 0), |(frames, bytes), Plain(value)| {
            (frames + value.frames, bytes + value.bytes)
        });
        Ok(sum)
    }

    /// Operations that a rule has allowed.
    pub(super) fn rule_count(&self, rule: u16) -> Result<u64> {
        let values = self.maps.rules.get(&u32::from(rule), 0)?;
        Ok(values.iter().sum())
    }

    /// The tags of a bucket.
    pub(super) fn tags(&self, name: &str) -> Result<Array<&MapData, [u32; 8]>> {
        Ok(self.ebpf.map(name).context("no such map")?.try_into()?)
    }

    /// The counters that are not as expected: what the kernel did instead.
    pub(super) fn surplus(&self, expected: &BTreeMap<u32, (u64, u64)>) -> Result<String> {
        let mut words = Vec::new();
        for index in 0..MAX_CONDUITS * REASON_SLOTS {
            if self.count(index)? != expected.get(&index).copied().unwrap_or_default() {
                let number = u8::try_from(index % REASON_SLOTS)?;
                let reason = Reason::from_number(number);
                words.push(format!("conduit {} {reason:?}", index / REASON_SLOTS));
            }
        }
        Ok(words.join(", "))
    }
}
