//! Model receivers: what the TCP of a responder may make of the segments that reach it.

use std::collections::BTreeMap;

use super::wire::Segment;
use crate::frames::{ACK, FIN, RST, SYN, URG};

/// Which bytes a receiver keeps where two segments overlap ahead of what is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Those that came first.
    FirstWins,
    /// Those that came last.
    LastWins,
}

/// What a receiver does with a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReset {
    /// It ends the connection at the very number (RFC 5961).
    Exact,
    /// It ends the connection anywhere in the window (RFC 793).
    InWindow,
    /// It is ignored.
    Ignored,
}

/// A receiver's habits.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a habit of its own")]
pub struct Model {
    /// What people call it.
    pub name: &'static str,
    /// Overlapping bytes.
    pub overlap: Overlap,
    /// Bytes that it takes beyond what is in order.
    pub window: u32,
    /// Whether it keeps segments that came too early.
    pub keeps_early: bool,
    /// Whether the urgent byte is taken out of the stream.
    pub urgent_apart: bool,
    /// Whether it goes on taking data after a FIN.
    pub ignores_fin: bool,
    /// Whether it checks checksums.
    pub checks: bool,
    /// Routers on the way behind the gateway.
    pub hops: u8,
    /// Resets.
    pub on_reset: OnReset,
    /// What its application throws away.
    pub throws_away: ThrowsAway,
}

/// What an application throws away of what has come, when it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrowsAway {
    /// Nothing.
    Nothing,
    /// It reads all, and throws away what is not whole behind a request.
    Part,
    /// It reads one request, and with one that it refuses throws away all that has come behind it.
    AllWhenItRefuses,
}

const PLAIN: Model = Model {
    name: "first wins",
    overlap: Overlap::FirstWins,
    window: 64_240,
    keeps_early: true,
    urgent_apart: false,
    ignores_fin: false,
    checks: true,
    hops: 0,
    on_reset: OnReset::Exact,
    throws_away: ThrowsAway::Nothing,
};

/// The receivers that every schedule is played to.
pub const MODELS: [Model; 10] = [
    PLAIN,
    Model {
        name: "throws away what is not whole",
        throws_away: ThrowsAway::Part,
        ..PLAIN
    },
    Model {
        name: "throws away all when it refuses",
        throws_away: ThrowsAway::AllWhenItRefuses,
        ..PLAIN
    },
    Model {
        name: "last wins",
        overlap: Overlap::LastWins,
        ..PLAIN
    },
    Model {
        name: "last wins, resets ignored, data after FIN",
        overlap: Overlap::LastWins,
        ignores_fin: true,
        on_reset: OnReset::Ignored,
        ..PLAIN
    },
    Model {
        name: "in order only",
        keeps_early: false,
        on_reset: OnReset::InWindow,
        ..PLAIN
    },
    Model {
        name: "small window",
        window: 20,
        ..PLAIN
    },
    Model {
        name: "last wins, behind two routers, urgent byte apart",
        overlap: Overlap::LastWins,
        hops: 2,
        urgent_apart: true,
        ..PLAIN
    },
    Model {
        name: "first wins, resets ignored, window of 300",
        window: 300,
        on_reset: OnReset::Ignored,
        ignores_fin: true,
        ..PLAIN
    },
    Model {
        name: "no checksums",
        checks: false,
        overlap: Overlap::LastWins,
        on_reset: OnReset::Ignored,
        ..PLAIN
    },
];

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct Receiver {
    model: Model,
    /// Sequence number that is due; nothing before the SYN.
    next: Option<u32>,
    /// Its own number.
    own: u32,
    /// Bytes ahead of what is in order, by their distance; nothing where a byte was taken apart.
    early: BTreeMap<u32, Option<u8>>,
    is_closed: bool,
    /// What the application can read.
    pub stream: Vec<u8>,
    /// Every acknowledgement number so far.
    acknowledged: Vec<u32>,
}

