//! Names by number: of the last policies for events, and in the pinned map for counters.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use aya::maps::MapError;
use conduitfw_common::{event::EventOperation, modbus::function::FunctionCode};
use nix::net::if_::if_indextoname;

use crate::{
    dataplane::maps::{Maps, NAME_CONDUIT, NAME_RULE, NameBytes, NameKey, Plain},
    events::{NameSource, Names},
    policy::{Ids, NameKind, NumberType, PolicyNames},
};

/// Policies kept to name the events that they decided.
const GENERATIONS_KEPT: usize = 8;

/// Names of conduits and rules, as they stand in the pinned map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameTable {
    /// Conduits by id.
    pub conduits: BTreeMap<u32, String>,
    /// Rules by id.
    pub rules: BTreeMap<u32, String>,
}

impl NameTable {
    /// Reads the pinned names.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read the map.
    pub fn read(maps: &Maps) -> Result<Self, MapError> {
        let mut table = Self::default();
        for row in &maps.names {
            let (Plain(key), name) = row?;
            match key.kind {
                NAME_CONDUIT => table.conduits.insert(key.id, text_of(&name)),
                NAME_RULE => table.rules.insert(key.id, text_of(&name)),
                _ => None,
            };
        }
        Ok(table)
    }

    /// The numbers that these names have.
    #[must_use]
    pub fn to_ids(&self) -> Ids {
        let mut ids = Ids::default();
        for (kind, names) in [
            (NameKind::Conduit, &self.conduits),
            (NameKind::Rule, &self.rules),
        ] {
            for (id, name) in names {
                let restored =
                    u16::try_from(*id).is_ok_and(|number| ids.insert(kind, number, name));
                if !restored {
                    tracing::warn!(id, name, "a pinned name is not usable; its counters stay");
                }
            }
        }
        ids
    }
}

/// Pins names that numbers were given to, but for those that are `known` to be pinned. Names stay
/// when their policy goes: so do their counters.
///
/// # Errors
///
/// The kernel refuses a row.
pub fn pin_names(ids: &Ids, known: &Ids, maps: &mut Maps) -> Result<(), MapError> {
    for (kind, number, name) in ids.iter() {
        if known.name(kind, number) == Some(name) {
            continue;
        }
        let key = NameKey {
            kind: match kind {
                NameKind::Conduit => NAME_CONDUIT,
                NameKind::Rule => NAME_RULE,
            },
            id: u32::from(number),
        };
        maps.names.insert(Plain(key), bytes_of(name), 0)?;
    }
    Ok(())
}

fn bytes_of(name: &str) -> NameBytes {
    let mut bytes = [0; 128];
    for (place, byte) in bytes.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    bytes
}

fn text_of(bytes: &NameBytes) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// The names that one policy gave, with those of the conduits.
#[derive(Debug, Default)]
struct NamesOfPolicy {
    policy: PolicyNames,
    conduits: Arc<BTreeMap<u16, Box<str>>>,
}

impl Names for NamesOfPolicy {
    fn asset(&self, address: IpAddr) -> Option<&str> {
        self.policy.asset(address)
    }

    fn zone(&self, address: IpAddr) -> Option<&str> {
        self.policy.zone(address)
    }

    fn conduit(&self, id: u16) -> Option<&str> {
        self.conduits.get(&id).map(AsRef::as_ref)
    }

    fn number_type(&self, conduit: u16, write: &EventOperation) -> Option<NumberType> {
        let conduit = self.conduits.get(&conduit)?;
        let function = FunctionCode(write.function);
        self.policy
            .number_type(conduit, write.unit, function, write.address)
    }
}

/// The names of the last policies, for the events that they decided.
#[derive(Default)]
pub struct NameHistory {
    policies: VecDeque<(u32, Arc<NamesOfPolicy>)>,
    /// For events of policies of which nothing is known any more.
    others: Arc<NamesOfPolicy>,
    /// Of the interfaces asked about lately; nothing for one that is gone.
    interfaces: BTreeMap<u32, Option<Arc<str>>>,
}

