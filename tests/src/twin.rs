//! The kernel's program and the simulator side by side: the same frames through both, one by one,
//! at the same times, under the same policy; whatever differs is an error.
//!
//! The program is loaded with `TRACING` set, neither pinned nor attached. Frames given to it come
//! in on the loopback interface, so every zone of the policy is there; tags tell zones apart where
//! that matters.

mod compare;
mod kernel;

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use conduitfw::dataplane::TableSizes;
use conduitfw::dataplane::rings::EventRoom;
use conduitfw::policy::{CompiledTables, Ids, Surroundings, compile, load_text};
use conduitfw::simulator::{Judged, Simulator};
use conduitfw_common::flow::key::WAYS;
use conduitfw_common::table::Settings;

use kernel::Kernel;

/// An Ethernet header: the kernel runs no program on a shorter frame.
pub const SHORTEST: usize = 14;
/// What fits in one page with the room that XDP keeps free.
pub const LONGEST: usize = 3500;
/// The loopback interface, in every network namespace.
pub const LOOPBACK: u32 = 1;
/// Ticks in a second.
pub const TICKS_PER_SECOND: u32 = 250;

/// How much both remember.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Buckets of either flow table: a power of two.
    pub buckets: u32,
    /// Inspected flows: a power of two.
    pub streams: u32,
}

impl Sizes {
    /// A bucket has room for twice the flows that are promised.
    fn tables(self) -> TableSizes {
        let flows = self.buckets * WAYS / 2;
        TableSizes {
            flows,
            opening_flows: flows,
            inspected_flows: self.streams,
        }
    }
}

/// Settings for tables of these sizes. The keys of the hash are the same in every run.
#[must_use]
pub fn settings(sizes: Sizes) -> Settings {
    let key = |index: usize| {
        let index = u64::try_from(index).unwrap_or(0);
        (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let room = EventRoom::of_machine().ok();
    sizes.tables().settings(room, std::array::from_fn(key), 0)
}

/// Compiles a policy for the data planes of this module.
///
/// # Errors
/// When it is refused; the error is what a person would be told.
pub fn compiled(policy: &str, ids: &mut Ids, generation: u32) -> Result<CompiledTables> {
    let loaded =
        load_text("policy.toml", policy).map_err(|refusal| anyhow!("{}", refusal.render()))?;
    let surroundings = Surroundings {
        ticks_per_second: TICKS_PER_SECOND,
        gateway_addresses: Vec::new(),
        generation,
    };
    compile(&loaded.policy, ids, &surroundings).map_err(|refusal| anyhow!("{}", refusal.render()))
}

/// Indexes by name: every zone is on the loopback interface.
#[must_use]
pub fn indexes() -> BTreeMap<String, u32> {
    BTreeMap::from([("lo".to_owned(), LOOPBACK)])
}

/// Both data planes.
pub struct Twin {
    kernel: Kernel,
    simulator: Simulator,
    sizes: Sizes,
    tables: CompiledTables,
    /// What the counters must say, by index: frames and bytes.
    counted: BTreeMap<u32, (u64, u64)>,
    /// What both have counted before [`Twin::forget`].
    rules_before: BTreeMap<u16, u64>,
    sent: u64,
    ids: Ids,
    generation: u32,
    adopt_until_ticks: u64,
}

impl Twin {
    /// Loads the program and puts the policy in force in both.
    ///
    /// # Errors
    /// When this is not root, the program was not built, or the policy is refused.
    pub fn new(policy: &str, sizes: Sizes) -> Result<Self> {
        let mut ids = Ids::default();
        let tables = compiled(policy, &mut ids, 1)?;
        let mut simulator = Simulator::new(settings(sizes));
        simulator.apply(&tables, &indexes());
        let mut kernel = Kernel::load(sizes)?;
        kernel.apply(simulator.slot_in_force(), &tables)?;
        Ok(Self {
            kernel,
            simulator,
            sizes,
            tables,
            counted: BTreeMap::new(),
            rules_before: BTreeMap::new(),
            sent: 0,
            ids,
            generation: 1,
            adopt_until_ticks: 0,
        })
    }

    /// Puts another policy in force in both, as a reload does: flows stay.
    ///
    /// # Errors
    /// When it is refused, or the kernel refuses to write a map.
    pub fn reload(&mut self, policy: &str) -> Result<()> {
        self.generation += 1;
        self.tables = compiled(policy, &mut self.ids, self.generation)?;
        self.simulator.apply(&self.tables, &indexes());
        let slot = self.simulator.slot_in_force();
        self.kernel.clear(slot)?;
        self.kernel.apply(slot, &self.tables)
    }

    /// Opens the window in which connections that were open before are picked up, until a time; and
    /// forgets all flows.
    ///
    /// # Errors
    /// When the kernel refuses to write a map.
    pub fn adopt_until(&mut self, ticks: u64) -> Result<()> {
        self.adopt_until_ticks = ticks;
        self.forget()
    }

    fn settings(&self) -> Settings {
        Settings {
            adopt_until_ticks: self.adopt_until_ticks,
            ..settings(self.sizes)
        }
    }

    /// Frames sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Forgets all flows, rates and values in both.
    ///
    /// # Errors
    /// When the kernel refuses to write a map.
    pub fn forget(&mut self) -> Result<()> {
        for rule in 0..64 {
            *self.rules_before.entry(rule).or_default() += self.simulator.rule_count(rule);
        }
        self.kernel.forget(self.sizes)?;
        self.kernel.set(self.settings())?;
        self.simulator = Simulator::new(self.settings());
        self.simulator.apply(&self.tables, &indexes());
        let slot = self.simulator.slot_in_force();
        if slot != self.kernel.slot() {
            self.kernel.clear(slot)?;
            self.kernel.apply(slot, &self.tables)?;
        }
        Ok(())
    }

    /// Sends a frame through both, in order of time; nothing when the kernel takes no frame of its
    /// length.
    ///
    /// # Errors
    /// When they differ: the error says in what, and holds the frame.
    pub fn send(&mut self, frame: &[u8], now_ticks: u64) -> Result<Option<Judged>> {
        if !(SHORTEST..=LONGEST).contains(&frame.len()) {
            return Ok(None);
        }
        self.sent += 1;
        let judged = self.simulator.judge(frame, LOOPBACK, now_ticks);
        let result = self.kernel.judge(frame, now_ticks)?;
        let complaint = compare::outcome(frame, &result, &judged)
            .or_else(|| compare::trace(&result, &judged))
            .or_else(|| compare::event(frame, result.event.as_ref(), &judged))
            .or(self.compare_counter(frame, &judged)?);
        if let Some(complaint) = complaint {
            bail!(
                "frame {}: {complaint}\nsimulator: {:?} {judged:?}\nkernel: {result:?}\ncounted: {}\nframe: {}",
                self.sent,
                judged.judgement.reason(),
                self.kernel.surplus(&self.counted)?,
                hex(frame),
            );
        }
        Ok(Some(judged))
    }
}

/// Bytes as people paste them.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}
