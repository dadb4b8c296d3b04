//! Who had a policy put in force: for the log, the events and `status`.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tokio::net::UnixStream;

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
    /// A user, at the other end of the control socket.
    User(User),
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("the start of the controller"),
            Self::Hangup => f.write_str("SIGHUP"),
            Self::Watch => f.write_str("the watched file"),
            Self::User(user) => user.fmt(f),
        }
    }
}

/// A user of the machine, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(String);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the kernel says of the process at the other end of the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    uid: u32,
    /// The user that logged in and became this one, with `sudo` say; nothing where that is not known.
    login: Option<u32>,
}

impl Peer {
    /// The peer of a connection.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let login = peer.pid().and_then(|process| login_of(process, peer.uid()));
        Ok(Self {
            uid: peer.uid(),
            login,
        })
    }

    /// Who that is. The names are those of the machine's own file alone: a directory service may be what is out of
    /// order.
    #[must_use]
    pub fn user(&self) -> User {
        let users = fs::read(Path::new("/etc/passwd")).unwrap_or_default();
        let users = String::from_utf8_lossy(&users);
        let user = name(&users, self.uid);
        User(match self.login {
            Some(login) => format!("{user}, logged in as {}", name(&users, login)),
            None => user,
        })
    }
}

/// The user that logged in, from whom a process of this user descends.
fn login_of(process: i32, uid: u32) -> Option<u32> {
    let directory = PathBuf::from(format!("/proc/{process}"));
    let text = fs::read_to_string(directory.join("loginuid")).ok()?;
    // The process may have ended, and its number be another's: not one of another user, at least.
    let is_theirs = fs::metadata(&directory).is_ok_and(|about| about.uid() == uid);
    let login: u32 = text.trim().parse().ok()?;
    (is_theirs && login != NOBODY_LOGGED_IN && login != uid).then_some(login)
}

/// A user's name and number, by a text as `/etc/passwd` holds it (passwd(5)).
fn name(users: &str, uid: u32) -> String {
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
        assert_eq!(name(USERS, 0), "root (uid 0)");
        assert_eq!(name(USERS, 1000), "ops (uid 1000)");
        assert_eq!(name(USERS, 100), "uid 100");
        assert_eq!(name("", 0), "uid 0");
    }

    #[tokio::test]
    async fn a_peer_is_who_the_kernel_says() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        let own = nix::unistd::geteuid().as_raw();
        assert_eq!(peer.uid, own);
        let words = Requester::User(peer.user()).to_string();
        assert!(words.contains(&format!("uid {own}")), "{words}");
    }

    #[test]
    fn a_process_of_another_user_says_nothing_about_this_one() {
        let process = i32::try_from(std::process::id()).unwrap();
        let own = nix::unistd::geteuid().as_raw();
        assert_eq!(login_of(process, own.wrapping_add(1)), None);
        assert_eq!(login_of(i32::MAX, own), None);
    }
}
