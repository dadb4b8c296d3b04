//! Which frames are measured, and which yardsticks beside them.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::frames::{ACK, PSH, SYN};

use crate::cases::{Case, median};
use crate::pacer::{Pacer, Script};
use crate::policy::{Extent, Policy};
use crate::report::FLOOR;
use crate::rig::{Rig, Sizes};
use crate::talk::{Talk, acknowledge};

/// Modbus payloads that come again and again.
mod payload {
    use super::{adu, modbus};

    /// Ten holding registers, from the range that the policy allows.
    pub(super) fn read() -> Vec<u8> {
        adu(0, 1, modbus::read(3, 3000, 10))
    }

    pub(super) fn values() -> Vec<u8> {
        adu(0, 1, [&[3, 20][..], &[7; 20]].concat())
    }

    pub(super) fn write() -> Vec<u8> {
        adu(0, 1, modbus::write_registers(2000, &[700; 10]))
    }

    pub(super) fn written() -> Vec<u8> {
        adu(0, 1, modbus::fields(16, &[2000, 10]))
    }

    pub(super) fn repeated(adu: &[u8], count: usize) -> Vec<u8> {
        adu.repeat(count)
    }
}

/// Builds the cases.
pub(crate) struct Builder<'a> {
    object: &'a Path,
    floors: &'a Path,
    registers: bool,
    cases: Vec<Case>,
}

/// What a case is called, what its frames meet, and how many flows take turns.
struct Plan<'a> {
    names: &'a [Option<&'a str>],
    outcome: &'static str,
    drained: bool,
    flows: u32,
}

impl<'a> Plan<'a> {
    fn passes(names: &'a [Option<&'a str>]) -> Self {
        Self {
            names,
            outcome: "passed",
            drained: false,
            flows: 1,
        }
    }

    fn denied(names: &'a [Option<&'a str>], outcome: &'static str, drained: bool) -> Self {
        Self {
            names,
            outcome,
            drained,
            flows: 1,
        }
    }

    fn across(mut self, flows: u32) -> Self {
        self.flows = flows;
        self
    }
}

impl<'a> Builder<'a> {
    /// For this object of the kernel program and this one of the yardsticks.
    pub(crate) fn new(object: &'a Path, floors: &'a Path, registers: bool) -> Self {
        Self {
            object,
            floors,
            registers,
            cases: Vec::new(),
        }
    }

    /// All cases.
    pub(crate) fn build(mut self) -> Result<Vec<Case>> {
        self.floors().context("the floors")?;
        let rig = self.rig(Policy::of(Extent::USUAL), Sizes::USUAL)?;
        self.flows(&rig).context("established flows")?;
        self.denials(&rig).context("denials")?;
        self.spread().context("flows in large numbers")?;
        self.extents().context("policies of all sizes")?;
        Ok(self.cases)
    }

    fn rig(&self, policy: Policy, sizes: Sizes) -> Result<Rc<RefCell<Rig>>> {
        let rig = Rig::load(self.object, &policy.text(self.registers), sizes)?;
        Ok(Rc::new(RefCell::new(rig)))
    }

