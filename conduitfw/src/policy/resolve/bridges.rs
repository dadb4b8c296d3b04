//! A bridge has two ports, which are interfaces of zones and of no other bridge.

use std::collections::{BTreeSet, HashMap};

use super::super::diagnostic::Diagnostics;
use super::super::document::{BridgeDocument, ZoneDocument};
use super::super::model::Bridge;
use super::super::source::{Span, Spanned};
use super::super::suggestion;

/// Resolves the bridges. One that is wrong was reported and is left out.
pub(super) fn bridges(
    documents: &[BridgeDocument],
    zones: &[ZoneDocument],
    diagnostics: &mut Diagnostics,
) -> Vec<Bridge> {
    let interfaces = zones.iter().flat_map(|zone| &zone.interfaces);
    let interfaces: BTreeSet<&str> = interfaces.map(|name| name.value.as_str()).collect();
    let mut names: HashMap<&str, Span> = HashMap::new();
    let mut taken: HashMap<&str, Span> = HashMap::new();
    let mut bridges = Vec::new();
    for document in documents {
        let name = document.bridge.name.as_str();
        if let Some(other) = names.insert(name, document.span) {
            let help = format!("choose another: see {}", diagnostics.line_of(other));
            let message = format!("there are two bridges named `{name}`");
            diagnostics.error("duplicate-name", document.span, message, help);
        }
        for port in &document.ports {
            check(port, &interfaces, &mut taken, diagnostics);
        }
        match document.ports.as_slice() {
            [one, other] => bridges.push(Bridge {
                ports: [one.value.clone(), other.value.clone()],
                ..document.bridge.clone()
            }),
            [] => {}
            ports => diagnostics.error(
                "not-a-pair",
                document.span,
                format!("{} does not join two interfaces", document.what),
                format!("found {}", ports.len()),
            ),
        }
    }
    bridges
}

fn check<'d>(
    port: &'d Spanned<String>,
    interfaces: &BTreeSet<&str>,
    taken: &mut HashMap<&'d str, Span>,
    diagnostics: &mut Diagnostics,
) {
    if let Some(other) = taken.insert(&port.value, port.span) {
        diagnostics.error(
            "duplicate-entry",
            port.span,
            format!("the interface `{}` is a port already", port.value),
            format!("see {}", diagnostics.line_of(other)),
        );
    } else if !interfaces.contains(port.value.as_str()) {
        let names = || interfaces.iter().copied();
        let help = suggestion::did_you_mean(&port.value, names(), || {
            format!("expected {}", suggestion::list(names()))
        });
        diagnostics.error(
            "unknown-name",
            port.span,
            format!("no zone is behind the port `{}`", port.value),
            help,
        );
    }
}
