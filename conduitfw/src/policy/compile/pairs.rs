//! Which conduit serves which ports between which two parties.

use std::collections::{BTreeMap, HashMap, HashSet};

use conduitfw_common::table::{MAX_PAIRS, SLOTS};

use super::super::diagnostic::Diagnostics;
use super::super::model::{PartyId, Policy, PortRange, ZoneId};
use super::super::resolve::does_not_fit;
use super::modbus::{PortGroup, port_groups};

/// Transports by IP protocol number; ICMP echo is the same for both IP versions.
pub(super) const TCP: u16 = 6;
pub(super) const UDP: u16 = 17;
pub(super) const ICMP_ECHO: u16 = 1;

/// All that ICMP echo has in place of ports.
const NO_PORTS: PortRange = PortRange {
    first: 0,
    last: u16::MAX,
};

/// Ports that one conduit opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Opening {
    pub(in super::super) ports: PortRange,
    /// Index of the conduit.
    pub(in super::super) conduit: usize,
    /// Index of the conduit's port group, where it carries Modbus.
    pub(super) group: Option<usize>,
}

type Key = (PartyId, PartyId, u16);

/// Every pair of parties that a conduit joins, and what it opens, sorted by port.
#[derive(Debug, Default)]
pub(in super::super) struct Pairs {
    pub(super) openings: BTreeMap<Key, Vec<Opening>>,
    /// By conduit.
    pub(super) groups: Vec<Vec<PortGroup>>,
}

impl Pairs {
    /// Lists the pairs. Reports when there are too many.
    pub(in super::super) fn new(policy: &Policy, diagnostics: &mut Diagnostics) -> Self {
        let mut pairs = Self::default();
        let limit = (MAX_PAIRS / SLOTS) as usize;
        let mut total = 0usize;
        for (index, conduit) in policy.conduits.iter().enumerate() {
            let groups = port_groups(conduit, diagnostics);
            let by_transport = openings(policy, index, &groups);
            pairs.groups.push(groups);
            let joined = conduit.from.len() * conduit.to.len() * by_transport.len();
            total = total.saturating_add(joined);
            if total > limit {
                let what = "pairs of parties and transports";
                does_not_fit(what, total, limit, conduit.span, diagnostics);
                break;
            }
            for from in &conduit.from {
                for to in &conduit.to {
                    for (transport, openings) in &by_transport {
                        let known = pairs.openings.entry((*from, *to, *transport)).or_default();
                        known.extend(openings);
                    }
                }
            }
        }
        pairs
            .openings
            .values_mut()
            .for_each(|openings| openings.sort_unstable());
        pairs
    }

    /// Reports ports that two conduits open for the same pair, and pairs that two conduits claim
    /// with neither being more specific.
    pub(in super::super) fn check(&self, policy: &Policy, diagnostics: &mut Diagnostics) {
        let mut reported = HashSet::new();
        for (key, openings) in &self.openings {
            let mut highest: Option<&Opening> = None;
            for opening in openings {
                if let Some(other) = highest
                    && other.conduit != opening.conduit
                    && opening.ports.first <= other.ports.last
                {
                    let (one, two) = ordered(other.conduit, opening.conduit);
                    if reported.insert((one, two)) {
                        port_used_twice(policy, *key, (one, two), opening.ports.first, diagnostics);
                    }
                }
                if highest.is_none_or(|other| opening.ports.last >= other.ports.last) {
                    highest = Some(opening);
                }
            }
        }
        self.ambiguous(policy, diagnostics);
    }

    /// Asset to zone against zone to asset, unless asset to asset settles it.
    fn ambiguous(&self, policy: &Policy, diagnostics: &mut Diagnostics) {
        let mut zone_to_asset: HashMap<(ZoneId, ZoneId, u16), Vec<Key>> = HashMap::new();
        for key in self.openings.keys() {
            if let (PartyId::Zone(from), PartyId::Asset(_), transport) = *key {
                let to = policy.zone_of_party(key.1);
                zone_to_asset
                    .entry((from, to, transport))
                    .or_default()
                    .push(*key);
            }
        }
        let mut reported = HashSet::new();
        for (key, openings) in &self.openings {
            let (PartyId::Asset(_), PartyId::Zone(to), transport) = *key else {
                continue;
            };
            let from = policy.zone_of_party(key.0);
            for other in zone_to_asset
                .get(&(from, to, transport))
                .into_iter()
                .flatten()
            {
                let others = &self.openings[other];
                for (ports, one, two) in overlaps(openings, others) {
                    let conduits = ordered(one, two);
                    let exact = self.openings.get(&(key.0, other.1, transport));
                    let Some(port) = first_not_in(ports, exact.map_or(&[], Vec::as_slice)) else {
                        continue;
                    };
                    if reported.insert(conduits) {
                        ambiguous_pair(policy, (key.0, other.1), conduits, port, diagnostics);
                    }
                }
            }
        }
    }

