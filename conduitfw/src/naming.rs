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
    events::Names,
    policy::{Ids, ModbusRule, NameKind, NumberType, Policy},
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

    /// The names that numbers were given to.
    #[must_use]
    pub fn from_ids(ids: &Ids) -> Self {
        let mut table = Self::default();
        for (kind, number, name) in ids.iter() {
            let names = match kind {
                NameKind::Conduit => &mut table.conduits,
                NameKind::Rule => &mut table.rules,
            };
            names.insert(u32::from(number), name.to_owned());
        }
        table
    }

    /// Writes the names that are not pinned yet. Names stay when their policy goes: so do their
    /// counters.
    ///
    /// # Errors
    ///
    /// The kernel refuses a row.
    pub fn write_missing(&self, known: &Self, maps: &mut Maps) -> Result<(), MapError> {
        let kinds = [
            (NAME_CONDUIT, &self.conduits, &known.conduits),
            (NAME_RULE, &self.rules, &known.rules),
        ];
        for (kind, names, known) in kinds {
            for (id, name) in names
                .iter()
                .filter(|(id, name)| known.get(id) != Some(name))
            {
                maps.names
                    .insert(Plain(NameKey { kind, id: *id }), bytes_of(name), 0)?;
            }
        }
        Ok(())
    }
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

/// The last policies, to name the events that they decided.
#[derive(Default)]
pub struct NameHistory {
    policies: VecDeque<(u32, Arc<Policy>, Vec<IpAddr>)>,
    /// Names of conduits and rules.
    pub table: NameTable,
}

impl NameHistory {
    /// Remembers a policy that came into force, with the addresses that the gateway has in it.
    pub fn push(&mut self, generation: u32, policy: Arc<Policy>, gateway: Vec<IpAddr>) {
        if self.policies.len() >= GENERATIONS_KEPT {
            self.policies.pop_front();
        }
        self.policies.push_back((generation, policy, gateway));
    }

    fn at(&self, generation: u32) -> Option<(&Policy, &[IpAddr])> {
        self.policies
            .iter()
            .rev()
            .find(|(number, ..)| *number == generation)
            .map(|(_, policy, gateway)| (policy.as_ref(), gateway.as_slice()))
    }
}

impl Names for NameHistory {
    fn asset(&self, generation: u32, address: IpAddr) -> Option<String> {
        let (policy, _) = self.at(generation)?;
        policy.asset_of(address).map(|asset| asset.name.clone())
    }

    fn zone(&self, generation: u32, address: IpAddr) -> Option<String> {
        let (policy, gateway) = self.at(generation)?;
        if gateway.contains(&address) {
            return Some(policy.zone_name(crate::policy::ZoneId::GATEWAY).to_owned());
        }
        policy
            .zone_of(address)
            .map(|zone| policy.zone_name(zone).to_owned())
    }

    fn conduit(&self, id: u16) -> Option<String> {
        self.table.conduits.get(&u32::from(id)).cloned()
    }

    fn interface(&self, ifindex: u32) -> Option<String> {
        if_indextoname(ifindex).ok()?.into_string().ok()
    }

    fn number_type(
        &self,
        generation: u32,
        conduit: u16,
        write: &EventOperation,
    ) -> Option<NumberType> {
        let (policy, _) = self.at(generation)?;
        let conduit = policy.conduit(self.table.conduits.get(&u32::from(conduit))?)?;
        let function = FunctionCode(write.function);
        let owns = |rule: &&ModbusRule| {
            let ranges = rule.ranges(function);
            rule.units.contains(write.unit)
                && rule.functions.contains(write.function)
                && ranges.is_none_or(|ranges| {
                    let mut ranges = ranges.iter();
                    ranges.any(|range| (range.first..=range.last).contains(&write.address))
                })
        };
        let rule = conduit.modbus.iter().find(owns)?;
        rule.written(function).map(|written| written.number)
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
        history.push(4, Arc::new(policy.unwrap().policy), Vec::new());
        history.table.conduits.insert(3, "trim".to_owned());
        let write = |unit, function, address| EventOperation {
            unit,
            function,
            address,
            ..EventOperation::default()
        };
        let known = Some(NumberType::F32);
        assert_eq!(history.number_type(4, 3, &write(1, 16, 10)), known);
        assert_eq!(history.number_type(4, 3, &write(1, 16, 12)), None);
        assert_eq!(history.number_type(4, 3, &write(2, 16, 10)), None);
        assert_eq!(history.number_type(4, 3, &write(1, 6, 10)), None);
        assert_eq!(history.number_type(4, 9, &write(1, 16, 10)), None);
        assert_eq!(history.number_type(5, 3, &write(1, 16, 10)), None);
    }

    #[test]
    fn names_survive_the_map() {
        for name in ["hmi-dosing", "hmi-dosing/modbus-1", ""] {
            assert_eq!(text_of(&bytes_of(name)), name);
        }
        assert_eq!(text_of(&bytes_of(&"x".repeat(200))).len(), 128);
    }
}
