//! The contract between user space and the kernel: every key and value in a map.
//!
//! User space compiles a policy into these records and writes them under the inactive *slot*; one
//! write to `ACTIVE` then puts them in force on every interface at once. All numbers are in host
//! byte order; addresses are words in network byte order ([`Address`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Raised whenever a layout or a meaning in this module or in [`crate::event`] changes: the
/// controller does not take over pinned maps of another version.
pub const ABI_VERSION: u32 = 5;

/// Policies that the maps hold at once: the one in force and the next one.
pub const SLOTS: u32 = 2;
/// Zones in one policy, the gateway's own included: one bit each in [`Interface::zones`].
pub const MAX_ZONES: u32 = 64;
/// Conduit ids. Id 0 is "no conduit". An id stays with a conduit's name across reloads.
pub const MAX_CONDUITS: u32 = 1024;
/// Rule ids, for the counters. Id 0 is "no rule".
pub const MAX_RULES: u32 = 32_768;
/// Rows of `INTERFACES` in both slots.
pub const MAX_INTERFACES: u32 = 1024;
/// Rows of `NETWORKS` in both slots.
pub const MAX_NETWORKS: u32 = 32_768;
/// Rows of `PAIRS` in both slots.
pub const MAX_PAIRS: u32 = 32_768;
/// Rows of `SERVICES` for each slot.
pub const MAX_SERVICES: u32 = 16_384;
/// Rows of `RULE_SETS` for each slot. Rule set 0 is "not inspected".
pub const MAX_RULE_SETS: u32 = 1024;
/// Rows of `OPERATIONS` for each slot, of [`FUNCTIONS`] cells each. Row 0 allows nothing.
pub const MAX_OPERATION_ROWS: u32 = 1024;
/// Rows of `INTERVALS` for each slot.
pub const MAX_INTERVALS: u32 = 65_536;
/// Rows of `PAGES` for each slot.
pub const MAX_PAGES: u32 = 8192;
/// Operands of a page.
pub const PAGE_OPERANDS: usize = 256;
/// Rows of `LIMITS` for each slot. Row 0 limits nothing.
pub const MAX_LIMITS: u32 = 16_384;
/// Rows of `VALUE_RANGES` for each slot.
pub const MAX_VALUE_RANGES: u32 = 65_536;
/// Rows of `LAST_VALUES`: written registers that a rule with `max_step` guards, of all responders.
pub const MAX_LAST_VALUES: u32 = 65_536;
/// Buckets of a conduit's histogram of response times: see [`crate::modbus::reply`].
pub const RESPONSE_BUCKETS: u32 = 16;
/// Function codes: every value of a byte.
pub const FUNCTIONS: u32 = 256;
/// Ports of a service are found by at most this many halvings: `2^15 > MAX_SERVICES`.
pub const SERVICE_SEARCH_STEPS: u32 = 15;
/// Intervals are found by at most this many halvings: `2^17 > MAX_INTERVALS`.
pub const INTERVAL_SEARCH_STEPS: u32 = 17;

/// The zone of the gateway itself.
pub const GATEWAY_ZONE: u16 = 0;
/// [`InterfaceKey::vlans`] of a zone that takes any tags.
pub const ANY_VLANS: u32 = u32::MAX;

/// An IPv4 or IPv6 address: four words as they stand in the packet (network byte order). IPv4 is
/// held as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
pub type Address = [u32; 4];

/// The third word of an IPv4 address held as [`Address`].
pub const IPV4_MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// `GENERATIONS[slot]`: what holds for a whole policy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Generation {
    /// Counts up by one with every policy put in force; never 0 in a slot that is.
    pub number: u32,
    /// 1: every conduit, and the absence of one, only observes.
    pub observe: u32,
    /// Ticks after which an established TCP flow without frames is forgotten.
    pub tcp_established_ticks: u32,
    /// Ticks after which an unfinished TCP handshake is forgotten.
    pub tcp_opening_ticks: u32,
    /// Ticks after which a closed TCP flow is forgotten.
    pub tcp_closing_ticks: u32,
    /// Ticks after which a UDP or ICMP flow answered at least once is forgotten.
    pub datagram_ticks: u32,
    /// Ticks after which an unanswered UDP or ICMP flow is forgotten.
    pub datagram_opening_ticks: u32,
    /// Ticks of the kernel's clock in a second (its HZ).
    pub ticks_per_second: u32,
    /// Ticks after which a request without a reply no longer counts as outstanding.
    pub reply_ticks: u32,
    /// One of [`forwarding`].
    pub forwarding: u32,
}

