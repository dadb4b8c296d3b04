//! The world as the kernel offers it: [`Platform`] over maps, helpers and the frame.

use aya_ebpf::helpers::bpf_jiffies64;
use conduitfw_common::{
    Reason,
    bytes::{ByteSource, Header, Headers, Truncated},
    flow::entry::{FlowEntry, Stream},
    flow::key::WAYS,
    judgement::Judgement,
    packet::Packet,
    platform::{FlowTable, Platform, Workspace},
    table::{
        Active, Address, Conduit, Generation, Interface, InterfaceKey, Interval, LastValue, Limits,
        Network, Operation, Pair, PairKey, RegisterKey, Service, Settings, ValueRange,
    },
    wire,
};

use crate::{
    atomic, forward,
    frame::Frame,
    history,
    maps::{self, Scratch},
    stages, trace,
    verifier::hidden_reference,
};

/// The kernel, while it judges one frame.
pub(crate) struct Kernel {
    pub(crate) frame: Frame,
    workspace: &'static mut Workspace,
    /// What is in force, where it has been looked up already.
    active: Option<&'static Active>,
}

impl Kernel {
    #[inline(always)]
    pub(crate) fn new(frame: Frame) -> Option<(Self, &'static mut Packet)> {
        Some(Self::over(frame, maps::scratch()?))
    }

    /// The same for a stage that is given what the frame has left so far.
    #[inline(always)]
    pub(crate) fn over(frame: Frame, scratch: &'static mut Scratch) -> (Self, &'static mut Packet) {
        let kernel = Self {
            frame,
            workspace: &mut scratch.workspace,
            active: None,
        };
        (kernel, &mut scratch.packet)
    }

    /// The same for who has looked up what is in force.
    #[inline(always)]
    pub(crate) const fn knowing(mut self, active: &'static Active) -> Self {
        self.active = Some(active);
        self
    }
}

impl ByteSource for Kernel {
    #[inline(always)]
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        self.frame.u8(at)
    }

    #[inline(always)]
    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        self.frame.u16(at)
    }

    #[inline(always)]
    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        self.frame.u32(at)
    }

    #[inline(always)]
    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        self.frame.u64(at)
    }

    #[inline(always)]
    fn address(&self, at: u32) -> Result<Address, Truncated> {
        self.frame.address(at)
    }

    #[inline(always)]
    fn within(&self, number: u32, mask: u32) -> u32 {
        self.frame.within(number, mask)
    }

    #[inline(always)]
    fn check_ipv4_options(&self, network_at: u32, header_bytes: u32) -> Result<(), Reason> {
        let number =
            stages::bytes::check_ipv4_options(self.frame.context(), network_at, header_bytes) as u8;
        Reason::from_number(number).map_or(Ok(()), Err)
    }
}

impl Headers for Kernel {
    #[inline(always)]
    fn header<T: Header>(&self, at: u32) -> Result<&T, Truncated> {
        self.frame.header(at)
    }
}

/// The tick counter, or what the measured world says.
#[inline(always)]
pub(crate) fn now_ticks() -> u64 {
    if trace::is_on() {
        return trace::now_ticks();
    }
    // SAFETY: the helper has no arguments and no conditions.
    unsafe { bpf_jiffies64() }
}

impl Platform for Kernel {
    #[inline(always)]
    fn frame_bytes(&self) -> u32 {
        self.frame.bytes()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.frame.ifindex()
    }

    #[inline(always)]
    fn now_ticks(&self) -> u64 {
        now_ticks()
    }

    #[inline(always)]
    fn workspace(&mut self) -> &mut Workspace {
        self.workspace
    }

    #[inline(always)]
    fn seen(&self) -> &Workspace {
        self.workspace
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        match self.active {
            Some(active) => Some(&active.settings),
            None => maps::settings(),
        }
    }

    #[inline(always)]
    fn generation_number(&self, slot: u32) -> u32 {
        match self.active {
            Some(active) => maps::number_of(active, slot),
            None => maps::generation(slot).map_or(0, |generation| generation.number),
        }
    }

    #[inline(always)]
    fn generation(&self, slot: u32) -> Option<&Generation> {
        maps::generation(slot)
    }

