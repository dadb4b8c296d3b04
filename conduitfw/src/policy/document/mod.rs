//! The text of a policy, read: types and single values are right, names are not looked up yet.

mod bridge;
mod conduit;
pub mod keys;
mod modbus;
mod section;
mod tree;

use std::net::IpAddr;
use std::time::Duration;

use super::diagnostic::{Diagnostics, is_unprintable};
use super::model::{
    Bridge, Forwarding, Limits, Mode, NewFlows, OnDeny, PortRange, Site, Timeouts, Vlans,
};
use super::source::{Source, Span, Spanned};
use super::suggestion;
use super::value::{self, Fault};
use bridge::bridges;
use conduit::conduits;
use ipnet::IpNet;
pub(super) use modbus::ModbusDocument;
use section::{Section, entry_text};
use tree::Slip;

/// The name that stands for the machine itself.
pub(super) const GATEWAY: &str = "gateway";

/// How long connections that were open before the gateway are picked up, unless the text says.
const ADOPT: Duration = Duration::from_mins(5);

/// What the text says.
#[derive(Debug)]
pub(super) struct PolicyDocument {
    pub(super) site: Site,
    pub(super) settings: Settings,
    pub(super) gateway: Option<Vec<Spanned<IpAddr>>>,
    pub(super) bridges: Vec<BridgeDocument>,
    pub(super) zones: Vec<ZoneDocument>,
    pub(super) assets: Vec<AssetDocument>,
    pub(super) conduits: Vec<ConduitDocument>,
}

/// `[settings]`.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) mode: Mode,
    pub(super) forwarding: Forwarding,
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
    pub(super) adopt: Duration,
}

/// `[[bridges]]`.
#[derive(Debug)]
pub(super) struct BridgeDocument {
    pub(super) what: String,
    pub(super) span: Span,
    pub(super) ports: Vec<Spanned<String>>,
    pub(super) bridge: Bridge,
}

/// `[zones.NAME]`.
#[derive(Debug)]
pub(super) struct ZoneDocument {
    pub(super) name: Spanned<String>,
    pub(super) interfaces: Vec<Spanned<String>>,
    pub(super) networks: Vec<Spanned<IpNet>>,
    pub(super) vlans: Vec<Spanned<Vlans>>,
    pub(super) security_level: Option<u8>,
    pub(super) description: Option<String>,
    pub(super) nested: bool,
}

/// `[assets.NAME]`.
#[derive(Debug)]
pub(super) struct AssetDocument {
    pub(super) name: Spanned<String>,
    pub(super) zone: Option<Spanned<String>>,
    pub(super) addresses: Vec<Spanned<IpAddr>>,
    pub(super) description: Option<String>,
}

/// `[[conduits]]`.
#[derive(Debug)]
pub(super) struct ConduitDocument {
    /// Empty when it has none.
    pub(super) name: Spanned<String>,
    pub(super) what: String,
    pub(super) from: Vec<Spanned<String>>,
    pub(super) to: Vec<Spanned<String>>,
    pub(super) rationale: String,
    pub(super) owner: Option<String>,
    pub(super) agreement: Option<String>,
    pub(super) mode: Option<Mode>,
    pub(super) on_deny: OnDeny,
    pub(super) new_flows: NewFlows,
    pub(super) tcp: Vec<Spanned<PortRange>>,
    pub(super) udp: Vec<Spanned<PortRange>>,
    pub(super) icmp_echo: bool,
    pub(super) modbus: Vec<ModbusDocument>,
    /// Whether it names a service at all, be it a wrong one.
    pub(super) opens_something: bool,
}

/// Reads the text. Nothing, when it is not even TOML.
pub(super) fn read(source: &Source, diagnostics: &mut Diagnostics) -> Option<PolicyDocument> {
    let (table, slips) = tree::read(source.text());
    let mut is_toml = true;
    let mut repeated = Span::default();
    for Slip { message, span } in slips {
        if message != "duplicate key" {
            is_toml = false;
            diagnostics.error("not-toml", span, message, "the policy is not TOML here");
        } else if !(repeated.start..repeated.end).contains(&span.start) {
            let key = source.slice(span);
            let help = "zones, assets and keys are given once: choose another name, or remove one";
            diagnostics.error(
                "duplicate-name",
                span,
                format!("`{key}` is given twice"),
                help,
            );
            repeated = source.table_from(span);
        }
    }
    // What follows a slip in the syntax would be guesses.
    if !is_toml {
        return None;
    }
    let top = Section::new(
        "the policy",
        Span::default(),
        &table,
        &keys::POLICY,
        diagnostics,
    );
    top.missing("zones", "name the zones, each as [zones.NAME]", diagnostics);
    let settings = settings(&top, diagnostics);
    let document = PolicyDocument {
        site: site(&top, diagnostics),
        settings,
        gateway: gateway(&top, diagnostics),
        bridges: bridges(&top, diagnostics),
        zones: zones(&top, diagnostics),
        assets: assets(&top, diagnostics),
        conduits: conduits(&top, diagnostics),
    };
    Some(document)
}

