//! Modbus requests, and how a denial ends the connection.

use conduitfw_common::Reason;
use conduitfw_common::event::field;
use conduitfw_tests::frames::modbus::adu;
use conduitfw_tests::frames::{ACK, FIN, RST, SYN, URG, modbus};
use conduitfw_tests::scene::dosing;

use crate::bench::{FAMILIES, bench};
use crate::outcome::Want;
use crate::outcome::Want::{Drop, Pass};
use crate::talk::{Talk, replies, unhurried};

#[test]
fn every_function_code_passes_where_all_are_allowed() {
    let mut bench = bench!(&dosing(r#""all""#));
    for (family, port) in FAMILIES.into_iter().zip(50_000..) {
        let mut talk = Talk::open(&mut bench, family, port);
        for function in 0..=255_u8 {
            let name = format!("function {function}");
            let transaction = u16::from(function);
            let request = adu(transaction, 1, modbus::request(function));
            talk.ask(&mut bench, &name, &request, Pass);
            talk.answer(
                &mut bench,
                &name,
                &adu(transaction, 1, [function | 0x80, 1]),
            );
        }
        let fin = talk.hmi_sends(&[]).flags(FIN | ACK).build();
        bench.expect("FIN", &fin, Pass);
        talk.next.0 = talk.next.0.wrapping_add(1);
        let fin = talk.plc_sends(&[]).flags(FIN | ACK).build();
        bench.expect("FIN of the responder", &fin, Pass);
        talk.next.1 += 1;
        bench.expect("the last ACK", &talk.hmi_sends(&[]).build(), Pass);
    }
    bench.finish();
}

#[test]
fn every_function_code_is_reset_where_none_is_allowed() {
    let mut bench = bench!(&unhurried(r#""read-coils""#, ""));
    for family in FAMILIES {
        for function in (0..=255_u8).filter(|function| *function != 1) {
            let name = format!("function {function}");
            let port = 50_000 + u16::from(function);
            let talk = Talk::open(&mut bench, family, port);
            let request = adu(1, 1, modbus::request(function));
            talk.denied(&mut bench, &name, &request, Reason::FunctionNotAllowed);
        }
        let talk = Talk::open(&mut bench, family, 49_000);
        let request = adu(1, 2, modbus::read(1, 0, 1));
        talk.denied(&mut bench, "unit", &request, Reason::UnitNotAllowed);
        let talk = Talk::open(&mut bench, family, 49_001);
        let request = modbus::with_header(1, 1, 6, 1, &modbus::read(1, 0, 1));
        talk.denied(&mut bench, "protocol", &request, Reason::ModbusProtocolId);
        let talk = Talk::open(&mut bench, family, 49_002);
        let request = modbus::with_header(1, 0, 7, 1, &modbus::read(1, 0, 1));
        talk.denied(
            &mut bench,
            "length",
            &[&request[..], &[0]].concat(),
            Reason::ModbusLengthMismatch,
        );
        let talk = Talk::open(&mut bench, family, 49_003);
        let request = modbus::with_header(1, 0, 255, 1, &modbus::read(1, 0, 1));
        talk.denied(&mut bench, "too long", &request, Reason::ModbusLength);
    }
    bench.finish();
}

#[test]
fn a_denied_request_may_be_dropped_alone() {
    let mut bench = bench!(&unhurried(r#""reads""#, "on_deny = \"drop\"\n"));
    let mut talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    talk.ask(
        &mut bench,
        "write",
        &write,
        Drop(Reason::FunctionNotAllowed),
    );
    talk.ask(
        &mut bench,
        "write again",
        &write,
        Drop(Reason::FunctionNotAllowed),
    );
    talk.ask(&mut bench, "read", &adu(2, 1, modbus::read(3, 0, 1)), Pass);
    bench.finish();
}

#[test]
fn an_adu_is_judged_however_it_is_cut() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let mut port = 50_000;
    for (request, is_allowed) in [
        (adu(1, 1, modbus::read(3, 0, 10)), true),
        (adu(1, 1, modbus::write_single(6, 0, 10)), false),
        (adu(1, 1, modbus::write_registers(0, &[1, 2, 3])), false),
    ] {
        for cut in 1..request.len() {
            port += 1;
            let name = format!("cut at {cut}, allowed {is_allowed}");
            let mut talk = Talk::open(&mut bench, FAMILIES[usize::from(port % 2)], port);
            let (first, second) = request.split_at(cut);
            // The eighth byte is the function code.
            if is_allowed || cut < 8 {
                talk.ask(&mut bench, &name, first, Pass);
            }
            if is_allowed {
                talk.ask(&mut bench, &name, second, Pass);
                talk.ask(&mut bench, &name, &request, Pass);
            } else {
                let rest = if cut < 8 { second } else { first };
                talk.denied(&mut bench, &name, rest, Reason::FunctionNotAllowed);
            }
        }
    }
    bench.finish();
}

#[test]
fn many_adus_share_a_segment() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let read = adu(1, 1, modbus::read(3, 0, 1));
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let mut talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
    talk.ask(&mut bench, "16", &read.repeat(16), Pass);
    talk.answer(&mut bench, "answers", &replies(&read.repeat(16)));
    let last = [read.repeat(15), write].concat();
    talk.denied(
        &mut bench,
        "the 16th denied",
        &last,
        Reason::FunctionNotAllowed,
    );
    let talk = Talk::open(&mut bench, FAMILIES[1], 50_000);
    let many = read.repeat(17);
    talk.denied(&mut bench, "too many", &many, Reason::TooManyOutstanding);
    bench.finish();
}

#[test]
fn a_repeated_segment_must_be_the_same() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    for (family, port) in FAMILIES.into_iter().zip(50_000..) {
        let mut talk = Talk::open(&mut bench, family, port);
        let read = adu(1, 1, modbus::read(3, 0, 1));
        let before = talk;
        talk.ask(&mut bench, "first", &read, Pass);
        bench.expect("again", &before.hmi_sends(&read).build(), Pass);
        bench.expect("a part again", &before.hmi_sends(&read[..5]).build(), Pass);
        let more = [&read[..], &read[..]].concat();
        bench.expect("again and more", &before.hmi_sends(&more).build(), Pass);
        talk.next.0 = talk.next.0.wrapping_add(u32::try_from(read.len()).unwrap());
        let mut later = talk;
        later.next.0 = later.next.0.wrapping_add(1);
        let early = later.hmi_sends(&read).build();
        bench.expect("ahead", &early, Drop(Reason::OutOfOrder));
        talk.ask(&mut bench, "in order", &read, Pass);
        let mut changed = read.clone();
        changed[7] = 6;
        let changed = before.hmi_sends(&changed).build();
        let want = Want::Reset(Reason::ChangedRetransmission);
        let out = bench.expect("changed", &changed, want);
        let reset = talk.hmi_sends(&[]).flags(RST | ACK).window(0).build();
        if out != reset {
            bench.complain("changed", &format!("reset {out:02x?}, not {reset:02x?}"));
        }
        talk.is_ended(&mut bench, "after the change", &read);
        let talk = Talk::open(&mut bench, family, port + 100);
        let urgent = talk.hmi_sends(&read).flags(ACK | URG).urgent(1).build();
        bench.expect("urgent", &urgent, Want::Reset(Reason::UrgentData));
    }
    bench.finish();
}

#[test]
fn an_event_says_what_was_asked_for() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
    let write = adu(77, 1, modbus::write_single(6, 1234, 5));
    bench.give(&talk.hmi_sends(&write).build());
    let events = bench.events();
    let [event] = &events[..] else {
        panic!("{} events", events.len())
    };
    let asked = event.operation;
    assert_eq!((event.source_port, event.destination_port), (50_000, 502));
    assert_eq!(
        (event.protocol, event.direction, event.transport),
        (1, 1, 6)
    );
    assert_eq!(
        (asked.transaction_id, asked.unit, asked.function),
        (77, 1, 6)
    );
    assert_eq!((asked.protocol_id, asked.length), (0, 6));
    assert_ne!(asked.fields & field::ADDRESS, 0, "{asked:?}");
    assert_eq!(asked.address, 1234);
}

#[test]
fn a_flow_is_ended_once_whichever_way_it_is_repeated() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let read = adu(1, 1, modbus::read(3, 0, 1));
    for (family, port) in FAMILIES.into_iter().zip(50_000..) {
        let mut talk = Talk::open(&mut bench, family, port);
        talk.ask(&mut bench, "read", &read, Pass);
        talk.answer(&mut bench, "answer", &replies(&read));
        talk.denied(
            &mut bench,
            "read and write",
            &[&read[..], &write].concat(),
            Reason::FunctionNotAllowed,
        );
        talk.is_ended(&mut bench, "read", &read);
        let reset = talk.hmi_sends(&[]).flags(RST).build();
        bench.expect("reset", &reset, Drop(Reason::FlowEnded));
        // The same ports, anew: not at once with numbers whose data may be on its way yet.
        let syn = talk.hmi_sends(&[]).flags(SYN).seq(0xffff_fff0).ack(0);
        bench.expect("SYN", &syn.build(), Drop(Reason::OutOfWindow));
        let mut talk = Talk::open_from(&mut bench, family, port, 100_000);
        talk.ask(&mut bench, "read anew", &read, Pass);
        let stray = talk.plc_sends(&[]).flags(RST).build();
        bench.expect("the responder's reset", &stray, Pass);
        talk.ask(&mut bench, "after it", &read, Drop(Reason::NoFlow));
    }
    bench.finish();
}
