//! Two processors with frames of one flow, turn about in the worst order.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use conduitfw::policy::Ids;
use conduitfw::simulator::{Outcome, Simulator};
use conduitfw_common::Reason;
use conduitfw_common::judgement::Judgement;
use conduitfw_common::packet::{self, Packet};
use conduitfw_common::platform::{FlowTable, Platform};
use conduitfw_tests::conversation::{on_loopback, plant};
use conduitfw_tests::frames::modbus::{adu, read, write_single};
use conduitfw_tests::frames::{ACK, PSH, SYN, tcp};
use conduitfw_tests::scene::{HMI, PLC};
use conduitfw_tests::twin::{LOOPBACK, Sizes, compiled, settings};

const CLIENT: (std::net::IpAddr, u16) = (HMI, 4000);
const SERVER: (std::net::IpAddr, u16) = (PLC, 502);
const NOW: u64 = 1000;

fn simulator(rules: &[&str], buckets: u32) -> Simulator {
    let policy = on_loopback(&plant("", rules));
    let tables = compiled(&policy, &mut Ids::default(), 1).unwrap();
    let sizes = Sizes {
        buckets,
        streams: 64,
    };
    let mut simulator = Simulator::new(settings(sizes));
    simulator.apply(&tables, &BTreeMap::from([("lo".to_owned(), LOOPBACK)]));
    simulator
}

/// A segment of the client, whose numbers begin at 99; those of the server at 499.
fn asks(flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let frame = tcp(CLIENT, SERVER).flags(flags).seq(sequence);
    let acknowledgement = if flags & ACK == 0 { 0 } else { 500 };
    frame.ack(acknowledgement).payload(payload.to_vec()).build()
}

fn sends(simulator: &mut Simulator, frame: &[u8], now: u64) -> (Outcome, Option<Reason>) {
    let judged = simulator.judge(frame, LOOPBACK, now);
    (judged.outcome, judged.judgement.reason())
}

/// The first two segments of the handshake.
fn half_open(simulator: &mut Simulator, port: u16, now: u64) {
    let client = (HMI, port);
    let syn = tcp(client, SERVER).flags(SYN).seq(99).build();
    assert_eq!(sends(simulator, &syn, now), (Outcome::Pass, None));
    let answer = tcp(SERVER, client).flags(SYN | ACK).seq(499).ack(100);
    assert_eq!(
        sends(simulator, &answer.build(), now),
        (Outcome::Pass, None)
    );
}

/// The rest of the handshake.
fn opened(simulator: &mut Simulator, port: u16, now: u64) -> Option<Reason> {
    half_open(simulator, port, now);
    let third = tcp((HMI, port), SERVER)
        .flags(ACK)
        .seq(100)
        .ack(500)
        .build();
    sends(simulator, &third, now).1
}

fn parsed(frame: &[u8]) -> Packet {
    let mut packet = Packet::default();
    let bytes = u32::try_from(frame.len()).unwrap();
    packet::parse(frame, bytes, &mut packet).unwrap();
    packet
}

/// What a processor knows that has found the opening flow for the third segment, and nothing more.
fn found_opening(simulator: &mut Simulator, packet: &Packet) -> u32 {
    let opening = Platform::admit(simulator, packet).to_be_established();
    assert_ne!(opening, 0);
    opening - 1
}

/// It goes on with that.
fn goes_on(simulator: &mut Simulator, packet: &Packet, opening: u32) -> Judgement {
    let inserted = Platform::insert(simulator, packet, FlowTable::Flows);
    assert_ne!(inserted, 0);
    let place = inserted - 1;
    let mut judged = Platform::establish(simulator, packet, opening, place, false);
    if judged == Judgement::SETTLE {
        judged = Platform::settle(simulator, packet, place);
    }
    simulator.unlock_flow(FlowTable::Flows, place);
    judged
}

#[test]
fn a_flow_that_another_processor_established_is_not_established_again() {
    let mut simulator = simulator(&["functions = [\"reads\"]"], 64);
    half_open(&mut simulator, 4000, NOW);
    let packet = parsed(&asks(ACK, 100, &[]));
    let opening = found_opening(&mut simulator, &packet);
    // Another processor judges the first request, from beginning to end.
    let request = adu(1, 1, read(3, 0, 1));
    let first = sends(&mut simulator, &asks(PSH | ACK, 100, &request), NOW);
    assert_eq!(first, (Outcome::Pass, None));
    assert!(goes_on(&mut simulator, &packet, opening).is_plain_pass());
    let other = adu(2, 1, read(3, 77, 1));
    let (_, reason) = sends(&mut simulator, &asks(PSH | ACK, 100, &other), NOW);
    assert_eq!(reason, Some(Reason::ChangedRetransmission));
}

#[test]
fn nothing_is_smuggled_between_two_processors() {
    let rules = [
        "functions = [6]\nregisters = [{ first = 10, last = 10 }]",
        "functions = [3]",
    ];
    let mut simulator = simulator(&rules, 64);
    half_open(&mut simulator, 4000, NOW);
    let packet = parsed(&asks(ACK, 100, &[]));
    let opening = found_opening(&mut simulator, &packet);
    let write = adu(1, 1, write_single(6, 10, 1));
    let first = sends(&mut simulator, &asks(PSH | ACK, 100, &write[..8]), NOW);
    assert_eq!(first, (Outcome::Pass, None));
    let _ = goes_on(&mut simulator, &packet, opening);
    let other = adu(1, 1, read(3, 77, 1));
    let (outcome, _) = sends(&mut simulator, &asks(PSH | ACK, 100, &other), NOW);
    let understood = [&write[..8], &other[8..]].concat();
    assert_ne!(outcome, Outcome::Pass, "the responder reads {understood:?}");
}

#[test]
fn a_place_that_another_handshake_took_establishes_nothing() {
    // One bucket, so that openings give way at once.
    let mut simulator = simulator(&["functions = [\"reads\"]"], 1);
    half_open(&mut simulator, 4000, NOW);
    let packet = parsed(&asks(ACK, 100, &[]));
    let opening = found_opening(&mut simulator, &packet);
    for port in 5000..5007 {
        let syn = tcp((HMI, port), SERVER).flags(SYN).seq(99).build();
        assert_eq!(sends(&mut simulator, &syn, NOW + 1), (Outcome::Pass, None));
    }
    let judged = goes_on(&mut simulator, &packet, opening);
    assert_eq!(judged.reason(), Some(Reason::FlowBusy));
    let request = asks(PSH | ACK, 100, &adu(1, 1, read(3, 0, 1)));
    let (_, reason) = sends(&mut simulator, &request, NOW + 1);
    assert_eq!(reason, Some(Reason::NoFlow));
}

#[test]
fn a_processor_whose_tick_is_older_evicts_no_live_flow() {
    let mut simulator = simulator(&["functions = [\"reads\"]"], 1);
    for port in 4000..4007 {
        assert_eq!(opened(&mut simulator, port, NOW + 1), None);
    }
    let full = Some(Reason::FlowTableFull);
    assert_eq!(opened(&mut simulator, 4100, NOW + 1), full);
    assert_eq!(opened(&mut simulator, 4200, NOW), full);
}
