//! A Modbus client and server that cost as little as a real TCP connection allows: requests and
//! answers of one length each, and no look into them.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::lab::Host;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::{Pid, gettid};
use socket2::{Domain, Socket, Type};

/// Registers of a request.
const REGISTERS: usize = 10;
/// Bytes of a request.
const REQUEST: usize = 12;
/// Bytes of its answer.
const ANSWER: usize = 9 + REGISTERS * 2;
/// How long a connection may take, and an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps a thread (0: this one) on one processor.
pub(crate) fn pin(thread: i32, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(thread), &set).context("cannot keep a thread on a processor")
}

/// Lets a thread (0: this one) run anywhere.
pub(crate) fn unpin(thread: i32, processors: usize) -> Result<()> {
    let mut set = CpuSet::new();
    for processor in 0..processors {
        set.set(processor)?;
    }
    sched_setaffinity(Pid::from_raw(thread), &set).context("cannot let a thread go")
}

/// Puts a thread (0: this one) before everything else that the machine does, or back among it. Threads
/// and programs that it starts are as it is. Without `chrt` it stays where it was.
pub(crate) fn urgent(thread: i32, is_urgent: bool) {
    let thread = if thread == 0 {
        gettid().as_raw()
    } else {
        thread
    };
    let class = if is_urgent {
        ["--rr", "10"]
    } else {
        ["--other", "0"]
    };
    let [class, priority] = class;
    let _ = Command::new("chrt")
        .args([class, "--pid", priority, &thread.to_string()])
        .output();
}

/// A server that answers every request.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Arc<AtomicI32>,
    running: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Listens on a host of the lab.
    pub(crate) fn start(host: &Host, address: SocketAddr) -> Result<Self> {
        let listener = host.enter(|| TcpListener::bind(address))??;
        // std asks for 128 connections in waiting.
        socket2::SockRef::from(&listener).listen(1024)?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = Arc::new(AtomicI32::new(0));
        let running = {
            let (stop, thread) = (Arc::clone(&stop), Arc::clone(&thread));
            thread::spawn(move || {
                thread.store(gettid().as_raw(), Ordering::Release);
                serve(&listener, &stop)
            })
        };
        Ok(Self {
            stop,
            thread,
            running: Some(running),
        })
    }

    /// Keeps the server on one processor.
    pub(crate) fn pin(&self, processor: usize) -> Result<()> {
        pin(self.thread.load(Ordering::Acquire), processor)
    }

    /// See [`urgent`].
    pub(crate) fn urgent(&self, is_urgent: bool) {
        urgent(self.thread.load(Ordering::Acquire), is_urgent);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        match self.running.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("    a server ended: {error:#}"),
            Some(Err(_)) => eprintln!("    a server broke"),
            _ => {}
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX))?;
    let mut connections: Vec<Option<(TcpStream, Vec<u8>)>> = Vec::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut answer = adu(
        0,
        1,
        [&[3, 2 * REGISTERS as u8][..], &[7; 2 * REGISTERS]].concat(),
    );
    let mut requests = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let count = match epoll.wait(&mut events, EpollTimeout::from(100_u8)) {
            Err(Errno::EINTR) => continue,
            outcome => outcome?,
        };
        for event in &events[..count] {
            let index = event.data();
            if index == u64::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let number = connections.len() as u64;
                    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
                    connections.push(Some((stream, Vec::new())));
                }
                continue;
            }
            let place = &mut connections[index as usize];
            let Some((stream, rest)) = place else {
                continue;
            };
            // What came of a request whose end is still on its way.
            let held = rest.len();
            requests[..held].copy_from_slice(rest);
            match stream.read(&mut requests[held..]) {
                Ok(0) => close(&epoll, place)?,
                Ok(bytes) => {
                    let whole = requests[..held + bytes].chunks_exact(REQUEST);
                    rest.clear();
                    rest.extend_from_slice(whole.remainder());
                    let mut written = Ok(());
                    for request in whole {
                        // The transaction id is the request's. An answer is a segment: one ADU to a
                        // TCP frame, as the guide has it.
                        answer[..2].copy_from_slice(&request[..2]);
                        written = written.and_then(|()| stream.write_all(&answer));
                    }
                    if written.is_err() {
                        close(&epoll, place)?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => close(&epoll, place)?,
            }
        }
    }
    Ok(())
}

/// A program that is just being started may hold the descriptor as well: then it is not enough to
/// let go of it here.
fn close(epoll: &Epoll, place: &mut Option<(TcpStream, Vec<u8>)>) -> Result<()> {
    if let Some((stream, _)) = place.take() {
        epoll.delete(&stream)?;
    }
    Ok(())
}

/// What clients saw in one measurement.
#[derive(Default)]
pub(crate) struct Seen {
    /// Transactions.
    pub(crate) transactions: u64,
    /// Seconds.
    pub(crate) seconds: f64,
    /// Nanoseconds of each.
    pub(crate) latencies: Vec<u32>,
}

