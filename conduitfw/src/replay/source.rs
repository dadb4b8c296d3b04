//! A file read piece by piece, with the place in it known at every moment.

use std::io::{self, Read};

/// What is read at once, and kept at least.
const CHUNK: usize = 256 << 10;

/// Bytes of a file from some place on, as many as were asked for.
pub(super) struct Source<R> {
    file: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
    is_at_end: bool,
}

impl<R: Read> Source<R> {
    pub(super) fn new(file: R) -> Self {
        Self {
            file,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            offset: 0,
            is_at_end: false,
        }
    }

    /// Where the next byte stands in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes that were read and not yet passed by.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads until there are `wanted` bytes. Returns whether there are.
    pub(super) fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.end - self.start < wanted && !self.is_at_end {
            self.make_room(wanted);
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.file.read(room) {
                Ok(0) => self.is_at_end = true,
                Ok(bytes) => self.end += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.end - self.start >= wanted)
    }

    /// Goes on behind the next `bytes` bytes, which were read.
    pub(super) fn pass_by(&mut self, bytes: usize) {
        let bytes = bytes.min(self.end - self.start);
        self.start += bytes;
        self.offset += bytes as u64;
    }

    fn make_room(&mut self, wanted: usize) {
        if self.start + wanted <= self.buffer.len() && self.end < self.buffer.len() {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted.next_multiple_of(CHUNK), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Trickle(u8);

    impl Read for Trickle {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let bytes = room.len().min(3).min(usize::from(200 - self.0));
            for byte in &mut room[..bytes] {
                self.0 += 1;
                *byte = self.0;
            }
            Ok(bytes)
        }
    }

    #[test]
    fn bytes_come_in_order_however_they_are_read() {
        let mut source = Source::new(Trickle(0));
        let mut next = 1;
        for wanted in [1, 7, 3, 50, 2, 100] {
            assert!(source.fill(wanted).unwrap());
            assert_eq!(source.bytes()[0], next);
            source.pass_by(wanted);
            next += u8::try_from(wanted).unwrap();
            assert_eq!(source.offset(), u64::from(next) - 1);
        }
        assert!(!source.fill(38).unwrap());
        assert_eq!(source.bytes().len(), 37);
    }

    #[test]
    fn the_buffer_grows_for_what_does_not_fit_and_not_for_what_does() {
        let mut source = Source::new(io::repeat(7));
        for _ in 0..1000 {
            assert!(source.fill(3000).unwrap());
            source.pass_by(3000);
        }
        assert_eq!(source.buffer.len(), CHUNK);
        assert!(source.fill(CHUNK + 1).unwrap());
        assert_eq!(source.buffer.len(), 2 * CHUNK);
    }
}
