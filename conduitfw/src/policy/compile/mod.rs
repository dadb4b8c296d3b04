//! A policy laid out as the kernel reads it. It does not know in which slot it will stand.

mod contradictions;
mod ids;
mod intervals;
mod limits;
mod loopholes;
mod modbus;
mod operands;
mod pages;
mod pairs;
mod rows;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use conduitfw_common::table::{
    self, Address, Conduit as ConduitRow, FUNCTIONS, Generation, Interface, Interval, Limits,
    MAX_SERVICES, Network, Operation, Page, Pair, PairKey, RuleSet, Service, ValueRange, protocol,
};

use super::diagnostic::{Diagnostics, Refusal};
use super::model::{PartyId, Policy};
use super::resolve::does_not_fit;
use super::source::Span;
pub use ids::{Ids, NameKind, TooManyNames};
use modbus::{ModbusTables, Rules};
use pairs::Opening;
pub(super) use pairs::Pairs;
pub use rows::address_words;
use rows::{bridge, conduit_row, generation, interfaces, networks};

/// What a policy meets where it is applied.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Ticks of the kernel's clock in a second.
    pub ticks_per_second: u32,
    /// The machine's own addresses, used when the policy gives none.
    pub gateway_addresses: Vec<IpAddr>,
    /// The number of the generation.
    pub generation: u32,
}

/// The tables of one policy.
#[derive(Clone, Debug)]
pub struct CompiledTables {
    /// What holds for the whole policy.
    pub generation: Generation,
    /// Interface name, [`table::InterfaceKey::vlans`], and who may send there.
    pub interfaces: Vec<(String, u32, Interface)>,
    /// Bridged pairs of interfaces, and their [`conduitfw_common::forward::port_flag`]s.
    pub bridges: Vec<([String; 2], u32)>,
    /// Prefix length (with the 32 bits of the slot), address, and whose it is.
    pub networks: Vec<(u32, Address, Network)>,
    /// Runs of services by pair of parties; the slot is 0.
    pub pairs: Vec<(PairKey, Pair)>,
    /// Services.
    pub services: Vec<Service>,
    /// Conduits by number.
    pub conduits: Vec<(u16, ConduitRow)>,
    /// Rule sets; the first is unused.
    pub rule_sets: Vec<RuleSet>,
    /// Rows of operations; the first denies everything.
    pub operations: Vec<[Operation; FUNCTIONS as usize]>,
    /// Intervals of operands.
    pub intervals: Vec<Interval>,
    /// Which interval holds an operand, by its upper byte.
    pub pages: Vec<Page>,
    /// Limits of operations and written values; the first limits nothing.
    pub limits: Vec<Limits>,
    /// Values that may be written.
    pub value_ranges: Vec<ValueRange>,
}

/// Compiles a policy. `ids` changes only on success.
///
/// # Errors
/// When the policy does not fit the tables, or the surroundings contradict it.
pub fn compile(
    policy: &Policy,
    ids: &mut Ids,
    surroundings: &Surroundings,
) -> Result<CompiledTables, Refusal> {
    let mut diagnostics = Diagnostics::new(Arc::clone(&policy.source));
    let mut new_ids = ids.clone();
    let (tables, _) = build(policy, &mut new_ids, surroundings, &mut diagnostics);
    if diagnostics.has_errors() {
        return Err(diagnostics.into_refusal());
    }
    *ids = new_ids;
    Ok(tables)
}

/// Reports what would keep the policy from being compiled anywhere.
pub(super) fn check(policy: &Policy, diagnostics: &mut Diagnostics) -> Pairs {
    // The fastest kernel clock there is leaves the least room for times.
    let surroundings = Surroundings {
        ticks_per_second: 1000,
        ..Surroundings::default()
    };
    build(policy, &mut Ids::default(), &surroundings, diagnostics).1
}

