//! Wires between hosts and gateway, which hand the gateway its frames as the driver of a network card
//! does: in buffers of their own, with room in front and checksums that are finished.
//!
//! A veth alone hands over the very socket buffer that TCP holds on to for repetitions. Bare forwarding
//! then gets a buffer for nothing that a driver would have to build, and XDP has to copy what a driver
//! would have given it.

use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::XdpMode;
use conduitfw_tests::lab::{Host, Lab};

use crate::links;
use crate::pacer::Pacer;

/// The wires of a lab.
pub(crate) struct Wires {
    /// Keeps their programs attached.
    _programs: Vec<Pacer>,
}

impl Wires {
    /// Puts a wire between each host and the gateway.
    pub(crate) fn lay(lab: &Lab, floors: &Path) -> Result<Self> {
        let mut programs = Vec::new();
        for (zone, port) in [("operations", "eth0"), ("control", "eth1")] {
            lab.gateway().run(&format!("ethtool -K {port} gro on"))?;
            let wire = lay(lab.host(zone)?, floors);
            programs.push(wire.with_context(|| format!("no wire to {zone}"))?);
        }
        Ok(Self {
            _programs: programs,
        })
    }
}

/// What was the host's interface becomes the far end of the wire, `line`; the host gets another one like
/// it, with `card` as its other end. A program carries frames from the one to the other.
fn lay(host: &Host, floors: &Path) -> Result<Pacer> {
    let (mac, address) = (links::mac(host, "net0")?, links::address(host, "net0")?);
    let route = host.run("ip -4 route show default")?;
    for line in [
        "ip link set net0 down",
        "ip address flush dev net0",
        "ip link set net0 name line",
        // The gateway's neighbour is the host, whose address the wire does not bear.
        "ip link set line address 02:00:00:00:ff:01",
        "ip link add net0 type veth peer name card",
        &format!("ip link set net0 address {mac}"),
    ] {
        host.run(line)?;
    }
    for interface in ["net0", "card", "line"] {
        host.run(&format!(
            "sysctl -qw net.ipv6.conf.{interface}.disable_ipv6=1"
        ))?;
        // A veth takes frames from a program while its end polls; a frame on a wire has its checksum.
        host.run(&format!("ethtool -K {interface} gro on tx off"))?;
        host.run(&format!("ip link set {interface} up"))?;
    }
    host.run(&format!("ip address add {address} dev net0"))?;
    host.run(&format!("ip route replace {}", route.trim()))?;
    let mut pacer = Pacer::load(floors, 2, 2)?;
    pacer.join(links::ifindex(host, "line")?, links::ifindex(host, "card")?)?;
    for end in ["line", "card"] {
        let program = pacer.program("wire")?;
        host.enter(|| program.attach(end, XdpMode::Driver))?
            .with_context(|| format!("cannot attach to {end}"))?;
    }
    Ok(pacer)
}
