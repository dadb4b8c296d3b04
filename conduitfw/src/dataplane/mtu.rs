//! Frames that are larger than one buffer of a driver.
//!
//! The program reads frames in one piece. In native mode a driver gives it one buffer of a page, less
//! some room; in generic mode the kernel makes a frame whole first, whatever its size.

use super::{attach::interface_index, rtnetlink};

/// The largest MTU whose frames fit a page of 4 KiB beside what drivers put there: 256 bytes of
/// headroom, 320 of `struct skb_shared_info`, the Ethernet header and two VLAN tags.
pub const LARGEST_MTU: u32 = 4096 - 256 - 320 - 14 - 8;

/// The MTU of an interface.
pub(crate) fn mtu_of(interface: &str) -> Option<u32> {
    rtnetlink::mtu(interface_index(interface)?).ok()?
}

/// Why the program is not on an interface in native mode, as far as frames are too large there.
pub(super) fn too_large(interface: &str, is_out_of_range: bool) -> Option<String> {
    let mtu = mtu_of(interface)?;
    let limit = format!(
        "in native mode each frame must fit one buffer of the driver, which an MTU of \
         {LARGEST_MTU} does"
    );
    if mtu > LARGEST_MTU {
        return Some(format!("its MTU is {mtu}, and {limit}"));
    }
    // Of a veth the driver asks what its other end may send (ERANGE).
    is_out_of_range
        .then(|| format!("its other end has a larger MTU than its own {mtu}, and {limit}"))
}

/// What is said of an interface in native mode whose MTU is too large.
#[must_use]
pub fn may_be_lost(mtu: u32) -> String {
    format!(
        "its MTU is {mtu}: frames that come in and do not fit one buffer of its driver (an MTU above \
         {LARGEST_MTU}) are lost before they are judged or counted; lower the MTU, or run `conduitfw \
         detach` and start again with --mode generic (nothing is filtered in between)"
    )
}
