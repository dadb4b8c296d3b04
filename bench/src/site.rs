//! Gateways that differ in nothing but what filters there.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::XdpMode;
use conduitfw::policy::load_text;
use conduitfw_tests::lab::{Conduitfw, Lab};

use crate::pacer::Pacer;
use crate::policy::{Extent, Policy};
use crate::targets::gateway;

/// The lab gives every zone a host of this number.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 66));
/// Where the servers listen.
pub(crate) const SERVER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 20, 0, 10)), 502);

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

/// Flows that a yardstick can follow.
const FLOWS: u32 = 8192;
/// Room for the connections of all rounds: those that were closed are remembered for a minute.
const LIMITS: &str = "[settings.limits]\ninspected_flows = 32768\n";
/// Frames go on without the kernel's network stack.
const FAST: &str = "[settings]\nforwarding = \"fast\"\n";

/// Whether this build can forward by itself.
pub(crate) fn knows_fast() -> bool {
    let text = Policy::of(Extent::SMALL).text(false) + FAST;
    load_text("probe.toml", &text).is_ok()
}

/// The gateways of a comparison that exist in this build.
pub(crate) fn existing(names: &[&'static str]) -> Vec<&'static str> {
    let exists = |name: &&str| **name != *gateway::FAST || knows_fast();
    names.iter().filter(|name| exists(name)).copied().collect()
}

/// A gateway between a client and a server.
pub(crate) struct Site {
    /// What filters there.
    pub(crate) name: &'static str,
    /// The firewall, if it is ours. It goes before the lab does.
    pub(crate) conduitfw: Option<Conduitfw>,
    /// Keeps a program of the yardsticks attached.
    _yardstick: Option<Pacer>,
    /// The hosts.
    pub(crate) lab: Lab,
}

impl Site {
    /// Builds it; registers are named in the policy if rules can do that.
    pub(crate) fn build(name: &'static str, floors: &Path, registers: bool) -> Result<Self> {
        let policy = Policy::of(Extent::SMALL).text(registers) + LIMITS;
        let lab = Lab::for_policy(&policy)?;
        match name {
            gateway::CONNTRACK => load_rules(&lab, CONNTRACK)?,
            gateway::FUNCTION_CODE => load_rules(&lab, FUNCTION_CODE)?,
            _ => {}
        }
        let yardstick = match name {
            gateway::PASSING => Some(attach(&lab, floors, "nothing", &["eth0", "eth1"])?),
            gateway::REDIRECTING => Some(attach(&lab, floors, "forward", &["eth0", "eth1"])?),
            gateway::FOLLOWING => Some(attach(&lab, floors, "follow", &["eth0", "eth1"])?),
            gateway::PLAIN_DROP => Some(attach(&lab, floors, "drop", &["eth0"])?),
            gateway::FOLLOWING_DROP => Some(attach(&lab, floors, "follow_and_drop", &["eth0"])?),
            _ => None,
        };
        let conduitfw = match name {
            gateway::CONDUITFW | gateway::DROPS => Some(Conduitfw::start(&lab, &policy)?),
            gateway::FAST => Some(Conduitfw::start(&lab, &(policy + FAST))?),
            _ => None,
        };
        Ok(Self {
            name,
            conduitfw,
            _yardstick: yardstick,
            lab,
        })
    }

    /// What the firewall has to say, if it is ours.
    pub(crate) fn says(&self) -> String {
        let status = self
            .conduitfw
            .as_ref()
            .map(|ours| ours.output("status", &[]));
        match status {
            Some(Ok(output)) => format!("\n{}\n", String::from_utf8_lossy(&output.stdout)),
            _ => String::new(),
        }
    }

    /// Packets that the kernel's own stack forwarded.
    pub(crate) fn forwarded_by_kernel(&self) -> Result<u64> {
        let text = self.lab.gateway().run("cat /proc/net/snmp")?;
        let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = lines.next().zip(lines.next()).context("no statistics")?;
        let at = names.split(' ').position(|name| name == "ForwDatagrams");
        let value = at.and_then(|at| values.split(' ').nth(at));
        Ok(value.context("no ForwDatagrams")?.parse()?)
    }
}

fn load_rules(lab: &Lab, rules: &str) -> Result<()> {
    let file = std::env::temp_dir().join(format!("{}.nft", lab.gateway().namespace()));
    fs::write(&file, rules)?;
    let loaded = lab.gateway().run(&format!("nft -f {}", file.display()));
    fs::remove_file(&file)?;
    loaded.map(drop)
}

/// One of the yardsticks on interfaces of the gateway.
fn attach(lab: &Lab, floors: &Path, name: &str, interfaces: &[&str]) -> Result<Pacer> {
    let mut pacer = Pacer::load(floors, 2, FLOWS)?;
    let program = pacer.program(name)?;
    for interface in interfaces {
        lab.gateway()
            .enter(|| program.attach(interface, XdpMode::Driver))?
            .with_context(|| format!("cannot attach to {interface}"))?;
    }
    Ok(pacer)
}
