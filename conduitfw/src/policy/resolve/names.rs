//! The zones and assets of a policy by name; they share their names.

use std::collections::HashMap;

use super::super::diagnostic::Diagnostics;
use super::super::document::{GATEWAY, PolicyDocument};
use super::super::model::{AssetId, PartyId, ZoneId};

/// The parties of a policy by name.
pub(super) struct Names {
    pub(super) parties: HashMap<String, PartyId>,
}

impl Names {
    pub(super) fn new(document: &PolicyDocument, diagnostics: &mut Diagnostics) -> Self {
        let mut parties = HashMap::from([(GATEWAY.to_owned(), PartyId::GATEWAY)]);
        let zones = document.zones.iter().map(|zone| &zone.name);
        let zones = zones
            .zip(1..)
            .map(|(name, id)| (name, PartyId::Zone(ZoneId(id))));
        let assets = document.assets.iter().map(|asset| &asset.name);
        let assets = assets
            .zip(1..)
            .map(|(name, id)| (name, PartyId::Asset(AssetId(id))));
        for (name, party) in zones.chain(assets) {
            let what = if matches!(party, PartyId::Zone(_)) {
                "zone"
            } else {
                "asset"
            };
            match parties.get(&name.value) {
                None => {
                    parties.insert(name.value.clone(), party);
                }
                Some(&PartyId::GATEWAY) => diagnostics.error(
                    "duplicate-name",
                    name.span,
                    format!("the name `{GATEWAY}` is reserved for the machine itself"),
                    format!("choose another name for this {what}"),
                ),
                // Two zones of one name are refused as TOML: a zone and an asset remain.
                Some(_) => diagnostics.error(
                    "duplicate-name",
                    name.span,
                    format!("the asset `{}` has the name of a zone", name.value),
                    "zones and assets share their names: choose another",
                ),
            }
        }
        Self { parties }
    }

    pub(super) fn zone(&self, name: &str) -> Option<ZoneId> {
        match self.parties.get(name) {
            Some(PartyId::Zone(zone)) => Some(*zone),
            _ => None,
        }
    }

    pub(super) fn zone_names(&self) -> impl Iterator<Item = &str> {
        let zone = |party: &PartyId| matches!(party, PartyId::Zone(id) if *id != ZoneId::GATEWAY);
        let mut names: Vec<&str> = Vec::new();
        names.extend(
            self.parties
                .iter()
                .filter(|entry| zone(entry.1))
                .map(|entry| &**entry.0),
        );
        names.sort_unstable();
        names.into_iter()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.parties.keys().map(String::as_str).collect();
        names.sort_unstable();
        names.into_iter()
    }
}
