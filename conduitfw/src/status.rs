//! What is in force and what it did, from the pinned maps: also when no controller runs.

mod forwarding;
mod memory;
mod response_times;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use aya::{maps::MapError, programs::ProgramInfo};
use conduitfw_common::{
    REASON_SLOTS, Reason,
    table::{Counter, Generation, MAX_CONDUITS, RESPONSE_BUCKETS},
};
pub use forwarding::ForwardingStatus;
use jiff::Timestamp;
pub use memory::MemoryStatus;
use nix::net::if_::{if_indextoname, if_nametoindex};
pub use response_times::{Bucket, ResponseTimes};
use serde::Serialize;

use crate::{
    dataplane::{
        Pins,
        maps::Maps,
        mtu::{LARGEST_MTU, may_be_lost, mtu_of},
        rtnetlink::attached_program,
    },
    instance::Instance,
    naming::NameTable,
    state::InForce,
};

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, other: Self) {
        self.frames = self.frames.saturating_add(other.frames);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// An interface that the program is, or should be, on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// native, generic, `not attached`, or `missing`.
    pub mode: &'static str,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// What is wrong with it, as far as that is known.
    pub warning: Option<String>,
}

/// What one conduit did. The counters go back to when its name first came into force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConduitStatus {
    /// Its name; nothing for traffic that no conduit is responsible for.
    pub name: Option<String>,
    /// enforce, observe, or `not in force`.
    pub mode: &'static str,
    /// What passed.
    pub allowed: Traffic,
    /// What was denied.
    pub denied: Traffic,
    /// What was denied, by reason.
    pub reasons: BTreeMap<&'static str, Traffic>,
    /// How long its responders took to reply to inspected requests; nothing when none replied.
    pub response_times: Option<ResponseTimes>,
}

/// How often a rule allowed an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleStatus {
    /// Its name, as `conduit/rule`.
    pub name: String,
    /// Operations.
    pub operations: u64,
}

/// What the controller's own policy file holds, against what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileNow {
    /// The text in force.
    InForce,
    /// Another text, which a reload without a name, or a restart, would try to put in force.
    Another,
    /// Nothing that can be read: a restart would fail.
    Unreadable,
}

/// The controller, when one runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControllerStatus {
    /// Its process.
    pub pid: u32,
    /// The policy file that it reads on a reload.
    pub policy_file: String,
    /// What that file holds by now.
    pub file_now: FileNow,
    /// Whether it watches that file.
    pub watch: bool,
    /// When it started.
    pub started: Timestamp,
    /// Events that it read since.
    pub events_delivered: u64,
    /// Events that it knows to have missed since.
    pub events_missed: u64,
    /// Connections that were open before the gateway and were picked up since, as far as their
    /// events arrived.
    pub flows_adopted: u64,
}

/// Every frame, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frames {
    /// Frames that arrived: allowed and denied.
    pub seen: u64,
    /// Frames that passed.
    pub allowed: u64,
    /// Frames that did not.
    pub denied: u64,
    /// Frames that passed and would not have, but for mode observe.
    pub would_deny: u64,
}

/// Events as the kernel counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventCounts {
    /// Events that were put in a ring.
    pub delivered: u64,
    /// Events that found it full, or were more than a processor tells of.
    pub lost: u64,
}

/// The whole status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The instance.
    pub instance: String,
    /// The controller; nothing when none runs. Enforcement does not depend on it.
    pub controller: Option<ControllerStatus>,
    /// The generation in force; 0 when no policy is, and everything is denied.
    pub generation: u32,
    /// When it came into force, where that is remembered.
    pub since: Option<Timestamp>,
    /// The file that it was read from, where that is remembered.
    pub policy_file: Option<String>,
    /// The SHA-256 digest of its text, as `sha256sum` prints it, where that is remembered.
    pub sha256: Option<String>,
    /// Who had it put in force, in words, where that is remembered.
    pub by: Option<String>,
    /// The site, where that is remembered.
    pub site: Option<String>,
    /// enforce or observe.
    pub mode: &'static str,
    /// Interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Frames.
    pub frames: Frames,
    /// Who forwarded those that passed.
    pub forwarding: ForwardingStatus,
    /// Conduits, and traffic without one.
    pub conduits: Vec<ConduitStatus>,
    /// Rules.
    pub rules: Vec<RuleStatus>,
    /// Events.
    pub events: EventCounts,
    /// Memory.
    pub memory: MemoryStatus,
}

impl Status {
    /// Reads everything; `in_force` is what is remembered of the policy.
    ///
    /// # Errors
    ///
    /// The kernel refuses to read a map.
    pub fn read(
        instance: &Instance,
        maps: &Maps,
        controller: Option<ControllerStatus>,
        in_force: Option<InForce>,
    ) -> Result<Self, MapError> {
        let (slot, generation) = maps.in_force()?;
        let names = NameTable::read(maps)?;
        let (since, policy_file, site, sha256, by) =
            match in_force.filter(|in_force| in_force.generation == generation.number) {
                Some(InForce {
                    since,
                    policy_file,
                    site,
                    sha256,
                    by,
                    ..
                }) => (Some(since), Some(policy_file), Some(site), sha256, by),
                None => Default::default(),
            };
        let conduits = read_conduits(maps, slot, &generation, &names)?;
        let (events, would_deny) = read_reporting(maps)?;
        let mut frames = Frames {
            would_deny,
            ..Frames::default()
        };
        for conduit in &conduits {
            frames.allowed += conduit.allowed.frames;
            frames.denied += conduit.denied.frames;
        }
        frames.seen = frames.allowed + frames.denied;
        let pins = Pins::of(instance);
        let process = controller.as_ref().map(|controller| controller.pid);
        Ok(Self {
            instance: instance.name.as_str().to_owned(),
            memory: MemoryStatus::read(&pins, process),
            controller,
            generation: generation.number,
            since,
            policy_file,
            sha256,
            by,
            site,
            mode: mode_label(generation.observe != 0),
            interfaces: read_interfaces(&pins, maps, slot),
            frames,
            forwarding: ForwardingStatus::read(maps, generation.forwarding)?,
            conduits,
            rules: read_rules(maps, &names)?,
            events,
        })
    }
}

