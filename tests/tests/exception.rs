//! The verdict exception, byte for byte: what goes on to the responder in place of a denied
//! request, and what comes back to the initiator in place of its refusal.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, Drop, Edited, HeldBack, Observed, Pass, Reset};
use conduitfw_tests::conversation::{Stage, Talk, neutral, plant, refusal};
use conduitfw_tests::frames::modbus::{
    adu, fields, mask_write, read, read_write, request, with_header, write_coils, write_registers,
    write_single,
};
use conduitfw_tests::frames::{ACK, PSH};
use conduitfw_tests::stage;

const FUNCTION: Reason = Reason::FunctionNotAllowed;
const DENIED: Want = Want::Exception(FUNCTION);

fn policy() -> String {
    plant("on_deny = \"exception\"", &["functions = [\"reads\"]"])
}

fn allowed(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, read(3, 0, 1))
}

fn answered(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, [3, 2, 0, 7])
}

fn write(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, write_single(6, 10, 4321))
}

#[test]
fn every_form_goes_on_and_its_refusal_comes_back() -> Result<()> {
    let mut stage = stage!(&policy());
    let mut requests = vec![
        ("coil", adu(0x1234, 1, write_single(5, 3, 0xff00))),
        ("register", adu(0x1234, 1, write_single(6, 3, 0xabcd))),
        ("coils", adu(0x1234, 1, write_coils(3, &[true; 17]))),
        ("1968 coils", adu(0x1234, 1, write_coils(3, &[true; 1968]))),
        (
            "registers",
            adu(0x1234, 1, write_registers(3, &[0xffff; 3])),
        ),
        (
            "123 registers",
            adu(0x1234, 1, write_registers(3, &[0xabcd; 123])),
        ),
        ("mask", adu(0x1234, 1, mask_write(3, 0xf0f0, 0x0f0f))),
        (
            "read and write",
            adu(0x1234, 1, read_write((0, 9), 3, &[0x5555; 3])),
        ),
        ("another unit", adu(0x1234, 9, write_single(6, 3, 1))),
        ("reads of another unit", adu(0x1234, 9, read(3, 3, 1))),
    ];
    // Every code that is not allowed, as short as it can be, if there is a form of that length.
    let short = |code: &u8| !matches!(adu(1, 1, request(*code)).len(), 9..=11);
    let is_denied = |code: &u8| !matches!(code, 1..=4 | 20 | 24);
    for code in (0..=127_u8).filter(is_denied).filter(short) {
        requests.push(("shortest", adu(0x1234, 1, request(code))));
    }
    for (name, asked) in requests {
        let name = format!("{name}, function {}", asked[7]);
        let reason = if asked[6] == 1 {
            FUNCTION
        } else {
            Reason::UnitNotAllowed
        };
        for code in [1, 2, 3, 4] {
            let mut talk = stage.talk()?;
            let form = neutral(&asked);
            talk.asks_as(&mut stage, &name, &asked, (Want::Exception(reason), &form))?;
            let (from, to) = (refusal(&form, code), refusal(&asked, 1));
            let want = if from == to { Pass } else { Edited };
            talk.answers_as(&mut stage, &name, &from, (want, &to))?;
            talk.asks(&mut stage, "the next", &allowed(2), Pass)?;
            talk.answers(&mut stage, "its answer", &answered(2), Pass)?;
        }
    }
    stage.finish()
}

#[test]
fn what_answers_other_than_with_a_refusal() -> Result<()> {
    let mut stage = stage!(&policy());
    let mismatch = Drop(Reason::ReplyMismatch);
    // A reading of no registers may be answered with none: as long as an exception.
    let mut talk = stage.talk()?;
    let form = neutral(&write(5));
    talk.asks_as(&mut stage, "write", &write(5), (DENIED, &form))?;
    let none = adu(5, 1, [3, 0]);
    talk.answers_as(
        &mut stage,
        "no registers",
        &none,
        (Edited, &refusal(&write(5), 1)),
    )?;
    for (name, reply) in [
        ("registers", adu(5, 1, [3, 2, 0, 0])),
        ("an echo of the write", write(5)),
        ("a refusal of the write", refusal(&write(5), 1)),
        ("a refusal of another unit", adu(5, 2, [0x83, 1])),
        ("a refusal of another function", adu(5, 1, [0x90, 1])),
    ] {
        let mut talk = stage.talk()?;
        talk.asks_as(&mut stage, name, &write(5), (DENIED, &form))?;
        talk.answers(&mut stage, name, &reply, mismatch)?;
    }
    let mut talk = stage.talk()?;
    talk.asks_as(&mut stage, "write", &write(5), (DENIED, &form))?;
    let other = Drop(Reason::UnsolicitedReply);
    talk.answers(
        &mut stage,
        "another transaction",
        &adu(6, 1, [0x83, 1]),
        other,
    )?;
    stage.finish()
}

