//! Numbers that stay with names across reloads, so that counters go on.

use std::{collections::HashMap, sync::Arc};

use conduitfw_common::table::{MAX_CONDUITS, MAX_RULES};

/// No number is left: more names were used since the counters began than there are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} names of {what} were used since the program was loaded")]
pub struct TooManyNames {
    /// "conduits" or "rules".
    pub what: &'static str,
    /// How many numbers there are.
    pub limit: usize,
}

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum NameKind {
    /// A conduit, by its name.
    Conduit = 1,
    /// A rule, by [`crate::policy::Conduit::rule_label`].
    Rule = 2,
}

impl NameKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Conduit, Self::Rule]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }

    fn what(self) -> &'static str {
        match self {
            Self::Conduit => "conduits",
            Self::Rule => "rules",
        }
    }

    /// Number 0 is "none".
    fn limit(self) -> u16 {
        let numbers = match self {
            Self::Conduit => MAX_CONDUITS,
            Self::Rule => MAX_RULES,
        };
        u16::try_from(numbers - 1).unwrap_or(u16::MAX)
    }
}

/// The numbers of conduits and rules by name.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    conduits: Numbers,
    rules: Numbers,
}

/// Names are shared between the copies of this.
#[derive(Clone, Debug, Default)]
struct Numbers {
    by_name: HashMap<Arc<str>, u16>,
    /// Name `n` is at `n`; none is at 0.
    by_number: Vec<Option<Arc<str>>>,
    /// Every number up to this one is taken.
    taken: u16,
}

impl Numbers {
    fn name(&self, number: u16) -> Option<&Arc<str>> {
        self.by_number.get(usize::from(number))?.as_ref()
    }

    fn give(&mut self, number: u16, name: &str) {
        let name: Arc<str> = name.into();
        let at = usize::from(number);
        if self.by_number.len() <= at {
            self.by_number.resize(at + 1, None);
        }
        if let Some(place) = self.by_number.get_mut(at) {
            *place = Some(Arc::clone(&name));
        }
        self.by_name.insert(name, number);
    }
}

impl Ids {
    /// The number of a conduit; a new name takes the next free one.
    ///
    /// # Errors
    /// When no number is left.
    pub fn conduit(&mut self, name: &str) -> Result<u16, TooManyNames> {
        self.number(NameKind::Conduit, name)
    }

    /// The number of a rule; a new name takes the next free one.
    ///
    /// # Errors
    /// When no number is left.
    pub fn rule(&mut self, label: &str) -> Result<u16, TooManyNames> {
        self.number(NameKind::Rule, label)
    }

    /// The name that a number was given to.
    #[must_use]
    pub fn name(&self, kind: NameKind, number: u16) -> Option<&str> {
        self.numbers(kind).name(number).map(AsRef::as_ref)
    }

    /// The number that a name has, if it has one.
    #[must_use]
    pub fn find(&self, kind: NameKind, name: &str) -> Option<u16> {
        self.numbers(kind).by_name.get(name).copied()
    }

    /// Every number and name, to be kept beside the counters.
    pub fn iter(&self) -> impl Iterator<Item = (NameKind, u16, &str)> {
        [NameKind::Conduit, NameKind::Rule]
            .into_iter()
            .flat_map(|kind| {
                let names = (0..).zip(&self.numbers(kind).by_number);
                names.filter_map(move |(number, name)| Some((kind, number, name.as_deref()?)))
            })
    }

    /// Restores a number that was kept. One that is out of range or taken is ignored: false.
    pub fn insert(&mut self, kind: NameKind, number: u16, name: &str) -> bool {
        let in_range = (1..=kind.limit()).contains(&number);
        let numbers = self.numbers_mut(kind);
        if !in_range || numbers.name(number).is_some() || numbers.by_name.contains_key(name) {
            return false;
        }
        numbers.give(number, name);
        true
    }

    fn number(&mut self, kind: NameKind, name: &str) -> Result<u16, TooManyNames> {
        let limit = kind.limit();
        let numbers = self.numbers_mut(kind);
        if let Some(number) = numbers.by_name.get(name) {
            return Ok(*number);
        }
        let free = (numbers.taken.saturating_add(1)..=limit)
            .find(|number| numbers.name(*number).is_none())
            .ok_or(TooManyNames {
                what: kind.what(),
                limit: usize::from(limit),
            })?;
        numbers.taken = free;
        numbers.give(free, name);
        Ok(free)
    }

    fn numbers(&self, kind: NameKind) -> &Numbers {
        match kind {
            NameKind::Conduit => &self.conduits,
            NameKind::Rule => &self.rules,
        }
    }

    fn numbers_mut(&mut self, kind: NameKind) -> &mut Numbers {
        match kind {
            NameKind::Conduit => &mut self.conduits,
            NameKind::Rule => &mut self.rules,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_over_a_restart() {
        let mut before = Ids::default();
        let numbers = ["a", "b", "c"].map(|name| before.conduit(name).unwrap());
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(before.rule("a/modbus-1"), Ok(1));

        let mut after = Ids::default();
        for (kind, number, name) in before.iter() {
            assert!(after.insert(kind, number, name));
        }
        assert_eq!(after.conduit("c"), Ok(3));
        assert_eq!(after.conduit("d"), Ok(4));
        assert_eq!(after.name(NameKind::Rule, 1), Some("a/modbus-1"));
    }

    #[test]
    fn what_was_kept_wrongly_is_ignored() {
        let mut ids = Ids::default();
        assert!(!ids.insert(NameKind::Conduit, 0, "a"));
        assert!(!ids.insert(NameKind::Conduit, 1024, "a"));
        assert!(ids.insert(NameKind::Conduit, 2, "a"));
        assert!(!ids.insert(NameKind::Conduit, 2, "b"));
        assert!(!ids.insert(NameKind::Conduit, 3, "a"));
        assert_eq!([ids.conduit("x"), ids.conduit("y")], [Ok(1), Ok(3)]);
    }

    #[test]
    fn numbers_run_out() {
        let mut ids = Ids::default();
        for number in 1..1024 {
            assert_eq!(ids.conduit(&format!("c{number}")), Ok(number));
        }
        let refused = TooManyNames {
            what: "conduits",
            limit: 1023,
        };
        assert_eq!(ids.conduit("one-more"), Err(refused));
        assert_eq!(ids.conduit("c7"), Ok(7));
    }
}
