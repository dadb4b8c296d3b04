//! What was wanted, held against what was found.

use crate::pairs::PAIRS;
use crate::report::{FLOOR, Report, TargetRow};

/// Loads of the paths, as they are named in the report.
pub(crate) mod load {
    /// One transaction at a time, client and server on one processor.
    pub(crate) const LOCK_STEP: &str = "lock step, one core";
    /// The same on veth alone.
    pub(crate) const LOCK_STEP_ON_VETH: &str = "lock step, one core, plain veth";
    /// Many requests on their way at once.
    pub(crate) const OUTSTANDING_16: &str = "16 outstanding";
    /// The same, twice as many.
    pub(crate) const OUTSTANDING_32: &str = "32 outstanding";
    /// The same on veth alone.
    pub(crate) const OUTSTANDING_32_ON_VETH: &str = "32 outstanding, plain veth";
    /// The same, client and server on one processor.
    pub(crate) const OUTSTANDING_32_ONE_CORE: &str = "32 outstanding, one core";
    /// Many clients.
    pub(crate) const CONNECTIONS_32: &str = "32 connections";
    /// Very many.
    pub(crate) const CONNECTIONS_1000: &str = "1,000 connections";
}

/// What the gateways do, as they are named in the report.
pub(crate) mod gateway {
    /// Nothing but forwarding.
    pub(crate) const BARE: &str = "bare forwarding";
    /// An XDP program that does nothing: what any firewall in XDP costs on these interfaces.
    pub(crate) const PASSING: &str = "XDP program that only passes";
    /// An XDP program that does what every stateful firewall has to: the floor, on a gateway.
    pub(crate) const FOLLOWING: &str = "XDP program that parses and looks a flow up";
    /// The same, dropping.
    pub(crate) const FOLLOWING_DROP: &str = "XDP program that looks a flow up and drops";
    /// An XDP program that asks the routing table for each frame and sends it on.
    pub(crate) const REDIRECTING: &str = "XDP program that only redirects";
    /// Connection tracking.
    pub(crate) const CONNTRACK: &str = "nftables, conntrack";
    /// The same, and the function code.
    pub(crate) const FUNCTION_CODE: &str = "nftables, conntrack, function code";
    /// This project.
    pub(crate) const CONDUITFW: &str = "conduitfw, kernel forwarding";
    /// This project, forwarding by itself.
    pub(crate) const FAST: &str = "conduitfw, fast forwarding";
    /// This project, which denies every frame.
    pub(crate) const DROPS: &str = "conduitfw, drops";
    /// A program that drops.
    pub(crate) const PLAIN_DROP: &str = "plain XDP_DROP";
}

/// How many of the frames that bare forwarding carries are to get through an inspection.
pub(crate) const PACKET_RATE: f64 = 0.97;

/// Every target, in the order of the list that was agreed.
pub(crate) fn judge(report: &Report) -> Vec<TargetRow> {
    let mut targets = frames(report);
    targets.extend(paths(report));
    targets.extend(control(report));
    targets
}

fn at_most(case: &str, bound: f64, of: &str, found: Option<f64>) -> TargetRow {
    TargetRow {
        case: case.to_owned(),
        wanted: format!("at most {bound} {of}"),
        is_met: found.is_some_and(|found| found <= bound),
        found,
        at_best: None,
        is_reachable: true,
    }
}

fn at_least(case: &str, bound: f64, of: &str, found: Option<f64>) -> TargetRow {
    TargetRow {
        case: case.to_owned(),
        wanted: format!("at least {bound} {of}"),
        is_met: found.is_some_and(|found| found >= bound),
        found,
        at_best: None,
        is_reachable: true,
    }
}

/// The same, beside what gateways made in this run that do less than any firewall has to. Where none of them
/// keeps the target, it is out of reach of any firewall on this machine.
fn at_least_as(
    case: &str,
    bound: f64,
    of: &str,
    found: Option<f64>,
    lesser: &[Option<f64>],
) -> TargetRow {
    let at_best = lesser.iter().copied().flatten().max_by(f64::total_cmp);
    TargetRow {
        at_best,
        is_reachable: at_best.is_none_or(|best| best >= bound),
        ..at_least(case, bound, of, found)
    }
}