fn site(top: &Section<'_>, diagnostics: &mut Diagnostics) -> Site {
    top.missing("site", "begin with [site] and its name", diagnostics);
    let Some((span, table)) = top.table("site", diagnostics) else {
        return Site::default();
    };
    let section = Section::new("[site]", span, table, &keys::SITE, diagnostics);
    section.missing("name", "add name = \"...\"", diagnostics);
    Site {
        name: required_words(&section, "name", diagnostics),
        description: words(&section, "description", diagnostics),
    }
}

fn settings(top: &Section<'_>, diagnostics: &mut Diagnostics) -> Settings {
    let mut settings = Settings {
        mode: Mode::default(),
        forwarding: Forwarding::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        adopt: ADOPT,
    };
    let Some((span, table)) = top.table("settings", diagnostics) else {
        return settings;
    };
    let section = Section::new("[settings]", span, table, &keys::SETTINGS, diagnostics);
    settings.mode = mode(&section, diagnostics).unwrap_or_default();
    let forwarding = section.parsed("forwarding", diagnostics, |text| match text {
        "kernel" => Ok(Forwarding::Kernel),
        "fast" => Ok(Forwarding::Fast),
        _ => Err(unknown_word("forwarding", text, &["kernel", "fast"])),
    });
    settings.forwarding = forwarding.map_or_else(Forwarding::default, |word| word.value);
    if let Some(adopt) = section.parsed("adopt", diagnostics, value::adopt) {
        settings.adopt = adopt.value;
    }
    if let Some((span, table)) = section.table("timeouts", diagnostics) {
        let section = Section::new(
            "[settings.timeouts]",
            span,
            table,
            &keys::TIMEOUTS,
            diagnostics,
        );
        let timeouts = &mut settings.timeouts;
        let mut set = |key: &str, timeout: &mut Duration| {
            if let Some(duration) = section.parsed(key, diagnostics, value::duration) {
                *timeout = duration.value;
            }
        };
        set("tcp_established", &mut timeouts.tcp_established);
        set("tcp_opening", &mut timeouts.tcp_opening);
        set("tcp_closing", &mut timeouts.tcp_closing);
        set("datagram", &mut timeouts.datagram);
        set("datagram_opening", &mut timeouts.datagram_opening);
        set("modbus_reply", &mut timeouts.modbus_reply);
    }
    if let Some((span, table)) = section.table("limits", diagnostics) {
        let section = Section::new("[settings.limits]", span, table, &keys::LIMITS, diagnostics);
        let limits = &mut settings.limits;
        let mut set = |key: &str, limit: &mut u32, range: (u32, u32)| {
            if let Some(number) = section.number(key, range, diagnostics) {
                *limit = number.value;
            }
        };
        set("flows", &mut limits.flows, (64, 1 << 20));
        set("opening_flows", &mut limits.opening_flows, (64, 1 << 18));
        set(
            "inspected_flows",
            &mut limits.inspected_flows,
            (16, 1 << 16),
        );
    }
    settings
}

fn gateway(top: &Section<'_>, diagnostics: &mut Diagnostics) -> Option<Vec<Spanned<IpAddr>>> {
    let (span, table) = top.table("gateway", diagnostics)?;
    let section = Section::new("[gateway]", span, table, &keys::GATEWAY, diagnostics);
    section
        .has("addresses")
        .then(|| addresses(&section, diagnostics))
}

