//! A policy whose names, addresses and numbers were checked.

mod modbus;
mod names;
mod policy;
mod written;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::source::Span;
pub use modbus::{ModbusRule, ModbusTable, OperandRange, Rate, TableRanges};
pub use names::PolicyNames;
pub(super) use policy::AddressIndex;
pub use policy::Policy;
pub use written::{Number, NumberRange, NumberType, WordOrder, Written};

/// A zone by its number: 0 is the gateway, the others count from 1 in the order of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(pub u16);

impl ZoneId {
    /// The zone of the machine itself.
    pub const GATEWAY: Self = Self(conduitfw_common::table::GATEWAY_ZONE);
}

/// An asset by its number, from 1 in the order of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetId(pub u16);

/// One end of a conduit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartyId {
    /// Every host of a zone; the gateway is one.
    Zone(ZoneId),
    /// One asset.
    Asset(AssetId),
}

impl PartyId {
    /// The machine itself.
    pub const GATEWAY: Self = Self::Zone(ZoneId::GATEWAY);
}

/// `[site]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// What the site is called.
    pub name: String,
    /// A remark.
    pub description: Option<String>,
}

/// What becomes of what is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It is denied.
    #[default]
    Enforce,
    /// It passes, and is reported.
    Observe,
}

/// Who forwards the frames that pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// The kernel.
    #[default]
    Kernel,
    /// The program itself, where it can.
    Fast,
}

/// `[[bridges]]`: two interfaces that frames cross between as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// The two interfaces.
    pub ports: [String; 2],
    /// Whether frames of the spanning tree pass.
    pub stp: bool,
    /// Whether frames of LLDP pass.
    pub lldp: bool,
}

/// `[settings.timeouts]`: how long a flow without frames is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// An established TCP flow.
    pub tcp_established: Duration,
    /// An unfinished TCP handshake.
    pub tcp_opening: Duration,
    /// A TCP flow that was closed.
    pub tcp_closing: Duration,
    /// A UDP or ICMP flow that was answered.
    pub datagram: Duration,
    /// A UDP or ICMP flow that was not.
    pub datagram_opening: Duration,
    /// A Modbus request without a reply: after that it no longer counts as outstanding.
    pub modbus_reply: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_hours(24),
            tcp_opening: Duration::from_secs(30),
            tcp_closing: Duration::from_mins(1),
            datagram: Duration::from_mins(2),
            datagram_opening: Duration::from_secs(30),
            modbus_reply: Duration::from_secs(1),
        }
    }
}

/// `[settings.limits]`: how much is tracked. Fixed when the program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Flows that are tracked.
    pub flows: u32,
    /// Flows that are being opened.
    pub opening_flows: u32,
    /// Flows whose payload is inspected.
    pub inspected_flows: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 16_384,
            opening_flows: 4096,
            inspected_flows: 2048,
        }
    }
}

/// The VLAN tags that a zone's frames carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vlans {
    /// No tag.
    Untagged,
    /// One tag.
    Single(u16),
    /// Two tags, the outer one first.
    Double(u16, u16),
    /// Whatever tags there are, or none.
    Any,
}

impl Vlans {
    /// As in [`conduitfw_common::table::InterfaceKey::vlans`].
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Untagged => 0,
            Self::Single(outer) => u32::from(outer) << 16,
            Self::Double(outer, inner) => u32::from(outer) << 16 | u32::from(inner),
            Self::Any => conduitfw_common::table::ANY_VLANS,
        }
    }
}

/// `[zones.NAME]`.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its number.
    pub id: ZoneId,
    /// Its name.
    pub name: String,
    /// The interfaces its hosts are behind.
    pub interfaces: Vec<String>,
    /// The addresses of its hosts.
    pub networks: Vec<IpNet>,
    /// The VLAN tags on those interfaces; never empty.
    pub vlans: Vec<Vlans>,
    /// Its security level target (SL-T).
    pub security_level: Option<u8>,
    /// A remark.
    pub description: Option<String>,
    /// Other zones may take smaller networks out of this zone's.
    pub nested: bool,
    pub(super) span: Span,
}

/// `[assets.NAME]`.
#[derive(Clone, Debug)]
pub struct Asset {
    /// Its number.
    pub id: AssetId,
    /// Its name.
    pub name: String,
    /// The zone it is in.
    pub zone: ZoneId,
    /// Its addresses; never empty.
    pub addresses: Vec<IpAddr>,
    /// A remark.
    pub description: Option<String>,
    pub(super) span: Span,
}

/// What happens to a denied segment of a TCP flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDeny {
    /// It becomes a reset.
    #[default]
    Reset,
    /// It vanishes.
    Drop,
    /// A Modbus request in it is answered with exception 1, and the connection goes on.
    Exception,
}

