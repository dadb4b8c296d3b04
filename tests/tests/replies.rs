//! What a responder may answer: the right reply to a request that waits, once, and nothing else.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, Drop, Pass, Reset};
use conduitfw_tests::conversation::{Stage, plant};
use conduitfw_tests::frames::modbus::{
    adu, diagnostics, encapsulated, fields, mask_write, read, read_write, with_header, write_coils,
    write_registers, write_single,
};
use conduitfw_tests::stage;

const MISMATCH: Want = Drop(Reason::ReplyMismatch);
const UNASKED: Want = Drop(Reason::UnsolicitedReply);
const ALL: &str = "functions = \"all\"";

/// A conduit that drops what is denied, so that the conversation goes on.
fn dropping(keys: &str) -> String {
    plant("on_deny = \"drop\"", &[&format!("{ALL}\n{keys}")])
}

/// A reply that counts its bytes.
fn counted(function: u8, bytes: usize) -> Vec<u8> {
    let [.., count] = bytes.to_be_bytes();
    [vec![function, count], vec![0; bytes]].concat()
}

/// Requests, each with its right reply.
fn exchanges() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for function in [1, 2] {
        for quantity in [1, 7, 8, 9, 16, 17, 1999, 2000] {
            let reply = counted(function, usize::from(quantity).div_ceil(8));
            all.push(("bits", read(function, 0, quantity), reply));
        }
    }
    for function in [3, 4] {
        for quantity in [1, 2, 124, 125] {
            let reply = counted(function, usize::from(quantity) * 2);
            all.push(("registers", read(function, 7, quantity), reply));
        }
    }
    let echo = |name, pdu: Vec<u8>| (name, pdu.clone(), pdu);
    let identity = encapsulated(14, &[1, 0]);
    let description = encapsulated(14, &[1, 1, 0, 0, 1, 0, 2, b'x', b'y']);
    all.extend([
        echo("coil", write_single(5, 3, 0xff00)),
        echo("register", write_single(6, 3, 77)),
        ("coils", write_coils(3, &[true; 9]), fields(15, &[3, 9])),
        ("written", write_registers(3, &[7; 9]), fields(16, &[3, 9])),
        echo("mask", mask_write(3, 1, 2)),
        ("both", read_write((3, 5), 9, &[1]), counted(23, 10)),
        ("status", vec![7], vec![7, 0x55]),
        echo("echo", diagnostics(0, 0x1234)),
        ("counter", diagnostics(11, 0), diagnostics(11, 99)),
        ("events", vec![11], fields(11, &[0, 7])),
        ("log", vec![12], counted(12, 8)),
        ("id", vec![17], counted(17, 5)),
        (
            "file",
            [vec![20, 7, 6], vec![0, 4, 0, 1, 0, 2]].concat(),
            counted(20, 6),
        ),
        echo(
            "records",
            [vec![21, 9, 6], vec![0, 4, 0, 1, 0, 1, 1, 2]].concat(),
        ),
        ("queue", fields(24, &[9]), fields(24, &[4, 1, 7])),
        ("identity", identity, description),
        ("vendor", vec![90, 1], vec![90, 1, 2, 3, 4]),
    ]);
    all
}

/// Asks and answers in a connection of its own.
fn exchange(
    stage: &mut Stage,
    name: &str,
    (request, reply): (&[u8], &[u8]),
    want: Want,
) -> Result<()> {
    let mut talk = stage.talk()?;
    talk.asks(stage, name, &adu(9, 1, request), Pass)?;
    talk.answers(stage, name, reply, want)
}

#[test]
fn the_right_reply_and_every_exception() -> Result<()> {
    let mut stage = stage!(&dropping(""));
    for (name, request, reply) in exchanges() {
        exchange(&mut stage, name, (&request, &adu(9, 1, &reply)), Pass)?;
        for code in [1, 2, 3, 4, 5, 6, 8, 10, 11, 255] {
            let refusal = adu(9, 1, [request[0] | 0x80, code]);
            exchange(&mut stage, name, (&request, &refusal), Pass)?;
        }
        let nothing = adu(9, 1, [request[0] | 0x80, 0]);
        exchange(&mut stage, "exception 0", (&request, &nothing), MISMATCH)?;
        let longer = adu(9, 1, [request[0] | 0x80, 1, 0]);
        exchange(&mut stage, "long exception", (&request, &longer), MISMATCH)?;
        let bare = adu(9, 1, [request[0] | 0x80]);
        exchange(&mut stage, "bare exception", (&request, &bare), MISMATCH)?;
    }
    stage.finish()
}

