//! Frames that are denied, with an event for each and without.

use anyhow::Result;
use conduitfw::dataplane::TableSizes;
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::frames::{ACK, PSH, SYN};

use super::{Bed, Builder, PASSED, Plan};
use crate::pacer::Script;
use crate::policy::{Extent, OnDeny, Policy};
use crate::rig::USUAL_SIZES;
use crate::talk::Talk;

/// A frame that is denied: its name, the reason, the frame, and the flow that it needs.
type Denial = (&'static str, &'static [&'static str], Script, Option<Talk>);

impl Builder<'_> {
    pub(super) fn denials(&mut self, bed: &Bed) -> Result<()> {
        let full = self.bed(Policy::of(Extent::USUAL), USUAL_SIZES).full();
        for (name, reason, script, flow) in denials()? {
            for (bed, suffix) in [(bed, "with its event"), (&full, "its event lost")] {
                let name = format!("{name}, {suffix}");
                let names = [Some(name.as_str())];
                let plan = Plan::new(&names, reason);
                // The rings are full where nobody reads it.
                let plan = if bed.is_full { plan } else { plan.drained() };
                let opening = match flow {
                    Some(talk) => talk.handshake()?,
                    None => Script::nothing(),
                };
                self.case(bed, &opening, &script, &plan)?;
            }
        }
        self.reset()?;
        self.exception()
    }

    /// A denial ends the flow, so each needs a new one.
    fn reset(&mut self) -> Result<()> {
        let flows = 65_536;
        let sizes = TableSizes {
            flows: 2 * flows,
            ..USUAL_SIZES
        };
        let policy = Policy::of(Extent::USUAL).on_deny(OnDeny::Reset);
        let bed = self.bed(policy, sizes);
        let talk = Talk::v4(10, 4096, 502);
        let script = Script::of(vec![
            talk.request(SYN, &[])?,
            talk.reply(SYN | ACK, &[])?,
            talk.request(ACK, &[])?,
            talk.denied(&forbidden())?,
        ]);
        let names = [
            None,
            Some("second segment of a handshake"),
            Some("third segment of a handshake"),
            Some("denied function, reset, with its event"),
        ];
        let outcomes = &[PASSED, PASSED, PASSED, "function-not-allowed"];
        let plan = Plan::new(&names, outcomes).drained().across(flows);
        // No flow is used twice in the usual number of rounds.
        let plan = plan.frames(256);
        let script = script.across(u64::from(flows));
        // The first flow of all stands for the opening, which sets the numbers of all.
        self.case(&bed, &Script::nothing(), &script, &plan)
    }

    /// The request goes on in a form that the responder refuses, and the refusal comes back.
    fn exception(&mut self) -> Result<()> {
        let policy = Policy::of(Extent::USUAL).on_deny(OnDeny::Exception);
        let bed = self.bed(policy, USUAL_SIZES);
        let talk = Talk::v4(10, 4096, 502);
        let request = forbidden();
        // What was twelve bytes is a reading of no registers by then.
        let refusal = adu(0, 1, [0x83, 2]);
        let script = Script::of(vec![
            talk.request(PSH | ACK, &request)?.adus(1, request.len()),
            talk.reply(PSH | ACK, &refusal)?.adus(1, refusal.len()),
        ]);
        let names = [
            Some("denied function, exception, with its event"),
            Some("the exception's way back"),
        ];
        let plan = Plan::new(&names, &["function-not-allowed", PASSED]).drained();
        self.talk(&bed, talk, &script, &plan)
    }
}

/// A write of a coil, which no rule allows.
fn forbidden() -> Vec<u8> {
    adu(0, 1, modbus::write_single(5, 0, 0xff00))
}

fn denials() -> Result<[Denial; 5]> {
    let (function, unit) = (Talk::v4(10, 2048, 502), Talk::v4(10, 2049, 502));
    let read = adu(0, 9, modbus::read(3, 3000, 10));
    let one = |template| Script::of(vec![template]);
    Ok([
        (
            "denied function",
            &["function-not-allowed"],
            one(function.denied(&forbidden())?),
            Some(function),
        ),
        (
            "denied unit",
            &["unit-not-allowed"],
            one(unit.denied(&read)?),
            Some(unit),
        ),
        (
            "no conduit",
            &["no-conduit"],
            one(Talk::v4(10, 2050, 22).request(SYN, &[])?.staying()),
            None,
        ),
        (
            "no flow",
            &["no-flow"],
            one(Talk::v4(10, 2051, 502).request(ACK, &[])?.staying()),
            None,
        ),
        (
            "spoofed source",
            &["spoofed-source"],
            one(Talk::v4(77, 2052, 502).request(SYN, &[])?.staying()),
            None,
        ),
    ])
}
