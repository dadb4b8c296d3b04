//! Every map, and the only way to its values.

use aya_ebpf::{
    bindings::BPF_RB_FORCE_WAKEUP,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
};
use conduitfw_common::{
    REASON_SLOTS,
    event::{EventRecord, Trace},
    flow::entry::{FlowEntry, Stream},
    flow::key::WAYS,
    forward::{
        self, FORWARDING_ROWS, HANDED_ROW, Home, KnownWay, MAX_PORTS, MAX_TAGGED, Port, port_flag,
    },
    packet::Packet,
    platform::{FlowTable, Workspace},
    table::{
        Active, Address, Conduit, Counter, FUNCTIONS, Generation, Interface, InterfaceKey,
        Interval, LastValue, Limits, MAX_CONDUITS, MAX_INTERFACES, MAX_INTERVALS, MAX_LAST_VALUES,
        MAX_LIMITS, MAX_NETWORKS, MAX_OPERATION_ROWS, MAX_PAGES, MAX_PAIRS, MAX_RULE_SETS,
        MAX_RULES, MAX_SERVICES, MAX_VALUE_RANGES, Network, NetworkKey, Operation, Page, Pair,
        PairKey, RESPONSE_BUCKETS, RegisterKey, Reporting, RuleSet, SLOTS, Service, Settings,
        ValueRange,
    },
};

use crate::{atomic, verifier::masked_offset};

/// What is in force.
#[map]
static ACTIVE: Array<Active> = Array::with_max_entries(1, 0);
#[map]
static GENERATIONS: Array<Generation> = Array::with_max_entries(SLOTS, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static INTERFACES: HashMap<InterfaceKey, Interface> = HashMap::with_max_entries(MAX_INTERFACES, 0);
#[map]
static NETWORKS: LpmTrie<NetworkKey, Network> =
    LpmTrie::with_max_entries(MAX_NETWORKS, BPF_F_NO_PREALLOC);
#[map]
static PAIRS: HashMap<PairKey, Pair> = HashMap::with_max_entries(MAX_PAIRS, 0);
// The controller writes what may be long in memory that it shares with this program.
#[map]
static SERVICES: Array<Service> = Array::with_max_entries(SLOTS * MAX_SERVICES, BPF_F_MMAPABLE);
#[map]
static CONDUITS: Array<Conduit> = Array::with_max_entries(SLOTS * MAX_CONDUITS, BPF_F_MMAPABLE);
#[map]
static RULE_SETS: Array<RuleSet> = Array::with_max_entries(SLOTS * MAX_RULE_SETS, 0);
#[map]
static OPERATIONS: Array<Operation> =
    Array::with_max_entries(SLOTS * MAX_OPERATION_ROWS * FUNCTIONS, BPF_F_MMAPABLE);
#[map]
static INTERVALS: Array<Interval> = Array::with_max_entries(SLOTS * MAX_INTERVALS, BPF_F_MMAPABLE);
#[map]
static PAGES: Array<Page> = Array::with_max_entries(SLOTS * MAX_PAGES, BPF_F_MMAPABLE);
#[map]
static LIMITS: Array<Limits> = Array::with_max_entries(SLOTS * MAX_LIMITS, BPF_F_MMAPABLE);
#[map]
static VALUE_RANGES: Array<ValueRange> =
    Array::with_max_entries(SLOTS * MAX_VALUE_RANGES, BPF_F_MMAPABLE);
#[map]
static LAST_VALUES: HashMap<RegisterKey, LastValue> = HashMap::with_max_entries(MAX_LAST_VALUES, 0);
#[map]
static RULE_RATES: Array<u64> = Array::with_max_entries(MAX_RULES, 0);
/// By conduit, [`RESPONSE_BUCKETS`] each.
#[map]
static RESPONSE_TIMES: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(MAX_CONDUITS * RESPONSE_BUCKETS, 0);
#[map]
static TRACES: Array<Trace> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(MAX_CONDUITS * REASON_SLOTS, 0);
#[map]
static RULES: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_RULES, 0);
/// By processor. The controller sets the sizes of this one and the next.
#[map]
static REPORTING: Array<Reporting> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// A ring for each processor, `Settings::events` rows each: no lock, and no other processor's line.
#[map]
static EVENTS: Array<EventRecord> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Wakes the controller; what it holds says nothing.
#[map]
static BELL: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
static RATES: Array<u64> = Array::with_max_entries(MAX_CONDUITS, 0);
/// Names of conduits and rules by id: the controller's own, kept here to live as long as the
/// counters.
#[map]
static NAMES: HashMap<[u32; 2], [u8; 128]> =
    HashMap::with_max_entries(MAX_CONDUITS + MAX_RULES, BPF_F_NO_PREALLOC);
