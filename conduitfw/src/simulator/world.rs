//! The world around a frame: each table and stage as the decision asks for it.

use conduitfw_common::{
    Reason, admit, adopt, classify,
    flow::entry::{FlowEntry, Stream},
    flow::key::WAYS,
    flow::store,
    forward, icmp_error, inspect,
    judgement::Judgement,
    modbus::{
        self, coils, files, last, outstanding, plain, plain_replies, reply, request, written,
    },
    packet::{self, Packet},
    platform::{FlowTable, Platform, Workspace},
    replies, settle,
    table::{
        Address, Conduit, Generation, Interface, InterfaceKey, Interval, LastValue, Limits,
        MAX_CONDUITS, MAX_INTERVALS, MAX_LAST_VALUES, MAX_LIMITS, MAX_OPERATION_ROWS, MAX_SERVICES,
        MAX_VALUE_RANGES, Network, Operation, Pair, PairKey, RegisterKey, Service, Settings,
        ValueRange,
    },
    wire,
};

use super::bytes::place_in_history;
use super::{Simulator, bits, masked, replace, row};

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

    fn generation_number(&self, slot: u32) -> u32 {
        self.generation(slot)
            .map_or(0, |generation| generation.number)
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

    fn page(&self, slot: u32, row: u32, operand: u8) -> u16 {
        let page = self.slot(slot).pages.get(row as usize);
        page.map_or(0, |page| page.intervals[usize::from(operand)])
    }

    fn limits(&self, slot: u32, index: u16) -> Option<Limits> {
        row(&self.slot(slot).limits, u32::from(index), MAX_LIMITS)
    }

    fn value_range(&self, slot: u32, index: u32) -> Option<ValueRange> {
        row(&self.slot(slot).value_ranges, index, MAX_VALUE_RANGES)
    }

    fn last_value(&self, key: &RegisterKey) -> Option<LastValue> {
        self.last_values.get(key).copied()
    }

    fn set_last_value(&mut self, key: &RegisterKey, value: &LastValue) -> bool {
        let has_room = self.last_values.len() < MAX_LAST_VALUES as usize;
        if has_room || self.last_values.contains_key(key) {
            self.last_values.insert(*key, *value);
            return true;
        }
        false
    }

    fn rule_rate(&self, rule: u16) -> u64 {
        self.rule_rates.get(usize::from(rule)).copied().unwrap_or(0)
    }

    fn replace_rule_rate(&mut self, rule: u16, old: u64, new: u64) -> bool {
        replace(self.rule_rates.get_mut(usize::from(rule)), &old, new)
    }

    fn count_response(&mut self, conduit: u16, bucket: u32) {
        let count = self.response_times.entry((conduit, bucket)).or_default();
        *count = count.saturating_add(1);
    }

    fn is_followed(&self) -> bool {
        true
    }

    fn judged(&mut self, reason: u8) {
        let operation = self.workspace.operation.told();
        self.operations
            .push((operation, Reason::from_number(reason)));
    }

    fn count_rule(&mut self, rule: u16, operations: u32) {
        if let Some(count) = self.rules.get_mut(usize::from(rule)) {
            *count += u64::from(operations);
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

    type FlowPointer = u32;

    fn flow_pointer(&mut self, place: u32) -> Option<u32> {
        self.flow(FlowTable::Flows, place).map(|_| place)
    }

    fn flow_glimpsed(&self, pointer: u32) -> Option<&FlowEntry> {
        self.flow_seen(FlowTable::Flows, pointer)
    }

    fn hold_flow(&mut self, pointer: u32, _place: u32) -> Option<&mut FlowEntry> {
        self.hold_flow_at_once(pointer)
    }

    fn hold_flow_at_once(&mut self, pointer: u32) -> Option<&mut FlowEntry> {
        let entry = self.flow(FlowTable::Flows, pointer)?;
        if entry.lock != 0 {
            return None;
        }
        entry.lock = 1;
        Some(entry)
    }

    fn flow_at(&mut self, pointer: u32) -> Option<&mut FlowEntry> {
        self.flow(FlowTable::Flows, pointer)
    }

    type StreamPointer = u32;

    fn stream_pointer(&mut self, index: u32) -> Option<u32> {
        self.stream(index).map(|_| index)
    }

    fn stream_at(&mut self, pointer: u32) -> Option<&mut Stream> {
        self.stream(pointer)
    }

    fn let_go(entry: &mut FlowEntry) {
        entry.lock = 0;
    }

    fn read_as_far_as_it_goes(&mut self, packet: &mut Packet) {
        packet::read_as_far_as_it_goes(self, self.frame_bytes(), packet);
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

    fn keep_twelve(stream: &mut Stream, sequence: u32, head: u64, rest: u32) {
        let bytes = head.to_ne_bytes().into_iter().chain(rest.to_ne_bytes());
        for (offset, byte) in (0..).zip(bytes) {
            let place = place_in_history(sequence.wrapping_add(offset));
            if let Some(kept) = stream.history.get_mut(place) {
                *kept = byte;
            }
        }
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

    fn link_flags(&self, slot: u32) -> u32 {
        let flags = &self.slot(slot).link_flags;
        flags.get(&self.ifindex).copied().unwrap_or(0)
    }

    fn judge_link(&mut self, packet: &Packet) -> Judgement {
        forward::judge_link(self, packet)
    }

    fn admit(&mut self, packet: &Packet) -> Judgement {
        admit::admit(self, packet)
    }

    fn opened(&mut self, packet: &Packet, place: u32) -> Judgement {
        admit::opened(self, packet, place)
    }

    fn icmp_error(&mut self, packet: &Packet) -> Judgement {
        icmp_error::judge(self, packet)
    }

    fn settle(&mut self, packet: &Packet, place: u32) -> Judgement {
        settle::settle(self, packet, place)
    }

    fn doubt(&mut self, packet: &Packet, place: u32) -> bool {
        settle::doubt(self, packet, place)
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

    fn inspect_reply(&mut self, packet: &Packet, place: u32) -> Judgement {
        replies::inspect(self, packet, place)
    }

    fn judge_reply(&mut self, at: u32, bytes: u32, sequence: u32) -> u64 {
        reply::judge(self, at, bytes, sequence).to_bits()
    }

    fn judge_split_reply(&mut self, at: u32, bytes: u32, had: u32) -> u64 {
        reply::go_on(self, at, bytes, had).to_bits()
    }

    fn judge_plain(&mut self, packet: &Packet, place: u32, slot: u32) -> Judgement {
        plain::judge(self, packet, place, slot)
    }

    fn find_plain(&mut self, unit: u8, function: u8, address: u16) -> u64 {
        plain::find(self, unit, function, address)
    }

    fn judge_plain_replies(&mut self, packet: &Packet, place: u32) -> Judgement {
        plain_replies::judge(self, packet, place)
    }

    fn judge_adu(&mut self, sequence: u32, bytes: u32) -> u64 {
        match self.history(self.workspace.stream) {
            Some(kept) => request::judge_adu(self, &kept, sequence, bytes).to_bits(),
            None => modbus::Judged::UNREADABLE.to_bits(),
        }
    }

    fn check_registers(&mut self, sequence: u32) -> u32 {
        match self.history(self.workspace.stream) {
            Some(kept) => written::check_registers(self, &kept, sequence),
            None => UNREADABLE,
        }
    }

    fn check_register(&mut self, register: u32, interval: u32) -> u64 {
        match self.history(self.workspace.stream) {
            Some(kept) => written::check_register(self, &kept, register, interval),
            None => u64::from(UNREADABLE),
        }
    }

    fn keep_register(&mut self, register: u32, interval: u32) -> u64 {
        match self.history(self.workspace.stream) {
            Some(kept) => last::keep_register(self, &kept, register, interval),
            None => u64::from(UNREADABLE),
        }
    }

    fn confirm_register(&mut self, register: u32) -> u32 {
        match self.history(self.workspace.stream) {
            Some(kept) => last::confirm_register(self, &kept, register),
            None => 1,
        }
    }

    fn confirm_written(&mut self, sequence: u32) {
        if let Some(kept) = self.history(self.workspace.stream) {
            last::confirm(self, &kept, sequence);
        }
    }

    fn check_coils(&mut self, sequence: u32) -> u32 {
        match self.history(self.workspace.stream) {
            Some(kept) => coils::check_coils(self, &kept, sequence),
            None => UNREADABLE,
        }
    }

    fn are_coils(&mut self, at: u32, first_count: u32, value: u32) -> bool {
        self.history(self.workspace.stream)
            .is_some_and(|kept| coils::are_coils(&kept, at, first_count, value))
    }

    fn check_value(&mut self, limits: u32, register: u32, raw: u32) -> u32 {
        written::check_value(self, limits, register, raw)
    }

    fn keep_written(&mut self, write: u32) -> bool {
        match self.history(self.workspace.stream) {
            Some(kept) => last::keep(self, &kept, write),
            None => false,
        }
    }

    fn split(&mut self, data_end: u32, adu_start: u32) -> u32 {
        outstanding::split(self, data_end, adu_start)
    }

    fn check_files(&mut self, sequence: u32) -> u32 {
        match self.history(self.workspace.stream) {
            Some(kept) => files::check(self, &kept, sequence),
            None => UNREADABLE,
        }
    }

    fn check_file(&mut self, at: u32, is_first: u32) -> u64 {
        match self.history(self.workspace.stream) {
            Some(kept) => files::check_file(self, &kept, at, is_first != 0).to_bits(),
            None => modbus::Judged::UNREADABLE.to_bits(),
        }
    }

    fn check_coil_run(&mut self, coil: u32, interval: u32) -> u64 {
        match self.history(self.workspace.stream) {
            Some(kept) => coils::check_coil_run(self, &kept, coil, interval),
            None => u64::from(UNREADABLE),
        }
    }

    fn find_interval(&mut self, first: u32, count: u32, operand: u32) -> u32 {
        modbus::find_interval(self, first, count, operand)
    }

    fn accept_adu(&mut self, sequence: u32, bytes: u32) -> u32 {
        request::accept_adu(self, sequence, bytes)
    }

    fn find_request_place(&mut self, limit: u32) -> u32 {
        outstanding::find_place(self, limit)
    }

    fn request_ends(&mut self, row: u32, data_end: u32) -> u32 {
        outstanding::ends(self, row, data_end)
    }

    fn request_before(&mut self, row: u32, start: u32) -> u32 {
        outstanding::before(self, row, start)
    }

    fn request_doubts(&mut self, row: u32, answered: u32, start: u32) -> u32 {
        outstanding::doubts(self, row, answered, start)
    }

    fn take_requests_back(&mut self, sequence: u32) {
        outstanding::take_back(self, sequence);
    }

    fn neutralise_adu(&mut self, sequence: u32, bytes: u32, reason: u32) -> bool {
        outstanding::neutralise(self, sequence, bytes, reason)
    }

    fn adopt(&mut self, packet: &Packet, place: u32) -> Judgement {
        adopt::adopt(self, packet, place)
    }

    fn adopted(&mut self, packet: &Packet, place: u32, judgement: Judgement) -> Judgement {
        adopt::adopted(self, packet, place, judgement)
    }

    fn window_shift(&self, packet: &Packet) -> u32 {
        let at = packet.transport_at.wrapping_add(wire::tcp::HEADER_BYTES);
        wire::tcp::window_shift(self, at, packet.payload_at)
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

/// What a stage answers for a request of a stream that does not exist.
const UNREADABLE: u32 = Reason::TruncatedFrame as u32;
