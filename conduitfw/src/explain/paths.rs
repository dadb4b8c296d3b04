//! The conduit that almost opens a path, and what it lacks.

use conduitfw_common::Reason;

use super::{Lack, Part, Question, Service, holds_port, party::Party, words::joined};
use crate::policy::{Conduit, PartyId, Policy, PortRange};

/// Conduits that are told at most.
const TOLD: usize = 2;

/// What the policy lacks for a path, by what the decision said.
pub(super) fn lacks(
    policy: &Policy,
    question: &Question,
    (from, to): (&Party, &Party),
    reason: Reason,
) -> Vec<Lack> {
    match reason {
        Reason::NoConduit => no_conduit(policy, question.service.path(), from, to),
        Reason::SpoofedSource => vec![stranger(Part::From, from)],
        Reason::UnknownDestination => vec![stranger(Part::To, to)],
        _ => Vec::new(),
    }
}

fn stranger(part: Part, party: &Party) -> Lack {
    let text = match &party.zone_name {
        None => format!("{} belongs to no zone", party.address),
        Some(zone) => format!("{} belongs to zone `{zone}`", party.address),
    };
    Lack {
        part,
        rule: None,
        text,
    }
}

/// A transport and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Tcp(u16),
    Udp(u16),
    Echo,
}

impl Service {
    pub(super) fn path(&self) -> Path {
        match self {
            Self::Modbus { port, .. } | Self::Tcp(port) => Path::Tcp(*port),
            Self::Udp(port) => Path::Udp(*port),
            Self::IcmpEcho => Path::Echo,
        }
    }
}

fn no_conduit(policy: &Policy, path: Path, from: &Party, to: &Party) -> Vec<Lack> {
    let lack = |part, conduit: &Conduit, allows: String| Lack {
        part,
        rule: None,
        text: format!("conduit `{}` {allows}", conduit.name),
    };
    let names = |parties: &[PartyId]| {
        let names = parties.iter().map(|party| policy.party_name(*party));
        joined(names.map(str::to_owned).collect())
    };
    let mut told = Vec::new();
    for conduit in &policy.conduits {
        let (has_from, has_to) = (has(&conduit.from, from), has(&conduit.to, to));
        let opens = opens(conduit, path);
        if has_from && has_to {
            let allows = format!("opens {}, not {}", services(conduit), words(path));
            told.push((0, lack(Part::Service, conduit, allows)));
        } else if opens && has_to {
            let allows = format!(
                "is from {}, not from {}",
                names(&conduit.from),
                from.short()
            );
            told.push((1, lack(Part::From, conduit, allows)));
        } else if opens && has_from {
            let allows = format!("is to {}, not to {}", names(&conduit.to), to.short());
            told.push((1, lack(Part::To, conduit, allows)));
        } else if opens && has(&conduit.from, to) && has(&conduit.to, from) {
            let allows = format!(
                "is the other way: from {} to {}",
                names(&conduit.from),
                names(&conduit.to)
            );
            told.push((2, lack(Part::Direction, conduit, allows)));
        }
    }
    told.sort_by_key(|(rank, _)| *rank);
    let nearest = told.first().map_or(0, |(rank, _)| *rank);
    let near = told.into_iter().filter(|(rank, _)| *rank == nearest);
    let near: Vec<Lack> = near.map(|(_, lack)| lack).take(TOLD).collect();
    if !near.is_empty() {
        return near;
    }
    vec![Lack {
        part: Part::Conduit,
        rule: None,
        text: format!("no conduit leads from {} to {}", from.short(), to.short()),
    }]
}

fn has(parties: &[PartyId], party: &Party) -> bool {
    parties.iter().any(|one| match one {
        PartyId::Zone(zone) => party.zone == Some(*zone),
        PartyId::Asset(asset) => party.asset == Some(*asset),
    })
}

fn opens(conduit: &Conduit, path: Path) -> bool {
    match path {
        Path::Tcp(port) => {
            let mut rules = conduit.modbus.iter();
            holds_port(&conduit.tcp, port) || rules.any(|rule| holds_port(&rule.ports, port))
        }
        Path::Udp(port) => holds_port(&conduit.udp, port),
        Path::Echo => conduit.icmp_echo,
    }
}

/// "tcp 443 and 5000 to 5010, modbus on 502".
fn services(conduit: &Conduit) -> String {
    let mut modbus: Vec<PortRange> = conduit
        .modbus
        .iter()
        .flat_map(|rule| rule.ports.iter().copied())
        .collect();
    modbus.sort_unstable();
    modbus.dedup();
    let kinds = [
        ("modbus on tcp port", &modbus),
        ("tcp port", &conduit.tcp),
        ("udp port", &conduit.udp),
    ];
    let mut words = Vec::new();
    for (what, ranges) in kinds {
        if !ranges.is_empty() {
            let ranges = ranges.iter().map(|range| {
                if range.first == range.last {
                    range.first.to_string()
                } else {
                    format!("{} to {}", range.first, range.last)
                }
            });
            words.push(format!("{what} {}", joined(ranges.collect())));
        }
    }
    if conduit.icmp_echo {
        words.push("icmp echo".to_owned());
    }
    words.join("; ")
}

/// "tcp port 443".
pub(super) fn words(path: Path) -> String {
    match path {
        Path::Tcp(port) => format!("tcp port {port}"),
        Path::Udp(port) => format!("udp port {port}"),
        Path::Echo => "icmp echo".to_owned(),
    }
}
