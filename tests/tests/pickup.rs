//! Connections that were open before the gateway: which segment picks one up, and what holds then.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, Drop, Notice, Observed, Pass, Reset};
use conduitfw_tests::conversation::{Stage, Talk, neutral, plant, refusal};
use conduitfw_tests::frames::modbus::{adu, read, with_header, write_single};
use conduitfw_tests::frames::{ACK, FIN, PSH, RST, SYN, URG};
use conduitfw_tests::scene::{HMI, PLC};
use conduitfw_tests::stage;

const ADOPTED: Want = Notice(Reason::FlowAdopted);
const STRAY: Want = Drop(Reason::NoFlow);
const FUNCTION: Reason = Reason::FunctionNotAllowed;

fn ask(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, read(3, 0, 1))
}

fn reply(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, [3, 2, 0, 7])
}

fn write(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, write_single(6, 0, 1))
}

/// Opens the window for a minute.
fn window(stage: &mut Stage) -> Result<()> {
    let until = stage.now + 60 * 250;
    stage.twin()?.adopt_until(until)
}

#[test]
fn which_segment_picks_a_connection_up() -> Result<()> {
    let mut stage = stage!(&plant("", &["functions = [\"reads\"]"]));
    window(&mut stage)?;
    for (name, bytes, want) in [
        ("a read", ask(1), ADOPTED),
        ("coils", adu(1, 1, read(1, 0, 1)), ADOPTED),
        ("two reads", [ask(1), ask(2)].concat(), STRAY),
        ("a write", write(1), STRAY),
        ("a read and a write", [ask(1), write(1)].concat(), STRAY),
        (
            "one and a half",
            [&ask(1)[..], &ask(2)[..7]].concat(),
            STRAY,
        ),
        ("most of one", ask(1)[..11].to_vec(), STRAY),
        (
            "the rest of one and another",
            [&ask(1)[8..], &ask(2)[..8]].concat(),
            STRAY,
        ),
        (
            "another unit",
            adu(1, 2, read(3, 0, 1)),
            Drop(Reason::UnitNotAllowed),
        ),
        (
            "another length",
            with_header(1, 0, 7, 1, &read(3, 0, 1)),
            Drop(Reason::ModbusLengthMismatch),
        ),
    ] {
        let mut talk = stage.unopened(HMI, PLC);
        talk.asks(&mut stage, name, &bytes, want)?;
        if want != ADOPTED {
            // Nothing is left of it, and a read is as good as if it were the first.
            let back = talk.plc_sends(&reply(1)).build();
            stage.expect(name, &back, STRAY)?;
            talk.asks(&mut stage, name, &ask(3), ADOPTED)?;
        }
    }
    for (name, flags) in [
        ("SYN+ACK", SYN | ACK),
        ("FIN", FIN | ACK),
        ("RST", RST | ACK),
        ("URG", URG | ACK),
        ("no ACK", PSH),
    ] {
        let talk = stage.unopened(HMI, PLC);
        let frame = talk.hmi_sends(&ask(1)).flags(flags).build();
        let out = stage.sends(&frame)?;
        if !out.is_empty() {
            stage.complain(name, "it was not dropped");
        }
    }
    let talk = stage.unopened(HMI, PLC);
    let first = talk.plc_sends(&reply(1)).build();
    stage.expect("the responder speaks first", &first, STRAY)?;
    let mut stranger = stage.unopened("10.10.0.66".parse()?, PLC);
    stranger.asks(&mut stage, "no conduit", &ask(1), STRAY)?;
    stage.finish()
}

