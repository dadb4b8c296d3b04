//! What the decision needs from the world: BPF maps and helpers in the kernel, ordinary memory in
//! user space. Nothing is decided behind this trait.

use crate::bytes::Headers;
use crate::event::EventOperation;
use crate::flow::entry::{FlowEntry, Stream};
use crate::flow::recent::Recent;
use crate::judgement::Judgement;
use crate::packet::Packet;
use crate::table::{
    Address, Conduit, Generation, Interface, InterfaceKey, Interval, LastValue, Limits, Network,
    Operation, Pair, PairKey, RegisterKey, Service, Settings, ValueRange,
};

/// The two flow tables. Half-open flows live apart, so that a flood of connection requests
/// cannot evict a working connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTable {
    /// Established flows: an entry leaves only by its own end or by its time-out.
    Flows,
    /// Flows that the responder has not answered, or the initiator not confirmed: when there is no
    /// room the oldest of a bucket gives way.
    Openings,
}

/// What a frame leaves behind on its way down the street.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub struct Workspace {
    /// The operation that is being judged.
    pub operation: EventOperation,
    /// The operation that was denied; the first, if several were. While it names any field, those that it
    /// does not name are zero.
    pub denied: EventOperation,
    /// What is to be remembered of written values once the whole segment is allowed.
    pub writes: [PendingWrite; MAX_PENDING_WRITES],
    /// What the request at hand writes.
    pub written: Written,
    /// How many of them there are.
    pub pending_writes: u32,
    /// The stream of the flow.
    pub stream: u32,
    /// The place of the flow.
    pub place: u32,
    /// The place of the flow that the frame at hand was found to be of and that is held; 0 for none.
    pub held: u32,
    /// The interval, within the slot, of the first written register (or of the operand).
    pub interval: u32,
    /// The conduit of the flow.
    pub conduit: u16,
    /// The rule set of the flow.
    pub rule_set: u16,
    /// Row of `LIMITS` of the rule at hand.
    pub limits: u16,
    /// The rule at hand.
    pub rule: u16,
    /// Bytes at the end of the segment that do not go on; 0 for none.
    pub held_back: u32,
    /// Number of the reason of the first ADU of the segment that was neutralised; 0 for none.
    pub neutralised: u8,
    /// Number of the verdict for what the flow is denied: pass when it is only observed.
    pub on_deny: u8,
    /// Requests that the flow may have outstanding.
    pub outstanding: u8,
    /// 1 when the flow was picked up and no reply has matched yet.
    pub is_picked_up: u8,
    /// 1 when the request at hand writes registers whose last value counts.
    pub is_guarded: u8,
    /// The place of the flow that is in doubt once the SYN at hand passes; 0 for none.
    pub doubted: u32,
    /// Bytes at the beginning of the segment that [`crate::modbus::plain`] has judged already.
    pub plain_bytes: u32,
    /// The service that a flow is being opened for.
    pub service: Service,
    /// The slot in force when the frame came in.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// Sequence number for a reset to the responder.
    pub reset_sequence: u32,
    /// Where the flows of the last frames are.
    pub recent: Recent,
}

/// Writes under `max_step` in one segment.
pub const MAX_PENDING_WRITES: usize = 4;

/// A write whose values are remembered once its segment is allowed.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PendingWrite {
    /// Sequence number of the ADU.
    pub sequence: u32,
    /// Its interval, within the slot.
    pub interval: u32,
    /// First register or coil.
    pub first: u16,
    /// Last, inclusive.
    pub last: u16,
    /// The unit id.
    pub unit: u32,
}

/// Registers or coils that a request writes, and where their values stand.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Written {
    /// First register or coil.
    pub first: u32,
    /// Last, inclusive.
    pub last: u32,
    /// Sequence number of the first value.
    pub values_at: u32,
    /// The and-mask of function 22, with bit 16 set to tell it from other functions: they have 0.
    pub and_mask: u32,
}

/// The world around one frame.
///
/// Tables are read by copy. `None` means that the entry does not exist.
pub trait Platform: Headers {
    /// Bytes of the frame.
    fn frame_bytes(&self) -> u32;
    /// The interface that the frame came in on.
    fn ifindex(&self) -> u32;
    /// The kernel's tick counter.
    fn now_ticks(&self) -> u64;
    /// What the frame leaves behind.
    fn workspace(&mut self) -> &mut Workspace;
    /// The same, to read.
    fn seen(&self) -> &Workspace;

