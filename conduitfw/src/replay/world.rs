//! Interfaces for frames that come in nowhere: `BPF_PROG_TEST_RUN` takes only those that exist.

use std::io;

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

use super::ReplayError;
use crate::dataplane::rtnetlink::add_link;

/// Loopback is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
/// Kinds of interfaces that can be made from nothing; not every kernel has all.
const KINDS: [&str; 3] = ["dummy", "veth", "bridge"];

/// Moves this thread into a network namespace of its own, with `count` interfaces, loopback the
/// first. They are gone with the thread. Returns their indexes.
pub(super) fn interfaces(count: usize) -> Result<Vec<u32>, ReplayError> {
    let world = |action| move |source| ReplayError::World { action, source };
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(world("a network namespace cannot be made"))?;
    let mut indexes = vec![LOOPBACK];
    let mut kinds = KINDS.iter();
    let mut kind = kinds.next();
    while indexes.len() < count {
        let name = format!("cfw-{}", indexes.len());
        match kind.map_or(Ok(()), |kind| add_link(&name, kind)) {
            Ok(()) => {}
            Err(error) => {
                kind = kinds.next();
                if kind.is_some() {
                    continue;
                }
                return Err(world("an interface cannot be made")(error));
            }
        }
        let index = if_nametoindex(name.as_str()).map_err(io::Error::from);
        indexes.push(index.map_err(world("an interface cannot be found"))?);
    }
    Ok(indexes)
}
