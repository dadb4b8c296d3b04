//! One header each: from bytes to the fields of a [`crate::packet::Packet`].
//!
//! The contract: a parser reads at the offset that the header before it gave, checks the lengths
//! that its own header claims, sets its fields and the next offset, and names what is wrong.

pub mod arp;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;
