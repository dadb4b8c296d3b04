//! Traffic that goes on while something happens to the gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::Host;
use crate::peers::ModbusClient;

/// Clients that read again as soon as they are answered, each over one connection.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Connects the clients and starts them.
    ///
    /// # Errors
    /// When one cannot connect.
    pub fn start(
        host: &Host,
        source: IpAddr,
        server: impl Into<SocketAddr>,
        count: usize,
    ) -> Result<Self> {
        let server = server.into();
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = ModbusClient::connect(host, Some(source), server, 1)?;
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            clients.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let so_far = done.load(Ordering::Relaxed);
                    client
                        .read(0, 10)
                        .with_context(|| format!("a read failed after {so_far} transactions"))?;
                    done.fetch_add(1, Ordering::Relaxed);
                    // A busy plant, and still some processor for everybody else.
                    thread::sleep(Duration::from_micros(200));
                }
                Ok(())
            }));
        }
        Ok(Self {
            stop,
            done,
            clients,
        })
    }

    /// Transactions so far.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Stops the clients; how many transactions they made.
    ///
    /// # Errors
    /// When a single transaction failed.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            match client.join() {
                Ok(result) => result?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(self.done.load(Ordering::Relaxed))
    }
}

/// TCP segments that this host has sent more than once.
///
/// # Errors
/// When the kernel does not say.
pub fn retransmissions(host: &Host) -> Result<u64> {
    let text = host.run("cat /proc/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let names = lines.next().context("no TCP statistics")?;
    let values = lines.next().context("no TCP statistics")?;
    let place = names.split(' ').position(|name| name == "RetransSegs");
    let value = place.and_then(|place| values.split(' ').nth(place));
    value
        .context("no RetransSegs")?
        .parse()
        .context("RetransSegs is no number")
}