#[test]
fn a_denied_request_cut_at_every_byte() -> Result<()> {
    let mut stage = stage!(&policy());
    for asked in [
        write(7),
        adu(7, 1, write_registers(3, &[0xffff; 5])),
        adu(7, 1, [65]),
    ] {
        let form = neutral(&asked);
        let name = format!("{} bytes", asked.len());
        for cut in 1..asked.len() {
            let name = format!("{name} cut at {cut}");
            let mut talk = stage.talk()?;
            let (first, second) = asked.split_at(cut);
            if cut < 8 {
                talk.asks(&mut stage, &name, first, Pass)?;
                talk.asks_as(&mut stage, &name, second, (DENIED, &form[cut..]))?;
            } else {
                talk.asks_as(&mut stage, &name, first, (DENIED, &form[..cut]))?;
                talk.asks_as(&mut stage, &name, second, (Edited, &form[cut..]))?;
            }
            let reply = refusal(&form, 3);
            let wanted = refusal(&asked, 1);
            let at = cut.min(reply.len() - 1);
            answer_cut(&mut stage, &name, &mut talk, (&reply, &wanted, at))?;
            talk.asks(&mut stage, "the next", &allowed(2), Pass)?;
        }
    }
    // A value is only known when the function code has gone by.
    let rule = "functions = [6, 16]\nvalues = { max = 5 }";
    let mut stage_of_values = {
        stage.finish()?;
        stage!(&plant("on_deny = \"exception\"", &[rule]))
    };
    let value = Reason::ValueNotAllowed;
    for cut in 1..12 {
        let name = format!("a value, cut at {cut}");
        let mut talk = stage_of_values.talk()?;
        talk.asks(&mut stage_of_values, &name, &write(7)[..cut], Pass)?;
        let rest = &write(7)[cut..];
        if cut < 8 {
            let want = (Want::Exception(value), &neutral(&write(7))[cut..]);
            talk.asks_as(&mut stage_of_values, &name, rest, want)?;
        } else {
            talk.asks(&mut stage_of_values, &name, rest, Reset(value))?;
        }
    }
    stage_of_values.finish()
}

/// The refusal comes in two segments. It is judged when all of its nine bytes are there, so that the
/// function code stays that of the form when it alone goes by before.
fn answer_cut(
    stage: &mut Stage,
    name: &str,
    talk: &mut Talk,
    (reply, wanted, at): (&[u8], &[u8], usize),
) -> Result<()> {
    let (first, second) = (&reply[..at], &wanted[at..]);
    talk.answers(stage, name, first, Pass)?;
    let want = if reply[at..] == *second { Pass } else { Edited };
    talk.answers_as(stage, name, &reply[at..], (want, second))
}

#[test]
fn several_requests_in_a_segment() -> Result<()> {
    let mut stage = stage!(&policy());
    let long = |id| adu(id, 1, write_registers(9, &[0xeeee; 4]));
    for pattern in 0..16_u16 {
        let name = format!("pattern {pattern:04b}");
        let (mut asked, mut goes_on) = (Vec::new(), Vec::new());
        let (mut replies, mut wanted) = (Vec::new(), Vec::new());
        for id in 0..4 {
            let is_denied = pattern & 1 << id != 0;
            let adu = match (is_denied, id) {
                (false, _) => allowed(id),
                (true, 1) => long(id),
                (true, _) => write(id),
            };
            if is_denied {
                goes_on.extend(neutral(&adu));
                replies.extend(refusal(&neutral(&adu), 2));
                wanted.extend(refusal(&adu, 1));
            } else {
                goes_on.extend(&adu);
                replies.extend(answered(id));
                wanted.extend(answered(id));
            }
            asked.extend(adu);
        }
        let mut talk = stage.talk()?;
        let (there, back) = if pattern == 0 {
            (Pass, Pass)
        } else {
            (DENIED, Edited)
        };
        talk.asks_as(&mut stage, &name, &asked, (there, &goes_on))?;
        let before = talk;
        talk.answers_as(&mut stage, &name, &replies, (back, &wanted))?;
        // The initiator has not seen them: repeated whole, and cut anew.
        let mut again = before;
        again.answers_as(&mut stage, &name, &replies, (back, &wanted))?;
        for cut in 1..replies.len() {
            let mut again = before;
            for (part, wanted) in [
                (&replies[..cut], &wanted[..cut]),
                (&replies[cut..], &wanted[cut..]),
            ] {
                let want = if part == wanted { Pass } else { Edited };
                again.answers_as(&mut stage, &name, part, (want, wanted))?;
            }
        }
        talk.asks(&mut stage, "the next", &allowed(99), Pass)?;
    }
    stage.finish()
}

