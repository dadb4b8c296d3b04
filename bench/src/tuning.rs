//! Settings of the gateway that people turn: what they do to transactions through it. Not part of
//! the usual run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cases::median;
use crate::paths::{Between, Field, percentiles};
use crate::peers::Load;
use crate::report::{Report, TuningRow};
use crate::site::Site;
use crate::targets::gateway;

/// The gateways.
const GATEWAYS: [&str; 3] = [gateway::BARE, gateway::CONDUITFW, gateway::FAST];

/// What is set on the gateway, for each of its interfaces `$i`, and how to take it back.
const SETTINGS: [(&str, &str, &str); 5] = [
    ("as it comes", "true", "true"),
    (
        "receive offload (NAPI) on",
        "ethtool -K $i gro on",
        "ethtool -K $i gro off",
    ),
    (
        "threaded NAPI",
        "ethtool -K $i gro on; echo 1 > /sys/class/net/$i/threaded",
        "echo 0 > /sys/class/net/$i/threaded; ethtool -K $i gro off",
    ),
    (
        "packets steered to processor 0",
        "echo 1 > /sys/class/net/$i/queues/rx-0/rps_cpus",
        "echo 0 > /sys/class/net/$i/queues/rx-0/rps_cpus",
    ),
    (
        "packets steered to processor 1",
        "echo 2 > /sys/class/net/$i/queues/rx-0/rps_cpus",
        "echo 0 > /sys/class/net/$i/queues/rx-0/rps_cpus",
    ),
];

/// How a setting is looked at: the words, connections, requests on their way, and the pace; as fast
/// as answers come without one. Last, whether client and server share a processor.
const LOADS: [(&str, usize, usize, Option<u32>, bool); 4] = [
    ("lock step, one core", 1, 1, None, true),
    ("lock step, two cores", 1, 1, None, false),
    ("1,000 a second, two cores", 1, 1, Some(1000), false),
    ("32 outstanding, two cores", 2, 16, None, false),
];

/// How long a gateway has its turn.
const SLICE: Duration = Duration::from_millis(150);

/// Every setting with every load, in turns.
pub(crate) fn measure(report: &mut Report, floors: &Path, registers: bool) -> Result<()> {
    let field = Field::build(
        &GATEWAYS,
        floors,
        registers,
        report.machine.processors,
        Between::Veth,
    )?;
    for (load, connections, outstanding, pace, is_shared) in LOADS {
        eprintln!("    {load}");
        field.pin(is_shared)?;
        let mut clients = field.connect(Load {
            connections,
            outstanding,
        })?;
        let places = SETTINGS.len() * clients.len();
        let mut rates = vec![Vec::new(); places];
        let mut latencies = vec![Vec::new(); places];
        for _ in 0..report.rounds {
            for (number, (_, on, off)) in SETTINGS.iter().enumerate() {
                for (at, site) in field.sites.iter().enumerate() {
                    set(site, on)?;
                    let seen = match pace {
                        Some(pace) => clients[at].paced(pace, SLICE * 2),
                        None => clients[at].run(SLICE),
                    };
                    set(site, off)?;
                    let seen = seen.with_context(|| site.name)?;
                    let place = number * clients.len() + at;
                    rates[place].push(seen.transactions as f64 / seen.seconds);
                    latencies[place].extend(seen.latencies);
                }
            }
        }
        for (number, (setting, ..)) in SETTINGS.iter().enumerate() {
            for (at, site) in field.sites.iter().enumerate() {
                let place = number * clients.len() + at;
                let of = percentiles(&mut latencies[place]);
                report.tuning.push(TuningRow {
                    load: load.to_owned(),
                    setting: (*setting).to_owned(),
                    gateway: site.name.to_owned(),
                    transactions_a_second: median(&mut rates[place]),
                    p50: of.p50,
                    p99: of.p99,
                    p99_9: of.p99_9,
                });
            }
        }
    }
    field.unpin()
}

/// Runs a line of the shell for both interfaces, where `/sys` is that of the gateway.
fn set(site: &Site, line: &str) -> Result<()> {
    let script = format!("for i in eth0 eth1; do {line}; done");
    let namespace = site.lab.gateway().namespace();
    let output = Command::new("ip")
        .args(["netns", "exec", namespace, "sh", "-ec", &script])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{line}`: {said}");
    Ok(())
}