/// Tags of eight ways each; way 0 is the bucket's lock. The controller sets the sizes of these.
#[map]
static FLOW_BUCKETS: Array<[u32; 8]> = Array::with_max_entries(4096, 0);
#[map]
static FLOWS: Array<FlowEntry> = Array::with_max_entries(32_768, 0);
#[map]
static OPENING_BUCKETS: Array<[u32; 8]> = Array::with_max_entries(1024, 0);
#[map]
static OPENINGS: Array<FlowEntry> = Array::with_max_entries(8192, 0);
#[map]
static STREAMS: Array<Stream> = Array::with_max_entries(2048, 0);
#[map]
static PORTS: Array<Port> = Array::with_max_entries(SLOTS * MAX_PORTS, 0);
#[map]
static TAGGED: HashMap<InterfaceKey, u32> = HashMap::with_max_entries(MAX_TAGGED, 0);
#[map]
static FORWARDING: PerCpuArray<u64> = PerCpuArray::with_max_entries(FORWARDING_ROWS, 0);
#[map]
static HOMES: PerCpuArray<Home> = PerCpuArray::with_max_entries(forward::HOMES, 0);
#[map]
static KNOWN_WAYS: PerCpuArray<KnownWay> = PerCpuArray::with_max_entries(forward::KNOWN_WAYS, 0);
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
/// What one frame leaves behind for the stages after it.
#[repr(C, align(8))]
pub(crate) struct Scratch {
    pub(crate) packet: Packet,
    pub(crate) workspace: Workspace,
}

/// What a packet is part of, for a stage that is spared another lookup.
#[inline(always)]
pub(crate) fn scratch_of(packet: &Packet) -> *mut Scratch {
    const { assert!(core::mem::offset_of!(Scratch, packet) == 0) };
    core::ptr::from_ref(packet).cast_mut().cast()
}

/// The same, in the stage.
#[inline(always)]
pub(crate) fn scratch_at(pointer: *mut Scratch) -> Option<&'static mut Scratch> {
    // SAFETY: the caller passes what its own lookup gave, and does not touch it until the stage is done.
    unsafe { pointer.as_mut() }
}

/// Jiffies and nanoseconds, for the controller to learn the kernel's HZ.
#[map]
static CLOCK: Array<[u64; 2]> = Array::with_max_entries(1, 0);

/// Set to 1 by user space before the program is loaded to be measured with: [`crate::trace`].
#[unsafe(no_mangle)]
static TRACING: u32 = 0;

#[inline(always)]
pub(crate) fn is_tracing() -> bool {
    // SAFETY: reads a constant of this program; volatile, for user space may have changed it before
    // loading.
    unsafe { core::ptr::read_volatile(&raw const TRACING) != 0 }
}

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The value behind a pointer that a map lookup gave, to read.
macro_rules! seen {
    ($map:expr, $index:expr) => {
        match $map.get_ptr($index) {
            // SAFETY: a lookup gives a valid pointer or none; array values live as long as the
            // program. User space writes them only under the slot that is not in force.
            Some(pointer) => Some(unsafe { &*pointer }),
            None => None,
        }
    };
}

/// The value behind a pointer that a map lookup gave, to change.
macro_rules! held {
    ($map:expr, $index:expr) => {
        match $map.get_ptr_mut($index) {
            // SAFETY: a lookup gives a valid pointer or none; array values live as long as the
            // program. The value is this processor's, or its lock is held by the caller.
            Some(pointer) => Some(unsafe { &mut *pointer }),
            None => None,
        }
    };
}

