//! A stream's history: a ring of bytes indexed by sequence number.

use conduitfw_common::{
    bytes::{ByteSource, Truncated},
    flow::entry::{HISTORY_BYTES, Stream},
    table::Address,
};

use crate::verifier::{masked, masked_offset};

/// The last place from which a whole word can be read without going round.
const LAST_WORD: usize = HISTORY_BYTES as usize - 8;

/// A stream's history as a source of bytes; offsets are sequence numbers.
pub(crate) struct History(pub(crate) &'static Stream);

#[inline(always)]
fn place(sequence: u32) -> usize {
    masked_offset::<{ HISTORY_BYTES - 1 }>(sequence)
}

#[inline(always)]
pub(crate) fn load_byte(stream: &Stream, sequence: u32) -> u8 {
    // SAFETY: `place` is within the ring.
    unsafe { stream.history.as_ptr().wrapping_add(place(sequence)).read() }
}

#[inline(always)]
pub(crate) fn store_byte(stream: &mut Stream, sequence: u32, byte: u8) {
    let at = place(sequence);
    let history = stream.history.as_mut_ptr();
    // SAFETY: as above; the caller holds the stream's flow.
    unsafe { history.wrapping_add(at).write(byte) };
    if at < 8 {
        let behind = masked(at as u32, 7) as usize + HISTORY_BYTES as usize;
        // SAFETY: as above: eight bytes stand behind the ring.
        unsafe { history.wrapping_add(behind).write(byte) };
    }
}

/// Eight bytes as they stand: behind the ring its first bytes stand again.
#[inline(always)]
pub(crate) fn load(stream: &Stream, sequence: u32) -> u64 {
    read(stream, sequence)
}

#[inline(always)]
fn read<T: Copy>(stream: &Stream, sequence: u32) -> T {
    const { assert!(size_of::<T>() <= 8) };
    // SAFETY: the history has room for eight bytes from every place in the ring; any bytes are a
    // `T`, which is an integer here.
    unsafe {
        stream
            .history
            .as_ptr()
            .wrapping_add(place(sequence))
            .cast::<T>()
            .read_unaligned()
    }
}

#[inline(always)]
fn write(stream: &mut Stream, at: isize, word: u64) {
    // SAFETY: `at` is between the first byte of the margin and the last from which a word ends with
    // the history; the caller holds the stream's flow.
    unsafe {
        stream
            .history
            .as_mut_ptr()
            .wrapping_offset(at)
            .cast::<u64>()
            .write_unaligned(word);
    };
}

/// Stores eight bytes as they stand. What goes beyond the ring belongs at its beginning, and what
/// stands at its beginning belongs behind it as well.
#[inline(always)]
pub(crate) fn store(stream: &mut Stream, sequence: u32, word: u64) {
    const RING: isize = HISTORY_BYTES as isize;
    let at = place(sequence);
    write(stream, at as isize, word);
    if at > LAST_WORD {
        // From the margin on: the bytes before the ring are nobody's.
        let before = masked((at - LAST_WORD) as u32, 7) as isize;
        write(stream, before - 8, word);
    }
    if at < 8 {
        let behind = masked(at as u32, 7) as isize;
        write(stream, RING + behind, word);
    }
}

/// Stores twelve bytes: eight and four, as they stand.
#[inline(always)]
pub(crate) fn store_twelve(stream: &mut Stream, sequence: u32, head: u64, rest: u32) {
    let at = place(sequence);
    if !(8..=LAST_WORD - 4).contains(&at) {
        // The last eight of them, over the first.
        store(stream, sequence, head);
        let last = head >> 32 | u64::from(rest) << 32;
        return store(stream, sequence.wrapping_add(4), last);
    }
    write(stream, at as isize, head);
    // SAFETY: `at` and twelve bytes more are within the ring; the caller holds the stream's flow.
    unsafe {
        let behind = stream.history.as_mut_ptr().wrapping_add(at + 8);
        behind.cast::<u32>().write_unaligned(rest);
    };
}

impl ByteSource for History {
    #[inline(always)]
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        Ok(load_byte(self.0, at))
    }

    #[inline(always)]
    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        Ok(u16::from_be(read(self.0, at)))
    }

    #[inline(always)]
    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        Ok(u32::from_be(read(self.0, at)))
    }

    #[inline(always)]
    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        Ok(u64::from_be(read(self.0, at)))
    }

    #[inline(always)]
    fn address(&self, _at: u32) -> Result<Address, Truncated> {
        Err(Truncated)
    }

    #[inline(always)]
    fn within(&self, number: u32, mask: u32) -> u32 {
        masked(number, mask)
    }
}
