//! What an attacker does, step by step.

use std::fmt;

use crate::frames::{ACK, PSH};
use crate::twin::hex;

/// What becomes of a frame between the gateway and the receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    #[default]
    Arrives,
    /// It is lost.
    Lost,
    /// It arrives later: at the next [`Step::Release`].
    Held,
    /// It arrives twice.
    Twice,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spoil {
    /// Nothing.
    #[default]
    Nothing,
    /// The TCP checksum.
    Checksum,
    /// So short a time to live that it ends between gateway and receiver.
    HopLimit(u8),
}

/// The acknowledgement number of an attacker's segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledges {
    /// What the responder sent last.
    #[default]
    All,
    /// So far off that.
    Off(i32),
}

/// A segment of the attacker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Where it stands in the stream: 0 is the first byte after the SYN.
    pub at: i32,
    /// Its payload.
    pub bytes: Vec<u8>,
    /// Its flags, beside ACK and PSH.
    pub flags: u8,
    /// Flags are taken as they are, without ACK and PSH.
    pub bare: bool,
    /// The urgent pointer.
    pub urgent: u16,
    /// The acknowledgement number.
    pub acknowledges: Acknowledges,
    /// What is wrong with it.
    pub spoil: Spoil,
    /// What becomes of it behind the gateway.
    pub fate: Fate,
}

impl Sent {
    /// Its TCP flags.
    #[must_use]
    pub fn tcp_flags(&self) -> u8 {
        if self.bare {
            self.flags
        } else if self.bytes.is_empty() {
            self.flags | ACK
        } else {
            self.flags | ACK | PSH
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The attacker sends a segment.
    Send(Sent),
    /// The receiver acknowledges what it had so many acknowledgements ago.
    Acknowledge {
        /// How many; 0 for now.
        back: u8,
        /// The window that it announces.
        window: u16,
    },
    /// The attacker sends an acknowledgement in the receiver's name, so far ahead of the truth.
    Forge(i32),
    /// What was held behind the gateway arrives, the last first when `true`.
    Release(bool),
    /// The application answers what it has read.
    Answer,
    /// Time passes, in ticks.
    Wait(u16),
    /// The attacker opens a new connection with the same ports: its first number.
    Reopen(u32),
}

impl Step {
    /// A segment in order of the attacker's choice.
    #[must_use]
    pub fn send(at: i32, bytes: impl Into<Vec<u8>>) -> Self {
        Self::Send(Sent {
            at,
            bytes: bytes.into(),
            ..Sent::default()
        })
    }

    /// The receiver acknowledges all it has.
    #[must_use]
    pub const fn acknowledge() -> Self {
        Self::Acknowledge {
            back: 0,
            window: 64_240,
        }
    }
}

/// A connection and what the attacker does in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The attacker's first sequence number.
    pub first: u32,
    /// What is done.
    pub steps: Vec<Step>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "first sequence number {:#x}", self.first)?;
        for (number, step) in self.steps.iter().enumerate() {
            match step {
                Step::Send(sent) => writeln!(
                    formatter,
                    "{number:3} send at {} flags {:#04x} {}{}{} {} bytes {}",
                    sent.at,
                    sent.tcp_flags(),
                    words(sent.acknowledges != Acknowledges::All, &sent.acknowledges),
                    words(sent.spoil != Spoil::Nothing, &sent.spoil),
                    words(sent.fate != Fate::Arrives, &sent.fate),
                    sent.bytes.len(),
                    hex(&sent.bytes),
                )?,
                other => writeln!(formatter, "{number:3} {other:?}")?,
            }
        }
        Ok(())
    }
}

fn words(is_told: bool, what: &impl fmt::Debug) -> String {
    if is_told {
        format!("{what:?} ")
    } else {
        String::new()
    }
}