    #[inline(always)]
    fn interface(&self, key: &InterfaceKey) -> Option<Interface> {
        maps::interface(key)
    }

    #[inline(always)]
    fn network(&self, slot: u32, address: &Address) -> Option<Network> {
        maps::network(slot, address)
    }

    #[inline(always)]
    fn pair(&self, key: &PairKey) -> Option<Pair> {
        maps::pair(key)
    }

    #[inline(always)]
    fn service(&self, slot: u32, index: u32) -> Option<Service> {
        maps::service(slot, index)
    }

    #[inline(always)]
    fn conduit(&self, slot: u32, id: u16) -> Option<Conduit> {
        maps::conduit(slot, id)
    }

    #[inline(always)]
    fn operation_row(&self, slot: u32, rule_set: u16, unit: u8) -> u16 {
        maps::operation_row(slot, rule_set, unit)
    }

    #[inline(always)]
    fn operation(&self, slot: u32, row: u16, function: u8) -> Option<Operation> {
        maps::operation(slot, row, function)
    }

    #[inline(always)]
    fn interval(&self, slot: u32, index: u32) -> Option<Interval> {
        maps::interval(slot, index)
    }

    #[inline(always)]
    fn page(&self, slot: u32, row: u32, operand: u8) -> u16 {
        maps::page(slot, row, operand)
    }

    #[inline(always)]
    fn limits(&self, slot: u32, index: u16) -> Option<Limits> {
        maps::limits(slot, index)
    }

    #[inline(always)]
    fn value_range(&self, slot: u32, index: u32) -> Option<ValueRange> {
        maps::value_range(slot, index)
    }

    #[inline(always)]
    fn last_value(&self, key: &RegisterKey) -> Option<LastValue> {
        maps::last_value(key)
    }

    #[inline(always)]
    fn set_last_value(&mut self, key: &RegisterKey, value: &LastValue) -> bool {
        maps::set_last_value(key, value)
    }

    #[inline(always)]
    fn rule_rate(&self, rule: u16) -> u64 {
        maps::rule_rate(rule)
    }

    #[inline(always)]
    fn replace_rule_rate(&mut self, rule: u16, old: u64, new: u64) -> bool {
        maps::replace_rule_rate(rule, old, new)
    }

    #[inline(always)]
    fn count_response(&mut self, conduit: u16, bucket: u32) {
        maps::count_response(conduit, bucket);
    }

    #[inline(always)]
    fn is_followed(&self) -> bool {
        trace::is_on()
    }

    #[inline(always)]
    fn judged(&mut self, reason: u8) {
        if trace::is_on() {
            stages::modbus::trace_judged(u32::from(reason));
        }
    }

    #[inline(always)]
    fn count_rule(&mut self, rule: u16, operations: u32) {
        maps::count_rule(rule, operations);
    }

    #[inline(always)]
    fn rate(&self, conduit: u16) -> u64 {
        maps::rate(conduit)
    }

    #[inline(always)]
    fn replace_rate(&mut self, conduit: u16, old: u64, new: u64) -> bool {
        maps::replace_rate(conduit, old, new)
    }

