//! One echo request and its reply.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::frames;
use crate::lab::Host;

const IDENTIFIER: u16 = 0x4c41;

/// Sends an echo request; true when its reply comes within `patience`.
///
/// # Errors
/// When the host cannot send.
pub fn ping(host: &Host, source: IpAddr, destination: IpAddr, patience: Duration) -> Result<bool> {
    let (domain, protocol, reply, header_bytes) = if destination.is_ipv4() {
        (Domain::IPV4, Protocol::ICMPV4, 0, 20)
    } else {
        (Domain::IPV6, Protocol::ICMPV6, 129, 0)
    };
    let socket = host.enter(|| {
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
        socket.set_read_timeout(Some(patience))?;
        Ok::<_, io::Error>(socket)
    })??;
    let message = frames::echo_request(source, destination, IDENTIFIER, 1).packet();
    let message = &message[if destination.is_ipv4() { 20 } else { 40 }..];
    socket.send_to(message, &SockAddr::from(SocketAddr::from((destination, 0))))?;
    let until = Instant::now() + patience;
    let mut bytes = [0; 512];
    while Instant::now() < until {
        let Ok(length) = (&socket).read(&mut bytes) else {
            continue;
        };
        let Some(answer) = bytes[..length].get(header_bytes..) else {
            continue;
        };
        if answer.len() > 6 && answer[0] == reply && answer[4..6] == IDENTIFIER.to_be_bytes() {
            return Ok(true);
        }
    }
    Ok(false)
}
