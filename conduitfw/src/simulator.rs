//! The world of ordinary memory: [`Platform`](conduitfw_common::platform::Platform) over compiled
//! tables, for judging frames without the kernel.
//!
//! The decision is the data plane's own code, from `conduitfw-common`; here are only the tables
//! behind it and what the data plane does with a judgement. Time is whatever the caller says.

mod bytes;
mod world;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use conduitfw_common::{
    Reason, Verdict,
    bytes::Truncated,
    edit,
    event::{EventOperation, direction},
    flow::entry::{FlowEntry, Stream},
    flow::key::WAYS,
    judge,
    judgement::Judgement,
    modbus::plain,
    packet::Packet,
    platform::{FlowTable, Workspace},
    reset,
    table::{
        Address, Conduit, Generation, Interface, Interval, LastValue, Limits, MAX_CONDUITS,
        MAX_RULES, Network, Operation, Page, Pair, PairKey, RegisterKey, Service, Settings,
        ValueRange,
    },
};
use zerocopy::FromZeros as _;

use crate::policy::CompiledTables;
use bytes::{Bytes, Editor, History};

/// Bits of the slot that a prefix length in [`CompiledTables::networks`] counts.
const SLOT_BITS: u32 = 32;

/// What the data plane would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The frame goes on as it is.
    Pass,
    /// The frame is gone.
    Drop,
    /// A reset goes on in its place.
    Reset(Vec<u8>),
    /// A reset goes back to its sender.
    ResetBack(Vec<u8>),
    /// The frame goes on with the denied requests in it changed to what the responder refuses.
    Exception(Vec<u8>),
    /// The frame is allowed and goes on; what it holds of a request that was denied before, or of
    /// its refusal, is changed.
    Edited(Vec<u8>),
}

/// A judged frame.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The decision.
    pub judgement: Judgement,
    /// The headers, as far as they were read.
    pub packet: Packet,
    /// The operation that was denied; its `fields` are 0 when there was none.
    pub operation: EventOperation,
    /// Every operation that was judged, and why when it was denied.
    pub operations: Vec<(EventOperation, Option<Reason>)>,
    /// What became of the frame.
    pub outcome: Outcome,
}

/// A data plane in ordinary memory.
#[derive(Debug)]
pub struct Simulator {
    settings: Settings,
    active: u32,
    slots: [Slot; 2],
    flows: Flows,
    openings: Flows,
    streams: Vec<Stream>,
    rules: Vec<u64>,
    rates: Vec<u64>,
    rule_rates: Vec<u64>,
    last_values: HashMap<RegisterKey, LastValue>,
    response_times: BTreeMap<(u16, u32), u64>,
    operations: Vec<(EventOperation, Option<Reason>)>,
    frame: Bytes,
    ifindex: u32,
    now_ticks: u64,
    workspace: Workspace,
}

impl Simulator {
    /// A data plane of these sizes and hash keys, without a policy.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let streams = settings.stream_mask as usize + 1;
        Self {
            settings,
            active: 0,
            slots: [Slot::default(), Slot::default()],
            flows: Flows::new(settings.flow_bucket_mask),
            openings: Flows::new(settings.opening_bucket_mask),
            streams: vec![Stream::new_zeroed(); streams],
            rules: vec![0; MAX_RULES as usize],
            rates: vec![0; MAX_CONDUITS as usize],
            rule_rates: vec![0; MAX_RULES as usize],
            last_values: HashMap::new(),
            response_times: BTreeMap::new(),
            operations: Vec::new(),
            frame: Bytes(Arc::new([])),
            ifindex: 0,
            now_ticks: 0,
            workspace: Workspace::default(),
        }
    }

    /// Puts a policy in force: into the other slot, as a reload does. Interfaces without an index
    /// are left out.
    pub fn apply(&mut self, tables: &CompiledTables, indexes: &BTreeMap<String, u32>) {
        let next = self.active ^ 1;
        let [zero, one] = &mut self.slots;
        *if next == 0 { zero } else { one } = Slot::new(tables, indexes);
        self.active = next;
    }

    /// The slot in force.
    #[must_use]
    pub fn slot_in_force(&self) -> u32 {
        self.active
    }

    /// Operations that a rule has allowed.
    #[must_use]
    pub fn rule_count(&self, rule: u16) -> u64 {
        self.rules.get(usize::from(rule)).copied().unwrap_or(0)
    }

    /// Judges a frame that came in on an interface at a time.
    pub fn judge(&mut self, frame: &[u8], ifindex: u32, now_ticks: u64) -> Judged {
        self.frame = Bytes(frame.into());
        self.ifindex = ifindex;
        self.now_ticks = now_ticks;
        self.operations.clear();
        let mut packet = Packet::default();
        let judgement = judge::judge(self, &mut packet, self.active)
            .map_or_else(|judgement| judgement, Judgement::pass);
        Judged {
            judgement,
            packet,
            operation: if judgement.is_of_plain_request() {
                plain::denied(self, &packet)
            } else {
                self.workspace.denied.told()
            },
            operations: std::mem::take(&mut self.operations),
            outcome: self.carry_out(frame, &packet, judgement),
        }
    }

    fn carry_out(&self, frame: &[u8], packet: &Packet, judgement: Judgement) -> Outcome {
        if judgement.is_edited() {
            return self.edit(frame, packet, judgement);
        }
        if judgement.reason_number() == 0 || judgement.is_observed() || judgement.is_notice() {
            return Outcome::Pass;
        }
        if judgement.verdict() != Verdict::Reset {
            return Outcome::Drop;
        }
        let mut editor = Editor(frame.to_vec());
        let to_initiator = judgement.is_to_initiator();
        let sequence = self.workspace.reset_sequence;
        match reset::rewrite(&mut editor, packet, sequence, to_initiator) {
            Ok(()) if to_initiator => Outcome::ResetBack(editor.0),
            Ok(()) => Outcome::Reset(editor.0),
            Err(Truncated) => Outcome::Drop,
        }
    }

    fn edit(&self, frame: &[u8], packet: &Packet, judgement: Judgement) -> Outcome {
        let is_reply = judgement.direction_number() == direction::REPLY;
        let mut editor = Editor(frame.to_vec());
        let Some(stream) = self.streams.get(self.workspace.stream as usize) else {
            return Outcome::Drop;
        };
        let edited = edit::edit(
            &mut editor,
            packet,
            self.workspace.held_back,
            |editor, row| {
                let request = stream.outstanding.get(row as usize).ok_or(Truncated)?;
                edit::row(editor, packet, request, is_reply)
            },
        );
        if edited.is_err() {
            return Outcome::Drop;
        }
        if judgement.verdict() == Verdict::Pass {
            Outcome::Edited(editor.0)
        } else {
            Outcome::Exception(editor.0)
        }
    }

    /// The bytes kept of a stream, as they are now.
    fn history(&self, stream: u32) -> Option<History> {
        let stream = self.streams.get(stream as usize)?;
        Some(History(Box::new(stream.history)))
    }

    fn slot(&self, slot: u32) -> &Slot {
        let [zero, one] = &self.slots;
        if slot == 0 { zero } else { one }
    }

    fn table(&self, table: FlowTable) -> &Flows {
        match table {
            FlowTable::Flows => &self.flows,
            FlowTable::Openings => &self.openings,
        }
    }

    fn table_mut(&mut self, table: FlowTable) -> &mut Flows {
        match table {
            FlowTable::Flows => &mut self.flows,
            FlowTable::Openings => &mut self.openings,
        }
    }
}

