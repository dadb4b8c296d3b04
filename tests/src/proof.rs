//! The proof, part by part: each runs for as long as it is given, counts what it did, and says in
//! words what must not have happened.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::agreement;
use crate::honest::{self, Clients};
use crate::lab::{Carried, Conduitfw, Lab, Line};
use crate::oracle::gate::{Both, Gate, Simulated};
use crate::oracle::live::{self, Live};
use crate::oracle::receiver::MODELS;
use crate::oracle::site::{SITES, Site};
use crate::oracle::{Figures, attack};
use crate::peers::{Maker, Plc, strict_server};
use crate::scene::{DOSING, HMI, PLANT, PLC};

/// Frames that one run of [`agreement()`] holds against each other at least.
pub const AGREEMENT_FRAMES: u64 = 1_000_000;
/// Schedules between two looks at the clock.
const BATCH: u64 = 50;

/// How a part went.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What was counted, in the order in which it is told.
    pub figures: Vec<(&'static str, u64)>,
    /// What must not have happened.
    pub counterexamples: Vec<String>,
    /// What was left out, and why.
    pub left_out: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Part {
    /// Runs a part.
    pub fn run(name: &'static str, work: impl FnOnce(&mut Self) -> Result<()>) -> Self {
        let began = Instant::now();
        let mut part = Self {
            name,
            figures: Vec::new(),
            counterexamples: Vec::new(),
            left_out: None,
            seconds: 0.0,
        };
        if let Err(error) = work(&mut part) {
            part.counterexamples.push(format!("{error:#}"));
        }
        part.seconds = began.elapsed().as_secs_f64();
        part
    }

    /// Adds a figure.
    pub fn count(&mut self, what: &'static str, number: u64) {
        self.figures.push((what, number));
    }
}

/// The oracle against the decision in ordinary memory.
#[must_use]
pub fn oracle(seed: u64, time: Duration) -> Part {
    Part::run("oracle, decision", |part| {
        attacks(part, seed, time, |site| {
            Ok(Box::new(Simulated::new(site)?) as Box<dyn Gate>)
        })
    })
}

/// The oracle against the program in the kernel.
#[must_use]
pub fn oracle_in_kernel(seed: u64, time: Duration) -> Part {
    Part::run("oracle, kernel", |part| {
        attacks(part, seed, time, |site| {
            Ok(Box::new(Both::new(site)?) as Box<dyn Gate>)
        })
    })
}

fn attacks(
    part: &mut Part,
    seed: u64,
    time: Duration,
    gate: impl Fn(&Site) -> Result<Box<dyn Gate>>,
) -> Result<()> {
    let mut gates = Vec::new();
    for site in SITES {
        gates.push((site, gate(site)?));
    }
    // Loading eight programs may take longer than all the time that there is.
    let began = Instant::now();
    let (mut all, mut seed) = (Figures::default(), seed);
    'time: loop {
        for (site, gate) in &mut gates {
            let (figures, found) = attack(site, gate.as_mut(), seed, |so_far| {
                let is_over = began.elapsed() >= time && so_far.schedules != 0;
                so_far.schedules >= BATCH || is_over
            })?;
            all.schedules += figures.schedules;
            all.plays += figures.plays;
            all.frames += figures.frames;
            all.passed += figures.passed;
            all.requests += figures.requests;
            if let Some(found) = found {
                part.counterexamples.push(found.to_string());
                break 'time;
            }
        }
        seed += BATCH;
        if began.elapsed() >= time {
            break;
        }
    }
    let size = |number: usize| u64::try_from(number).unwrap_or(0);
    part.count("policies", size(SITES.len()));
    part.count("receivers", size(MODELS.len()));
    part.count("schedules", all.schedules);
    part.count("plays", all.plays);
    part.count("frames", all.frames);
    part.count("frames let through", all.passed);
    part.count("requests read", all.requests);
    Ok(())
}

/// Kernel and simulator on generated frames, at least [`AGREEMENT_FRAMES`] of them.
#[must_use]
pub fn agreement(seed: u64, time: Duration) -> Part {
    Part::run("agreement", |part| {
        let began = Instant::now();
        let figures = agreement::changed_frames(seed, |so_far| {
            so_far >= AGREEMENT_FRAMES && began.elapsed() >= time
        })?;
        part.count("frames", figures.frames);
        let reasons = u64::try_from(figures.reasons.len())?;
        part.count("reasons", reasons);
        Ok(())
    })
}

/// Kernel and simulator on the captures of a directory.
#[must_use]
pub fn captures(directory: Option<&Path>) -> Part {
    Part::run("agreement, captures", |part| {
        let Some(directory) = directory else {
            part.left_out = Some("no directory of captures was named".to_owned());
            return Ok(());
        };
        let all = agreement::captures(directory)?;
        part.count("captures", u64::try_from(all.len())?);
        let frames = all.iter().map(|(_, figures)| figures.frames).sum();
        part.count("frames", frames);
        Ok(())
    })
}

