//! What a reload changes, by name.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde::Serialize;

use crate::policy::{Conduit, ModbusRule, Policy, Zone};

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
    pub fn between(old: &Policy, new: &Policy) -> Self {
        let by_name = |policy: &Policy| Descriptions::of(policy);
        let (old_by_name, new_by_name) = (by_name(old), by_name(new));
        Self {
            settings: changed_settings(old, new),
            zones: Difference::between(&old_by_name.zones, &new_by_name.zones),
            assets: Difference::between(&old_by_name.assets, &new_by_name.assets),
            conduits: Difference::between(&old_by_name.conduits, &new_by_name.conduits),
            rules: Difference::between(&old_by_name.rules, &new_by_name.rules),
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
    fn between(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Self {
        let missing_in = |other: &BTreeMap<String, String>, names: &BTreeMap<String, String>| {
            names
                .keys()
                .filter(|name| !other.contains_key(*name))
                .cloned()
                .collect()
        };
        Self {
            added: missing_in(old, new),
            removed: missing_in(new, old),
            changed: old
                .iter()
                .filter(|(name, meaning)| new.get(*name).is_some_and(|now| now != *meaning))
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }
}

fn changed_settings(old: &Policy, new: &Policy) -> Vec<String> {
    let differs = [
        ("site", old.site != new.site),
        ("mode", old.mode != new.mode),
        ("forwarding", old.forwarding != new.forwarding),
        ("bridges", old.bridges != new.bridges),
        ("timeouts", old.timeouts != new.timeouts),
        ("limits", old.limits != new.limits),
        ("adopt", old.adopt != new.adopt),
        (
            "gateway addresses",
            old.gateway_addresses != new.gateway_addresses,
        ),
    ];
    differs
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// What each name of a policy means, as text that is equal when the meaning is.
struct Descriptions {
    zones: BTreeMap<String, String>,
    assets: BTreeMap<String, String>,
    conduits: BTreeMap<String, String>,
    rules: BTreeMap<String, String>,
}

impl Descriptions {
    fn of(policy: &Policy) -> Self {
        let assets = policy.assets.iter().map(|asset| {
            let zone = policy.zone_name(asset.zone);
            let meaning = format!("{zone} {:?} {:?}", asset.addresses, asset.description);
            (asset.name.clone(), meaning)
        });
        let rules = policy.conduits.iter().flat_map(|conduit| {
            conduit
                .modbus
                .iter()
                .map(|rule| (conduit.rule_label(rule), rule_meaning(rule)))
        });
        let conduits = policy
            .conduits
            .iter()
            .map(|conduit| (conduit.name.clone(), conduit_meaning(policy, conduit)));
        Self {
            zones: policy
                .zones
                .iter()
                .map(|z| (z.name.clone(), zone_meaning(z)))
                .collect(),
            assets: assets.collect(),
            conduits: conduits.collect(),
            rules: rules.collect(),
        }
    }
}

fn zone_meaning(zone: &Zone) -> String {
    let Zone {
        interfaces,
        networks,
        vlans,
        security_level,
        description,
        nested,
        ..
    } = zone;
    format!("{interfaces:?} {networks:?} {vlans:?} {security_level:?} {description:?} {nested}")
}

fn conduit_meaning(policy: &Policy, conduit: &Conduit) -> String {
    let mut meaning = String::new();
    for party in conduit.from.iter().chain(&conduit.to) {
        // Writing to a String cannot fail.
        let _ = write!(meaning, "{} ", policy.party_name(*party));
    }
    let Conduit {
        rationale,
        owner,
        agreement,
        mode,
        on_deny,
        new_flows,
        ..
    } = conduit;
    let Conduit {
        tcp,
        udp,
        icmp_echo,
        max_outstanding,
        from,
        ..
    } = conduit;
    let _ = write!(
        meaning,
        "{} {rationale:?} {owner:?} {agreement:?} {mode:?} {on_deny:?} {new_flows:?} {tcp:?} \
         {udp:?} {icmp_echo} {max_outstanding}",
        from.len()
    );
    meaning
}

fn rule_meaning(rule: &ModbusRule) -> String {
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
    format!(
        "{ports:?} {units:?} {functions:?} {sub_functions:?} {mei_types:?} {tables:?} {records:?} \
         {written:?} {max_rate:?} {max_length:?}"
    )
}

#[cfg(test)]
mod tests {
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

    fn policy(text: &str) -> Policy {
        load_text("policy.toml", text).unwrap().policy
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