impl Receiver {
    /// A receiver that listens, and whose own numbers begin with `own`.
    #[must_use]
    pub fn new(model: Model, own: u32) -> Self {
        Self {
            model,
            next: None,
            own,
            early: BTreeMap::new(),
            is_closed: false,
            stream: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    /// Its own sequence number, the SYN counted.
    #[must_use]
    pub fn own(&self) -> u32 {
        self.own
    }

    /// Counts bytes that it sent.
    pub fn sent(&mut self, bytes: u32) {
        self.own = self.own.wrapping_add(bytes);
    }

    /// The window that it announces.
    #[must_use]
    pub fn window(&self) -> u16 {
        u16::try_from(self.model.window).unwrap_or(u16::MAX)
    }

    /// What it acknowledged `back` acknowledgements ago; nothing before the connection is open.
    #[must_use]
    pub fn acknowledgement(&self, back: usize) -> Option<u32> {
        let last = self.acknowledged.len().checked_sub(1)?;
        self.acknowledged.get(last.saturating_sub(back)).copied()
    }

    /// Takes a segment that the gateway let through. Returns whether it answers with SYN and ACK.
    pub fn take(&mut self, segment: &Segment) -> bool {
        if segment.hop_limit < self.model.hops + 2 || (self.model.checks && !segment.is_sound) {
            return false;
        }
        if segment.flags & SYN != 0 {
            return self.open(segment);
        }
        let Some(next) = self.next else {
            return false;
        };
        let ahead = segment.sequence.wrapping_sub(next);
        if segment.flags & RST != 0 {
            self.reset(ahead);
            return false;
        }
        if segment.flags & ACK == 0 || (self.is_closed && !self.model.ignores_fin) {
            return false;
        }
        self.take_data(segment, next);
        self.deliver(next);
        self.finish(segment);
        self.acknowledged.extend(self.next);
        false
    }

    fn open(&mut self, segment: &Segment) -> bool {
        let is_new = self.next.is_none() || self.is_closed;
        if !is_new || segment.flags & ACK != 0 {
            // A challenge: what the peer does with it is seen at the gateway.
            return false;
        }
        let first = segment.sequence.wrapping_add(1);
        *self = Self::new(self.model, self.own.wrapping_add(77_777));
        self.next = Some(first);
        self.acknowledged.push(first);
        true
    }

    fn reset(&mut self, ahead: u32) {
        self.is_closed |= match self.model.on_reset {
            OnReset::Exact => ahead == 0,
            OnReset::InWindow => ahead < self.model.window,
            OnReset::Ignored => false,
        };
    }

    fn take_data(&mut self, segment: &Segment, next: u32) {
        let urgent_at = (self.model.urgent_apart && segment.flags & URG != 0)
            .then(|| usize::from(segment.urgent).saturating_sub(1));
        if !self.model.keeps_early
            && segment.sequence.wrapping_sub(next) < 1 << 31
            && segment.sequence != next
        {
            return;
        }
        let numbered = (0_u32..).zip(&segment.payload).enumerate();
        for (index, (offset, byte)) in numbered {
            // Where the byte stands relative to what is due.
            let place = segment.sequence.wrapping_add(offset).wrapping_sub(next);
            if place >= self.model.window {
                continue;
            }
            let byte = (Some(index) != urgent_at).then_some(*byte);
            match self.model.overlap {
                Overlap::FirstWins => {
                    self.early.entry(place).or_insert(byte);
                }
                Overlap::LastWins => {
                    self.early.insert(place, byte);
                }
            }
        }
    }

    /// Moves what is in order to the application.
    fn deliver(&mut self, next: u32) {
        let mut count = 0;
        while let Some(byte) = self.early.remove(&count) {
            self.stream.extend(byte);
            count += 1;
        }
        let rest = std::mem::take(&mut self.early);
        self.early = rest
            .into_iter()
            .map(|(place, byte)| (place - count, byte))
            .collect();
        self.next = Some(next.wrapping_add(count));
    }

    fn finish(&mut self, segment: &Segment) {
        let length = u32::try_from(segment.payload.len()).unwrap_or(0);
        let end = segment.sequence.wrapping_add(length);
        if segment.flags & FIN != 0 && self.next == Some(end) && !self.model.ignores_fin {
            self.is_closed = true;
            self.next = Some(end.wrapping_add(1));
        }
    }
}
