//! The two hosts that a question names: by asset, by zone, or by address.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::fields::did_you_mean;
use crate::policy::{AssetId, Policy, Zone, ZoneId};

/// Addresses of a zone that are looked at to find one that no asset has.
const HOSTS_TRIED: usize = 4096;

/// One end of what is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its address.
    pub address: IpAddr,
    /// The zone that the address belongs to.
    pub zone: Option<ZoneId>,
    /// The name of that zone.
    pub zone_name: Option<String>,
    /// The asset that has the address.
    pub asset: Option<AssetId>,
    /// The name of that asset.
    pub asset_name: Option<String>,
}

impl Party {
    fn new(policy: &Policy, address: IpAddr) -> Self {
        let zone = policy.zone_of(address);
        let asset = policy.asset_of(address);
        Self {
            address,
            zone,
            zone_name: zone.map(|zone| policy.zone_name(zone).to_owned()),
            asset: asset.map(|asset| asset.id),
            asset_name: asset.map(|asset| asset.name.clone()),
        }
    }

    /// Whether it is the machine itself.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.zone == Some(ZoneId::GATEWAY)
    }

    /// The asset, or the address with its zone, in a word or two.
    #[must_use]
    pub fn short(&self) -> String {
        match (&self.asset_name, &self.zone_name) {
            (Some(asset), _) => asset.clone(),
            (None, Some(zone)) => format!("{} ({zone})", self.address),
            (None, None) => self.address.to_string(),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone_name.as_deref().unwrap_or("no zone");
        match &self.asset_name {
            Some(asset) => write!(f, "{asset} ({}, {zone})", self.address),
            None => write!(f, "{} ({zone})", self.address),
        }
    }
}

/// A host and the port behind it, if there is one: `10.10.0.5:49152`, `[fd00::5]:49152`, `hmi-1:49152`.
pub(super) fn split_port(word: &str) -> (String, Option<u16>) {
    if word.parse::<IpAddr>().is_ok() {
        return (word.to_owned(), None);
    }
    if let Ok(socket) = word.parse::<SocketAddr>() {
        return (socket.ip().to_string(), Some(socket.port()));
    }
    match word
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse()))
    {
        Some((host, Ok(port))) if !host.is_empty() => (host.to_owned(), Some(port)),
        _ => (word.to_owned(), None),
    }
}

/// Both ends, with addresses of the same family.
///
/// # Errors
/// A name that the policy does not have, or two that share no family.
pub(super) fn both(policy: &Policy, from: &str, to: &str) -> Result<(Party, Party), String> {
    let (initiator, responder) = (named(policy, from)?, named(policy, to)?);
    let pair = initiator.iter().find_map(|one| {
        let mut others = responder.iter();
        let other = others.find(|other| one.is_ipv4() == other.is_ipv4())?;
        Some((*one, *other))
    });
    let (one, other) = pair.ok_or_else(|| {
        format!("`{from}` and `{to}` have no addresses of the same family (IPv4, IPv6)")
    })?;
    Ok((Party::new(policy, one), Party::new(policy, other)))
}

/// The addresses that a word for a host stands for.
fn named(policy: &Policy, word: &str) -> Result<Vec<IpAddr>, String> {
    if let Some(asset) = policy.assets.iter().find(|asset| asset.name == word) {
        return Ok(asset.addresses.clone());
    }
    if word == policy.zone_name(ZoneId::GATEWAY) {
        let own = policy.gateway_addresses.clone().unwrap_or_default();
        if own.is_empty() {
            return Err(
                "the policy does not say which addresses the gateway has: add them under \
                        [gateway] to ask about it"
                    .to_owned(),
            );
        }
        return Ok(own);
    }
    if let Some(zone) = policy.zones.iter().find(|zone| zone.name == word) {
        let free = free_addresses(policy, zone);
        if free.is_empty() {
            return Err(format!(
                "every address of zone `{word}` is an asset's: name one of them"
            ));
        }
        return Ok(free);
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok(vec![address.to_canonical()]);
    }
    let names: Vec<&str> = policy
        .assets
        .iter()
        .map(|asset| asset.name.as_str())
        .chain(policy.zones.iter().map(|zone| zone.name.as_str()))
        .collect();
    Err(format!(
        "`{word}` is neither an asset nor a zone nor an address{}",
        did_you_mean(word, &names)
    ))
}

/// Of each network of the zone, an address that is nobody else's.
fn free_addresses(policy: &Policy, zone: &Zone) -> Vec<IpAddr> {
    let is_free = |address: &IpAddr| {
        policy.zone_of(*address) == Some(zone.id) && policy.asset_of(*address).is_none()
    };
    let networks = zone.networks.iter();
    networks
        .filter_map(|network| network.hosts().take(HOSTS_TRIED).find(is_free))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::split_port;

    #[test]
    fn a_port_stands_behind_the_last_colon() {
        for (word, host, port) in [
            ("10.10.0.5", "10.10.0.5", None),
            ("10.10.0.5:49152", "10.10.0.5", Some(49_152)),
            ("fd00::5", "fd00::5", None),
            ("[fd00::5]:502", "fd00::5", Some(502)),
            ("hmi-1:1", "hmi-1", Some(1)),
            ("hmi-1", "hmi-1", None),
            ("hmi-1:x", "hmi-1:x", None),
            (":5", ":5", None),
        ] {
            assert_eq!(split_port(word), (host.to_owned(), port), "{word}");
        }
    }
}
