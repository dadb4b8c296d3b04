//! Putting a compiled policy in force: write the other slot, check it, flip.

mod interfaces;

use std::{collections::BTreeMap, time::Duration};

use aya::{Ebpf, programs::Xdp};
use conduitfw_common::table::Interface;

pub use interfaces::InterfaceChange;

use super::{
    AttachMode, DataPlaneError, Pins, TableSizes,
    change_over::ChangeOver,
    grace::{Grace, wait_for_frames_in_flight},
    load::{self, PROGRAM, check_sizes, program},
    maps::{Maps, put_in_force},
    ports::{self, PortPlan, Ports},
    refusals,
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
    /// one write flips the slot. Interfaces that the policy no longer names are let go last. The first
    /// policy of new tables is in force before anything is attached.
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
        // Nothing is in force in new tables, which deny everything: no frame is to meet that.
        let is_first = self.maps.in_force()?.1.number == 0 || self.change_over.is_some();
        let attached = if is_first {
            Vec::new()
        } else {
            self.attach_all(&indexes)?
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
            let xdp = self.program.get()?;
            if let Err(error) = change_over.hand_over(xdp, &self.pins, indexes.keys()) {
                self.undo(&[]);
                return Err(error);
            }
        }
        if is_first {
            self.attach_all(&indexes)?;
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

    /// Removes what a first start pinned, when it cannot go on.
    pub fn abandon(self) {
        if !self.took_over {
            load::forget(&self.pins, self.change_over);
        }
    }
}