    /// `SETTINGS`.
    fn settings(&self) -> Option<&Settings>;
    /// [`Generation::number`] of a slot.
    fn generation_number(&self, slot: u32) -> u32;
    /// `GENERATIONS`.
    fn generation(&self, slot: u32) -> Option<&Generation>;
    /// `INTERFACES`.
    fn interface(&self, key: &InterfaceKey) -> Option<Interface>;
    /// `NETWORKS`, longest prefix.
    fn network(&self, slot: u32, address: &Address) -> Option<Network>;
    /// `PAIRS`.
    fn pair(&self, key: &PairKey) -> Option<Pair>;
    /// `SERVICES`.
    fn service(&self, slot: u32, index: u32) -> Option<Service>;
    /// `CONDUITS`.
    fn conduit(&self, slot: u32, id: u16) -> Option<Conduit>;
    /// The row of `OPERATIONS` for a unit; 0 for none.
    fn operation_row(&self, slot: u32, rule_set: u16, unit: u8) -> u16;
    /// `OPERATIONS`.
    fn operation(&self, slot: u32, row: u16, function: u8) -> Option<Operation>;
    /// `INTERVALS`.
    fn interval(&self, slot: u32, index: u32) -> Option<Interval>;
    /// One number of a row of `PAGES`; 0 for none.
    fn page(&self, slot: u32, row: u32, operand: u8) -> u16;
    /// `LIMITS`.
    fn limits(&self, slot: u32, index: u16) -> Option<Limits>;
    /// `VALUE_RANGES`.
    fn value_range(&self, slot: u32, index: u32) -> Option<ValueRange>;
    /// `LAST_VALUES`: the value of a register that was written last.
    fn last_value(&self, key: &RegisterKey) -> Option<LastValue>;
    /// Replaces it. Returns whether there was room.
    fn set_last_value(&mut self, key: &RegisterKey, value: &LastValue) -> bool;
    /// `RULE_RATES`: the time, in 1/65,536 tick, until which the rule's rate is used up.
    fn rule_rate(&self, rule: u16) -> u64;
    /// Replaces it if it is still `old`.
    fn replace_rule_rate(&mut self, rule: u16, old: u64, new: u64) -> bool;
    /// Adds one to a bucket of the conduit's response times.
    fn count_response(&mut self, conduit: u16, bucket: u32);
    /// Whether someone follows what the decision sees: the data plane does not.
    fn is_followed(&self) -> bool;
    /// The operation in the workspace was judged: 0, or the number of the reason. For those who follow.
    fn judged(&mut self, reason: u8);
    /// Adds one to the operations that a rule allowed.
    fn count_rule(&mut self, rule: u16, operations: u32);
    /// `RATES`: the time, in 1/65,536 tick, until which the conduit's rate is used up.
    fn rate(&self, conduit: u16) -> u64;
    /// Replaces it if it is still `old`.
    fn replace_rate(&mut self, conduit: u16, old: u64, new: u64) -> bool;