impl NameHistory {
    /// Remembers the names of a policy that came into force; `ids` has those of its conduits.
    /// Returns the generation that is forgotten for it.
    pub fn push(&mut self, generation: u32, policy: PolicyNames, ids: &Ids) -> Option<u32> {
        self.learn_conduits(ids);
        let names = NamesOfPolicy {
            policy,
            conduits: Arc::clone(&self.others.conduits),
        };
        self.policies.push_back((generation, Arc::new(names)));
        if self.policies.len() <= GENERATIONS_KEPT {
            return None;
        }
        self.policies.pop_front().map(|(forgotten, _)| forgotten)
    }

    /// Takes over the names of conduits, also of those that no policy has any more.
    pub fn learn_conduits(&mut self, ids: &Ids) {
        let names = ids
            .iter()
            .take_while(|(kind, ..)| *kind == NameKind::Conduit);
        let conduits = names.map(|(_, number, name)| (number, name.into()));
        self.others = Arc::new(NamesOfPolicy {
            policy: PolicyNames::default(),
            conduits: Arc::new(conduits.collect()),
        });
    }

    /// Asks for the names of interfaces anew from now on.
    pub fn forget_interfaces(&mut self) {
        self.interfaces.clear();
    }
}

impl NameSource for NameHistory {
    fn at(&self, generation: u32) -> Arc<dyn Names> {
        let mut policies = self.policies.iter().rev();
        let names = policies
            .find(|(number, _)| *number == generation)
            .map_or(&self.others, |(_, names)| names);
        Arc::<NamesOfPolicy>::clone(names)
    }

    fn interface(&mut self, ifindex: u32) -> Option<Arc<str>> {
        let name = || if_indextoname(ifindex).ok()?.into_string().ok();
        self.interfaces
            .entry(ifindex)
            .or_insert_with(|| name().map(Into::into))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_value_is_read_as_its_rule_does() {
        let policy = crate::policy::load_text(
            "policy.toml",
            r#"
            [site]
            name = "Works"
            [zones.a]
            interfaces = ["eth0"]
            networks = ["10.10.0.0/24"]
            [zones.b]
            interfaces = ["eth1"]
            networks = ["10.20.0.0/24"]
            [[conduits]]
            name = "trim"
            from = ["a"]
            to = ["b"]
            rationale = "test"
            [[conduits.modbus]]
            units = [1]
            functions = [16]
            registers = [{ first = 10, last = 11 }]
            type = "f32"
            word_order = "low-first"
            values = { min = 0, max = 1 }
            "#,
        );
        let mut history = NameHistory::default();
        let mut ids = Ids::default();
        assert!(ids.insert(NameKind::Conduit, 3, "trim"));
        history.push(4, PolicyNames::of(&policy.unwrap().policy, &[]), &ids);
        let write = |unit, function, address| EventOperation {
            unit,
            function,
            address,
            ..EventOperation::default()
        };
        let known = Some(NumberType::F32);
        assert_eq!(history.at(4).number_type(3, &write(1, 16, 10)), known);
        assert_eq!(history.at(4).number_type(3, &write(1, 16, 12)), None);
        assert_eq!(history.at(4).number_type(3, &write(2, 16, 10)), None);
        assert_eq!(history.at(4).number_type(3, &write(1, 6, 10)), None);
        assert_eq!(history.at(4).number_type(9, &write(1, 16, 10)), None);
        assert_eq!(history.at(5).number_type(3, &write(1, 16, 10)), None);
    }

    #[test]
    fn names_survive_the_map() {
        for name in ["hmi-dosing", "hmi-dosing/modbus-1", ""] {
            assert_eq!(text_of(&bytes_of(name)), name);
        }
        assert_eq!(text_of(&bytes_of(&"x".repeat(200))).len(), 128);
    }
}
