//! What a fuzzer tries: each function takes any bytes, and panics when something happens that must
//! not. `fuzz/` has a target for each.

use std::path::Path;
use std::{fs, io};

use conduitfw::policy::{Ids, Surroundings, compile, load_text};
use conduitfw::simulator::{Outcome, Simulator};

use crate::conversations::{POLICY, good_frames};
use crate::frames::Frame;
use crate::oracle::gate::Simulated;
use crate::oracle::generator;
use crate::oracle::play::play;
use crate::oracle::receiver::MODELS;
use crate::oracle::schedule::{Acknowledges, Fate, Schedule, Sent, Spoil, Step};
use crate::oracle::site::SITES;
use crate::twin::{LOOPBACK, Sizes, TICKS_PER_SECOND, compiled, indexes, settings};

/// Frames of one input at most.
const FRAMES: usize = 64;
/// Steps of one input at most.
const STEPS: usize = 100;

/// Frames, each behind its length in two bytes, through the decision.
///
/// # Panics
/// When the decision does, or an outcome does not go with its judgement.
pub fn frame(bytes: &[u8]) {
    thread_local! {
        static TABLES: conduitfw::policy::CompiledTables =
            match compiled(POLICY, &mut Ids::default(), 1) {
                Ok(tables) => tables,
                Err(refusal) => unreachable!("{refusal}"),
            };
    }
    let mut simulator = Simulator::new(settings(Sizes {
        buckets: 4,
        streams: 4,
    }));
    TABLES.with(|tables| simulator.apply(tables, &indexes()));
    for (frame, now) in Cut(bytes).take(FRAMES).zip(1_000_000..) {
        let judged = simulator.judge(frame, LOOPBACK, now);
        let is_denied = judged.judgement.reason().is_some()
            && !judged.judgement.is_observed()
            && !judged.judgement.is_notice();
        match judged.outcome {
            Outcome::Pass => assert!(!is_denied, "a denied frame passes"),
            Outcome::Drop => assert!(is_denied, "dropped without a reason"),
            Outcome::Edited(out) if is_denied => {
                assert!(out.len() < frame.len(), "{out:?}");
            }
            Outcome::Edited(out) => assert_eq!(out.len(), frame.len(), "{out:?}"),
            Outcome::Exception(out) => {
                // A request behind it may be held back.
                assert!(is_denied && out.len() <= frame.len(), "{out:?}");
            }
            Outcome::Reset(out) | Outcome::ResetBack(out) => {
                assert!(is_denied && out.len() <= frame.len(), "{out:?}");
            }
        }
    }
}

/// Pieces, each behind its length in two bytes.
struct Cut<'a>(&'a [u8]);

impl<'a> Iterator for Cut<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        self.0 = rest;
        Some(piece)
    }
}

fn joined<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// The steps of an attacker, through the decision to a receiver.
///
/// # Panics
/// When an application reads what the policy denies.
pub fn stream(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<6>() else {
        return;
    };
    let [site, model, first @ ..] = *head;
    let site = &SITES[usize::from(site) % SITES.len()];
    let turn = usize::from(model);
    let receiver = (
        MODELS[turn % MODELS.len()],
        site.readers[turn / MODELS.len() % site.readers.len()],
    );
    let schedule = Schedule {
        first: u32::from_be_bytes(first),
        steps: Cut(rest).take(STEPS).filter_map(step).collect(),
    };
    let Ok(mut gate) = Simulated::new(site) else {
        unreachable!("the policy of a site is refused");
    };
    let Ok((_, violation)) = play(site, &mut gate, &schedule, receiver, 40_000) else {
        unreachable!("there is no kernel to differ");
    };
    if let Some(violation) = violation {
        let name = receiver.0.name;
        unreachable!("{}, {name}: {violation}\n{schedule}", site.name);
    }
}

/// A step from a piece: a byte that says which, and what it needs.
fn step(piece: &[u8]) -> Option<Step> {
    let (kind, rest) = piece.split_first()?;
    let number = |at: usize| rest.get(at).copied().unwrap_or(0);
    let short = |at: usize| u16::from_be_bytes([number(at), number(at + 1)]);
    Some(match kind {
        0 => Step::acknowledge(),
        1 => Step::Acknowledge {
            back: number(0),
            window: short(1),
        },
        2 => Step::Forge(i32::from(short(0))),
        3 => Step::Release(number(0) & 1 != 0),
        4 => Step::Answer,
        5 => Step::Wait(short(0)),
        6 => Step::Reopen(u32::from(short(0)) << 16 | u32::from(short(2))),
        _ => Step::Send(Sent {
            at: i32::from(short(0)) - 64,
            flags: number(2),
            bare: number(3) & 1 != 0,
            urgent: u16::from(number(4)),
            acknowledges: match number(3) & 2 {
                0 => Acknowledges::All,
                _ => Acknowledges::Off(i32::from(number(4)) - 128),
            },
            spoil: match number(3) >> 2 & 3 {
                1 => Spoil::Checksum,
                2 => Spoil::HopLimit(number(4) % 4),
                _ => Spoil::Nothing,
            },
            fate: match number(3) >> 4 & 3 {
                1 => Fate::Lost,
                2 => Fate::Held,
                3 => Fate::Twice,
                _ => Fate::Arrives,
            },
            bytes: rest.get(5..).unwrap_or_default().to_vec(),
        }),
    })
}