fn frames(report: &Report) -> Vec<TargetRow> {
    let ratio = |one: &str, other: &str| Some(report.in_floors(one)? / report.in_floors(other)?);
    let floor = |name: &str, bound| at_most(name, bound, "x floor", ratio(name, FLOOR));
    let against = |name: &str, bound, other: &str, found| {
        at_most(name, bound, &format!("x `{other}`"), found)
    };
    let (new, insertion) = ("10 rules: new flow", "bare LRU insertion");
    let mut targets = vec![
        floor("ACK of an established flow", 1.3),
        floor("FC3, request", 2.0),
        floor("FC3, reply", 2.0),
        floor("16 ADUs in a segment, request", 8.0),
        floor("denied function, with its event", 3.0),
        against(new, 2.0, insertion, ratio(new, insertion)),
    ];
    for (frame, other, bound) in PAIRS {
        targets.push(against(frame, bound, other, report.pair(frame, other)));
    }
    targets
}

fn paths(report: &Report) -> Vec<TargetRow> {
    let rate = |gateway: &str| {
        let row = report.rates.iter().find(|row| row.gateway == gateway)?;
        Some(row.ratio)
    };
    let lock_step = |gateway| Some(report.path(load::LOCK_STEP, gateway)?.ratio_to_bare);
    let outstanding = |gateway| {
        Some(
            report
                .path(load::OUTSTANDING_32, gateway)?
                .ratio_to_function_code,
        )
    };
    let tail = || Some(report.path(load::LOCK_STEP, gateway::FAST)?.tail_to_bare);
    let bare = "x bare forwarding";
    vec![
        at_least_as(
            "packet rate, kernel forwarding",
            PACKET_RATE,
            bare,
            rate(gateway::CONDUITFW),
            &[rate(gateway::FOLLOWING)],
        ),
        at_least(
            "packet rate, fast forwarding",
            1.8,
            bare,
            rate(gateway::FAST),
        ),
        at_least_as(
            "denied frames dropped",
            0.8,
            "x plain XDP_DROP",
            rate(gateway::DROPS),
            &[rate(gateway::FOLLOWING_DROP)],
        ),
        at_least(
            "lock step, kernel forwarding",
            0.95,
            bare,
            lock_step(gateway::CONDUITFW),
        ),
        at_least(
            "lock step, fast forwarding",
            0.97,
            bare,
            lock_step(gateway::FAST),
        ),
        at_most("lock step, fast forwarding, p99.9", 1.0, bare, tail()),
        at_least_as(
            "32 outstanding, kernel forwarding",
            1.2,
            "x nftables with the function code",
            outstanding(gateway::CONDUITFW),
            &[outstanding(gateway::BARE), outstanding(gateway::PASSING)],
        ),
        at_least(
            "32 outstanding, fast forwarding",
            1.2,
            "x nftables with the function code",
            outstanding(gateway::FAST),
        ),
    ]
}

/// Figures of the controller, as they are named in the report.
pub(crate) mod control {
    /// Work of a switch.
    pub(crate) const SWITCH: &str = "switch of 10,000 rules, work";
    /// A tree of the same text as the TOML library makes it: by how much this machine is slow today.
    pub(crate) const TOML: &str = "read 10,000 rules, the TOML library alone";
    /// Read and compiled, in memory that is there.
    pub(crate) const COMPILE: &str = "compile 10,000 rules";
    /// The write that puts it in force.
    pub(crate) const EFFECT: &str = "switch of 10,000 rules, effect";
    /// What it cost.
    pub(crate) const LOST: &str = "switch of 10,000 rules, frames lost";
    /// Memory.
    pub(crate) const RESIDENT: &str = "controller at rest, 10,000 rules, resident";
    /// Time.
    pub(crate) const AT_REST: &str = "controller at rest, 10,000 rules, share of a core";
    /// Events that came out.
    pub(crate) const DELIVERED: &str = "denials delivered as events";
    /// Denials that are neither events nor counted as lost.
    pub(crate) const UNACCOUNTED: &str = "denials unaccounted";
}

fn control(report: &Report) -> Vec<TargetRow> {
    let most = |name: &str, bound, unit| at_most(name, bound, unit, report.figure(name));
    vec![
        most(control::SWITCH, 50.0, "ms"),
        most(control::EFFECT, 1.0, "ms"),
        most(control::LOST, 0.0, "frames"),
        most(control::RESIDENT, 32.0, "MiB"),
        most(control::AT_REST, 0.1, "%"),
        at_least(
            control::DELIVERED,
            200_000.0,
            "a second",
            report.figure(control::DELIVERED),
        ),
        most(control::UNACCOUNTED, 0.0, "frames"),
    ]
}
