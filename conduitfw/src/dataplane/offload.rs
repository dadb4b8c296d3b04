//! VLAN tags that the driver would take away before XDP sees the frame.

use std::process::{Command, Stdio};

/// Keeps VLAN tags in the frames of an interface, or says why they may be missing.
///
/// A driver with receive offload moves the tag out of the frame before XDP sees it, so that a
/// tagged frame looks untagged: zones with `vlans` would never match, and zones without would take
/// what is not theirs.
pub(super) fn keep_vlan_tags(interface: &str) {
    let outcome = Command::new("ethtool")
        .args(["-K", interface, "rxvlan", "off"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let reason = match outcome {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("ethtool cannot be run: {error}"),
    };
    tracing::warn!(
        interface,
        reason,
        "VLAN receive offload could not be turned off; if the driver strips tags, tagged frames \
         look untagged here: install ethtool, or use a network card that lets it be turned off"
    );
}
