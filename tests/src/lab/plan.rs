//! What a lab looks like: the zones around the gateway, and how they are wired to it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde::Deserialize;

/// One zone: a host that has all the addresses, behind one interface of the gateway.
#[derive(Clone, Debug)]
pub struct ZonePlan {
    /// Its name in the policy.
    pub name: String,
    /// The gateway's interfaces. The first one is wired, the others only exist.
    pub interfaces: Vec<String>,
    /// VLAN ids from the outermost to the innermost; empty for untagged.
    pub vlans: Vec<u16>,
    /// Its networks; the gateway has the first host address of each.
    pub networks: Vec<IpNet>,
    /// The host's addresses.
    pub addresses: Vec<IpAddr>,
    /// Behind a port of a bridge: the networks of every zone on that bridge, which are one link.
    pub link: Vec<IpNet>,
}

/// The zones of a lab.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order of their names.
    pub zones: Vec<ZonePlan>,
    /// The ports of each bridge.
    pub bridges: Vec<Vec<String>>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    bridges: Vec<Bridge>,
    zones: BTreeMap<String, Zone>,
    #[serde(default)]
    assets: BTreeMap<String, Asset>,
}

#[derive(Deserialize)]
struct Bridge {
    ports: Vec<String>,
}

#[derive(Deserialize)]
struct Zone {
    interfaces: Vec<String>,
    networks: Vec<IpNet>,
    #[serde(default)]
    vlans: Vec<toml::Value>,
}

#[derive(Deserialize)]
struct Asset {
    zone: String,
    address: Option<IpAddr>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
}

impl Plan {
    /// The lab that fits a policy: a host for every zone, with the addresses of all its assets
    /// and one more in every network, which is no asset (see [`ZonePlan::stranger`]).
    ///
    /// # Errors
    /// When the text is no policy, or a zone has neither network nor interface.
    pub fn from_policy(text: &str) -> Result<Self> {
        let document: Document = toml::from_str(text).context("this is no policy")?;
        let bridges: Vec<_> = document.bridges.into_iter().map(|b| b.ports).collect();
        let bridge_of = |zone: &Zone| {
            let ports = |ports: &&Vec<String>| zone.interfaces.iter().any(|i| ports.contains(i));
            bridges.iter().position(|bridge| ports(&bridge))
        };
        let mut links: BTreeMap<usize, Vec<IpNet>> = BTreeMap::new();
        for zone in document.zones.values() {
            if let Some(bridge) = bridge_of(zone) {
                links.entry(bridge).or_default().extend(&zone.networks);
            }
        }
        let mut zones = Vec::new();
        for (name, zone) in document.zones {
            let link = bridge_of(&zone).and_then(|bridge| links.get(&bridge));
            let mut plan = ZonePlan {
                link: link.cloned().unwrap_or_default(),
                interfaces: zone.interfaces,
                vlans: zone
                    .vlans
                    .first()
                    .map(vlan_ids)
                    .transpose()?
                    .unwrap_or_default(),
                networks: zone.networks,
                addresses: Vec::new(),
                name,
            };
            if plan.interfaces.is_empty() || plan.networks.is_empty() {
                bail!("the zone {} has no interface or no network", plan.name);
            }
            for asset in document
                .assets
                .values()
                .filter(|asset| asset.zone == plan.name)
            {
                plan.addresses.extend(asset.address);
                plan.addresses.extend(&asset.addresses);
            }
            for network in plan.networks.clone() {
                // A network of one host behind a bridge has no room for another.
                match nth(network, 66) {
                    Ok(address) => plan.addresses.push(address),
                    Err(error) if plan.link.is_empty() => return Err(error),
                    Err(_) => {}
                }
            }
            zones.push(plan);
        }
        Ok(Self { zones, bridges })
    }
}