    /// Conduits that take a pair out of a broader conduit: (specific, broader, from, to, port).
    pub(in super::super) fn specific(
        &self,
        policy: &Policy,
    ) -> Vec<(usize, usize, (PartyId, PartyId), u16)> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for (&(from, to, transport), openings) in &self.openings {
            let from_zone = PartyId::Zone(policy.zone_of_party(from));
            let to_zone = PartyId::Zone(policy.zone_of_party(to));
            let mut broader = vec![(from, to_zone), (from_zone, to), (from_zone, to_zone)];
            broader.dedup();
            for (other_from, other_to) in broader {
                if (other_from, other_to) == (from, to) {
                    continue;
                }
                let others = self.openings.get(&(other_from, other_to, transport));
                for (ports, one, two) in others.iter().flat_map(|others| overlaps(openings, others))
                {
                    if seen.insert((one, two)) {
                        found.push((one, two, (from, to), ports.first));
                    }
                }
            }
        }
        found
    }
}

/// What a conduit opens, by transport.
fn openings(policy: &Policy, index: usize, groups: &[PortGroup]) -> Vec<(u16, Vec<Opening>)> {
    let Some(conduit) = policy.conduits.get(index) else {
        return Vec::new();
    };
    let plain = |ports: &PortRange| Opening {
        ports: *ports,
        conduit: index,
        group: None,
    };
    let modbus = groups
        .iter()
        .enumerate()
        .map(|(group, (ports, _))| Opening {
            ports: *ports,
            conduit: index,
            group: Some(group),
        });
    let tcp: Vec<Opening> = conduit.tcp.iter().map(plain).chain(modbus).collect();
    let udp = conduit.udp.iter().map(plain).collect();
    let echo = conduit
        .icmp_echo
        .then_some(&NO_PORTS)
        .into_iter()
        .map(plain)
        .collect();
    let mut all = vec![(TCP, tcp), (UDP, udp), (ICMP_ECHO, echo)];
    all.retain(|(_, openings): &(u16, Vec<Opening>)| !openings.is_empty());
    all
}

/// Ports that openings of two different conduits share, and the conduits.
fn overlaps(one: &[Opening], two: &[Opening]) -> Vec<(PortRange, usize, usize)> {
    let mut found = Vec::new();
    let mut rest = two;
    for opening in one {
        // Both are sorted; on a pair without errors also disjoint.
        while let [first, others @ ..] = rest
            && first.ports.last < opening.ports.first
        {
            rest = others;
        }
        for other in rest
            .iter()
            .take_while(|other| other.ports.first <= opening.ports.last)
        {
            if other.conduit != opening.conduit && other.ports.last >= opening.ports.first {
                let first = opening.ports.first.max(other.ports.first);
                let last = opening.ports.last.min(other.ports.last);
                found.push((PortRange { first, last }, opening.conduit, other.conduit));
            }
        }
    }
    found
}

/// The first port of `ports` that is in none of the openings, which are sorted.
fn first_not_in(ports: PortRange, openings: &[Opening]) -> Option<u16> {
    let mut port = ports.first;
    for opening in openings {
        if opening.ports.first <= port && port <= opening.ports.last {
            port = opening.ports.last.checked_add(1)?;
        }
    }
    (port <= ports.last).then_some(port)
}

fn ordered(one: usize, two: usize) -> (usize, usize) {
    (one.min(two), one.max(two))
}

/// "TCP port 502", "ICMP echo".
fn service_name(transport: u16, port: u16) -> String {
    match transport {
        TCP => format!("TCP port {port}"),
        UDP => format!("UDP port {port}"),
        _ => "ICMP echo".to_owned(),
    }
}

fn port_used_twice(
    policy: &Policy,
    (from, to, transport): Key,
    (one, two): (usize, usize),
    port: u16,
    diagnostics: &mut Diagnostics,
) {
    let (Some(one), Some(two)) = (policy.conduits.get(one), policy.conduits.get(two)) else {
        return;
    };
    let at = diagnostics.line_of(one.span);
    diagnostics.error(
        "port-used-twice",
        two.span,
        format!(
            "conduits `{}` and `{}` both open {} from `{}` to `{}`",
            one.name,
            two.name,
            service_name(transport, port),
            policy.party_name(from),
            policy.party_name(to)
        ),
        format!("one conduit answers for a service: join them, or change one (the other: {at})"),
    );
}

fn ambiguous_pair(
    policy: &Policy,
    (from, to): (PartyId, PartyId),
    (one, two): (usize, usize),
    port: u16,
    diagnostics: &mut Diagnostics,
) {
    let (Some(one), Some(two)) = (policy.conduits.get(one), policy.conduits.get(two)) else {
        return;
    };
    let at = diagnostics.line_of(one.span);
    let (from, to) = (policy.party_name(from), policy.party_name(to));
    diagnostics.error(
        "ambiguous-conduits",
        two.span,
        format!(
            "conduits `{}` and `{}` both open port {port} from `{from}` to `{to}`, and neither is \
             more specific",
            one.name, two.name
        ),
        format!("add a conduit from `{from}` to `{to}`, or change one (the other: {at})"),
    );
}
