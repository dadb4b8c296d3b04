//! What is remembered of a flow, and of the byte stream of an inspected one.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::{Packet, transport};
use crate::table::{Address, Conduit, Operation, Service};

/// Which way a frame goes within its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the initiator to the responder.
    Request,
    /// From the responder to the initiator.
    Reply,
}

/// Where a flow is in its life: [`FlowEntry::phase`].
pub mod phase {
    /// TCP: the initiator's SYN went by. UDP, ICMP: no answer yet.
    pub const OPENING: u8 = 1;
    /// TCP: the responder's SYN and ACK went by.
    pub const ANSWERED: u8 = 2;
    /// Data may flow.
    pub const ESTABLISHED: u8 = 3;
    /// TCP: one side has sent its FIN; or, without one, the responder has still to show that the connection
    /// is there.
    pub const CLOSING: u8 = 4;
    /// TCP: both sides have finished, or one has reset the connection.
    pub const CLOSED: u8 = 5;
    /// Denied with a reset that the responder has not been sent yet.
    pub const ENDING: u8 = 6;
    /// Denied; the responder has its reset, the initiator gets one with each segment it sends.
    pub const ENDED: u8 = 7;
}

/// Bits of [`FlowEntry::flags`].
pub mod flow_flag {
    /// A SYN for the same ports went by: a new connection may take this one's place.
    pub const REOPENING: u8 = 1;
    /// Picked up in the middle: requests from before may still be answered.
    pub const ADOPTED: u8 = 2;
    /// The connection of that SYN would take this one's data for its own: what the initiator sends
    /// waits until the responder shows which of the two it has.
    pub const IN_DOUBT: u8 = 4;
    /// In mode observe a segment passed after which it is not known where an ADU begins: not one that may
    /// go on once the conduit enforces.
    pub const MISPLACED: u8 = 8;
}

/// Bits of [`Side::flags`].
pub mod side_flag {
    /// This side has sent its FIN; `next` counts it.
    pub const FIN: u32 = 1;
    /// Where the shift of the windows that this side advertises begins (RFC 7323 §2.2), five bits.
    pub const WINDOW_SHIFT_AT: u32 = 8;
    /// The same, as a mask.
    pub const WINDOW_SHIFT: u32 = 0x1f00;
    /// Where unit id and function code begin, as they went by, of what [`crate::refused`] may deny; 0 for none.
    pub const REFUSED_AT: u32 = 16;
}

/// One side of a TCP connection, as seen from the middle.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Side {
    /// Sequence number due next from this side.
    pub next: u32,
    /// Highest of this side's sequence numbers that the other has acknowledged.
    pub acknowledged: u32,
    /// Bits of [`side_flag`].
    pub flags: u32,
    /// The first sequence number beyond what the other side has ever had room for.
    pub edge: u32,
}

/// Value of `FLOWS` and `OPENINGS`: one entry for both directions, two cache lines.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct FlowEntry {
    /// Address of the initiator.
    pub initiator: Address,
    /// Address of the responder.
    pub responder: Address,
    /// Port of the initiator.
    pub initiator_port: u16,
    /// Port of the responder.
    pub responder_port: u16,
    /// IP protocol number.
    pub transport: u8,
    /// One of [`phase`].
    pub phase: u8,
    /// One of [`crate::table::protocol`].
    pub protocol: u8,
    /// Bits of [`flow_flag`].
    pub flags: u8,
    /// 1 while a processor holds the entry.
    pub lock: u32,
    /// Counts the flows that have used this entry.
    pub serial: u32,
    /// Generation that last judged the flow.
    pub generation: u32,
    /// Conduit id.
    pub conduit: u16,
    /// Rule set id.
    pub rule_set: u16,
    /// Number of the verdict for denied segments.
    pub on_deny: u8,
    /// 1: denials are only reported.
    pub observe: u8,
    /// Requests that may be outstanding.
    pub outstanding: u8,
    /// Zero.
    pub reserved: u8,
    /// Index into `STREAMS`, plus 1; 0 when the payload is not inspected.
    pub stream: u32,
    /// Ticks when the last frame passed.
    pub last_seen_ticks: u64,
    /// Interface of the initiator's frames.
    pub initiator_ifindex: u32,
    /// Interface of the responder's frames; 0 until the first.
    pub responder_ifindex: u32,
    /// VLANs of the initiator's frames.
    pub initiator_vlans: u32,
    /// VLANs of the responder's frames.
    pub responder_vlans: u32,
    /// The initiator's side of a TCP connection.
    pub request: Side,
    /// The responder's.
    pub reply: Side,
    /// Where the entry's tag stands: bucket in the upper 29 bits, way in the lower 3.
    pub place: u32,
    /// The tag.
    pub tag: u32,
}

