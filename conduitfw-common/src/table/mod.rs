//! The contract between user space and the kernel: every key and value in a map.
//!
//! User space compiles a policy into these records and writes them under the inactive *slot*; one
//! write to `ACTIVE` then puts them in force on every interface at once. All numbers are in host
//! byte order; addresses are words in network byte order ([`Address`]).

mod conduits;
mod in_force;
mod modbus;
mod reporting;

pub use conduits::{
    Conduit, Interface, InterfaceKey, Network, NetworkKey, Pair, PairKey, Party, Service, protocol,
};
pub use in_force::{ACTIVE_FAST, ACTIVE_SLOT, Active, Generation, Settings, forwarding};
pub use modbus::{
    Interval, LastValue, Limits, Operation, Page, RegisterKey, RuleSet, ValueRange, limit, number,
    operation,
};
pub use reporting::{Counter, EVENT_BURST, EVENTS_A_SECOND, Reporting};

/// Raised whenever a layout or a meaning in this module or in [`crate::event`] changes: the
/// controller does not take over pinned maps of another version.
pub const ABI_VERSION: u32 = 7;

/// Policies that the maps hold at once: the one in force and the next one.
pub const SLOTS: u32 = 2;
/// Zones in one policy, the gateway's own included: one bit each in [`Interface::zones`].
pub const MAX_ZONES: u32 = 64;
/// Conduit ids. Id 0 is "no conduit". An id stays with a conduit's name across reloads.
pub const MAX_CONDUITS: u32 = 1024;
/// Rule ids, for the counters. Id 0 is "no rule".
pub const MAX_RULES: u32 = 32_768;
/// Rows of `INTERFACES` in both slots.
pub const MAX_INTERFACES: u32 = 1024;
/// Rows of `NETWORKS` in both slots.
pub const MAX_NETWORKS: u32 = 32_768;
/// Rows of `PAIRS` in both slots.
pub const MAX_PAIRS: u32 = 32_768;
/// Rows of `SERVICES` for each slot.
pub const MAX_SERVICES: u32 = 16_384;
/// Rows of `RULE_SETS` for each slot. Rule set 0 is "not inspected".
pub const MAX_RULE_SETS: u32 = 1024;
/// Rows of `OPERATIONS` for each slot, of [`FUNCTIONS`] cells each. Row 0 allows nothing.
pub const MAX_OPERATION_ROWS: u32 = 1024;
/// Rows of `INTERVALS` for each slot.
pub const MAX_INTERVALS: u32 = 65_536;
/// Rows of `PAGES` for each slot.
pub const MAX_PAGES: u32 = 8192;
/// Operands of a page.
pub const PAGE_OPERANDS: usize = 256;
/// Rows of `LIMITS` for each slot. Row 0 limits nothing.
pub const MAX_LIMITS: u32 = 16_384;
/// Rows of `VALUE_RANGES` for each slot.
pub const MAX_VALUE_RANGES: u32 = 65_536;
/// Rows of `LAST_VALUES`: written registers that a rule with `max_step` guards, of all responders.
pub const MAX_LAST_VALUES: u32 = 65_536;
/// Buckets of a conduit's histogram of response times: see [`crate::modbus::reply`].
pub const RESPONSE_BUCKETS: u32 = 16;
/// Function codes: every value of a byte.
pub const FUNCTIONS: u32 = 256;
/// Ports of a service are found by at most this many halvings: `2^15 > MAX_SERVICES`.
pub const SERVICE_SEARCH_STEPS: u32 = 15;
/// Intervals are found by at most this many halvings: `2^17 > MAX_INTERVALS`.
pub const INTERVAL_SEARCH_STEPS: u32 = 17;

/// The zone of the gateway itself.
pub const GATEWAY_ZONE: u16 = 0;
/// [`InterfaceKey::vlans`] of a zone that takes any tags.
pub const ANY_VLANS: u32 = u32::MAX;

/// An IPv4 or IPv6 address: four words as they stand in the packet (network byte order). IPv4 is
/// held as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
pub type Address = [u32; 4];

/// The third word of an IPv4 address held as [`Address`].
pub const IPV4_MAPPED: u32 = 0x0000_ffff_u32.to_be();
