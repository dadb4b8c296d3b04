//! The command line's end of the control socket. It waits, so it needs no event loop.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::protocol::{Answer, MAX_LINE_BYTES, Request};

/// An answer may be as long as the status of a thousand conduits.
const MAX_ANSWER_BYTES: u64 = 16 * MAX_LINE_BYTES as u64;
/// A reload of the largest policy takes well under a second; a hung controller is given this.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A request on its way.
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Sends a request to the controller; nothing when no controller runs.
    ///
    /// # Errors
    ///
    /// The socket is there and cannot be used, for want of permission say.
    pub fn send(socket: &Path, request: &Request) -> io::Result<Option<Self>> {
        let mut stream = match UnixStream::connect(socket) {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                    _ => Err(error),
                };
            }
        };
        let patience = !matches!(request, Request::Events { follow: true });
        stream.set_read_timeout(patience.then_some(PATIENCE))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(Some(Self {
            reader: BufReader::new(stream),
        }))
    }

    /// The next answer; nothing when the controller closed the connection.
    ///
    /// # Errors
    ///
    /// The connection broke, or what came is no answer.
    pub fn next_answer(&mut self) -> io::Result<Option<Answer>> {
        let mut line = Vec::new();
        let length = (&mut self.reader)
            .take(MAX_ANSWER_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "the controller does not answer within {} seconds; enforcement goes on \
                         without it: end its process (`kill -9`) and start it again, or take the \
                         program out of the path with `conduitfw detach --force`",
                        PATIENCE.as_secs()
                    ),
                ),
                _ => error,
            })?;
        if length == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }

    /// Says that no more answers are wanted.
    pub fn leave(self) {
        // The peer may have left first.
        let _ = self.reader.get_ref().shutdown(Shutdown::Both);
    }
}
