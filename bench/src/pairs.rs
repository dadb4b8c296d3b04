//! Frames that may cost hardly more than others. Where the kernel puts a program and its maps makes up to a sixth of
//! what a frame costs, more than what there is to be found: so both frames of a pair go through the same program,
//! paced by the same one, turn about; and a second policy is in the same maps, as after a reload.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::builder::Wanted;
use crate::cases::{lower_quartile, median};
use crate::frames;
use crate::pacer::{Pacer, Script};
use crate::policy::{Extent, Policy, knows_registers};
use crate::report::{PairRow, Report};
use crate::rig::{PASSED, Rig, USUAL_SIZES, account};
use crate::script::{BLOCKS, STATE_WORDS};
use crate::talk::{Talk, acknowledge, exchange, payload};

/// A frame, the one that it is held against, and how many times as much it may cost.
pub(crate) const PAIRS: [(&str, &str, f64); 6] = [
    (FC3_MANY_RULES, FC3_FEW_RULES, 1.05),
    (ACK_IPV6, ACK, 1.15),
    (FC3_IPV6, FC3, 1.15),
    (ACK_TAGGED, ACK, 1.15),
    (FC3_TAGGED, FC3, 1.15),
    (ACK_SPREAD, FLOOR_SPREAD, 1.3),
];

const ACK: &str = "ACK of an established flow";
const FC3: &str = "FC3, request";
const FC3_FEW_RULES: &str = "10 rules: FC3, request";
const FC3_MANY_RULES: &str = "10000 rules: FC3, request";
const ACK_IPV6: &str = "IPv6: ACK of an established flow";
const FC3_IPV6: &str = "IPv6: FC3, request";
const ACK_TAGGED: &str = "two VLAN tags: ACK of an established flow";
const FC3_TAGGED: &str = "two VLAN tags: FC3, request";
/// Two programs, which are loaded each by itself.
const ACK_SPREAD: &str = "ACK, flows spread over 64k entries";
const FLOOR_SPREAD: &str = "floor, flows spread over 64k entries";

/// How often everything is loaded anew.
const LOADS: usize = 7;
/// Rounds of a load.
const ROUNDS: usize = 7;
/// Frames of each template in one block, a power of two.
const FRAMES: u32 = 1024;

/// Every pair, in every load.
pub(crate) fn measure(report: &mut Report, (object, floors): (&Path, &Path)) -> Result<()> {
    eprintln!("==> frames beside others: {LOADS} loads");
    let mut ratios = vec![Vec::new(); PAIRS.len()];
    for _ in 0..LOADS {
        let mut stand = Stand::build(object, floors)?;
        for ((frame, against, _), ratios) in PAIRS.iter().zip(&mut ratios) {
            if *frame != ACK_SPREAD {
                ratios.push(stand.hold(frame, against)?);
            }
        }
        drop(stand);
        if let Some(ratios) = ratios.last_mut() {
            ratios.push(spread(object, floors)?);
        }
    }
    for ((frame, against, _), mut ratios) in PAIRS.iter().zip(ratios) {
        let ratio = median(&mut ratios);
        report.pairs.push(PairRow {
            frame: (*frame).to_owned(),
            against: (*against).to_owned(),
            ratio,
            min: ratios.first().copied().unwrap_or_default(),
            max: ratios.last().copied().unwrap_or_default(),
        });
    }
    Ok(())
}

/// A flow, and what is sent in it.
struct Flow {
    name: &'static str,
    script: Script,
    /// The numbers of its next frames.
    state: [u32; STATE_WORDS],
    /// The policy that it is judged by.
    slot: u32,
}

/// One program with two policies, and flows that are open.
struct Stand {
    rig: Rig,
    paced: Pacer,
    empty: Pacer,
    /// Nanoseconds of an empty program in the plain loop of a test run, which every frame's figure has.
    empty_loop: f64,
    flows: Vec<Flow>,
}

