//! What the kernel says of a host's interfaces.

use anyhow::{Context, Result};
use conduitfw_tests::lab::Host;

/// The index of an interface.
pub(crate) fn ifindex(host: &Host, interface: &str) -> Result<u32> {
    let text = host.run(&format!("ip -o link show dev {interface}"))?;
    let number = text.split(':').next().unwrap_or_default();
    number.trim().parse().context("no interface index")
}

/// Its hardware address, as text.
pub(crate) fn mac(host: &Host, interface: &str) -> Result<String> {
    let text = host.run(&format!("ip -o link show dev {interface}"))?;
    word_after(&text, "link/ether")
}

/// Its hardware address.
pub(crate) fn mac_bytes(host: &Host, interface: &str) -> Result<[u8; 6]> {
    let text = mac(host, interface)?;
    let mut bytes = [0; 6];
    for (byte, text) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(text, 16)?;
    }
    Ok(bytes)
}

/// Its IPv4 address, with the length of its network.
pub(crate) fn address(host: &Host, interface: &str) -> Result<String> {
    let text = host.run(&format!("ip -o -4 address show dev {interface}"))?;
    word_after(&text, "inet")
}

fn word_after(text: &str, word: &str) -> Result<String> {
    let mut words = text.split_whitespace();
    words
        .find(|found| *found == word)
        .and_then(|_| words.next())
        .map(str::to_owned)
        .with_context(|| format!("no {word} in `{}`", text.trim()))
}
