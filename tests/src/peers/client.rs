//! Clients: tokio-modbus with a blocking face, and one that sends any bytes.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_modbus::client::{Context, Reader, Writer, tcp};
use tokio_modbus::prelude::Slave;

use super::device::read_adu;
use crate::lab::Host;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Opens a TCP connection from a host of the lab, from one of its addresses if given.
///
/// # Errors
/// When the connection is refused or nobody answers within `patience`.
pub fn connect_from(
    host: &Host,
    source: Option<IpAddr>,
    destination: impl Into<SocketAddr>,
    patience: Duration,
) -> Result<TcpStream> {
    let destination = destination.into();
    let connected = host.enter(|| {
        let domain = Domain::for_address(destination);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if let Some(source) = source {
            socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
        }
        socket.connect_timeout(&SockAddr::from(destination), patience)?;
        socket.set_tcp_nodelay(true)?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    })?;
    connected.with_context(|| format!("cannot connect to {destination}"))
}

/// A tokio-modbus client with one connection.
pub struct ModbusClient {
    runtime: Runtime,
    context: Context,
}

impl ModbusClient {
    /// Connects from a host of the lab, from one of its addresses if given.
    ///
    /// # Errors
    /// When the connection is refused or nobody answers.
    pub fn connect(
        host: &Host,
        source: Option<IpAddr>,
        server: impl Into<SocketAddr>,
        unit: u8,
    ) -> Result<Self> {
        Self::new(connect_from(host, source, server, PATIENCE)?, unit)
    }

    /// Speaks Modbus on this connection.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn new(stream: TcpStream, unit: u8) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        stream.set_nonblocking(true)?;
        let context = {
            let _guard = runtime.enter();
            tcp::attach_slave(tokio::net::TcpStream::from_std(stream)?, Slave(unit))
        };
        Ok(Self { runtime, context })
    }

    /// Reads holding registers.
    ///
    /// # Errors
    /// When the connection ends, nobody answers, or the answer is an exception.
    pub fn read(&mut self, first: u16, quantity: u16) -> Result<Vec<u16>> {
        let reading = self.context.read_holding_registers(first, quantity);
        let answer = self
            .runtime
            .block_on(async { timeout(PATIENCE, reading).await });
        match answer.context("no answer within 3 seconds")?? {
            Ok(values) => Ok(values),
            Err(exception) => bail!("exception: {exception}"),
        }
    }

    /// Writes one holding register.
    ///
    /// # Errors
    /// When the connection ends, nobody answers, or the answer is an exception.
    pub fn write(&mut self, address: u16, value: u16) -> Result<()> {
        let writing = self.context.write_single_register(address, value);
        let answer = self
            .runtime
            .block_on(async { timeout(PATIENCE, writing).await });
        match answer.context("no answer within 3 seconds")?? {
            Ok(()) => Ok(()),
            Err(exception) => bail!("exception: {exception}"),
        }
    }
}

/// A client that sends any bytes and reads whole ADUs.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    /// Connects from a host of the lab, from one of its addresses if given.
    ///
    /// # Errors
    /// When the connection is refused or nobody answers.
    pub fn connect(
        host: &Host,
        source: Option<IpAddr>,
        server: impl Into<SocketAddr>,
    ) -> Result<Self> {
        let stream = connect_from(host, source, server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// Sends these bytes as one segment (when they fit), and returns the next ADU: its unit and
    /// its PDU.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`] when the connection is reset, [`io::ErrorKind::WouldBlock`]
    /// when nothing comes in time.
    pub fn exchange(&mut self, bytes: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        self.stream.write_all(bytes)?;
        self.read()
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads the next ADU: its unit and its PDU.
    ///
    /// # Errors
    /// As for [`RawClient::exchange`].
    pub fn read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        read_adu(&mut self.stream).map(|(_, unit, pdu)| (unit, pdu))
    }

    /// Reads until the connection ends, and returns how it did.
    ///
    /// # Errors
    /// As for [`RawClient::exchange`].
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// How long [`RawClient::read`] waits.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    /// This end's address.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }
}
