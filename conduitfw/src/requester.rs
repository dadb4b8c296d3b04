//! Who had a policy put in force: for the log, the events and `status`.

use std::{fmt, fs, io};

use tokio::net::{UnixStream, unix::UCred};

/// What the kernel says of a process whose user never logged in.
const NOBODY_LOGGED_IN: u32 = u32::MAX;

/// Who, or what, had a policy put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requester {
    /// The start of the controller.
    Start,
    /// SIGHUP.
    Hangup,
    /// The policy file, which changed and is watched.
    Watch,
    /// The machine's addresses, which changed.
    Addresses,
    /// A client of the control socket.
    Client(Client),
}

/// The user that a client of the control socket runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    uid: u32,
    /// The user that logged in and became this one, with `sudo` say; nothing where that is not known.
    login: Option<u32>,
}

impl Client {
    /// The client at the other end of a connection, as the kernel knows it.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        Ok(Self {
            uid: peer.uid(),
            login: login_of(&peer),
        })
    }
}

/// The user that logged in, from whom the process descends.
fn login_of(peer: &UCred) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{}/loginuid", peer.pid()?)).ok()?;
    let login: u32 = text.trim().parse().ok()?;
    (login != NOBODY_LOGGED_IN && login != peer.uid()).then_some(login)
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("the start of the controller"),
            Self::Hangup => f.write_str("SIGHUP"),
            Self::Watch => f.write_str("the watched file"),
            Self::Addresses => f.write_str("the machine's new addresses"),
            Self::Client(client) => client.fmt(f),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The machine's own file alone: a directory service may be what is out of order.
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        f.write_str(&user(&users, self.uid))?;
        match self.login {
            Some(login) => write!(f, ", logged in as {}", user(&users, login)),
            None => Ok(()),
        }
    }
}

/// A user in words, by a text as `/etc/passwd` holds it (passwd(5)).
fn user(users: &str, uid: u32) -> String {
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    match name {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/bash\nbroken\nops:x:1000:1000::/home/ops:/bin/sh\n";

    #[test]
    fn a_user_has_the_name_that_the_machine_knows() {
        assert_eq!(user(USERS, 0), "root (uid 0)");
        assert_eq!(user(USERS, 1000), "ops (uid 1000)");
        assert_eq!(user(USERS, 100), "uid 100");
        assert_eq!(user("", 0), "uid 0");
    }

    #[tokio::test]
    async fn a_client_is_who_the_kernel_says() {
        let (one, _other) = UnixStream::pair().unwrap();
        let client = Client::of(&one).unwrap();
        assert_eq!(client.uid, nix::unistd::geteuid().as_raw());
        let text = Requester::Client(client).to_string();
        assert!(
            text.contains(&format!("uid {}", nix::unistd::geteuid())),
            "{text}"
        );
    }
}
