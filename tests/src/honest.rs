//! Honest clients: they ask only for what is allowed (and, where a refusal is an answer, sometimes
//! for what is not), over bad lines, several requests at a time, in segments of every size. Every
//! transaction must complete, and no connection may be cut off.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::chance::Chance;
use crate::frames::modbus::{adu, read, write_registers, write_single};
use crate::lab::Host;

/// The longest wait for a reply: many losses of the same segment in a row.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// Connections at a time.
    pub connections: u16,
    /// Transactions in all.
    pub transactions: u64,
    /// Requests that wait for a reply at a time, at most.
    pub outstanding: usize,
    /// Whether they also write.
    pub writes: bool,
    /// Whether every twentieth request is one that the policy answers with an exception. Requests are
    /// then not cut up: one of which a part went by before it was denied costs the connection.
    pub refused: bool,
    /// Where chance starts from.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Done {
    /// Transactions that completed as they should.
    pub transactions: AtomicU64,
    /// Those among them that were refused with exception 01, as they should.
    pub refusals: AtomicU64,
}

/// Runs the clients of a host until every transaction is complete.
///
/// # Errors
/// When a single one is not, or a connection ends: the first of these.
pub fn run(host: &Host, source: IpAddr, server: SocketAddr, clients: Clients) -> Result<Done> {
    let done = Done::default();
    let share = clients
        .transactions
        .div_ceil(u64::from(clients.connections.max(1)));
    let outcomes: Vec<Result<()>> = thread::scope(|scope| {
        let start = |number: u16| {
            let done = &done;
            scope.spawn(move || {
                let seed = clients.seed ^ u64::from(number) << 32;
                let mut client = Client::connect(host, source, server, clients, seed)?;
                client
                    .work(share, done)
                    .with_context(|| format!("connection {number} of seed {}", clients.seed))
            })
        };
        let threads: Vec<_> = (0..clients.connections).map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => bail!("a client panicked"),
        };
        threads.into_iter().map(join).collect()
    });
    let failures: Vec<String> = outcomes
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(
        failures.is_empty(),
        "{} of {} connections failed; the first: {}",
        failures.len(),
        clients.connections,
        failures.first().map_or("", String::as_str)
    );
    Ok(done)
}

/// A reply that is due.
struct Expected {
    transaction_id: u16,
    function: u8,
    /// Bytes of the PDU behind the function code.
    body: Vec<u8>,
    /// Whether only the length of the body is known.
    any_values: bool,
}

struct Client {
    stream: TcpStream,
    chance: Chance,
    clients: Clients,
    expected: VecDeque<Expected>,
    next_id: u16,
}

impl Client {
    fn connect(
        host: &Host,
        source: IpAddr,
        server: SocketAddr,
        clients: Clients,
        seed: u64,
    ) -> Result<Self> {
        let mut chance = Chance::new(seed);
        let mss = match chance.below(3) {
            0 if !clients.refused => Some(88),
            1 if !clients.refused => Some(300),
            _ => None,
        };
        let stream = host.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            if let Some(mss) = mss {
                socket.set_tcp_mss(mss)?;
            }
            socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
            socket.connect_timeout(&SockAddr::from(server), PATIENCE)?;
            Ok::<_, std::io::Error>(TcpStream::from(socket))
        })?;
        let stream = stream.context("cannot connect")?;
        // Half of them let the kernel put small writes together.
        stream.set_nodelay(chance.once_in(2))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            chance,
            clients,
            expected: VecDeque::new(),
            next_id: 0,
        })
    }

    fn work(&mut self, count: u64, done: &Done) -> Result<()> {
        let mut left = count;
        while left > 0 || !self.expected.is_empty() {
            let room = self.clients.outstanding.saturating_sub(self.expected.len());
            let wanted = 1 + self.chance.below(self.clients.outstanding);
            let mut bytes = Vec::new();
            for _ in 0..wanted.min(room) {
                if left == 0 {
                    break;
                }
                left -= 1;
                bytes.extend(self.request());
            }
            self.write(&bytes)?;
            let replies = 1 + self.chance.below(self.expected.len());
            for _ in 0..replies {
                if let Some(expected) = self.expected.pop_front() {
                    let is_refusal = expected.function & 0x80 != 0;
                    self.read(&expected).with_context(|| {
                        let id = expected.transaction_id;
                        format!(
                            "transaction {id} of {count}, function {}",
                            expected.function
                        )
                    })?;
                    done.transactions.fetch_add(1, Ordering::Relaxed);
                    done.refusals
                        .fetch_add(u64::from(is_refusal), Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// A request; what is due for it is noted.
    fn request(&mut self) -> Vec<u8> {
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        let quantity = 1 + self.chance.short(20);
        let address = self.chance.short(40);
        let value = self.chance.short(1500);
        let is_refused = self.clients.refused && self.chance.once_in(20);
        let kind = if self.clients.writes { 3 } else { 1 };
        let (pdu, body, any_values) = match (is_refused, self.chance.below(kind)) {
            (true, 0) => (write_single(5, 1, 0xff00), vec![1], false),
            (true, 1) => (
                write_registers(900, &vec![7; usize::from(quantity)]),
                vec![1],
                false,
            ),
            (true, _) => (write_single(6, 41, 9999), vec![1], false),
            (false, 0) => {
                let [_, count] = (quantity * 2).to_be_bytes();
                let mut body = vec![count];
                body.resize(1 + usize::from(count), 0);
                (read(3, address, quantity), body, true)
            }
            (false, 1) => {
                let pdu = write_single(6, 41, value);
                let body = pdu.get(1..).unwrap_or_default().to_vec();
                (pdu, body, false)
            }
            (false, _) => {
                let pdu = write_registers(42, &[value, 3]);
                let body = pdu.get(1..5).unwrap_or_default().to_vec();
                (pdu, body, false)
            }
        };
        let function = pdu.first().copied().unwrap_or(0);
        self.expected.push_back(Expected {
            transaction_id: id,
            function: if is_refused {
                function | 0x80
            } else {
                function
            },
            body,
            any_values,
        });
        adu(id, 1, pdu)
    }

    /// Writes in pieces of any size.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = if self.clients.refused || self.chance.once_in(2) {
                rest.len()
            } else {
                1 + self.chance.below(rest.len().min(30))
            };
            let (piece, after) = rest.split_at(length);
            self.stream.write_all(piece).context("cannot send")?;
            rest = after;
        }
        Ok(())
    }

    fn read(&mut self, expected: &Expected) -> Result<()> {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).context("no reply")?;
        let [t1, t0, p1, p0, l1, l0, unit, function] = header;
        let length = usize::from(u16::from_be_bytes([l1, l0]));
        let wanted = expected.body.len();
        ensure!(
            [t1, t0] == expected.transaction_id.to_be_bytes()
                && [p1, p0, unit, function] == [0, 0, 1, expected.function]
                && length == wanted + 2,
            "the reply begins with {header:02x?}"
        );
        let mut body = vec![0; wanted];
        self.stream.read_exact(&mut body).context("half a reply")?;
        let known = if expected.any_values { 1 } else { wanted };
        ensure!(
            body.get(..known) == expected.body.get(..known),
            "the reply holds {body:02x?}"
        );
        Ok(())
    }
}
