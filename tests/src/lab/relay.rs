//! A bad line: a relay between a host and the gateway that loses, delays, repeats and swaps frames.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind, setsockopt, socket,
    sockopt,
};

use super::{Host, Lab, Removal, host, no_longer_standing, standing};
use crate::chance::Chance;

/// The longest frame that a relay carries.
const FRAME_BYTES: usize = 65_536;
/// How long a relay may overlook that it is to stop.
const GLANCE: Duration = Duration::from_millis(20);

/// What a line does to frames, in either direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Frames lost, of a thousand.
    pub lost: u16,
    /// Frames that come twice, of a thousand.
    pub twice: u16,
    /// Frames that others overtake, of a thousand.
    pub late: u16,
    /// How long every frame takes.
    pub delay: Duration,
    /// How much longer one takes that is late, at most.
    pub lateness: Duration,
}

/// What a relay did.
#[derive(Debug, Default)]
pub struct Carried {
    /// Frames that came in.
    pub frames: AtomicU64,
    /// Frames that it lost.
    pub lost: AtomicU64,
    /// Frames that it sent twice.
    pub twice: AtomicU64,
    /// Frames that it let others overtake.
    pub late: AtomicU64,
}

/// A relay at work. It goes when this value does; its host is cut off then.
#[derive(Debug)]
pub struct Relay {
    carried: Arc<Carried>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    removal: Removal,
}

impl Relay {
    /// What it did so far.
    #[must_use]
    pub fn carried(&self) -> &Carried {
        &self.carried
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.removal.carry_out();
        no_longer_standing(&self.removal);
    }
}

impl Lab {
    /// Puts a relay between the gateway and the host of an untagged IPv4 zone. Frames are whole on
    /// either side: nothing is left to a device that is not there.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub fn insert_relay(&self, zone: &str, line: Line, seed: u64) -> Result<Relay> {
        let plan = self.plan.zones.iter().find(|plan| plan.name == zone);
        let plan = plan.with_context(|| format!("the lab has no zone {zone}"))?;
        let end = self.host(zone)?;
        let relay = Host {
            namespace: format!("{}-relay", end.namespace),
        };
        let removal = Removal::Namespaces(vec![relay.namespace.clone()]);
        standing(removal.clone());
        let name = &relay.namespace;
        host::run(
            Command::new("ip").args(["netns", "add", name]),
            "ip netns add",
        )?;
        relay.run(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
        )?;
        end.run(&format!("ip link set net0 netns {name}"))?;
        relay.run("ip link set net0 name gate")?;
        let pair = format!("ip link add net0 type veth peer name host netns {name}");
        end.run(&pair)?;
        let gateway = plan
            .interfaces
            .first()
            .context("a zone without interface")?;
        for (host, interface) in [
            (&relay, "gate"),
            (&relay, "host"),
            (end, "net0"),
            (&self.gateway, gateway.as_str()),
        ] {
            host.run(&format!(
                "ethtool -K {interface} tx off tso off gso off gro off"
            ))?;
            host.run(&format!("ip link set {interface} up"))?;
        }
        for address in plan.host_addresses()? {
            end.run(&format!("ip address add {address} dev net0"))?;
        }
        for address in plan.gateway_addresses()? {
            let (family, via) = match address.addr() {
                via if via.is_ipv4() => ("-4", via),
                via => ("-6", via),
            };
            end.run(&format!("ip {family} route add default via {via} dev net0"))?;
        }
        let sockets = relay.enter(|| Ok::<_, anyhow::Error>([open("gate")?, open("host")?]))??;
        start(sockets, line, seed, removal)
    }
}

