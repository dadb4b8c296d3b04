//! Single rows: of the generation, of conduits, of interfaces and of networks.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use conduitfw_common::Verdict;
use conduitfw_common::forward::port_flag;
use conduitfw_common::table::{
    self, Address, Conduit as ConduitRow, Generation, Interface, MAX_INTERFACES, MAX_NETWORKS,
    Network, SLOTS, forwarding,
};
use ipnet::IpNet;

use super::super::diagnostic::Diagnostics;
use super::super::model::{Bridge, Conduit, Forwarding, Mode, NewFlows, OnDeny, Policy, Vlans};
use super::super::resolve::does_not_fit;
use super::super::source::Span;
use super::Surroundings;

pub(super) fn generation(policy: &Policy, surroundings: &Surroundings) -> Generation {
    let hz = surroundings.ticks_per_second;
    let timeouts = &policy.timeouts;
    Generation {
        number: surroundings.generation,
        observe: u32::from(policy.mode == Mode::Observe),
        tcp_established_ticks: ticks(timeouts.tcp_established, hz),
        tcp_opening_ticks: ticks(timeouts.tcp_opening, hz),
        tcp_closing_ticks: ticks(timeouts.tcp_closing, hz),
        datagram_ticks: ticks(timeouts.datagram, hz),
        datagram_opening_ticks: ticks(timeouts.datagram_opening, hz),
        ticks_per_second: hz,
        reply_ticks: ticks(timeouts.modbus_reply, hz),
        forwarding: match policy.forwarding {
            Forwarding::Kernel => forwarding::KERNEL,
            Forwarding::Fast => forwarding::FAST,
        },
    }
}

/// A bridge's ports, and what of the link they pass on.
pub(super) fn bridge(bridge: &Bridge) -> ([String; 2], u32) {
    let flag = |passes: bool, flag: u32| if passes { flag } else { 0 };
    let flags = flag(bridge.stp, port_flag::STP) | flag(bridge.lldp, port_flag::LLDP);
    (bridge.ports.clone(), flags)
}

/// Ticks in a time, never less than the time and never none.
fn ticks(time: Duration, ticks_per_second: u32) -> u32 {
    let ticks = (time.as_millis() * u128::from(ticks_per_second)).div_ceil(1000);
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
}

pub(super) fn conduit_row(
    policy: &Policy,
    conduit: &Conduit,
    surroundings: &Surroundings,
    diagnostics: &mut Diagnostics,
) -> ConduitRow {
    let rate = rate(conduit.new_flows, surroundings.ticks_per_second);
    if rate.is_none() {
        does_not_fit_rate(conduit, surroundings, diagnostics);
    }
    let (interval, burst) = rate.unwrap_or((0, 0));
    let on_deny = match conduit.on_deny {
        OnDeny::Reset => Verdict::Reset,
        OnDeny::Drop => Verdict::Drop,
        OnDeny::Exception => Verdict::Exception,
    };
    ConduitRow {
        present: 1,
        observe: u8::from(policy.observes(conduit)),
        on_deny: on_deny as u8,
        outstanding: conduit.max_outstanding,
        new_flow_interval: interval,
        new_flow_burst: burst,
    }
}

fn does_not_fit_rate(
    conduit: &Conduit,
    surroundings: &Surroundings,
    diagnostics: &mut Diagnostics,
) {
    let hz = surroundings.ticks_per_second;
    diagnostics.error(
        "does-not-fit",
        conduit.span,
        format!(
            "`new_flows` of conduit `{}` does not fit a clock of {hz} Hz",
            conduit.name
        ),
        "choose another rate",
    );
}

/// A rate of new flows as interval and burst.
fn rate(new_flows: NewFlows, ticks_per_second: u32) -> Option<(u32, u64)> {
    match new_flows {
        NewFlows::Unlimited => Some((0, 0)),
        NewFlows::Rate { flows, per, burst } => rate_cells(flows, per, burst, ticks_per_second),
    }
}

/// A rate as interval and burst in 1/65,536 tick: never faster than was asked for. None when it
/// does not fit the clock.
pub(super) fn rate_cells(
    count: u32,
    per: Duration,
    burst: u32,
    ticks_per_second: u32,
) -> Option<(u32, u64)> {
    let parts = u64::from(ticks_per_second) * 65_536 * per.as_secs();
    let interval = u32::try_from(parts.div_ceil(u64::from(count.max(1)))).ok()?;
    // An interval of 0 would mean "no limit". The first of a burst is on time by itself.
    let ahead = u64::from(burst.saturating_sub(1));
    (interval > 0).then(|| (interval, u64::from(interval) * ahead))
}

