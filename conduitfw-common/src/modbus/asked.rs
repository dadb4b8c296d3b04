//! A plain request, as it stands in the frame: see [`super::plain`].

use zerocopy::native_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::event::{EventOperation, field};
use crate::platform::Platform;

use super::function::FunctionCode;

/// A plain request, as it stands in the frame.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Request {
    /// MBAP header and function code.
    head: U64,
    /// Address, and quantity or value.
    operands: U32,
}

/// Bytes of a plain request.
pub(crate) const REQUEST_BYTES: u32 = 12;

/// Protocol id 0 and length 6: what stands between transaction id and unit id.
const PLAIN_HEADER: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 6, 0, 0]);
const HEADER_MASK: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]);

/// A plain request, taken apart.
pub(super) struct Asked {
    pub(super) head: u64,
    pub(super) operands: u32,
    pub(super) unit: u8,
    pub(super) function: u8,
    pub(super) address: u16,
    pub(super) quantity: u16,
}

impl Asked {
    /// The request that begins at `at` of the frame, if it is plain.
    #[inline(always)]
    pub(super) fn read<P: Platform>(p: &P, at: u32) -> Option<Self> {
        let request = p.header::<Request>(at).ok()?;
        let (head, operands) = (request.head.get(), request.operands.get());
        let [.., unit, function] = head.to_ne_bytes();
        let [a1, a0, q1, q0] = operands.to_ne_bytes();
        if head & HEADER_MASK != PLAIN_HEADER || !matches!(function, 1..=6) {
            return None;
        }
        Some(Self {
            head,
            operands,
            unit,
            function,
            address: u16::from_be_bytes([a1, a0]),
            quantity: if FunctionCode(function).has_quantity() {
                u16::from_be_bytes([q1, q0])
            } else {
                1
            },
        })
    }

    /// The last register or coil. Of a request for none it is the one before the first, which is allowed
    /// wherever the first is; before 0 it is none that any rule reaches, and the request is not plain.
    #[inline(always)]
    pub(super) fn last(&self) -> u32 {
        u32::from(self.address)
            .wrapping_add(u32::from(self.quantity))
            .wrapping_sub(1)
    }

    /// What is asked for, to tell of it.
    #[inline(always)]
    pub(super) fn told(&self) -> EventOperation {
        let [t1, t0, ..] = self.head.to_ne_bytes();
        let mut told = EventOperation {
            fields: field::HEADER | field::FUNCTION | field::ADDRESS,
            transaction_id: u16::from_be_bytes([t1, t0]),
            length: 6,
            unit: self.unit,
            function: self.function,
            address: self.address,
            ..EventOperation::default()
        };
        if FunctionCode(self.function).has_quantity() {
            told.fields |= field::QUANTITY;
            told.quantity = self.quantity;
        }
        told
    }

    /// Unit id and function code, as they went by.
    #[inline(always)]
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "the last two bytes of eight: put together from two numbers LLVM does just that"
    )]
    pub(super) const fn unit_and_function(&self) -> u16 {
        if cfg!(target_endian = "little") {
            (self.head >> 48) as u16
        } else {
            self.head as u16
        }
    }
}