#[test]
fn a_wrong_reply_to_every_request() -> Result<()> {
    let mut stage = stage!(&dropping(""));
    for (name, request, reply) in exchanges() {
        let code = request[0];
        let says_length = matches!(code, 8 | 12 | 17 | 20 | 24 | 43 | 90);
        let mut longer = reply.clone();
        longer.push(0);
        let mut other = reply.clone();
        other[0] = if code == 3 { 4 } else { 3 };
        let mut replies = vec![
            ("another transaction", adu(10, 1, &reply), UNASKED),
            ("another unit", adu(9, 2, &reply), MISMATCH),
            ("another function", adu(9, 1, &other), MISMATCH),
            (
                "another protocol",
                with_header(9, 1, u16::try_from(reply.len() + 1)?, 1, &reply),
                Drop(Reason::ModbusProtocolId),
            ),
            (
                "no length",
                with_header(9, 0, 1, 1, &reply),
                Drop(Reason::ModbusLength),
            ),
            (
                "a length of 255",
                with_header(9, 0, 255, 1, &reply),
                Drop(Reason::ModbusLength),
            ),
        ];
        if !says_length {
            replies.push(("one byte more", adu(9, 1, &longer), MISMATCH));
            replies.push((
                "one byte less",
                adu(9, 1, &reply[..reply.len() - 1]),
                MISMATCH,
            ));
        }
        if matches!(code, 1..=4 | 12 | 17 | 20 | 21 | 23) {
            for by in [1, 255] {
                let mut reply = reply.clone();
                reply[1] = reply[1].wrapping_add(by);
                replies.push(("another count", adu(9, 1, &reply), MISMATCH));
            }
        }
        if matches!(code, 5 | 6 | 8 | 15 | 16 | 22 | 24) {
            for at in [1, 2] {
                let mut reply = reply.clone();
                reply[at] ^= 1;
                replies.push(("another echo", adu(9, 1, &reply), MISMATCH));
            }
        }
        for (what, bytes, want) in replies {
            let name = format!("{name}: {what}");
            exchange(&mut stage, &name, (&request, &bytes), want)?;
        }
    }
    stage.finish()
}

/// What unit 1 answers to a reading of one register.
fn one(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, counted(3, 2))
}

fn ask_one(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, read(3, 0, 1))
}

#[test]
fn a_reply_comes_once_and_after_its_request() -> Result<()> {
    let mut stage = stage!(&dropping(""));
    let mut talk = stage.talk()?;
    talk.answers(&mut stage, "before", &one(1), UNASKED)?;
    talk.asks(&mut stage, "asks", &ask_one(1), Pass)?;
    talk.answers(&mut stage, "answers", &one(1), Pass)?;
    talk.answers(&mut stage, "answers twice", &one(1), UNASKED)?;
    talk.answers(
        &mut stage,
        "an exception behind",
        &adu(1, 1, [0x83, 1]),
        UNASKED,
    )?;
    talk.asks(&mut stage, "asks again", &ask_one(1), Pass)?;
    talk.answers(
        &mut stage,
        "two in a segment",
        &[one(1), one(1)].concat(),
        UNASKED,
    )?;
    stage.finish()?;
    // A repeated segment of the responder is taken for what it is.
    let mut stage = stage!(&dropping(""));
    let mut talk = stage.talk()?;
    talk.asks(&mut stage, "asks", &ask_one(1), Pass)?;
    let same = talk;
    talk.answers(&mut stage, "answers", &one(1), Pass)?;
    let mut again = same;
    again.answers(&mut stage, "repeats itself", &one(1), Pass)?;
    let mut ahead = talk;
    ahead.answered(1);
    ahead.answers(&mut stage, "ahead", &one(1), Drop(Reason::OutOfOrder))?;
    stage.finish()
}

