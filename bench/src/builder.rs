//! Which frames are measured, and which yardsticks beside them.

mod denials;
mod extents;
mod flows;

use std::cell::OnceCell;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, anyhow};
use conduitfw::dataplane::TableSizes;
use conduitfw_tests::frames::{ACK, SYN};

use crate::cases::{Case, held};
use crate::pacer::{Pacer, Script};
use crate::policy::{Extent, Policy};
use crate::report::{FLOOR, FLOOR_AND_EVENT};
use crate::rig::{PASSED, Rig, USUAL_SIZES};
use crate::talk::Talk;

/// Which cases are built. The floor always is.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// All.
    All,
    /// Those in whose name one of these stands.
    Words(&'a [String]),
    /// Those of these names.
    Exactly(&'a [&'a str]),
}

impl Wanted<'_> {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Words(words) => {
                let name = name.to_lowercase();
                words.iter().any(|word| name.contains(&word.to_lowercase()))
            }
            Self::Exactly(names) => names.contains(&name),
        }
    }
}

/// Builds the cases.
pub(crate) struct Builder<'a> {
    object: &'a Path,
    floors: &'a Path,
    registers: bool,
    wanted: Wanted<'a>,
    cases: Vec<Case>,
}

/// A policy that is put in force when the first case wants it.
struct Bed {
    policy: String,
    sizes: TableSizes,
    /// Whether nobody ever takes an event out of the buffer.
    is_full: bool,
    rig: OnceCell<Arc<Mutex<Rig>>>,
}

impl Bed {
    fn new(policy: String, sizes: TableSizes) -> Self {
        Self {
            policy,
            sizes,
            is_full: false,
            rig: OnceCell::new(),
        }
    }

    fn full(mut self) -> Self {
        self.is_full = true;
        self
    }
}

/// What a case is called, what its frames meet, and how many flows take turns.
#[derive(Clone, Copy)]
struct Plan<'a> {
    /// By template; nothing for those that only go along.
    names: &'a [Option<&'a str>],
    /// By template.
    outcomes: &'static [&'static str],
    drained: bool,
    flows: u32,
    /// Frames of each template in one block.
    frames: u32,
}

impl<'a> Plan<'a> {
    fn new(names: &'a [Option<&'a str>], outcomes: &'static [&'static str]) -> Self {
        Self {
            names,
            outcomes,
            drained: false,
            flows: 1,
            frames: 1024,
        }
    }

    fn passes(names: &'a [Option<&'a str>]) -> Self {
        Self::new(names, &[PASSED])
    }

    fn drained(mut self) -> Self {
        self.drained = true;
        self
    }

    fn across(mut self, flows: u32) -> Self {
        self.flows = flows;
        self
    }

    fn frames(mut self, frames: u32) -> Self {
        self.frames = frames;
        self
    }
}

impl<'a> Builder<'a> {
    /// For this object of the kernel program and this one of the yardsticks.
    pub(crate) fn new(
        object: &'a Path,
        floors: &'a Path,
        registers: bool,
        wanted: Wanted<'a>,
    ) -> Self {
        Self {
            object,
            floors,
            registers,
            wanted,
            cases: Vec::new(),
        }
    }

    /// All cases. To load a program takes its verifier a second: half of them in a thread of their own.
    pub(crate) fn build(self) -> Result<Vec<Case>> {
        let (mut one, mut other) = (self.another(), self);
        thread::scope(|scope| {
            let extents = scope.spawn(|| other.extents().context("policies of all sizes"));
            one.flows_and_denials()?;
            let extents = extents.join();
            extents.map_err(|_| anyhow!("a thread that loads programs broke"))?
        })?;
        one.cases.append(&mut other.cases);
        Ok(one.cases)
    }

    /// The same, without its cases.
    fn another(&self) -> Self {
        Self::new(self.object, self.floors, self.registers, self.wanted)
    }

    fn flows_and_denials(&mut self) -> Result<()> {
        self.floors().context("the floors")?;
        let bed = self.bed(Policy::of(Extent::USUAL), USUAL_SIZES);
        self.flows(&bed).context("established flows")?;
        self.denials(&bed).context("denials")?;
        self.spread().context("flows in large numbers")
    }