/// The rows of one policy.
#[derive(Debug, Default)]
struct Slot {
    generation: Generation,
    interfaces: HashMap<(u32, u32), Interface>,
    /// What of the link an interface passes on.
    link_flags: HashMap<u32, u32>,
    /// By prefix length, the longest last.
    networks: BTreeMap<u32, HashMap<u128, Network>>,
    /// The keys' slot is 0.
    pairs: HashMap<PairKey, Pair>,
    services: Vec<Service>,
    conduits: HashMap<u16, Conduit>,
    rule_sets: Vec<[u16; 256]>,
    operations: Vec<Operation>,
    intervals: Vec<Interval>,
    pages: Vec<Page>,
    limits: Vec<Limits>,
    value_ranges: Vec<ValueRange>,
}

impl Slot {
    fn new(tables: &CompiledTables, indexes: &BTreeMap<String, u32>) -> Self {
        let mut slot = Self {
            generation: tables.generation,
            pairs: tables.pairs.iter().copied().collect(),
            services: tables.services.clone(),
            conduits: tables.conduits.iter().copied().collect(),
            rule_sets: tables.rule_sets.iter().map(|set| set.rows).collect(),
            operations: tables.operations.iter().flatten().copied().collect(),
            intervals: tables.intervals.clone(),
            pages: tables.pages.clone(),
            limits: tables.limits.clone(),
            value_ranges: tables.value_ranges.clone(),
            ..Self::default()
        };
        for (name, vlans, row) in &tables.interfaces {
            if let Some(ifindex) = indexes.get(name) {
                slot.interfaces.insert((*ifindex, *vlans), *row);
            }
        }
        for (ports, flags) in &tables.bridges {
            let ports = ports.iter().filter_map(|name| indexes.get(name));
            slot.link_flags.extend(ports.map(|port| (*port, *flags)));
        }
        for (prefix, address, row) in &tables.networks {
            let prefix = prefix.saturating_sub(SLOT_BITS);
            let rows = slot.networks.entry(prefix).or_default();
            rows.insert(masked(bits(address), prefix), *row);
        }
        slot
    }
}

fn bits(address: &Address) -> u128 {
    address
        .iter()
        .fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(*word)))
}

fn masked(bits: u128, prefix: u32) -> u128 {
    let rest = 128_u32.saturating_sub(prefix);
    bits & u128::MAX.checked_shl(rest).unwrap_or(0)
}

/// An array map's row: zero where nothing was written, absent beyond the map.
fn row<T: Copy + Default>(rows: &[T], index: u32, room: u32) -> Option<T> {
    (index < room).then(|| rows.get(index as usize).copied().unwrap_or_default())
}

/// A flow table and its tags.
#[derive(Debug)]
struct Flows {
    buckets: Vec<[u32; WAYS as usize]>,
    entries: Vec<FlowEntry>,
}

impl Flows {
    fn new(bucket_mask: u32) -> Self {
        let buckets = bucket_mask as usize + 1;
        Self {
            buckets: vec![[0; WAYS as usize]; buckets],
            entries: vec![FlowEntry::default(); buckets * WAYS as usize],
        }
    }

    fn tag(&mut self, place: u32) -> Option<&mut u32> {
        let bucket = self.buckets.get_mut((place / WAYS) as usize)?;
        bucket.get_mut((place % WAYS) as usize)
    }
}

/// Replaces a number if it is still `old`.
fn replace<T: PartialEq>(number: Option<&mut T>, old: &T, new: T) -> bool {
    match number {
        Some(number) if *number == *old => {
            *number = new;
            true
        }
        _ => false,
    }
}