impl Generation {
    /// [`Active::events_a_tick`].
    #[must_use]
    pub const fn events_a_tick(&self) -> u32 {
        match EVENTS_A_SECOND.checked_div(self.ticks_per_second) {
            Some(events) => events,
            None => EVENTS_A_SECOND,
        }
    }

    /// [`Active::word`] to put this generation, written to `slot`, in force.
    #[must_use]
    pub const fn active(&self, slot: u32) -> u32 {
        if self.forwarding == forwarding::FAST {
            slot | ACTIVE_FAST
        } else {
            slot
        }
    }
}

/// `ACTIVE[0]`: what every frame asks for, in one look. Only `word` changes when a policy is put in force;
/// the rest of it is there before, and is not touched.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Active {
    /// [`ACTIVE_SLOT`] and [`ACTIVE_FAST`].
    pub word: u32,
    /// [`EVENTS_A_SECOND`] in ticks.
    pub events_a_tick: u32,
    /// [`Generation::number`] by slot.
    pub numbers: [u32; 2],
    /// What `SETTINGS` says.
    pub settings: Settings,
}

/// The bit of [`Active::word`] that is the slot in force.
pub const ACTIVE_SLOT: u32 = 1;
/// The bit of [`Active::word`] that is set when the program forwards what passes ([`forwarding::FAST`]): every
/// frame reads it, and it changes with the slot.
pub const ACTIVE_FAST: u32 = 2;

/// Who forwards a frame that passes: [`Generation::forwarding`].
pub mod forwarding {
    /// The kernel.
    pub const KERNEL: u32 = 0;
    /// The program, where it can ([`crate::forward`]).
    pub const FAST: u32 = 1;
}

/// Key of `INTERFACES`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct InterfaceKey {
    /// The slot.
    pub slot: u32,
    /// The interface index.
    pub ifindex: u32,
    /// Outer VLAN id in the upper half, inner in the lower, 0 for none; or [`ANY_VLANS`].
    pub vlans: u32,
}

/// Value of `INTERFACES`: the zones whose hosts may send on this interface.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Interface {
    /// Bit `n` is set for zone id `n`.
    pub zones: u64,
}

/// Key of `NETWORKS`, a longest-prefix trie. The prefix length counts the 32 bits of `slot`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct NetworkKey {
    /// The slot, matched in full.
    pub slot: u32,
    /// The address; an IPv4 prefix of `n` bits is one of `96 + n` bits here.
    pub address: Address,
}

/// Value of `NETWORKS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Network {
    /// Zone id.
    pub zone: u16,
    /// Asset id, 0 when the policy names no asset with this address.
    pub asset: u16,
}

/// One end of a conduit: a zone or an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Party(u16);

impl Party {
    const ZONE: u16 = 0x8000;

    /// All hosts of a zone.
    #[must_use]
    pub const fn zone(id: u16) -> Self {
        Self(id | Self::ZONE)
    }

    /// One asset; `id` is not 0 and below 32,768.
    #[must_use]
    pub const fn asset(id: u16) -> Self {
        Self(id & !Self::ZONE)
    }

    /// The number that stands in a [`PairKey`].
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Key of `PAIRS`: which services one party may reach at another.
///
/// The most specific pair that has the port decides, in this order: asset to asset, asset to
/// zone, zone to asset, zone to zone.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PairKey {
    /// The slot.
    pub slot: u16,
    /// [`Party::number`] of the initiator.
    pub from: u16,
    /// [`Party::number`] of the responder.
    pub to: u16,
    /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP echo (also for ICMPv6).
    pub transport: u16,
}

/// Value of `PAIRS`: a run of `SERVICES`, sorted by port and disjoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Pair {
    /// Index of the first, within the slot.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Value of `SERVICES[slot * MAX_SERVICES + index]`: ports that one conduit opens.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Service {
    /// First port of the range (0 for ICMP echo).
    pub first_port: u16,
    /// Last port of the range, inclusive (65,535 for ICMP echo).
    pub last_port: u16,
    /// The conduit.
    pub conduit: u16,
    /// The rule set for an inspected protocol; 0 when the payload is not inspected.
    pub rule_set: u16,
    /// [`protocol`] that the payload is inspected as.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Protocols that payloads are inspected as.