impl Stand {
    fn build(object: &Path, floors: &Path) -> Result<Self> {
        let policy = |rules| {
            let usual = Extent::USUAL;
            Policy::of(Extent { rules, ..usual }).text(knows_registers())
        };
        let policies = [policy(Extent::USUAL.rules), policy(10_000)];
        let rig = Rig::with_both(object, policies.each_ref().map(String::as_str), USUAL_SIZES)?;
        let mut paced = Pacer::load(floors, 2, 2)?;
        paced.aim(&rig.program()?)?;
        let mut empty = Pacer::load(floors, 2, 2)?;
        let nothing = empty.yardstick("nothing")?;
        empty.aim(&nothing)?;
        let mut stand = Self {
            rig,
            paced,
            empty,
            empty_loop: 0.0,
            flows: Vec::new(),
        };
        let v4 = |port| Talk::v4(10, port, 502);
        let tagged = |port| Talk::v4(50, port, 502).tagged(&[100, 20]);
        for (name, talk) in [
            (ACK, v4(1024)),
            (ACK_IPV6, Talk::v6(1025)?),
            (ACK_TAGGED, tagged(1026)),
        ] {
            stand.open(name, talk, acknowledge(talk)?, 0)?;
        }
        for (name, talk, slot) in [
            (FC3, v4(1027), 0),
            (FC3_IPV6, Talk::v6(1028)?, 0),
            (FC3_TAGGED, tagged(1029), 0),
            (FC3_FEW_RULES, v4(1030), 0),
            (FC3_MANY_RULES, v4(1031), 1),
        ] {
            let script = exchange(talk, (&payload::read(), &payload::values()), 1)?;
            stand.open(name, talk, script, slot)?;
        }
        frames::after_a_load();
        if let Some(flow) = stand.flows.first() {
            stand.empty.begin(&flow.script)?;
        }
        let mut loops = (0..ROUNDS)
            .map(|_| stand.empty.repeat("nothing", 200_000))
            .collect::<Result<Vec<_>>>()?;
        stand.empty_loop = median(&mut loops);
        Ok(stand)
    }

    fn open(&mut self, name: &'static str, talk: Talk, script: Script, slot: u32) -> Result<()> {
        let opening = talk.handshake()?;
        self.paced.set_states(1, [1000, 7000, 0, 0])?;
        self.paced.begin(&opening)?;
        self.paced.run(opening.templates.len() as u32)?;
        let state = self.paced.state()?;
        self.flows.push(Flow {
            name,
            script,
            state,
            slot,
        });
        Ok(())
    }

    /// How many times as much one frame costs as the other.
    fn hold(&mut self, one: &str, other: &str) -> Result<f64> {
        let (one, other) = (self.flow(one)?, self.flow(other)?);
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            // Neither always comes first.
            let (ours, theirs) = if round % 2 == 0 {
                let theirs = self.measure(other)?;
                (self.measure(one)?, theirs)
            } else {
                (self.measure(one)?, self.measure(other)?)
            };
            ratios.push((ours + self.empty_loop) / (theirs + self.empty_loop));
        }
        Ok(median(&mut ratios))
    }

    fn flow(&self, name: &str) -> Result<usize> {
        let at = self.flows.iter().position(|flow| flow.name == name);
        at.with_context(|| format!("there is no flow `{name}`"))
    }

    /// Nanoseconds of the first template of a flow, without those of an empty program.
    fn measure(&mut self, at: usize) -> Result<f64> {
        let flow = &mut self.flows[at];
        let templates = flow.script.templates.len() as u32;
        self.rig.switch(flow.slot)?;
        self.paced.set_states(1, flow.state)?;
        self.paced.begin(&flow.script)?;
        // Another policy judges the flow anew.
        self.paced.run(FRAMES * templates)?;
        let before = self.rig.counts()?;
        let with = self.paced.clock(FRAMES)?;
        let after = self.rig.counts()?;
        // One more was given than are timed: what is begun is ended.
        self.paced.run(templates - 1)?;
        flow.state = self.paced.state()?;
        let account = account(&before, &after);
        let passed = account.get(PASSED).copied().unwrap_or(0);
        ensure!(
            passed >= u64::from(FRAMES * BLOCKS * templates),
            "{}: {account:?}",
            flow.name
        );
        self.empty.begin(&flow.script)?;
        let without = self.empty.clock(FRAMES)?;
        let first = |mut blocks: Vec<Vec<f64>>| lower_quartile(&mut blocks[0]);
        Ok(first(with) - first(without))
    }
}

/// Acknowledgements of very many flows against the floor of as many.
fn spread(object: &Path, floors: &Path) -> Result<f64> {
    let wanted = Wanted::Exactly(&[ACK_SPREAD, FLOOR_SPREAD]);
    let mut cases = frames::load(object, floors, wanted)?;
    let place = |name: &str| {
        let at = cases.iter().position(|case| case.title() == name);
        at.with_context(|| format!("there is no case `{name}`"))
    };
    let (one, other) = (place(ACK_SPREAD)?, place(FLOOR_SPREAD)?);
    let empty_loop = cases[one].empty_loop()?;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let [theirs, ours] = [other, one].map(|at| cases[at].measure());
        ratios.push((ours?[0].usual + empty_loop) / (theirs?[0].usual + empty_loop));
    }
    Ok(median(&mut ratios))
}