#[inline(always)]
pub(crate) fn active() -> Option<&'static Active> {
    seen!(ACTIVE, 0)
}

/// [`Active::word`], to be read once for each frame: it may change at any time.
#[inline(always)]
pub(crate) fn word_of(active: &Active) -> u32 {
    // SAFETY: reads a field of a reference.
    unsafe { core::ptr::read_volatile(&raw const active.word) }
}

/// [`Active::numbers`] of a slot. Where it stands depends on the slot, so that no processor reads it before the
/// word that names the slot.
#[inline(always)]
pub(crate) fn number_of(active: &Active, slot: u32) -> u32 {
    let number = active.numbers.get(masked_offset::<1>(slot));
    number.copied().unwrap_or(0)
}

#[inline(always)]
pub(crate) fn generation(slot: u32) -> Option<&'static Generation> {
    seen!(GENERATIONS, slot)
}

#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    seen!(SETTINGS, 0)
}

#[inline(always)]
pub(crate) fn interface(key: &InterfaceKey) -> Option<Interface> {
    let pointer = INTERFACES.get_ptr(key)?;
    // SAFETY: the lookup gave a valid pointer, and rows are only removed from a slot that has
    // not been in force for a grace period.
    Some(unsafe { *pointer })
}

#[inline(always)]
pub(crate) fn network(slot: u32, address: &Address) -> Option<Network> {
    let key = Key::new(
        160,
        NetworkKey {
            slot,
            address: *address,
        },
    );
    NETWORKS.get(&key).copied()
}

#[inline(always)]
pub(crate) fn pair(key: &PairKey) -> Option<Pair> {
    let pointer = PAIRS.get_ptr(key)?;
    // SAFETY: as for `interface`.
    Some(unsafe { *pointer })
}

#[inline(always)]
pub(crate) fn service(slot: u32, index: u32) -> Option<Service> {
    seen!(SERVICES, slot * MAX_SERVICES + index).copied()
}

#[inline(always)]
pub(crate) fn conduit(slot: u32, id: u16) -> Option<Conduit> {
    seen!(CONDUITS, slot * MAX_CONDUITS + u32::from(id)).copied()
}

#[inline(always)]
pub(crate) fn operation_row(slot: u32, rule_set: u16, unit: u8) -> u16 {
    match seen!(RULE_SETS, slot * MAX_RULE_SETS + u32::from(rule_set)) {
        Some(set) => set.rows[usize::from(unit)],
        None => 0,
    }
}

#[inline(always)]
pub(crate) fn operation(slot: u32, row: u16, function: u8) -> Option<Operation> {
    let index = (slot * MAX_OPERATION_ROWS + u32::from(row)) * FUNCTIONS + u32::from(function);
    seen!(OPERATIONS, index).copied()
}

#[inline(always)]
pub(crate) fn interval(slot: u32, index: u32) -> Option<Interval> {
    seen!(INTERVALS, slot * MAX_INTERVALS + index).copied()
}

#[inline(always)]
pub(crate) fn page(slot: u32, row: u32, operand: u8) -> u16 {
    match seen!(PAGES, slot * MAX_PAGES + row) {
        Some(page) => page.intervals[usize::from(operand)],
        None => 0,
    }
}

#[inline(always)]
pub(crate) fn limits(slot: u32, index: u16) -> Option<Limits> {
    seen!(LIMITS, slot * MAX_LIMITS + u32::from(index)).copied()
}

#[inline(always)]
pub(crate) fn value_range(slot: u32, index: u32) -> Option<ValueRange> {
    seen!(VALUE_RANGES, slot * MAX_VALUE_RANGES + index).copied()
}

#[inline(always)]
pub(crate) fn last_value(key: &RegisterKey) -> Option<LastValue> {
    let pointer = LAST_VALUES.get_ptr(key)?;
    // SAFETY: the lookup gave a valid pointer; rows are never removed while the program runs.
    Some(unsafe { *pointer })
}

