//! The controller: compiling and switching, memory and time at rest, events, and the way from the
//! start to the first frame judged.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conduitfw::policy::Ids;
use conduitfw_tests::lab::{Conduitfw, Lab};
use conduitfw_tests::load::retransmissions;
use serde_json::Value;
use toml::de::DeTable;

use crate::cases::median;
use crate::peers::{Clients, Load, Server, pin, unpin};
use crate::policy::{Extent, Policy};
use crate::rates::Range;
use crate::report::{ControlRow, Report};
use crate::rig::{Rig, USUAL_SIZES, tables};
use crate::site::{CLIENT, SERVER};
use crate::targets::{control, gateway};

/// Denied frames of one measurement.
const DENIALS: u32 = 524_288;

/// Rounds of a switch, at most: each takes half a second.
const ROUNDS: usize = 9;

/// How long the controller may take to let go of the policy before, once its operator has his answer: that is no
/// part of the next switch.
const AFTER_A_SWITCH: Duration = Duration::from_millis(200);

/// Figures of one kind, a round each.
struct Figures<'a> {
    report: &'a mut Report,
}

impl Figures<'_> {
    fn add(&mut self, name: &str, unit: &str, mut rounds: Vec<f64>) {
        let value = median(&mut rounds);
        self.report.control.push(ControlRow {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            min: rounds.first().copied().unwrap_or(0.0),
            max: rounds.last().copied().unwrap_or(0.0),
        });
    }
}

/// All of it.
pub(crate) fn measure(report: &mut Report, objects: &Path, registers: bool) -> Result<()> {
    eprintln!("==> controller");
    let rounds = report.rounds;
    unpin(0, report.machine.processors)?;
    let mut figures = Figures { report };
    let policy = |rules| {
        Policy::of(Extent {
            rules,
            ..Extent::SMALL
        })
        .text(registers)
    };
    for rules in [10, 1000, 10_000] {
        let text = policy(rules);
        let mut times = Vec::new();
        for _ in 0..rounds {
            let began = Instant::now();
            tables(&text, &mut Ids::default(), 1)?;
            times.push(milliseconds(began));
        }
        figures.add(&format!("compile {} rules", thousands(rules)), "ms", times);
    }
    let text = policy(10_000);
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        drop(DeTable::parse(&text).context("the policy is no TOML")?);
        times.push(milliseconds(began));
    }
    figures.add(control::TOML, "ms", times);
    let object = objects.join("conduitfw-ebpf");
    let mut rig = Rig::load(&object, &policy(10), USUAL_SIZES)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        rig.switch(0)?;
        times.push(milliseconds(began));
    }
    figures.add(control::EFFECT, "ms", times);
    switches(&mut figures, rounds, &policy).context("switching")?;
    start(&mut figures, rounds, &policy(10)).context("starting")?;
    events(&mut figures, &objects.join("floors"), registers).context("events")
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

fn thousands(number: usize) -> String {
    if number < 1000 {
        return number.to_string();
    }
    format!("{},{:03}", number / 1000, number % 1000)
}

/// Reloads, alone and while a client reads, and what the controller needs when nothing happens.
fn switches(
    figures: &mut Figures<'_>,
    rounds: usize,
    policy: &dyn Fn(usize) -> String,
) -> Result<()> {
    let lab = Lab::for_policy(&policy(10))?;
    let conduitfw = Conduitfw::start(&lab, &policy(10))?;
    let server = Server::start(lab.host("control")?, SERVER)?;
    let host = lab.host("operations")?;
    let sent_again = retransmissions(host)?;
    let load = Load {
        connections: 1,
        outstanding: 1,
    };
    let switch = |rules| -> Result<Vec<f64>> {
        let mut took = Vec::new();
        for _ in 0..rounds.min(ROUNDS) {
            // Away from it and back, so that every switch changes all of it.
            conduitfw.reload(&policy(20))?;
            thread::sleep(AFTER_A_SWITCH);
            let reload = conduitfw.reload(&policy(rules))?;
            anyhow::ensure!(reload.status == Some(0), "refused: {}", reload.said);
            took.push(reload.took.as_secs_f64() * 1000.0);
            thread::sleep(AFTER_A_SWITCH);
        }
        Ok(took)
    };
    for rules in [10, 1000, 10_000] {
        let name = format!("switch of {} rules, work", thousands(rules));
        figures.add(&name, "ms", switch(rules)?);
    }
    for rules in [10, 10_000] {
        let is_done = AtomicBool::new(false);
        let took = thread::scope(|scope| -> Result<Vec<f64>> {
            let client = scope.spawn(|| -> Result<()> {
                let mut clients = Clients::open(host, CLIENT, SERVER, load)?;
                while !is_done.load(Ordering::Relaxed) {
                    clients.run(Duration::from_millis(100))?;
                }
                Ok(())
            });
            let took = switch(rules);
            is_done.store(true, Ordering::Relaxed);
            let took = took?;
            let seen = client
                .join()
                .map_err(|_| anyhow::anyhow!("the client broke"))?;
            seen.context("a transaction failed")?;
            Ok(took)
        })?;
        let name = format!("switch of {} rules, beside traffic", thousands(rules));
        figures.add(&name, "ms", took);
    }
    let again = retransmissions(host)? - sent_again;
    figures.add(control::LOST, "frames", vec![again as f64]);
    drop(server);
    conduitfw.reload(&policy(10))?;
    let process = conduitfw.process().context("the controller is gone")?;
    let name = "controller at rest, 10 rules, resident";
    figures.add(name, "MiB", vec![resident(process)?]);
    conduitfw.reload(&policy(10_000))?;
    at_rest(figures, &conduitfw)
}

