//! What a conduit in mode observe would deny passes, and so does what answers it.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{Drop, Observed, Pass};
use conduitfw_tests::conversation::plant;
use conduitfw_tests::frames::modbus::{adu, read, write_single};
use conduitfw_tests::frames::{ACK, PSH, SYN, tcp};
use conduitfw_tests::scene::{HMI, PLC};
use conduitfw_tests::stage;

/// The plant whose only conduit observes, with one more key of it.
fn observing(key: &str) -> String {
    let rules = plant("", &["functions = [\"reads\"]"]);
    rules.replace(
        "new_flows = \"unlimited\"",
        &format!("mode = \"observe\"\n{key}"),
    )
}

const ANY: &str = "new_flows = \"unlimited\"";

#[test]
fn ports_that_are_used_again_at_once() -> Result<()> {
    let mut stage = stage!(&observing(ANY));
    let mut talk = stage.talk()?;
    talk.asks(&mut stage, "read", &adu(1, 1, read(3, 0, 1)), Pass)?;
    let sequence = talk.next.0.wrapping_sub(20);
    let syn = tcp(talk.hmi, talk.plc).flags(SYN).seq(sequence).build();
    stage.expect("SYN", &syn, Observed(Reason::OutOfWindow))?;
    stage.finish()
}

#[test]
fn a_third_segment_that_confirms_something_else() -> Result<()> {
    let mut stage = stage!(&observing(ANY));
    let mut talk = stage.unopened(HMI, PLC);
    let syn = tcp(talk.hmi, talk.plc).flags(SYN).seq(talk.next.0).build();
    stage.expect("SYN", &syn, Pass)?;
    talk.asked(1);
    stage.expect(
        "SYN+ACK",
        &talk.plc_sends(&[]).flags(SYN | ACK).build(),
        Pass,
    )?;
    talk.answered(5);
    stage.expect(
        "ACK",
        &talk.hmi_sends(&[]).build(),
        Observed(Reason::NoFlow),
    )?;
    stage.finish()
}

#[test]
fn more_new_flows_than_the_rate_lets_in() -> Result<()> {
    let mut stage = stage!(&observing("new_flows = \"1/m burst 2\""));
    stage.talk()?;
    stage.talk()?;
    let mut talk = stage.unopened(HMI, PLC);
    let syn = tcp(talk.hmi, talk.plc).flags(SYN).seq(talk.next.0).build();
    stage.expect("SYN", &syn, Observed(Reason::NewFlowRate))?;
    talk.asked(1);
    let answer = talk.plc_sends(&[]).flags(SYN | ACK).build();
    stage.expect("SYN+ACK", &answer, Observed(Reason::NoFlow))?;
    talk.answered(1);
    stage.expect(
        "ACK",
        &talk.hmi_sends(&[]).build(),
        Observed(Reason::NoFlow),
    )?;
    let request = adu(1, 1, write_single(6, 0, 1));
    talk.asks(&mut stage, "a write", &request, Observed(Reason::NoFlow))?;
    talk.answers(&mut stage, "its reply", &request, Observed(Reason::NoFlow))?;
    // What the responder opens by itself is on no conduit.
    let own = tcp(talk.plc, talk.hmi).flags(SYN).seq(1).build();
    stage.expect("the other way", &own, Drop(Reason::NoConduit))?;
    stage.finish()
}

#[test]
fn a_connection_from_before_that_only_writes() -> Result<()> {
    let mut stage = stage!(&observing(ANY));
    let (hmi, plc) = ((HMI, 4000), (PLC, 502));
    let write = adu(1, 1, write_single(6, 0, 1));
    let asks = tcp(hmi, plc).flags(PSH | ACK).seq(100).ack(500);
    let answers = tcp(plc, hmi).flags(PSH | ACK).seq(500).ack(112);
    let no_flow = Observed(Reason::NoFlow);
    stage.expect("a write", &asks.payload(write.clone()).build(), no_flow)?;
    stage.expect("its reply", &answers.payload(write).build(), no_flow)?;
    stage.finish()
}
