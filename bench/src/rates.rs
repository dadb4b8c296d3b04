//! Frames a second: sent into a veth by live frames of a test run, counted behind the gateway.
//!
//! Sender, gateway and receiver run on one processor, in turns of 64 frames: the sender cannot run
//! ahead, nothing is lost, and a round repeats well. All gateways pay for the same sender and
//! receiver. Each frame is one of a conversation: requests one way, replies the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::programs::XdpMode;
use conduitfw_tests::frames::{ACK, Frame, PSH, SYN, modbus, tcp};
use conduitfw_tests::lab::Host;

use crate::cases::median;
use crate::links::{ifindex, mac_bytes};
use crate::pacer::{Pacer, Script, Template};
use crate::peers::{pin, unpin, urgent};
use crate::report::{RateRow, Report};
use crate::site::{Site, existing};
use crate::targets::gateway;

/// Conversations that take turns.
const FLOWS: u32 = 64;
/// Frames of one measurement. A test run of live frames takes some 20 ms to begin and to end, whatever
/// it sends: 40 ns a frame, and all gateways alike.
const FRAMES: u32 = 524_288;
const INITIATOR: ([u8; 4], u16) = ([10, 10, 0, 66], 20_000);
const RESPONDER: ([u8; 4], u16) = ([10, 20, 0, 10], 502);

/// A gateway with a sender and receiver around it, both in one namespace.
pub(crate) struct Range {
    name: &'static str,
    pacer: Pacer,
    script: Script,
    is_forwarding: bool,
    /// Nanoseconds of a frame, by turn.
    costs: BTreeMap<usize, f64>,
    /// The gateway and what was its hosts.
    pub(crate) site: Site,
}

/// What the hosts' ends of the wires are.
struct Ends {
    /// Interface indexes of the initiator's and the responder's end.
    ifindex: [u32; 2],
    /// Their addresses, and the gateway's.
    macs: [[u8; 6]; 2],
    gateway: [[u8; 6]; 2],
}

/// The gateways, and in which of the turns each has one: drops take a quarter of the time and differ by more from turn
/// to turn, and only some gateways have a target.
const GATEWAYS: [(&str, usize); 11] = [
    (gateway::PLAIN_DROP, 1),
    (gateway::FOLLOWING_DROP, 1),
    (gateway::DROPS, 1),
    (gateway::BARE, 3),
    (gateway::PASSING, 3),
    (gateway::FOLLOWING, 3),
    (gateway::CONDUITFW, 3),
    (gateway::FAST, 3),
    (gateway::REDIRECTING, 6),
    (gateway::CONNTRACK, 6),
    (gateway::FUNCTION_CODE, 6),
];
/// Turns of a round.
const TURNS: usize = 6;

/// Every gateway in turn.
pub(crate) fn measure(report: &mut Report, floors: &Path, registers: bool) -> Result<()> {
    eprintln!("==> packet rate: {} rounds", report.rounds);
    let mut ranges = Vec::new();
    for name in existing(&GATEWAYS.map(|(name, _)| name)) {
        ranges.push(Range::build(name, floors, registers).context(name)?);
    }
    let processors = report.machine.processors.max(1);
    pin(0, processors - 1)?;
    urgent(0, true);
    let count = ranges.len();
    for turn in 0..report.rounds * TURNS {
        for step in 0..count {
            let range = &mut ranges[(turn + step) % count];
            if turn % every(range.name) == 0 {
                range.measure(turn).context(range.name)?;
            }
        }
    }
    urgent(0, false);
    unpin(0, processors)?;
    let of = |name: &str| {
        let range = ranges.iter().find(|range| range.name == name);
        range.map(|range| range.costs.clone()).unwrap_or_default()
    };
    let (bare, drop) = (of(gateway::BARE), of(gateway::PLAIN_DROP));
    for range in &ranges {
        let yardstick = if range.is_forwarding { &bare } else { &drop };
        let ratio = ratio(yardstick, &range.costs);
        let mut costs: Vec<f64> = range.costs.values().copied().collect();
        let cost = median(&mut costs);
        let rate = |cost: Option<&f64>| cost.map_or(0.0, |cost| 1e9 / cost);
        report.rates.push(RateRow {
            gateway: range.name.to_owned(),
            frames_a_second: 1e9 / cost,
            min: rate(costs.last()),
            max: rate(costs.first()),
            ratio,
            ns: cost,
        });
    }
    Ok(())
}

/// In which of the turns a gateway has one.
fn every(name: &str) -> usize {
    let known = GATEWAYS.iter().find(|(known, _)| *known == name);
    known.map_or(1, |(_, every)| *every)
}

/// How many times as many frames pass as with the yardstick: the median over the turns that both had.
fn ratio(yardstick: &BTreeMap<usize, f64>, ours: &BTreeMap<usize, f64>) -> f64 {
    let beside = |(turn, ours): (&usize, &f64)| Some(yardstick.get(turn)? / ours);
    let mut ratios: Vec<f64> = ours.iter().filter_map(beside).collect();
    median(&mut ratios)
}