    #[inline(always)]
    fn again<'a>(&self, packet: &'a Packet) -> &'a Packet {
        hidden_reference(packet)
    }

    #[inline(always)]
    fn bucket(&self, table: FlowTable, bucket: u32) -> Option<&[u32; 8]> {
        maps::bucket(table, bucket)
    }

    #[inline(always)]
    fn replace_tag(&mut self, table: FlowTable, place: u32, old: u32, new: u32) -> bool {
        match maps::tag(table, place) {
            Some(pointer) => atomic::replace(pointer, old, new),
            None => false,
        }
    }

    #[inline(always)]
    fn flow(&mut self, table: FlowTable, place: u32) -> Option<&mut FlowEntry> {
        maps::flow(table, place)
    }

    #[inline(always)]
    fn flow_seen(&self, table: FlowTable, place: u32) -> Option<&FlowEntry> {
        maps::flow(table, place).map(|entry| &*entry)
    }

    type FlowPointer = *mut FlowEntry;

    #[inline(always)]
    fn flow_pointer(&mut self, place: u32) -> Option<*mut FlowEntry> {
        maps::flow_pointer(FlowTable::Flows, place)
    }

    #[inline(always)]
    fn flow_glimpsed(&self, pointer: *mut FlowEntry) -> Option<&FlowEntry> {
        Some(maps::glimpsed_flow(pointer))
    }

    #[inline(always)]
    fn hold_flow_at_once(&mut self, pointer: *mut FlowEntry) -> Option<&mut FlowEntry> {
        if atomic::try_lock(maps::lock_of(pointer)) {
            Some(maps::held_flow(pointer))
        } else {
            None
        }
    }

    #[inline(always)]
    fn hold_flow(&mut self, pointer: *mut FlowEntry, place: u32) -> Option<&mut FlowEntry> {
        let is_held = atomic::try_lock(maps::lock_of(pointer))
            || stages::flows::wait_for_flow(FlowTable::Flows as u32, place) != 0;
        if is_held {
            Some(maps::held_flow(pointer))
        } else {
            None
        }
    }

    #[inline(always)]
    fn flow_at(&mut self, pointer: *mut FlowEntry) -> Option<&mut FlowEntry> {
        Some(maps::held_flow(pointer))
    }

    type StreamPointer = *mut Stream;

    #[inline(always)]
    fn stream_pointer(&mut self, index: u32) -> Option<*mut Stream> {
        maps::stream_pointer(index)
    }

    #[inline(always)]
    fn stream_at(&mut self, pointer: *mut Stream) -> Option<&mut Stream> {
        Some(maps::held_stream(pointer))
    }

    #[inline(always)]
    fn let_go(entry: &mut FlowEntry) {
        atomic::unlock(&raw mut entry.lock);
    }

    #[inline(always)]
    fn lock_flow(&mut self, table: FlowTable, place: u32) -> bool {
        match maps::flow_pointer(table, place) {
            Some(pointer) => {
                atomic::try_lock(maps::lock_of(pointer))
                    || stages::flows::wait_for_flow(table as u32, place) != 0
            }
            None => false,
        }
    }

    #[inline(always)]
    fn unlock_flow(&mut self, table: FlowTable, place: u32) {
        if let Some(pointer) = maps::flow_pointer(table, place) {
            atomic::unlock(maps::lock_of(pointer));
        }
    }

    #[inline(always)]
    fn lock_bucket(&mut self, table: FlowTable, bucket: u32) -> bool {
        match maps::tag(table, bucket.wrapping_mul(WAYS)) {
            Some(pointer) => {
                atomic::try_lock(pointer)
                    || stages::flows::wait_for_bucket(table as u32, bucket.wrapping_mul(WAYS)) != 0
            }
            None => false,
        }
    }

    #[inline(always)]
    fn unlock_bucket(&mut self, table: FlowTable, bucket: u32) {
        if let Some(pointer) = maps::tag(table, bucket.wrapping_mul(WAYS)) {
            atomic::unlock(pointer);
        }
    }

    #[inline(always)]
    fn stream(&mut self, index: u32) -> Option<&mut Stream> {
        maps::stream(index)
    }

    #[inline(always)]
    fn replace_owner(&mut self, index: u32, old: u32, new: u32) -> bool {
        match maps::stream(index) {
            Some(stream) => atomic::replace(&raw mut stream.owner, old, new),
            None => false,
        }
    }

    #[inline(always)]
    fn remember(&mut self, stream: u32, sequence: u32, at: u32, bytes: u32) -> bool {
        stages::bytes::remember(self.frame.context(), stream, sequence, (at << 16) | bytes) != 0
    }

    #[inline(always)]
    fn keep_twelve(stream: &mut Stream, sequence: u32, head: u64, rest: u32) {
        history::store_twelve(stream, sequence, head, rest);
    }

    #[inline(always)]
    fn repeats(&mut self, stream: u32, sequence: u32, at: u32, bytes: u32) -> bool {
        stages::bytes::repeats(self.frame.context(), stream, sequence, (at << 16) | bytes) != 0
    }

    #[inline(always)]
    fn link_flags(&self, slot: u32) -> u32 {
        maps::port(slot, self.frame.ifindex()).map_or(0, |port| port.flags)
    }

    #[inline(always)]
    fn judge_link(&mut self, _packet: &Packet) -> Judgement {
        Judgement::from_bits(forward::judge_link(self.frame.context()))
    }

    #[inline(always)]
    fn read_as_far_as_it_goes(&mut self, _packet: &mut Packet) {
        stages::bytes::read_as_far_as_it_goes(self.frame.context());
    }

    #[inline(always)]
    fn admit(&mut self, _packet: &Packet) -> Judgement {
        Judgement::from_bits(stages::flows::admit(self.frame.context()))
    }

    #[inline(always)]
    fn opened(&mut self, _packet: &Packet, place: u32) -> Judgement {
        Judgement::from_bits(stages::flows::opened(self.frame.context(), place))
    }

    #[inline(always)]
    fn icmp_error(&mut self, _packet: &Packet) -> Judgement {
        Judgement::from_bits(stages::flows::icmp_error(self.frame.context()))
    }

    #[inline(always)]
    fn settle(&mut self, _packet: &Packet, place: u32) -> Judgement {
        Judgement::from_bits(stages::flows::settle(self.frame.context(), place))
    }

    #[inline(always)]
    fn doubt(&mut self, _packet: &Packet, place: u32) -> bool {
        stages::flows::doubt(place) != 0
    }

    #[inline(always)]
    fn establish(
        &mut self,
        _packet: &Packet,
        opening_place: u32,
        place: u32,
        reply: bool,
    ) -> Judgement {
        let context = self.frame.context();
        Judgement::from_bits(stages::flows::establish(
            context,
            opening_place,
            place,
            u32::from(reply),
        ))
    }

    #[inline(always)]
    fn inspect(&mut self, _packet: &Packet, place: u32) -> Judgement {
        Judgement::from_bits(stages::modbus::inspect(self.frame.context(), place))
    }

    #[inline(always)]
    fn inspect_reply(&mut self, _packet: &Packet, place: u32) -> Judgement {
        Judgement::from_bits(stages::modbus::inspect_reply(self.frame.context(), place))
    }

    #[inline(always)]
    fn judge_reply(&mut self, at: u32, bytes: u32, sequence: u32) -> u64 {
        stages::modbus::judge_reply(self.frame.context(), at, bytes, sequence)
    }

    #[inline(always)]
    fn judge_split_reply(&mut self, at: u32, bytes: u32, had: u32) -> u64 {
        stages::modbus::judge_split_reply(self.frame.context(), at, bytes, had)
    }

    #[inline(always)]
    fn judge_plain(&mut self, packet: &Packet, place: u32, slot: u32) -> Judgement {
        let scratch = maps::scratch_of(packet);
        Judgement::from_bits(stages::modbus::judge_plain(
            self.frame.context(),
            scratch,
            place,
            slot,
        ))
    }

    #[inline(always)]
    fn find_plain(&mut self, unit: u8, function: u8, address: u16) -> u64 {
        stages::modbus::find_plain(u32::from(unit), u32::from(function), u32::from(address))
    }

    #[inline(always)]
    fn judge_plain_replies(&mut self, packet: &Packet, place: u32) -> Judgement {
        let scratch = maps::scratch_of(packet);
        Judgement::from_bits(stages::modbus::judge_plain_replies(
            self.frame.context(),
            scratch,
            place,
        ))
    }

    #[inline(always)]
    fn judge_adu(&mut self, sequence: u32, bytes: u32) -> u64 {
        stages::modbus::judge_adu(sequence, bytes)
    }

    #[inline(always)]
    fn check_registers(&mut self, sequence: u32) -> u32 {
        stages::modbus::check_registers(sequence)
    }

    #[inline(always)]
    fn check_register(&mut self, register: u32, interval: u32) -> u64 {
        stages::modbus::check_register(register, interval)
    }

    #[inline(always)]
    fn keep_register(&mut self, register: u32, interval: u32) -> u64 {
        stages::modbus::keep_register(register, interval)
    }

    #[inline(always)]
    fn confirm_register(&mut self, register: u32) -> u32 {
        stages::modbus::confirm_register(register)
    }

    #[inline(always)]
    fn confirm_written(&mut self, sequence: u32) {
        stages::modbus::confirm_written(sequence);
    }

    #[inline(always)]
    fn check_coils(&mut self, sequence: u32) -> u32 {
        stages::modbus::check_coils(sequence)
    }

    #[inline(always)]
    fn are_coils(&mut self, at: u32, first_count: u32, value: u32) -> bool {
        stages::modbus::are_coils(at, first_count, value) != 0
    }

    #[inline(always)]
    fn check_value(&mut self, limits: u32, register: u32, raw: u32) -> u32 {
        stages::modbus::check_value(limits, register, raw)
    }

    #[inline(always)]
    fn keep_written(&mut self, write: u32) -> bool {
        stages::modbus::keep_written(write) != 0
    }

    #[inline(always)]
    fn split(&mut self, data_end: u32, adu_start: u32) -> u32 {
        stages::requests::split(data_end, adu_start)
    }

    #[inline(always)]
    fn check_files(&mut self, sequence: u32) -> u32 {
        stages::modbus::check_files(sequence)
    }

    #[inline(always)]
    fn check_file(&mut self, at: u32, is_first: u32) -> u64 {
        stages::modbus::check_file(at, is_first)
    }

    #[inline(always)]
    fn check_coil_run(&mut self, coil: u32, interval: u32) -> u64 {
        stages::modbus::check_coil_run(coil, interval)
    }

    #[inline(always)]
    fn find_interval(&mut self, first: u32, count: u32, operand: u32) -> u32 {
        stages::modbus::find_interval(first, count, operand)
    }

    #[inline(always)]
    fn accept_adu(&mut self, sequence: u32, bytes: u32) -> u32 {
        stages::requests::accept_adu(sequence, bytes)
    }

    #[inline(always)]
    fn find_request_place(&mut self, limit: u32) -> u32 {
        stages::requests::find_request_place(limit)
    }

    #[inline(always)]
    fn request_ends(&mut self, row: u32, data_end: u32) -> u32 {
        stages::requests::request_ends(row, data_end)
    }

    #[inline(always)]
    fn request_before(&mut self, row: u32, start: u32) -> u32 {
        stages::requests::request_before(row, start)
    }

    #[inline(always)]
    fn request_doubts(&mut self, row: u32, answered: u32, start: u32) -> u32 {
        stages::requests::request_doubts(row, answered, start)
    }

    #[inline(always)]
    fn take_requests_back(&mut self, sequence: u32) {
        stages::requests::take_requests_back(sequence);
    }

    #[inline(always)]
    fn neutralise_adu(&mut self, sequence: u32, bytes: u32, reason: u32) -> bool {
        stages::requests::neutralise_adu(sequence, bytes, reason) != 0
    }

    #[inline(always)]
    fn adopt(&mut self, _packet: &Packet, place: u32) -> Judgement {
        Judgement::from_bits(stages::flows::adopt(self.frame.context(), place))
    }

    #[inline(always)]
    fn adopted(&mut self, _packet: &Packet, place: u32, judgement: Judgement) -> Judgement {
        Judgement::from_bits(stages::flows::adopted(place, judgement.to_bits()))
    }

    #[inline(always)]
    fn window_shift(&self, packet: &Packet) -> u32 {
        let at = packet.transport_at.wrapping_add(wire::tcp::HEADER_BYTES);
        stages::bytes::window_shift(self.frame.context(), at, packet.payload_at)
    }

    #[inline(always)]
    fn find_service(&mut self, from: u32, to: u32, transport_port: u32) -> u32 {
        stages::flows::find_service(from, to, transport_port)
    }

    #[inline(always)]
    fn insert(&mut self, _packet: &Packet, table: FlowTable) -> u32 {
        match table {
            FlowTable::Flows => stages::flows::insert_flow(),
            FlowTable::Openings => stages::flows::insert_opening(),
        }
    }

    #[inline(always)]
    fn claim(&mut self, table: FlowTable, first: u32, second: u32) -> u32 {
        stages::flows::claim(table as u32, first, second)
    }
}
