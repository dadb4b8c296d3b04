//! A device that takes any function code, and a plain listener.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::frames::modbus;
use crate::lab::Host;

/// An ADU that a device received: its unit, and its PDU.
pub type Received = (u8, Vec<u8>);

/// A Modbus/TCP device that answers every request, of any unit and any function code, with
/// "illegal function", and remembers what reached it.
#[derive(Debug)]
pub struct Device {
    received: Arc<Mutex<Vec<Received>>>,
    _listener: Listener,
}

impl Device {
    /// Starts it on a host of the lab.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(host: &Host, address: impl Into<SocketAddr>) -> Result<Self> {
        let received = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&received);
        let listener = Listener::start(host, address, move |mut stream| {
            while let Ok((transaction_id, unit, pdu)) = read_adu(&mut stream) {
                let function = pdu.first().copied().unwrap_or_default();
                shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((unit, pdu));
                let reply = modbus::adu(transaction_id, unit, [function | 0x80, 1]);
                if stream.write_all(&reply).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            received,
            _listener: listener,
        })
    }

    /// Takes what it received since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads one ADU: transaction id, unit, PDU.
pub(super) fn read_adu(stream: &mut TcpStream) -> io::Result<(u16, u8, Vec<u8>)> {
    let mut header = [0; 7];
    stream.read_exact(&mut header)?;
    let length = u16::from_be_bytes([header[4], header[5]]);
    let mut pdu = vec![0; usize::from(length.saturating_sub(1))];
    stream.read_exact(&mut pdu)?;
    Ok((u16::from_be_bytes([header[0], header[1]]), header[6], pdu))
}

/// A TCP listener with a thread for each connection. It stops accepting when it goes.
#[derive(Debug)]
pub struct Listener {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts it on a host of the lab.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(
        host: &Host,
        address: impl Into<SocketAddr>,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Result<Self> {
        let address = address.into();
        let listener = host.enter(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (flag, serve) = (Arc::clone(&stopped), Arc::new(serve));
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let serve = Arc::clone(&serve);
                let _ = stream.set_nonblocking(false);
                thread::spawn(move || serve(stream));
            }
        });
        Ok(Self {
            stopped,
            thread: Some(thread),
        })
    }

    /// A listener that sends back what it gets.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn echo(host: &Host, address: impl Into<SocketAddr>) -> Result<Self> {
        Self::start(host, address, |mut stream| {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..length]).is_err() {
                    return;
                }
            }
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // From here on its address is free again.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