#[inline(always)]
pub(crate) fn set_last_value(key: &RegisterKey, value: &LastValue) -> bool {
    LAST_VALUES.insert(key, value, 0).is_ok()
}

#[inline(always)]
pub(crate) fn rule_rate(rule: u16) -> u64 {
    seen!(RULE_RATES, u32::from(rule)).copied().unwrap_or(0)
}

#[inline(always)]
pub(crate) fn replace_rule_rate(rule: u16, old: u64, new: u64) -> bool {
    match RULE_RATES.get_ptr_mut(u32::from(rule)) {
        Some(pointer) => atomic::replace(pointer, old, new),
        None => false,
    }
}

#[inline(always)]
pub(crate) fn count_response(conduit: u16, bucket: u32) {
    if let Some(count) = held!(
        RESPONSE_TIMES,
        u32::from(conduit) * RESPONSE_BUCKETS + bucket
    ) {
        *count += 1;
    }
}

#[inline(always)]
pub(crate) fn trace() -> Option<&'static mut Trace> {
    held!(TRACES, 0)
}

#[inline(always)]
pub(crate) fn count(conduit: u16, reason: u8, bytes: u64) {
    if let Some(counter) = held!(
        COUNTERS,
        u32::from(conduit) * REASON_SLOTS + u32::from(reason)
    ) {
        counter.frames += 1;
        counter.bytes += bytes;
    }
}

#[inline(always)]
pub(crate) fn count_rule(rule: u16, operations: u32) {
    if let Some(hits) = held!(RULES, u32::from(rule)) {
        *hits += u64::from(operations);
    }
}

#[inline(always)]
pub(crate) fn reporting(processor: u32) -> Option<&'static mut Reporting> {
    held!(REPORTING, processor)
}

/// [`Reporting::taken`], which user space may change at any time.
#[inline(always)]
pub(crate) fn taken(reporting: &Reporting) -> u32 {
    // SAFETY: reads a field of a reference.
    unsafe { core::ptr::read_volatile(&raw const reporting.taken) }
}

/// The row of a processor's ring that is written next; the caller has seen that it is free.
#[inline(always)]
pub(crate) fn event(
    processor: u32,
    reporting: &Reporting,
    events: u32,
) -> Option<&'static mut EventRecord> {
    let row = reporting.written & events.wrapping_sub(1);
    held!(EVENTS, processor * events + row)
}

/// Gives the row that was written last to the reader.
#[inline(always)]
pub(crate) fn hand_over(reporting: &mut Reporting) {
    atomic::publish(
        &raw mut reporting.written,
        reporting.written.wrapping_add(1),
    );
}

/// Wakes the controller. It need not succeed: a bell that was not heard yet is as good.
#[inline(always)]
pub(crate) fn ring_bell() {
    if let Some(mut bell) = BELL.reserve::<u64>(0) {
        bell.write(0);
        bell.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    }
}

#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    held!(SCRATCH, 0)
}

#[inline(always)]
pub(crate) fn clock() -> Option<&'static mut [u64; 2]> {
    held!(CLOCK, 0)
}

#[inline(always)]
pub(crate) fn rate(conduit: u16) -> u64 {
    seen!(RATES, u32::from(conduit)).copied().unwrap_or(0)
}

#[inline(always)]
pub(crate) fn replace_rate(conduit: u16, old: u64, new: u64) -> bool {
    match RATES.get_ptr_mut(u32::from(conduit)) {
        Some(pointer) => atomic::replace(pointer, old, new),
        None => false,
    }
}

#[inline(always)]
pub(crate) fn bucket(table: FlowTable, bucket: u32) -> Option<&'static [u32; 8]> {
    match table {
        FlowTable::Flows => seen!(FLOW_BUCKETS, bucket),
        FlowTable::Openings => seen!(OPENING_BUCKETS, bucket),
    }
}

