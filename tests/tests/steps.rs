//! How far and how often values may be written: `max_step` and `max_rate`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use anyhow::Result;
use conduitfw::policy::Ids;
use conduitfw::simulator::Simulator;
use conduitfw_common::Reason;
use conduitfw_common::table::MAX_LAST_VALUES;
use conduitfw_tests::conversation::Want::{self, Drop, Pass};
use conduitfw_tests::conversation::{Stage, Talk, on_loopback, plant};
use conduitfw_tests::frames::modbus::{adu, fields, mask_write, write_registers, write_single};
use conduitfw_tests::frames::{ACK, PSH, SYN, tcp};
use conduitfw_tests::scene::{HMI, PLC};
use conduitfw_tests::stage;
use conduitfw_tests::twin::{LOOPBACK, Sizes, compiled, settings};

const WRITES: &str = "functions = [6, 16, 22, 23]\nregisters = [{ first = 0, last = 199 }]";

/// A conduit that drops, so that the conversation goes on.
fn dropping(rules: &[&str]) -> String {
    plant("on_deny = \"drop\"", rules)
}

/// A request and its right answer.
fn transact(stage: &mut Stage, talk: &mut Talk, name: &str, pdu: &[u8], want: Want) -> Result<()> {
    talk.asks(stage, name, &adu(9, 1, pdu), want)?;
    if want == Pass {
        // Long enough for 6 and 22; 16 answers with address and quantity alone.
        let length = if pdu[0] == 16 { 5 } else { pdu.len() };
        talk.answers(stage, name, &adu(9, 1, &pdu[..length]), Pass)?;
    }
    Ok(())
}

const STEP: Want = Drop(Reason::StepTooLarge);

#[test]
fn a_step_is_held_against_what_was_written() -> Result<()> {
    let rule = format!("{WRITES}\nvalues = {{ max = 1000 }}\nmax_step = 10");
    let mut stage = stage!(&dropping(&[&rule]));
    let mut talk = stage.talk()?;
    let six = |value| write_single(6, 5, value);
    let sixteen = |value| write_registers(4, &[0, value]);
    let mask = |value| mask_write(5, 0, value);
    for (name, pdu, want) in [
        (
            "the first, beyond the values",
            six(1001),
            Drop(Reason::ValueNotAllowed),
        ),
        ("the first", six(500), Pass),
        ("up", six(510), Pass),
        ("too far up", six(521), STEP),
        ("down", six(500), Pass),
        ("too far down", six(489), STEP),
        ("by function 16", sixteen(490), Pass),
        ("too far by function 16", sixteen(501), STEP),
        ("by function 22", mask(500), Pass),
        ("too far by function 22", mask(511), STEP),
        ("not moved by what was denied", six(510), Pass),
        ("the same again", six(510), Pass),
        ("another register", write_single(6, 6, 0), Pass),
    ] {
        transact(&mut stage, &mut talk, name, &pdu, want)?;
    }
    let mut second = stage.talk()?;
    transact(&mut stage, &mut second, "from elsewhere", &six(521), STEP)?;
    transact(&mut stage, &mut second, "from elsewhere", &six(520), Pass)?;
    stage.finish()
}

#[test]
fn a_walk_needs_confirmed_steps() -> Result<()> {
    let rule = format!("{WRITES}\nmax_step = 10");
    let mut stage = stage!(&dropping(&[&rule]));
    let mut talk = stage.talk()?;
    let write = |transaction: u16, value: u16| adu(transaction, 1, write_single(6, 5, value));
    transact(
        &mut stage,
        &mut talk,
        "first",
        &write_single(6, 5, 100),
        Pass,
    )?;
    talk.asks(&mut stage, "never answered", &write(1, 110), Pass)?;
    talk.asks(
        &mut stage,
        "two steps from the confirmed one",
        &write(2, 120),
        STEP,
    )?;
    let mut other = stage.talk()?;
    other.asks(&mut stage, "from a new connection", &write(2, 120), STEP)?;
    other.asks(&mut stage, "back again", &write(2, 100), Pass)?;
    other.answers(&mut stage, "an exception", &adu(2, 1, [0x86, 4]), Pass)?;
    other.asks(&mut stage, "one step", &write(3, 110), Pass)?;
    other.answers(&mut stage, "refused", &adu(3, 1, [0x86, 4]), Pass)?;
    other.asks(
        &mut stage,
        "a refusal confirms nothing",
        &write(4, 120),
        STEP,
    )?;
    other.asks(&mut stage, "one step again", &write(5, 110), Pass)?;
    other.answers(&mut stage, "done", &write(5, 110), Pass)?;
    other.asks(&mut stage, "now the next", &write(6, 120), Pass)?;
    stage.finish()
}