/// The piece that becomes this step again, for seeds.
fn piece(step: &Step) -> Vec<u8> {
    match step {
        Step::Acknowledge { back, window } => {
            let [high, low] = window.to_be_bytes();
            vec![1, *back, high, low]
        }
        Step::Forge(number) => {
            let [.., high, low] = number.to_be_bytes();
            vec![2, high, low]
        }
        Step::Release(last_first) => vec![3, u8::from(*last_first)],
        Step::Answer => vec![4],
        Step::Wait(ticks) => {
            let [high, low] = ticks.to_be_bytes();
            vec![5, high, low]
        }
        Step::Reopen(first) => {
            let [a, b, c, d] = first.to_be_bytes();
            vec![6, a, b, c, d]
        }
        Step::Send(sent) => {
            let [.., high, low] = (sent.at + 64).to_be_bytes();
            let [.., urgent] = sent.urgent.to_be_bytes();
            let (mut how, mut number) = (u8::from(sent.bare), urgent);
            match sent.spoil {
                Spoil::Nothing => {}
                Spoil::Checksum => how |= 4,
                Spoil::HopLimit(limit) => (how, number) = (how | 8, limit),
            }
            how |= match sent.fate {
                Fate::Arrives => 0,
                Fate::Lost => 16,
                Fate::Held => 32,
                Fate::Twice => 48,
            };
            let mut bytes = vec![7, high, low, sent.flags, how, number];
            bytes.extend(&sent.bytes);
            bytes
        }
    }
}

/// The text of a policy, as far as maps.
///
/// # Panics
/// When it panics, or a refusal shows nothing.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let loaded = match load_text("policy.toml", text) {
        Ok(loaded) => loaded,
        Err(refusal) => {
            let shown = refusal.render();
            assert!(shown.contains("error"), "a refusal that shows nothing");
            return;
        }
    };
    let surroundings = Surroundings {
        ticks_per_second: TICKS_PER_SECOND,
        gateway_addresses: Vec::new(),
        generation: 1,
    };
    if let Err(refusal) = compile(&loaded.policy, &mut Ids::default(), &surroundings) {
        assert!(!refusal.render().is_empty(), "a refusal that shows nothing");
    }
}

/// Writes inputs to begin with, in a directory for each target.
///
/// # Errors
/// When a file cannot be written.
pub fn write_seeds(directory: &Path, rules: &Path) -> io::Result<()> {
    let write = |target: &str, name: String, bytes: &[u8]| {
        let directory = directory.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), bytes)
    };
    let frames: Vec<Vec<u8>> = good_frames(0).iter().map(Frame::build).collect();
    for (index, some) in frames.chunks(20).enumerate() {
        let bytes = joined(some.iter().map(Vec::as_slice));
        write("frame", format!("conversation-{index}"), &bytes)?;
    }
    for seed in 0..200_u64 {
        let [.., low] = seed.to_be_bytes();
        let site = &SITES[usize::from(low) % SITES.len()];
        let schedule = generator::schedule(site, seed);
        let pieces: Vec<Vec<u8>> = schedule.steps.iter().map(piece).collect();
        let mut bytes = vec![low, low / 2];
        bytes.extend(schedule.first.to_be_bytes());
        bytes.extend(joined(pieces.iter().map(Vec::as_slice)));
        write("stream", format!("schedule-{seed}"), &bytes)?;
    }
    for site in SITES {
        write(
            "policy",
            site.name.replace(' ', "-"),
            site.policy().as_bytes(),
        )?;
    }
    for directory in [rules.to_owned(), rules.join("rejected")] {
        for file in fs::read_dir(directory)? {
            let file = file?;
            if file.path().extension().is_some_and(|kind| kind == "toml") {
                let name = file.file_name().to_string_lossy().into_owned();
                write("policy", name, &fs::read(file.path())?)?;
            }
        }
    }
    Ok(())
}
