//! What a reload changes, by name.

use std::{
    cmp::Ordering,
    fmt,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use serde::Serialize;

use crate::policy::{Conduit, ModbusRule, Number, NumberRange, PartyId, Policy, Written, Zone};

/// Names of a kind that are told at most.
const NAMES_TOLD: usize = 10;

/// Names that came, went, or mean something else now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// New names.
    pub added: Vec<String>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// Names that mean something else.
    pub changed: Vec<String>,
}

/// The differences between two policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Keys of `[site]` and `[settings]` that differ.
    pub settings: Vec<String>,
    /// Zones.
    pub zones: Difference,
    /// Assets.
    pub assets: Difference,
    /// Conduits, their rules apart.
    pub conduits: Difference,
    /// Rules, as `conduit/rule`.
    pub rules: Difference,
}

impl Changes {
    /// What is different in `new`.
    #[must_use]
    pub fn between(old: &Digest, new: &Digest) -> Self {
        let settings = old.settings.iter().zip(&new.settings);
        Self {
            settings: settings
                .filter(|(old, new)| old != new)
                .map(|((name, _), _)| (*name).to_owned())
                .collect(),
            zones: Difference::between(&old.zones, &new.zones),
            assets: Difference::between(&old.assets, &new.assets),
            conduits: Difference::between(&old.conduits, &new.conduits),
            rules: Difference::between(&old.rules, &new.rules),
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "  no change");
        }
        for name in &self.settings {
            writeln!(f, "  ~ setting {name}")?;
        }
        let kinds = [
            ("zone", &self.zones),
            ("asset", &self.assets),
            ("conduit", &self.conduits),
            ("rule", &self.rules),
        ];
        for (kind, difference) in kinds {
            let lines = [
                ('+', &difference.added),
                ('-', &difference.removed),
                ('~', &difference.changed),
            ];
            for (sign, names) in lines {
                for name in names.iter().take(NAMES_TOLD) {
                    writeln!(f, "  {sign} {kind} {name}")?;
                }
                if names.len() > NAMES_TOLD {
                    let more = names.len() - NAMES_TOLD;
                    writeln!(f, "  {sign} and {more} more {kind}s")?;
                }
            }
        }
        Ok(())
    }
}

impl Difference {
    /// Walks along both, which are sorted.
    fn between(old: &Meanings, new: &Meanings) -> Self {
        let mut difference = Self::default();
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some((one, _)), Some((other, _))) => one.cmp(other),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return difference,
            };
            let before = if order.is_le() { old.next() } else { None };
            let now = if order.is_ge() { new.next() } else { None };
            match (before, now) {
                (Some((name, one)), Some((_, other))) if one != other => {
                    difference.changed.push(name.to_string());
                }
                (Some((name, _)), None) => difference.removed.push(name.to_string()),
                (None, Some((name, _))) => difference.added.push(name.to_string()),
                _ => {}
            }
        }
    }
}

/// Names of one kind, sorted, and what each of them means.
type Meanings = Vec<(Box<str>, Meaning)>;
/// A number that is the same when the meaning is.
type Meaning = u64;