#[test]
fn a_denied_segment_writes_nothing() -> Result<()> {
    let rule = format!("{WRITES}\nmax_step = 10");
    let mut stage = stage!(&dropping(&[&rule]));
    let mut talk = stage.talk()?;
    let write = |register: u16, value: u16| adu(7, 1, write_single(6, register, value));
    transact(
        &mut stage,
        &mut talk,
        "first",
        &write_single(6, 5, 100),
        Pass,
    )?;
    let bad = adu(8, 1, write_single(5, 0, 0));
    let both = [write(5, 110), bad].concat();
    talk.asks(
        &mut stage,
        "with a denied one",
        &both,
        Drop(Reason::FunctionNotAllowed),
    )?;
    talk.asks(
        &mut stage,
        "twice in a segment",
        &[write(5, 105), write(5, 110)].concat(),
        STEP,
    )?;
    let four = [write(10, 1), write(11, 1), write(12, 1), write(13, 1)].concat();
    talk.asks(
        &mut stage,
        "five in a segment",
        &[&four[..], &write(14, 1)].concat(),
        STEP,
    )?;
    let overlapping = adu(7, 1, write_registers(9, &[1, 1]));
    talk.asks(
        &mut stage,
        "overlapping",
        &[write(10, 1), overlapping].concat(),
        STEP,
    )?;
    talk.asks(&mut stage, "five had no effect", &write(10, 900), Pass)?;
    talk.asks(&mut stage, "four in a segment", &four[12..], Pass)?;
    talk.asks(&mut stage, "the first still counts", &write(5, 111), STEP)?;
    talk.asks(&mut stage, "one step from it", &write(5, 110), Pass)?;
    stage.finish()
}

/// The two registers of a number, the low half first.
fn words(bits: u32) -> [u16; 2] {
    let [a, b, c, d] = bits.to_be_bytes();
    [u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b])]
}

#[test]
fn steps_of_larger_numbers() -> Result<()> {
    let rule = |kind: &str, values: &str, step: &str| {
        format!(
            "functions = [16]\nregisters = [{{ first = 0, last = 9 }}]\ntype = \
             \"{kind}\"\nword_order = \"low-first\"\n{values}max_step = {step}"
        )
    };
    let float = |number: f32| number.to_bits();
    let signed = |number: i32| u32::from_be_bytes(number.to_be_bytes());
    for (rule, steps) in [
        (
            rule("u32", "", "70000"),
            vec![
                (0, true),
                (70_000, true),
                (140_001, false),
                (u32::MAX, false),
                (0, true),
            ],
        ),
        (
            rule("i32", "", "3"),
            vec![
                (signed(-2), true),
                (1, true),
                (signed(-3), false),
                (signed(-2), true),
            ],
        ),
        (
            rule("f32", "values = { min = -100.0, max = 100.0 }\n", "0.5"),
            vec![
                (float(-0.25), true),
                (float(0.25), true),
                (float(0.75), true),
                (float(1.25), true),
                (float(1.76), false),
                (float(0.74), false),
                (float(0.75), true),
            ],
        ),
    ] {
        let mut stage = stage!(&dropping(&[&rule]));
        let mut talk = stage.talk()?;
        for (bits, passes) in steps {
            let want = if passes { Pass } else { STEP };
            let pdu = write_registers(2, &words(bits));
            transact(
                &mut stage,
                &mut talk,
                &format!("{rule}: {bits:#x}"),
                &pdu,
                want,
            )?;
        }
        stage.finish()?;
    }
    Ok(())
}