fn mode_label(observe: bool) -> &'static str {
    if observe { "observe" } else { "enforce" }
}

/// Those that are guarded, and those that the policy in force wants guarded.
fn read_interfaces(pins: &Pins, maps: &Maps, slot: u32) -> Vec<InterfaceStatus> {
    let ours = ProgramInfo::from_pin(pins.program())
        .ok()
        .map(|program| program.id());
    let mode = |name: &str| {
        let Ok(ifindex) = if_nametoindex(name) else {
            return "missing";
        };
        match attached_program(ifindex) {
            Ok(Some(found)) if Some(found.id) == ours => {
                if found.native {
                    "native"
                } else {
                    "generic"
                }
            }
            _ => "not attached",
        }
    };
    let mut names: BTreeSet<String> = pins
        .linked_interfaces()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let wanted = maps.interfaces.keys().filter_map(Result::ok);
    names.extend(
        wanted
            .filter(|key| key.0.slot == slot)
            .filter_map(|key| if_indextoname(key.0.ifindex).ok()?.into_string().ok()),
    );
    names
        .into_iter()
        .map(|name| {
            let (mode, mtu) = (mode(&name), mtu_of(&name));
            let too_large = mtu.filter(|mtu| mode == "native" && *mtu > LARGEST_MTU);
            InterfaceStatus {
                name,
                mode,
                mtu,
                warning: too_large.map(may_be_lost),
            }
        })
        .collect()
}

fn read_conduits(
    maps: &Maps,
    slot: u32,
    generation: &Generation,
    names: &NameTable,
) -> Result<Vec<ConduitStatus>, MapError> {
    let (all_observe, hz) = (generation.observe != 0, generation.ticks_per_second);
    let mut conduits = Vec::with_capacity(names.conduits.len() + 1);
    for (id, name) in &names.conduits {
        let row = maps
            .conduits
            .get(&(slot * MAX_CONDUITS + id.min(&(MAX_CONDUITS - 1))), 0)?
            .0;
        let mode = match row.present {
            0 => "not in force",
            _ => mode_label(all_observe || row.observe != 0),
        };
        let mut status = read_conduit(maps, *id, Some(name.clone()), mode)?;
        let times = ResponseTimes::new(&read_response_times(maps, *id)?, hz);
        status.response_times = (times.replies > 0).then_some(times);
        conduits.push(status);
    }
    conduits.sort_by(|a, b| a.name.cmp(&b.name));
    conduits.push(read_conduit(maps, 0, None, mode_label(all_observe))?);
    Ok(conduits)
}

fn read_conduit(
    maps: &Maps,
    id: u32,
    name: Option<String>,
    mode: &'static str,
) -> Result<ConduitStatus, MapError> {
    let mut status = ConduitStatus {
        name,
        mode,
        allowed: read_traffic(maps, id, 0)?,
        denied: Traffic::default(),
        reasons: BTreeMap::new(),
        response_times: None,
    };
    for number in 1..REASON_SLOTS {
        let traffic = read_traffic(maps, id, number)?;
        if traffic == Traffic::default() {
            continue;
        }
        status.denied.add(traffic);
        let reason = u8::try_from(number).ok().and_then(Reason::from_number);
        let label = reason.map_or("unknown-reason", Reason::label);
        status.reasons.entry(label).or_default().add(traffic);
    }
    Ok(status)
}

/// The sum over all processors.
fn read_traffic(maps: &Maps, conduit: u32, reason: u32) -> Result<Traffic, MapError> {
    let row = conduit.min(MAX_CONDUITS - 1) * REASON_SLOTS + reason;
    let mut sum = Traffic::default();
    for processor in maps.counters.get(&row, 0)?.iter() {
        let Counter { frames, bytes } = processor.0;
        sum.add(Traffic { frames, bytes });
    }
    Ok(sum)
}

/// The sum over all processors of each bucket.
fn read_response_times(maps: &Maps, conduit: u32) -> Result<Vec<u64>, MapError> {
    let first = conduit.min(MAX_CONDUITS - 1) * RESPONSE_BUCKETS;
    let bucket = |bucket: u32| {
        let counts = maps.response_times.get(&(first + bucket), 0)?;
        Ok(counts
            .iter()
            .fold(0, |sum: u64, count| sum.saturating_add(*count)))
    };
    (0..RESPONSE_BUCKETS).map(bucket).collect()
}

fn read_rules(maps: &Maps, names: &NameTable) -> Result<Vec<RuleStatus>, MapError> {
    let mut rules = Vec::with_capacity(names.rules.len());
    for (id, name) in &names.rules {
        let operations = maps
            .rules
            .get(id, 0)?
            .iter()
            .fold(0, |sum: u64, n| sum.saturating_add(*n));
        rules.push(RuleStatus {
            name: name.clone(),
            operations,
        });
    }
    rules.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rules)
}

fn read_reporting(maps: &Maps) -> Result<(EventCounts, u64), MapError> {
    let mut counts = EventCounts::default();
    let mut would_deny = 0;
    for processor in maps.reporting.iter() {
        let row = processor?.0;
        counts.delivered += row.next_sequence.saturating_sub(row.lost);
        counts.lost += row.lost;
        would_deny += row.would_deny;
    }
    Ok((counts, would_deny))
}
