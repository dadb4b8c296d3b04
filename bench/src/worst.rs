//! The slowest frame: a search among frames that make the program work, and the bound that it may
//! not outgrow.
//!
//! Every frame ends in a denial with its event. A denied segment does not move the stream, so the
//! same frame does all of its work again as often as one likes, and the denial is the longest end
//! that a frame can have.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use conduitfw_tests::frames::modbus::{self, adu};

use crate::pacer::{Pacer, Script, Template};
use crate::policy::guarded;
use crate::report::{FLOOR, Report, WorstRow};
use crate::rig::{Rig, USUAL_SIZES};
use crate::talk::Talk;

/// Bytes of payload within an MTU of 1,500, and in the largest frame that a test run takes in one
/// piece.
const WITHIN: [(&str, usize); 2] = [
    ("MTU 1500", 1440),
    ("3,456 bytes, the largest in one piece", 3380),
];
/// Frames tried in each.
const TRIES: usize = 160;
/// Frames of one measurement.
const FRAMES: u32 = 64;
/// How much slower than recorded the slowest frame may be.
const GROWTH: f64 = 1.25;

/// One ADU in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adu {
    /// A read of so many registers.
    Read(u8),
    /// A write of so many, each with limits of its own.
    Write(u8),
    /// A write and a read.
    ReadWrite(u8),
    /// A write of one.
    Single,
}

impl Adu {
    fn bytes(self) -> Vec<u8> {
        let values = |count: u8| vec![700; usize::from(count)];
        let pdu = match self {
            Self::Read(count) => modbus::read(3, 2000, u16::from(count)),
            Self::Write(count) => modbus::write_registers(2000, &values(count)),
            Self::ReadWrite(count) => {
                modbus::read_write((2000, u16::from(count)), 2000, &values(count))
            }
            Self::Single => modbus::write_single(6, 2000, 700),
        };
        adu(0, 1, pdu)
    }
}

/// A frame to try.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Genome {
    is_ipv6: bool,
    adus: Vec<Adu>,
}

/// Numbers as good as drawn ones, and the same in every run (`xorshift64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn adu(&mut self) -> Adu {
        let count = 1 + self.below(121) as u8;
        match self.below(4) {
            0 => Adu::Read(count),
            1 => Adu::Write(count),
            2 => Adu::ReadWrite(count),
            _ => Adu::Single,
        }
    }
}

impl Genome {
    fn payload(&self, room: usize) -> Vec<u8> {
        let end = adu(0, 1, modbus::write_single(5, 0, 0xff00));
        let mut bytes = Vec::new();
        for adu in &self.adus {
            let next = adu.bytes();
            let left = room - end.len() - bytes.len();
            if next.len() > left {
                // Thirteen bytes before the values of a write: as many as there is room for.
                if let Some(registers @ 1..) = left.checked_sub(13).map(|bytes| bytes / 2) {
                    bytes.extend(Adu::Write(registers.min(120) as u8).bytes());
                }
                break;
            }
            bytes.extend(next);
        }
        bytes.extend(end);
        bytes
    }

    fn mutated(&self, dice: &mut Dice) -> Self {
        let mut next = self.clone();
        match dice.below(5) {
            0 => next.is_ipv6 = !next.is_ipv6,
            1 if next.adus.len() > 1 => {
                let at = dice.below(next.adus.len());
                next.adus.remove(at);
            }
            2 => {
                let at = dice.below(next.adus.len() + 1);
                next.adus.insert(at, dice.adu());
            }
            _ if !next.adus.is_empty() => {
                let at = dice.below(next.adus.len());
                next.adus[at] = dice.adu();
            }
            _ => next.adus.push(dice.adu()),
        }
        next
    }

    fn words(&self, bytes: usize) -> String {
        let family = if self.is_ipv6 { "IPv6" } else { "IPv4" };
        let mut text = format!("{bytes} bytes, {family}, {} ADUs:", self.adus.len());
        for adu in &self.adus {
            let _ = match adu {
                Adu::Read(count) => write!(text, " read {count},"),
                Adu::Write(count) => write!(text, " write {count},"),
                Adu::ReadWrite(count) => write!(text, " read and write {count},"),
                Adu::Single => write!(text, " write 1,"),
            };
        }
        text.push_str(" and one that is denied");
        text
    }
}

/// Where frames are tried.
struct Arena {
    rig: Rc<RefCell<Rig>>,
    /// By family: a flow that is open.
    flows: [(Talk, Pacer, Pacer); 2],
}