#[test]
fn a_denied_reply_ends_the_connection() -> Result<()> {
    let mut stage = stage!(&plant("", &[ALL]));
    let mut talk = stage.talk()?;
    talk.asks(&mut stage, "asks", &ask_one(1), Pass)?;
    talk.answers(&mut stage, "unsolicited", &one(2), UNASKED)?;
    let ended = Reason::FlowEnded;
    talk.answers(&mut stage, "the right one, late", &one(1), Drop(ended))?;
    talk.asks(
        &mut stage,
        "the responder is told",
        &ask_one(2),
        Reset(ended),
    )?;
    talk.asks(
        &mut stage,
        "the initiator is told",
        &ask_one(2),
        Want::SendBack(ended),
    )?;
    stage.finish()
}

#[test]
fn a_reply_cut_at_every_byte() -> Result<()> {
    let mut stage = stage!(&dropping(""));
    for (name, request, reply) in exchanges() {
        let right = adu(9, 1, &reply);
        let mut wrong = right.clone();
        wrong[7] ^= 0x40;
        for cut in 1..right.len().min(16) {
            let name = format!("{name} cut at {cut}");
            let mut talk = stage.talk()?;
            talk.asks(&mut stage, &name, &adu(9, 1, &request), Pass)?;
            talk.answers(&mut stage, &name, &right[..cut], Pass)?;
            talk.answers(&mut stage, &name, &right[cut..], Pass)?;
            let mut talk = stage.talk()?;
            talk.asks(&mut stage, &name, &adu(9, 1, &request), Pass)?;
            // The tenth byte is the last that a reply is judged by.
            let (first, second) = wrong.split_at(cut);
            let is_late = cut < wrong.len().min(10);
            let want = if is_late { Pass } else { MISMATCH };
            talk.answers(&mut stage, &name, first, want)?;
            if is_late {
                talk.answers(&mut stage, &name, second, MISMATCH)?;
            }
        }
        let mut talk = stage.talk()?;
        talk.asks(&mut stage, name, &adu(9, 1, &request), Pass)?;
        for byte in &right {
            talk.answers(&mut stage, &format!("{name} byte by byte"), &[*byte], Pass)?;
        }
        talk.answers(&mut stage, name, &right, UNASKED)?;
    }
    stage.finish()
}

#[test]
fn many_wait_and_are_answered_in_any_order() -> Result<()> {
    let mut stage = stage!(&dropping(""));
    let mut talk = stage.talk()?;
    // Identifiers that all begin their search in the same place.
    let ids: Vec<u16> = (0..16).map(|number| number * 16 + 3).collect();
    let requests: Vec<u8> = ids.iter().flat_map(|id| ask_one(*id)).collect();
    talk.asks(&mut stage, "16 at once", &requests, Pass)?;
    let full = Drop(Reason::TooManyOutstanding);
    talk.asks(&mut stage, "the 17th", &ask_one(500), full)?;
    talk.asks(&mut stage, "one of the 16 again", &ask_one(3), full)?;
    let order: Vec<u16> = [5, 15, 0, 9].map(|index| ids[index]).to_vec();
    let replies: Vec<u8> = order.iter().flat_map(|id| one(*id)).collect();
    talk.answers(&mut stage, "four, out of order, cut", &replies[..13], Pass)?;
    talk.answers(&mut stage, "the rest of them", &replies[13..], Pass)?;
    talk.answers(&mut stage, "one of them again", &one(ids[9]), UNASKED)?;
    let four: Vec<u8> = (600..604).flat_map(ask_one).collect();
    talk.asks(&mut stage, "four more", &four, Pass)?;
    talk.asks(&mut stage, "again one too many", &ask_one(700), full)?;
    let rest = ids.iter().filter(|id| !order.contains(id)).copied();
    for id in rest.chain(600..604) {
        talk.answers(&mut stage, &format!("reply to {id}"), &one(id), Pass)?;
    }
    talk.answers(&mut stage, "none is left", &one(ids[1]), UNASKED)?;
    stage.finish()
}

