//! The record in a ring of events: one denied (or would-be denied) frame.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::Address;

/// First bytes of the frame that an event carries at most.
pub const EVENT_FRAME_BYTES: usize = 64;

/// An event, as the kernel writes it. Numbers are in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EventRecord {
    /// Nanoseconds of the kernel's monotonic clock (a few milliseconds coarse).
    pub time_ns: u64,
    /// Counts up by one with every event of this processor, delivered or lost.
    pub sequence: u64,
    /// The processor.
    pub cpu: u32,
    /// The policy generation that decided.
    pub generation: u32,
    /// The interface that the frame came in on.
    pub ifindex: u32,
    /// VLAN ids as in [`crate::table::InterfaceKey::vlans`].
    pub vlans: u32,
    /// Source of the frame; zero when it was not an IP packet.
    pub source: Address,
    /// Destination of the frame.
    pub destination: Address,
    /// TCP or UDP source port, or ICMP type in the upper and code in the lower byte.
    pub source_port: u16,
    /// TCP or UDP destination port, or ICMP echo identifier.
    pub destination_port: u16,
    /// Conduit id; 0 for none.
    pub conduit: u16,
    /// Length of the frame in bytes (65,535 when longer).
    pub frame_length: u16,
    /// Ethernet type (0x0800 IPv4, 0x86DD IPv6, 0x0806 ARP, ...).
    pub ether_type: u16,
    /// IP protocol number; 0 when not an IP packet.
    pub transport: u8,
    /// Number of the [`crate::Reason`].
    pub reason: u8,
    /// Number of the [`crate::Verdict`] that was carried out.
    pub verdict: u8,
    /// 1: in mode observe, so the frame passed.
    pub would_deny: u8,
    /// One of [`direction`].
    pub direction: u8,
    /// One of [`crate::table::protocol`]: what `operation` holds.
    pub protocol: u8,
    /// What was asked for, when the payload was inspected.
    pub operation: EventOperation,
    /// How many bytes of `frame` are set.
    pub captured: u32,
    /// The first bytes of the frame, eight to a word, as they stand in it.
    pub frame: [u64; EVENT_FRAME_BYTES / 8],
}

/// Directions of an [`EventRecord`].
pub mod direction {
    /// The frame belongs to no flow.
    pub const NONE: u8 = 0;
    /// From the initiator to the responder.
    pub const REQUEST: u8 = 1;
    /// From the responder to the initiator.
    pub const REPLY: u8 = 2;
}

/// The Modbus operation of an [`EventRecord`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EventOperation {
    /// Which fields are set: a sum of [`field`].
    pub fields: u16,
    /// Transaction id of the MBAP header.
    pub transaction_id: u16,
    /// Protocol id of the MBAP header.
    pub protocol_id: u16,
    /// Length field of the MBAP header.
    pub length: u16,
    /// Unit id.
    pub unit: u8,
    /// Function code.
    pub function: u8,
    /// Sub-function of function 8, or MEI type of function 43.
    pub sub_function: u16,
    /// First register or coil, counted from 0.
    pub address: u16,
    /// How many registers or coils.
    pub quantity: u16,
    /// The written value that was refused.
    pub value: u32,
}

impl EventOperation {
    /// The same, with everything zero that `fields` does not name: what stands there is of another
    /// operation.
    #[inline(always)]
    #[must_use]
    pub const fn told(&self) -> Self {
        let Self {
            fields,
            transaction_id,
            protocol_id,
            length,
            unit,
            function,
            sub_function,
            address,
            quantity,
            value,
        } = *self;
        let header = if fields & field::HEADER == 0 {
            0
        } else {
            u16::MAX
        };
        let [_, unit_mask] = header.to_be_bytes();
        Self {
            fields,
            transaction_id: transaction_id & header,
            protocol_id: protocol_id & header,
            length: length & header,
            unit: unit & unit_mask,
            function: if fields & field::FUNCTION == 0 {
                0
            } else {
                function
            },
            sub_function: if fields & field::SUB_FUNCTION == 0 {
                0
            } else {
                sub_function
            },
            address: if fields & field::ADDRESS == 0 {
                0
            } else {
                address
            },
            quantity: if fields & field::QUANTITY == 0 {
                0
            } else {
                quantity
            },
            value: if fields & field::VALUE == 0 { 0 } else { value },
        }
    }
}

/// Value of `TRACES[0]`: what the program says of one frame when it was loaded with `TRACING` set,
/// to be run on given frames at given times. A program that is in force does not write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Trace {
    /// The tick counter that the frame is judged at: user space writes it.
    pub now_ticks: u64,
    /// The judgement ([`crate::judgement::Judgement::to_bits`]).
    pub judgement: u64,
    /// Operations judged, also those beyond the room for them. User space sets it to 0.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
    /// The first of them.
    pub operations: [TracedOperation; TRACED_OPERATIONS],
}

/// Operations that a [`Trace`] has room for: a power of two above [`crate::inspect::MAX_ADUS`].
pub const TRACED_OPERATIONS: usize = 64;

/// A judged operation.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TracedOperation {
    /// What was asked for.
    pub operation: EventOperation,
    /// Number of the reason; 0 when it was allowed.
    pub reason: u32,
}

/// Bits of [`EventOperation::fields`].
pub mod field {
    /// The MBAP header (transaction id, protocol id, length, unit).
    pub const HEADER: u16 = 1;
    /// The function code.
    pub const FUNCTION: u16 = 2;
    /// The sub-function or MEI type.
    pub const SUB_FUNCTION: u16 = 4;
    /// The address.
    pub const ADDRESS: u16 = 8;
    /// The quantity.
    pub const QUANTITY: u16 = 16;
    /// The value.
    pub const VALUE: u16 = 32;
}
