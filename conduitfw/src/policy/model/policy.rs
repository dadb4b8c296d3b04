//! A policy as a whole: what it has, by number, by name and by address.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::super::document::GATEWAY;
use super::super::source::Source;
use super::{
    Asset, AssetId, Bridge, Conduit, Forwarding, Limits, Mode, PartyId, Site, Timeouts, Zone,
    ZoneId,
};

/// A policy: everything it says, resolved and free of contradictions.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The site.
    pub site: Site,
    /// The mode of the whole policy.
    pub mode: Mode,
    /// Who forwards the frames that pass.
    pub forwarding: Forwarding,
    /// How long flows are remembered.
    pub timeouts: Timeouts,
    /// How much is tracked.
    pub limits: Limits,
    /// How long after the program is loaded connections that were open before it are picked up;
    /// zero for never.
    pub adopt: Duration,
    /// The machine's own addresses, when the policy gives them.
    pub gateway_addresses: Option<Vec<IpAddr>>,
    /// Bridged pairs of interfaces.
    pub bridges: Vec<Bridge>,
    /// Zones by number: zone `n` is at `n - 1`.
    pub zones: Vec<Zone>,
    /// Assets by number: asset `n` is at `n - 1`.
    pub assets: Vec<Asset>,
    /// Conduits in the order of the text.
    pub conduits: Vec<Conduit>,
    pub(in super::super) source: Arc<Source>,
    pub(in super::super) addresses: AddressIndex,
}

impl Policy {
    /// The zone that an address belongs to: the one with the smallest network that has it. The
    /// gateway's addresses count only where the policy names them.
    #[must_use]
    pub fn zone_of(&self, address: IpAddr) -> Option<ZoneId> {
        let address = address.to_canonical();
        if self
            .gateway_addresses
            .iter()
            .flatten()
            .any(|own| *own == address)
        {
            return Some(ZoneId::GATEWAY);
        }
        self.addresses.zone_of(address)
    }

    /// The asset that has an address.
    #[must_use]
    pub fn asset_of(&self, address: IpAddr) -> Option<&Asset> {
        self.asset(*self.addresses.assets.get(&address.to_canonical())?)
    }

    /// A zone by its number; none for the gateway.
    #[must_use]
    pub fn zone(&self, id: ZoneId) -> Option<&Zone> {
        self.zones.get(usize::from(id.0).checked_sub(1)?)
    }

    /// An asset by its number.
    #[must_use]
    pub fn asset(&self, id: AssetId) -> Option<&Asset> {
        self.assets.get(usize::from(id.0).checked_sub(1)?)
    }

    /// A conduit by its name.
    #[must_use]
    pub fn conduit(&self, name: &str) -> Option<&Conduit> {
        self.conduits.iter().find(|conduit| conduit.name == name)
    }

    /// The name of a zone, `gateway` included.
    #[must_use]
    pub fn zone_name(&self, id: ZoneId) -> &str {
        self.zone(id).map_or(GATEWAY, |zone| &zone.name)
    }

    /// The name of a zone or an asset.
    #[must_use]
    pub fn party_name(&self, party: PartyId) -> &str {
        match party {
            PartyId::Zone(id) => self.zone_name(id),
            PartyId::Asset(id) => self.asset(id).map_or("", |asset| &asset.name),
        }
    }

    /// The zone of a zone or an asset.
    #[must_use]
    pub fn zone_of_party(&self, party: PartyId) -> ZoneId {
        match party {
            PartyId::Zone(id) => id,
            PartyId::Asset(id) => self.asset(id).map_or(ZoneId::GATEWAY, |asset| asset.zone),
        }
    }

    /// Whether what a conduit does not allow passes and is only reported.
    #[must_use]
    pub fn observes(&self, conduit: &Conduit) -> bool {
        self.mode == Mode::Observe || conduit.mode == Some(Mode::Observe)
    }

    /// The text that the policy was read from.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        self.source.text()
    }

    /// The name of the file that it was read from.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.source.name()
    }
}

/// Addresses and networks, for [`Policy::zone_of`] and [`Policy::asset_of`].
#[derive(Clone, Debug, Default)]
pub(in super::super) struct AddressIndex {
    pub(in super::super) assets: HashMap<IpAddr, AssetId>,
    /// By prefix length.
    networks: BTreeMap<u8, HashMap<IpNet, ZoneId>>,
}

impl AddressIndex {
    pub(in super::super) fn add_network(&mut self, network: IpNet, zone: ZoneId) {
        self.networks
            .entry(network.prefix_len())
            .or_default()
            .insert(network, zone);
    }

    /// By the longest prefix.
    pub(in super::super) fn zone_of(&self, address: IpAddr) -> Option<ZoneId> {
        self.networks.iter().rev().find_map(|(&length, networks)| {
            let network = IpNet::new(address, length).ok()?.trunc();
            networks.get(&network).copied()
        })
    }
}
