//! VLAN interfaces: the kernel's, or where it knows none, a veth pair and a program that tags.

use anyhow::{Context, Result};

use super::{Host, Program};

/// Adds an interface to `host` for frames with these tags on `trunk`, an interface of `owner`.
/// Its name, and the program that tags if one is needed.
pub(super) fn add(
    owner: &Host,
    trunk: &str,
    ids: &[u16],
    host: &Host,
) -> Result<(String, Option<Program>)> {
    let mut parent = trunk.to_owned();
    for (depth, id) in ids.iter().enumerate() {
        let name = format!("{parent}.{id}");
        // Zones may share their outer tag.
        if owner.run(&format!("ip link show {name}")).is_err() {
            let protocol = protocol(depth, ids);
            let added = owner.run(&format!(
                "ip link add link {parent} name {name} type vlan protocol {protocol} id {id}"
            ));
            match added {
                Err(error) if error.to_string().contains("Unknown device type") => {
                    return add_in_user_space(owner, trunk, ids, host);
                }
                added => added?,
            };
            owner.run(&format!("ip link set {name} up"))?;
        }
        parent = name;
    }
    if owner != host {
        owner.run(&format!("ip link set {parent} netns {}", host.namespace()))?;
        host.run(&format!("ip link set {parent} up"))?;
    }
    Ok((parent, None))
}

fn protocol(depth: usize, ids: &[u16]) -> &'static str {
    if depth + 1 == ids.len() {
        "802.1Q"
    } else {
        "802.1ad"
    }
}

fn add_in_user_space(
    owner: &Host,
    trunk: &str,
    ids: &[u16],
    host: &Host,
) -> Result<(String, Option<Program>)> {
    let id = ids.last().context("no VLAN id")?;
    let (name, access) = (format!("vlan{id}"), format!("access{id}"));
    let there = host.namespace();
    owner.run(&format!(
        "ip link add {access} type veth peer name {name} netns {there}"
    ))?;
    for (end, interface) in [(owner, &access), (host, &name)] {
        // The program cannot finish checksums.
        end.run(&format!("ethtool -K {interface} tx off"))?;
        end.run(&format!("ip link set {interface} up"))?;
    }
    owner.run(&format!("ethtool -K {trunk} tx off"))?;
    // The access interface is a plug, no address of the host.
    owner.run(&format!("sysctl -qw net.ipv6.conf.{access}.disable_ipv6=1"))?;
    let mut command = owner.command("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/tagger.py"));
    command.args([trunk, access.as_str()]);
    for (depth, id) in ids.iter().enumerate() {
        let tpid = if protocol(depth, ids) == "802.1Q" {
            "8100"
        } else {
            "88a8"
        };
        command.arg(format!("{tpid}:{id}"));
    }
    let program = Program::start(&mut command)?;
    Ok((name, Some(program)))
}
