//! The lab: a gateway and a host for every zone, in network namespaces of their own.
//!
//! All names begin with `cfw-` and the number of this process; nothing else on the machine is
//! touched. A [`Lab`] removes what it made when it goes, also on a panic, on Ctrl-C and on
//! SIGTERM.

mod events;
mod gateway;
mod host;
mod plan;
mod program;
mod relay;
mod tap;
mod vlan;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;
use std::{fs, process, thread};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

pub use events::Events;
pub use gateway::{Conduitfw, Files, Reload, binary};
pub use host::Host;
pub use plan::{Plan, ZonePlan};
pub use program::Program;
pub use relay::{Carried, Line, Relay};
pub use tap::Tap;

/// Namespaces (by prefix) and controllers that a signal has to remove.
static STANDING: Mutex<Vec<Removal>> = Mutex::new(Vec::new());
static ON_SIGNALS: Once = Once::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// What there is to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Removal {
    Namespaces(Vec<String>),
    Conduitfw(Files),
    Program(u32),
}

impl Removal {
    fn carry_out(&self) {
        match self {
            Self::Namespaces(names) => {
                for name in names {
                    let _ = Command::new("ip").args(["netns", "delete", name]).output();
                }
            }
            Self::Conduitfw(files) => files.remove(),
            Self::Program(process) => program::kill(*process),
        }
    }
}

fn standing(removal: Removal) {
    STANDING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(removal);
}

fn no_longer_standing(removal: &Removal) {
    let mut all = STANDING.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|other| other != removal);
}

/// From now on Ctrl-C and SIGTERM remove every lab of this process and end it.
pub fn remove_on_signals() {
    ON_SIGNALS.call_once(|| {
        thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build();
            let Ok(runtime) = runtime else { return };
            let number = runtime.block_on(async {
                let mut interrupt = signal(SignalKind::interrupt()).ok()?;
                let mut terminate = signal(SignalKind::terminate()).ok()?;
                tokio::select! {
                    _ = interrupt.recv() => Some(2),
                    _ = terminate.recv() => Some(15),
                }
            });
            let Some(number) = number else { return };
            let all = STANDING.lock().unwrap_or_else(PoisonError::into_inner);
            // The controllers came last and go first: they live in the namespaces.
            for removal in all.iter().rev() {
                removal.carry_out();
            }
            process::exit(128 + number);
        });
    });
}

/// Hosts around a gateway, up and routed, with no firewall yet.
#[derive(Debug)]
pub struct Lab {
    plan: Plan,
    gateway: Host,
    hosts: Vec<Host>,
    removal: Removal,
    taggers: Vec<Program>,
    kept: bool,
}

impl Lab {
    /// Builds the lab that fits this policy.
    ///
    /// # Errors
    /// When this is not root, `ip` or `nsenter` is missing, or the kernel refuses something.
    pub fn for_policy(text: &str) -> Result<Self> {
        Self::new(Plan::from_policy(text)?)
    }