impl FlowEntry {
    /// The direction of `packet` if it belongs to this flow.
    #[inline(always)]
    #[must_use]
    pub fn direction_of(&self, packet: &Packet) -> Option<Direction> {
        if self.transport != packet.transport {
            return None;
        }
        self.ends_of(packet)
    }

    /// The port that chooses its service: the responder's, or 0 for ICMP echo.
    #[inline(always)]
    #[must_use]
    pub const fn service_port(&self) -> u16 {
        if self.transport == transport::ICMP {
            0
        } else {
            self.responder_port
        }
    }

    /// Takes what a policy says of its service; `observe` is 1 when the whole policy only observes.
    #[inline(always)]
    pub const fn take_service(
        &mut self,
        service: &Service,
        conduit: &Conduit,
        generation: u32,
        observe: u8,
    ) {
        self.generation = generation;
        self.conduit = service.conduit;
        self.rule_set = service.rule_set;
        self.protocol = service.protocol;
        self.on_deny = conduit.on_deny;
        self.observe = conduit.observe | observe;
        self.outstanding = conduit.outstanding;
    }

    /// Unit id and function code, as they went by, that the initiator's last request was denied for; 0 when it
    /// sent anything else since.
    #[inline(always)]
    #[must_use]
    pub const fn refused(&self) -> u32 {
        self.request.flags >> side_flag::REFUSED_AT
    }

    /// Sets [`Self::refused`].
    #[inline(always)]
    pub fn set_refused(&mut self, unit_and_function: u16) {
        let others = self.request.flags & ((1 << side_flag::REFUSED_AT) - 1);
        self.request.flags = others | u32::from(unit_and_function) << side_flag::REFUSED_AT;
    }

    /// The same by addresses and ports alone.
    #[inline(always)]
    #[must_use]
    pub fn ends_of(&self, packet: &Packet) -> Option<Direction> {
        let ports = join(packet.source_port, packet.destination_port);
        let own = join(self.initiator_port, self.responder_port);
        if own == ports
            && same(&self.initiator, &packet.source)
            && same(&self.responder, &packet.destination)
        {
            return Some(Direction::Request);
        }
        if own.rotate_left(16) == ports
            && same(&self.responder, &packet.source)
            && same(&self.initiator, &packet.destination)
        {
            return Some(Direction::Reply);
        }
        None
    }

    /// Whether the flow is one of this transport, established, and nothing about it is to be looked at
    /// closely.
    #[inline(always)]
    #[must_use]
    pub fn is_usual(&self, transport: u8) -> bool {
        const STATE: usize = offset_of!(FlowEntry, transport);
        // Transport, phase, protocol and flags, read at once.
        let state = match self.as_bytes().get(STATE..) {
            Some(bytes) => bytes.first_chunk().copied().unwrap_or_default(),
            None => [0; 4],
        };
        u32::from_ne_bytes(state) & u32::from_ne_bytes([0xff, 0xff, 0, 0xff])
            == u32::from_ne_bytes([transport, phase::ESTABLISHED, 0, 0])
    }

    /// Whether a frame of `direction` came in where the flow's frames of that direction do.
    #[inline(always)]
    #[must_use]
    pub fn came_in_at(&self, direction: Direction, ifindex: u32, vlans: u32) -> bool {
        match direction {
            Direction::Request => {
                self.initiator_ifindex == ifindex && self.initiator_vlans == vlans
            }
            Direction::Reply => self.responder_ifindex == ifindex && self.responder_vlans == vlans,
        }
    }
}

/// Two ports as one word.
#[inline(always)]
fn join(one: u16, other: u16) -> u32 {
    u32::from(other) << 16 | u32::from(one)
}

/// Compares two addresses without a call to `memcmp`.
#[inline(always)]
fn same(one: &Address, other: &Address) -> bool {
    let (a, b) = (halves(one), halves(other));
    a.0 == b.0 && a.1 == b.1
}

/// An address as two words, which the kernel's machines load at once.
#[inline(always)]
fn halves(address: &Address) -> (u64, u64) {
    let [w0, w1, w2, w3] = *address;
    (
        u64::from(w1) << 32 | u64::from(w0),
        u64::from(w3) << 32 | u64::from(w2),
    )
}