pub mod protocol {
    /// Not inspected.
    pub const NONE: u8 = 0;
    /// Modbus/TCP.
    pub const MODBUS: u8 = 1;
}

/// Value of `CONDUITS[slot * MAX_CONDUITS + id]`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Conduit {
    /// 1 when the slot has this conduit.
    pub present: u8,
    /// 1: what would be denied passes, and is reported.
    pub observe: u8,
    /// What happens to a denied segment of a TCP flow: the number of a [`crate::Verdict`].
    pub on_deny: u8,
    /// Requests that may wait for a reply in one flow, 1 to 16.
    pub outstanding: u8,
    /// Time between two new flows at the allowed rate, in 1/65,536 tick; 0 for no limit.
    pub new_flow_interval: u32,
    /// How far new flows may run ahead of the rate, in 1/65,536 tick.
    pub new_flow_burst: u64,
}

/// Value of `RULE_SETS[slot * MAX_RULE_SETS + id]`: which row of operations holds for each unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RuleSet {
    /// Row within the slot by unit id; 0 where no rule names the unit.
    pub rows: [u16; 256],
}

/// Value of `OPERATIONS[(slot * MAX_OPERATION_ROWS + row) * FUNCTIONS + function code]`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Operation {
    /// One of [`operation`].
    pub kind: u8,
    /// Upper byte of the operands of the first page.
    pub first_page: u8,
    /// Rule id when the kind is [`operation::ALLOWED`].
    pub rule: u16,
    /// First interval within the slot.
    pub first: u32,
    /// How many intervals: sorted, disjoint.
    pub count: u32,
    /// Row of `PAGES` of the first page within the slot, plus 1; 0 when there was no room, and the
    /// intervals are searched.
    pub pages: u16,
    /// Upper byte of the operands of the last page.
    pub last_page: u8,
    /// Zero.
    pub reserved: u8,
}

/// Value of `PAGES[slot * MAX_PAGES + row]`: for operands with the same upper byte, by their lower
/// byte, the interval that holds the operand: its number within the cell plus 1, or 0. One look
/// finds an interval, however many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Page {
    /// By the lower byte of the operand.
    pub intervals: [u16; PAGE_OPERANDS],
}

/// Kinds of [`Operation`].
pub mod operation {
    /// No rule allows the function.
    pub const DENIED: u8 = 0;
    /// Allowed with any operand.
    pub const ALLOWED: u8 = 1;
    /// Allowed when the operand lies in one of the intervals: the sub-function of function 8, the
    /// MEI type of 43, else registers or coils.
    pub const RANGES: u8 = 2;
}

/// Value of `INTERVALS[slot * MAX_INTERVALS + index]`: operands that one rule allows.
///
/// The operands are sub-functions (function 8), MEI types (43), file numbers (20, 21), else coils,
/// discrete inputs or registers, counted from 0. The intervals of one cell are sorted and disjoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Interval {
    /// First operand.
    pub first: u16,
    /// Last operand, inclusive.
    pub last: u16,
    /// The last operand, inclusive, that an operation which begins in this interval may reach: the
    /// intervals up to there follow without a gap, and none of them has a rate of another rule.
    pub reach: u16,
    /// Rule id.
    pub rule: u16,
    /// Row of `LIMITS` within the slot; 0 for none.
    pub limits: u16,
    /// Zero.
    pub reserved: u16,
}

/// Value of `LIMITS[slot * MAX_LIMITS + index]`: what a rule says about an operation beyond its
/// operands. A limit holds when its bit is set in `flags`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Limits {
    /// Bits of [`limit`].
    pub flags: u8,
    /// One of [`number`]: how written registers are read. Coils are written as 0 and 1.
    pub number: u8,
    /// 1: of a number of two registers, the first holds the lower half.
    pub low_word_first: u8,
    /// [`limit::LENGTH`]: highest MBAP length.
    pub max_length: u8,
    /// [`limit::BITS`]: bits that a write may set, and a mask write may touch.
    pub bits: u16,
    /// For [`limit::STEP`]: bits behind the point of a value in fixed point (two's complement).
    pub scale: i16,
    /// [`limit::VALUES`]: first row of `VALUE_RANGES` within the slot.
    pub first: u32,
    /// How many: sorted, disjoint.
    pub count: u32,
    /// [`limit::STEP`]: the largest change, in fixed point ([`crate::modbus::number::fixed`]).
    pub step: u64,
    /// [`limit::RATE`]: how far operations may run ahead of the rate, in 1/65,536 tick.
    pub rate_burst: u64,
    /// [`limit::RATE`]: time between two operations at the allowed rate, in 1/65,536 tick.
    pub rate_interval: u32,
    /// [`limit::RECORDS`]: first record of a file.
    pub first_record: u16,
    /// Last record, inclusive.
    pub last_record: u16,
}

