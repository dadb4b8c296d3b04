//! The world as the kernel offers it: [`Platform`] over maps, helpers and the frame.

use aya_ebpf::helpers::bpf_jiffies64;
use conduitfw_common::{
    bytes::{ByteSource, Truncated},
    flow::entry::{FlowEntry, HISTORY_BYTES, Stream},
    flow::key::WAYS,
    judgement::Judgement,
    platform::{FlowTable, Platform, Workspace},
    table::{
        Address, Conduit, Generation, Interface, InterfaceKey, Interval, Network, Operation, Pair,
        PairKey, Service, Settings,
    },
};

use crate::{atomic, frame::Frame, maps, stages};

/// The kernel, while it judges one frame.
pub(crate) struct Kernel {
    pub(crate) frame: Frame,
    workspace: &'static mut Workspace,
}

impl Kernel {
    #[inline(always)]
    pub(crate) fn new(frame: Frame) -> Option<Self> {
        maps::workspace().map(|workspace| Self { frame, workspace })
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
}

/// A stream's history as a source of bytes; offsets are sequence numbers.
pub(crate) struct History(pub(crate) &'static Stream);

impl ByteSource for History {
    #[inline(always)]
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        Ok(self.0.history[(at & (HISTORY_BYTES - 1)) as usize])
    }

    #[inline(always)]
    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes([self.u8(at)?, self.u8(at.wrapping_add(1))?]))
    }

    #[inline(always)]
    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        Ok(u32::from(self.u16(at)?) << 16 | u32::from(self.u16(at.wrapping_add(2))?))
    }

    #[inline(always)]
    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        Ok(u64::from(self.u32(at)?) << 32 | u64::from(self.u32(at.wrapping_add(4))?))
    }

    #[inline(always)]
    fn address(&self, _at: u32) -> Result<Address, Truncated> {
        Err(Truncated)
    }
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
        // SAFETY: the helper has no arguments and no conditions.
        unsafe { bpf_jiffies64() }
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
        maps::settings()
    }

    #[inline(always)]
    fn active_slot(&self) -> u32 {
        maps::active_slot()
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
    fn count_rule(&mut self, rule: u16) {
        maps::count_rule(rule);
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

    #[inline(always)]
    fn lock_flow(&mut self, table: FlowTable, place: u32) -> bool {
        match maps::flow_pointer(table, place) {
            Some(pointer) => atomic::lock(maps::lock_of(pointer)),
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
            Some(pointer) => atomic::lock(pointer),
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
        stages::remember(self.frame.context(), stream, sequence, (at << 16) | bytes) != 0
    }

    #[inline(always)]
    fn repeats(&mut self, stream: u32, sequence: u32, at: u32, bytes: u32) -> bool {
        stages::repeats(self.frame.context(), stream, sequence, (at << 16) | bytes) != 0
    }

    #[inline(always)]
    fn admit(&mut self) -> Judgement {
        Judgement::from_bits(stages::admit(self.frame.context()))
    }

    #[inline(always)]
    fn settle(&mut self, place: u32, reply: bool) -> Judgement {
        Judgement::from_bits(stages::settle(self.frame.context(), place, u32::from(reply)))
    }

    #[inline(always)]
    fn inspect(&mut self, place: u32) -> Judgement {
        Judgement::from_bits(stages::inspect(self.frame.context(), place))
    }

    #[inline(always)]
    fn judge_adu(&mut self, at: u32, bytes: u32, rule_set: u32) -> u64 {
        stages::judge_adu(self.frame.context(), at, bytes, rule_set)
    }

    #[inline(always)]
    fn judge_remembered_adu(
        &mut self,
        stream: u32,
        sequence: u32,
        bytes: u32,
        rule_set: u32,
    ) -> u64 {
        stages::judge_remembered_adu(self.frame.context(), stream, sequence, bytes, rule_set)
    }

    #[inline(always)]
    fn find_service(&mut self, from: u32, to: u32, transport_port: u32) -> u32 {
        stages::find_service(self.frame.context(), from, to, transport_port)
    }

    #[inline(always)]
    fn insert(&mut self, table: FlowTable) -> u32 {
        match table {
            FlowTable::Flows => stages::insert_flow(self.frame.context()),
            FlowTable::Openings => stages::insert_opening(self.frame.context()),
        }
    }
}
