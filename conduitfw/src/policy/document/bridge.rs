//! `[[bridges]]`, read.

use super::super::diagnostic::Diagnostics;
use super::super::model::Bridge;
use super::super::value;
use super::section::{Section, entry_text};
use super::tree::Value;
use super::{BridgeDocument, check_name, keys, unknown_word};

pub(super) fn bridges(top: &Section<'_>, diagnostics: &mut Diagnostics) -> Vec<BridgeDocument> {
    let tables = top.table_list("bridges", diagnostics).into_iter();
    let mut bridges = Vec::new();
    for (index, (span, table)) in tables.enumerate() {
        let name = table.get("name").and_then(Value::as_str);
        let what = match name {
            Some(name) => format!("bridge `{name}`"),
            None => format!("bridge number {}", index + 1),
        };
        let section = Section::new(what, span, table, &keys::BRIDGE, diagnostics);
        bridges.push(bridge(&section, diagnostics));
    }
    bridges
}

fn bridge(section: &Section<'_>, diagnostics: &mut Diagnostics) -> BridgeDocument {
    section.missing("name", "add name = \"...\"", diagnostics);
    section.missing("ports", "add ports = [\"eth1\", \"eth2\"]", diagnostics);
    let name = section.text("name", diagnostics);
    if let Some(name) = &name {
        check_name("bridge", name, diagnostics);
    }
    let ports = section.entries("ports", diagnostics, |value| {
        let text = entry_text("a port", value)?;
        value::interface(text).map(|()| text.to_owned())
    });
    BridgeDocument {
        what: section.what.to_string(),
        span: section.place("ports"),
        ports,
        bridge: Bridge {
            name: name.map_or_else(String::new, |name| name.value.to_owned()),
            ports: Default::default(),
            stp: passes(section, "stp", diagnostics),
            lldp: passes(section, "lldp", diagnostics),
        },
    }
}

/// Whether frames of a protocol of the link pass.
fn passes(section: &Section<'_>, key: &str, diagnostics: &mut Diagnostics) -> bool {
    let word = section.parsed(key, diagnostics, |text| match text {
        "forward" => Ok(true),
        "drop" => Ok(false),
        _ => Err(unknown_word(key, text, &["forward", "drop"])),
    });
    word.is_some_and(|word| word.value)
}
