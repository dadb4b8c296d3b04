//! What a processor remembers of the last frames changes no decision: where their flows are, and what a flow
//! was denied. Every frame is judged by kernel and simulator alike.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, Drop, Pass};
use conduitfw_tests::conversation::{Talk, plant};
use conduitfw_tests::frames::modbus::{adu, read, write_single};
use conduitfw_tests::frames::{ACK, FIN, RST, udp};
use conduitfw_tests::stage;

fn policy(functions: &str) -> String {
    // All of the two zones, so that there are flows that share a mark.
    let policy = plant(
        "on_deny = \"drop\"",
        &[&format!("functions = [{functions}]")],
    );
    policy
        .replace("from = [\"hmi-1\"]", "from = [\"operations\"]")
        .replace("to = [\"plc-dosing\"]", "to = [\"control\"]")
}

fn ask(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, read(3, 0, 10))
}

fn reply(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, [&[3, 20][..], &[0; 20]].concat())
}

fn write(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, write_single(6, 10, 1))
}

const DENIED: Want = Drop(Reason::FunctionNotAllowed);

#[test]
fn flows_with_one_mark_are_told_apart() -> Result<()> {
    let mut stage = stage!(&policy("\"reads\""));
    let mut talks = Vec::new();
    // The same ports, and addresses that differ alike on both sides.
    for difference in 0..4 {
        let hmi = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 4 ^ difference));
        let plc = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 8 ^ difference));
        let mut talk = stage.unopened(hmi, plc);
        talk.hmi.set_port(40_000);
        talks.push(talk.open(&mut stage)?);
    }
    for round in 0..50 {
        for (number, talk) in talks.iter_mut().enumerate() {
            let name = format!("flow {number}, round {round}");
            talk.asks(&mut stage, &name, &ask(round), Pass)?;
            talk.answers(&mut stage, &name, &reply(round), Pass)?;
            talk.asks(&mut stage, &name, &[], Pass)?;
            if number == 2 {
                talk.asks(&mut stage, &name, &write(round), DENIED)?;
            }
            // Its own numbers and no other's.
            let mut elsewhere = *talk;
            elsewhere.asked(5000);
            let early = elsewhere.hmi_sends(&ask(round)).build();
            stage.expect(&name, &early, Drop(Reason::OutOfOrder))?;
        }
    }
    // The same ends over UDP are another flow, or none.
    let datagram = udp(talks[0].hmi, talks[0].plc).payload(ask(1)).build();
    stage.expect("UDP", &datagram, Drop(Reason::NoConduit))?;
    stage.finish()
}

#[test]
fn a_connection_that_is_opened_anew_is_another_flow() -> Result<()> {
    let mut stage = stage!(&policy("\"reads\""));
    let talk = stage.talk()?;
    let (hmi, plc) = (talk.hmi, talk.plc);
    let mut talk = talk;
    for round in 0..40_u16 {
        let name = format!("round {round}");
        talk.asks(&mut stage, &name, &ask(round), Pass)?;
        talk.asks(&mut stage, &name, &write(round), DENIED)?;
        talk.answers(&mut stage, &name, &reply(round), Pass)?;
        if round % 2 == 0 {
            let reset = talk.hmi_sends(&[]).flags(RST | ACK).build();
            stage.expect(&name, &reset, Pass)?;
        } else {
            let fin = talk.hmi_sends(&[]).flags(FIN | ACK).build();
            stage.expect(&name, &fin, Pass)?;
            talk.asked(1);
            let fin = talk.plc_sends(&[]).flags(FIN | ACK).build();
            stage.expect(&name, &fin, Pass)?;
            talk.answered(1);
            stage.expect(&name, &talk.hmi_sends(&[]).build(), Pass)?;
        }
        stage.wait(3_000);
        let next = (
            talk.next.0.wrapping_add(1_000_000 * u32::from(round)),
            talk.next.1.wrapping_add(7_000_000),
        );
        talk = Talk { hmi, plc, next }.open(&mut stage)?;
    }
    stage.finish()
}

/// A flood of one denied request is dropped without holding the flow; anything else is looked at as ever.
#[test]
fn a_flood_of_denied_requests_ends_with_the_first_that_is_not() -> Result<()> {
    let mut stage = stage!(&policy("\"reads\""));
    let mut talk = stage.talk()?;
    let other_function = adu(7, 1, write_single(5, 10, 0xff00));
    let other_unit = adu(7, 2, write_single(6, 10, 1));
    for round in 0..30_u16 {
        for _ in 0..5 {
            talk.asks(&mut stage, "denied", &write(round), DENIED)?;
        }
        match round % 6 {
            0 => talk.asks(&mut stage, "another function", &other_function, DENIED)?,
            1 => {
                let want = Drop(Reason::UnitNotAllowed);
                talk.asks(&mut stage, "another unit", &other_unit, want)?;
            }
            2 => {
                // In parts: the first passes, and is the beginning of a request that does not.
                talk.asks(&mut stage, "a part", &write(round)[..3], Pass)?;
                talk.asks(
                    &mut stage,
                    "whole in its place",
                    &write(round),
                    Drop(Reason::ModbusLength),
                )?;
                talk.asks(&mut stage, "the rest", &write(round)[3..], DENIED)?;
                talk.asks(&mut stage, "another rest", &ask(round)[3..], Pass)?;
                talk.answers(&mut stage, "its reply", &reply(round), Pass)?;
            }
            3 => stage.wait(5_000),
            4 => {
                let mut early = talk;
                early.asked(1);
                let frame = early.hmi_sends(&write(round)).build();
                stage.expect("ahead", &frame, Drop(Reason::OutOfOrder))?;
            }
            _ => stage
                .expect("an acknowledgement", &talk.hmi_sends(&[]).build(), Pass)
                .map(drop)?,
        }
        talk.asks(&mut stage, "allowed", &ask(round), Pass)?;
        talk.answers(&mut stage, "its reply", &reply(round), Pass)?;
    }
    stage.finish()
}

#[test]
fn what_was_denied_is_allowed_by_the_next_policy() -> Result<()> {
    let mut stage = stage!(&policy("\"reads\""));
    let mut talk = stage.talk()?;
    for _ in 0..3 {
        for _ in 0..4 {
            talk.asks(&mut stage, "denied", &write(1), DENIED)?;
        }
        stage.reload(&policy("\"reads\", 6"))?;
        talk.asks(&mut stage, "allowed now", &write(1), Pass)?;
        talk.answers(&mut stage, "its reply", &write(1), Pass)?;
        stage.reload(&policy("\"reads\""))?;
    }
    stage.finish()
}
