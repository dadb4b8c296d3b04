//! A connection between two hosts, frame by frame through the decision.

use std::{collections::BTreeMap, time::Duration};

use conduitfw_common::{
    Verdict,
    event::EventOperation,
    table::{ABI_VERSION, Settings},
    wire::tcp::flag,
};

use super::{
    frames::{self, Path, Segment},
    party::Party,
};
use crate::{
    expect::Found,
    policy::{CompiledTables, Ids, NameKind, Policy, Refusal, Surroundings, Vlans, compile},
    simulator::Simulator,
};

/// A clock as fine as the kernel's can be.
pub(super) const TICKS_PER_SECOND: u32 = 1000;
/// The clock when the first frame comes in: any time that is not the first of all.
const START_TICKS: u64 = 1_000_000;
const FIRST_SEQUENCES: (u32, u32) = (10_000, 20_000);
/// The first port of those that hosts choose for themselves (RFC 6335 §6).
const EPHEMERAL_PORT: u16 = 49_152;

/// The policy in force, in ordinary memory.
pub(super) struct World<'p> {
    pub(super) policy: &'p Policy,
    pub(super) tables: CompiledTables,
    pub(super) ids: Ids,
    indexes: BTreeMap<String, u32>,
}

impl<'p> World<'p> {
    pub(super) fn new(policy: &'p Policy) -> Result<Self, Refusal> {
        let surroundings = Surroundings {
            ticks_per_second: TICKS_PER_SECOND,
            gateway_addresses: Vec::new(),
            generation: 1,
        };
        let mut ids = Ids::default();
        let tables = compile(policy, &mut ids, &surroundings)?;
        let names = tables.interfaces.iter().map(|(name, ..)| name.clone());
        let indexes = names.zip(1..).collect();
        Ok(Self {
            policy,
            tables,
            ids,
            indexes,
        })
    }

    fn simulator(&self) -> Simulator {
        let mut simulator = Simulator::new(Settings {
            hash_keys: [0x9e37_79b9_7f4a_7c15; 12],
            abi_version: ABI_VERSION,
            flow_bucket_mask: 15,
            opening_bucket_mask: 15,
            stream_mask: 15,
            ..Settings::default()
        });
        simulator.apply(&self.tables, &self.indexes);
        simulator
    }

    /// Where the frames of a host come in, and with which tags. A host of no zone comes in
    /// wherever the first zone is.
    fn entrance(&self, party: &Party) -> (u32, Vlans) {
        let own = party.zone.and_then(|zone| self.policy.zone(zone));
        let Some(zone) = own.or(self.policy.zones.first()) else {
            return (0, Vlans::Untagged);
        };
        let name = zone.interfaces.first();
        let index = name.and_then(|name| self.indexes.get(name)).copied();
        let vlans = zone.vlans.first().copied().unwrap_or(Vlans::Untagged);
        (index.unwrap_or(0), vlans)
    }
}

/// What the decision said about one frame.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) found: Found,
    pub(super) would_deny: bool,
    /// The operation that was denied, when there was one.
    pub(super) operation: Option<EventOperation>,
}

impl Decision {
    pub(super) fn passes(&self) -> bool {
        self.found.verdict == Verdict::Pass
    }
}

/// A frame that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedFrame {
    /// Time since the first.
    pub after: Duration,
    /// Its bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// Two hosts and what they said so far.
pub(super) struct Session<'w, 'p> {
    pub(super) world: &'w World<'p>,
    pub(super) simulator: Simulator,
    pub(super) now_ticks: u64,
    pub(super) frames: Vec<JudgedFrame>,
    request: (Path, u32),
    reply: (Path, u32),
    ports: (u16, u16),
    next: (u32, u32),
    transaction: u16,
}

impl<'w, 'p> Session<'w, 'p> {
    pub(super) fn new(
        world: &'w World<'p>,
        (from, to): (&Party, &Party),
        (from_port, to_port): (Option<u16>, u16),
    ) -> Self {
        let way = |source: &Party, destination: &Party| {
            let (ifindex, vlans) = world.entrance(source);
            let path = Path {
                source: source.address,
                destination: destination.address,
                vlans,
            };
            (path, ifindex)
        };
        Self {
            simulator: world.simulator(),
            world,
            now_ticks: START_TICKS,
            frames: Vec::new(),
            request: way(from, to),
            reply: way(to, from),
            ports: (from_port.unwrap_or(EPHEMERAL_PORT), to_port),
            next: FIRST_SEQUENCES,
            transaction: 0,
        }
    }

    /// Lets time go by.
    pub(super) fn wait(&mut self, time: Duration) {
        let ticks = time.as_millis() * u128::from(TICKS_PER_SECOND) / 1000;
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.now_ticks = self.now_ticks.saturating_add(ticks);
    }

    /// Asks for a TCP connection.
    pub(super) fn ask(&mut self) -> Decision {
        self.next = FIRST_SEQUENCES;
        self.initiator_sends(flag::SYN, &[])
    }

