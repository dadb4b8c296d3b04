//! The only way to read a frame: by copy, through one checked door.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::table::Address;
use crate::verdict::Reason;

/// The bytes end before what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// Bytes that can be read at any offset. Integers come in host order, read from network order.
pub trait ByteSource {
    /// The byte at `at`.
    ///
    /// # Errors
    /// [`Truncated`] when the source ends before it; the same holds for every method here.
    fn u8(&self, at: u32) -> Result<u8, Truncated>;

    /// Two bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    fn u16(&self, at: u32) -> Result<u16, Truncated>;

    /// Four bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    fn u32(&self, at: u32) -> Result<u32, Truncated>;

    /// Eight bytes.
    ///
    /// # Errors
    /// [`Truncated`].
    fn u64(&self, at: u32) -> Result<u64, Truncated>;

    /// Sixteen bytes as they stand: an IPv6 address.
    ///
    /// # Errors
    /// [`Truncated`].
    fn address(&self, at: u32) -> Result<Address, Truncated>;

    /// `number`, which the caller knows to lie within `mask`. The kernel overrides it to make its
    /// verifier know that as well, so that one look at a loop's body serves for every round.
    #[inline(always)]
    fn within(&self, number: u32, mask: u32) -> u32 {
        number & mask
    }

    /// Stage: [`crate::wire::ipv4::check_options`], which the kernel verifies by itself.
    ///
    /// # Errors
    /// The reason why the options are refused.
    #[inline(always)]
    fn check_ipv4_options(&self, network_at: u32, header_bytes: u32) -> Result<(), Reason> {
        crate::wire::ipv4::check_options(self, network_at, header_bytes)
    }
}

/// A frame, whose headers can be looked at where they stand.
pub trait Headers: ByteSource {
    /// The header that begins at `at`: one look at the end of the frame for all of its fields.
    ///
    /// # Errors
    /// [`Truncated`].
    fn header<T: Header>(&self, at: u32) -> Result<&T, Truncated>;
}

/// A header as it stands in a frame: whatever bytes there are, they are one.
pub trait Header: FromBytes + KnownLayout + Immutable + Unaligned {}
impl<T: FromBytes + KnownLayout + Immutable + Unaligned> Header for T {}

impl Headers for [u8] {
    fn header<T: Header>(&self, at: u32) -> Result<&T, Truncated> {
        let start = usize::try_from(at).map_err(|_| Truncated)?;
        let rest = self.get(start..).ok_or(Truncated)?;
        T::ref_from_prefix(rest)
            .map(|(header, _)| header)
            .map_err(|_| Truncated)
    }
}

impl ByteSource for [u8] {
    fn u8(&self, at: u32) -> Result<u8, Truncated> {
        read::<1>(self, at).map(u8::from_be_bytes)
    }

    fn u16(&self, at: u32) -> Result<u16, Truncated> {
        read::<2>(self, at).map(u16::from_be_bytes)
    }

    fn u32(&self, at: u32) -> Result<u32, Truncated> {
        read::<4>(self, at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: u32) -> Result<u64, Truncated> {
        read::<8>(self, at).map(u64::from_be_bytes)
    }

    fn address(&self, at: u32) -> Result<Address, Truncated> {
        let mut words = [0; 4];
        for (word, offset) in words.iter_mut().zip([0, 4, 8, 12]) {
            *word = read::<4>(self, at.saturating_add(offset)).map(u32::from_ne_bytes)?;
        }
        Ok(words)
    }
}

fn read<const N: usize>(bytes: &[u8], at: u32) -> Result<[u8; N], Truncated> {
    let start = usize::try_from(at).map_err(|_| Truncated)?;
    let end = start.checked_add(N).ok_or(Truncated)?;
    let bytes = bytes.get(start..end).ok_or(Truncated)?;
    bytes.try_into().map_err(|_| Truncated)
}