/// One connection and what it waits for.
struct Connection {
    stream: TcpStream,
    next: u16,
    sent: VecDeque<Instant>,
    rest: usize,
    request: Vec<u8>,
}

impl Connection {
    fn open(host: &Host, source: IpAddr, server: SocketAddr) -> Result<Self> {
        let stream = host.enter(|| -> Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect_timeout(&server.into(), PATIENCE)?;
            Ok(socket.into())
        })??;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            next: 0,
            sent: VecDeque::new(),
            rest: 0,
            request: adu(0, 1, modbus::read(3, 3000, REGISTERS as u16)),
        })
    }

    fn ask(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.next = self.next.wrapping_add(1);
            self.request[..2].copy_from_slice(&self.next.to_be_bytes());
            self.sent.push_back(Instant::now());
            // One ADU to a TCP frame.
            self.stream.write_all(&self.request)?;
        }
        Ok(())
    }

    /// Takes the answers that are there; how many.
    fn listen(&mut self, buffer: &mut [u8], seen: &mut Seen) -> Result<usize> {
        let bytes = self.stream.read(buffer).context("an answer did not come")?;
        ensure!(bytes > 0, "the server closed the connection");
        let now = Instant::now();
        let whole = (self.rest + bytes) / ANSWER;
        self.rest = (self.rest + bytes) % ANSWER;
        for _ in 0..whole {
            let sent = self.sent.pop_front().context("an answer to nothing")?;
            let nanoseconds = (now - sent).as_nanos();
            seen.latencies
                .push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
        }
        seen.transactions += whole as u64;
        Ok(whole)
    }
}

/// How clients ask.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Connections.
    pub(crate) connections: usize,
    /// Requests on their way in each.
    pub(crate) outstanding: usize,
}

/// Clients with open connections.
pub(crate) struct Clients {
    connections: Vec<Connection>,
    outstanding: usize,
    buffer: Vec<u8>,
}

impl Clients {
    /// Opens the connections of a load.
    pub(crate) fn open(
        host: &Host,
        source: IpAddr,
        server: SocketAddr,
        load: Load,
    ) -> Result<Self> {
        let open = |_| Connection::open(host, source, server);
        Ok(Self {
            connections: (0..load.connections).map(open).collect::<Result<_>>()?,
            outstanding: load.outstanding,
            buffer: vec![0; 65_536],
        })
    }

    /// Asks for so long, as fast as answers come.
    pub(crate) fn run(&mut self, time: Duration) -> Result<Seen> {
        let mut seen = Seen::default();
        seen.latencies.reserve(100_000);
        let began = Instant::now();
        if self.connections.len() == 1 {
            self.one(began + time, &mut seen)?;
        } else {
            self.many(began + time, &mut seen)?;
        }
        seen.seconds = began.elapsed().as_secs_f64();
        // What is still on its way belongs to nobody.
        let mut rest = Seen::default();
        for connection in &mut self.connections {
            while !connection.sent.is_empty() {
                connection.listen(&mut self.buffer, &mut rest)?;
            }
        }
        Ok(seen)
    }

    /// One transaction at a time on the first connection, so many a second.
    pub(crate) fn paced(&mut self, pace: u32, time: Duration) -> Result<Seen> {
        let mut seen = Seen::default();
        let connection = self.connections.first_mut().context("no connection")?;
        let began = Instant::now();
        let gap = Duration::from_secs(1) / pace;
        let mut next = began + gap;
        while next < began + time {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next += gap;
            connection.ask(1)?;
            while connection.listen(&mut self.buffer, &mut seen)? == 0 {}
        }
        seen.seconds = began.elapsed().as_secs_f64();
        Ok(seen)
    }

    fn one(&mut self, end: Instant, seen: &mut Seen) -> Result<()> {
        let connection = self.connections.first_mut().context("no connection")?;
        connection.ask(self.outstanding)?;
        while Instant::now() < end {
            let answered = connection.listen(&mut self.buffer, seen)?;
            if answered > 0 {
                connection.ask(answered)?;
            }
        }
        Ok(())
    }

    fn many(&mut self, end: Instant, seen: &mut Seen) -> Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (number, connection) in self.connections.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            epoll.add(&connection.stream, event)?;
        }
        let mut events = vec![EpollEvent::empty(); self.connections.len().min(1024)];
        for connection in &mut self.connections {
            connection.ask(self.outstanding)?;
        }
        while Instant::now() < end {
            let count = epoll.wait(&mut events, EpollTimeout::from(5000_u16))?;
            if count == 0 {
                bail!("no answer came");
            }
            for event in &events[..count] {
                let connection = &mut self.connections[event.data() as usize];
                let answered = connection.listen(&mut self.buffer, seen)?;
                if answered > 0 {
                    connection.ask(answered)?;
                }
            }
        }
        Ok(())
    }
}