#[inline(always)]
pub(crate) fn tag(table: FlowTable, place: u32) -> Option<*mut u32> {
    let bucket = match table {
        FlowTable::Flows => FLOW_BUCKETS.get_ptr_mut(place / WAYS),
        FlowTable::Openings => OPENING_BUCKETS.get_ptr_mut(place / WAYS),
    }?;
    Some(bucket.cast::<u32>().wrapping_add((place % WAYS) as usize))
}

#[inline(always)]
pub(crate) fn flow_pointer(table: FlowTable, place: u32) -> Option<*mut FlowEntry> {
    match table {
        FlowTable::Flows => FLOWS.get_ptr_mut(place),
        FlowTable::Openings => OPENINGS.get_ptr_mut(place),
    }
}

#[inline(always)]
pub(crate) fn flow(table: FlowTable, place: u32) -> Option<&'static mut FlowEntry> {
    Some(held_flow(flow_pointer(table, place)?))
}

/// The entry behind a pointer that [`flow_pointer`] gave.
#[inline(always)]
pub(crate) fn held_flow(pointer: *mut FlowEntry) -> &'static mut FlowEntry {
    // SAFETY: as for `held!`: the caller holds the entry's lock.
    unsafe { &mut *pointer }
}

/// The same for one who does not hold it.
#[inline(always)]
pub(crate) fn glimpsed_flow(pointer: *mut FlowEntry) -> &'static FlowEntry {
    // SAFETY: as for `seen!`: any bytes are an entry, and what is decided by them is decided again under the
    // lock, or denied.
    unsafe { &*pointer }
}

#[inline(always)]
pub(crate) fn stream_pointer(index: u32) -> Option<*mut Stream> {
    STREAMS.get_ptr_mut(index)
}

#[inline(always)]
pub(crate) fn stream(index: u32) -> Option<&'static mut Stream> {
    Some(held_stream(stream_pointer(index)?))
}

/// The row behind a pointer that [`stream_pointer`] gave.
#[inline(always)]
pub(crate) fn held_stream(pointer: *mut Stream) -> &'static mut Stream {
    // SAFETY: as for `held!`: the caller holds the stream's flow.
    unsafe { &mut *pointer }
}

/// The lock of an entry.
#[inline(always)]
pub(crate) fn lock_of(entry: *mut FlowEntry) -> *mut u32 {
    // SAFETY: the pointer came from a lookup; only the field's address is taken.
    unsafe { &raw mut (*entry).lock }
}

#[inline(always)]
fn row_of_port(slot: u32, device: u32) -> u32 {
    slot * MAX_PORTS + (device & (MAX_PORTS - 1))
}

/// The row of a device, if it is the device's.
#[inline(always)]
pub(crate) fn port(slot: u32, device: u32) -> Option<Port> {
    let port = seen!(PORTS, row_of_port(slot, device))?;
    if device != 0 && port.device == device {
        Some(*port)
    } else {
        None
    }
}

/// Hands no more frames to a port; whoever else does the same at the same time does no harm.
#[inline(always)]
pub(crate) fn stop_taking(slot: u32, device: u32) {
    if let Some(port) = held!(PORTS, row_of_port(slot, device))
        && port.device == device
    {
        port.flags &= !port_flag::TAKES;
    }
}

#[inline(always)]
pub(crate) fn tagged(key: &InterfaceKey) -> u32 {
    match TAGGED.get_ptr(key) {
        // SAFETY: as for `interface`.
        Some(pointer) => unsafe { *pointer },
        None => 0,
    }
}

/// What is remembered of where an address is at home.
#[inline(always)]
pub(crate) fn home(address: &Address) -> Option<&'static mut Home> {
    held!(HOMES, Home::row(address))
}

/// How a frame left before.
#[inline(always)]
pub(crate) fn known_way(row: u32) -> Option<&'static mut KnownWay> {
    held!(KNOWN_WAYS, row)
}

#[inline(always)]
pub(crate) fn count_forwarding(row: u32) {
    if let Some(frames) = held!(FORWARDING, row) {
        *frames += 1;
    }
}

/// The interface that the last frame of this processor was handed to.
#[inline(always)]
pub(crate) fn handed() -> Option<&'static mut u64> {
    held!(FORWARDING, HANDED_ROW)
}
