//! What a policy calls things: all that events need of it, in a small part of its size.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use conduitfw_common::modbus::function::FunctionCode;

use super::policy::AddressIndex;
use super::{
    ByteSet, Conduit, ModbusRule, ModbusTable, NumberType, OperandRange, Policy, Written, ZoneId,
};

/// Names of zones and assets by address, and how written numbers are read.
#[derive(Debug, Default)]
pub struct PolicyNames {
    gateway: Vec<IpAddr>,
    gateway_name: Box<str>,
    addresses: AddressIndex,
    /// By number, as in [`Policy`].
    zones: Vec<Box<str>>,
    assets: Vec<Box<str>>,
    /// By name of the conduit, where it has rules that limit what is written.
    numbers: BTreeMap<Box<str>, Numbers>,
}

/// Where the rules of one conduit read numbers, by what they share.
type Numbers = HashMap<(ByteSet, ByteSet, NumberType), Vec<Place>>;

/// Where a number may be written: on a function that works on a table, or on any of them.
type Place = Option<(ModbusTable, OperandRange)>;

impl PolicyNames {
    /// The names of a policy, where the gateway has these addresses.
    #[must_use]
    pub fn of(policy: &Policy, gateway: &[IpAddr]) -> Self {
        let conduits = policy.conduits.iter();
        let numbers = conduits.map(|conduit| (conduit.name.as_str().into(), numbers(conduit)));
        Self {
            gateway: gateway.to_vec(),
            gateway_name: policy.zone_name(ZoneId::GATEWAY).into(),
            addresses: policy.addresses.clone(),
            zones: policy
                .zones
                .iter()
                .map(|z| z.name.as_str().into())
                .collect(),
            assets: policy
                .assets
                .iter()
                .map(|a| a.name.as_str().into())
                .collect(),
            numbers: numbers
                .filter(|(_, numbers): &(_, Numbers)| !numbers.is_empty())
                .collect(),
        }
    }

    /// The zone of an address.
    #[must_use]
    pub fn zone(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        if self.gateway.contains(&address) {
            return Some(&self.gateway_name);
        }
        let zone = self.addresses.zone_of(address)?;
        let at = usize::from(zone.0).checked_sub(1)?;
        self.zones.get(at).map(AsRef::as_ref)
    }

    /// The asset with an address.
    #[must_use]
    pub fn asset(&self, address: IpAddr) -> Option<&str> {
        let asset = self.addresses.assets.get(&address.to_canonical())?;
        let at = usize::from(asset.0).checked_sub(1)?;
        self.assets.get(at).map(AsRef::as_ref)
    }

    /// How a conduit reads what a function writes to an address of a unit.
    #[must_use]
    pub fn number_type(
        &self,
        conduit: &str,
        unit: u8,
        function: FunctionCode,
        address: u16,
    ) -> Option<NumberType> {
        if !Written::concerns(function) {
            return None;
        }
        let table = ModbusTable::of(function)?;
        let holds = |place: &Place| {
            place.is_none_or(|(own, range)| {
                own == table && (range.first..=range.last).contains(&address)
            })
        };
        let mut numbers = self.numbers.get(conduit)?.iter();
        let found = numbers.find(|((units, functions, _), places)| {
            units.contains(unit) && functions.contains(function.0) && places.iter().any(holds)
        });
        found.map(|((.., number), _)| *number)
    }
}

fn numbers(conduit: &Conduit) -> Numbers {
    let mut numbers = Numbers::new();
    let is_limit = |rule: &&ModbusRule| rule.written.is_limit();
    for rule in conduit.modbus.iter().filter(is_limit) {
        let key = (rule.units, rule.functions, rule.written.number);
        let places = numbers.entry(key).or_default();
        if rule.tables.is_empty() {
            places.push(None);
        }
        for tables in &rule.tables {
            places.extend(
                tables
                    .ranges
                    .iter()
                    .map(|range| Some((tables.table, *range))),
            );
        }
    }
    numbers.values_mut().for_each(Vec::shrink_to_fit);
    numbers
}
