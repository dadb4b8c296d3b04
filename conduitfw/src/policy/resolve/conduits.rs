//! Conduits: who they join, and that they open no port twice.

use std::collections::HashMap;

use super::super::diagnostic::Diagnostics;
use super::super::document::{ConduitDocument, GATEWAY, ModbusDocument};
use super::super::model::{Conduit, ModbusRule, PartyId, PortRange};
use super::super::source::{Span, Spanned};
use super::super::suggestion;
use super::names::Names;
use super::{repeated, values};

pub(super) fn conduits(
    documents: Vec<ConduitDocument>,
    names: &Names,
    diagnostics: &mut Diagnostics,
) -> Vec<Conduit> {
    unique_names(&documents, diagnostics);
    documents
        .into_iter()
        .map(|document| conduit(document, names, diagnostics))
        .collect()
}

fn unique_names(documents: &[ConduitDocument], diagnostics: &mut Diagnostics) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
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
    }
}

fn conduit(document: ConduitDocument, names: &Names, diagnostics: &mut Diagnostics) -> Conduit {
    let from = parties(&document, &document.from, names, diagnostics);
    let to = parties(&document, &document.to, names, diagnostics);
    if !document.opens_something {
        diagnostics.error(
            "opens-nothing",
            document.name.span,
            format!("{} opens no service", document.what),
            "add tcp, udp, icmp_echo = true or [[conduits.modbus]]",
        );
    }
    both_sides(&document, diagnostics);
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
    for rule in document.modbus.iter().filter(|rule| rule.ports.len() > 1) {
        let ports = rule.ports.iter().map(|port| (port, "this rule"));
        repeated_ports(&document.what, ports.collect(), diagnostics);
    }
    Conduit {
        max_outstanding: max_outstanding(&document, diagnostics),
        modbus: modbus_rules(&document.what, document.modbus, diagnostics),
        name: document.name.value,
        from,
        to,
        rationale: document.rationale,
        owner: document.owner,
        agreement: document.agreement,
        mode: document.mode,
        on_deny: document.on_deny,
        new_flows: document.new_flows,
        tcp: values(document.tcp),
        udp: values(document.udp),
        icmp_echo: document.icmp_echo,
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

fn modbus_rules(
    what: &str,
    documents: Vec<ModbusDocument>,
    diagnostics: &mut Diagnostics,
) -> Vec<ModbusRule> {
    let mut seen: HashMap<&str, Span> = HashMap::with_capacity(documents.len());
    for Spanned { value: name, span } in documents.iter().map(|document| &document.name) {
        if let Some(first) = seen.insert(name, *span) {
            let at = diagnostics.line_of(first);
            diagnostics.error(
                "duplicate-name",
                *span,
                format!("{what} has two rules `{name}`"),
                format!("the other is at {at}: counters go by the name, choose another"),
            );
        }
    }
    // A rule is not larger than its document: it takes its place.
    documents.into_iter().map(modbus_rule).collect()
}

fn modbus_rule(document: ModbusDocument) -> ModbusRule {
    ModbusRule {
        name: document.name.value,
        ports: values(document.ports),
        units: document.units,
        functions: document.functions,
        sub_functions: document.sub_functions,
        mei_types: document.mei_types,
        tables: document.tables,
        records: document.records,
        written: document.written,
        max_rate: document.max_rate,
        max_length: document.max_length,
        span: document.header,
    }
}