fn at_rest(figures: &mut Figures<'_>, conduitfw: &Conduitfw) -> Result<()> {
    let process = conduitfw.process().context("the controller is gone")?;
    thread::sleep(Duration::from_secs(1));
    let before = ran(process)?;
    let time = 5;
    thread::sleep(Duration::from_secs(time));
    let share = (ran(process)? - before) / (time as f64 * 1000.0) * 100.0;
    figures.add(control::RESIDENT, "MiB", vec![resident(process)?]);
    figures.add("maps, usual sizes", "MiB", vec![maps(conduitfw)?]);
    figures.add(control::AT_REST, "%", vec![share]);
    Ok(())
}

/// MiB of memory that a process has.
fn resident(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: f64 = kilobytes.context("no resident size")?.parse()?;
    Ok(kilobytes / 1024.0)
}

/// MiB of the maps.
fn maps(conduitfw: &Conduitfw) -> Result<f64> {
    let status = conduitfw.json("status", &[])?;
    let bytes = find(&status, "all_maps").and_then(Value::as_f64);
    Ok(bytes.context("no size")? / f64::from(1 << 20))
}

/// Milliseconds that a process of one thread has run. The times of `proc_pid_stat(5)` would not do: they
/// are counted in hundredths of a second, and one of those is beyond the target already.
fn ran(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    let nanoseconds = text.split_whitespace().next().context("no times")?;
    Ok(nanoseconds.parse::<f64>()? / 1e6)
}

fn start(figures: &mut Figures<'_>, rounds: usize, policy: &str) -> Result<()> {
    let lab = Lab::for_policy(policy)?;
    let mut times = Vec::new();
    for _ in 0..rounds.min(5) {
        let began = Instant::now();
        let conduitfw = Conduitfw::start(&lab, policy)?;
        times.push(milliseconds(began));
        drop(conduitfw);
    }
    figures.add("start to first frame judged", "ms", times);
    Ok(())
}

/// Denials as fast as they come, until every one is an event or counted as lost.
fn events(figures: &mut Figures<'_>, floors: &Path, registers: bool) -> Result<()> {
    let mut range = Range::build(gateway::DROPS, floors, registers)?;
    let before = Account::of(&range)?;
    let processors = figures.report.machine.processors;
    pin(0, processors.max(1) - 1)?;
    let began = Instant::now();
    range.blast(DENIALS)?;
    let took = began.elapsed().as_secs_f64();
    unpin(0, processors)?;
    let mut after = Account::of(&range)?;
    while after.delivered + after.lost < before.delivered + before.lost + f64::from(DENIALS)
        && began.elapsed() < Duration::from_secs(10)
    {
        thread::sleep(Duration::from_millis(20));
        after = Account::of(&range)?;
    }
    let whole = began.elapsed().as_secs_f64();
    let delivered = after.delivered - before.delivered;
    let lost = after.lost - before.lost;
    figures.add(
        "denials counted",
        "a second",
        vec![f64::from(DENIALS) / took],
    );
    figures.add(control::DELIVERED, "a second", vec![delivered / whole]);
    figures.add(
        "denials counted as lost events",
        "a second",
        vec![lost / took],
    );
    let unaccounted = f64::from(DENIALS) - delivered - lost;
    figures.add(control::UNACCOUNTED, "frames", vec![unaccounted]);
    Ok(())
}

/// What the controller says of events.
struct Account {
    delivered: f64,
    lost: f64,
}

impl Account {
    fn of(range: &Range) -> Result<Self> {
        let conduitfw = range.site.conduitfw.as_ref().context("no controller")?;
        let status = conduitfw.json("status", &[])?;
        let number = |key| find(&status, key).and_then(Value::as_f64);
        Ok(Self {
            delivered: number("events_delivered").context("no events_delivered")?,
            // Forwarding has a number of this name as well.
            lost: find(&status, "events")
                .and_then(|events| events.get("lost"))
                .and_then(Value::as_f64)
                .context("no lost events")?,
        })
    }
}

/// The first value of a key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map
            .get(key)
            .or_else(|| map.values().find_map(|inner| find(inner, key))),
        Value::Array(list) => list.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}