    /// Builds a lab.
    ///
    /// # Errors
    /// When this is not root, `ip` or `nsenter` is missing, or the kernel refuses something.
    pub fn new(plan: Plan) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root: run this with sudo");
        }
        remove_on_signals();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = match count {
            0 => format!("cfw-{}", process::id()),
            more => format!("cfw-{}-{more}", process::id()),
        };
        let host = |name: &str| Host {
            namespace: format!("{prefix}-{name}"),
        };
        let gateway = host("gateway");
        let hosts: Vec<Host> = plan.zones.iter().map(|zone| host(&zone.name)).collect();
        let mut names = vec![gateway.namespace.clone()];
        names.extend(hosts.iter().map(|host| host.namespace.clone()));
        let mut lab = Self {
            plan,
            gateway,
            hosts,
            removal: Removal::Namespaces(names),
            taggers: Vec::new(),
            kept: false,
        };
        standing(lab.removal.clone());
        lab.taggers = lab.build().context("cannot build the lab")?;
        if !lab.taggers.is_empty() {
            // They have no sign of being ready; a client that waits for a second try is late.
            thread::sleep(Duration::from_millis(300));
        }
        Ok(lab)
    }

    /// The gateway, where conduitfw runs.
    #[must_use]
    pub fn gateway(&self) -> &Host {
        &self.gateway
    }

    /// The host that stands for a zone.
    ///
    /// # Errors
    /// When the policy has no such zone.
    pub fn host(&self, zone: &str) -> Result<&Host> {
        let found = self
            .plan
            .zones
            .iter()
            .zip(&self.hosts)
            .find(|(plan, _)| plan.name == zone);
        found
            .map(|(_, host)| host)
            .with_context(|| format!("the lab has no zone {zone}"))
    }

    /// What the lab was built from.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Leaves the lab standing when this value goes; the commands that remove it.
    pub fn keep(&mut self) -> Vec<String> {
        self.kept = true;
        no_longer_standing(&self.removal);
        let Removal::Namespaces(names) = &self.removal else {
            return Vec::new();
        };
        let deletions = names.iter().map(|name| format!("ip netns delete {name}"));
        let kills = self.taggers.iter_mut().map(Program::keep);
        kills.chain(deletions).collect()
    }

    /// Joins the ports of each bridge of the policy by a Linux bridge (`br0`, `br1`, ...) without an
    /// address, that leaves the spanning tree to others and passes LLDP on.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn bridge(&self) -> Result<()> {
        for (number, ports) in self.plan.bridges.iter().enumerate() {
            let gateway = &self.gateway;
            gateway.run(&format!(
                "ip link add br{number} type bridge stp_state 0 mcast_snooping 0 group_fwd_mask 0x4000"
            ))?;
            gateway.run(&format!(
                "sysctl -qw net.ipv6.conf.br{number}.disable_ipv6=1"
            ))?;
            for port in ports {
                gateway.run(&format!("ip link set {port} master br{number}"))?;
            }
            gateway.run(&format!("ip link set br{number} up"))?;
        }
        Ok(())
    }

    /// Sets an offload of every interface, for instance `tx off` or `tx on`.
    ///
    /// # Errors
    /// When `ethtool` is missing or refuses it.
    pub fn offload(&self, feature: &str) -> Result<()> {
        for host in self.hosts.iter().chain([&self.gateway]) {
            for interface in interfaces(host)? {
                // VLAN interfaces follow the interface below them.
                if !interface.contains('.') {
                    host.run(&format!("ethtool -K {interface} {feature}"))?;
                }
            }
        }
        Ok(())
    }

    fn build(&self) -> Result<Vec<Program>> {
        let mut taggers = Vec::new();
        for host in self.hosts.iter().chain([&self.gateway]) {
            host::run(
                Command::new("ip").args(["netns", "add", &host.namespace]),
                &format!("ip netns add {}", host.namespace),
            )?;
            // No duplicate address detection: addresses serve at once.
            host.run(
                "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
                 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
                 net.ipv4.tcp_retries2=5 net.ipv6.conf.all.router_solicitations=0 \
                 net.ipv6.conf.default.router_solicitations=0",
            )?;
            host.run("ip link set lo up")?;
        }
        self.gateway.run(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
             net.ipv4.icmp_ratelimit=0",
        )?;
        let mut wired: Vec<(&str, &Host)> = Vec::new();
        for (zone, host) in self.plan.zones.iter().zip(&self.hosts) {
            for (index, interface) in zone.interfaces.iter().enumerate() {
                if wired.iter().any(|(name, _)| name == interface) {
                    continue;
                }
                let peer = if index == 0 {
                    "net0".to_owned()
                } else {
                    format!("net{index}")
                };
                self.wire(interface, host, &peer)?;
                wired.push((interface, host));
            }
            let owner = wired.iter().find(|(name, _)| *name == zone.interfaces[0]);
            let owner = owner
                .map(|(_, host)| *host)
                .context("an interface is not wired")?;
            if owner != host && zone.vlans.is_empty() {
                share(owner, host)?;
            }
            taggers.extend(self.address(zone, host, owner)?);
        }
        Ok(taggers)
    }

    /// A veth pair between the gateway and a host. Tags and checksums stay in the frames, where
    /// an XDP program sees them as it would on a wire.
    fn wire(&self, interface: &str, host: &Host, peer: &str) -> Result<()> {
        let (gateway, there) = (&self.gateway.namespace, &host.namespace);
        let line = format!(
            "ip link add {interface} netns {gateway} type veth peer name {peer} netns {there}"
        );
        host::run(
            Command::new("ip").args(line.split_whitespace().skip(1)),
            &line,
        )?;
        for (end, name) in [(&self.gateway, interface), (host, peer)] {
            end.run(&format!("ethtool -K {name} txvlan off rxvlan off tx-vlan-stag-hw-insert off rx-vlan-stag-hw-parse off"))?;
            end.run(&format!("ip link set {name} up"))?;
        }
        // A veth takes frames that an XDP program sends back only while it polls, which
        // generic receive offload makes it do. A network card needs no such thing.
        host.run(&format!("ethtool -K {peer} gro on"))?;
        Ok(())
    }

    /// VLAN interfaces where the zone has tags, addresses and routes.
    fn address(&self, zone: &ZonePlan, host: &Host, owner: &Host) -> Result<Vec<Program>> {
        let mut taggers = Vec::new();
        let mut here = zone.interfaces[0].clone();
        let mut there = "net0".to_owned();
        if !zone.link.is_empty() {
            self.gateway
                .run(&format!("sysctl -qw net.ipv6.conf.{here}.disable_ipv6=1"))?;
        }
        if !zone.vlans.is_empty() {
            let (gateway, ids) = (&self.gateway, &zone.vlans);
            if zone.link.is_empty() {
                let (name, tagger) = vlan::add(gateway, &here, ids, gateway)?;
                here = name;
                taggers.extend(tagger);
            }
            let (name, tagger) = vlan::add(owner, &there, ids, host)?;
            there = name;
            taggers.extend(tagger);
        }
        for address in zone.gateway_addresses()? {
            self.gateway
                .run(&format!("ip address add {address} dev {here}"))?;
        }
        if !zone.networks.iter().any(|network| network.addr().is_ipv6()) {
            // Or it would look for neighbours and routers that the policy does not know.
            host.run(&format!("sysctl -qw net.ipv6.conf.{there}.disable_ipv6=1"))?;
        }
        for address in zone.host_addresses()? {
            host.run(&format!("ip address add {address} dev {there}"))?;
        }
        for address in zone.gateway_addresses()? {
            let family = if address.addr().is_ipv4() { "-4" } else { "-6" };
            let via = address.addr();
            // In a zone of several networks the first one's gateway address serves.
            host.run(&format!(
                "ip {family} route append default via {via} dev {there}"
            ))?;
        }
        Ok(taggers)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.kept {
            self.removal.carry_out();
            no_longer_standing(&self.removal);
        }
    }
}

