//! Every address belongs to one zone, and to one asset at most.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::diagnostic::Diagnostics;
use super::super::document::{AssetDocument, GATEWAY, PolicyDocument, ZoneDocument};
use super::super::model::{AddressIndex, ZoneId};
use super::super::source::{Span, Spanned};
use super::super::suggestion;
use super::names::Names;
use super::repeated;

/// Checks interfaces and networks of the zones: no address may belong to two of them.
pub(super) fn networks(zones: &[ZoneDocument], diagnostics: &mut Diagnostics) -> AddressIndex {
    let mut index = AddressIndex::default();
    let mut all: Vec<(IpNet, ZoneId, Span)> = Vec::new();
    for (zone, id) in zones.iter().zip(1..) {
        repeated(
            "interface",
            &zone.interfaces,
            ToString::to_string,
            diagnostics,
        );
        repeated(
            "VLAN",
            &zone.vlans,
            |vlans| format!("{vlans:?}"),
            diagnostics,
        );
        for network in &zone.networks {
            index.add_network(network.value, ZoneId(id));
            all.push((network.value, ZoneId(id), network.span));
        }
    }
    // Sorted, a network stands before all those within it.
    all.sort_by_key(|(network, _, span)| (network.network(), network.prefix_len(), *span));
    let name = |id: ZoneId| {
        zones
            .get(usize::from(id.0) - 1)
            .map_or("", |zone| zone.name.value.as_str())
    };
    let mut around: Vec<(IpNet, ZoneId, Span)> = Vec::new();
    for &(network, zone, span) in &all {
        around.retain(|(outer, _, _)| outer.contains(&network));
        if let Some(&(outer, outer_zone, outer_span)) = around.last() {
            let may_nest = zones
                .get(usize::from(outer_zone.0) - 1)
                .is_some_and(|zone| zone.nested && outer != network);
            let (message, help) = if zone == outer_zone {
                (
                    format!(
                        "the network `{network}` is already part of zone `{}`",
                        name(zone)
                    ),
                    format!(
                        "`{outer}` has it ({}): remove one",
                        diagnostics.line_of(outer_span)
                    ),
                )
            } else {
                let at = diagnostics.line_of(outer_span);
                let nest = if outer == network {
                    ""
                } else {
                    ", or say nested = true there"
                };
                (
                    format!(
                        "the network `{network}` of zone `{}` overlaps `{outer}` of zone `{}`",
                        name(zone),
                        name(outer_zone)
                    ),
                    format!("an address belongs to one zone: see {at}{nest}"),
                )
            };
            if zone == outer_zone || !may_nest {
                diagnostics.error("overlapping-networks", span, message, help);
            }
        }
        around.push((network, zone, span));
    }
    index
}

/// Checks that each address is given once and lies in its asset's zone.
pub(super) fn addresses(
    document: &PolicyDocument,
    names: &Names,
    index: &AddressIndex,
    diagnostics: &mut Diagnostics,
) {
    let mut owners: HashMap<IpAddr, (&str, Span)> = HashMap::new();
    for address in document.gateway.iter().flatten() {
        claim(&mut owners, address, GATEWAY, diagnostics);
    }
    for asset in &document.assets {
        for address in &asset.addresses {
            claim(&mut owners, address, &asset.name.value, diagnostics);
        }
        if let Some(zone) = asset_zone(asset, names, diagnostics) {
            in_zone(document, asset, zone, index, diagnostics);
        }
    }
}

fn claim<'d>(
    owners: &mut HashMap<IpAddr, (&'d str, Span)>,
    address: &Spanned<IpAddr>,
    owner: &'d str,
    diagnostics: &mut Diagnostics,
) {
    if let Some(&(other, span)) = owners.get(&address.value) {
        let at = diagnostics.line_of(span);
        diagnostics.error(
            "duplicate-address",
            address.span,
            format!("the address `{}` is given twice", address.value),
            format!("`{other}` has it ({at})"),
        );
    } else {
        owners.insert(address.value, (owner, address.span));
    }
}

fn asset_zone(
    asset: &AssetDocument,
    names: &Names,
    diagnostics: &mut Diagnostics,
) -> Option<ZoneId> {
    let zone = asset.zone.as_ref()?;
    let id = names.zone(&zone.value);
    match id {
        Some(ZoneId::GATEWAY) => diagnostics.error(
            "unknown-name",
            zone.span,
            format!(
                "asset `{}` cannot be in the zone of the gateway",
                asset.name.value
            ),
            "that zone is the machine itself: use `gateway` in conduits",
        ),
        Some(_) => return id,
        None => {
            let help = suggestion::did_you_mean(&zone.value, names.zone_names(), || {
                format!("expected {}", suggestion::list(names.zone_names()))
            });
            diagnostics.error(
                "unknown-name",
                zone.span,
                format!(
                    "asset `{}` is in unknown zone `{}`",
                    asset.name.value, zone.value
                ),
                help,
            );
        }
    }
    None
}

fn in_zone(
    document: &PolicyDocument,
    asset: &AssetDocument,
    zone: ZoneId,
    index: &AddressIndex,
    diagnostics: &mut Diagnostics,
) {
    let document_of = |id: ZoneId| document.zones.get(usize::from(id.0) - 1);
    let Some(home) = document_of(zone) else {
        return;
    };
    for address in &asset.addresses {
        let found = index.zone_of(address.value);
        if found == Some(zone) {
            not_the_networks_own(home, address, diagnostics);
        }
        if found == Some(zone) || home.networks.is_empty() {
            continue;
        }
        let message = format!(
            "the address `{}` of asset `{}` is outside of its zone `{}`",
            address.value, asset.name.value, home.name.value
        );
        let help = found.and_then(document_of).map_or_else(
            || {
                let networks = home
                    .networks
                    .iter()
                    .map(|network| network.value.to_string());
                let networks: Vec<String> = networks.collect();
                format!(
                    "expected one in {}",
                    suggestion::list(networks.iter().map(|n| &**n))
                )
            },
            |other| format!("it belongs to zone `{}`", other.name.value),
        );
        diagnostics.error("outside-of-zone", address.span, message, help);
    }
}

/// The first address of an IPv4 network is its own and the last is for all its hosts (RFC 1812
/// §4.2.2.11); networks of one or two addresses have neither.
fn not_the_networks_own(
    home: &ZoneDocument,
    address: &Spanned<IpAddr>,
    diagnostics: &mut Diagnostics,
) {
    let networks = home.networks.iter().map(|network| network.value);
    let holding = networks.filter(|network| network.contains(&address.value));
    let Some(IpNet::V4(network)) = holding.max_by_key(IpNet::prefix_len) else {
        return;
    };
    let own = [network.network(), network.broadcast()];
    if network.prefix_len() < 31 && own.iter().any(|own| address.value == IpAddr::V4(*own)) {
        diagnostics.error(
            "special-address",
            address.span,
            format!("`{}` is not the address of a host", address.value),
            format!("it is the first or the last of the network `{network}`"),
        );
    }
}
