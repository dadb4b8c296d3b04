//! The program on the interfaces of the policy: those that are there, and those that come and go.

use std::collections::{BTreeMap, BTreeSet};

use aya::programs::Xdp;
use aya_obj::programs::xdp::XdpAttachType;
use conduitfw_common::table::InterfaceKey;
use nix::net::if_::if_indextoname;

use super::{
    super::{
        DataPlaneError, attach,
        load::{self, PROGRAM, program},
        maps::Plain,
        mtu::LARGEST_MTU,
        offload::keep_vlan_tags,
        rtnetlink,
    },
    DataPlane, Program,
};
use crate::policy::CompiledTables;

/// What [`DataPlane::follow_interfaces`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceChange {
    /// An interface of the policy came, and is guarded.
    Guarded(String),
    /// An interface of the policy went away.
    Gone(String),
    /// An interface of the policy came, and cannot be guarded.
    Unguarded(String, String),
    /// The MTU of an interface is one whose frames its driver may lose.
    TooLarge(String, u32),
    /// It is not any more.
    Fits(String, u32),
}

impl DataPlane {
    /// Attaches to interfaces that carry no program of this controller; returns the new links.
    pub(super) fn attach_all(
        &mut self,
        indexes: &BTreeMap<String, u32>,
    ) -> Result<Vec<String>, DataPlaneError> {
        let mut attached = Vec::new();
        for (interface, ifindex) in indexes {
            let is_pinned = self.pins.link(interface).exists();
            if is_pinned && self.guarded.get(interface) == Some(ifindex) {
                continue;
            }
            match self.guard(interface, *ifindex) {
                Ok(true) => attached.push(interface.clone()),
                Ok(false) => {}
                Err(error) => {
                    self.undo(&attached);
                    return Err(error);
                }
            }
        }
        if let Err(error) = self.pin_program() {
            self.undo(&attached);
            return Err(error);
        }
        Ok(attached)
    }

    /// Puts the program on one interface: through its pinned link, or a new one (true).
    fn guard(&mut self, interface: &str, ifindex: u32) -> Result<bool, DataPlaneError> {
        let is_new = self.put_program_on(interface, ifindex)?;
        if attach::attached_program(ifindex)?.is_some_and(|found| found.native) {
            self.native.entry(interface.to_owned()).or_default();
        } else {
            self.native.remove(interface);
        }
        Ok(is_new)
    }

    fn put_program_on(&mut self, interface: &str, ifindex: u32) -> Result<bool, DataPlaneError> {
        let xdp = self.program.get()?;
        if self.pins.link(interface).exists() {
            if attach::replace(xdp, &self.pins, interface, ifindex)? {
                return Ok(false);
            }
            self.pins.remove_link(interface)?;
        }
        keep_vlan_tags(interface);
        attach::attach(xdp, &self.pins, interface, self.mode)?;
        Ok(true)
    }

