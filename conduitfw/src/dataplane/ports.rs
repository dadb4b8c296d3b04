//! The rows of `PORTS` and `TAGGED`: by which devices frames may leave without the kernel's
//! forwarding, and what stands in the way of it, in words.

use std::collections::{BTreeMap, BTreeSet};

use conduitfw_common::{
    forward::{MAX_PORTS, Port, port_flag},
    table::InterfaceKey,
};

use super::{
    DataPlaneError,
    links::{Link, links, takes_frames},
    maps::{Maps, Plain},
};
use crate::policy::CompiledTables;

/// What a policy says about ports.
#[derive(Clone, Debug, Default)]
pub(super) struct PortPlan {
    /// Whether frames are forwarded fast.
    pub(super) is_fast: bool,
    /// Ports of a bridge, and what of the link they pass on.
    pub(super) bridges: Vec<([String; 2], u32)>,
}

impl PortPlan {
    /// Whether anything is made of ports at all.
    pub(super) fn is_of_use(&self) -> bool {
        self.is_fast || !self.bridges.is_empty()
    }

    pub(super) fn of(tables: &CompiledTables) -> Self {
        Self {
            is_fast: tables.generation.forwarding != 0,
            bridges: tables.bridges.clone(),
        }
    }
}

/// The rows of a slot, and what there is to say about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    rows: BTreeMap<u32, Port>,
    /// VLAN devices by interface and tags.
    tagged: BTreeMap<(u32, u32), u32>,
    /// Every driver said whether it takes frames.
    is_sure: bool,
    /// By interface: why frames do not leave by it, or not as they might.
    pub(super) remarks: BTreeMap<String, String>,
}

/// Looks at the machine as it is now.
pub(super) fn survey(
    plan: &PortPlan,
    indexes: &BTreeMap<String, u32>,
) -> Result<Ports, DataPlaneError> {
    let links = links().map_err(|source| DataPlaneError::System {
        action: "asking the kernel for its interfaces",
        source,
    })?;
    let ifindexes: Vec<u32> = indexes.values().copied().collect();
    let answers = takes_frames(&ifindexes);
    let answers = ifindexes.into_iter().zip(answers).collect();
    Ok(arrange(plan, indexes, &links, &answers))
}

/// Writes the rows of a slot over whatever stands there.
pub(super) fn write(maps: &mut Maps, slot: u32, ports: &Ports) -> Result<(), DataPlaneError> {
    let write = |what| move |source| DataPlaneError::Write { what, source };
    let keys = maps.tagged.keys().collect::<Result<Vec<_>, _>>()?;
    let stale = keys.iter().filter(|key| {
        key.0.slot == slot && !ports.tagged.contains_key(&(key.0.ifindex, key.0.vlans))
    });
    for key in stale {
        maps.tagged.remove(key).map_err(write("tagged devices"))?;
    }
    for ((ifindex, vlans), device) in &ports.tagged {
        let key = InterfaceKey {
            slot,
            ifindex: *ifindex,
            vlans: *vlans,
        };
        maps.tagged
            .insert(Plain(key), *device, 0)
            .map_err(write("tagged devices"))?;
    }
    let first = slot * MAX_PORTS;
    for (row, there) in (0..).zip(maps.ports.run(first, MAX_PORTS)?) {
        let port = ports.rows.get(&row).copied().unwrap_or_default();
        // Most rows are free, and all are read at once.
        if there != port {
            let written = maps.ports.set(first + row, Plain(port), 0);
            written.map_err(write("ports"))?;
        }
    }
    Ok(())
}

/// Writes what changed since the last look. What a port refused in the meantime is tried again only if
/// its driver says that it takes frames.
pub(super) fn follow(
    maps: &mut Maps,
    slot: u32,
    before: &Ports,
    now: &Ports,
) -> Result<(), DataPlaneError> {
    if before != now {
        return write(maps, slot, now);
    }
    for (row, port) in now.rows.iter().filter(|_| now.is_sure) {
        let index = slot * MAX_PORTS + row;
        if maps.ports.get(&index, 0)?.0 != *port {
            let written = maps.ports.set(index, Plain(*port), 0);
            written.map_err(|source| DataPlaneError::Write {
                what: "ports",
                source,
            })?;
        }
    }
    Ok(())
}

