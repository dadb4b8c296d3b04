//! Real TCP through gateways that differ in nothing but what filters there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cases::median;
use crate::peers::{Clients, Load, Seen, Server, pin, unpin, urgent};
use crate::report::{PathRow, Report};
use crate::site::{CLIENT, SERVER, Site, existing};
use crate::targets::{gateway, load};
use crate::wires::Wires;

/// The gateways, bare forwarding first.
const GATEWAYS: [&str; 6] = [
    gateway::BARE,
    gateway::PASSING,
    gateway::CONNTRACK,
    gateway::FUNCTION_CODE,
    gateway::CONDUITFW,
    gateway::FAST,
];

/// What clients do, and how often each gateway has its turn.
#[derive(Clone, Copy)]
struct Course {
    name: &'static str,
    load: Load,
    /// Whether client and server share a processor.
    is_shared: bool,
    /// Turns of a round. What else the machine does changes from second to second: gateways that are to be
    /// compared take turns faster than that.
    turns: usize,
    /// The same, of [`IN_THE_TAIL`] alone.
    further_turns: usize,
}

impl Course {
    const fn of(name: &'static str, load: Load) -> Self {
        Self {
            name,
            load,
            is_shared: false,
            turns: 2,
            further_turns: 0,
        }
    }

    const fn on_one_core(self) -> Self {
        Self {
            is_shared: true,
            ..self
        }
    }

    const fn turns(self, turns: usize, further_turns: usize) -> Self {
        Self {
            turns,
            further_turns,
            ..self
        }
    }
}

/// What one transaction of a thousand takes longer than is of one turn the fourth longest or so, and another thing in
/// each: it takes many turns to hold the gateways against each other whose tail is a target.
const IN_THE_TAIL: [&str; 2] = [gateway::BARE, gateway::FAST];

const COURSES: [Course; 6] = [
    Course::of(load::LOCK_STEP, of(1, 1))
        .on_one_core()
        .turns(3, 27),
    Course::of(load::OUTSTANDING_16, of(1, 16)),
    // A connection has 16 at most: so many may be unanswered by the specification's guide.
    Course::of(load::OUTSTANDING_32, of(2, 16)).turns(3, 0),
    Course::of(load::OUTSTANDING_32_ONE_CORE, of(2, 16)).on_one_core(),
    Course::of(load::CONNECTIONS_32, of(32, 1)),
    Course::of(load::CONNECTIONS_1000, of(1000, 1)),
];

/// The same on veth alone, where XDP has to copy what it is given.
const COURSES_ON_VETH: [Course; 2] = [
    Course::of(load::LOCK_STEP_ON_VETH, of(1, 1)).on_one_core(),
    Course::of(load::OUTSTANDING_32_ON_VETH, of(2, 16)),
];

/// What is between hosts and gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    /// What hands the gateway its frames as a network card does.
    Wires,
    /// A veth alone.
    Veth,
}

/// How long one gateway is under load before the next has its turn.
const SLICE: Duration = Duration::from_millis(120);

const fn of(connections: usize, outstanding: usize) -> Load {
    Load {
        connections,
        outstanding,
    }
}

/// What one gateway did with one load.
#[derive(Default)]
struct Outcome {
    /// By turn.
    rates: Vec<f64>,
    /// The same: what one transaction of a thousand takes longer than.
    tails: Vec<f64>,
    latencies: Vec<u32>,
}

impl Outcome {
    /// Of a turn that not all gateways have only the tail counts: the rest is of another time than theirs.
    fn add(&mut self, mut seen: Seen, is_common: bool) {
        self.tails.push(percentiles(&mut seen.latencies).p99_9);
        if is_common {
            self.rates.push(seen.transactions as f64 / seen.seconds);
            self.latencies.extend(seen.latencies);
        }
    }
}

/// The gateways and a server behind each.
pub(crate) struct Field {
    /// In the order that they were named.
    pub(crate) sites: Vec<Site>,
    servers: Vec<Server>,
    _wires: Vec<Wires>,
    processors: usize,
}