    /// Opens a TCP connection, as far as it is let.
    pub(super) fn open(&mut self) -> Decision {
        let decision = self.ask();
        if !decision.passes() {
            return decision;
        }
        let answer = self.responder_sends(flag::SYN | flag::ACK, &[]);
        if !answer.passes() {
            return answer;
        }
        let third = self.initiator_sends(flag::ACK, &[]);
        if third.passes() { decision } else { third }
    }

    /// Closes the connection in mind: the next one comes from another port.
    pub(super) fn leave(&mut self) {
        self.ports.0 = self.ports.0.checked_add(1).unwrap_or(EPHEMERAL_PORT);
    }

    /// The transaction id of the last request.
    pub(super) fn transaction(&self) -> u16 {
        self.transaction
    }

    /// Sends a request's ADU, made for a transaction id.
    pub(super) fn request(&mut self, adu: impl FnOnce(u16) -> Vec<u8>) -> Decision {
        self.transaction = self.transaction.wrapping_add(1);
        self.initiator_sends(flag::PSH | flag::ACK, &adu(self.transaction))
    }

    /// Sends a reply's ADU.
    pub(super) fn reply(&mut self, adu: &[u8]) -> Decision {
        self.responder_sends(flag::PSH | flag::ACK, adu)
    }

    /// The frame that answers a connection which the gateway itself opened.
    pub(super) fn answer_to_gateway(&mut self) -> Decision {
        self.responder_sends(flag::SYN | flag::ACK, &[])
    }

    /// Sends a UDP datagram, or its answer.
    pub(super) fn datagram(&mut self, is_reply: bool) -> Decision {
        let (path, ifindex) = if is_reply { self.reply } else { self.request };
        let (from, to) = self.ports;
        let ports = if is_reply { (to, from) } else { (from, to) };
        self.judge(frames::udp(&path, ports, b"explain"), ifindex)
    }

    /// Sends an echo request, or its answer.
    pub(super) fn echo(&mut self, is_reply: bool) -> Decision {
        let (path, ifindex) = if is_reply { self.reply } else { self.request };
        self.judge(frames::echo(&path, is_reply, 1), ifindex)
    }

    fn initiator_sends(&mut self, flags: u8, payload: &[u8]) -> Decision {
        let (path, ifindex) = self.request;
        let (sequence, acknowledgement) = self.next;
        let segment = Segment {
            source_port: self.ports.0,
            destination_port: self.ports.1,
            sequence,
            acknowledgement: if flags & flag::ACK == 0 {
                0
            } else {
                acknowledgement
            },
            flags,
        };
        let decision = self.judge(frames::tcp(&path, segment, payload), ifindex);
        // What is answered with an exception goes on as well.
        if decision.passes() || decision.found.verdict == Verdict::Exception {
            self.next.0 = after(sequence, flags, payload);
        }
        decision
    }

    fn responder_sends(&mut self, flags: u8, payload: &[u8]) -> Decision {
        let (path, ifindex) = self.reply;
        let (acknowledgement, sequence) = self.next;
        let segment = Segment {
            source_port: self.ports.1,
            destination_port: self.ports.0,
            sequence,
            acknowledgement,
            flags,
        };
        let decision = self.judge(frames::tcp(&path, segment, payload), ifindex);
        if decision.passes() {
            self.next.1 = after(sequence, flags, payload);
        }
        decision
    }

    fn judge(&mut self, frame: Vec<u8>, ifindex: u32) -> Decision {
        let before = self.rule_counts();
        let judged = self.simulator.judge(&frame, ifindex, self.now_ticks);
        let ticks = self.now_ticks - START_TICKS;
        self.frames.push(JudgedFrame {
            after: Duration::from_millis(ticks * 1000 / u64::from(TICKS_PER_SECOND)),
            bytes: frame,
        });
        let after = self.rule_counts();
        let counted = after.into_iter().zip(before);
        let rule = counted
            .filter(|((_, after), (_, before))| after > before)
            .map(|((rule, _), _)| rule)
            .next();
        let name = |kind, number| self.world.ids.name(kind, number).map(str::to_owned);
        Decision {
            found: Found {
                verdict: judged.judgement.verdict(),
                reason: judged.judgement.reason(),
                conduit: name(NameKind::Conduit, judged.judgement.conduit()),
                rule: rule.and_then(|rule| name(NameKind::Rule, rule)),
            },
            would_deny: judged.judgement.is_observed(),
            operation: (judged.operation.fields != 0).then_some(judged.operation),
        }
    }

    /// How many operations each rule has allowed.
    fn rule_counts(&self) -> Vec<(u16, u64)> {
        let ids = self.world.ids.iter();
        ids.filter(|(kind, ..)| *kind == NameKind::Rule)
            .map(|(_, number, _)| (number, self.simulator.rule_count(number)))
            .collect()
    }
}

/// The sequence number after a segment: SYN counts for one.
fn after(sequence: u32, flags: u8, payload: &[u8]) -> u32 {
    let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    sequence
        .wrapping_add(bytes)
        .wrapping_add(u32::from(flags & flag::SYN != 0))
}