fn vlan_ids(value: &toml::Value) -> Result<Vec<u16>> {
    let text = match value {
        toml::Value::Integer(id) => id.to_string(),
        toml::Value::String(text) if text == "any" => return Ok(vec![10]),
        toml::Value::String(text) => text.clone(),
        other => bail!("{other} is no VLAN"),
    };
    text.split('.')
        .map(|id| id.parse().with_context(|| format!("{text} is no VLAN")))
        .collect()
}

impl ZonePlan {
    /// The gateway's addresses in this zone, with the length of the network's prefix; none on a
    /// bridge.
    ///
    /// # Errors
    /// When a network is too small.
    pub fn gateway_addresses(&self) -> Result<Vec<IpNet>> {
        if !self.link.is_empty() {
            return Ok(Vec::new());
        }
        let address = |network: &IpNet| Ok(IpNet::new(nth(*network, 1)?, network.prefix_len())?);
        self.networks.iter().map(address).collect()
    }

    /// The host's addresses, each with the prefix length of its network, in the order in which
    /// they are to be added so that the first one is the host's own choice.
    ///
    /// # Errors
    /// When an address lies in none of the zone's networks.
    pub fn host_addresses(&self) -> Result<Vec<IpNet>> {
        let address = |address: &IpAddr| {
            // On a bridge the widest is the link's.
            let mut networks: Vec<&IpNet> = self.networks.iter().chain(&self.link).collect();
            if !self.link.is_empty() {
                networks.sort_by_key(|network| network.prefix_len());
            }
            let network = networks
                .into_iter()
                .find(|network| network.contains(address));
            let network = network.with_context(|| {
                format!("{address} lies in none of the networks of {}", self.name)
            })?;
            Ok(IpNet::new(*address, network.prefix_len())?)
        };
        // Linux prefers the IPv4 address that came first and the IPv6 address that came last.
        let (first, last): (Vec<_>, Vec<_>) =
            self.addresses.iter().partition(|address| address.is_ipv4());
        first
            .iter()
            .chain(last.iter().rev())
            .copied()
            .map(address)
            .collect()
    }

    /// An address of the host that no asset of the policy has.
    #[must_use]
    pub fn stranger(&self, ipv6: bool) -> Option<IpAddr> {
        let network = self
            .networks
            .iter()
            .find(|network| network.addr().is_ipv6() == ipv6)?;
        nth(*network, 66).ok()
    }
}

/// The address `number` after the network's own; in a small network the last one before the end.
fn nth(network: IpNet, number: u8) -> Result<IpAddr> {
    let bits = network.max_prefix_len() - network.prefix_len();
    let last = if bits >= 8 {
        u8::MAX - 1
    } else {
        (1_u8 << bits).saturating_sub(2)
    };
    let number = number.min(last);
    if number == 0 {
        bail!("the network {network} is too small for the lab");
    }
    Ok(match network {
        IpNet::V4(network) => (u32::from(network.network()) + u32::from(number))
            .to_be_bytes()
            .into(),
        IpNet::V6(network) => (u128::from(network.network()) + u128::from(number))
            .to_be_bytes()
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_tells_the_lab() {
        let plan = Plan::from_policy(
            r#"
            [zones.operations]
            interfaces = ["eth0"]
            networks = ["10.10.0.0/24", "fd00:10::/64"]
            [zones.control]
            interfaces = ["eth1"]
            networks = ["10.20.0.8/29"]
            vlans = ["100.20"]
            [assets.plc]
            zone = "control"
            address = "10.20.0.10"
            "#,
        );
        let plan = plan.unwrap();
        let [control, operations] = plan.zones.as_slice() else {
            panic!("two zones")
        };
        assert_eq!(control.vlans, [100, 20]);
        assert_eq!(
            control.gateway_addresses().unwrap()[0].to_string(),
            "10.20.0.9/29"
        );
        assert_eq!(
            control.host_addresses().unwrap()[0].to_string(),
            "10.20.0.10/29"
        );
        assert_eq!(control.stranger(false).unwrap().to_string(), "10.20.0.14");
        assert_eq!(
            operations.stranger(true).unwrap().to_string(),
            "fd00:10::42"
        );
    }
}