#[test]
fn a_rate_counts_what_passes() -> Result<()> {
    let rated = "functions = [3, 6]\nregisters = [{ first = 0, last = 9 }]\nmax_rate = \"2/s \
                 burst 3\"";
    let other = "functions = [6]\nregisters = [{ first = 20, last = 29 }]\nvalues = { max = 10 \
                 }\nmax_rate = \"1/s\"";
    let mut stage = stage!(&dropping(&[rated, other]));
    let early = Drop(Reason::RateExceeded);
    let mut talks = [stage.talk()?, stage.talk()?];
    let mut ask = |stage: &mut Stage, which: usize, name: &str, pdu: &[u8], want| -> Result<()> {
        let talk = &mut talks[which];
        talk.asks(stage, name, &adu(1, 1, pdu), want)?;
        if want == Pass {
            let refusal = [pdu[0] | 0x80, 6];
            talk.answers(stage, name, &adu(1, 1, refusal), Pass)?;
        }
        Ok(())
    };
    let (read, write) = (fields(3, &[0, 1]), write_single(6, 0, 1));
    let elsewhere = Drop(Reason::RegisterNotAllowed);
    ask(&mut stage, 0, "1", &write, Pass)?;
    ask(
        &mut stage,
        1,
        "denied for another reason",
        &fields(3, &[9, 2]),
        elsewhere,
    )?;
    ask(&mut stage, 1, "2", &read, Pass)?;
    ask(&mut stage, 0, "3", &read, Pass)?;
    ask(&mut stage, 1, "4", &write, early)?;
    ask(
        &mut stage,
        0,
        "a rule of its own",
        &write_single(6, 20, 1),
        Pass,
    )?;
    ask(&mut stage, 0, "too early", &write_single(6, 20, 1), early)?;
    stage.wait(496);
    ask(&mut stage, 0, "a tick before it is due", &write, early)?;
    stage.wait(4);
    ask(&mut stage, 1, "due", &write, Pass)?;
    ask(&mut stage, 0, "the next", &write, early)?;
    stage.wait(496);
    let value = Drop(Reason::ValueNotAllowed);
    ask(
        &mut stage,
        0,
        "a denied value",
        &write_single(6, 20, 11),
        value,
    )?;
    stage.wait(4);
    ask(
        &mut stage,
        0,
        "counts against none",
        &write_single(6, 20, 1),
        Pass,
    )?;
    stage.wait(60_000);
    for number in 0..5 {
        let want = if number < 3 { Pass } else { early };
        ask(&mut stage, number % 2, "nothing is saved up", &write, want)?;
    }
    stage.finish()
}

#[test]
fn a_reply_confirms_what_was_written_to_its_own_unit() -> Result<()> {
    let rule = format!("{WRITES}\nmax_step = 10");
    let policy = dropping(&[&rule]).replace("units = [1]", "units = [1, 2]");
    let mut stage = stage!(&policy);
    let mut talk = stage.talk()?;
    let write = |unit: u8, value: u16| adu(u16::from(unit), unit, write_single(6, 5, value));
    talk.asks(&mut stage, "unit 1", &write(1, 10), Pass)?;
    talk.asks(&mut stage, "unit 2", &write(2, 100), Pass)?;
    talk.answers(&mut stage, "of unit 2", &write(2, 100), Pass)?;
    talk.answers(&mut stage, "of unit 1", &write(1, 10), Pass)?;
    for (name, unit, value, want) in [
        ("a step of unit 1", 1, 15, Pass),
        ("a step of unit 2", 2, 105, Pass),
        ("too far for unit 1", 1, 26, STEP),
        ("too far for unit 2", 2, 116, STEP),
    ] {
        talk.asks(&mut stage, name, &write(unit, value), want)?;
    }
    stage.finish()
}

