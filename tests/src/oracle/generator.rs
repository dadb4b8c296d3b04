//! Adversarial schedules: two streams of the same layout, one of allowed requests and one with
//! denied ones in their places, cut into segments that are repeated, swapped, overlapped, spoiled
//! and lost in every way.

use super::requests::{Pair, allowed_request, denied_like};
use super::schedule::{Acknowledges, Fate, Schedule, Sent, Spoil, Step};
use super::site::{OnDeny, Site};
use crate::chance::Chance;
use crate::frames::modbus::{adu, read};
use crate::frames::{ACK, FIN, RST, SYN, URG};

/// The schedule of a seed.
#[must_use]
pub fn schedule(site: &Site, seed: u64) -> Schedule {
    let mut chance = Chance::new(seed);
    let pair = Pair::new(site, &mut chance);
    let first = if chance.once_in(3) {
        // Where the numbers wrap.
        0_u32.wrapping_sub(u32::from(chance.short(200)))
    } else {
        chance.word()
    };
    let mut attacker = Attacker {
        site,
        chance,
        pair,
        next: 0,
        steps: Vec::new(),
    };
    let count = 4 + attacker.chance.below(40);
    for _ in 0..count {
        attacker.act();
    }
    Schedule {
        first,
        steps: attacker.steps,
    }
}

struct Attacker<'a> {
    site: &'a Site,
    chance: Chance,
    pair: Pair,
    /// How far the attacker has got in the stream.
    next: usize,
    steps: Vec<Step>,
}

