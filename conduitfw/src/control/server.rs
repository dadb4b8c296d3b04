//! The controller's end of the control socket: bounded clients, bounded lines, bounded waiting.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::tz::TimeZone;
use nix::{
    sys::stat::{Mode, umask},
    unistd::{Group, chown},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot},
    task::{spawn_blocking, yield_now},
    time::timeout,
};

use super::protocol::{Answer, MAX_LINE_BYTES, PolicyText, Request};
use crate::{
    events::{Following, Published, Taken},
    policy::read_text,
    requester::{Peer, User},
};

/// Clients served at once; one more waits in the kernel's queue.
const MAX_CLIENTS: usize = 16;
/// How many of them may follow events; the others are for those who act.
const MAX_FOLLOWERS: usize = 8;
/// Bytes of a request that are read at once: a policy comes in few pieces.
const READ_AT_ONCE: usize = 64 << 10;
/// A client that takes longer to say what it wants, or to take its answer, is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the policy file may take to be read for a `status`.
const SOON: Duration = Duration::from_secs(1);
/// The group that may use the socket, where it exists.
const DEFAULT_GROUP: &str = "conduitfw";

/// A request that the daemon's loop answers.
pub enum Command {
    /// [`Request::Status`], and what the controller's own policy file holds by now; nothing when it cannot be read.
    Status(Option<String>, oneshot::Sender<Answer>),
    /// [`Request::Reload`], and who asks.
    Reload(Option<PolicyText>, User, oneshot::Sender<Answer>),
    /// [`Request::Detach`], and who asks.
    Detach(User, oneshot::Sender<Answer>),
    /// [`Request::Events`].
    Events(oneshot::Sender<Following>),
}

/// The socket; removed from the file system when dropped.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: Arc<Semaphore>,
    desk: Desk,
}

/// What a client's request needs.
#[derive(Clone)]
struct Desk {
    commands: mpsc::Sender<Command>,
    followers: Arc<Semaphore>,
    /// The controller's own policy file, and who may read it: one at a time.
    policy_file: (Arc<Path>, Arc<Semaphore>),
}

impl Desk {
    fn new(commands: mpsc::Sender<Command>, policy_file: &Path) -> Self {
        Self {
            commands,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            policy_file: (policy_file.into(), Arc::new(Semaphore::new(1))),
        }
    }

    /// What the controller's own policy file holds by now, if it is a file and can be read soon. Beside the loop: a
    /// file system over the network may hang.
    async fn file_now(&self) -> Option<String> {
        let (path, reading) = self.policy_file.clone();
        let text = async {
            let permit = reading.acquire_owned().await.ok()?;
            let text = spawn_blocking(move || {
                let _permit = permit;
                let is_file = path.metadata().is_ok_and(|about| about.is_file());
                is_file.then(|| read_text(&path).ok()).flatten()
            });
            text.await.ok()?
        };
        timeout(SOON, text).await.ok().flatten()
    }
}

impl Server {
    /// Makes the socket. The caller holds the instance's lock, so a socket that is already there
    /// is one that a dead controller left.
    ///
    /// # Errors
    ///
    /// The socket cannot be made, or the group does not exist.
    pub fn bind(
        path: &Path,
        group: Option<&str>,
        policy_file: &Path,
        commands: mpsc::Sender<Command>,
    ) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody else gets in before the group is set.
        let usual = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(usual);
        let listener = listener?;
        give_to_group(path, group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            clients: Arc::new(Semaphore::new(MAX_CLIENTS)),
            desk: Desk::new(commands, policy_file),
        })
    }

    /// Takes the next client, and serves it on the side.
    ///
    /// # Errors
    ///
    /// The kernel refuses to accept.
    pub async fn serve_next(&self) -> io::Result<()> {
        // Only closing the semaphore makes this fail, and nobody does.
        let permit = Arc::clone(&self.clients)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        tokio::spawn(serve(stream, self.desk.clone(), permit));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A socket that stays is one that the next controller removes.
        let _ = fs::remove_file(&self.path);
    }
}

fn give_to_group(path: &Path, group: Option<&str>) -> io::Result<()> {
    let name = group.unwrap_or(DEFAULT_GROUP);
    match (Group::from_name(name)?, group) {
        (Some(found), _) => Ok(chown(path, None, Some(found.gid))?),
        (None, None) => Ok(()),
        (None, Some(wanted)) => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no group `{wanted}`: create it with `groupadd {wanted}`"),
        )),
    }
}

async fn serve(stream: UnixStream, desk: Desk, _permit: OwnedSemaphorePermit) {
    let peer = Peer::of(&stream);
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(READ_AT_ONCE, reader);
    let outcome = match timeout(PATIENCE, read_request(&mut reader)).await {
        Ok(Ok(Some(request))) => answer(request, peer, &desk, &mut reader, &mut writer).await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            send(
                &mut writer,
                &Answer::Failed {
                    text: error.to_string(),
                },
            )
            .await
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no request came")),
    };
    if let Err(error) = outcome {
        tracing::debug!("a control client was let go: {error}");
    }
}