    /// The links hold the program; the pin is there to be found by bpftool, and to forget what the
    /// program was loaded from.
    fn pin_program(&mut self) -> Result<(), DataPlaneError> {
        let Program::Loaded(ebpf) = &mut self.program else {
            return Ok(());
        };
        let path = self.pins.program();
        let pin_error = |reason: String| DataPlaneError::Pin {
            action: "pinning the program",
            path: path.display().to_string(),
            reason,
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(pin_error(error.to_string()));
            }
            _ => {}
        }
        program(ebpf, PROGRAM)?
            .pin(&path)
            .map_err(|error| pin_error(load::chain(&error)))?;
        let pinned = Xdp::from_pin(&path, XdpAttachType::Interface)
            .map_err(|error| pin_error(load::chain(&error)))?;
        self.program = Program::Pinned(Box::new(pinned));
        Ok(())
    }

    pub(super) fn undo(&self, attached: &[String]) {
        for interface in attached {
            if let Err(error) = self.pins.remove_link(interface) {
                tracing::error!(interface, "cannot be detached again: {error}");
            }
        }
        if let Some(change_over) = &self.change_over
            && let Err(error) = change_over.hand_back(&self.pins)
        {
            tracing::error!("the earlier program cannot be put back everywhere: {error}");
        }
    }

    /// Lets go of an earlier data plane whose place this one has.
    pub(super) fn let_earlier_go(&mut self) {
        let Some(change_over) = self.change_over.take() else {
            return;
        };
        let is_wanted = |name: &str| self.rows.iter().any(|row| row.0 == name);
        if let Err(error) = change_over.finish(&self.pins, is_wanted) {
            tracing::error!("the earlier tables cannot be removed: {error}");
        }
    }

    /// Takes the program off interfaces that the policy no longer names.
    pub(super) fn let_go(&self) {
        let keep: BTreeSet<&str> = self.rows.iter().map(|row| row.0.as_str()).collect();
        let linked = self.pins.linked_interfaces().unwrap_or_default();
        for interface in linked
            .into_iter()
            .filter(|name| !keep.contains(name.as_str()))
        {
            match self.pins.remove_link(&interface) {
                Ok(()) => tracing::warn!(
                    interface,
                    "no longer in the policy: the program is taken off, nothing is filtered there"
                ),
                Err(error) => tracing::error!(interface, "cannot be let go: {error}"),
            }
        }
    }

    /// Guards interfaces of the policy that came since the last call.
    pub fn follow_interfaces(&mut self) -> Vec<InterfaceChange> {
        let names: BTreeSet<String> = self.rows.iter().map(|row| row.0.clone()).collect();
        let mut changes = Vec::new();
        for name in names {
            let now = attach::interface_index(&name);
            let before = self.guarded.get(&name).copied();
            if now == before {
                continue;
            }
            if let Some(gone) = before {
                self.forget_rows(&name, gone);
            }
            match now {
                None => {
                    self.guarded.remove(&name);
                    changes.push(InterfaceChange::Gone(name));
                }
                Some(ifindex) => match self.welcome(&name, ifindex) {
                    Ok(()) => {
                        self.refused.remove(&name);
                        self.guarded.insert(name.clone(), ifindex);
                        changes.push(InterfaceChange::Guarded(name));
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        // Said once, tried every time.
                        if self.refused.insert(name.clone(), reason.clone()).as_ref()
                            != Some(&reason)
                        {
                            changes.push(InterfaceChange::Unguarded(name, reason));
                        }
                    }
                },
            }
        }
        if let Err(error) = self.follow_ports() {
            tracing::error!("the ports cannot be followed: {error}");
        }
        self.follow_mtus(&mut changes);
        changes
    }

    /// Notices interfaces whose frames do not fit one buffer; each is told once.
    fn follow_mtus(&mut self, changes: &mut Vec<InterfaceChange>) {
        for (name, warned) in &mut self.native {
            let ifindex = self.guarded.get(name).copied();
            let mtu = ifindex.and_then(|ifindex| rtnetlink::mtu(ifindex).ok()?);
            let Some(mtu) = mtu else {
                continue;
            };
            let found = (mtu > LARGEST_MTU).then_some(mtu);
            if *warned == found {
                continue;
            }
            *warned = found;
            changes.push(match found {
                Some(mtu) => InterfaceChange::TooLarge(name.clone(), mtu),
                None => InterfaceChange::Fits(name.clone(), mtu),
            });
        }
    }

    /// Attaches to an interface, and adds it to the slot in force: until then, and if there is no room for
    /// it, its frames are denied.
    fn welcome(&mut self, name: &str, ifindex: u32) -> Result<(), DataPlaneError> {
        if self.pins.link(name).exists() {
            // The link of the interface that is gone; a link to this one replaces it.
            self.pins.remove_link(name)?;
        }
        self.guard(name, ifindex)?;
        let (slot, _) = self.maps.in_force()?;
        for (_, vlans, row) in self.rows.iter().filter(|row| row.0 == name) {
            let key = InterfaceKey {
                slot,
                ifindex,
                vlans: *vlans,
            };
            self.maps
                .interfaces
                .insert(Plain(key), Plain(*row), 0)
                .map_err(|source| DataPlaneError::Write {
                    what: "interfaces",
                    source,
                })?;
        }
        Ok(())
    }

    /// Takes the rows of an interface that is gone out of the slot in force: another one may get its index,
    /// and each time that one comes and goes there would be more of them. One that has another name now
    /// keeps them, and the plant its way.
    fn forget_rows(&mut self, name: &str, ifindex: u32) {
        if if_indextoname(ifindex).is_ok() {
            return;
        }
        let Ok((slot, _)) = self.maps.in_force() else {
            return;
        };
        for (_, vlans, _) in self.rows.iter().filter(|row| row.0 == name) {
            let key = InterfaceKey {
                slot,
                ifindex,
                vlans: *vlans,
            };
            if let Err(error) = self.maps.interfaces.remove(&Plain(key)) {
                tracing::debug!(interface = name, "its row was not there: {error}");
            }
        }
    }

    /// Whether an interface has been guarded before, be it by an earlier data plane.
    fn has_link(&self, name: &str) -> bool {
        let change_over = self.change_over.as_ref();
        self.pins.link(name).exists() || change_over.is_some_and(|earlier| earlier.has(name))
    }

    /// The interfaces of a policy that are there. One that was guarded before may be missing: a
    /// broken network card must not keep anybody from changing the policy.
    pub(super) fn interface_indexes(
        &self,
        tables: &CompiledTables,
    ) -> Result<BTreeMap<String, u32>, DataPlaneError> {
        let mut indexes = BTreeMap::new();
        for (name, _, _) in &tables.interfaces {
            match attach::interface_index(name) {
                Some(ifindex) => {
                    indexes.insert(name.clone(), ifindex);
                }
                None if self.has_link(name) => {
                    tracing::warn!(
                        interface = name,
                        "is missing; it is guarded again when it comes"
                    );
                }
                None => return Err(DataPlaneError::NoInterface(name.clone())),
            }
        }
        Ok(indexes)
    }
}
