//! The oracle against a real gateway: the schedules of the generator as packets of a raw socket in
//! the initiator's zone, and behind the gateway the kernel's TCP with servers of other people.

use std::fmt;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::generator;
use super::reader::Request;
use super::schedule::{Acknowledges, Fate, Schedule, Spoil, Step};
use super::site::{SITES, Site};
use super::wire::Segment;
use crate::frames::{ACK, Frame, RST, SYN, tcp};
use crate::lab::{Conduitfw, Host, Lab};
use crate::peers::{LoggedServer, Maker};
use crate::twin::hex;

/// Marks what the raw socket sends. The kernel knows nothing of these connections and would reset
/// them: what it sends of its own is dropped.
const MARK: u32 = 1;
const HMI: [u8; 4] = [10, 10, 0, 5];
const PLC: [u8; 4] = [10, 20, 0, 10];
/// The protocol number by which the kernel leaves the IP header to the sender.
const RAW: i32 = 255;
/// How long an answer may take on a veth.
const GLANCE: Duration = Duration::from_millis(5);

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Schedules, each in a connection of its own.
    pub schedules: u64,
    /// Connections that the server took.
    pub connections: u64,
    /// Packets sent.
    pub packets: u64,
    /// Requests that the server took.
    pub requests: u64,
}

/// A denied request that a server took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The last schedule before it was seen.
    pub seed: u64,
    /// What it was.
    pub request: Request,
    /// Its schedule.
    pub schedule: Schedule,
}

impl fmt::Display for Taken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pdu = hex(&self.request.pdu);
        let (seed, unit) = (self.seed, self.request.unit);
        write!(
            formatter,
            "seed {seed}: unit {unit} {pdu}\n{}",
            self.schedule
        )
    }
}

/// The policy of a site for the gateway of a lab.
#[must_use]
pub fn policy_of(site: &Site) -> String {
    site.policy_for("eth0", "eth1", None)
}

/// A server behind a gateway, and an attacker in front of it.
#[derive(Debug)]
pub struct Live {
    attacker: Attacker,
    server: LoggedServer,
    // The firewall goes before its lab does.
    conduitfw: Conduitfw,
    _lab: Lab,
}

impl Live {
    /// Builds it, with the policy of the first site.
    ///
    /// # Errors
    /// When the lab cannot be built, or something does not start.
    pub fn start(maker: Maker) -> Result<Self> {
        let policy = SITES.first().map(policy_of).context("there is no site")?;
        let lab = Lab::for_policy(&policy)?;
        let conduitfw = Conduitfw::start(&lab, &policy)?;
        let server = LoggedServer::start(lab.host("field")?, (PLC.into(), 502), maker)?;
        let attacker = Attacker::new(lab.host("control")?)?;
        Ok(Self {
            attacker,
            server,
            conduitfw,
            _lab: lab,
        })
    }

    /// Attacks the server under a policy until `enough`; the site says what is denied.
    ///
    /// # Errors
    /// When the policy is refused, or a packet cannot be sent.
    pub fn attack(
        &mut self,
        site: &Site,
        policy: &str,
        first_seed: u64,
        enough: impl Fn(&Figures) -> bool,
    ) -> Result<(Figures, Option<Taken>)> {
        let reload = self.conduitfw.reload(policy)?;
        ensure!(reload.status == Some(0), "{}", reload.said);
        // What the policy before allowed has been written down by now.
        self.server.requests()?;
        let packets = self.attacker.packets;
        let mut figures = Figures::default();
        for seed in first_seed.. {
            if enough(&figures) {
                break;
            }
            let schedule = generator::schedule(site, seed);
            figures.schedules += 1;
            figures.connections += u64::from(self.attacker.play(&schedule)?);
            figures.packets = self.attacker.packets - packets;
            for request in self.server.requests()? {
                figures.requests += 1;
                if site.denies(&request) {
                    let taken = Taken {
                        seed,
                        request,
                        schedule,
                    };
                    return Ok((figures, Some(taken)));
                }
            }
        }
        Ok((figures, None))
    }
}

#[derive(Debug)]
struct Attacker {
    out: Socket,
    back: Socket,
    port: u16,
    packets: u64,
    /// What the server's numbers were last: the next one due.
    theirs: u32,
}