#[test]
fn a_repeated_request_is_changed_alike() -> Result<()> {
    let mut stage = stage!(&policy());
    let requests = [
        allowed(1),
        write(2),
        adu(3, 1, write_registers(1, &[7; 3])),
        allowed(4),
    ];
    let asked = requests.concat();
    // The first part of a request does not go on behind another one.
    let goes_on = |first: usize, last: usize| {
        let (mut start, mut end) = (0, 0);
        for request in &requests {
            (start, end) = (end, end + request.len());
            if last <= end {
                break;
            }
        }
        if start == 0 || last == end {
            last
        } else {
            start.max(first)
        }
    };
    let form = [
        allowed(1),
        neutral(&write(2)),
        neutral(&adu(3, 1, write_registers(1, &[7; 3]))),
        allowed(4),
    ]
    .concat();
    let mut talk = stage.talk()?;
    let before = talk;
    talk.asks_as(&mut stage, "first", &asked, (DENIED, &form))?;
    for first in 0..asked.len() {
        for last in [first + 1, first + 9, asked.len()] {
            let last = last.min(asked.len());
            let mut again = before;
            again.asked(first);
            let end = goes_on(first, last);
            let (part, wanted) = (&asked[first..last], &form[first..end]);
            let want = if end < last {
                HeldBack
            } else if part == wanted {
                Pass
            } else {
                Edited
            };
            if wanted.is_empty() {
                let frame = again.hmi_sends(part);
                let wanted = again.hmi_sends(&[]).flags(PSH | ACK);
                stage.becomes(&format!("{first}..{last}"), &frame, want, &wanted)?;
                continue;
            }
            again.asks_as(
                &mut stage,
                &format!("{first}..{last}"),
                part,
                (want, wanted),
            )?;
        }
    }
    // Repeated together with more.
    let mut again = before;
    let more = [&asked[..], &write(5)].concat();
    let forms = [&form[..], &neutral(&write(5))].concat();
    again.asks_as(&mut stage, "and more", &more, (DENIED, &forms))?;
    // What the responder has is not remembered as it came, but as it was asked.
    let mut changed = before;
    changed.asks(
        &mut stage,
        "as it went on",
        &form,
        Reset(Reason::ChangedRetransmission),
    )?;
    stage.finish()
}

#[test]
fn where_there_is_no_form_a_reset_goes_on() -> Result<()> {
    let mut stage = stage!(&policy());
    for (name, asked, reason) in [
        ("9 bytes", adu(1, 1, [65, 0]), FUNCTION),
        ("10 bytes", adu(1, 1, [65, 0, 0]), FUNCTION),
        ("11 bytes", adu(1, 1, [65, 0, 0, 0]), FUNCTION),
        ("identity", adu(1, 1, [43, 14, 1, 0]), FUNCTION),
        (
            "queue of another unit",
            adu(1, 9, fields(24, &[0])),
            Reason::UnitNotAllowed,
        ),
        (
            "another protocol",
            with_header(1, 1, 6, 1, &read(3, 0, 1)),
            Reason::ModbusProtocolId,
        ),
        (
            "length 1",
            with_header(1, 0, 1, 1, &[]),
            Reason::ModbusLength,
        ),
        (
            "length 255",
            with_header(1, 0, 255, 1, &read(3, 0, 1)),
            Reason::ModbusLength,
        ),
        (
            "a longer read",
            adu(1, 1, [&read(3, 0, 1)[..], &[0]].concat()),
            Reason::ModbusLengthMismatch,
        ),
    ] {
        let mut talk = stage.talk()?;
        talk.asks(&mut stage, name, &asked, Reset(reason))?;
        let mut talk = stage.talk()?;
        let behind = [write(1), asked].concat();
        talk.asks(
            &mut stage,
            &format!("{name} behind a denied one"),
            &behind,
            Reset(reason),
        )?;
    }
    let sixteen: Vec<u8> = (0..16).flat_map(allowed).collect();
    let mut talk = stage.talk()?;
    talk.asks(&mut stage, "16 wait", &sixteen, Pass)?;
    talk.asks(&mut stage, "a denied one more", &write(20), Reset(FUNCTION))?;
    let mut talk = stage.talk()?;
    let denied: Vec<u8> = (0..16).flat_map(write).collect();
    let forms: Vec<u8> = (0..16).flat_map(|id| neutral(&write(id))).collect();
    talk.asks_as(&mut stage, "16 denied", &denied, (DENIED, &forms))?;
    talk.asks(&mut stage, "the 17th denied", &write(20), Reset(FUNCTION))?;
    stage.finish()
}

#[test]
fn in_mode_observe_nothing_is_changed() -> Result<()> {
    let keys = "on_deny = \"exception\"\nmode = \"observe\"";
    let mut stage = stage!(&plant(keys, &["functions = [\"reads\"]"]));
    let mut talk = stage.talk()?;
    for id in 0..40 {
        let asked = if id % 2 == 0 {
            write(id)
        } else {
            adu(id, 1, write_registers(0, &[1]))
        };
        let reply = adu(id, 1, &asked[7..12]);
        talk.asks(&mut stage, "write", &asked, Observed(FUNCTION))?;
        talk.answers(&mut stage, "its answer", &reply, Pass)?;
        let both = [allowed(id), write(100)].concat();
        talk.asks(&mut stage, "read and write", &both, Observed(FUNCTION))?;
        talk.answers(
            &mut stage,
            "answers",
            &[answered(id), write(100)].concat(),
            Pass,
        )?;
    }
    stage.finish()
}
