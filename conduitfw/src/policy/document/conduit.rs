//! `[[conduits]]`, read.

use super::super::diagnostic::Diagnostics;
use super::super::model::{NewFlows, OnDeny, PortRange};
use super::super::source::Spanned;
use super::super::value::{self, Fault};
use super::section::{Section, entry_text, report, wrong_entry};
use super::tree::Value;
use super::{
    ConduitDocument, check_name, keys, modbus, mode, owned, required_words, unknown_word, words,
};

pub(super) fn conduits(top: &Section<'_>, diagnostics: &mut Diagnostics) -> Vec<ConduitDocument> {
    let mut conduits = Vec::new();
    for (index, (span, table)) in top
        .table_list("conduits", diagnostics)
        .into_iter()
        .enumerate()
    {
        let name = table.get("name").and_then(Value::as_str);
        let what = match name {
            Some(name) => format!("conduit `{name}`"),
            None => format!("conduit number {}", index + 1),
        };
        let section = Section::new(what, span, table, &keys::CONDUIT, diagnostics);
        conduits.push(conduit(&section, diagnostics));
    }
    conduits
}

fn conduit(section: &Section<'_>, diagnostics: &mut Diagnostics) -> ConduitDocument {
    section.missing("name", "add name = \"...\"", diagnostics);
    section.missing(
        "from",
        "add from = [...]: zones or assets that open flows",
        diagnostics,
    );
    section.missing(
        "to",
        "add to = [...]: zones or assets that are reached",
        diagnostics,
    );
    section.missing(
        "rationale",
        "say why this path is open: rationale = \"...\"",
        diagnostics,
    );
    let name = section.text("name", diagnostics);
    if let Some(name) = &name {
        check_name("conduit", name, diagnostics);
    }
    let services = ["tcp", "udp", "icmp_echo", "modbus"];
    let opens_something = services.iter().any(|key| section.has(key));
    let what = format!("a Modbus rule of {}", section.what);
    let rules = section.table_list("modbus", diagnostics);
    let mut modbus = Vec::with_capacity(rules.len());
    for ((span, table), number) in rules.into_iter().zip(1..) {
        let section = Section::new(what.as_str(), span, table, &keys::MODBUS, diagnostics);
        modbus.push(modbus::read(&section, number, diagnostics));
    }
    ConduitDocument {
        name: name.as_ref().map_or(
            Spanned {
                value: String::new(),
                span: section.span,
            },
            owned,
        ),
        what: section.what.to_string(),
        from: parties(section, "from", diagnostics),
        to: parties(section, "to", diagnostics),
        rationale: required_words(section, "rationale", diagnostics),
        owner: words(section, "owner", diagnostics),
        agreement: words(section, "agreement", diagnostics),
        mode: mode(section, diagnostics),
        on_deny: on_deny(section, diagnostics),
        new_flows: section
            .parsed("new_flows", diagnostics, value::new_flows)
            .map_or_else(NewFlows::default, |rate| rate.value),
        tcp: ports(section, "tcp", diagnostics),
        udp: ports(section, "udp", diagnostics),
        icmp_echo: section.flag("icmp_echo", diagnostics),
        modbus,
        opens_something,
    }
}

fn parties(
    section: &Section<'_>,
    key: &str,
    diagnostics: &mut Diagnostics,
) -> Vec<Spanned<String>> {
    // A single name without brackets is understood, to check it as well, and reported.
    if let Some(value) = section.value(key)
        && let Some(name) = value.as_str()
    {
        let help = format!("expected a list: {key} = [\"{name}\"]");
        let fault = Fault::new("wrong-type", format!("`{key}` is a string"), help);
        return report(fault, value.span(), diagnostics).unwrap_or_default();
    }
    section.entries(key, diagnostics, |value| {
        entry_text("a zone or asset", value).map(Into::into)
    })
}

/// A list of ports and ranges of ports.
pub(super) fn ports(
    section: &Section<'_>,
    key: &str,
    diagnostics: &mut Diagnostics,
) -> Vec<Spanned<PortRange>> {
    section.entries(key, diagnostics, port_entry)
}

pub(super) fn port_entry(value: &Value<'_>) -> Result<PortRange, Fault> {
    value::port_range(number_or_range("port", value, u16::MAX)?)
}

/// `7` or `"3-5"`.
pub(super) fn number_or_range(
    what: &str,
    value: &Value<'_>,
    largest: u16,
) -> Result<(u16, u16), Fault> {
    match (value.integer(), value.as_str()) {
        (Some(number), _) => value::integer(what, number, 0, largest).map(|n| (n, n)),
        (_, Some(text)) => value::range(what, text, largest),
        _ => Err(wrong_entry(
            &format!("a {what}"),
            value,
            "a whole number or \"first-last\"",
        )),
    }
}

fn on_deny(section: &Section<'_>, diagnostics: &mut Diagnostics) -> OnDeny {
    let on_deny = section.parsed("on_deny", diagnostics, |text| match text {
        "reset" => Ok(OnDeny::Reset),
        "drop" => Ok(OnDeny::Drop),
        "exception" if section.has("modbus") => Ok(OnDeny::Exception),
        "exception" => Err(Fault::new(
            "contradiction",
            format!(
                "{} carries no Modbus, and `on_deny` is \"exception\"",
                section.what
            ),
            "an exception is an answer to a Modbus request: expected \"reset\" or \"drop\"",
        )),
        _ => Err(unknown_word(
            "on_deny",
            text,
            &["reset", "drop", "exception"],
        )),
    });
    on_deny.map_or_else(OnDeny::default, |on_deny| on_deny.value)
}