/// The oracle against servers of other people behind a real gateway.
#[must_use]
pub fn oracle_live(seed: u64, time: Duration) -> Part {
    Part::run("oracle, real servers", |part| {
        let began = Instant::now();
        let mut sum = live::Figures::default();
        let makers = [Maker::Libmodbus, Maker::Pymodbus];
        let count = u32::try_from(makers.len() * SITES.len())?;
        let mut turn = 0;
        for maker in makers {
            let mut live = Live::start(maker).with_context(|| format!("{maker:?}"))?;
            for site in SITES {
                turn += 1;
                let until = time / count * turn;
                let (figures, taken) =
                    live.attack(site, &live::policy_of(site), seed, |so_far| {
                        so_far.schedules >= 5 && began.elapsed() >= until
                    })?;
                sum.schedules += figures.schedules;
                sum.connections += figures.connections;
                sum.packets += figures.packets;
                sum.requests += figures.requests;
                part.counterexamples
                    .extend(taken.map(|taken| format!("{maker:?}, {}: {taken}", site.name)));
            }
        }
        part.count("schedules", sum.schedules);
        part.count("connections", sum.connections);
        part.count("packets", sum.packets);
        part.count("requests taken", sum.requests);
        Ok(())
    })
}

/// What becomes of denied segments in the runs of honest clients.
pub const HONEST_POLICIES: [&str; 3] = ["reset", "drop", "exception"];

/// The line of honest clients, on either side of the gateway.
const BAD_LINE: Line = Line {
    lost: 50,
    twice: 20,
    late: 50,
    delay: Duration::from_micros(300),
    lateness: Duration::from_millis(4),
};

/// Connections at a time at most: fewer than a listener keeps waiting. Beyond that it answers with
/// cookies, and each repeated SYN with another number.
const CONNECTIONS: u64 = 100;

/// What honest clients and their lines did.
#[derive(Debug)]
pub struct Honest {
    /// Transactions that completed.
    pub transactions: u64,
    /// Refusals with exception 01 among them.
    pub refusals: u64,
    /// Frames on the lines.
    pub frames: u64,
    /// Frames that the lines lost.
    pub lost: u64,
}

fn honest_policy(on_deny: &str) -> String {
    format!(
        "{PLANT}{DOSING}on_deny = \"{on_deny}\"\nnew_flows = \"unlimited\"\n
[[conduits.modbus]]
units = [1]
functions = [3]
holding_registers = [{{ first = 0, last = 99 }}]
[[conduits.modbus]]
units = [1]
functions = [6, 16]
holding_registers = [{{ first = 40, last = 49 }}]
values = {{ min = 0, max = 1500 }}
"
    )
}

/// Honest clients of a PLC behind a gateway, with a bad line on either side of it.
///
/// # Errors
/// When a transaction does not complete, or a connection ends.
pub fn honest_clients(on_deny: &str, transactions: u64, seed: u64) -> Result<Honest> {
    let policy = honest_policy(on_deny);
    let lab = Lab::for_policy(&policy)?;
    let lines = [
        lab.insert_relay("operations", BAD_LINE, seed)?,
        lab.insert_relay("control", BAD_LINE, !seed)?,
    ];
    let conduitfw = Conduitfw::start(&lab, &policy)?;
    for zone in ["operations", "control"] {
        // Lines as short as these would be known to the hosts of a plant.
        let host = lab.host(zone)?;
        let route = host.run("ip -4 route show default")?;
        host.run(&format!(
            "ip -4 route replace {} rto_min 20ms",
            route.trim()
        ))?;
        // As hosts have it; the lab's own gives up within seconds.
        host.run("sysctl -qw net.ipv4.tcp_retries2=15")?;
    }
    let control = lab.host("control")?;
    // tokio-modbus closes the connection where the specification wants an exception.
    let servers = if on_deny == "exception" {
        (None, Some(strict_server(control, (PLC, 502))?))
    } else {
        (Some(Plc::start(control, (PLC, 502))?), None)
    };
    let clients = Clients {
        connections: u16::try_from((transactions / 100).clamp(32, CONNECTIONS))?,
        transactions,
        outstanding: 8,
        writes: true,
        refused: on_deny == "exception",
        seed,
    };
    let server = SocketAddr::from((PLC, 502));
    let outcome = honest::run(lab.host("operations")?, HMI, server, clients);
    let done = outcome.with_context(|| {
        let status = conduitfw.json("status", &[]).unwrap_or_default();
        format!("on_deny {on_deny}; {status}")
    })?;
    drop(servers);
    let sum = |number: fn(&Carried) -> &AtomicU64| {
        let numbers = lines.iter().map(|line| number(line.carried()));
        numbers.map(|number| number.load(Ordering::Relaxed)).sum()
    };
    Ok(Honest {
        transactions: done.transactions.into_inner(),
        refusals: done.refusals.into_inner(),
        frames: sum(|carried| &carried.frames),
        lost: sum(|carried| &carried.lost),
    })
}

/// Honest clients, a third of the transactions with each way to deny.
#[must_use]
pub fn harmless(seed: u64, transactions: u64) -> Part {
    Part::run("honest clients", |part| {
        let mut sums = [0; 4];
        for on_deny in HONEST_POLICIES {
            let share = transactions.div_ceil(3);
            let honest = honest_clients(on_deny, share, seed)?;
            let numbers = [
                honest.transactions,
                honest.refusals,
                honest.frames,
                honest.lost,
            ];
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum += number;
            }
        }
        let [transactions, refusals, frames, lost] = sums;
        part.count("transactions complete", transactions);
        part.count("refusals", refusals);
        part.count("frames", frames);
        part.count("frames lost by the lines", lost);
        Ok(())
    })
}