fn arrange(
    plan: &PortPlan,
    indexes: &BTreeMap<String, u32>,
    links: &[Link],
    answers: &BTreeMap<u32, Option<bool>>,
) -> Ports {
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.ifindex, link)).collect();
    let mut ports = Ports {
        is_sure: answers.values().all(Option::is_some),
        ..Ports::default()
    };
    for (name, ifindex) in indexes {
        let Some(link) = by_index.get(ifindex) else {
            continue;
        };
        let takes = answers.get(ifindex).copied().flatten() != Some(false);
        if plan.is_fast && !takes {
            let remark = "takes no frames from XDP programs, so the kernel forwards what leaves by \
                          it: its driver needs ndo_xdp_xmit (a veth: `ethtool -K PEER gro on` at \
                          its other end)";
            ports.remarks.insert(name.clone(), remark.to_owned());
        }
        let port = Port {
            flags: u32::from(takes) * port_flag::TAKES,
            ..row(link, *ifindex, 0, 0)
        };
        ports.add(name, port, plan.is_fast);
    }
    for bridge in &plan.bridges {
        ports.join(bridge, indexes, &by_index, plan.is_fast);
    }
    for link in links {
        let Some((root, vlans, tag_types)) = tags(link, &by_index) else {
            continue;
        };
        let Some(below) = ports.find(root).filter(|port| port.device == root) else {
            continue;
        };
        let port = Port {
            flags: below.flags & port_flag::TAKES,
            ..row(link, root, vlans, tag_types)
        };
        if ports.add(&link.name, port, plan.is_fast) {
            ports.tagged.insert((root, vlans), link.ifindex);
        }
    }
    ports
}

fn row(link: &Link, port: u32, vlans: u32, tag_types: u32) -> Port {
    let (high, low) = halves(link.address);
    Port {
        device: link.ifindex,
        port,
        vlans,
        tag_types,
        mtu: link.mtu,
        address_high: high,
        address_low: low,
        ..Port::default()
    }
}

/// A hardware address as it is read from a frame: four bytes, and two.
fn halves(address: [u8; 6]) -> (u32, u32) {
    let whole = address
        .iter()
        .fold(0, |whole: u64, byte| whole << 8 | u64::from(*byte));
    let half = |bits: u64| u32::try_from(bits).unwrap_or(0);
    (half(whole >> 16), half(whole & 0xffff))
}

/// The interface below a VLAN, or below a VLAN of a VLAN, and the tags of its frames.
fn tags(link: &Link, by_index: &BTreeMap<u32, &Link>) -> Option<(u32, u32, u32)> {
    let vlan = link.vlan?;
    let (id, tag_type) = (u32::from(vlan.id), u32::from(vlan.tag_type));
    match by_index.get(&vlan.below)?.vlan {
        None => Some((vlan.below, id << 16, tag_type << 16)),
        Some(outer) if by_index.get(&outer.below)?.vlan.is_none() => Some((
            outer.below,
            u32::from(outer.id) << 16 | id,
            u32::from(outer.tag_type) << 16 | tag_type,
        )),
        Some(_) => None,
    }
}

impl Ports {
    fn find(&self, device: u32) -> Option<&Port> {
        self.rows.get(&(device % MAX_PORTS))
    }

    /// Adds a row; false when its place is taken.
    fn add(&mut self, name: &str, port: Port, is_fast: bool) -> bool {
        let place = port.device % MAX_PORTS;
        if self.rows.contains_key(&place) {
            if is_fast {
                let remark = "has no place among the ports, so the kernel forwards what leaves by \
                              it: another device has the same index modulo 1024";
                self.remarks.insert(name.to_owned(), remark.to_owned());
            }
            return false;
        }
        self.rows.insert(place, port);
        true
    }

