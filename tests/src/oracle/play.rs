//! Plays a schedule to a receiver through a gate, and looks over the applications' shoulders.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::gate::{Gate, Passage};
use super::reader::{Reader, Request, answer, refusal, refuses};
use super::receiver::{Model, Receiver, ThrowsAway};
use super::schedule::{Acknowledges, Fate, Schedule, Sent, Spoil, Step};
use super::site::{FIELD_VLAN, Site};
use super::wire::Segment;
use crate::frames::{ACK, Frame, PSH, SYN, tcp};

/// The longest time, in ticks, that a segment is on its way from the gateway to the receiver. The
/// decision relies on these two seconds (`conduitfw_common::settle`).
const ON_ITS_WAY: u64 = 2 * crate::twin::TICKS_PER_SECOND as u64;
const HMI: [u8; 4] = [10, 10, 0, 5];
const PLC: [u8; 4] = [10, 20, 0, 10];

/// What must not have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An application took this for a request, and the policy denies it.
    Read(Reader, Request),
    /// A frame with right checksums came out of the gate with wrong ones.
    Checksum(Vec<u8>),
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(reader, request) => write!(
                formatter,
                "an application that reads as {reader:?} took unit {} {}",
                request.unit,
                crate::twin::hex(&request.pdu)
            ),
            Self::Checksum(bytes) => write!(
                formatter,
                "the gate spoiled a checksum: {}",
                crate::twin::hex(bytes)
            ),
        }
    }
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Frames given to the gate.
    pub frames: u64,
    /// Those that went on.
    pub passed: u64,
    /// Requests that the applications took.
    pub requests: u64,
}

struct Play<'a> {
    site: &'a Site,
    gate: &'a mut dyn Gate,
    receiver: Receiver,
    /// The application that answers.
    application: Reader,
    /// [`Model::throws_away`] of its receiver.
    throws_away: ThrowsAway,
    /// Where each application is in the stream.
    places: [usize; Reader::ALL.len()],
    /// Requests that the answering application has taken and not answered.
    unanswered: Vec<Request>,
    /// What is on its way behind the gateway, and since when.
    held: Vec<(u64, Segment)>,
    port: u16,
    first: u32,
    now: u64,
    tally: Tally,
    violation: Option<Violation>,
}

/// Plays a schedule; the port tells its flow from others in the same gate.
///
/// # Errors
/// When kernel and simulator differ.
pub fn play(
    site: &Site,
    gate: &mut dyn Gate,
    schedule: &Schedule,
    (model, application): (Model, Reader),
    port: u16,
) -> Result<(Tally, Option<Violation>)> {
    gate.begin()?;
    let mut play = Play {
        site,
        gate,
        receiver: Receiver::new(model, 0xfffe_0000 ^ u32::from(port)),
        application,
        throws_away: model.throws_away,
        places: [0; Reader::ALL.len()],
        unanswered: Vec::new(),
        held: Vec::new(),
        port,
        first: schedule.first,
        now: 1_000_000,
        tally: Tally::default(),
        violation: None,
    };
    if site.adopts {
        play.open_before(schedule.first);
    } else {
        play.open(schedule.first)?;
    }
    for step in &schedule.steps {
        play.step(step)?;
        if play.violation.is_some() {
            break;
        }
    }
    play.release(false);
    Ok((play.tally, play.violation))
}