    fn wants<'b>(&self, names: impl IntoIterator<Item = &'b str>) -> bool {
        let mut names = names.into_iter();
        names.any(|name| name == FLOOR || self.wanted.is(name))
    }

    fn bed(&self, policy: Policy, sizes: TableSizes) -> Bed {
        Bed::new(policy.text(self.registers), sizes)
    }

    fn rig(&self, bed: &Bed) -> Result<Arc<Mutex<Rig>>> {
        if let Some(rig) = bed.rig.get() {
            return Ok(Arc::clone(rig));
        }
        let rig = Rig::load(self.object, &bed.policy, bed.sizes)?;
        if bed.is_full {
            let mut pacer = Pacer::load(self.floors, 2, 2)?;
            pacer.aim(&rig.program()?)?;
            let spoofed = Talk::v4(77, 2052, 502).request(SYN, &[])?.staying();
            pacer.begin(&Script::of(vec![spoofed]))?;
            pacer.run(40_000)?;
        }
        Ok(Arc::clone(
            bed.rig.get_or_init(|| Arc::new(Mutex::new(rig))),
        ))
    }

    fn floors(&mut self) -> Result<()> {
        let talk = Talk::v4(10, 1024, 502);
        let ack = Script::of(vec![talk.request(ACK, &[])?.staying().keeping_all()]);
        self.yardstick("XDP program that only returns", "nothing", &ack)?;
        self.yardstick("Ethernet, IPv4, TCP parsed", "parse", &ack)?;
        self.yardstick(FLOOR, "lookup", &ack)?;
        self.yardstick(FLOOR_AND_EVENT, "tell", &ack)?;
        for (name, flows) in [
            ("floor, flows spread over 1k entries", 1024),
            ("floor, flows spread over 64k entries", 65_536),
        ] {
            self.yardstick(name, "lookup", &ack.clone().across(flows))?;
        }
        let syn = talk.request(SYN, &[])?.staying().keeping_all();
        let script = Script::of(vec![syn]).across(1 << 20);
        self.yardstick("bare LRU insertion", "insert", &script)
    }

    fn yardstick(&mut self, name: &str, program: &str, script: &Script) -> Result<()> {
        if !self.wants([name]) {
            return Ok(());
        }
        let flows = u32::try_from(script.flows).unwrap_or(u32::MAX).min(65_536);
        let mut paced = Pacer::load(self.floors, 65_536, flows * 2)?;
        paced.begin(script)?;
        if program != "nothing" {
            let insert = paced.yardstick("insert")?;
            paced.aim(&insert)?;
            paced.run(flows)?;
        }
        let target = paced.yardstick(program)?;
        paced.aim(&target)?;
        let empty = self.empty(script)?;
        self.cases.push(Case {
            names: vec![Some(name.to_owned())],
            paced,
            empty,
            rig: None,
            outcomes: &[PASSED],
            drained: program == "tell",
            frames: 1024,
        });
        Ok(())
    }

    /// The script by itself.
    fn empty(&self, script: &Script) -> Result<Pacer> {
        let mut pacer = Pacer::load(self.floors, 65_536, 2)?;
        let nothing = pacer.yardstick("nothing")?;
        pacer.aim(&nothing)?;
        pacer.begin(script)?;
        Ok(pacer)
    }

    fn case(
        &mut self,
        bed: &Bed,
        opening: &Script,
        script: &Script,
        plan: &Plan<'_>,
    ) -> Result<()> {
        if !self.wants(plan.names.iter().flatten().copied()) {
            return Ok(());
        }
        let rig = self.rig(bed)?;
        let mut paced = Pacer::load(self.floors, plan.flows.max(2), 2)?;
        paced.aim(&held(&rig).program()?)?;
        if !opening.templates.is_empty() {
            paced.set_states(plan.flows, [1000, 7000, 0, 0])?;
            paced.begin(opening)?;
            paced.run(plan.flows * opening.templates.len() as u32)?;
        }
        paced.begin(script)?;
        let empty = self.empty(script)?;
        let names = plan.names.iter().map(|name| name.map(str::to_owned));
        self.cases.push(Case {
            names: names.collect(),
            paced,
            empty,
            rig: Some(rig),
            outcomes: plan.outcomes,
            drained: plan.drained,
            frames: plan.frames,
        });
        Ok(())
    }
}

/// The floor alone, the lowest of some rounds, for a run that does not measure frames.
pub(crate) fn floor(object: &Path, floors: &Path) -> Result<f64> {
    let mut builder = Builder::new(object, floors, false, Wanted::Exactly(&[]));
    builder.floors()?;
    let case = builder.cases.first_mut().context("no floor")?;
    let (mut with, mut without, mut empty) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for _ in 0..7 {
        let figure = &case.measure()?[0];
        with = with.min(figure.lowest_with);
        without = without.min(figure.lowest_without);
        empty = empty.min(case.empty_loop()?);
    }
    Ok(with - without + empty)
}