    /// The packet once more. The kernel overrides it, for a compiler that is to read a part of the packet
    /// only where it is needed.
    #[inline(always)]
    fn again<'a>(&self, packet: &'a Packet) -> &'a Packet {
        packet
    }
    /// The tags of a bucket; entry 0 is its lock.
    fn bucket(&self, table: FlowTable, bucket: u32) -> Option<&[u32; 8]>;
    /// Replaces a tag if it is still `old`.
    fn replace_tag(&mut self, table: FlowTable, place: u32, old: u32, new: u32) -> bool;
    /// The entry at a place (bucket x 8 + way).
    fn flow(&mut self, table: FlowTable, place: u32) -> Option<&mut FlowEntry>;
    /// The same, to read.
    fn flow_seen(&self, table: FlowTable, place: u32) -> Option<&FlowEntry>;
    /// Where the entry of a flow lies: looked up once, and used as often as needed.
    type FlowPointer: Copy;
    /// Looks up an entry of the established flows.
    fn flow_pointer(&mut self, place: u32) -> Option<Self::FlowPointer>;
    /// The entry, which the caller does not hold: any field may be another one in the next moment.
    fn flow_glimpsed(&self, pointer: Self::FlowPointer) -> Option<&FlowEntry>;
    /// The entry, held by the caller; nothing when another processor has it.
    fn hold_flow_at_once(&mut self, pointer: Self::FlowPointer) -> Option<&mut FlowEntry>;
    /// Waits a bounded time for the entry at `place`; nothing when another processor kept it.
    fn hold_flow(&mut self, pointer: Self::FlowPointer, place: u32) -> Option<&mut FlowEntry>;
    /// The entry.
    fn flow_at(&mut self, pointer: Self::FlowPointer) -> Option<&mut FlowEntry>;
    /// The same for a row of `STREAMS`.
    type StreamPointer: Copy;
    /// Looks up a row of `STREAMS`.
    fn stream_pointer(&mut self, index: u32) -> Option<Self::StreamPointer>;
    /// The row.
    fn stream_at(&mut self, pointer: Self::StreamPointer) -> Option<&mut Stream>;
    /// Gives back what [`Self::hold_flow`] or [`Self::hold_flow_at_once`] gave.
    fn let_go(entry: &mut FlowEntry);
    /// Waits a bounded time for an entry; `false` when another processor kept it.
    fn lock_flow(&mut self, table: FlowTable, place: u32) -> bool;
    /// Gives it back.
    fn unlock_flow(&mut self, table: FlowTable, place: u32);
    /// Waits a bounded time for the right to add flows to a bucket.
    fn lock_bucket(&mut self, table: FlowTable, bucket: u32) -> bool;
    /// Gives it back.
    fn unlock_bucket(&mut self, table: FlowTable, bucket: u32);

    /// A row of `STREAMS`.
    fn stream(&mut self, index: u32) -> Option<&mut Stream>;
    /// Replaces the owner of a stream if it is still `old`.
    fn replace_owner(&mut self, index: u32, old: u32, new: u32) -> bool;
    /// Copies `bytes` bytes of the frame from `at` into the stream's history at `sequence`.
    fn remember(&mut self, stream: u32, sequence: u32, at: u32, bytes: u32) -> bool;
    /// Copies twelve bytes into the stream's history at `sequence`: eight and four, as they stand.
    fn keep_twelve(stream: &mut Stream, sequence: u32, head: u64, rest: u32);
    /// Whether the history at `sequence` holds the same `bytes` bytes as the frame at `at`.
    fn repeats(&mut self, stream: u32, sequence: u32, at: u32, bytes: u32) -> bool;

    /// [`crate::forward::Port::flags`] of the interface that the frame came in on.
    fn link_flags(&self, slot: u32) -> u32;
    /// Stage: [`crate::forward::judge_link`].
    fn judge_link(&mut self, packet: &Packet) -> Judgement;
    /// Stage: [`crate::packet::read_as_far_as_it_goes`].
    fn read_as_far_as_it_goes(&mut self, packet: &mut Packet);
    /// Stage: [`crate::admit::admit`]. The kernel verifies each stage by itself, and finds the
    /// packet where the frame left it.
    fn admit(&mut self, packet: &Packet) -> Judgement;
    /// Stage: [`crate::admit::opened`].
    fn opened(&mut self, packet: &Packet, place: u32) -> Judgement;
    /// Stage: [`crate::icmp_error::judge`].
    fn icmp_error(&mut self, packet: &Packet) -> Judgement;
    /// Stage: [`crate::settle::settle`].
    fn settle(&mut self, packet: &Packet, place: u32) -> Judgement;
    /// Stage: [`crate::settle::doubt`].
    fn doubt(&mut self, packet: &Packet, place: u32) -> bool;
    /// Stage: [`crate::admit::establish`].
    fn establish(
        &mut self,
        packet: &Packet,
        opening_place: u32,
        place: u32,
        reply: bool,
    ) -> Judgement;
    /// Stage: [`crate::inspect::inspect`].
    fn inspect(&mut self, packet: &Packet, place: u32) -> Judgement;
    /// Stage: [`crate::modbus::request::judge_adu`] on the history of the stream at hand.
    fn judge_adu(&mut self, sequence: u32, bytes: u32) -> u64;
    /// Stage: [`crate::modbus::plain::judge`].
    fn judge_plain(&mut self, packet: &Packet, place: u32, slot: u32) -> Judgement;
    /// Stage: [`crate::modbus::plain::find`].
    fn find_plain(&mut self, unit: u8, function: u8, address: u16) -> u64;
    /// Stage: [`crate::modbus::plain_replies::judge`].
    fn judge_plain_replies(&mut self, packet: &Packet, place: u32) -> Judgement;
    /// Stage: [`crate::modbus::written::check_registers`].
    fn check_registers(&mut self, sequence: u32) -> u32;
    /// Stage: [`crate::modbus::written::check_register`].
    fn check_register(&mut self, register: u32, interval: u32) -> u64;
    /// Stage: [`crate::modbus::last::keep_register`].
    fn keep_register(&mut self, register: u32, interval: u32) -> u64;
    /// Stage: [`crate::modbus::last::confirm_register`].
    fn confirm_register(&mut self, register: u32) -> u32;
    /// Stage: [`crate::modbus::last::confirm`].
    fn confirm_written(&mut self, sequence: u32);
    /// Stage: [`crate::modbus::coils::check_coils`].
    fn check_coils(&mut self, sequence: u32) -> u32;
    /// Stage: [`crate::modbus::coils::check_coil_run`].
    fn check_coil_run(&mut self, coil: u32, interval: u32) -> u64;
    /// Stage: [`crate::modbus::coils::are_coils`].
    fn are_coils(&mut self, at: u32, first_count: u32, value: u32) -> bool;
    /// Stage: [`crate::modbus::written::check_value`].
    fn check_value(&mut self, limits: u32, register: u32, raw: u32) -> u32;
    /// Stage: [`crate::modbus::last::keep`].
    fn keep_written(&mut self, write: u32) -> bool;
    /// Stage: [`crate::modbus::outstanding::split`].
    fn split(&mut self, data_end: u32, adu_start: u32) -> u32;
    /// Stage: [`crate::modbus::files::check`].
    fn check_files(&mut self, sequence: u32) -> u32;
    /// Stage: [`crate::modbus::files::check_file`].
    fn check_file(&mut self, at: u32, is_first: u32) -> u64;
    /// Stage: [`crate::modbus::find_interval`]; index within the slot plus 1, or 0.
    fn find_interval(&mut self, first: u32, count: u32, operand: u32) -> u32;
    /// Stage: [`crate::modbus::accept`].
    fn accept_adu(&mut self, sequence: u32, bytes: u32) -> u32;
    /// Stage: [`crate::modbus::outstanding::find_place`].
    fn find_request_place(&mut self, limit: u32) -> u32;
    /// Stage: [`crate::modbus::outstanding::ends`].
    fn request_ends(&mut self, row: u32, data_end: u32) -> u32;
    /// Stage: [`crate::modbus::outstanding::before`].
    fn request_before(&mut self, row: u32, start: u32) -> u32;
    /// Stage: [`crate::modbus::outstanding::doubts`].
    fn request_doubts(&mut self, row: u32, answered: u32, start: u32) -> u32;
    /// Stage: [`crate::modbus::outstanding::take_back`].
    fn take_requests_back(&mut self, sequence: u32);
    /// Stage: [`crate::modbus::outstanding::neutralise`].
    fn neutralise_adu(&mut self, sequence: u32, bytes: u32, reason: u32) -> bool;
    /// Stage: [`crate::replies::inspect`].
    fn inspect_reply(&mut self, packet: &Packet, place: u32) -> Judgement;
    /// Stage: [`crate::modbus::reply::judge`] on the frame's bytes.
    fn judge_reply(&mut self, at: u32, bytes: u32, sequence: u32) -> u64;
    /// Stage: [`crate::modbus::reply::go_on`].
    fn judge_split_reply(&mut self, at: u32, bytes: u32, had: u32) -> u64;
    /// Stage: [`crate::adopt::adopt`].
    fn adopt(&mut self, packet: &Packet, place: u32) -> Judgement;
    /// Stage: [`crate::adopt::adopted`].
    fn adopted(&mut self, packet: &Packet, place: u32, judgement: Judgement) -> Judgement;
    /// Stage: [`crate::wire::tcp::window_shift`].
    fn window_shift(&self, packet: &Packet) -> u32;
    /// Stage: [`crate::classify::find_service`]; index within the slot plus 1, or 0.
    fn find_service(&mut self, from: u32, to: u32, transport_port: u32) -> u32;
    /// Stage: [`crate::flow::store::insert`]; place plus 1, or 0.
    fn insert(&mut self, packet: &Packet, table: FlowTable) -> u32;
    /// Stage: [`crate::flow::store::claim`].
    fn claim(&mut self, table: FlowTable, first: u32, second: u32) -> u32;
}
