//! The world of ordinary memory: [`Platform`] over compiled tables, for judging frames without the
//! kernel.
//!
//! The decision is the data plane's own code, from `conduitfw-common`; here are only the tables
//! behind it and what the data plane does with a judgement. Time is whatever the caller says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use conduitfw_common::{
    Verdict, admit, bytes,
    bytes::{ByteSource, Truncated},
    classify,
    event::EventOperation,
    flow::entry::{FlowEntry, HISTORY_BYTES, Stream},
    flow::key::WAYS,
    flow::store,
    inspect, judge,
    judgement::Judgement,
    modbus,
    packet::Packet,
    platform::{FlowTable, Platform, Workspace},
    reset,
    reset::FrameEditor,
    settle,
    table::{
        Address, Conduit, Generation, Interface, InterfaceKey, Interval, MAX_CONDUITS,
        MAX_INTERVALS, MAX_OPERATION_ROWS, MAX_RULES, MAX_SERVICES, Network, Operation, Pair,
        PairKey, Service, Settings,
    },
};
use zerocopy::FromZeros as _;

use crate::policy::CompiledTables;

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
        let mut packet = Packet::default();
        let judgement = judge::judge(self, &mut packet);
        Judged {
            judgement,
            packet,
            operation: self.workspace.operation,
            outcome: self.carry_out(frame, &packet, judgement),
        }
    }

    fn carry_out(&self, frame: &[u8], packet: &Packet, judgement: Judgement) -> Outcome {
        if judgement.reason_number() == 0 || judgement.is_observed() {
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
    /// By prefix length, the longest last.
    networks: BTreeMap<u32, HashMap<u128, Network>>,
    /// The keys' slot is 0.
    pairs: HashMap<PairKey, Pair>,
    services: Vec<Service>,
    conduits: HashMap<u16, Conduit>,
    rule_sets: Vec<[u16; 256]>,
    operations: Vec<Operation>,
    intervals: Vec<Interval>,
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
            ..Self::default()
        };
        for (name, vlans, row) in &tables.interfaces {
            if let Some(ifindex) = indexes.get(name) {
                slot.interfaces.insert((*ifindex, *vlans), *row);
            }
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

/// A frame's bytes, as a source of their own.
#[derive(Clone, Debug)]
struct Bytes(Arc<[u8]>);

/// A stream's history; offsets are sequence numbers.
struct History(Box<Stream>);

/// Where a sequence number stands in a history.
fn place_in_history(sequence: u32) -> usize {
    (sequence & (HISTORY_BYTES - 1)) as usize
}

/// A frame under a reset.
struct Editor(Vec<u8>);

macro_rules! reads_as {
    ($source:ty, |$this:ident| $bytes:expr) => {
        impl ByteSource for $source {
            fn u8(&self, at: u32) -> Result<u8, Truncated> {
                let $this = self;
                bytes::ByteSource::u8($bytes, at)
            }

            fn u16(&self, at: u32) -> Result<u16, Truncated> {
                let $this = self;
                bytes::ByteSource::u16($bytes, at)
            }

            fn u32(&self, at: u32) -> Result<u32, Truncated> {
                let $this = self;
                bytes::ByteSource::u32($bytes, at)
            }

            fn u64(&self, at: u32) -> Result<u64, Truncated> {
                let $this = self;
                bytes::ByteSource::u64($bytes, at)
            }

            fn address(&self, at: u32) -> Result<Address, Truncated> {
                let $this = self;
                bytes::ByteSource::address($bytes, at)
            }
        }
    };
}

reads_as!(Bytes, |this| &*this.0);
reads_as!(Editor, |this| &*this.0);
reads_as!(Simulator, |this| &this.frame);

impl History {
    fn read<const N: usize>(&self, at: u32) -> [u8; N] {
        let mut bytes = [0; N];
        for (byte, sequence) in bytes.iter_mut().zip(0..) {
            let place = place_in_history(at.wrapping_add(sequence));
            *byte = self.0.history.get(place).copied().unwrap_or(0);
        }
        bytes
    }
}

impl ByteSource for History {
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        Ok(u8::from_be_bytes(self.read(at)))
    }

    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes(self.read(at)))
    }

    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        Ok(u32::from_be_bytes(self.read(at)))
    }

    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        Ok(u64::from_be_bytes(self.read(at)))
    }

    fn address(&self, _at: u32) -> Result<Address, Truncated> {
        Err(Truncated)
    }
}

