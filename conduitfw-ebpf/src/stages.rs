//! The stages that the verifier judges one by one: BTF global functions of scalars and the
//! context. Each finds what the frame has left so far in the workspace. A stage that does not read the
//! frame does not take the context: LLVM would pass whatever is in the register.

use aya_ebpf::bindings::xdp_md;
use conduitfw_common::{
    Reason, admit as long_way, adopt as picked_up,
    bytes::ByteSource,
    classify, edit,
    flow::entry::{HISTORY_BYTES, Stream},
    flow::store,
    inspect as stream,
    judgement::Judgement,
    modbus::{
        self, coils, files, last, outstanding, plain, plain_replies, reply, request, written,
    },
    packet::{self, Packet},
    platform::{FlowTable, Platform},
    replies,
    reset::MAX_SUM_BYTES,
    settle as known, wire,
};

use crate::{
    atomic,
    frame::Frame,
    history::{self, History},
    kernel::Kernel,
    maps::{self, Scratch},
    trace,
    verifier::masked,
};

/// The kernel and the stream of the flow at hand, for a stage that does not read the frame. One after
/// the other: of two looked up together LLVM does arithmetic on the one before it is known to exist
/// ("R1 pointer arithmetic on `map_value_or_null` prohibited", Linux 6.1 and 6.12).
#[inline(always)]
fn at_hand() -> Option<(Kernel, &'static mut Stream)> {
    let (kernel, _) = Kernel::new(Frame::ABSENT)?;
    let stream = maps::stream(kernel.seen().stream)?;
    Some((kernel, stream))
}

/// The kernel and the packet for a stage that is given where they are: one that is on the way of most
/// frames. The verifier wants to see that the pointer is one.
#[inline(always)]
fn given(context: *mut xdp_md, scratch: *mut Scratch) -> Option<(Kernel, &'static mut Packet)> {
    Some(Kernel::over(
        Frame::new(context),
        maps::scratch_at(scratch)?,
    ))
}