    fn floors(&mut self) -> Result<()> {
        let talk = Talk::v4(10, 1024, 502);
        let ack = Script::of(vec![talk.request(ACK, &[])?.staying().keeping_all()]);
        self.yardstick("XDP program that only returns", "nothing", &ack)?;
        self.yardstick("Ethernet, IPv4, TCP parsed", "parse", &ack)?;
        self.yardstick(FLOOR, "lookup", &ack)?;
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
            outcome: "passed",
            drained: false,
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

    fn flows(&mut self, rig: &Rc<RefCell<Rig>>) -> Result<()> {
        let talk = Talk::v4(10, 1024, 502);
        self.conversation(rig, talk, "ACK of an established flow", acknowledge)?;
        self.pair(
            rig,
            Talk::v4(10, 1025, 502),
            "FC3",
            &payload::read(),
            &payload::values(),
            1,
        )?;
        let (write, written) = (payload::write(), payload::written());
        self.pair(
            rig,
            Talk::v4(10, 1026, 502),
            "FC16, 10 values",
            &write,
            &written,
            1,
        )?;
        for (port, count, name) in [
            (1027, 5, "5 ADUs in a segment"),
            (1028, 16, "16 ADUs in a segment"),
        ] {
            let talk = Talk::v4(10, port, 502);
            self.pair(rig, talk, name, &payload::read(), &payload::values(), count)?;
        }
        self.split(rig)?;
        let plain = |talk: Talk| -> Result<Script> {
            let data = talk.request(PSH | ACK, &[0x55; 100])?;
            let answer = talk.reply(PSH | ACK, &[0x55; 100])?;
            Ok(Script::of(vec![data, answer]))
        };
        let names = [Some("plain TCP, 100 bytes"), Some("plain TCP, the answer")];
        let talk = Talk::v4(10, 1030, 80);
        self.talk(rig, talk, &plain(talk)?, &Plan::passes(&names))?;
        self.udp(rig)?;
        let v6 = Talk::v6(1032)?;
        self.conversation(rig, v6, "IPv6: ACK of an established flow", acknowledge)?;
        let v6 = Talk::v6(1033)?;
        self.pair(
            rig,
            v6,
            "IPv6: FC3",
            &payload::read(),
            &payload::values(),
            1,
        )?;
        for (network, port, tags, name) in [
            (40, 1034, &[10_u16][..], "one VLAN tag"),
            (50, 1036, &[100, 20][..], "two VLAN tags"),
        ] {
            let talk = Talk::v4(network, port, 502).tagged(tags);
            let ack = format!("{name}: ACK of an established flow");
            self.conversation(rig, talk, &ack, acknowledge)?;
            let talk = Talk::v4(network, port + 1, 502).tagged(tags);
            self.pair(
                rig,
                talk,
                &format!("{name}: FC3"),
                &payload::read(),
                &payload::values(),
                1,
            )?;
        }
        Ok(())
    }

    /// A request and its reply, `count` of each to a segment.
    fn pair(
        &mut self,
        rig: &Rc<RefCell<Rig>>,
        talk: Talk,
        name: &str,
        request: &[u8],
        reply: &[u8],
        count: usize,
    ) -> Result<()> {
        let asked = talk.request(PSH | ACK, &payload::repeated(request, count))?;
        let answered = talk.reply(PSH | ACK, &payload::repeated(reply, count))?;
        let script = Script::of(vec![
            asked.adus(count, request.len()),
            answered.adus(count, reply.len()),
        ]);
        let (first, second) = (format!("{name}, request"), format!("{name}, reply"));
        let names = [Some(first.as_str()), Some(second.as_str())];
        self.talk(rig, talk, &script, &Plan::passes(&names))
    }

    /// A request in two segments.
    fn split(&mut self, rig: &Rc<RefCell<Rig>>) -> Result<()> {
        let talk = Talk::v4(10, 1029, 502);
        let (request, reply) = (payload::read(), payload::values());
        let (first, second) = request.split_at(7);
        let first = talk.request(ACK, first)?;
        let script = Script::of(vec![
            // The second part has no transaction id, but counts: the reply's must be the same.
            first.adus(1, 7),
            talk.request(PSH | ACK, second)?,
            talk.reply(PSH | ACK, &reply)?.adus(1, reply.len()),
            talk.request(ACK, &[])?,
        ]);
        let names = [
            Some("split ADU, first part"),
            Some("split ADU, second part"),
            None,
            None,
        ];
        self.talk(rig, talk, &script, &Plan::passes(&names))
    }

    fn udp(&mut self, rig: &Rc<RefCell<Rig>>) -> Result<()> {
        let talk = Talk::v4(10, 1031, 5000);
        let data = talk.datagram(&[0x55; 100], false)?;
        let answer = talk.datagram(&[0x55; 100], true)?;
        let script = Script::of(vec![data, answer]);
        let names = [Some("plain UDP, 100 bytes"), Some("plain UDP, the answer")];
        self.case(rig, &script, &script, &Plan::passes(&names))
    }

    fn conversation(
        &mut self,
        rig: &Rc<RefCell<Rig>>,
        talk: Talk,
        name: &str,
        script: impl FnOnce(Talk) -> Result<Script>,
    ) -> Result<()> {
        self.talk(rig, talk, &script(talk)?, &Plan::passes(&[Some(name)]))
    }

    /// A script on flows that are opened first.
    fn talk(
        &mut self,
        rig: &Rc<RefCell<Rig>>,
        talk: Talk,
        script: &Script,
        plan: &Plan<'_>,
    ) -> Result<()> {
        let opening = talk.handshake()?.across(u64::from(plan.flows));
        self.case(rig, &opening, script, plan)
    }

    fn case(
        &mut self,
        rig: &Rc<RefCell<Rig>>,
        opening: &Script,
        script: &Script,
        plan: &Plan<'_>,
    ) -> Result<()> {
        let mut paced = Pacer::load(self.floors, plan.flows.max(2), 2)?;
        paced.aim(&rig.borrow().program()?)?;
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
            rig: Some(Rc::clone(rig)),
            outcome: plan.outcome,
            drained: plan.drained,
        });
        Ok(())
    }

    fn denials(&mut self, rig: &Rc<RefCell<Rig>>) -> Result<()> {
        let nothing = Script::nothing();
        let talk = Talk::v4(10, 2048, 502);
        let frames: [(&str, &'static str, Script, bool); 5] = [
            (
                "denied function",
                "function-not-allowed",
                denied(talk, &adu(0, 1, modbus::write_single(5, 0, 0xff00)))?,
                true,
            ),
            (
                "denied unit",
                "unit-not-allowed",
                denied(
                    Talk::v4(10, 2049, 502),
                    &adu(0, 9, modbus::read(3, 3000, 10)),
                )?,
                true,
            ),
            (
                "no conduit",
                "no-conduit",
                Script::of(vec![Talk::v4(10, 2050, 22).request(SYN, &[])?.staying()]),
                false,
            ),
            (
                "no flow",
                "no-flow",
                Script::of(vec![Talk::v4(10, 2051, 502).request(ACK, &[])?.staying()]),
                false,
            ),
            (
                "spoofed source",
                "spoofed-source",
                Script::of(vec![Talk::v4(77, 2052, 502).request(SYN, &[])?.staying()]),
                false,
            ),
        ];
        for (name, reason, script, is_open) in frames {
            for (drained, suffix) in [(true, "with its event"), (false, "its event lost")] {
                let name = format!("{name}, {suffix}");
                let names = [Some(name.as_str())];
                let plan = Plan::denied(&names, reason, drained);
                // The buffer is full when nobody reads it.
                let rig = if drained {
                    Rc::clone(rig)
                } else {
                    self.full()?
                };
                let opening = if is_open {
                    let port = if reason == "unit-not-allowed" {
                        2049
                    } else {
                        2048
                    };
                    Talk::v4(10, port, 502).handshake()?
                } else {
                    nothing.clone()
                };
                self.case(&rig, &opening, &script, &plan)?;
            }
        }
        Ok(())
    }

    /// A rig whose event buffer is full.
    fn full(&mut self) -> Result<Rc<RefCell<Rig>>> {
        let rig = self.rig(Policy::of(Extent::USUAL), Sizes::USUAL)?;
        let mut pacer = Pacer::load(self.floors, 2, 2)?;
        pacer.aim(&rig.borrow().program()?)?;
        let spoofed = Talk::v4(77, 2052, 502).request(SYN, &[])?.staying();
        pacer.begin(&Script::of(vec![spoofed]))?;
        pacer.run(40_000)?;
        Ok(rig)
    }

    fn spread(&mut self) -> Result<()> {
        for (name, flows) in [
            ("ACK, flows spread over 1k entries", 1024),
            ("ACK, flows spread over 64k entries", 65_536),
        ] {
            let sizes = Sizes {
                flows: flows * 2,
                openings: 4096,
                streams: flows * 2,
            };
            let rig = self.rig(Policy::of(Extent::USUAL), sizes)?;
            let talk = Talk::v4(10, 1024, 502);
            let plan = [Some(name)];
            let plan = Plan::passes(&plan).across(flows);
            let script = acknowledge(talk)?.across(u64::from(flows));
            self.talk(&rig, talk, &script, &plan)?;
        }
        Ok(())
    }

    fn extents(&mut self) -> Result<()> {
        let usual = Extent::USUAL;
        for rules in [10, 1000, 10_000] {
            let rig = self.rig(Policy::of(Extent { rules, ..usual }), Sizes::USUAL)?;
            let name = format!("{rules} rules: FC3");
            let (read, values) = (payload::read(), payload::values());
            self.pair(&rig, Talk::v4(10, 1024, 502), &name, &read, &values, 1)?;
            self.new_flow(&rig, &format!("{rules} rules: new flow"))?;
        }
        for conduits in [1, 64, 512] {
            let rig = self.rig(Policy::of(Extent { conduits, ..usual }), Sizes::USUAL)?;
            self.new_flow(&rig, &format!("{conduits} conduits: new flow"))?;
        }
        for zones in [4, 63] {
            let rig = self.rig(Policy::of(Extent { zones, ..usual }), Sizes::USUAL)?;
            self.new_flow(&rig, &format!("{zones} zones: new flow"))?;
        }
        Ok(())
    }

    /// SYN after SYN, each of a flow that was never seen.
    fn new_flow(&mut self, rig: &Rc<RefCell<Rig>>, name: &str) -> Result<()> {
        let syn = Talk::v4(10, 4096, 502).request(SYN, &[])?;
        let script = Script::of(vec![syn.staying()]).across(1 << 20);
        let plan = [Some(name)];
        let plan = Plan::passes(&plan).across(65_536);
        let nothing = Script::nothing();
        self.case(rig, &nothing, &script, &plan)
    }
}

fn denied(talk: Talk, payload: &[u8]) -> Result<Script> {
    Ok(Script::of(vec![talk.denied(payload)?]))
}

/// The floor alone, in nanoseconds, for a run that does not measure frames.
pub(crate) fn floor(object: &Path, floors: &Path) -> Result<f64> {
    let mut builder = Builder::new(object, floors, false);
    builder.floors()?;
    let is_floor = |case: &&mut Case| case.title() == FLOOR;
    let mut cases = builder.cases;
    let case = cases.iter_mut().find(is_floor).context("no floor")?;
    let mut rounds = Vec::new();
    for _ in 0..5 {
        rounds.push(case.measure()?[0] + case.empty_loop()?);
    }
    Ok(median(&mut rounds))
}