/// A second host behind the same interface.
fn share(owner: &Host, host: &Host) -> Result<()> {
    owner.run("ip link add link net0 name shared type macvlan mode bridge")?;
    owner.run(&format!("ip link set shared netns {}", host.namespace))?;
    host.run("ip link set shared name net0")?;
    host.run("ip link set net0 up")?;
    Ok(())
}

fn interfaces(host: &Host) -> Result<Vec<String>> {
    let listed = host.run("ip -o link show type veth")?;
    let name = |line: &str| {
        let name = line.split(": ").nth(1)?;
        Some(name.split('@').next().unwrap_or(name).to_owned())
    };
    Ok(listed.lines().filter_map(name).collect())
}

/// True when this is not root, after saying so. With `CI=true` that is a failure instead: there, a
/// test that cannot run must not pass in silence.
///
/// # Panics
/// Without root when `CI` is `true`.
#[must_use]
pub fn skipped_without_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("skipped: needs root (network namespaces and BPF)");
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !in_ci,
            "this test needs root, and in CI no test may be skipped"
        );
    }
    !is_root
}

/// The kernel program, as `cargo xtask ebpf` builds it or `CONDUITFW_EBPF_OBJECT` names it. The path is
/// that of the build, so that a test which was carried into a virtual machine finds it there too.
#[must_use]
pub fn ebpf_object() -> std::path::PathBuf {
    std::env::var_os("CONDUITFW_EBPF_OBJECT").map_or_else(
        || {
            let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            tests
                .parent()
                .unwrap_or(tests)
                .join("target/bpf/bpfel-unknown-none/release/conduitfw-ebpf")
        },
        Into::into,
    )
}

/// The directory that cargo builds into, found from where this program lies.
///
/// # Errors
/// When this program was moved out of it.
pub fn target_directory() -> Result<std::path::PathBuf> {
    let this = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut directory = this.as_path();
    while let Some(parent) = directory.parent() {
        if parent.join("CACHEDIR.TAG").exists() {
            return Ok(parent.to_owned());
        }
        directory = parent;
    }
    bail!(
        "{} does not lie in cargo's target directory",
        this.display()
    )
}

/// The root of the sources.
#[must_use]
pub fn source_directory() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// A policy of `rules/`, by its file name.
///
/// # Errors
/// When there is no such file.
pub fn rules(name: &str) -> Result<String> {
    let path = source_directory().join("rules").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