#[test]
fn one_request_goes_by_until_it_is_answered() -> Result<()> {
    let mut stage = stage!(&plant("", &["functions = [\"reads\"]"]));
    window(&mut stage)?;
    let mut talk = stage.unopened(HMI, PLC);
    let before = talk;
    talk.asks(&mut stage, "picked up", &ask(9), ADOPTED)?;
    let ahead = Drop(Reason::OutOfOrder);
    talk.asks(&mut stage, "one more", &ask(10), ahead)?;
    talk.asks(&mut stage, "a denied one", &write(10), ahead)?;
    stage.expect("repeated", &before.hmi_sends(&ask(9)).build(), Pass)?;
    stage.expect(
        "a part of it",
        &before.hmi_sends(&ask(9)[..5]).build(),
        Pass,
    )?;
    let more = before.hmi_sends(&[ask(9), ask(10)].concat()).build();
    stage.expect("repeated and more", &more, ahead)?;
    let mut older = before;
    older.next.0 = older.next.0.wrapping_sub(12);
    stage.expect("older bytes", &older.hmi_sends(&write(8)).build(), ahead)?;
    talk.answers(&mut stage, "its answer", &reply(9), Pass)?;
    talk.asks(&mut stage, "now one more", &ask(10), Pass)?;
    talk.answers(&mut stage, "answered", &reply(10), Pass)?;
    let unasked = Drop(Reason::UnsolicitedReply);
    talk.answers(&mut stage, "not asked for", &reply(7), unasked)?;
    let mut talk = stage.unopened(HMI, PLC);
    talk.asks(&mut stage, "picked up", &ask(9), ADOPTED)?;
    talk.answers(&mut stage, "answered", &reply(9), Pass)?;
    talk.asks(&mut stage, "a denied one", &write(11), Reset(FUNCTION))?;
    stage.finish()
}

#[test]
fn the_conduit_holds_from_then_on() -> Result<()> {
    let reads = &["functions = [\"reads\"]"];
    let mut stage = stage!(&plant("on_deny = \"exception\"", reads));
    window(&mut stage)?;
    let mut talk = stage.unopened(HMI, PLC);
    talk.asks(&mut stage, "picked up", &ask(2), ADOPTED)?;
    talk.answers(&mut stage, "answered", &reply(2), Pass)?;
    let form = neutral(&write(3));
    talk.asks_as(
        &mut stage,
        "denied",
        &write(3),
        (Want::Exception(FUNCTION), &form),
    )?;
    let (from, to) = (refusal(&form, 3), refusal(&write(3), 1));
    talk.answers_as(&mut stage, "refusal", &from, (Want::Edited, &to))?;
    stage.finish()?;

    let mut stage = stage!(&plant("mode = \"observe\"", reads));
    window(&mut stage)?;
    let mut talk = stage.unopened(HMI, PLC);
    talk.asks(&mut stage, "observed", &write(1), Observed(Reason::NoFlow))?;
    talk.asks(&mut stage, "picked up", &ask(2), ADOPTED)?;
    talk.answers(&mut stage, "answered", &reply(2), Pass)?;
    talk.asks(&mut stage, "observed", &write(3), Observed(FUNCTION))?;
    stage.finish()
}

#[test]
fn the_window_closes() -> Result<()> {
    let mut stage = stage!(&plant("", &["functions = [\"reads\"]"]));
    window(&mut stage)?;
    let mut early = stage.unopened(HMI, PLC);
    early.asks(&mut stage, "in the window", &ask(1), ADOPTED)?;
    early.answers(&mut stage, "its answer", &reply(1), Pass)?;
    stage.wait(59_996);
    let mut last = stage.unopened(HMI, PLC);
    last.asks(&mut stage, "in its last tick", &ask(1), ADOPTED)?;
    stage.wait(4);
    let mut late = stage.unopened(HMI, PLC);
    late.asks(&mut stage, "after it", &ask(1), STRAY)?;
    early.asks(&mut stage, "what was picked up stays", &ask(2), Pass)?;
    early.answers(&mut stage, "and is answered", &reply(2), Pass)?;
    stage.finish()
}

#[test]
fn what_is_not_inspected_needs_no_payload() -> Result<()> {
    let mut stage = stage!(&plant("tcp = [80]", &["functions = [\"reads\"]"]));
    window(&mut stage)?;
    let web = |stage: &mut Stage| {
        let talk = stage.unopened(HMI, PLC);
        Talk {
            plc: (PLC, 80).into(),
            ..talk
        }
    };
    for bytes in [&b""[..], b"GET", &[0xff; 300]] {
        let mut talk = web(&mut stage);
        talk.asks(&mut stage, "picked up", bytes, ADOPTED)?;
        talk.answers(&mut stage, "answered", b"anything", Pass)?;
        talk.asks(&mut stage, "goes on", b"more", Pass)?;
    }
    stage.finish()
}
