//! Putting a compiled policy in force: write the other slot, check it, flip.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aya::{Ebpf, programs::Xdp};
use aya_obj::programs::xdp::XdpAttachType;
use conduitfw_common::table::{Interface, InterfaceKey};

use super::{
    AttachMode, DataPlaneError, Pins, TableSizes, attach,
    change_over::ChangeOver,
    grace::{Grace, wait_for_frames_in_flight},
    load::{self, PROGRAM, check_sizes, program},
    maps::{Maps, Plain, put_in_force},
    mtu::LARGEST_MTU,
    offload::keep_vlan_tags,
    ports::{self, PortPlan, Ports},
    refusals, rtnetlink,
    slot::{verify_slot, write_slot},
};
use crate::{instance::Instance, policy::CompiledTables};

/// A loaded data plane, the policy in force in it, and the interfaces that it guards.
pub struct DataPlane {
    program: Program,
    maps: Maps,
    pins: Pins,
    mode: AttachMode,
    ticks_per_second: u32,
    took_over: bool,
    /// An earlier data plane that has links yet.
    change_over: Option<ChangeOver>,
    /// Interfaces whose pinned link carries this controller's program, with the index it has.
    guarded: BTreeMap<String, u32>,
    /// Interfaces that a driver gives frames of, and the MTU that they were last warned of.
    native: BTreeMap<String, Option<u32>>,
    /// Why interfaces that came could not be guarded.
    refused: BTreeMap<String, String>,
    /// Rows of `INTERFACES` of the policy in force, for interfaces that come back.
    rows: Vec<InterfaceRow>,
    /// What the policy in force says about ports, and what was made of it.
    port_plan: PortPlan,
    ports: Ports,
    /// Since the slot that is not in force was.
    grace: Option<Grace>,
}

/// The program that decides frames.
enum Program {
    /// With all that it was loaded from, several megabytes.
    Loaded(Box<Ebpf>),
    /// By its pin.
    Pinned(Box<Xdp>),
}

impl Program {
    fn get(&mut self) -> Result<&mut Xdp, DataPlaneError> {
        match self {
            Self::Loaded(ebpf) => program(ebpf, PROGRAM),
            Self::Pinned(xdp) => Ok(xdp),
        }
    }
}