    /// Makes two ports a bridge.
    fn join(
        &mut self,
        (names, flags): &([String; 2], u32),
        indexes: &BTreeMap<String, u32>,
        by_index: &BTreeMap<u32, &Link>,
        is_fast: bool,
    ) {
        let [one, other] = names;
        let (Some(&first), Some(&second)) = (indexes.get(one), indexes.get(other)) else {
            return;
        };
        let masters: BTreeSet<u32> = [first, second]
            .iter()
            .filter_map(|ifindex| by_index.get(ifindex))
            .map(|link| link.master)
            .collect();
        let linux_bridge = masters.first().filter(|_| masters.len() == 1);
        let is_alone = linux_bridge == Some(&0);
        let is_spanning = linux_bridge
            .and_then(|master| by_index.get(master))
            .is_some_and(|bridge| bridge.is_spanning_bridge);
        let remark = if is_alone && !is_fast {
            Some(
                "is in no Linux bridge, so frames go nowhere from it: `ip link set PORT master BRIDGE` for both ports, or forwarding = \"fast\"",
            )
        } else if masters.len() > 1 {
            Some("is not in the same Linux bridge as the other port of its pair")
        } else if is_spanning && is_fast {
            Some(
                "is in a Linux bridge that speaks the spanning tree protocol and may block it, so the kernel forwards what comes in: `ip link set BRIDGE type bridge stp_state 0`, and stp = \"forward\"",
            )
        } else {
            None
        };
        for (name, device, peer) in [(one, first, second), (other, second, first)] {
            if let Some(remark) = remark {
                self.remarks.insert(name.clone(), remark.to_owned());
            }
            let Some(port) = self.rows.get_mut(&(device % MAX_PORTS)) else {
                continue;
            };
            if port.device != device {
                continue;
            }
            port.peer = peer;
            port.flags |= flags;
            if is_alone {
                port.flags |= port_flag::ALONE;
            }
            if is_spanning || masters.len() > 1 {
                port.flags &= !port_flag::TAKES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::links::Vlan;

    fn link(ifindex: u32, name: &str) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            address: [2, 0, 0, 0, 0, 7],
            mtu: 1500,
            ..Link::default()
        }
    }

    fn vlan(ifindex: u32, name: &str, id: u16, tag_type: u16, below: u32) -> Link {
        let vlan = Vlan {
            id,
            tag_type,
            below,
        };
        Link {
            vlan: Some(vlan),
            ..link(ifindex, name)
        }
    }

    fn fast(links: &[Link], names: &[(&str, u32)], takers: &[(u32, Option<bool>)]) -> Ports {
        arranged(links, names, takers, &[])
    }

    fn arranged(
        links: &[Link],
        names: &[(&str, u32)],
        takers: &[(u32, Option<bool>)],
        bridges: &[([String; 2], u32)],
    ) -> Ports {
        let plan = PortPlan {
            is_fast: true,
            bridges: bridges.to_vec(),
        };
        let indexes = names
            .iter()
            .map(|(name, index)| ((*name).to_owned(), *index))
            .collect();
        arrange(&plan, &indexes, links, &takers.iter().copied().collect())
    }

    #[test]
    fn a_vlan_of_a_vlan_leaves_by_the_interface_below_with_both_tags() {
        let links = [
            link(2, "eth0"),
            vlan(5, "eth0.100", 100, 0x88a8, 2),
            vlan(6, "inner", 20, 0x8100, 5),
            vlan(8, "elsewhere", 20, 0x8100, 3),
        ];
        let ports = fast(&links, &[("eth0", 2)], &[(2, Some(true))]);
        let inner = ports.find(6).unwrap();
        assert_eq!((inner.port, inner.vlans), (2, 0x0064_0014));
        assert_eq!(inner.tag_types, 0x88a8_8100);
        assert_eq!(inner.flags, port_flag::TAKES);
        assert_eq!((inner.address_high, inner.address_low), (0x0200_0000, 7));
        assert_eq!(ports.tagged[&(2, 100 << 16)], 5);
        assert_eq!(ports.tagged[&(2, 0x0064_0014)], 6);
        assert!(ports.find(8).is_none() && ports.remarks.is_empty());
    }

    #[test]
    fn a_port_that_takes_no_frames_is_told_of_and_left_to_the_kernel() {
        let links = [link(2, "eth0"), link(3, "eth1"), vlan(4, "v", 9, 0x8100, 2)];
        let names = [("eth0", 2), ("eth1", 3)];
        let ports = fast(&links, &names, &[(2, Some(false)), (3, None)]);
        assert_eq!(ports.find(2).unwrap().flags, 0);
        assert_eq!(ports.find(4).unwrap().flags, 0);
        assert_eq!(ports.find(3).unwrap().flags, port_flag::TAKES);
        assert!(ports.remarks["eth0"].contains("ndo_xdp_xmit"));
        assert_eq!(ports.remarks.len(), 1);
    }

    #[test]
    fn devices_whose_rows_are_the_same_do_not_share_one() {
        let links = [link(2, "eth0"), link(2 + MAX_PORTS, "eth1")];
        let names = [("eth0", 2), ("eth1", 2 + MAX_PORTS)];
        let ports = fast(&links, &names, &[]);
        assert_eq!(ports.find(2).unwrap().device, 2);
        assert!(ports.remarks["eth1"].contains("modulo"));
    }

    #[test]
    fn the_ports_of_a_bridge_know_each_other_and_their_linux_bridge() {
        let pair = [(["eth0".to_owned(), "eth1".to_owned()], port_flag::STP)];
        let names = [("eth0", 2), ("eth1", 3)];
        let mut links = [link(2, "eth0"), link(3, "eth1"), link(9, "br0")];
        let alone = arranged(&links, &names, &[], &pair);
        let wanted = port_flag::TAKES | port_flag::ALONE | port_flag::STP;
        assert_eq!(alone.find(2).unwrap().flags, wanted);
        assert_eq!(
            (alone.find(2).unwrap().peer, alone.find(3).unwrap().peer),
            (3, 2)
        );
        links[0].master = 9;
        assert!(arranged(&links, &names, &[], &pair).remarks["eth1"].contains("same"));
        links[1].master = 9;
        let joined = arranged(&links, &names, &[], &pair);
        assert_eq!(
            joined.find(3).unwrap().flags,
            port_flag::TAKES | port_flag::STP
        );
        links[2].is_spanning_bridge = true;
        let spanning = arranged(&links, &names, &[], &pair);
        assert_eq!(spanning.find(3).unwrap().flags, port_flag::STP);
        assert!(spanning.remarks["eth0"].contains("stp_state"));
    }
}
