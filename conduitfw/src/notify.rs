//! Telling systemd how the service is (`sd_notify(3)`); silent where nobody asked.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net::SocketAddr, net::UnixDatagram},
    },
};

use nix::time::{ClockId, clock_gettime};

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The policy is in force.
    Ready,
    /// A new policy is being put in force; [`Notice::Ready`] follows.
    Reloading,
    /// The controller ends; enforcement does not.
    Stopping,
}

/// Tells it. Nothing depends on anybody hearing it.
pub fn notify(notice: Notice, status: &str) {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&address, &message(notice, status)) {
        tracing::debug!("systemd was not told {notice:?}: {error}");
    }
}

fn message(notice: Notice, status: &str) -> String {
    let state = match notice {
        Notice::Ready => "READY=1".to_owned(),
        Notice::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()),
        Notice::Stopping => "STOPPING=1".to_owned(),
    };
    format!("{state}\nSTATUS={}", status.replace('\n', " "))
}

fn monotonic_us() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000)
}

fn send(address: &OsStr, message: &str) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(message.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_heard_on_an_abstract_socket() {
        let name = format!("conduitfw-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        let text = message(Notice::Ready, "generation 1\nis in force");
        send(OsStr::new(&format!("@{name}")), &text).unwrap();
        let mut heard = [0; 100];
        let length = systemd.recv(&mut heard).unwrap();
        assert_eq!(
            &heard[..length],
            b"READY=1\nSTATUS=generation 1 is in force"
        );
    }
}
