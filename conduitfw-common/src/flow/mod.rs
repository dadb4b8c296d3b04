//! track: a [`crate::packet::Packet`] to a [`entry::FlowEntry`].

pub mod connection;
pub mod entry;
pub mod key;
pub mod recent;
pub mod store;
