//! What a policy may say and someone may still not have meant.

use std::collections::HashSet;

use super::compile::Pairs;
use super::diagnostic::Diagnostics;
use super::model::{Mode, PartyId, Policy};

/// Remarks on a policy without errors.
pub(super) fn remark(policy: &Policy, pairs: &Pairs, diagnostics: &mut Diagnostics) {
    specific_conduits(policy, pairs, diagnostics);
    unused(policy, diagnostics);
    modes(policy, diagnostics);
}

fn specific_conduits(policy: &Policy, pairs: &Pairs, diagnostics: &mut Diagnostics) {
    for (specific, broader, (from, to), port) in pairs.specific(policy) {
        let (Some(specific), Some(broader)) =
            (policy.conduits.get(specific), policy.conduits.get(broader))
        else {
            continue;
        };
        let service = if port == 0 {
            "ICMP echo".to_owned()
        } else {
            format!("port {port}")
        };
        let at = diagnostics.line_of(broader.span);
        diagnostics.note(
            "specific-conduit",
            specific.span,
            format!(
                "conduit `{}` alone decides on {service} from `{}` to `{}`",
                specific.name,
                policy.party_name(from),
                policy.party_name(to)
            ),
            format!(
                "the broader conduit `{}` ({at}) does not count there",
                broader.name
            ),
        );
    }
}

fn unused(policy: &Policy, diagnostics: &mut Diagnostics) {
    let conduits = policy.conduits.iter();
    let used: HashSet<PartyId> = conduits
        .flat_map(|conduit| conduit.from.iter().chain(&conduit.to))
        .copied()
        .collect();
    let zones: HashSet<_> = used
        .iter()
        .map(|party| policy.zone_of_party(*party))
        .collect();
    for asset in policy
        .assets
        .iter()
        .filter(|asset| !used.contains(&PartyId::Asset(asset.id)))
    {
        // A name in events is use enough where the zone has conduits of its own.
        if !used.contains(&PartyId::Zone(asset.zone)) {
            diagnostics.note(
                "unused-asset",
                asset.span,
                format!("no conduit names asset `{}` or its zone", asset.name),
                "nothing reaches it and it reaches nothing",
            );
        }
    }
    for zone in policy.zones.iter().filter(|zone| !zones.contains(&zone.id)) {
        diagnostics.note(
            "zone-without-conduits",
            zone.span,
            format!("zone `{}` has no conduits", zone.name),
            "its hosts reach nothing and nothing reaches them",
        );
    }
}

fn modes(policy: &Policy, diagnostics: &mut Diagnostics) {
    let whole = policy.mode == Mode::Observe;
    if whole {
        let start = policy.text().find("[settings").unwrap_or(0);
        diagnostics.note(
            "observes",
            (start..start).into(),
            "the whole policy only observes: nothing is denied",
            "settings.mode = \"enforce\" puts it in force",
        );
    }
    for conduit in &policy.conduits {
        match conduit.mode {
            Some(Mode::Observe) if !whole => diagnostics.note(
                "observes",
                conduit.span,
                format!(
                    "conduit `{}` only observes: nothing on it is denied",
                    conduit.name
                ),
                "mode = \"enforce\" puts it in force",
            ),
            Some(Mode::Enforce) if whole => diagnostics.note(
                "observes",
                conduit.span,
                format!(
                    "conduit `{}` says enforce, and the whole policy observes",
                    conduit.name
                ),
                "settings.mode counts",
            ),
            _ => {}
        }
    }
}
