//! A server that answers as the specification says, also what makes no sense.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::Result;

use super::Listener;
use crate::lab::Host;
use crate::oracle::reader::{Reader, answer};

/// Starts a server on a host of the lab that cuts its stream by the MBAP header and answers every
/// request: zeros for what is read, and an exception where the specification wants one.
///
/// # Errors
/// When the address cannot be bound.
pub fn strict_server(host: &Host, address: impl Into<SocketAddr>) -> Result<Listener> {
    Listener::start(host, address, |mut stream| {
        let (mut buffer, mut waiting) = ([0; 4096], Vec::new());
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            waiting.extend(buffer.get(..length).unwrap_or_default());
            let mut answers = Vec::new();
            while let Some((request, length)) = Reader::Mbap.take(&waiting) {
                waiting.drain(..length);
                answers.extend(answer(&request));
            }
            if stream.write_all(&answers).is_err() {
                return;
            }
        }
    })
}