#[test]
fn as_many_wait_as_the_conduit_allows() -> Result<()> {
    let full = Drop(Reason::TooManyOutstanding);
    for limit in [1, 2, 15] {
        let mut stage = stage!(&dropping(&format!("max_outstanding = {limit}")));
        let mut talk = stage.talk()?;
        for id in 0..limit {
            talk.asks(&mut stage, &format!("{id} of {limit}"), &ask_one(id), Pass)?;
        }
        talk.asks(&mut stage, "one more", &ask_one(100), full)?;
        talk.answers(&mut stage, "a reply", &one(0), Pass)?;
        let two = [ask_one(100), ask_one(101)].concat();
        talk.asks(&mut stage, "two more", &two, full)?;
        talk.asks(&mut stage, "one more now", &ask_one(100), Pass)?;
        stage.finish()?;
    }
    Ok(())
}

#[test]
fn overdue_requests_give_way_and_late_replies_pass() -> Result<()> {
    let mut stage = stage!(&dropping("max_outstanding = 2"));
    let mut talk = stage.talk()?;
    let full = Drop(Reason::TooManyOutstanding);
    talk.asks(&mut stage, "first", &ask_one(1), Pass)?;
    stage.wait(600);
    talk.asks(&mut stage, "second", &ask_one(2), Pass)?;
    stage.wait(400);
    talk.asks(&mut stage, "at a second, both wait", &ask_one(3), full)?;
    stage.wait(4);
    talk.asks(&mut stage, "the first is overdue", &ask_one(3), Pass)?;
    talk.asks(&mut stage, "no other is", &ask_one(4), full)?;
    talk.answers(&mut stage, "the overdue one is matched", &one(1), Pass)?;
    talk.asks(&mut stage, "that makes no room", &ask_one(4), full)?;
    stage.wait(1004);
    talk.answers(&mut stage, "a late one", &one(3), Pass)?;
    talk.answers(&mut stage, "a later one", &one(2), Pass)?;
    talk.answers(&mut stage, "twice", &one(2), UNASKED)?;
    for id in 100..132 {
        stage.wait(1004);
        talk.asks(&mut stage, "never answered", &ask_one(id), Pass)?;
        talk.answers(&mut stage, "acknowledged", &[], Pass)?;
    }
    talk.answers(&mut stage, "its place was wanted", &one(100), UNASKED)?;
    talk.answers(&mut stage, "its place is still there", &one(131), Pass)?;
    stage.finish()
}

#[test]
fn two_requests_of_one_transaction() -> Result<()> {
    let mut stage = stage!(&dropping(""));
    let mut talk = stage.talk()?;
    let long = adu(5, 1, read(3, 0, 2));
    talk.asks(
        &mut stage,
        "both",
        &[long, adu(5, 2, read(3, 0, 1))].concat(),
        Drop(Reason::UnitNotAllowed),
    )?;
    let both = [ask_one(5), adu(5, 1, read(4, 0, 1))].concat();
    talk.asks(&mut stage, "of two functions", &both, Pass)?;
    talk.answers(
        &mut stage,
        "the second first",
        &adu(5, 1, counted(4, 2)),
        Pass,
    )?;
    talk.answers(
        &mut stage,
        "the second twice",
        &adu(5, 1, counted(4, 2)),
        MISMATCH,
    )?;
    talk.answers(&mut stage, "the first", &one(5), Pass)?;
    stage.finish()
}

#[test]
fn a_reply_longer_than_any_may_be_is_denied_though_it_was_asked_for() -> Result<()> {
    // Some rules allow to ask for more registers than an ADU of 260 bytes has room for.
    let mut stage = stage!(&dropping(""));
    for (function, quantity, count) in [
        (3, 126, 252_u8),
        (3, 127, 254),
        (4, 126, 252),
        (1, 2009, 252),
        (2, 2040, 255),
    ] {
        let mut pdu = vec![function, count];
        pdu.resize(2 + usize::from(count), 0);
        let reply = adu(7, 1, pdu);
        for there in [reply.len(), 200, 10] {
            let name = format!("function {function}, {quantity}, {there} bytes");
            let mut talk = stage.talk()?;
            talk.asks(
                &mut stage,
                &name,
                &adu(7, 1, read(function, 0, quantity)),
                Pass,
            )?;
            let too_long = Drop(Reason::ModbusLength);
            talk.answers(&mut stage, &name, &reply[..there], too_long)?;
        }
    }
    stage.finish()
}
