//! Stages that go through the bytes of a frame.

use aya_ebpf::bindings::xdp_md;
use conduitfw_common::{
    bytes::ByteSource, flow::entry::HISTORY_BYTES, packet, platform::Platform,
    reset::MAX_SUM_BYTES, wire,
};

use crate::{frame::Frame, history, kernel::Kernel, maps, verifier::masked};

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_as_far_as_it_goes(context: *mut xdp_md) -> u32 {
    if let Some((kernel, packet)) = Kernel::new(Frame::new(context)) {
        packet::read_as_far_as_it_goes(&kernel, kernel.frame_bytes(), packet);
    }
    0
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