impl Attacker<'_> {
    fn act(&mut self) {
        match self.chance.below(32) {
            0..=11 => self.go_on(),
            12..=17 => self.go_back(),
            18 | 19 => self.go_ahead(),
            20 => self.flag(),
            21 | 22 => self.steps.push(Step::acknowledge()),
            23 => {
                let back = 1 + self.chance.byte() % 4;
                let window = self.chance.short(3000);
                self.steps.push(Step::Acknowledge { back, window });
            }
            24 => {
                let ahead = i32::from(self.chance.short(600)) - 100;
                self.steps.push(Step::Forge(ahead));
            }
            25 => {
                let last_first = self.chance.once_in(2);
                self.steps.push(Step::Release(last_first));
            }
            26..=28 => {
                self.steps.push(Step::acknowledge());
                self.steps.push(Step::Answer);
            }
            29 if self.chance.once_in(4) => self.give_up(),
            29 if self.chance.once_in(3) => self.mislead(),
            29 => self.game(),
            30 => {
                // Two seconds are 500 ticks.
                let ticks = self.chance.short(1200);
                self.steps.push(Step::Wait(ticks));
            }
            _ if self.chance.once_in(4) => {
                let first = self.chance.word();
                self.steps.push(Step::Reopen(first));
            }
            _ => self.more(),
        }
    }

    /// Bytes from one of the two streams.
    fn bytes(&mut self, from: usize, length: usize) -> Vec<u8> {
        let stream = if self.chance.once_in(3) {
            &self.pair.denied
        } else {
            &self.pair.allowed
        };
        let end = (from + length).min(stream.len());
        stream.get(from..end).unwrap_or_default().to_vec()
    }

    fn length(&mut self) -> usize {
        match self.chance.below(6) {
            0 => 1,
            1 => 1 + self.chance.below(8),
            2 => 12,
            3 => 1 + self.chance.below(40),
            _ => {
                // Up to where a request begins.
                let starts = self.pair.starts.iter();
                let ahead: Vec<usize> = starts.filter(|at| **at > self.next).copied().collect();
                let until = self.chance.one_of(&ahead).copied();
                until
                    .unwrap_or(self.pair.denied.len())
                    .saturating_sub(self.next)
            }
        }
    }

    fn dressed(&mut self, at: usize, bytes: Vec<u8>) -> Step {
        let fate = match self.chance.below(12) {
            0 | 1 => Fate::Lost,
            2 => Fate::Held,
            3 => Fate::Twice,
            _ => Fate::Arrives,
        };
        let spoil = match self.chance.below(16) {
            0 => Spoil::Checksum,
            1 => Spoil::HopLimit(self.chance.byte() % 4),
            _ => Spoil::Nothing,
        };
        let acknowledges = match self.chance.below(20) {
            0 => Acknowledges::Off(i32::from(self.chance.short(5000)) - 2500),
            _ => Acknowledges::All,
        };
        let urgent = if self.chance.once_in(40) {
            1 + self.chance.short(12)
        } else {
            0
        };
        Step::Send(Sent {
            at: i32::try_from(at).unwrap_or(0),
            bytes,
            flags: if urgent == 0 { 0 } else { URG },
            urgent,
            acknowledges,
            spoil,
            fate,
            bare: false,
        })
    }

    /// The next bytes of the stream, mostly those that are allowed.
    fn go_on(&mut self) {
        let length = self.length();
        let bytes = self.bytes(self.next, length);
        if bytes.is_empty() {
            return self.more();
        }
        let step = self.dressed(self.next, bytes.clone());
        self.steps.push(step);
        // A denied request that drops leaves the attacker where it was, as far as it knows.
        let goes_on = self.site.on_deny != OnDeny::Drop || !self.chance.once_in(4);
        if goes_on {
            self.next += bytes.len();
        }
    }

    /// Bytes that went by before: the same, others, or partly new.
    fn go_back(&mut self) {
        if self.chance.once_in(3)
            && let Some(Step::Send(again)) = self.chance.one_of(&self.steps).cloned()
        {
            self.steps.push(Step::Send(Sent {
                fate: Fate::Arrives,
                spoil: Spoil::Nothing,
                ..again
            }));
            return;
        }
        let from = self.next.saturating_sub(self.chance.below(50));
        let length = 1 + self.chance.below(60);
        let bytes = self.bytes(from, length);
        let step = self.dressed(from, bytes);
        self.steps.push(step);
    }

    /// Bytes ahead of a gap.
    fn go_ahead(&mut self) {
        let from = self.next + 1 + self.chance.below(24);
        let length = self.length();
        let bytes = self.bytes(from, length);
        let step = self.dressed(from, bytes);
        self.steps.push(step);
    }

    /// FIN, RST, SYN or nonsense, in and out of place, with and without data.
    fn flag(&mut self) {
        let flags = [FIN, RST, SYN, FIN | URG, RST | FIN, SYN | FIN, URG];
        let flags = self.chance.one_of(&flags).copied().unwrap_or(FIN);
        let place = i32::try_from(self.next).unwrap_or(0);
        let off = match self.chance.below(4) {
            0 => i32::from(self.chance.short(100)) - 50,
            1 => i32::from(self.chance.short(60_000)),
            _ => 0,
        };
        let from = self.next;
        let bytes = if self.chance.once_in(3) {
            self.bytes(from, 12)
        } else {
            Vec::new()
        };
        let spoil = match self.chance.below(4) {
            0 => Spoil::Checksum,
            1 => Spoil::HopLimit(2),
            _ => Spoil::Nothing,
        };
        self.steps.push(Step::Send(Sent {
            at: place + off,
            bytes,
            flags,
            bare: self.chance.once_in(4),
            spoil,
            ..Sent::default()
        }));
    }

    /// Makes a receiver that is not strict give the connection up, and open another that may take
    /// what is sent in the first for its own.
    fn give_up(&mut self) {
        let place = i32::try_from(self.next).unwrap_or(0);
        let bare = |at, flags| {
            Step::Send(Sent {
                at,
                flags,
                bare: true,
                ..Sent::default()
            })
        };
        let off = i32::from(self.chance.short(40));
        self.steps.push(bare(place + off, RST | ACK));
        if self.chance.once_in(2) {
            self.steps.push(Step::Wait(600));
        }
        let off = i32::from(self.chance.short(60)) - 40;
        if self.chance.once_in(2) {
            self.steps.push(Step::acknowledge());
        }
        self.steps.push(bare(place + off - 1, SYN));
        let again = self.chance.below(3);
        for _ in 0..again {
            self.go_back();
        }
    }

    /// Has requests of few transactions go by, some of which the receiver does not get at first, so that a reply
    /// may be to another one than it seems; and then a first part behind one that may not be answered.
    fn mislead(&mut self) {
        let mut place = self.next;
        let mut late = Vec::new();
        let count = 2 + self.chance.below(3);
        for _ in 0..count {
            let transaction = 1 + 16 * self.chance.short(2);
            let address = self.chance.short(2);
            let bytes = adu(transaction, 1, read(3, address, 6));
            let end = place + bytes.len();
            let request = |spoil| {
                Step::Send(Sent {
                    at: i32::try_from(place).unwrap_or(0),
                    bytes: bytes.clone(),
                    spoil,
                    ..Sent::default()
                })
            };
            if self.chance.once_in(2) {
                self.steps.push(request(Spoil::Checksum));
                late.push(request(Spoil::Nothing));
            } else {
                self.steps.push(request(Spoil::Nothing));
            }
            if self.chance.once_in(3) {
                self.steps.push(Step::Answer);
            }
            place = end;
        }
        self.steps.extend(late);
        let answers = self.chance.below(3);
        self.steps.extend(vec![Step::Answer; answers]);
        // What is a read behind its own first half is a write behind that of another one.
        let first = adu(0x0103, 1, read(3, 0, 6));
        let second = adu(0x0106, 1, read(3, 0, 6));
        let (head, behind) = first.split_at(6);
        let at = |place| i32::try_from(place).unwrap_or(0);
        self.steps.push(Step::send(at(place), head));
        self.steps.push(Step::Answer);
        let behind = [behind, &second[..]].concat();
        self.steps.push(Step::send(at(place + 6), behind));
        self.steps.push(Step::Answer);
        self.next = place + first.len() + second.len();
    }

    /// A known trick, whole.
    fn game(&mut self) {
        let at = self.next;
        let whole = self.pair.allowed.len().min(at + 12);
        let allowed = self
            .pair
            .allowed
            .get(at..whole)
            .unwrap_or_default()
            .to_vec();
        let denied = self.pair.denied.get(at..whole).unwrap_or_default().to_vec();
        let place = i32::try_from(at).unwrap_or(0);
        let sent = |bytes: &[u8], spoil, fate| {
            Step::Send(Sent {
                at: place,
                bytes: bytes.to_vec(),
                spoil,
                fate,
                ..Sent::default()
            })
        };
        match self.chance.below(4) {
            // Seen by the gateway and by nobody else; then with other bytes.
            0 => self.steps.extend([
                sent(&allowed, Spoil::Checksum, Fate::Arrives),
                sent(&denied, Spoil::Nothing, Fate::Arrives),
            ]),
            1 => self.steps.extend([
                sent(&allowed, Spoil::Nothing, Fate::Lost),
                Step::acknowledge(),
                sent(&denied, Spoil::Nothing, Fate::Arrives),
            ]),
            // Byte by byte.
            2 => {
                for (index, byte) in (0..).zip(&denied) {
                    self.steps.push(Step::send(place + index, [*byte]));
                }
            }
            // The end first, so that the receiver keeps it.
            _ => {
                let half = denied.len() / 2;
                let (head, tail) = denied.split_at(half);
                let later = place + i32::try_from(half).unwrap_or(0);
                self.steps.push(Step::send(later, tail));
                self.steps.push(Step::send(place, head));
                self.steps
                    .push(sent(&allowed, Spoil::Nothing, Fate::Arrives));
            }
        }
        self.next = whole.max(at);
    }

    /// Another request at the end of the streams.
    fn more(&mut self) {
        let allowed = allowed_request(self.site, &mut self.chance);
        let denied = denied_like(self.site, &mut self.chance, &allowed);
        let end = self.pair.allowed.len().max(self.next);
        self.pair.allowed.resize(end, 0);
        self.pair.denied.resize(end, 0);
        self.pair.starts.push(end);
        self.pair.allowed.extend(allowed);
        self.pair.denied.extend(denied);
    }
}
