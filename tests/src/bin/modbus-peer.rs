//! A Modbus/TCP server and client for the lab.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use clap::Parser;
use conduitfw_tests::peers::{Service, serve};
use tokio_modbus::client::{Reader, Writer, tcp};
use tokio_modbus::prelude::Slave;

/// A Modbus/TCP server with values that move, and a client for it.
#[derive(Parser)]
enum Peer {
    /// Serve holding registers and coils; print every write.
    Serve {
        /// Where to listen, for instance 10.20.0.10:502.
        address: SocketAddr,
    },
    /// Read holding registers.
    Read {
        /// The server, for instance 10.20.0.10:502.
        server: SocketAddr,
        /// The first register, from 0.
        #[arg(default_value_t = 0)]
        first: u16,
        /// How many.
        #[arg(default_value_t = 4)]
        quantity: u16,
        /// The unit id.
        #[arg(long, default_value_t = 1)]
        unit: u8,
    },
    /// Write one holding register.
    Write {
        /// The server, for instance 10.20.0.10:502.
        server: SocketAddr,
        /// The register, from 0.
        address: u16,
        /// The value.
        value: u16,
        /// The unit id.
        #[arg(long, default_value_t = 1)]
        unit: u8,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Peer::parse() {
        Peer::Serve { address } => serve(address, Service::printing()).await,
        Peer::Read {
            server,
            first,
            quantity,
            unit,
        } => {
            let mut client = tcp::connect_slave(server, Slave(unit)).await?;
            match client.read_holding_registers(first, quantity).await? {
                Ok(values) => println!("{values:?}"),
                Err(exception) => bail!("{exception}"),
            }
            Ok(())
        }
        Peer::Write {
            server,
            address,
            value,
            unit,
        } => {
            let mut client = tcp::connect_slave(server, Slave(unit)).await?;
            let written = client.write_single_register(address, value).await;
            match written.context("the write did not get through")? {
                Ok(()) => println!("register {address} is now {value}"),
                Err(exception) => bail!("{exception}"),
            }
            Ok(())
        }
    }
}