/// A zone that takes any tags shares an interface with the zones of single tags.
pub(super) fn interfaces(
    policy: &Policy,
    diagnostics: &mut Diagnostics,
) -> Vec<(String, u32, Interface)> {
    let mut any: HashMap<&str, u64> = HashMap::new();
    let mut rows: BTreeMap<(&str, u32), u64> = BTreeMap::new();
    for zone in &policy.zones {
        let bit = 1_u64.checked_shl(u32::from(zone.id.0)).unwrap_or(0);
        for interface in &zone.interfaces {
            for vlans in &zone.vlans {
                *rows.entry((interface, vlans.number())).or_default() |= bit;
                if *vlans == Vlans::Any {
                    *any.entry(interface).or_default() |= bit;
                }
            }
        }
    }
    let limit = (MAX_INTERFACES / SLOTS) as usize;
    if rows.len() > limit {
        does_not_fit(
            "interfaces with VLANs",
            rows.len(),
            limit,
            Span::default(),
            diagnostics,
        );
    }
    let behind = |interface: &str, vlans: u32| {
        let tagged = rows.get(&(interface, vlans)).copied().unwrap_or(0);
        tagged | any.get(interface).copied().unwrap_or(0)
    };
    let row = |(interface, vlans): (&str, u32)| {
        let zones = behind(interface, vlans);
        let other = other_port(policy, interface);
        let linked = zones | other.map_or(0, |other| behind(other, vlans));
        (interface.to_owned(), vlans, Interface { zones, linked })
    };
    rows.keys().copied().map(row).collect()
}

/// The other port of the bridge that an interface is a port of.
fn other_port<'a>(policy: &'a Policy, interface: &str) -> Option<&'a str> {
    policy.bridges.iter().find_map(|bridge| {
        let [one, other] = &bridge.ports;
        if one == interface {
            return Some(other.as_str());
        }
        (other == interface).then_some(one)
    })
}

pub(super) fn networks(
    policy: &Policy,
    surroundings: &Surroundings,
    diagnostics: &mut Diagnostics,
) -> Vec<(u32, Address, Network)> {
    let mut rows: BTreeMap<IpNet, Network> = BTreeMap::new();
    for zone in &policy.zones {
        for network in &zone.networks {
            rows.insert(
                *network,
                Network {
                    zone: zone.id.0,
                    asset: 0,
                },
            );
        }
    }
    for asset in &policy.assets {
        for address in &asset.addresses {
            let row = Network {
                zone: asset.zone.0,
                asset: asset.id.0,
            };
            rows.insert(IpNet::from(*address), row);
        }
    }
    let own = policy
        .gateway_addresses
        .as_ref()
        .unwrap_or(&surroundings.gateway_addresses);
    for address in own.iter().map(IpAddr::to_canonical) {
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            continue;
        }
        // What the policy itself gives twice was reported at its place.
        let found = policy
            .asset_of(address)
            .filter(|_| policy.gateway_addresses.is_none());
        if let Some(asset) = found {
            diagnostics.error(
                "duplicate-address",
                asset.span,
                format!(
                    "the address `{address}` of asset `{}` is the gateway's own",
                    asset.name
                ),
                "give the asset another address, or take it from the gateway",
            );
        }
        rows.insert(
            IpNet::from(address),
            Network {
                zone: table::GATEWAY_ZONE,
                asset: 0,
            },
        );
    }
    let limit = (MAX_NETWORKS / SLOTS) as usize;
    if rows.len() > limit {
        let what = "networks and addresses";
        does_not_fit(what, rows.len(), limit, Span::default(), diagnostics);
    }
    let row = |(network, row): (IpNet, Network)| {
        let bits = u32::from(network.prefix_len());
        let before = if network.addr().is_ipv4() {
            32 + 96
        } else {
            32
        };
        (before + bits, address_words(network.addr()), row)
    };
    rows.into_iter().map(row).collect()
}

/// An address as it stands in a packet.
#[must_use]
pub fn address_words(address: IpAddr) -> Address {
    let bytes = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_that_is_read_fits_every_clock() {
        for text in [
            "1/m",
            "100/s",
            "1000000/s",
            "1000000/s burst 2000000",
            "60/h",
        ] {
            let new_flows = crate::policy::value::new_flows(text).unwrap();
            for hz in [100, 250, 300, 1000] {
                let (interval, burst) = rate(new_flows, hz).unwrap();
                assert!(
                    interval > 0 && burst >= u64::from(interval) * 9,
                    "{text} at {hz} Hz"
                );
            }
        }
        let rate_of = |text| rate(crate::policy::value::new_flows(text).unwrap(), 250);
        assert_eq!(rate_of("100/s"), Some((163_840, 163_840 * 199)));
        assert_eq!(rate_of("unlimited"), Some((0, 0)));
    }

    #[test]
    fn times_become_ticks_and_none_becomes_none() {
        assert_eq!(ticks(Duration::from_secs(30), 250), 7500);
        assert_eq!(ticks(Duration::from_millis(1), 100), 1);
        assert_eq!(ticks(Duration::from_millis(101), 100), 11);
        assert_eq!(ticks(Duration::from_hours(7 * 24), 1000), 604_800_000);
    }

    #[test]
    fn an_ipv4_address_is_a_mapped_one() {
        let words = address_words("10.20.0.10".parse().unwrap());
        let last = u32::from_ne_bytes([10, 20, 0, 10]);
        assert_eq!(words, [0, 0, table::IPV4_MAPPED, last]);
    }
}