/// Bits of [`Limits::flags`].
pub mod limit {
    /// Written values lie in one of `VALUE_RANGES`.
    pub const VALUES: u8 = 1;
    /// Written bits lie in [`super::Limits::bits`].
    pub const BITS: u8 = 2;
    /// A written value is not too far from the last one.
    pub const STEP: u8 = 4;
    /// Operations do not come faster than the rule allows.
    pub const RATE: u8 = 8;
    /// File records lie in a range.
    pub const RECORDS: u8 = 16;
    /// The length of the ADU is bounded, for functions that the specification does not define.
    pub const LENGTH: u8 = 32;
    /// The limits that concern each written register or coil by itself.
    pub const WRITTEN: u8 = VALUES | BITS | STEP;
}

/// How written registers are read: [`Limits::number`].
pub mod number {
    /// One register, unsigned.
    pub const U16: u8 = 0;
    /// One register, two's complement.
    pub const I16: u8 = 1;
    /// Two registers, unsigned.
    pub const U32: u8 = 2;
    /// Two registers, two's complement.
    pub const I32: u8 = 3;
    /// Two registers, IEEE 754 single precision.
    pub const F32: u8 = 4;
}

/// Value of `VALUE_RANGES[slot * MAX_VALUE_RANGES + index]`: values that may be written, as keys in
/// their order ([`crate::modbus::number::key`]).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ValueRange {
    /// First key.
    pub first: u32,
    /// Last key, inclusive.
    pub last: u32,
}

/// Key of `LAST_VALUES`: a register of a unit behind a responder.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RegisterKey {
    /// The responder.
    pub responder: Address,
    /// Its port.
    pub port: u16,
    /// The register or coil.
    pub register: u16,
    /// The unit id.
    pub unit: u32,
}

/// Value of `LAST_VALUES`: what was written to a register that a rule with `max_step` guards. A
/// step is held against both values: one that passed may never have arrived, and one that was
/// confirmed may be older.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LastValue {
    /// The value that passed last, as in [`crate::modbus::number::key`].
    pub passed: u32,
    /// The value of the last write that the responder answered with success.
    pub confirmed: u32,
    /// 1 when there is one.
    pub is_confirmed: u8,
    /// [`number`]: a register read in another way has no last value.
    pub number: u8,
    /// 1: low word first.
    pub low_word_first: u8,
    /// Zero.
    pub reserved: u8,
}

/// `SETTINGS[0]`: fixed when the program is loaded.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Settings {
    /// Keys of the flow hash, drawn at random ([`crate::flow::key`]).
    pub hash_keys: [u64; 12],
    /// [`ABI_VERSION`] of the program.
    pub abi_version: u32,
    /// Buckets of the flow table, less one; a power of two less one.
    pub flow_bucket_mask: u32,
    /// Buckets of the table of opening flows, less one.
    pub opening_bucket_mask: u32,
    /// Rows of `STREAMS`, less one; a power of two less one.
    pub stream_mask: u32,
    /// Rows of `EVENTS` that each processor has; a power of two.
    pub events: u32,
    /// Zero.
    pub reserved: u32,
    /// Connections that were open before the gateway are picked up until the tick counter gets
    /// here; 0 for never.
    pub adopt_until_ticks: u64,
}

/// Value of `COUNTERS[conduit id * REASON_SLOTS + reason number]`, one per processor. Reason 0
/// holds what passed; each frame adds to exactly one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub frames: u64,
    /// Bytes of those frames, from the Ethernet header on.
    pub bytes: u64,
}

