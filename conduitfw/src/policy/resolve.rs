//! Names into numbers, and everything that contradicts itself refused.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use conduitfw_common::table::{MAX_CONDUITS, MAX_ZONES};
use ipnet::IpNet;

use super::diagnostic::Diagnostics;
use super::document::{
    AssetDocument, ConduitDocument, GATEWAY, ModbusDocument, PolicyDocument, ZoneDocument,
};
use super::model::{
    AddressIndex, Asset, AssetId, ByteSet, Conduit, ModbusRule, Operands, PartyId, Policy,
    PortRange, Zone, ZoneId,
};
use super::source::{Source, Span, Spanned};
use super::suggestion;

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
    let conduits = conduits(&document.conduits, &names, diagnostics);

    let mut policy = Policy {
        site: document.site,
        mode: document.mode,
        timeouts: document.timeouts,
        limits: document.limits,
        gateway_addresses: document.gateway.map(values),
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

/// The parties of a policy by name.
struct Names {
    parties: HashMap<String, PartyId>,
}

impl Names {
    fn new(document: &PolicyDocument, diagnostics: &mut Diagnostics) -> Self {
        let mut parties = HashMap::from([(GATEWAY.to_owned(), PartyId::GATEWAY)]);
        let zones = document.zones.iter().map(|zone| &zone.name);
        let zones = zones
            .zip(1..)
            .map(|(name, id)| (name, PartyId::Zone(ZoneId(id))));
        let assets = document.assets.iter().map(|asset| &asset.name);
        let assets = assets
            .zip(1..)
            .map(|(name, id)| (name, PartyId::Asset(AssetId(id))));
        for (name, party) in zones.chain(assets) {
            let what = if matches!(party, PartyId::Zone(_)) {
                "zone"
            } else {
                "asset"
            };
            match parties.get(&name.value) {
                None => {
                    parties.insert(name.value.clone(), party);
                }
                Some(&PartyId::GATEWAY) => diagnostics.error(
                    "duplicate-name",
                    name.span,
                    format!("the name `{GATEWAY}` is reserved for the machine itself"),
                    format!("choose another name for this {what}"),
                ),
                // Two zones of one name are refused as TOML: a zone and an asset remain.
                Some(_) => diagnostics.error(
                    "duplicate-name",
                    name.span,
                    format!("the asset `{}` has the name of a zone", name.value),
                    "zones and assets share their names: choose another",
                ),
            }
        }
        Self { parties }
    }

    fn zone(&self, name: &str) -> Option<ZoneId> {
        match self.parties.get(name) {
            Some(PartyId::Zone(zone)) => Some(*zone),
            _ => None,
        }
    }

    fn zone_names(&self) -> impl Iterator<Item = &str> {
        let zone = |party: &PartyId| matches!(party, PartyId::Zone(id) if *id != ZoneId::GATEWAY);
        let mut names: Vec<&str> = Vec::new();
        names.extend(
            self.parties
                .iter()
                .filter(|entry| zone(entry.1))
                .map(|entry| &**entry.0),
        );
        names.sort_unstable();
        names.into_iter()
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.parties.keys().map(String::as_str).collect();
        names.sort_unstable();
        names.into_iter()
    }
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

/// Checks interfaces and networks of the zones: no address may belong to two of them.
fn networks(zones: &[ZoneDocument], diagnostics: &mut Diagnostics) -> AddressIndex {
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

/// Checks that each address is given once and lies in its asset's zone.
fn addresses(
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
        if found == Some(zone) || home.networks.is_empty() {
            continue;
        }
        let message = format!(
            "the address `{}` of asset `{}` is outside of its zone `{}`",
            address.value, asset.name.value, home.name.value
        );
        let help = match found.and_then(document_of) {
            Some(other) => format!("it belongs to zone `{}`", other.name.value),
            None => {
                let networks: Vec<String> = home
                    .networks
                    .iter()
                    .map(|network| network.value.to_string())
                    .collect();
                format!(
                    "expected one in {}",
                    suggestion::list(networks.iter().map(String::as_str))
                )
            }
        };
        diagnostics.error("outside-of-zone", address.span, message, help);
    }
}

fn conduits(
    documents: &[ConduitDocument],
    names: &Names,
    diagnostics: &mut Diagnostics,
) -> Vec<Conduit> {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    let mut conduits = Vec::new();
    for document in documents {
        let name = document.name.value.as_str();
        if let Some(first) = seen
            .insert(name, document.name.span)
            .filter(|_| !name.is_empty())
        {
            let at = diagnostics.line_of(first);
            diagnostics.error(
                "duplicate-name",
                document.name.span,
                format!("there are two conduits `{name}`"),
                format!("the other is at {at}: counters go by the name, choose another"),
            );
        }
        conduits.push(conduit(document, names, diagnostics));
    }
    conduits
}

fn conduit(document: &ConduitDocument, names: &Names, diagnostics: &mut Diagnostics) -> Conduit {
    let from = parties(document, &document.from, names, diagnostics);
    let to = parties(document, &document.to, names, diagnostics);
    if !document.opens_something {
        diagnostics.error(
            "opens-nothing",
            document.name.span,
            format!("{} opens no service", document.what),
            "add tcp, udp, icmp_echo = true or [[conduits.modbus]]",
        );
    }
    both_sides(document, diagnostics);
    let touches_gateway = from.contains(&PartyId::GATEWAY) || to.contains(&PartyId::GATEWAY);
    if let Some(rule) = document.modbus.first().filter(|_| touches_gateway) {
        diagnostics.error(
            "modbus-to-gateway",
            rule.header,
            format!(
                "{} carries Modbus and has the gateway at an end",
                document.what
            ),
            "the gateway takes plain tcp, udp and icmp_echo only",
        );
    }
    let plain = document.tcp.iter().map(|port| (port, "`tcp`"));
    let modbus = document
        .modbus
        .iter()
        .flat_map(|rule| &rule.ports)
        .map(|port| (port, "Modbus"));
    repeated_ports(&document.what, plain.chain(modbus).collect(), diagnostics);
    let udp = document.udp.iter().map(|port| (port, "`udp`"));
    repeated_ports(&document.what, udp.collect(), diagnostics);
    for rule in &document.modbus {
        let ports = rule.ports.iter().map(|port| (port, "this rule"));
        repeated_ports(&document.what, ports.collect(), diagnostics);
    }
    Conduit {
        name: document.name.value.clone(),
        from,
        to,
        rationale: document.rationale.clone(),
        owner: document.owner.clone(),
        agreement: document.agreement.clone(),
        mode: document.mode,
        on_deny: document.on_deny,
        new_flows: document.new_flows,
        tcp: values(document.tcp.clone()),
        udp: values(document.udp.clone()),
        icmp_echo: document.icmp_echo,
        max_outstanding: max_outstanding(document, diagnostics),
        modbus: modbus_rules(document, diagnostics),
        span: document.name.span,
    }
}

fn parties(
    document: &ConduitDocument,
    entries: &[Spanned<String>],
    names: &Names,
    diagnostics: &mut Diagnostics,
) -> Vec<PartyId> {
    repeated("party", entries, Clone::clone, diagnostics);
    let mut parties = Vec::new();
    for entry in entries {
        if let Some(party) = names.parties.get(&entry.value) {
            parties.push(*party);
            continue;
        }
        diagnostics.error(
            "unknown-name",
            entry.span,
            format!(
                "{} joins unknown zone or asset `{}`",
                document.what, entry.value
            ),
            suggestion::did_you_mean(&entry.value, names.all(), || {
                format!("expected {}", suggestion::list(names.all()))
            }),
        );
    }
    parties
}

/// An asset or the gateway does not open flows to itself through the gateway.
fn both_sides(document: &ConduitDocument, diagnostics: &mut Diagnostics) {
    let [from] = document.from.as_slice() else {
        return;
    };
    let [to] = document.to.as_slice() else { return };
    if from.value == to.value && from.value == GATEWAY {
        diagnostics.error(
            "gateway-to-gateway",
            to.span,
            format!("{} joins the gateway with itself", document.what),
            "what the machine sends to itself does not cross an interface",
        );
    }
}

/// Reports ports that a conduit opens twice. Modbus rules of one conduit may share a port.
fn repeated_ports(
    what: &str,
    mut ports: Vec<(&Spanned<PortRange>, &str)>,
    diagnostics: &mut Diagnostics,
) {
    ports.sort_by_key(|(port, _)| (port.value, port.span));
    let mut highest: Option<(&Spanned<PortRange>, &str)> = None;
    for (port, by) in ports {
        if let Some((other, other_by)) = highest
            && port.value.first <= other.value.last
            && !(by == "Modbus" && other_by == "Modbus")
        {
            let (later, earlier) = if port.span > other.span {
                (port, other)
            } else {
                (other, port)
            };
            let at = diagnostics.line_of(earlier.span);
            diagnostics.error(
                "port-used-twice",
                later.span,
                format!("{what} opens port {} twice", port.value.first),
                format!("remove one (the other: {at})"),
            );
        }
        if highest.is_none_or(|(other, _)| port.value.last >= other.value.last) {
            highest = Some((port, by));
        }
    }
}

fn max_outstanding(document: &ConduitDocument, diagnostics: &mut Diagnostics) -> u8 {
    let given: Vec<&Spanned<u8>> = document
        .modbus
        .iter()
        .filter_map(|rule| rule.max_outstanding.as_ref())
        .collect();
    let Some(first) = given.first() else {
        return 16;
    };
    for other in given.iter().filter(|other| other.value != first.value) {
        let at = diagnostics.line_of(first.span);
        diagnostics.error(
            "contradiction",
            other.span,
            format!("{} has two values of `max_outstanding`", document.what),
            format!(
                "it holds for the whole conduit: {} was given at {at}",
                first.value
            ),
        );
    }
    first.value
}

fn modbus_rules(document: &ConduitDocument, diagnostics: &mut Diagnostics) -> Vec<ModbusRule> {
    let mut seen: HashMap<String, Span> = HashMap::new();
    let mut rules = Vec::new();
    for (number, rule) in document.modbus.iter().enumerate() {
        let given = rule
            .name
            .as_ref()
            .map(|name| (name.value.clone(), name.span));
        let (name, span) = given.unwrap_or_else(|| (format!("modbus-{}", number + 1), rule.header));
        if let Some(first) = seen.insert(name.clone(), span) {
            let at = diagnostics.line_of(first);
            diagnostics.error(
                "duplicate-name",
                span,
                format!("{} has two rules `{name}`", document.what),
                format!("the other is at {at}: counters go by the name, choose another"),
            );
        }
        rules.push(modbus_rule(name, rule));
    }
    rules
}

fn modbus_rule(name: String, rule: &ModbusDocument) -> ModbusRule {
    let units: ByteSet = rule.units;
    let functions: ByteSet = rule.functions;
    let (sub_functions, mei_types): (Operands, Operands) =
        (rule.sub_functions.clone(), rule.mei_types.clone());
    ModbusRule {
        name,
        ports: values(rule.ports.clone()),
        units,
        functions,
        sub_functions,
        mei_types,
    }
}