fn start([gate, host]: [File; 2], line: Line, seed: u64, removal: Removal) -> Result<Relay> {
    let (carried, stopped) = (Arc::new(Carried::default()), Arc::default());
    let mut threads = Vec::new();
    // Each socket serves both ways, so that none sees what this relay sent itself.
    let ways = [
        (gate.try_clone()?, host.try_clone()?, seed),
        (host, gate, !seed),
    ];
    for (from, to, seed) in ways {
        let mut way = Way {
            from,
            to,
            line,
            chance: Chance::new(seed),
            waiting: BinaryHeap::new(),
            carried: Arc::clone(&carried),
            stopped: Arc::clone(&stopped),
            count: 0,
        };
        threads.push(thread::spawn(move || {
            // A line that breaks is a line that loses everything: whoever waits will tell.
            let _ = way.carry();
        }));
    }
    Ok(Relay {
        carried,
        stopped,
        threads,
        removal,
    })
}

/// A packet socket on an interface of this thread's namespace.
fn open(interface: &str) -> Result<File> {
    let all = SockProtocol::EthAll;
    let family = AddressFamily::Packet;
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK, all)?;
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20));
    let address = getifaddrs()?
        .filter(|address| address.interface_name == interface)
        .filter_map(|address| address.address)
        .find(|address| address.family() == Some(AddressFamily::Packet))
        .with_context(|| format!("there is no interface {interface}"))?;
    let address = address
        .as_link_addr()
        .context("an address without a link")?;
    bind(socket.as_raw_fd(), address)?;
    Ok(File::from(socket))
}

/// A frame on its way: the one that is due first comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: std::cmp::Reverse<(Instant, u64)>,
    frame: Vec<u8>,
}

/// One direction.
struct Way {
    from: File,
    to: File,
    line: Line,
    chance: Chance,
    waiting: BinaryHeap<Waiting>,
    carried: Arc<Carried>,
    stopped: Arc<AtomicBool>,
    count: u64,
}

impl Way {
    fn carry(&mut self) -> Result<()> {
        let mut buffer = vec![0; FRAME_BYTES];
        while !self.stopped.load(Ordering::Relaxed) {
            self.wait()?;
            // What has come, but not so much that what is due has to wait.
            for _ in 0..64 {
                match self.from.read(&mut buffer) {
                    Ok(length) => self.take(buffer.get(..length).unwrap_or_default()),
                    Err(_) => break,
                }
            }
            let now = Instant::now();
            while self.waiting.peek().is_some_and(|next| next.due.0.0 <= now) {
                if let Some(next) = self.waiting.pop() {
                    // A full queue is one more way to lose a frame.
                    let _ = self.to.write(&next.frame);
                }
            }
        }
        Ok(())
    }

    /// Until a frame comes, or one is due.
    fn wait(&self) -> Result<()> {
        let until = self.waiting.peek().map_or(GLANCE, |next| {
            next.due.0.0.saturating_duration_since(Instant::now())
        });
        // Rounded down: what is due in less than a millisecond is waited for at work.
        let timeout = PollTimeout::try_from(until.min(GLANCE))?;
        let mut sockets = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut sockets, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a frame is one of those that the line is bad for: IPv4 and IPv6. A host that has to
    /// look twice for a neighbour takes its round trips to be seconds long.
    fn concerns(frame: &[u8]) -> bool {
        matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]))
    }

    fn happens(&mut self, of_a_thousand: u16) -> bool {
        self.chance.short(1000) < of_a_thousand
    }

    fn take(&mut self, frame: &[u8]) {
        self.carried.frames.fetch_add(1, Ordering::Relaxed);
        if Self::concerns(frame) && self.happens(self.line.lost) {
            self.carried.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut due = Instant::now() + self.line.delay;
        if self.happens(self.line.late) {
            self.carried.late.fetch_add(1, Ordering::Relaxed);
            let longest = usize::try_from(self.line.lateness.as_micros()).unwrap_or(0);
            let more = u64::try_from(self.chance.below(longest)).unwrap_or(0);
            due += Duration::from_micros(more);
        }
        let is_twice = self.happens(self.line.twice);
        self.carried
            .twice
            .fetch_add(u64::from(is_twice), Ordering::Relaxed);
        for _ in 0..=u8::from(is_twice) {
            self.count += 1;
            self.waiting.push(Waiting {
                due: std::cmp::Reverse((due, self.count)),
                frame: frame.to_vec(),
            });
        }
    }
}