impl Arena {
    fn build(object: &Path, floors: &Path) -> Result<Self> {
        let rig = Rig::load(object, &guarded(), USUAL_SIZES)?;
        let open = |talk: Talk| -> Result<(Talk, Pacer, Pacer)> {
            let mut pacer = Pacer::load(floors, 2, 2)?;
            pacer.aim(&rig.program()?)?;
            pacer.set_states(1, [1000, 7000, 0, 0])?;
            pacer.begin(&talk.handshake()?)?;
            pacer.run(4)?;
            let mut empty = Pacer::load(floors, 2, 2)?;
            let nothing = empty.yardstick("nothing")?;
            empty.aim(&nothing)?;
            Ok((talk, pacer, empty))
        };
        Ok(Self {
            flows: [open(Talk::v4(10, 1024, 502))?, open(Talk::v6(1025)?)?],
            rig: Rc::new(RefCell::new(rig)),
        })
    }

    /// Nanoseconds of the frame, and the frame.
    fn try_out(&mut self, genome: &Genome, room: usize) -> Result<(f64, Template)> {
        let (talk, pacer, empty) = &mut self.flows[usize::from(genome.is_ipv6)];
        let template = talk.denied(&genome.payload(room))?;
        let script = Script::of(vec![template.clone().keeping_all()]);
        // The whole frame once; then only its numbers.
        pacer.begin(&script)?;
        empty.begin(&script)?;
        self.rig.borrow_mut().drain();
        let lowest = |mut blocks: Vec<Vec<f64>>| {
            let blocks = blocks.pop().unwrap_or_default();
            blocks.into_iter().fold(f64::INFINITY, f64::min)
        };
        // What other work on the machine adds is never taken off: the lowest is the truest.
        let nanoseconds = lowest(pacer.clock(FRAMES)?) - lowest(empty.clock(FRAMES)?);
        Ok((nanoseconds, template))
    }
}

/// Searches, and holds what it found against the record.
pub(crate) fn measure(
    report: &mut Report,
    objects: &Path,
    record: &Path,
    is_recording: bool,
) -> Result<()> {
    eprintln!("==> the slowest frame: {TRIES} frames of each size");
    let (object, floors) = (objects.join("conduitfw-ebpf"), objects.join("floors"));
    let mut arena = Arena::build(&object, &floors)?;
    // The lowest against the lowest: what else the machine does is in neither.
    let measured = report.frames.iter().find(|row| row.name == FLOOR);
    let floor = match measured {
        Some(row) => row.lowest,
        None => crate::builder::floor(&object, &floors)?,
    };
    for (name, room) in WITHIN {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut best = Genome {
            is_ipv6: false,
            adus: vec![Adu::Write(120); room / 253 + 1],
        };
        let (mut ns, mut template) = arena.try_out(&best, room)?;
        for _ in 1..TRIES {
            let next = best.mutated(&mut dice);
            let (tried, frame) = arena.try_out(&next, room)?;
            if tried > ns {
                (best, ns, template) = (next, tried, frame);
            }
        }
        // The winner was a lucky draw as well: only a second look counts.
        let mut ns = f64::INFINITY;
        for _ in 0..report.rounds {
            ns = ns.min(arena.try_out(&best, room)?.0);
        }
        let frame = template.frame();
        let hex = frame.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        report.worst.push(WorstRow {
            name: name.to_owned(),
            ns,
            ratio_to_floor: ns / floor,
            tried: TRIES,
            what: best.words(frame.len()),
            frame: hex,
        });
    }
    if is_recording {
        let lines = report
            .worst
            .iter()
            .map(|row| format!("{:.1} {}\n", row.ratio_to_floor, row.name));
        return Ok(fs::write(record, lines.collect::<String>())?);
    }
    check(report, record)
}

fn check(report: &Report, record: &Path) -> Result<()> {
    let text = fs::read_to_string(record)
        .with_context(|| format!("{}: record it with `--record-slowest`", record.display()))?;
    let recorded: BTreeMap<&str, f64> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(ratio, name)| Some((name, ratio.parse().ok()?)))
        .collect();
    for row in &report.worst {
        let bound = recorded.get(row.name.as_str()).context("not recorded")? * GROWTH;
        if row.ratio_to_floor > bound {
            bail!(
                "the slowest frame ({}) is {:.0} times the floor, and {bound:.0} is the bound: make \
                 it faster, or record it with `--record-slowest` and say why",
                row.name,
                row.ratio_to_floor
            );
        }
    }
    Ok(())
}