impl Editor {
    fn write(&mut self, at: u32, value: &[u8]) -> Result<(), Truncated> {
        let at = at as usize;
        let end = at.checked_add(value.len()).ok_or(Truncated)?;
        let bytes = self.0.get_mut(at..end).ok_or(Truncated)?;
        bytes.copy_from_slice(value);
        Ok(())
    }
}

impl FrameEditor for Editor {
    fn set_u16(&mut self, at: u32, value: u16) -> Result<(), Truncated> {
        self.write(at, &value.to_be_bytes())
    }

    fn set_u32(&mut self, at: u32, value: u32) -> Result<(), Truncated> {
        self.write(at, &value.to_be_bytes())
    }

    fn cut(&mut self, bytes: u32) -> Result<(), Truncated> {
        let bytes = bytes as usize;
        if bytes > self.0.len() {
            return Err(Truncated);
        }
        self.0.truncate(bytes);
        Ok(())
    }
}

impl Platform for Simulator {
    fn frame_bytes(&self) -> u32 {
        u32::try_from(self.frame.0.len()).unwrap_or(u32::MAX)
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn now_ticks(&self) -> u64 {
        self.now_ticks
    }

    fn workspace(&mut self) -> &mut Workspace {
        &mut self.workspace
    }

    fn seen(&self) -> &Workspace {
        &self.workspace
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn active_slot(&self) -> u32 {
        self.active
    }

    fn generation(&self, slot: u32) -> Option<&Generation> {
        Some(&self.slot(slot).generation)
    }

    fn interface(&self, key: &InterfaceKey) -> Option<Interface> {
        let rows = &self.slot(key.slot).interfaces;
        rows.get(&(key.ifindex, key.vlans)).copied()
    }

    fn network(&self, slot: u32, address: &Address) -> Option<Network> {
        let bits = bits(address);
        let mut lengths = self.slot(slot).networks.iter().rev();
        lengths.find_map(|(prefix, rows)| rows.get(&masked(bits, *prefix)).copied())
    }

    fn pair(&self, key: &PairKey) -> Option<Pair> {
        let pairs = &self.slot(u32::from(key.slot)).pairs;
        pairs.get(&PairKey { slot: 0, ..*key }).copied()
    }

    fn service(&self, slot: u32, index: u32) -> Option<Service> {
        row(&self.slot(slot).services, index, MAX_SERVICES)
    }

    fn conduit(&self, slot: u32, id: u16) -> Option<Conduit> {
        let conduit = self.slot(slot).conduits.get(&id).copied();
        (u32::from(id) < MAX_CONDUITS).then(|| conduit.unwrap_or_default())
    }

    fn operation_row(&self, slot: u32, rule_set: u16, unit: u8) -> u16 {
        let set = self.slot(slot).rule_sets.get(usize::from(rule_set));
        set.and_then(|rows| rows.get(usize::from(unit)).copied())
            .unwrap_or(0)
    }

    fn operation(&self, slot: u32, operation_row: u16, function: u8) -> Option<Operation> {
        let index = u32::from(operation_row) << 8 | u32::from(function);
        row(&self.slot(slot).operations, index, MAX_OPERATION_ROWS << 8)
    }

    fn interval(&self, slot: u32, index: u32) -> Option<Interval> {
        row(&self.slot(slot).intervals, index, MAX_INTERVALS)
    }

    fn count_rule(&mut self, rule: u16) {
        if let Some(count) = self.rules.get_mut(usize::from(rule)) {
            *count += 1;
        }
    }

    fn rate(&self, conduit: u16) -> u64 {
        self.rates.get(usize::from(conduit)).copied().unwrap_or(0)
    }

    fn replace_rate(&mut self, conduit: u16, old: u64, new: u64) -> bool {
        replace(self.rates.get_mut(usize::from(conduit)), &old, new)
    }

    fn bucket(&self, table: FlowTable, bucket: u32) -> Option<&[u32; 8]> {
        self.table(table).buckets.get(bucket as usize)
    }

    fn replace_tag(&mut self, table: FlowTable, place: u32, old: u32, new: u32) -> bool {
        replace(self.table_mut(table).tag(place), &old, new)
    }

    fn flow(&mut self, table: FlowTable, place: u32) -> Option<&mut FlowEntry> {
        self.table_mut(table).entries.get_mut(place as usize)
    }

    fn flow_seen(&self, table: FlowTable, place: u32) -> Option<&FlowEntry> {
        self.table(table).entries.get(place as usize)
    }

    fn lock_flow(&mut self, table: FlowTable, place: u32) -> bool {
        replace(self.flow(table, place).map(|entry| &mut entry.lock), &0, 1)
    }

    fn unlock_flow(&mut self, table: FlowTable, place: u32) {
        replace(self.flow(table, place).map(|entry| &mut entry.lock), &1, 0);
    }

    fn lock_bucket(&mut self, table: FlowTable, bucket: u32) -> bool {
        self.replace_tag(table, bucket.wrapping_mul(WAYS), 0, 1)
    }

    fn unlock_bucket(&mut self, table: FlowTable, bucket: u32) {
        self.replace_tag(table, bucket.wrapping_mul(WAYS), 1, 0);
    }

    fn stream(&mut self, index: u32) -> Option<&mut Stream> {
        self.streams.get_mut(index as usize)
    }

    fn replace_owner(&mut self, index: u32, old: u32, new: u32) -> bool {
        replace(
            self.stream(index).map(|stream| &mut stream.owner),
            &old,
            new,
        )
    }

    fn remember(&mut self, stream: u32, sequence: u32, at: u32, bytes: u32) -> bool {
        let frame = self.frame.clone();
        let Some(bytes) = frame.slice(at, bytes) else {
            return false;
        };
        let Some(stream) = self.stream(stream) else {
            return false;
        };
        for (offset, byte) in (0..).zip(bytes) {
            let place = place_in_history(sequence.wrapping_add(offset));
            if let Some(kept) = stream.history.get_mut(place) {
                *kept = *byte;
            }
        }
        true
    }

    fn repeats(&mut self, stream: u32, sequence: u32, at: u32, bytes: u32) -> bool {
        let frame = self.frame.clone();
        let (Some(bytes), Some(stream)) = (frame.slice(at, bytes), self.stream(stream)) else {
            return false;
        };
        (0..).zip(bytes).all(|(offset, byte)| {
            let place = place_in_history(sequence.wrapping_add(offset));
            stream.history.get(place) == Some(byte)
        })
    }

    fn admit(&mut self, packet: &Packet) -> Judgement {
        admit::admit(self, packet)
    }

    fn opened(&mut self, packet: &Packet, place: u32) -> Judgement {
        admit::opened(self, packet, place)
    }

    fn icmp_error(&mut self, packet: &Packet) -> Judgement {
        admit::icmp_error(self, packet)
    }

    fn settle(&mut self, packet: &Packet, place: u32, reply: bool) -> Judgement {
        settle::settle(self, packet, place, reply)
    }

    fn establish(
        &mut self,
        packet: &Packet,
        opening_place: u32,
        place: u32,
        reply: bool,
    ) -> Judgement {
        admit::establish(self, packet, opening_place, place, reply)
    }

    fn inspect(&mut self, packet: &Packet, place: u32) -> Judgement {
        inspect::inspect(self, packet, place)
    }

    fn judge_adu(&mut self, at: u32, bytes: u32, rule_set: u32) -> u64 {
        let frame = self.frame.clone();
        modbus::judge_adu(self, &frame, at, bytes, low(rule_set)).to_bits()
    }

    fn judge_remembered_adu(
        &mut self,
        stream: u32,
        sequence: u32,
        bytes: u32,
        rule_set: u32,
    ) -> u64 {
        let Some(history) = self.stream(stream).map(|stream| History(Box::new(*stream))) else {
            return modbus::Judged::UNREADABLE.to_bits();
        };
        modbus::judge_adu(self, &history, sequence, bytes, low(rule_set)).to_bits()
    }

    fn find_service(&mut self, from: u32, to: u32, transport_port: u32) -> u32 {
        classify::find_service(self, from, to, transport_port)
    }

    fn insert(&mut self, packet: &Packet, table: FlowTable) -> u32 {
        store::insert(self, packet, table)
    }

    fn claim(&mut self, table: FlowTable, first: u32, second: u32) -> u32 {
        store::claim(self, table, first, second)
    }
}

impl Bytes {
    /// Bytes that a history can hold.
    fn slice(&self, at: u32, bytes: u32) -> Option<&[u8]> {
        let end = at.checked_add(bytes)?;
        if bytes > HISTORY_BYTES {
            return None;
        }
        self.0.get(at as usize..end as usize)
    }
}

/// Rule set ids are 16 bits wide wherever they stand.
fn low(rule_set: u32) -> u16 {
    u16::try_from(rule_set & 0xffff).unwrap_or(0)
}