pub(super) fn build(
    policy: &Policy,
    ids: &mut Ids,
    surroundings: &Surroundings,
    diagnostics: &mut Diagnostics,
) -> (CompiledTables, Pairs) {
    let joined = Pairs::new(policy, diagnostics);
    joined.check(policy, diagnostics);
    let mut modbus = ModbusTables::new(surroundings.ticks_per_second);
    let mut conduits = Vec::new();
    let mut numbers = Vec::new();
    let mut rule_sets = Vec::new();
    for (conduit, groups) in policy.conduits.iter().zip(&joined.groups) {
        let number = number(ids.conduit(&conduit.name), conduit.span, diagnostics);
        numbers.push(number);
        conduits.push((
            number,
            conduit_row(policy, conduit, surroundings, diagnostics),
        ));
        let mut rules = Vec::new();
        for rule in &conduit.modbus {
            let label = conduit.rule_label(rule);
            rules.push((
                rule,
                self::number(ids.rule(&label), conduit.span, diagnostics),
            ));
        }
        let mut sets = Vec::new();
        for (_, indices) in groups {
            let rules: Vec<_> = indices.iter().map(|&index| rules[index]).collect();
            let rules = Rules {
                conduit,
                numbered: &rules,
            };
            sets.push(modbus.rule_set(rules, diagnostics));
        }
        rule_sets.push(sets);
    }
    let (pairs, services) = services(&joined, &numbers, &rule_sets, policy, diagnostics);
    let tables = CompiledTables {
        generation: generation(policy, surroundings),
        interfaces: interfaces(policy, diagnostics),
        bridges: policy.bridges.iter().map(bridge).collect(),
        networks: networks(policy, surroundings, diagnostics),
        pairs,
        services,
        conduits,
        rule_sets: modbus.rule_sets,
        operations: modbus.operations,
        intervals: modbus.intervals,
        pages: modbus.pages.rows,
        limits: modbus.limits.limits,
        value_ranges: modbus.limits.values,
    };
    (tables, joined)
}

/// The number that was found, or 0 after a report.
fn number(number: Result<u16, TooManyNames>, span: Span, diagnostics: &mut Diagnostics) -> u16 {
    number.unwrap_or_else(|error| {
        let help = "`conduitfw detach` and a new start begin to count anew";
        diagnostics.error("does-not-fit", span, error.to_string(), help);
        0
    })
}

fn services(
    pairs: &Pairs,
    numbers: &[u16],
    rule_sets: &[Vec<u16>],
    policy: &Policy,
    diagnostics: &mut Diagnostics,
) -> (Vec<(PairKey, Pair)>, Vec<Service>) {
    let mut services: Vec<Service> = Vec::new();
    let mut known: HashMap<&[Opening], Pair> = HashMap::new();
    let mut rows = Vec::new();
    for ((from, to, transport), openings) in &pairs.openings {
        let pair = *known.entry(openings).or_insert_with(|| {
            let first = services.len();
            services.extend(
                openings
                    .iter()
                    .map(|opening| service(opening, numbers, rule_sets)),
            );
            let row_number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            Pair {
                first: row_number(first),
                count: row_number(openings.len()),
            }
        });
        let key = PairKey {
            slot: 0,
            from: party_number(*from),
            to: party_number(*to),
            transport: *transport,
        };
        rows.push((key, pair));
    }
    let limit = MAX_SERVICES as usize;
    if services.len() > limit {
        let span = policy
            .conduits
            .last()
            .map_or_else(Span::default, |conduit| conduit.span);
        does_not_fit("services", services.len(), limit, span, diagnostics);
    }
    (rows, services)
}

fn service(opening: &Opening, numbers: &[u16], rule_sets: &[Vec<u16>]) -> Service {
    let conduit = opening.conduit;
    let rule_set = opening
        .group
        .and_then(|group| rule_sets.get(conduit)?.get(group));
    Service {
        first_port: opening.ports.first,
        last_port: opening.ports.last,
        conduit: numbers.get(conduit).copied().unwrap_or(0),
        rule_set: rule_set.copied().unwrap_or(0),
        protocol: if opening.group.is_some() {
            protocol::MODBUS
        } else {
            protocol::NONE
        },
        reserved: [0; 3],
    }
}

/// [`table::Party::number`].
#[must_use]
pub fn party_number(party: PartyId) -> u16 {
    match party {
        PartyId::Zone(zone) => table::Party::zone(zone.0).number(),
        PartyId::Asset(asset) => table::Party::asset(asset.0).number(),
    }
}
