//! The interfaces: who drives them, and what they do to a frame before the program sees it.

use std::{fs, path::Path};

use super::Finding;
use crate::shell;

/// Drivers known to run XDP programs themselves (native mode).
const NATIVE: [&str; 24] = [
    "atlantic",
    "bnxt_en",
    "cpsw",
    "dpaa2-eth",
    "dpaa_eth",
    "ena",
    "enetc",
    "fec",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "macb",
    "mlx4_core",
    "mlx5_core",
    "mvneta",
    "sfc",
    "stmmac",
    "tun",
    "veth",
    "virtio_net",
];

/// All about the interfaces.
pub(super) fn findings() -> Vec<Finding> {
    let mut findings = vec![super::veth::finding()];
    let entries = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in names.iter().filter(|name| *name != "lo") {
        findings.push(driver(name));
        findings.extend(vlan_offload(name));
    }
    findings
}

fn driver(interface: &str) -> Finding {
    let topic = format!("interface {interface}");
    let Some(driver) = driver_of(interface) else {
        return Finding::good(
            &topic,
            "no device behind it: generic mode, or native for veth",
        );
    };
    if NATIVE.contains(&driver.as_str()) {
        return Finding::good(&topic, format!("driver {driver}, native mode"));
    }
    Finding::fair(
        &topic,
        format!("driver {driver}, generic mode unless it has learnt better"),
        "works, and slower; a network card with native XDP is faster",
    )
}

fn driver_of(interface: &str) -> Option<String> {
    let link = Path::new("/sys/class/net")
        .join(interface)
        .join("device/driver");
    Some(
        fs::read_link(link)
            .ok()?
            .file_name()?
            .to_string_lossy()
            .into_owned(),
    )
}

/// A card that takes the VLAN tag off hides it from the program.
fn vlan_offload(interface: &str) -> Option<Finding> {
    let features = shell::capture(shell::command("ethtool").args(["-k", interface])).ok()?;
    let topic = format!("vlan tags on {interface}");
    Some(match feature(&features, "rx-vlan-offload")? {
        "on" => Finding::fair(
            &topic,
            "rx-vlan-offload is on: the card may hide the tags from the program",
            format!("if its zone has VLANs: ethtool -K {interface} rxvlan off"),
        ),
        "on [fixed]" => Finding::fair(
            &topic,
            "rx-vlan-offload is on and cannot be turned off",
            "use another card for zones with VLANs",
        ),
        _ => Finding::good(&topic, "left on the frame, the program sees them"),
    })
}

fn feature<'a>(features: &'a str, name: &str) -> Option<&'a str> {
    features
        .lines()
        .find_map(|line| Some(line.trim().strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offload_is_read() {
        let features = "Features for eth0:\nrx-vlan-offload: on [fixed]\ntx-vlan-offload: off\n";
        assert_eq!(feature(features, "rx-vlan-offload"), Some("on [fixed]"));
        assert_eq!(feature(features, "rx-vlan"), None);
    }
}