impl Play<'_> {
    fn initiator(&self) -> SocketAddr {
        (HMI, self.port).into()
    }

    fn up(&self) -> Frame {
        tcp(self.initiator(), (PLC, 502))
    }

    fn down(&self) -> Frame {
        tcp((PLC, 502), self.initiator())
            .vlan(FIELD_VLAN)
            .window(self.receiver.window())
            .seq(self.receiver.own())
    }

    fn open(&mut self, first: u32) -> Result<()> {
        let syn = self.up().flags(SYN).seq(first.wrapping_sub(1));
        let Some(segment) = self.pass(&syn)? else {
            return Ok(());
        };
        if !self.receiver.take(&segment) {
            // A challenge ACK, if anything.
            return self.acknowledge(0, 64_240);
        }
        (self.first, self.places) = (first, [0; Reader::ALL.len()]);
        self.unanswered.clear();
        let answer = self.down().flags(SYN | ACK).ack(first);
        self.receiver.sent(1);
        if self.pass(&answer)?.is_some() {
            let third = self.up().seq(first).ack(self.receiver.own());
            if let Some(segment) = self.pass(&third)? {
                self.arrive(&segment);
            }
        }
        Ok(())
    }

    /// A connection that is open before there is a gateway.
    fn open_before(&mut self, first: u32) {
        let syn = self.up().flags(SYN).seq(first.wrapping_sub(1));
        let third = self
            .up()
            .seq(first)
            .ack(self.receiver.own().wrapping_add(77_778));
        for frame in [syn, third] {
            if let Some(segment) = Segment::read(&frame.build()) {
                let _ = self.receiver.take(&segment);
            }
        }
        self.first = first;
        self.receiver.sent(1);
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Send(sent) => self.send(sent),
            Step::Acknowledge { back, window } => self.acknowledge(usize::from(*back), *window),
            Step::Forge(ahead) => {
                let truth = self.receiver.acknowledgement(0).unwrap_or(self.first);
                let forged = tcp((PLC, 502), self.initiator())
                    .seq(self.receiver.own())
                    .ack(truth.wrapping_add_signed(*ahead));
                self.pass(&forged).map(drop)
            }
            Step::Release(last_first) => {
                self.release(*last_first);
                Ok(())
            }
            Step::Answer => self.answer(),
            Step::Wait(ticks) => {
                self.now += u64::from(*ticks);
                self.release_late();
                Ok(())
            }
            Step::Reopen(first) => self.open(*first),
        }
    }

    /// The receiver acknowledges, with what it knew then.
    fn acknowledge(&mut self, back: usize, window: u16) -> Result<()> {
        if let Some(number) = self.receiver.acknowledgement(back) {
            let frame = self.down().ack(number).window(window);
            self.pass(&frame)?;
        }
        Ok(())
    }

    fn send(&mut self, sent: &Sent) -> Result<()> {
        let acknowledged = match sent.acknowledges {
            Acknowledges::All => self.receiver.own(),
            Acknowledges::Off(number) => self.receiver.own().wrapping_add_signed(number),
        };
        let mut frame = self
            .up()
            .flags(sent.tcp_flags())
            .seq(self.first.wrapping_add_signed(sent.at))
            .ack(acknowledged)
            .urgent(sent.urgent)
            .payload(sent.bytes.clone());
        match sent.spoil {
            Spoil::Nothing => {}
            Spoil::Checksum => frame = frame.spoil_checksum(),
            Spoil::HopLimit(number) => frame = frame.hop_limit(number),
        }
        let Some(segment) = self.pass(&frame)? else {
            return Ok(());
        };
        match sent.fate {
            Fate::Arrives => self.arrive(&segment),
            Fate::Lost => {}
            Fate::Held => self.held.push((self.now, segment)),
            Fate::Twice => {
                self.arrive(&segment);
                self.arrive(&segment);
            }
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<()> {
        let throws_away = match self.throws_away {
            ThrowsAway::Nothing => false,
            ThrowsAway::Part => {
                self.read(true, usize::MAX);
                !self.unanswered.is_empty()
            }
            ThrowsAway::AllWhenItRefuses => {
                self.read(true, 1);
                self.unanswered.first().is_some_and(refuses)
            }
        };
        if throws_away {
            let end = self.receiver.stream.len();
            for (reader, place) in Reader::ALL.into_iter().zip(&mut self.places) {
                if reader == self.application {
                    *place = end;
                }
            }
        }
        let acknowledged = self.receiver.acknowledgement(0).unwrap_or(self.first);
        for request in std::mem::take(&mut self.unanswered) {
            let bytes = if self.throws_away == ThrowsAway::AllWhenItRefuses && refuses(&request) {
                refusal(&request)
            } else {
                answer(&request)
            };
            let length = u32::try_from(bytes.len())?;
            let frame = self.down().flags(PSH | ACK).ack(acknowledged);
            self.pass(&frame.payload(bytes))?;
            self.receiver.sent(length);
        }
        Ok(())
    }

    fn release(&mut self, last_first: bool) {
        let mut held = std::mem::take(&mut self.held);
        if last_first {
            held.reverse();
        }
        for (_, segment) in &held {
            self.arrive(segment);
        }
    }

    /// Nothing is on its way for longer than [`ON_ITS_WAY`].
    fn release_late(&mut self) {
        let now = self.now;
        let is_late = |(since, _): &mut (u64, Segment)| now - *since >= ON_ITS_WAY;
        let late: Vec<(u64, Segment)> = self.held.extract_if(.., is_late).collect();
        for (_, segment) in &late {
            self.arrive(segment);
        }
    }

    /// Gives a frame to the gate; the segment that went on.
    fn pass(&mut self, frame: &Frame) -> Result<Option<Segment>> {
        let bytes = frame.build();
        self.tally.frames += 1;
        let Passage::On(out) = self.gate.pass(&bytes, self.now)? else {
            return Ok(None);
        };
        self.tally.passed += 1;
        let sent = Segment::read(&bytes);
        let was_sound = sent.as_ref().is_some_and(|segment| segment.is_sound);
        let segment = Segment::read(&out).context("what went on is no segment")?;
        // One in 65,536 sums looks like one that is left for a device to complete.
        let is_clear = !sent.is_some_and(|segment| segment.looks_partial);
        if was_sound && is_clear && !segment.is_sound {
            self.violation = Some(Violation::Checksum(out));
        }
        Ok(Some(segment))
    }

    /// The segment reaches the receiver, and its applications read.
    fn arrive(&mut self, segment: &Segment) {
        if self.receiver.take(segment) {
            // A new connection: the applications begin anew, whatever the gateway thinks of it.
            self.places = [0; Reader::ALL.len()];
            self.unanswered.clear();
            self.receiver.sent(1);
        }
        self.read(false, usize::MAX);
    }

    /// The applications read what is there; `answers` when the one that answers does, which takes no more
    /// requests than `most`.
    fn read(&mut self, answers: bool, most: usize) {
        for (reader, place) in Reader::ALL.into_iter().zip(&mut self.places) {
            let is_asked = answers == (reader == self.application);
            if self.throws_away != ThrowsAway::Nothing && !is_asked {
                continue;
            }
            let mut taken = 0;
            while let Some((request, length)) = self
                .receiver
                .stream
                .get(*place..)
                .and_then(|rest| reader.take(rest))
                .filter(|_| taken < most)
            {
                taken += 1;
                *place += length;
                self.tally.requests += 1;
                let is_protected = self.site.readers.contains(&reader);
                if is_protected && self.site.denies(&request) && self.violation.is_none() {
                    self.violation = Some(Violation::Read(reader, request.clone()));
                }
                if reader == self.application {
                    self.unanswered.push(request);
                }
            }
        }
    }
}
