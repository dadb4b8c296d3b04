//! What holds for a whole policy, and which of two is in force.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::reporting::EVENTS_A_SECOND;

/// `GENERATIONS[slot]`: what holds for a whole policy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Generation {
    /// Counts up by one with every policy put in force; never 0 in a slot that is.
    pub number: u32,
    /// 1: every conduit, and the absence of one, only observes.
    pub observe: u32,
    /// Ticks after which an established TCP flow without frames is forgotten.
    pub tcp_established_ticks: u32,
    /// Ticks after which an unfinished TCP handshake is forgotten.
    pub tcp_opening_ticks: u32,
    /// Ticks after which a closed TCP flow is forgotten.
    pub tcp_closing_ticks: u32,
    /// Ticks after which a UDP or ICMP flow answered at least once is forgotten.
    pub datagram_ticks: u32,
    /// Ticks after which an unanswered UDP or ICMP flow is forgotten.
    pub datagram_opening_ticks: u32,
    /// Ticks of the kernel's clock in a second (its HZ).
    pub ticks_per_second: u32,
    /// Ticks after which a request without a reply no longer counts as outstanding.
    pub reply_ticks: u32,
    /// One of [`forwarding`].
    pub forwarding: u32,
}

impl Generation {
    /// [`Active::events_a_tick`].
    #[must_use]
    pub const fn events_a_tick(&self) -> u32 {
        match EVENTS_A_SECOND.checked_div(self.ticks_per_second) {
            Some(events) => events,
            None => EVENTS_A_SECOND,
        }
    }

    /// [`Active::word`] to put this generation, written to `slot`, in force.
    #[must_use]
    pub const fn active(&self, slot: u32) -> u32 {
        if self.forwarding == forwarding::FAST {
            slot | ACTIVE_FAST
        } else {
            slot
        }
    }
}

/// `ACTIVE[0]`: what every frame asks for, in one look. Only `word` changes when a policy is put in force;
/// the rest of it is there before, and is not touched.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Active {
    /// [`ACTIVE_SLOT`] and [`ACTIVE_FAST`].
    pub word: u32,
    /// [`EVENTS_A_SECOND`] in ticks.
    pub events_a_tick: u32,
    /// [`Generation::number`] by slot.
    pub numbers: [u32; 2],
    /// What `SETTINGS` says.
    pub settings: Settings,
}

/// The bit of [`Active::word`] that is the slot in force.
pub const ACTIVE_SLOT: u32 = 1;
/// The bit of [`Active::word`] that is set when the program forwards what passes ([`forwarding::FAST`]): every
/// frame reads it, and it changes with the slot.
pub const ACTIVE_FAST: u32 = 2;

/// Who forwards a frame that passes: [`Generation::forwarding`].
pub mod forwarding {
    /// The kernel.
    pub const KERNEL: u32 = 0;
    /// The program, where it can ([`crate::forward`]).
    pub const FAST: u32 = 1;
}

/// `SETTINGS[0]`: fixed when the program is loaded.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Settings {
    /// Keys of the flow hash, drawn at random ([`crate::flow::key`]).
    pub hash_keys: [u64; 12],
    /// [`ABI_VERSION`] of the program.
    pub abi_version: u32,
    /// Buckets of the flow table, less one; a power of two less one.
    pub flow_bucket_mask: u32,
    /// Buckets of the table of opening flows, less one.
    pub opening_bucket_mask: u32,
    /// Rows of `STREAMS`, less one; a power of two less one.
    pub stream_mask: u32,
    /// Rows of `EVENTS` that each processor has; a power of two.
    pub events: u32,
    /// Zero.
    pub reserved: u32,
    /// Connections that were open before the gateway are picked up until the tick counter gets
    /// here; 0 for never.
    pub adopt_until_ticks: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_shared_out_to_the_ticks_of_a_second() {
        let generation = |ticks_per_second| Generation {
            ticks_per_second,
            ..Generation::default()
        };
        assert_eq!(generation(1000).events_a_tick(), 320);
        assert_eq!(generation(100).events_a_tick(), 3200);
        assert_eq!(generation(0).events_a_tick(), EVENTS_A_SECOND);
    }
}
