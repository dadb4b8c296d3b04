//! A stream's history: a ring of bytes indexed by sequence number.

use conduitfw_common::{
    bytes::{ByteSource, Truncated},
    flow::entry::{HISTORY_BYTES, Stream},
    table::Address,
};

use crate::verifier::masked;

/// The last place from which a whole word can be read without going round.
const LAST_WORD: usize = HISTORY_BYTES as usize - 8;

/// A stream's history as a source of bytes; offsets are sequence numbers.
pub(crate) struct History(pub(crate) &'static Stream);

#[inline(always)]
fn place(sequence: u32) -> usize {
    masked(sequence, HISTORY_BYTES - 1) as usize
}

#[inline(always)]
pub(crate) fn load_byte(stream: &Stream, sequence: u32) -> u8 {
    // SAFETY: `place` is within the ring.
    unsafe { stream.history.as_ptr().wrapping_add(place(sequence)).read() }
}

#[inline(always)]
pub(crate) fn store_byte(stream: &mut Stream, sequence: u32, byte: u8) {
    // SAFETY: as above; the caller holds the stream's flow.
    unsafe {
        stream
            .history
            .as_mut_ptr()
            .wrapping_add(place(sequence))
            .write(byte);
    };
}

/// Eight bytes as they stand.
#[inline(always)]
pub(crate) fn load(stream: &Stream, sequence: u32) -> u64 {
    let at = place(sequence);
    if at <= LAST_WORD {
        // SAFETY: the ring has room for eight bytes from every place in it.
        return unsafe {
            stream
                .history
                .as_ptr()
                .wrapping_add(at)
                .cast::<u64>()
                .read_unaligned()
        };
    }
    let mut bytes = [0; 8];
    for (offset, byte) in bytes.iter_mut().enumerate() {
        *byte = load_byte(stream, sequence.wrapping_add(offset as u32));
    }
    u64::from_ne_bytes(bytes)
}

/// Stores eight bytes as they stand.
#[inline(always)]
pub(crate) fn store(stream: &mut Stream, sequence: u32, word: u64) {
    let at = place(sequence);
    if at <= LAST_WORD {
        // SAFETY: as above; the caller holds the stream's flow.
        unsafe {
            stream
                .history
                .as_mut_ptr()
                .wrapping_add(at)
                .cast::<u64>()
                .write_unaligned(word);
        };
        return;
    }
    for (offset, byte) in word.to_ne_bytes().into_iter().enumerate() {
        store_byte(stream, sequence.wrapping_add(offset as u32), byte);
    }
}

impl ByteSource for History {
    #[inline(always)]
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        Ok(load_byte(self.0, at))
    }

    #[inline(always)]
    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes([
            self.u8(at)?,
            self.u8(at.wrapping_add(1))?,
        ]))
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
