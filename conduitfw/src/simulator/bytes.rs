//! Where bytes are read from, and a frame that becomes a reset.

use std::sync::Arc;

use conduitfw_common::{
    bytes::{ByteSource, Header, Headers, Truncated},
    flow::entry::HISTORY_BYTES,
    reset::FrameEditor,
    table::Address,
};

use super::Simulator;

/// A frame's bytes, as a source of their own.
#[derive(Clone, Debug)]
pub(super) struct Bytes(pub(super) Arc<[u8]>);

/// A stream's history; offsets are sequence numbers.
pub(super) struct History(pub(super) Box<[u8; 4112]>);

/// Where a sequence number stands in a history.
pub(super) fn place_in_history(sequence: u32) -> usize {
    (sequence & (HISTORY_BYTES - 1)) as usize
}

/// A frame under a reset.
pub(super) struct Editor(pub(super) Vec<u8>);

macro_rules! reads_as {
    ($source:ty, |$this:ident| $bytes:expr) => {
        impl ByteSource for $source {
            fn u8(&self, at: u32) -> Result<u8, Truncated> {
                let $this = self;
                ByteSource::u8($bytes, at)
            }

            fn u16(&self, at: u32) -> Result<u16, Truncated> {
                let $this = self;
                ByteSource::u16($bytes, at)
            }

            fn u32(&self, at: u32) -> Result<u32, Truncated> {
                let $this = self;
                ByteSource::u32($bytes, at)
            }

            fn u64(&self, at: u32) -> Result<u64, Truncated> {
                let $this = self;
                ByteSource::u64($bytes, at)
            }

            fn address(&self, at: u32) -> Result<Address, Truncated> {
                let $this = self;
                ByteSource::address($bytes, at)
            }
        }
    };
}

impl Headers for Simulator {
    fn header<T: Header>(&self, at: u32) -> Result<&T, Truncated> {
        self.frame.0.header(at)
    }
}

reads_as!(Bytes, |this| &*this.0);
reads_as!(Editor, |this| &*this.0);
reads_as!(Simulator, |this| &this.frame);

impl History {
    fn read<const N: usize>(&self, at: u32) -> [u8; N] {
        let mut bytes = [0; N];
        for (byte, sequence) in bytes.iter_mut().zip(0..) {
            let place = place_in_history(at.wrapping_add(sequence));
            *byte = self.0.get(place).copied().unwrap_or(0);
        }
        bytes
    }
}

impl ByteSource for History {
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        Ok(u8::from_be_bytes(self.read(at)))
    }

    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes(self.read(at)))
    }

    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        Ok(u32::from_be_bytes(self.read(at)))
    }

    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        Ok(u64::from_be_bytes(self.read(at)))
    }

    fn address(&self, _at: u32) -> Result<Address, Truncated> {
        Err(Truncated)
    }
}

impl Editor {
    fn write(&mut self, at: u32, value: &[u8]) -> Result<(), Truncated> {
        let at = at as usize;
        let end = at.checked_add(value.len()).ok_or(Truncated)?;
        let bytes = self.0.get_mut(at..end).ok_or(Truncated)?;
        bytes.copy_from_slice(value);
        Ok(())
    }
}

impl FrameEditor for Editor {
    fn sum(&self, at: u32, bytes: u32) -> Result<u16, Truncated> {
        let end = at.checked_add(bytes).ok_or(Truncated)?;
        let bytes = self.0.get(at as usize..end as usize).ok_or(Truncated)?;
        let words = bytes.chunks(2).map(|word| match *word {
            [high, low] => u64::from(high) << 8 | u64::from(low),
            [high] => u64::from(high) << 8,
            _ => 0,
        });
        let mut sum: u64 = words.sum();
        while u16::try_from(sum).is_err() {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::try_from(sum).map_err(|_| Truncated)
    }

    fn replace_u8(&mut self, at: u32, value: u8) -> Result<u8, Truncated> {
        let byte = self.0.get_mut(at as usize).ok_or(Truncated)?;
        Ok(std::mem::replace(byte, value))
    }

    fn set_u16(&mut self, at: u32, value: u16) -> Result<(), Truncated> {
        self.write(at, &value.to_be_bytes())
    }

    fn set_u32(&mut self, at: u32, value: u32) -> Result<(), Truncated> {
        self.write(at, &value.to_be_bytes())
    }

    fn cut(&mut self, bytes: u32) -> Result<(), Truncated> {
        let bytes = bytes as usize;
        if bytes > self.0.len() {
            return Err(Truncated);
        }
        self.0.truncate(bytes);
        Ok(())
    }
}

impl Bytes {
    /// Bytes that a history can hold.
    pub(super) fn slice(&self, at: u32, bytes: u32) -> Option<&[u8]> {
        let end = at.checked_add(bytes)?;
        if bytes > HISTORY_BYTES {
            return None;
        }
        self.0.get(at as usize..end as usize)
    }
}