/// What of a policy is kept to tell what the next one changes: a small part of its size.
#[derive(Clone, Debug)]
pub struct Digest {
    settings: [(&'static str, Meaning); 8],
    zones: Meanings,
    assets: Meanings,
    conduits: Meanings,
    rules: Meanings,
}

impl Digest {
    /// Of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let zones = policy.zones.iter();
        let assets = policy.assets.iter();
        let conduits = policy.conduits.iter();
        let rules = policy.conduits.iter().flat_map(|conduit| {
            let rules = conduit.modbus.iter();
            rules.map(|rule| (conduit.rule_label(rule), meaning_of_rule(rule)))
        });
        let own_addresses = &policy.gateway_addresses;
        Self {
            settings: [
                ("site", meaning(&policy.site)),
                ("mode", meaning(&policy.mode)),
                ("forwarding", meaning(&policy.forwarding)),
                ("bridges", meaning(&policy.bridges)),
                ("timeouts", meaning(&policy.timeouts)),
                ("limits", meaning(&policy.limits)),
                ("adopt", meaning(&policy.adopt)),
                ("gateway addresses", meaning(own_addresses)),
            ],
            zones: sorted(zones.map(|zone| (zone.name.clone(), meaning_of_zone(zone)))),
            assets: sorted(assets.map(|asset| {
                let zone = policy.zone_name(asset.zone);
                let meaning = meaning(&(zone, &asset.addresses, &asset.description));
                (asset.name.clone(), meaning)
            })),
            conduits: sorted(conduits.map(|conduit| {
                let meaning = meaning_of_conduit(policy, conduit);
                (conduit.name.clone(), meaning)
            })),
            rules: sorted(rules),
        }
    }
}

fn sorted(names: impl Iterator<Item = (String, Meaning)>) -> Meanings {
    let mut names: Meanings = names
        .map(|(name, meaning)| (name.into_boxed_str(), meaning))
        .collect();
    names.sort_unstable();
    names.shrink_to_fit();
    names
}

fn meaning(of: &impl Hash) -> Meaning {
    // Always the same keys: only numbers of one process are compared.
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn meaning_of_zone(zone: &Zone) -> Meaning {
    let Zone {
        interfaces,
        networks,
        vlans,
        security_level,
        description,
        nested,
        ..
    } = zone;
    meaning(&(
        interfaces,
        networks,
        vlans,
        security_level,
        description,
        nested,
    ))
}

fn meaning_of_conduit(policy: &Policy, conduit: &Conduit) -> Meaning {
    let Conduit {
        from,
        to,
        rationale,
        owner,
        agreement,
        mode,
        on_deny,
        new_flows,
        tcp,
        udp,
        icmp_echo,
        max_outstanding,
        ..
    } = conduit;
    let names = |parties: &[PartyId]| -> Vec<&str> {
        let names = parties.iter().map(|party| policy.party_name(*party));
        names.collect()
    };
    let joins = (names(from), names(to));
    let about = (rationale, owner, agreement, mode, on_deny, new_flows);
    meaning(&(joins, about, tcp, udp, icmp_echo, max_outstanding))
}

fn meaning_of_rule(rule: &ModbusRule) -> Meaning {
    let ModbusRule {
        ports,
        units,
        functions,
        sub_functions,
        mei_types,
        tables,
        records,
        written,
        max_rate,
        max_length,
        ..
    } = rule;
    let Written {
        number,
        word_order,
        values,
        bits,
        max_step,
    } = written;
    // By their bits: of real numbers there is no other hash.
    let raw = |range: &NumberRange| (range.first.raw(), range.last.raw());
    let values: Option<Vec<_>> = values.as_ref().map(|all| all.iter().map(raw).collect());
    let step = max_step.map(Number::raw);
    let operands = (units, functions, sub_functions, mei_types, tables, records);
    let written = (number, word_order, values, bits, step);
    meaning(&(ports, operands, written, max_rate, max_length))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::policy::load_text;

    const PLANT: &str = r#"
        [site]
        name = "Works"
        [zones.operations]
        interfaces = ["eth0"]
        networks = ["10.10.0.0/24"]
        [zones.control]
        interfaces = ["eth1"]
        networks = ["10.20.0.0/24"]
        [assets.hmi-1]
        zone = "operations"
        address = "10.10.0.5"
        [[conduits]]
        name = "watch"
        from = ["hmi-1"]
        to = ["control"]
        rationale = "Operators watch"
        [[conduits.modbus]]
        units = [1]
        functions = ["reads"]
    "#;

    fn policy(text: &str) -> Digest {
        Digest::of(&load_text("policy.toml", text).unwrap().policy)
    }

    #[test]
    fn the_same_policy_changes_nothing() {
        let moved = format!("# a remark, and everything is a line lower\n{PLANT}");
        let changes = Changes::between(&policy(PLANT), &policy(&moved));
        assert!(changes.is_empty(), "{changes}");
        assert_eq!(changes.to_string(), "  no change\n");
    }

    #[test]
    fn each_change_is_named_once() {
        let new = PLANT
            .replace("hmi-1", "hmi-2")
            .replace("10.20.0.0/24", "10.20.0.0/25")
            .replace("reads", "all")
            .replace("[site]", "settings.mode = \"observe\"\n[site]");
        let changes = Changes::between(&policy(PLANT), &policy(&new));
        assert_eq!(
            changes.to_string(),
            "  ~ setting mode\n  ~ zone control\n  + asset hmi-2\n  - asset hmi-1\n  \
             ~ conduit watch\n  ~ rule watch/modbus-1\n"
        );
    }

    #[test]
    fn a_long_list_of_names_is_cut_short() {
        let mut new = PLANT.to_owned();
        for number in 2..=14 {
            let rule = "[[conduits.modbus]]\nfunctions = [3]\nunits";
            let _ = write!(new, "\n{rule} = [{number}]\n");
        }
        let said = Changes::between(&policy(PLANT), &policy(&new)).to_string();
        assert_eq!(said.lines().count(), 11, "{said}");
        assert!(said.ends_with("\n  + and 3 more rules\n"), "{said}");
        let said = Changes::between(&policy(&new), &policy(PLANT)).to_string();
        assert!(said.ends_with("\n  - and 3 more rules\n"), "{said}");
    }

    #[test]
    fn a_zone_in_front_of_the_others_changes_only_itself() {
        let dmz = "[zones.dmz]\ninterfaces = [\"eth2\"]\nnetworks = [\"10.30.0.0/24\"]\n";
        let new = PLANT.replace("[zones.operations]", &format!("{dmz}[zones.operations]"));
        let changes = Changes::between(&policy(PLANT), &policy(&new));
        assert_eq!(changes.to_string(), "  + zone dmz\n");
    }
}