/// How many flows a conduit may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewFlows {
    /// As many as there is room for.
    Unlimited,
    /// `flows` in every `per`, and `burst` at once.
    Rate {
        /// How many.
        flows: u32,
        /// In which time.
        per: Duration,
        /// How many at once.
        burst: u32,
    },
}

impl Default for NewFlows {
    fn default() -> Self {
        Self::Rate {
            flows: 100,
            per: Duration::from_secs(1),
            burst: 200,
        }
    }
}

/// Ports `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port, inclusive.
    pub last: u16,
}

/// A set of the values of a byte: unit ids or function codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ByteSet([u128; 2]);

impl ByteSet {
    /// Every value.
    pub const ALL: Self = Self([u128::MAX; 2]);

    /// Whether `value` is in it.
    #[must_use]
    pub fn contains(&self, value: u8) -> bool {
        self.0[usize::from(value >> 7)] >> (value & 127) & 1 == 1
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many values are in it.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|half| half.count_ones()).sum()
    }

    /// Adds `first..=last`.
    pub fn insert(&mut self, first: u8, last: u8) {
        for value in first..=last {
            self.0[usize::from(value >> 7)] |= 1 << (value & 127);
        }
    }

    /// Takes out one value.
    pub fn remove(&mut self, value: u8) {
        self.0[usize::from(value >> 7)] &= !(1 << (value & 127));
    }

    /// Its values in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        let halves = self.0.into_iter().zip([0_u8, 128]);
        halves.flat_map(|(mut left, base)| {
            std::iter::from_fn(move || {
                let lowest = u8::try_from(left.trailing_zeros())
                    .ok()
                    .filter(|bit| *bit < 128)?;
                left &= left - 1;
                Some(base + lowest)
            })
        })
    }
}

impl Extend<u8> for ByteSet {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, values: I) {
        for value in values {
            self.insert(value, value);
        }
    }
}

impl FromIterator<u8> for ByteSet {
    fn from_iter<I: IntoIterator<Item = u8>>(values: I) -> Self {
        let mut set = Self::default();
        set.extend(values);
        set
    }
}

/// The operands that a function is allowed with: sub-functions of function 8, MEI types of 43.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operands {
    /// Any.
    All,
    /// Ranges `first..=last`, in the order of the text.
    Ranges(Vec<(u16, u16)>),
}

impl Operands {
    /// Whether `operand` is among them.
    #[must_use]
    pub fn contains(&self, operand: u16) -> bool {
        match self {
            Self::All => true,
            Self::Ranges(ranges) => ranges.iter().any(|r| (r.0..=r.1).contains(&operand)),
        }
    }
}

/// `[[conduits]]`.
#[derive(Clone, Debug)]
pub struct Conduit {
    /// Its name.
    pub name: String,
    /// Who may open flows.
    pub from: Vec<PartyId>,
    /// To whom.
    pub to: Vec<PartyId>,
    /// Why the path is open.
    pub rationale: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The data exchange agreement.
    pub agreement: Option<String>,
    /// Its mode, where it has its own.
    pub mode: Option<Mode>,
    /// What happens to a denied segment.
    pub on_deny: OnDeny,
    /// How many flows may be opened.
    pub new_flows: NewFlows,
    /// Plain TCP ports.
    pub tcp: Vec<PortRange>,
    /// Plain UDP ports.
    pub udp: Vec<PortRange>,
    /// Whether echo requests (ping) pass.
    pub icmp_echo: bool,
    /// The Modbus operations it allows.
    pub modbus: Vec<ModbusRule>,
    /// Modbus requests that may wait for a reply in one flow.
    pub max_outstanding: u8,
    pub(super) span: Span,
}

impl Conduit {
    /// How one of its rules is named outside of it: in counters, events and on the command line.
    #[must_use]
    pub fn rule_label(&self, rule: &ModbusRule) -> String {
        [&self.name, "/", &rule.name].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_set_holds_what_was_put_in() {
        let mut set = ByteSet::default();
        set.insert(126, 129);
        set.insert(255, 255);
        assert_eq!(set.iter().collect::<Vec<_>>(), [126, 127, 128, 129, 255]);
        assert_eq!(ByteSet::ALL.iter().count(), 256);
    }

    #[test]
    fn vlans_have_the_outer_tag_in_the_upper_half() {
        assert_eq!(Vlans::Single(10).number(), 10 << 16);
        assert_eq!(Vlans::Double(0x64, 0xa).number(), 0x0064_000a);
        assert_eq!(Vlans::Untagged.number(), 0);
    }
}