/// The carrier of a guarded write waits for its answer while so much else is asked that other bytes stand
/// in its place: "6, register 5, value 777", by whoever would like that to be confirmed.
#[test]
fn an_answer_confirms_nothing_that_is_not_known_any_more() -> Result<()> {
    for is_denied in [false, true] {
        let guarded = "functions = [6, 16]\nregisters = [{ first = 0, last = 9 }]\nmax_step = 10";
        let free = "functions = [6, 16]\nregisters = [{ first = 10, last = 999 }]";
        let mut stage = stage!(&dropping(&[guarded, free]));
        let mut talk = stage.talk()?;
        let six = |value| write_single(6, 5, value);
        transact(&mut stage, &mut talk, "the first", &six(100), Pass)?;
        let mut values = vec![0; 123];
        values[1] = 100;
        let carrier = adu(1, 1, write_registers(4, &values));
        talk.asks(&mut stage, "the carrier", &carrier, Pass)?;
        stage.expect("acknowledged", &talk.plc_sends(&[]).build(), Pass)?;
        let mut asked = carrier.len();
        for number in 2..17 {
            let mut more = adu(number, 1, write_registers(500, &[0; 123]));
            let is_over_it = asked + more.len() > 4096;
            if is_over_it {
                let at = 4096 - asked;
                more[at + 7..at + 12].copy_from_slice(&[6, 0, 5, 3, 9]);
            }
            if is_over_it && is_denied {
                // A segment that is denied stands there as well.
                more.push(0);
                more[5] += 1;
                let frame = talk.hmi_sends(&more).build();
                stage.becomes_of(&frame)?;
            } else {
                talk.asks(&mut stage, "more", &more, Pass)?;
                stage.expect("acknowledged", &talk.plc_sends(&[]).build(), Pass)?;
            }
            asked += more.len();
        }
        let reply = [&[16][..], &4_u16.to_be_bytes(), &123_u16.to_be_bytes()].concat();
        talk.answers(&mut stage, "the carrier's answer", &adu(1, 1, reply), Pass)?;
        talk.asks(&mut stage, "a small step", &adu(200, 1, six(105)), Pass)?;
        talk.asks(&mut stage, "a large one", &adu(201, 1, six(777)), STEP)?;
        stage.finish()?;
    }
    Ok(())
}

#[test]
fn a_value_that_there_is_no_room_to_remember_is_not_written() {
    let policy =
        dropping(&["functions = [6]\nregisters = [{ first = 0, last = 999 }]\nmax_step = 1"])
            .replace("units = [1]", "units = [\"0-255\"]");
    let tables = compiled(&on_loopback(&policy), &mut Ids::default(), 1).unwrap();
    let sizes = Sizes {
        buckets: 64,
        streams: 64,
    };
    let mut simulator = Simulator::new(settings(sizes));
    simulator.apply(&tables, &BTreeMap::from([("lo".to_owned(), LOOPBACK)]));
    let (hmi, plc) = ((HMI, 4000), (PLC, 502));
    let mut sends = |frame: Vec<u8>| simulator.judge(&frame, LOOPBACK, 1000).judgement.reason();
    sends(tcp(hmi, plc).flags(SYN).seq(99).build());
    sends(tcp(plc, hmi).flags(SYN | ACK).seq(499).ack(100).build());
    let (mut asked, mut answered) = (100_u32, 500_u32);
    let mut write = |unit: u32, register: u32, value: u16| {
        let (unit, register) = (
            u8::try_from(unit).unwrap(),
            u16::try_from(register).unwrap(),
        );
        let bytes = adu(7, unit, write_single(6, register, value));
        let asks = tcp(hmi, plc).flags(PSH | ACK).seq(asked).ack(answered);
        let reason = sends(asks.payload(bytes.clone()).build());
        if reason.is_none() {
            asked += 12;
            let answers = tcp(plc, hmi).flags(PSH | ACK).seq(answered).ack(asked);
            assert_eq!(sends(answers.payload(bytes).build()), None);
            answered += 12;
        }
        reason
    };
    for number in 0..MAX_LAST_VALUES {
        assert_eq!(write(number / 1000, number % 1000, 0), None, "{number}");
    }
    assert_eq!(write(200, 7, 0), Some(Reason::StepTooLarge));
    assert_eq!(write(0, 7, 1), None, "what is known goes on");
}