impl Range {
    /// Wires it, and opens the flows.
    pub(crate) fn build(name: &'static str, floors: &Path, registers: bool) -> Result<Self> {
        let site = Site::build(name, floors, registers)?;
        let outside = site.lab.host("operations")?.clone();
        let ends = bring_together(&site, &outside)?;
        let is_forwarding = !matches!(
            name,
            gateway::DROPS | gateway::PLAIN_DROP | gateway::FOLLOWING_DROP
        );
        let mut pacer = Pacer::load(floors, FLOWS, 2)?;
        for end in ["net0", "net1"] {
            let program = pacer.program("count")?;
            outside
                .enter(|| program.attach(end, XdpMode::Driver))?
                .with_context(|| format!("cannot count on {end}"))?;
        }
        pacer.program("blast")?;
        let mut this = Self {
            name,
            pacer,
            script: if is_forwarding {
                conversation(&ends)?
            } else {
                denied(&ends)?
            },
            is_forwarding,
            costs: BTreeMap::new(),
            site,
        };
        this.pacer.set_states(FLOWS, [1000, 7000, 0, 0])?;
        // One step of the handshake after the other: the way out and the way back are two queues.
        for step in handshake(&ends)? {
            let script = Script::of(vec![step]).across(u64::from(FLOWS));
            this.pacer.begin(&script)?;
            this.blast(FLOWS)?;
        }
        this.pacer.begin(&this.script)?;
        Ok(this)
    }

    /// Sends the next frames, on the processor of the caller.
    pub(crate) fn blast(&mut self, frames: u32) -> Result<()> {
        let host = self.site.lab.host("operations")?;
        host.enter(|| self.pacer.blast(frames))?
    }

    fn measure(&mut self, turn: usize) -> Result<()> {
        let before = self.pacer.counted()?;
        let forwarded = self.site.forwarded_by_kernel()?;
        let began = Instant::now();
        self.blast(FRAMES)?;
        let nanoseconds = began.elapsed().as_nanos() as f64;
        let came = self.pacer.counted()? - before;
        if self.is_forwarding {
            ensure!(
                came >= u64::from(FRAMES) * 99 / 100,
                "of {FRAMES} frames {came} came out behind the gateway"
            );
        } else {
            ensure!(came == 0, "{came} frames came out that were to be dropped");
        }
        let forwarded = self.site.forwarded_by_kernel()? - forwarded;
        ensure!(
            self.name != gateway::FAST || forwarded < u64::from(FRAMES) / 100,
            "of {FRAMES} frames the kernel forwarded {forwarded}"
        );
        self.costs.insert(turn, nanoseconds / f64::from(FRAMES));
        Ok(())
    }
}

/// Brings both ends into one namespace, and tells the gateway its neighbours.
fn bring_together(site: &Site, outside: &Host) -> Result<Ends> {
    let (gateway, control) = (site.lab.gateway(), site.lab.host("control")?);
    control.run("ip link set net0 down")?;
    control.run("ip link set net0 name net1")?;
    control.run(&format!("ip link set net1 netns {}", outside.namespace()))?;
    outside.run("ip link set net1 up")?;
    for (host, end) in [
        (outside, "net0"),
        (outside, "net1"),
        (gateway, "eth0"),
        (gateway, "eth1"),
    ] {
        host.run(&format!("ethtool -K {end} gro on"))?;
        host.run(&format!("sysctl -qw net.ipv6.conf.{end}.disable_ipv6=1"))?;
    }
    // Only there when something tracks connections. A network card checks checksums itself.
    let _ = gateway.run("sysctl -qw net.netfilter.nf_conntrack_checksum=0");
    let ends = Ends {
        ifindex: [ifindex(outside, "net0")?, ifindex(outside, "net1")?],
        macs: [mac_bytes(outside, "net0")?, mac_bytes(outside, "net1")?],
        gateway: [mac_bytes(gateway, "eth0")?, mac_bytes(gateway, "eth1")?],
    };
    for (index, address) in ["10.10.0.66", "10.20.0.10"].into_iter().enumerate() {
        let mac = ends.macs[index].map(|byte| format!("{byte:02x}")).join(":");
        gateway.run(&format!(
            "ip neigh replace {address} lladdr {mac} dev eth{index} nud permanent"
        ))?;
    }
    Ok(ends)
}

impl Ends {
    fn request(&self, flags: u8, payload: &[u8]) -> Result<Template> {
        let frame = tcp(INITIATOR, RESPONDER).flags(flags).payload(payload);
        self.template(frame, 0)
    }

    fn reply(&self, flags: u8, payload: &[u8]) -> Result<Template> {
        let frame = tcp(RESPONDER, INITIATOR).flags(flags).payload(payload);
        self.template(frame, 1)
    }

    fn template(&self, frame: Frame, end: usize) -> Result<Template> {
        let frame = frame.macs(self.macs[end], self.gateway[end]);
        let template = Template::of_flow(&frame, INITIATOR.into(), end == 1)?;
        Ok(template.to(self.ifindex[end]))
    }
}

fn handshake(ends: &Ends) -> Result<[Template; 3]> {
    Ok([
        ends.request(SYN, &[])?,
        ends.reply(SYN | ACK, &[])?,
        ends.request(ACK, &[])?,
    ])
}

fn conversation(ends: &Ends) -> Result<Script> {
    let request = modbus::adu(0, 1, modbus::read(3, 3000, 10));
    let answer = modbus::adu(0, 1, [&[3, 20][..], &[7; 20]].concat());
    let script = Script::of(vec![
        ends.request(PSH | ACK, &request)?.adus(1, request.len()),
        ends.reply(PSH | ACK, &answer)?.adus(1, answer.len()),
    ]);
    // A turn of requests, then a turn of their replies: the two ways are two queues, and the later
    // one is served first.
    Ok(script.in_turns(u64::from(FLOWS)))
}

fn denied(ends: &Ends) -> Result<Script> {
    let write = modbus::adu(0, 1, modbus::write_single(5, 0, 0xff00));
    let script = Script::of(vec![ends.request(PSH | ACK, &write)?.staying()]);
    Ok(script.across(u64::from(FLOWS)))
}