/// Value of `REPORTING[processor]`. The processor alone writes the first 64 bytes, and the reader the rest:
/// neither takes a line of the other's cache away but where it has to look.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Reporting {
    /// Sequence number of the next event of this processor.
    pub next_sequence: u64,
    /// Events that found no room in the processor's ring, or were more than it tells of.
    pub lost: u64,
    /// Frames that would have been denied, had their conduit not been in mode observe.
    pub would_deny: u64,
    /// Events that may still be written before the next tick.
    pub room: u32,
    /// Lower half of the tick counter when `room` was last added to.
    pub room_ticks: u32,
    /// Lower half of the tick counter when the reader was last woken.
    pub woken_ticks: u32,
    /// Records that were written to the ring, counted round: those from [`Self::taken`] on are the
    /// reader's.
    pub written: u32,
    /// [`Self::taken`] when the ring last seemed full: what the reader's line says is asked for only then.
    pub known_taken: u32,
    /// Zero.
    pub reserved: [u32; 5],
    /// Records that the reader has taken.
    pub taken: u32,
    /// Zero.
    pub reserved_too: [u32; 15],
}

/// Events that a processor may write at once; as many as its ring holds, unless there are very many
/// processors.
pub const EVENT_BURST: u32 = 8192;
/// Events that a processor may write in a second, once that many are written: a flood of denials is
/// counted to the last frame, and does not have the gateway spend its time on telling of it.
pub const EVENTS_A_SECOND: u32 = 320_000;

impl Reporting {
    /// Takes the room for one event out of what there is for `events_a_tick`; `false` when it is used up.
    #[inline(always)]
    pub const fn take_room(&mut self, now_ticks: u32, events_a_tick: u32) -> bool {
        // Nothing has been put in force yet.
        let events_a_tick = if events_a_tick == 0 {
            EVENT_BURST
        } else {
            events_a_tick
        };
        let passed = now_ticks.wrapping_sub(self.room_ticks);
        if passed != 0 {
            self.room_ticks = now_ticks;
            let more = passed.saturating_mul(events_a_tick);
            let room = self.room.saturating_add(more);
            let most = if events_a_tick > EVENT_BURST {
                events_a_tick
            } else {
                EVENT_BURST
            };
            self.room = if room > most { most } else { room };
        }
        if self.room == 0 {
            return false;
        }
        self.room = self.room.wrapping_sub(1);
        true
    }

    /// Whether a ring of so many records has none that is free, as far as is known.
    #[inline(always)]
    #[must_use]
    pub const fn is_full(&self, records: u32) -> bool {
        self.written.wrapping_sub(self.known_taken) >= records
    }

    /// Whether the reader is to be woken for an event that was written to a ring of so many records: for the
    /// first in each tick, and whenever another half of the ring is written. It looks again by itself after
    /// it was woken, for what comes later in the tick.
    #[inline(always)]
    pub const fn is_to_wake(&mut self, now_ticks: u32, records: u32) -> bool {
        let is_first = self.woken_ticks != now_ticks;
        self.woken_ticks = now_ticks;
        is_first || self.written & (records / 2).wrapping_sub(1) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_events_is_held_to_so_many_in_a_tick() {
        let mut reporting = Reporting::default();
        let mut written =
            |now: u32, tries: u32| (0..tries).filter(|_| reporting.take_room(now, 100)).count();
        assert_eq!(
            written(1_000_000, 20_000),
            8192,
            "as many as a ring takes at once"
        );
        assert_eq!(written(1_000_000, 10), 0);
        assert_eq!(written(1_000_001, 200), 100);
        assert_eq!(written(1_000_003, 500), 200);
        assert_eq!(written(2_000_000, 20_000), 8192, "and no more after a rest");
        assert_eq!(written(5, 20_000), 8192, "the counter goes round");
    }

    #[test]
    fn the_reader_is_woken_once_in_a_tick_and_for_half_a_ring() {
        let mut reporting = Reporting::default();
        let mut woken = |now| {
            reporting.written += 1;
            reporting.is_to_wake(now, 8)
        };
        let in_three_ticks = [7, 7, 7, 8, 9, 9].map(&mut woken);
        assert_eq!(in_three_ticks, [true, false, false, true, true, false]);
        let in_a_flood = [9; 8].map(woken);
        let half_a_ring = [false, true, false, false, false, true, false, false];
        assert_eq!(in_a_flood, half_a_ring);
    }

    #[test]
    fn events_are_shared_out_to_the_ticks_of_a_second() {
        let generation = |ticks_per_second| Generation {
            ticks_per_second,
            ..Generation::default()
        };
        assert_eq!(generation(1000).events_a_tick(), 320);
        assert_eq!(generation(100).events_a_tick(), 3200);
        assert_eq!(generation(0).events_a_tick(), EVENTS_A_SECOND);
    }
}
