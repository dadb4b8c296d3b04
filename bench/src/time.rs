//! What a gateway adds to a transaction when there are few of them, as in a real plant: then it is
//! not the work that takes the time, but to wake up for it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::paths::{Between, Field, percentiles};
use crate::peers::Load;
use crate::report::{Report, TimeRow};
use crate::targets::gateway;

/// The gateways, bare forwarding first.
const GATEWAYS: [&str; 5] = [
    gateway::BARE,
    gateway::PASSING,
    gateway::FUNCTION_CODE,
    gateway::CONDUITFW,
    gateway::FAST,
];

/// Transactions a second, and how long one gateway has its turn.
const PACES: [(u32, Duration); 2] = [
    (100, Duration::from_millis(1200)),
    (1000, Duration::from_millis(800)),
];

/// One client that asks at an even pace, through every gateway in turn.
pub(crate) fn measure(report: &mut Report, floors: &Path, registers: bool) -> Result<()> {
    eprintln!("==> time: {} rounds", report.rounds);
    let field = Field::build(
        &GATEWAYS,
        floors,
        registers,
        report.machine.processors,
        Between::Wires,
    )?;
    // Client and server have a processor each: the one sleeps while the other works.
    field.pin(false)?;
    let load = Load {
        connections: 1,
        outstanding: 1,
    };
    for (pace, slice) in PACES {
        let mut clients = field.connect(load)?;
        let mut latencies: Vec<Vec<u32>> = vec![Vec::new(); clients.len()];
        for turn in 0..report.rounds {
            for step in 0..clients.len() {
                let at = (turn + step) % clients.len();
                let site = &field.sites[at];
                let seen = clients[at].paced(pace, slice);
                let seen = seen.with_context(|| format!("{}{}", site.name, site.says()))?;
                latencies[at].extend(seen.latencies);
            }
        }
        let mut rows: Vec<TimeRow> = Vec::new();
        for (site, latencies) in field.sites.iter().zip(&mut latencies) {
            let row = row(pace, site.name, latencies, rows.first());
            rows.push(row);
        }
        report.time.extend(rows);
    }
    field.unpin()
}

fn row(pace: u32, gateway: &str, latencies: &mut [u32], bare: Option<&TimeRow>) -> TimeRow {
    let of = percentiles(latencies);
    let count = latencies.len().max(1) as f64;
    let mean = latencies.iter().map(|ns| f64::from(*ns)).sum::<f64>() / count;
    let squares = latencies.iter().map(|ns| (f64::from(*ns) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / count).sqrt();
    TimeRow {
        transactions_a_second: pace,
        gateway: gateway.to_owned(),
        transactions: latencies.len(),
        p50: of.p50,
        p99: of.p99,
        p99_9: of.p99_9,
        max_us: of.max,
        deviation: deviation / 1000.0,
        added: bare.map_or(0.0, |bare| of.p50 - bare.p50),
        added_p99: bare.map_or(0.0, |bare| of.p99 - bare.p99),
    }
}
