//! Names into numbers, and everything that contradicts itself refused.

mod addresses;
mod bridges;
mod conduits;
mod names;

use std::collections::HashSet;
use std::sync::Arc;

use conduitfw_common::table::{MAX_CONDUITS, MAX_ZONES};

use super::diagnostic::Diagnostics;
use super::document::{PolicyDocument, ZoneDocument};
use super::model::{Asset, AssetId, Policy, Zone, ZoneId};
use super::source::{Source, Span, Spanned};
use addresses::{addresses, networks};
use bridges::bridges;
use conduits::conduits;
use names::Names;

/// Assets have numbers below this: the highest bit of a party's number says "zone".
const MAX_ASSETS: usize = 0x7fff;

/// Resolves a document. What could not be resolved was reported and is left out.
pub(super) fn resolve(
    mut document: PolicyDocument,
    source: &Arc<Source>,
    diagnostics: &mut Diagnostics,
) -> Policy {
    fits(&document, diagnostics);
    // Numbers of zones and assets have 15 bits; that there are too many was reported.
    document.zones.truncate(MAX_ASSETS);
    document.assets.truncate(MAX_ASSETS);
    let names = Names::new(&document, diagnostics);
    let index = networks(&document.zones, diagnostics);
    addresses(&document, &names, &index, diagnostics);
    let bridges = bridges(&document.bridges, &document.zones, diagnostics);
    let conduits = conduits(document.conduits, &names, diagnostics);

    let mut policy = Policy {
        site: document.site,
        mode: document.settings.mode,
        forwarding: document.settings.forwarding,
        timeouts: document.settings.timeouts,
        limits: document.settings.limits,
        adopt: document.settings.adopt,
        gateway_addresses: document.gateway.map(values),
        bridges,
        zones: document.zones.into_iter().zip(1..).map(zone).collect(),
        assets: Vec::new(),
        conduits,
        source: Arc::clone(source),
        addresses: index,
    };
    for (asset, number) in document.assets.into_iter().zip(1..) {
        let id = AssetId(number);
        let zone = asset.zone.as_ref().and_then(|zone| names.zone(&zone.value));
        for address in &asset.addresses {
            policy.addresses.assets.insert(address.value, id);
        }
        policy.assets.push(Asset {
            id,
            name: asset.name.value,
            zone: zone.unwrap_or(ZoneId::GATEWAY),
            addresses: values(asset.addresses),
            description: asset.description,
            span: asset.name.span,
        });
    }
    policy
}

fn zone((zone, number): (ZoneDocument, u16)) -> Zone {
    Zone {
        id: ZoneId(number),
        name: zone.name.value,
        interfaces: values(zone.interfaces),
        networks: values(zone.networks),
        vlans: values(zone.vlans),
        security_level: zone.security_level,
        description: zone.description,
        nested: zone.nested,
        span: zone.name.span,
    }
}

fn values<T>(spanned: Vec<Spanned<T>>) -> Vec<T> {
    spanned.into_iter().map(|entry| entry.value).collect()
}

/// Reports that there are too many of something for the tables of the kernel.
pub(super) fn does_not_fit(
    what: &str,
    found: usize,
    limit: usize,
    span: Span,
    diagnostics: &mut Diagnostics,
) {
    diagnostics.error(
        "does-not-fit",
        span,
        format!("the policy does not fit: {found} {what}"),
        format!("at most {limit}"),
    );
}

fn fits(document: &PolicyDocument, diagnostics: &mut Diagnostics) {
    // The gateway takes one zone, "no conduit" one conduit.
    let zones = document
        .zones
        .iter()
        .map(|zone| zone.name.span)
        .collect::<Vec<_>>();
    let assets = document
        .assets
        .iter()
        .map(|asset| asset.name.span)
        .collect::<Vec<_>>();
    let conduits = document
        .conduits
        .iter()
        .map(|conduit| conduit.name.span)
        .collect::<Vec<_>>();
    let limits = [
        ("zones", zones, MAX_ZONES as usize - 1),
        ("assets", assets, MAX_ASSETS),
        ("conduits", conduits, MAX_CONDUITS as usize - 1),
    ];
    for (what, spans, limit) in limits {
        if let Some(first_too_many) = spans.get(limit) {
            does_not_fit(what, spans.len(), limit, *first_too_many, diagnostics);
        }
    }
}

/// Reports entries that a list has twice.
fn repeated<T>(
    what: &str,
    entries: &[Spanned<T>],
    key: impl Fn(&T) -> String,
    diagnostics: &mut Diagnostics,
) {
    let mut seen = HashSet::new();
    for entry in entries {
        if !seen.insert(key(&entry.value)) {
            let message = format!("this {what} is listed twice");
            diagnostics.error("duplicate-entry", entry.span, message, "remove one");
        }
    }
}
