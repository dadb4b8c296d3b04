//! Modbus peers: a PLC with moving values, a device that answers anything, and clients.

mod client;
mod device;
mod logged;
mod ping;
mod plc;
mod strict;

pub use client::{ModbusClient, RawClient, connect_from};
pub use device::{Device, Listener, Received};
pub use logged::{LoggedServer, Maker};
pub use ping::ping;
pub use plc::{Plc, Service, serve};
pub use strict::strict_server;