impl Attacker {
    fn new(host: &Host) -> Result<Self> {
        host.run("nft add table inet cfw")?;
        host.run("nft add chain inet cfw out { type filter hook output priority 0 ; }")?;
        host.run(&format!(
            "nft add rule inet cfw out meta l4proto tcp meta mark != {MARK} drop"
        ))?;
        let (out, back) = host.enter(|| {
            let out = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
            out.set_mark(MARK)?;
            let back = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
            back.set_read_timeout(Some(GLANCE))?;
            Ok::<_, std::io::Error>((out, back))
        })??;
        Ok(Self {
            out,
            back,
            port: 1024,
            packets: 0,
            theirs: 0,
        })
    }

    /// Whether the server took the connection.
    fn play(&mut self, schedule: &Schedule) -> Result<bool> {
        self.port = self.port.checked_add(1).unwrap_or(1025);
        let is_open = self.open(schedule.first)?;
        let mut first = schedule.first;
        for step in &schedule.steps {
            match step {
                Step::Send(sent) => {
                    let off = match sent.acknowledges {
                        Acknowledges::All => 0,
                        Acknowledges::Off(number) => number,
                    };
                    let mut frame = self
                        .up()
                        .flags(sent.tcp_flags())
                        .seq(first.wrapping_add_signed(sent.at))
                        .ack(self.theirs.wrapping_add_signed(off))
                        .urgent(sent.urgent)
                        .payload(sent.bytes.clone());
                    // Nobody can take a packet off this wire: what is to be lost arrives spoiled.
                    if sent.spoil == Spoil::Checksum || sent.fate == Fate::Lost {
                        frame = frame.spoil_checksum();
                    }
                    if let Spoil::HopLimit(limit) = sent.spoil {
                        frame = frame.hop_limit(limit);
                    }
                    self.send(&frame)?;
                    if sent.fate == Fate::Twice {
                        self.send(&frame)?;
                    }
                }
                Step::Acknowledge { .. } | Step::Answer | Step::Release(_) => {
                    self.listen(GLANCE)?;
                }
                Step::Reopen(number) => {
                    first = *number;
                    self.open(first)?;
                }
                Step::Forge(_) | Step::Wait(_) => {}
            }
        }
        self.listen(GLANCE)?;
        // The server's process goes, if the gateway lets this one pass.
        let end = self.up().flags(RST).seq(first);
        self.send(&end)?;
        Ok(is_open)
    }

    fn up(&self) -> Frame {
        tcp((HMI, self.port), (PLC, 502))
    }

    fn open(&mut self, first: u32) -> Result<bool> {
        let syn = self.up().flags(SYN).seq(first.wrapping_sub(1));
        self.send(&syn)?;
        let began = Instant::now();
        while began.elapsed() < GLANCE * 4 {
            let Some(segment) = self.receive() else {
                continue;
            };
            if segment.flags & (SYN | ACK) == SYN | ACK && segment.acknowledgement == first {
                self.theirs = segment.sequence.wrapping_add(1);
                let third = self.up().seq(first).ack(self.theirs);
                self.send(&third)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn send(&mut self, frame: &Frame) -> Result<()> {
        self.packets += 1;
        let to = SockAddr::from(SocketAddr::from((IpAddr::from(PLC), 0)));
        let sent = self.out.send_to(&frame.packet(), &to);
        sent.map(drop).context("cannot send a packet")
    }

    /// Takes what comes back, and what is acknowledged with it.
    fn listen(&mut self, patience: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < patience {
            let Some(segment) = self.receive() else {
                break;
            };
            let length = u32::try_from(segment.payload.len())?;
            if segment.sequence == self.theirs {
                self.theirs = self.theirs.wrapping_add(length);
            }
        }
        Ok(())
    }

    /// A segment of the server for this connection.
    fn receive(&mut self) -> Option<Segment> {
        let mut buffer = [0; 4096];
        let length = self.back.read(&mut buffer).ok()?;
        // As a frame: the reader wants an Ethernet header in front.
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[8, 0]);
        frame.extend(buffer.get(..length)?);
        let ports = frame.get(34..38)?;
        let is_ours = ports == [[1, 246], self.port.to_be_bytes()].concat();
        is_ours.then(|| Segment::read(&frame)).flatten()
    }
}