type InterfaceRow = (String, u32, Interface);

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
    /// Loads the programs, taking over maps that an earlier controller left. Connections that are
    /// open already are picked up for the time `adopt`, unless there was an earlier controller. Tables of
    /// another version or of other sizes are replaced if this `may_change_over`.
    ///
    /// # Errors
    ///
    /// One sentence with the remedy; what this call pinned is gone again.
    pub fn open(
        instance: &Instance,
        sizes: TableSizes,
        adopt: Duration,
        mode: AttachMode,
        may_change_over: bool,
    ) -> Result<Self, DataPlaneError> {
        let pins = Pins::of(instance);
        let mut loaded = load::load(&pins, &instance.bpffs, sizes, adopt, may_change_over)?;
        refusals::watch(&mut loaded.ebpf, &pins);
        Ok(Self {
            program: Program::Loaded(Box::new(loaded.ebpf)),
            maps: loaded.maps,
            pins,
            mode,
            ticks_per_second: loaded.ticks_per_second,
            took_over: loaded.took_over,
            change_over: loaded.change_over,
            guarded: BTreeMap::new(),
            native: BTreeMap::new(),
            refused: BTreeMap::new(),
            rows: Vec::new(),
            port_plan: PortPlan::default(),
            ports: Ports::default(),
            grace: None,
        })
    }

    /// The maps.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The maps, to write names.
    pub fn maps_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// The pins.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The kernel's HZ.
    #[must_use]
    pub fn ticks_per_second(&self) -> u32 {
        self.ticks_per_second
    }

    /// Whether it is to take the place of a data plane whose tables do not fit.
    #[must_use]
    pub fn changes_over(&self) -> bool {
        self.change_over.is_some()
    }

    /// Whether an earlier controller's maps are in use.
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// The number that the next policy in force gets.
    ///
    /// # Errors
    ///
    /// The maps cannot be read.
    pub fn next_generation(&self) -> Result<u32, DataPlaneError> {
        Ok(self.maps.in_force()?.1.number.wrapping_add(1).max(1))
    }

    /// Whether a policy's limits are those of the tables in the kernel.
    ///
    /// # Errors
    ///
    /// They are not, or the maps cannot be read.
    pub fn check_sizes(&self, sizes: TableSizes) -> Result<(), DataPlaneError> {
        check_sizes(&self.maps, sizes)
    }

    /// Puts a policy in force on every interface at once, or changes nothing.
    ///
    /// The maps are written first, then new interfaces are attached (frames that arrive there
    /// before the flip meet the old policy, which knows no such interface and denies them), then
    /// one write flips the slot. Interfaces that the policy no longer names are let go last.
    ///
    /// # Errors
    ///
    /// A row that cannot be written, an interface that cannot be attached: the policy in force
    /// stays, and interfaces attached by this call are detached again.
    pub fn put_in_force(&mut self, tables: &CompiledTables) -> Result<(), DataPlaneError> {
        let slot = 1 - self.maps.in_force()?.0;
        let indexes = self.interface_indexes(tables)?;
        match self.grace.take() {
            Some(grace) => grace.finish(),
            None => wait_for_frames_in_flight(),
        }
        write_slot(&mut self.maps, slot, tables, &indexes)?;
        verify_slot(&self.maps, slot, tables, &indexes)?;
        // An earlier data plane filters until the policy is in force in this one.
        let attached = if self.change_over.is_none() {
            self.attach_all(&indexes)?
        } else {
            Vec::new()
        };
        let port_plan = PortPlan::of(tables);
        let flipped = self.write_ports(slot, &port_plan, &indexes).and_then(|()| {
            let settings = self.maps.settings.get(&0, 0)?.0;
            let active = &mut self.maps.active;
            let flip = put_in_force(active, settings, slot, &tables.generation);
            flip.map_err(|source| DataPlaneError::Write {
                what: "the active slot",
                source,
            })
        });
        if let Err(error) = flipped {
            self.undo(&attached);
            return Err(error);
        }

        if let Some(change_over) = &self.change_over {
            let handed_over =
                change_over.hand_over(self.program.get()?, &self.pins, indexes.keys());
            if let Err(error) = handed_over.and_then(|()| self.attach_all(&indexes).map(drop)) {
                self.undo(&[]);
                return Err(error);
            }
        }
        self.grace = Grace::begin();
        self.rows.clone_from(&tables.interfaces);
        self.port_plan = port_plan;
        self.let_go();
        self.let_earlier_go();
        self.guarded = indexes;
        Ok(())
    }

    /// Writes the ports of a slot as the machine has them now.
    fn write_ports(
        &mut self,
        slot: u32,
        plan: &PortPlan,
        indexes: &BTreeMap<String, u32>,
    ) -> Result<(), DataPlaneError> {
        let ports = Self::survey_ports(plan, indexes);
        ports::write(&mut self.maps, slot, &ports)?;
        self.remark_on(ports);
        Ok(())
    }

    /// Follows what changed about the ports: addresses, VLANs, bridges, drivers.
    fn follow_ports(&mut self) -> Result<(), DataPlaneError> {
        if !self.port_plan.is_of_use() {
            return Ok(());
        }
        let slot = self.maps.in_force()?.0;
        let ports = Self::survey_ports(&self.port_plan, &self.guarded);
        ports::follow(&mut self.maps, slot, &self.ports, &ports)?;
        self.remark_on(ports);
        Ok(())
    }

    fn survey_ports(plan: &PortPlan, indexes: &BTreeMap<String, u32>) -> Ports {
        if !plan.is_of_use() {
            return Ports::default();
        }
        ports::survey(plan, indexes).unwrap_or_else(|error| {
            // Forwarding is the kernel's then, and the policy comes into force all the same.
            tracing::error!("no frame is forwarded fast: {error}");
            Ports::default()
        })
    }

    /// Tells what is new about the ports, and keeps them.
    fn remark_on(&mut self, ports: Ports) {
        for (interface, remark) in &ports.remarks {
            if self.ports.remarks.get(interface) != Some(remark) {
                tracing::warn!(interface, "{remark}");
            }
        }
        self.ports = ports;
    }

    /// Attaches to interfaces that carry no program of this controller; returns the new links.
    fn attach_all(
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

    fn undo(&self, attached: &[String]) {
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
    fn let_earlier_go(&mut self) {
        let Some(change_over) = self.change_over.take() else {
            return;
        };
        let is_wanted = |name: &str| self.rows.iter().any(|row| row.0 == name);
        if let Err(error) = change_over.finish(&self.pins, is_wanted) {
            tracing::error!("the earlier tables cannot be removed: {error}");
        }
    }

    /// Takes the program off interfaces that the policy no longer names.
    fn let_go(&self) {
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

    /// Removes what a first start pinned, when it cannot go on.
    pub fn abandon(self) {
        if !self.took_over {
            load::forget(&self.pins, self.change_over);
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

    /// Adds an interface to the slot in force and attaches to it.
    fn welcome(&mut self, name: &str, ifindex: u32) -> Result<(), DataPlaneError> {
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
        if self.pins.link(name).exists() {
            // The link of the interface that is gone; a link to this one replaces it.
            self.pins.remove_link(name)?;
        }
        self.guard(name, ifindex).map(drop)
    }

    /// Whether an interface has been guarded before, be it by an earlier data plane.
    fn has_link(&self, name: &str) -> bool {
        let change_over = self.change_over.as_ref();
        self.pins.link(name).exists() || change_over.is_some_and(|earlier| earlier.has(name))
    }

    /// The interfaces of a policy that are there. One that was guarded before may be missing: a
    /// broken network card must not keep anybody from changing the policy.
    fn interface_indexes(
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