fn zones(top: &Section<'_>, diagnostics: &mut Diagnostics) -> Vec<ZoneDocument> {
    let mut zones = Vec::new();
    for (name, table) in top.named_tables("zones", diagnostics) {
        check_name("zone", &name, diagnostics);
        let what = format!("zone `{}`", name.value);
        let section = Section::new(what, name.span, table, &keys::ZONE, diagnostics);
        section.missing("interfaces", "add interfaces = [\"eth0\"]", diagnostics);
        section.missing("networks", "add networks = [\"10.20.0.0/24\"]", diagnostics);
        let mut vlans = section.entries("vlans", diagnostics, |value| match value.integer() {
            Some(number) => value::vlan_id(number, &number.to_string()).map(Vlans::Single),
            None => value::vlans(entry_text("a VLAN", value)?),
        });
        if vlans.is_empty() {
            vlans.push(Spanned {
                value: Vlans::Untagged,
                span: section.place("vlans"),
            });
        }
        let level = section.number("security_level", (0, 4), diagnostics);
        zones.push(ZoneDocument {
            name: Spanned {
                value: name.value.to_owned(),
                span: name.span,
            },
            interfaces: section.entries("interfaces", diagnostics, |value| {
                let text = entry_text("an interface", value)?;
                value::interface(text).map(|()| text.to_owned())
            }),
            networks: section.entries("networks", diagnostics, |value| {
                value::network(entry_text("a network", value)?)
            }),
            vlans,
            security_level: level.and_then(|level| u8::try_from(level.value).ok()),
            description: words(&section, "description", diagnostics),
            nested: section.flag("nested", diagnostics),
        });
    }
    zones
}

fn assets(top: &Section<'_>, diagnostics: &mut Diagnostics) -> Vec<AssetDocument> {
    let mut assets = Vec::new();
    for (name, table) in top.named_tables("assets", diagnostics) {
        check_name("asset", &name, diagnostics);
        let what = format!("asset `{}`", name.value);
        let section = Section::new(what, name.span, table, &keys::ASSET, diagnostics);
        section.missing("zone", "add zone = \"...\"", diagnostics);
        let mut found = addresses(&section, diagnostics);
        if section.has("address") && section.has("addresses") {
            diagnostics.error(
                "contradiction",
                section.place("address"),
                format!("{} has both `address` and `addresses`", section.what),
                "put all of them into `addresses`",
            );
        } else if !section.has("addresses") {
            section.missing("address", "add address = \"...\"", diagnostics);
        }
        found.extend(section.parsed("address", diagnostics, value::address));
        assets.push(AssetDocument {
            name: Spanned {
                value: name.value.to_owned(),
                span: name.span,
            },
            zone: section.text("zone", diagnostics).as_ref().map(owned),
            addresses: found,
            description: words(&section, "description", diagnostics),
        });
    }
    assets
}

fn addresses(section: &Section<'_>, diagnostics: &mut Diagnostics) -> Vec<Spanned<IpAddr>> {
    section.entries("addresses", diagnostics, |value| {
        value::address(entry_text("an address", value)?)
    })
}

fn mode(section: &Section<'_>, diagnostics: &mut Diagnostics) -> Option<Mode> {
    let mode = section.parsed("mode", diagnostics, |text| match text {
        "enforce" => Ok(Mode::Enforce),
        "observe" => Ok(Mode::Observe),
        _ => Err(unknown_word("mode", text, &["enforce", "observe"])),
    });
    mode.map(|mode| mode.value)
}

fn unknown_word(key: &str, found: &str, words: &[&str]) -> Fault {
    Fault::new(
        "unknown-word",
        format!("`{key}` cannot be `{found}`"),
        suggestion::did_you_mean(found, words.iter().copied(), || {
            format!("expected {}", suggestion::list(words.iter().copied()))
        }),
    )
}

/// A text for people. It is shown as it is, so it must not hold what a terminal would obey.
fn words(section: &Section<'_>, key: &str, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = section.text(key, diagnostics)?;
    let joined = text
        .value
        .split(['\n', '\r', '\t'])
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ");
    if joined.chars().any(is_unprintable) {
        let message = format!("`{key}` has a control character or an invisible one");
        diagnostics.error("control-character", text.span, message, "remove it");
    }
    Some(joined.trim().to_owned())
}

/// A text for people that must say something.
fn required_words(section: &Section<'_>, key: &str, diagnostics: &mut Diagnostics) -> String {
    let Some(words) = words(section, key, diagnostics) else {
        return String::new();
    };
    if words.is_empty() {
        let message = format!("{} has an empty `{key}`", section.what);
        diagnostics.error("empty-text", section.place(key), message, "say it in words");
    }
    words
}

fn check_name(what: &str, name: &Spanned<&str>, diagnostics: &mut Diagnostics) {
    if let Err(fault) = value::name(what, name.value) {
        diagnostics.error(fault.code, name.span, fault.message, fault.help);
    }
}

fn owned(text: &Spanned<&str>) -> Spanned<String> {
    Spanned {
        value: text.value.to_owned(),
        span: text.span,
    }
}
