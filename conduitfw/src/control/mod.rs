//! The control socket: how the command line talks to a running controller.

pub mod client;
pub mod protocol;
pub mod server;