/// What a stage answers when there is no workspace, which cannot be.
const NOTHING: u64 = Judgement::deny(Reason::FlowBusy, 0).to_bits();

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_as_far_as_it_goes(context: *mut xdp_md) -> u32 {
    if let Some((kernel, packet)) = Kernel::new(Frame::new(context)) {
        packet::read_as_far_as_it_goes(&kernel, kernel.frame_bytes(), packet);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn admit(context: *mut xdp_md) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => long_way::admit(&mut kernel, packet).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn opened(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => long_way::opened(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn icmp_error(context: *mut xdp_md) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => long_way::icmp_error(&mut kernel, packet).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn settle(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => known::settle(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn doubt(place: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, packet)) => u32::from(known::doubt(&mut kernel, packet, place)),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn establish(
    context: *mut xdp_md,
    opening_place: u32,
    place: u32,
    reply: u32,
) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => {
            long_way::establish(&mut kernel, packet, opening_place, place, reply != 0).to_bits()
        }
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn inspect(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => stream::inspect(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn inspect_reply(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => replies::inspect(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_reply(
    context: *mut xdp_md,
    at: u32,
    bytes: u32,
    sequence: u32,
) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, _)) => reply::judge(&mut kernel, at, bytes, sequence).to_bits(),
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_split_reply(
    context: *mut xdp_md,
    at: u32,
    bytes: u32,
    had: u32,
) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, _)) => reply::go_on(&mut kernel, at, bytes, had).to_bits(),
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

/// Tells whoever follows of the operation in the workspace; by itself, for the stack of the stages that
/// judge is short.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn trace_judged(reason: u32) -> u32 {
    if let Some((kernel, _)) = Kernel::new(Frame::ABSENT) {
        trace::judged(&kernel.seen().operation, reason as u8);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_plain(
    context: *mut xdp_md,
    scratch: *mut Scratch,
    place: u32,
    slot: u32,
) -> u64 {
    match given(context, scratch) {
        Some((mut kernel, packet)) => plain::judge(&mut kernel, packet, place, slot).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_plain(unit: u32, function: u32, address: u32) -> u64 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => {
            plain::find(&mut kernel, unit as u8, function as u8, address as u16)
        }
        None => 1,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_plain_replies(
    context: *mut xdp_md,
    scratch: *mut Scratch,
    place: u32,
) -> u64 {
    match given(context, scratch) {
        Some((mut kernel, packet)) => plain_replies::judge(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_adu(sequence: u32, bytes: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            request::judge_adu(&mut kernel, &History(stream), sequence, bytes).to_bits()
        }
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

/// What a stage answers for a request when there is no workspace or no stream, which cannot be.
const UNREADABLE: u32 = Reason::TruncatedFrame as u32;

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_registers(sequence: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            written::check_registers(&mut kernel, &History(stream), sequence)
        }
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_register(register: u32, interval: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            written::check_register(&mut kernel, &History(stream), register, interval)
        }
        None => u64::from(UNREADABLE),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn keep_register(register: u32, interval: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            last::keep_register(&mut kernel, &History(stream), register, interval)
        }
        None => u64::from(UNREADABLE),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn confirm_register(register: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            last::confirm_register(&mut kernel, &History(stream), register)
        }
        None => 1,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_coils(sequence: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => coils::check_coils(&mut kernel, &History(stream), sequence),
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn are_coils(at: u32, first_count: u32, value: u32) -> u32 {
    match at_hand() {
        Some((_, stream)) => u32::from(coils::are_coils(&History(stream), at, first_count, value)),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_value(limits: u32, register: u32, raw: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => written::check_value(&mut kernel, limits, register, raw),
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn keep_written(write: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => u32::from(last::keep(&mut kernel, &History(stream), write)),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn split(data_end: u32, adu_start: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::split(&mut kernel, data_end, adu_start),
        None => u32::MAX,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn confirm_written(sequence: u32) -> u32 {
    if let Some((mut kernel, stream)) = at_hand() {
        last::confirm(&mut kernel, &History(stream), sequence);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_files(sequence: u32) -> u32 {
    match at_hand() {
        Some((mut kernel, stream)) => files::check(&mut kernel, &History(stream), sequence),
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_file(at: u32, is_first: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            files::check_file(&mut kernel, &History(stream), at, is_first != 0).to_bits()
        }
        None => modbus::Judged::UNREADABLE.to_bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_coil_run(coil: u32, interval: u32) -> u64 {
    match at_hand() {
        Some((mut kernel, stream)) => {
            coils::check_coil_run(&mut kernel, &History(stream), coil, interval)
        }
        None => u64::from(UNREADABLE),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_interval(first: u32, count: u32, operand: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((kernel, _)) => modbus::find_interval(&kernel, first, count, operand),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn accept_adu(sequence: u32, bytes: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => request::accept_adu(&mut kernel, sequence, bytes),
        None => UNREADABLE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_request_place(limit: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::find_place(&mut kernel, limit),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn request_ends(row: u32, data_end: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::ends(&mut kernel, row, data_end),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn request_before(row: u32, start: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::before(&mut kernel, row, start),
        None => u32::MAX,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn request_doubts(row: u32, answered: u32, start: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => outstanding::doubts(&mut kernel, row, answered, start),
        None => 1,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_requests_back(sequence: u32) -> u32 {
    if let Some((mut kernel, _)) = Kernel::new(Frame::ABSENT) {
        outstanding::take_back(&mut kernel, sequence);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn neutralise_adu(sequence: u32, bytes: u32, reason: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => u32::from(outstanding::neutralise(
            &mut kernel,
            sequence,
            bytes,
            reason,
        )),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn adopt(context: *mut xdp_md, place: u32) -> u64 {
    match Kernel::new(Frame::new(context)) {
        Some((mut kernel, packet)) => picked_up::adopt(&mut kernel, packet, place).to_bits(),
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn adopted(place: u32, judgement: u64) -> u64 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, packet)) => {
            let judgement = Judgement::from_bits(judgement);
            picked_up::adopted(&mut kernel, packet, place, judgement).to_bits()
        }
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn window_shift(context: *mut xdp_md, at: u32, end: u32) -> u32 {
    wire::tcp::window_shift(&Frame::new(context), at, end)
}

const MAX_SUM_WORDS: u32 = MAX_SUM_BYTES / 4;

/// The ones' complement sum of bytes of the frame as 16-bit words, folded; all ones when they are too
/// many or not there.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn sum(context: *mut xdp_md, at: u32, bytes: u32) -> u32 {
    let frame = Frame::new(context);
    if bytes > MAX_SUM_BYTES || at > 0x7fff {
        return u32::MAX;
    }
    let mut sum = 0_u64;
    for word in 0..MAX_SUM_WORDS {
        let offset = word * 4;
        if offset + 4 > bytes {
            break;
        }
        let Ok(value) = frame.u32(at + offset) else {
            return u32::MAX;
        };
        sum += u64::from(value);
    }
    let whole = bytes & !3;
    for rest in 0..3 {
        if whole + rest >= bytes {
            break;
        }
        let Ok(byte) = frame.u8(at + whole + rest) else {
            return u32::MAX;
        };
        sum += u64::from(byte) << (8 * ((rest & 1) ^ 1));
    }
    for _ in 0..4 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u32 & 0xffff
}

/// Changes what the frame holds of one request of the stream at hand; answers what the checksum
/// changes by, or all ones when the frame cannot be changed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn edit_row(context: *mut xdp_md, row: u32, is_reply: u32) -> u32 {
    let mut frame = Frame::new(context);
    let Some((kernel, packet)) = Kernel::new(frame) else {
        return u32::MAX;
    };
    let Some(stream) = maps::stream(kernel.seen().stream) else {
        return u32::MAX;
    };
    let Some(request) = stream.outstanding.get(row as usize & 15) else {
        return u32::MAX;
    };
    edit::row(&mut frame, packet, request, is_reply != 0).unwrap_or(u32::MAX)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_service(from: u32, to: u32, transport_port: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((kernel, _)) => classify::find_service(&kernel, from, to, transport_port),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn insert_flow() -> u32 {
    insert(FlowTable::Flows)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn insert_opening() -> u32 {
    insert(FlowTable::Openings)
}

#[inline(always)]
fn insert(table: FlowTable) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, packet)) => store::insert(&mut kernel, packet, table),
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn claim(table: u32, first: u32, second: u32) -> u32 {
    match Kernel::new(Frame::ABSENT) {
        Some((mut kernel, _)) => store::claim(&mut kernel, table_from(table), first, second),
        None => 0,
    }
}

/// Answers the number of a reason, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn check_ipv4_options(
    context: *mut xdp_md,
    network_at: u32,
    header_bytes: u32,
) -> u32 {
    match wire::ipv4::check_options(&Frame::new(context), network_at, header_bytes) {
        Ok(()) => 0,
        Err(reason) => u32::from(reason.number()),
    }
}

#[inline(always)]
fn table_from(number: u32) -> FlowTable {
    if number == FlowTable::Flows as u32 {
        FlowTable::Flows
    } else {
        FlowTable::Openings
    }
}

/// Waits for the lock of a flow that another processor holds. In two stages, for the verifier takes
/// every look of a loop for itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_for_flow(table: u32, place: u32) -> u32 {
    for _ in 0..atomic::WAITS {
        if wait_a_little_for_flow(table, place) != 0 {
            return 1;
        }
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_a_little_for_flow(table: u32, place: u32) -> u32 {
    match maps::flow_pointer(table_from(table), place) {
        Some(pointer) => u32::from(atomic::wait(maps::lock_of(pointer))),
        None => 0,
    }
}

/// Waits for the lock of a bucket that another processor holds.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_for_bucket(table: u32, place: u32) -> u32 {
    for _ in 0..atomic::WAITS {
        if wait_a_little_for_bucket(table, place) != 0 {
            return 1;
        }
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn wait_a_little_for_bucket(table: u32, place: u32) -> u32 {
    match maps::tag(table_from(table), place) {
        Some(pointer) => u32::from(atomic::wait(pointer)),
        None => 0,
    }
}

/// Copies bytes of the frame into a stream's history. `at_bytes` holds the offset in the upper
/// half and the number of bytes in the lower.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn remember(
    context: *mut xdp_md,
    stream: u32,
    sequence: u32,
    at_bytes: u32,
) -> u32 {
    let frame = Frame::new(context);
    let Some(stream) = maps::stream(stream) else {
        return 0;
    };
    let (at, bytes) = (at_bytes >> 16, at_bytes & 0xffff);
    if bytes > HISTORY_BYTES {
        return 0;
    }
    for word in 0..HISTORY_BYTES / 8 {
        let offset = word * 8;
        if offset + 8 > bytes {
            break;
        }
        let Ok(value) = frame.word(at + offset) else {
            return 0;
        };
        history::store(stream, sequence.wrapping_add(offset), value);
    }
    if bytes >= 8 {
        // The rest, with the end of what was stored already.
        let offset = masked(bytes - 8, HISTORY_BYTES * 2 - 1);
        return match frame.word(at + offset) {
            Ok(value) => {
                history::store(stream, sequence.wrapping_add(offset), value);
                1
            }
            Err(_) => 0,
        };
    }
    for rest in 0..7 {
        if rest >= bytes {
            break;
        }
        let Ok(byte) = frame.u8(at + rest) else {
            return 0;
        };
        history::store_byte(stream, sequence.wrapping_add(rest), byte);
    }
    1
}

/// Whether the history holds the same bytes as the frame; arguments as for [`remember`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn repeats(
    context: *mut xdp_md,
    stream: u32,
    sequence: u32,
    at_bytes: u32,
) -> u32 {
    let frame = Frame::new(context);
    let Some(stream) = maps::stream(stream) else {
        return 0;
    };
    let (at, bytes) = (at_bytes >> 16, at_bytes & 0xffff);
    if bytes > HISTORY_BYTES {
        return 0;
    }
    for word in 0..HISTORY_BYTES / 8 {
        let offset = word * 8;
        if offset + 8 > bytes {
            break;
        }
        let Ok(value) = frame.word(at + offset) else {
            return 0;
        };
        if history::load(stream, sequence.wrapping_add(offset)) != value {
            return 0;
        }
    }
    let whole = bytes & !7;
    for rest in 0..7 {
        if whole + rest >= bytes {
            break;
        }
        let Ok(byte) = frame.u8(at + whole + rest) else {
            return 0;
        };
        if history::load_byte(stream, sequence.wrapping_add(whole + rest)) != byte {
            return 0;
        }
    }
    1
}
