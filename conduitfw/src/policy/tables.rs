//! Compiled tables looked up by plain search, as the kernel does by map and halving.

use std::net::IpAddr;

use conduitfw_common::table::{
    ANY_VLANS, Address, Interface, Interval, Network, Operation, Pair, PairKey, Party, Service,
    operation,
};

use super::compile::{CompiledTables, address_words};

impl CompiledTables {
    /// The zones whose hosts may send on an interface with these tags.
    #[must_use]
    pub fn interface(&self, name: &str, vlans: u32) -> Option<Interface> {
        let row = |vlans: u32| {
            self.interfaces
                .iter()
                .find(|row| row.0 == name && row.1 == vlans)
        };
        row(vlans).or_else(|| row(ANY_VLANS)).map(|row| row.2)
    }

    /// Whose an address is, by the longest prefix.
    #[must_use]
    pub fn network(&self, address: IpAddr) -> Option<Network> {
        let words = address_words(address);
        let holding = self
            .networks
            .iter()
            .filter(|row| covers(&row.1, row.0 - 32, &words));
        holding.max_by_key(|row| row.0).map(|row| row.2)
    }

    /// The run of services for exactly these two parties.
    #[must_use]
    pub fn pair(&self, from: Party, to: Party, transport: u16) -> Option<Pair> {
        let key = PairKey {
            slot: 0,
            from: from.number(),
            to: to.number(),
            transport,
        };
        self.pairs.iter().find(|row| row.0 == key).map(|row| row.1)
    }

    /// The service that decides on a flow: that of the most specific pair that has the port.
    #[must_use]
    pub fn service(
        &self,
        from: Network,
        to: Network,
        transport: u16,
        port: u16,
    ) -> Option<Service> {
        let parties = |network: Network| {
            let asset = (network.asset != 0).then(|| Party::asset(network.asset));
            [asset, Some(Party::zone(network.zone))]
        };
        parties(from).into_iter().flatten().find_map(|from| {
            parties(to).into_iter().flatten().find_map(|to| {
                let pair = self.pair(from, to, transport)?;
                let first = usize::try_from(pair.first).ok()?;
                let count = usize::try_from(pair.count).ok()?;
                let run = self.services.get(first..first + count)?;
                run.iter()
                    .find(|s| s.first_port <= port && port <= s.last_port)
                    .copied()
            })
        })
    }

    /// The cell that decides on a function of a unit.
    #[must_use]
    pub fn operation(&self, rule_set: u16, unit: u8, function: u8) -> Option<Operation> {
        let row = self.rule_sets.get(usize::from(rule_set))?.rows[usize::from(unit)];
        Some(self.operations.get(usize::from(row))?[usize::from(function)])
    }

    /// The rule that allows an operation on one operand, if one does.
    #[must_use]
    pub fn rule(&self, rule_set: u16, unit: u8, function: u8, operand: u16) -> Option<u16> {
        let cell = self.operation(rule_set, unit, function)?;
        match cell.kind {
            operation::ALLOWED => Some(cell.rule),
            operation::RANGES => Some(self.interval(cell, operand)?.rule),
            _ => None,
        }
    }

    /// The interval of a cell that an operand lies in.
    #[must_use]
    pub fn interval(&self, cell: Operation, operand: u16) -> Option<Interval> {
        let first = usize::try_from(cell.first).ok()?;
        let count = usize::try_from(cell.count).ok()?;
        let run = self.intervals.get(first..first + count)?;
        let behind = run.partition_point(|interval| interval.first <= operand);
        let interval = *run.get(behind.checked_sub(1)?)?;
        (operand <= interval.last).then_some(interval)
    }

    /// Whether all of `first..=last` is allowed at once.
    #[must_use]
    pub fn reaches(&self, cell: Operation, first: u16, last: u16) -> bool {
        match cell.kind {
            operation::ALLOWED => true,
            operation::RANGES => self
                .interval(cell, first)
                .is_some_and(|interval| last <= interval.reach),
            _ => false,
        }
    }
}

fn covers(network: &Address, prefix: u32, address: &Address) -> bool {
    let bits = |words: &Address| {
        words.iter().fold(0_u128, |bits, word| {
            bits << 32 | u128::from(u32::from_be(*word))
        })
    };
    let differing = bits(network) ^ bits(address);
    differing.checked_shr(128 - prefix).unwrap_or(0) == 0
}