/// Bytes of a request stream that are kept: a power of two. Sixteen requests
/// may be outstanding; of the longest ones (259 bytes) fifteen fit.
pub const HISTORY_BYTES: u32 = 4096;

/// Requests of one flow that can wait for a reply: what the Modbus/TCP implementation guide gives
/// (§4.4.1.2). A power of two.
pub const OUTSTANDING: u32 = 16;

/// Where a request is: [`Outstanding::state`].
pub mod request_state {
    /// The row is free.
    pub const FREE: u8 = 0;
    /// Went by; no reply yet.
    pub const WAITING: u8 = 1;
    /// Was neutralised and refused; the refusal may have to be repeated.
    pub const ANSWERED: u8 = 2;
}

/// A request that went by, and what its reply must be like.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Outstanding {
    /// Its MBAP header and function code as they went by, the first byte at the lowest address.
    pub head: u64,
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// Lower half of the tick counter when it went by.
    pub asked_ticks: u32,
    /// Sequence number of the first byte of its reply, once answered.
    pub reply_sequence: u32,
    /// The four bytes behind the function code as they went by, when `echo_kind` asks for them.
    pub operands: u32,
    /// Bytes of the ADU.
    pub bytes: u16,
    /// MBAP length of its reply; 0 when the reply says it.
    pub reply_length: u16,
    /// What the reply must hold behind its function code, as `echo_kind` says.
    pub echo: u16,
    /// One of [`crate::modbus::reply::echo`].
    pub echo_kind: u8,
    /// One of [`request_state`].
    pub state: u8,
    /// Number of the reason that it was neutralised for; 0 when it was allowed.
    pub reason: u8,
    /// 1 when it writes registers whose last value counts.
    pub is_guarded: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

impl Outstanding {
    /// Transaction id.
    #[inline(always)]
    #[must_use]
    pub const fn transaction_id(&self) -> u16 {
        let [t1, t0, ..] = self.head.to_ne_bytes();
        u16::from_be_bytes([t1, t0])
    }

    /// Unit id.
    #[inline(always)]
    #[must_use]
    pub const fn unit(&self) -> u8 {
        let [.., unit, _] = self.head.to_ne_bytes();
        unit
    }

    /// Function code that was asked for.
    #[inline(always)]
    #[must_use]
    pub const fn function(&self) -> u8 {
        let [.., function] = self.head.to_ne_bytes();
        function
    }
}

/// A cell of `OPERATIONS`, kept with the stream whose requests it was looked up for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct KnownCell {
    /// What it is for: [`Self::key`]; 0 when there is none.
    pub key: u64,
    /// The cell.
    pub cell: Operation,
}

impl KnownCell {
    /// The generation and the rule set that a cell is of, and the unit id and the function code that it is
    /// for, in one word.
    #[inline(always)]
    #[must_use]
    pub fn key(generation: u32, rule_set: u16, unit_and_function: u16) -> u64 {
        u64::from(generation) | u64::from(unit_and_function) << 32 | u64::from(rule_set) << 48
    }
}

/// Bytes of a reply that say whether it is one: the MBAP header, the function code, and two more.
pub const REPLY_HEAD_BYTES: u32 = 10;

/// Value of `STREAMS`: what is kept of the bytes of an inspected flow.
///
/// `history` is a ring indexed by sequence number. It holds what the responder has not yet
/// acknowledged, so that a repetition can be held against it, and the ADU that is not yet whole.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Stream {
    /// Place of the flow that owns it, plus 1; 0 when free.
    pub owner: u32,
    /// [`FlowEntry::serial`] of the owner.
    pub serial: u32,
    /// Sequence number of the first byte of the ADU that is due or not yet whole.
    pub adu_start: u32,
    /// Sequence number of the first byte of the reply that is due or not yet whole.
    pub reply_start: u32,
    /// Requests whose reply is due.
    pub waiting: u32,
    /// 1 once a request was neutralised: repeated segments must be changed as the first ones were.
    pub edited: u32,
    /// Transactions of requests that gave way before a reply came, which may come still: a bit for each
    /// transaction id, by its lower six bits.
    pub forgotten: u64,
    /// What was looked up for the last plain request.
    pub known: KnownCell,
    /// The first bytes of a reply that came in pieces.
    pub reply_head: [u8; 16],
    /// Requests, from the row of their transaction id on.
    pub outstanding: [Outstanding; 16],
    /// Room for the beginning of a word that ends within the first bytes of the ring.
    pub margin: [u8; 8],
    /// The ring, and its first bytes again, for a word that starts at its last byte.
    pub history: [u8; 4112],
}