impl Field {
    /// Builds those of them that exist.
    pub(crate) fn build(
        names: &[&'static str],
        floors: &Path,
        registers: bool,
        processors: usize,
        between: Between,
    ) -> Result<Self> {
        let mut sites = Vec::new();
        let mut servers = Vec::new();
        let mut wires = Vec::new();
        for name in existing(names) {
            let site = Site::build(name, floors, registers).context(name)?;
            if between == Between::Wires {
                wires.push(Wires::lay(&site.lab, floors).context(name)?);
            }
            servers.push(Server::start(site.lab.host("control")?, SERVER)?);
            sites.push(site);
        }
        Ok(Self {
            sites,
            servers,
            _wires: wires,
            processors: processors.max(1),
        })
    }

    /// Keeps this thread on the last processor, and the servers with it or on the first, all of
    /// them before whatever else the machine does.
    pub(crate) fn pin(&self, is_shared: bool) -> Result<()> {
        let last = self.processors - 1;
        for server in &self.servers {
            server.pin(if is_shared { last } else { 0 })?;
            server.urgent(true);
        }
        urgent(0, true);
        pin(0, last)
    }

    /// Lets this thread go.
    pub(crate) fn unpin(&self) -> Result<()> {
        urgent(0, false);
        unpin(0, self.processors)
    }

    /// Connections through each of the gateways.
    pub(crate) fn connect(&self, load: Load) -> Result<Vec<Clients>> {
        let open = |site: &Site| {
            let clients = Clients::open(site.lab.host("operations")?, CLIENT, SERVER, load);
            clients.with_context(|| format!("{}{}", site.name, site.says()))
        };
        self.sites.iter().map(open).collect()
    }
}

/// Every load through every gateway, in turns.
pub(crate) fn measure(report: &mut Report, floors: &Path, registers: bool) -> Result<()> {
    eprintln!("==> paths: {} rounds", report.rounds);
    for (between, courses) in [
        (Between::Wires, &COURSES[..]),
        (Between::Veth, &COURSES_ON_VETH[..]),
    ] {
        let processors = report.machine.processors;
        let field = Field::build(&GATEWAYS, floors, registers, processors, between)?;
        for course in courses {
            run(report, &field, course).context(course.name)?;
        }
        field.unpin()?;
    }
    Ok(())
}

fn run(report: &mut Report, field: &Field, course: &Course) -> Result<()> {
    eprintln!("    {}", course.name);
    field.pin(course.is_shared)?;
    let mut clients = field.connect(course.load)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    outcomes.resize_with(clients.len(), Outcome::default);
    let everybody: Vec<usize> = (0..clients.len()).collect();
    let in_the_tail = |at: &usize| IN_THE_TAIL.contains(&field.sites[*at].name);
    let some: Vec<usize> = everybody.iter().copied().filter(in_the_tail).collect();
    for (turns, gateways, is_common) in [
        (course.turns, everybody, true),
        (course.further_turns, some, false),
    ] {
        for turn in 0..report.rounds * turns {
            // Nobody always follows the same one.
            for step in 0..gateways.len() {
                let at = gateways[(turn + step) % gateways.len()];
                let seen = clients[at].run(SLICE);
                let site = &field.sites[at];
                let seen = seen.with_context(|| format!("{}{}", site.name, site.says()))?;
                outcomes[at].add(seen, is_common);
            }
        }
    }
    let by_gateway = |of: fn(&Outcome) -> &Vec<f64>| -> Vec<(&str, Vec<f64>)> {
        let names = field.sites.iter().map(|site| site.name);
        names
            .zip(outcomes.iter().map(|one| of(one).clone()))
            .collect()
    };
    let rates = by_gateway(|outcome| &outcome.rates);
    let tails = by_gateway(|outcome| &outcome.tails);
    for (site, outcome) in field.sites.iter().zip(&mut outcomes) {
        let row = row(course.name, site.name, outcome, &rates, &tails);
        report.paths.push(row);
    }
    Ok(())
}

/// The median of the ratios of turns that stood side by side.
fn ratio(ours: &[f64], all: &[(&str, Vec<f64>)], other: &str) -> f64 {
    let Some((_, theirs)) = all.iter().find(|(name, _)| *name == other) else {
        return 0.0;
    };
    let mut ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(one, two)| one / two)
        .collect();
    median(&mut ratios)
}

fn row(
    load: &str,
    gateway: &str,
    outcome: &mut Outcome,
    rates: &[(&str, Vec<f64>)],
    tails: &[(&str, Vec<f64>)],
) -> PathRow {
    let ratio_to = |other| ratio(&outcome.rates, rates, other);
    let (ratio_to_bare, ratio_to_passing, ratio_to_function_code) = (
        ratio_to(gateway::BARE),
        ratio_to(gateway::PASSING),
        ratio_to(gateway::FUNCTION_CODE),
    );
    let tail_to_bare = ratio(&outcome.tails, tails, gateway::BARE);
    let of = percentiles(&mut outcome.latencies);
    let [low, middle, high] = quartiles(&mut outcome.rates);
    PathRow {
        load: load.to_owned(),
        gateway: gateway.to_owned(),
        transactions_a_second: middle,
        low,
        high,
        ratio_to_bare,
        ratio_to_passing,
        ratio_to_function_code,
        p50: of.p50,
        p99: of.p99,
        p99_9: of.p99_9,
        tail_to_bare,
        max_us: of.max,
    }
}

/// The values at a quarter, at the half and at three quarters.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    let middle = median(values);
    let at = |quarter: usize| {
        let at = values.len().saturating_sub(1) * quarter / 4;
        values.get(at).copied().unwrap_or(0.0)
    };
    [at(1), middle, at(3)]
}

/// Microseconds of transactions.
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

/// Sorts nanoseconds and looks them up.
pub(crate) fn percentiles(latencies: &mut [u32]) -> Percentiles {
    latencies.sort_unstable();
    let of_thousand = |thousandth: usize| {
        let at = latencies.len() * thousandth / 1000;
        let at = at.min(latencies.len().saturating_sub(1));
        latencies.get(at).map_or(0.0, |ns| f64::from(*ns) / 1000.0)
    };
    Percentiles {
        p50: of_thousand(500),
        p99: of_thousand(990),
        p99_9: of_thousand(999),
        max: of_thousand(1000),
    }
}
