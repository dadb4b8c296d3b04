//! Real TCP through four gateways that differ in nothing but what filters there.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use conduitfw_tests::lab::{Conduitfw, Lab};

use crate::cases::median;
use crate::peers::{Load, Server, pin, unpin};
use crate::policy::{Extent, Policy};
use crate::report::{PathRow, Report};
use crate::targets::{gateway, load};

/// The lab gives every zone a host of this number.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 10, 0, 66));
const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 20, 0, 10));

/// Accepts what a connection tracker knows.
const CONNTRACK: &str = "\
table inet bench {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established accept
    ip saddr 10.10.0.0/16 ip daddr 10.20.0.10 tcp dport 502 ct state new accept
  }
}
";

/// The most that nftables can say about Modbus: the byte where a request's function code stands,
/// if the request begins with the segment.
const FUNCTION_CODE: &str = "\
table inet bench {
  chain forward {
    type filter hook forward priority 0; policy drop;
    tcp sport 502 ct state established accept
    ip daddr 10.20.0.10 tcp dport 502 ct state established @ih,56,8 3 accept
    ip daddr 10.20.0.10 tcp dport 502 ct state established ip length 40-60 accept
    ip saddr 10.10.0.0/16 ip daddr 10.20.0.10 tcp dport 502 ct state new tcp flags syn accept
  }
}
";

/// Room for the connections of all rounds: those that were closed are remembered for a minute.
const LIMITS: &str = "[settings.limits]\ninspected_flows = 32768\n";

/// A gateway between a client and a server.
pub(crate) struct Site {
    /// What filters there.
    pub(crate) name: &'static str,
    /// The firewall, if it is ours. It goes before the lab does.
    pub(crate) conduitfw: Option<Conduitfw>,
    /// The hosts.
    pub(crate) lab: Lab,
}

impl Site {
    /// Builds it.
    pub(crate) fn build(name: &'static str, policy: &str) -> Result<Self> {
        let lab = Lab::for_policy(policy)?;
        let rules = match name {
            gateway::CONNTRACK => Some(CONNTRACK),
            gateway::FUNCTION_CODE => Some(FUNCTION_CODE),
            _ => None,
        };
        if let Some(rules) = rules {
            let file = std::env::temp_dir().join(format!("{}.nft", lab.gateway().namespace()));
            fs::write(&file, rules)?;
            let loaded = lab.gateway().run(&format!("nft -f {}", file.display()));
            fs::remove_file(&file)?;
            loaded?;
        }
        let conduitfw = match name {
            gateway::CONDUITFW | gateway::DROPS => Some(Conduitfw::start(&lab, policy)?),
            _ => None,
        };
        Ok(Self {
            name,
            conduitfw,
            lab,
        })
    }
}

impl Site {
    /// What the firewall has to say, if it is ours.
    fn says(&self) -> String {
        let status = self
            .conduitfw
            .as_ref()
            .map(|ours| ours.output("status", &[]));
        match status {
            Some(Ok(output)) => format!("\n{}\n", String::from_utf8_lossy(&output.stdout)),
            _ => String::new(),
        }
    }
}

/// The loads, and whether client and server share a processor.
const LOADS: [(&str, Load, bool); 5] = [
    (load::LOCK_STEP, of(1, 1, 1000), true),
    (load::OUTSTANDING_16, of(1, 16, 500), false),
    // A connection has 16 at most: so many may be unanswered by the specification's guide.
    (load::OUTSTANDING_32, of(2, 16, 500), false),
    (load::CONNECTIONS_32, of(32, 1, 500), false),
    (load::CONNECTIONS_1000, of(1000, 1, 500), false),
];

const fn of(connections: usize, outstanding: usize, milliseconds: u64) -> Load {
    Load {
        connections,
        outstanding,
        time: Duration::from_millis(milliseconds),
    }
}

/// What one gateway did with one load.
#[derive(Default)]
struct Outcome {
    rates: Vec<f64>,
    latencies: Vec<u32>,
}

/// Every load through every gateway, once a round.
pub(crate) fn measure(report: &mut Report, registers: bool) -> Result<()> {
    eprintln!("==> paths: {} rounds", report.rounds);
    let policy = Policy::of(Extent::SMALL).text(registers) + LIMITS;
    let names = [
        gateway::BARE,
        gateway::CONNTRACK,
        gateway::FUNCTION_CODE,
        gateway::CONDUITFW,
    ];
    let sites: Vec<Site> = names
        .into_iter()
        .map(|name| Site::build(name, &policy).context(name))
        .collect::<Result<_>>()?;
    let address = SocketAddr::new(SERVER, 502);
    let servers: Vec<Server> = sites
        .iter()
        .map(|site| Server::start(site.lab.host("control")?, address))
        .collect::<Result<_>>()?;
    let processors = report.machine.processors.max(1);
    let last = processors - 1;
    let mut results: Vec<Vec<Outcome>> = Vec::new();
    results.resize_with(LOADS.len(), || {
        std::iter::repeat_with(Outcome::default)
            .take(sites.len())
            .collect()
    });
    for _ in 0..report.rounds {
        for ((name, load, is_shared), results) in LOADS.iter().zip(&mut results) {
            for ((site, server), result) in sites.iter().zip(&servers).zip(results) {
                server.pin(if *is_shared { last } else { 0 })?;
                pin(0, last)?;
                let host = site.lab.host("operations")?;
                let seen = load.run(host, CLIENT, address);
                let seen = seen.with_context(|| format!("{name}, {}{}", site.name, site.says()))?;
                result.rates.push(seen.transactions as f64 / seen.seconds);
                result.latencies.extend(seen.latencies);
            }
        }
    }
    unpin(0, processors)?;
    for ((name, ..), mut results) in LOADS.iter().zip(results) {
        let bare = results[0].rates.clone();
        for (site, result) in sites.iter().zip(&mut results) {
            report.paths.push(row(name, site.name, result, &bare));
        }
    }
    Ok(())
}

fn row(load: &str, gateway: &str, result: &mut Outcome, bare: &[f64]) -> PathRow {
    let mut ratios: Vec<f64> = result
        .rates
        .iter()
        .zip(bare)
        .map(|(one, bare)| one / bare)
        .collect();
    result.latencies.sort_unstable();
    let of_thousand = |thousandth: usize| {
        let at = result.latencies.len() * thousandth / 1000;
        let at = at.min(result.latencies.len().saturating_sub(1));
        result
            .latencies
            .get(at)
            .map_or(0.0, |ns| f64::from(*ns) / 1000.0)
    };
    let (p50, p99, p99_9, max_us) = (
        of_thousand(500),
        of_thousand(990),
        of_thousand(999),
        of_thousand(1000),
    );
    PathRow {
        load: load.to_owned(),
        gateway: gateway.to_owned(),
        transactions_a_second: median(&mut result.rates),
        min: result.rates.first().copied().unwrap_or(0.0),
        max: result.rates.last().copied().unwrap_or(0.0),
        ratio_to_bare: median(&mut ratios),
        p50,
        p99,
        p99_9,
        max_us,
    }
}