/// One request, or nothing when the client left without one.
async fn read_request(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Request>> {
    let mut line = Vec::new();
    let length = reader
        .take(MAX_LINE_BYTES as u64 + 1)
        .read_until(b'\n', &mut line)
        .await?;
    if length == 0 {
        return Ok(None);
    }
    if length > MAX_LINE_BYTES {
        let sentence = format!("a request has at most {MAX_LINE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not a request: {error}"),
        )
    })
}

async fn answer(
    request: Request,
    peer: io::Result<Peer>,
    desk: &Desk,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    match request {
        Request::Status => {
            let file = desk.file_now().await;
            let answer = ask(&desk.commands, |reply| Command::Status(file, reply)).await?;
            send(writer, &answer).await
        }
        // Whoever waited for a controller that hung, and was told so, does not want it done after all.
        Request::Reload { .. } | Request::Detach if has_left(reader).await => Ok(()),
        Request::Reload { policy } => {
            let user = peer?.user();
            let answer = ask(&desk.commands, |reply| Command::Reload(policy, user, reply)).await?;
            send(writer, &answer).await
        }
        Request::Detach => {
            let user = peer?.user();
            let answer = ask(&desk.commands, |reply| Command::Detach(user, reply)).await?;
            send(writer, &answer).await
        }
        Request::Events { follow } => {
            let Ok(_permit) = Arc::clone(&desk.followers).try_acquire_owned() else {
                let text = format!("{MAX_FOLLOWERS} others follow events already: end one");
                return send(writer, &Answer::Failed { text }).await;
            };
            let (recent, coming, zone) = ask(&desk.commands, Command::Events).await?;
            for event in recent {
                send_event(writer, &event, &zone).await?;
            }
            if follow {
                send_coming(coming, &zone, reader, writer).await?;
            }
            send(writer, &Answer::End).await
        }
    }
}

/// Whether the client has closed its end.
async fn has_left(reader: &mut BufReader<OwnedReadHalf>) -> bool {
    // What has come by now is seen when the loop comes around. A time-out of nothing would take a millisecond.
    tokio::select! {
        biased;
        next = reader.fill_buf() => matches!(next, Ok([]) | Err(_)),
        () = yield_now() => false,
    }
}

/// Events as they come, until the client leaves or the controller stops.
async fn send_coming(
    mut coming: broadcast::Receiver<Arc<Taken>>,
    zone: &TimeZone,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            event = coming.recv() => match event {
                Ok(event) => send_event(writer, &event, zone).await?,
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    send(writer, &Answer::Missed { count }).await?;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            length = reader.read(&mut ignored) => if length? == 0 {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client left"));
            },
        }
    }
}

async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> io::Result<T> {
    let stopping = || io::Error::new(io::ErrorKind::ConnectionAborted, "the controller stops");
    let (reply, answer) = oneshot::channel();
    commands
        .send(command(reply))
        .await
        .map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

async fn send_event(writer: &mut OwnedWriteHalf, event: &Taken, zone: &TimeZone) -> io::Result<()> {
    let Published { json, words } = event.tell(zone);
    let answer = Answer::Event { json, words };
    send(writer, &answer).await
}

async fn send(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    timeout(PATIENCE, writer.write_all(answer.to_line().as_bytes()))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client takes no answer"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn exchange(sent: &[u8]) -> String {
        let (client, server) = UnixStream::pair().unwrap();
        let (commands, mut received) = mpsc::channel(1);
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        tokio::spawn(serve(
            server,
            Desk::new(commands, Path::new("policy.toml")),
            permit,
        ));
        tokio::spawn(async move {
            while let Some(command) = received.recv().await {
                if let Command::Status(_, reply) = command {
                    let _ = reply.send(Answer::End);
                }
            }
        });
        let (mut reader, mut writer) = client.into_split();
        let sent = sent.to_vec();
        let writing = tokio::spawn(async move {
            let _ = writer.write_all(&sent).await;
            writer
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        writing.abort();
        text
    }

    #[tokio::test]
    async fn a_request_gets_its_answer() {
        let text = exchange(b"{\"verb\":\"status\"}\n").await;
        assert_eq!(text, Answer::End.to_line());
    }

    #[tokio::test]
    async fn a_line_that_is_no_request_gets_a_sentence() {
        assert!(exchange(b"hello\n").await.contains("not a request"));
    }

    #[tokio::test]
    async fn who_has_left_does_not_want_it_done() {
        for sent in [
            "{\"verb\":\"detach\"}\n",
            "{\"verb\":\"reload\",\"policy\":null}\n",
        ] {
            for is_there in [false, true] {
                let (mut client, server) = UnixStream::pair().unwrap();
                let (commands, mut received) = mpsc::channel(1);
                let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
                client.write_all(sent.as_bytes()).await.unwrap();
                let client = is_there.then_some(client);
                tokio::spawn(serve(
                    server,
                    Desk::new(commands, Path::new("policy.toml")),
                    permit,
                ));
                assert_eq!(received.recv().await.is_some(), is_there, "{sent}");
                drop(client);
            }
        }
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_off() {
        let text = exchange(&vec![b'x'; MAX_LINE_BYTES + 10]).await;
        assert!(text.contains("a request has at most"), "{text}");
    }
}
