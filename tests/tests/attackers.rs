//! What somebody may try who sends whatever he likes from a zone: to end or to starve what is others', or to
//! reach what no conduit reaches.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use conduitfw::policy::{Ids, Surroundings, compile, load_text};
use conduitfw::simulator::{Outcome, Simulator};
use conduitfw_common::Reason;
use conduitfw_common::table::Settings;
use conduitfw_tests::frames::modbus::{adu, read};
use conduitfw_tests::frames::{ACK, FIN, Frame, PSH, RST, SYN, URG, icmp, tcp, udp};
use conduitfw_tests::oracle::site::SITES;
use conduitfw_tests::twin::{LOOPBACK, Sizes, TICKS_PER_SECOND, compiled, indexes, settings};

const HMI: ([u8; 4], u16) = ([10, 10, 0, 5], 40_000);
const PLC: ([u8; 4], u16) = ([10, 20, 0, 10], 502);
/// The PLC's, and its zone's.
const VLAN: u16 = 20;
const SIZES: Sizes = Sizes {
    buckets: 256,
    streams: 256,
};
/// Limits that nobody has set.
const USUAL: Sizes = Sizes {
    buckets: 4096,
    streams: 2048,
};
const SECOND: u64 = 250;
const _: () = assert!(SECOND == TICKS_PER_SECOND as u64);

fn policy_of(name: &str) -> String {
    let site = SITES.iter().find(|site| site.name == name).unwrap();
    site.policy()
}

/// The same with the times that nobody has set.
fn usual_times(name: &str) -> String {
    let long = "tcp_established = \"7d\"\ntcp_opening = \"7d\"\ntcp_closing = \"7d\"\n";
    let policy = policy_of(name);
    assert!(policy.contains(long));
    policy
        .replace(long, "")
        .replace("new_flows = \"unlimited\"\n", "")
}

fn with(policy: &str, settings: Settings) -> Simulator {
    let tables = compiled(policy, &mut Ids::default(), 1).unwrap();
    let mut simulator = Simulator::new(settings);
    simulator.apply(&tables, &indexes());
    simulator
}

fn sends(simulator: &mut Simulator, frame: &Frame, now: u64) -> (Outcome, Option<Reason>) {
    let judged = simulator.judge(&frame.build(), LOOPBACK, now);
    (judged.outcome, judged.judgement.reason())
}

fn passes(simulator: &mut Simulator, frame: &Frame, now: u64) -> bool {
    sends(simulator, frame, now).0 == Outcome::Pass
}

fn handshake(client: ([u8; 4], u16), server: ([u8; 4], u16)) -> [Frame; 3] {
    [
        tcp(client, server).flags(SYN).seq(99),
        tcp(server, client)
            .flags(SYN | ACK)
            .seq(499)
            .ack(100)
            .vlan(VLAN),
        tcp(client, server).seq(100).ack(500),
    ]
}

/// A plant with one open connection.
fn opened(policy: &str) -> Simulator {
    let mut simulator = with(policy, settings(SIZES));
    for frame in handshake(HMI, PLC) {
        assert!(passes(&mut simulator, &frame, 1000));
    }
    simulator
}

fn request() -> Frame {
    let asked = adu(1, 1, read(3, 0, 1));
    tcp(HMI, PLC)
        .flags(PSH | ACK)
        .seq(100)
        .ack(500)
        .payload(asked)
}

#[test]
fn who_knows_no_number_ends_no_connection() {
    let urgent = |frame: Frame, sequence| frame.flags(URG | ACK).seq(sequence).urgent(1);
    let mut guesses = vec![
        urgent(tcp(PLC, HMI).vlan(VLAN), 0x1234_5678).payload([1]),
        urgent(tcp(HMI, PLC), 99).payload([1]),
    ];
    for sequence in [
        50,
        99,
        101,
        0x1234_5678,
        0x8000_0100,
        0xf000_0000,
        0xffff_0000,
    ] {
        let acknowledgement = sequence ^ 0x5555;
        let fin = tcp(HMI, PLC).flags(FIN | ACK).seq(sequence);
        guesses.push(fin.ack(acknowledgement));
        guesses.push(urgent(tcp(HMI, PLC), sequence).payload([1]));
        guesses.push(tcp(HMI, PLC).flags(RST).seq(sequence));
    }
    for guess in guesses {
        let mut simulator = opened(&policy_of("registers, reset"));
        let answer = sends(&mut simulator, &guess, 1001);
        assert!(
            passes(&mut simulator, &request(), 1002),
            "{answer:?} ended it"
        );
    }
}

#[test]
fn a_reset_that_the_responder_believes_frees_the_flow() {
    // One byte that the responder never takes, and a reset at the number that it is at.
    let mut simulator = with(&usual_times("registers, reset"), settings(USUAL));
    let mut now = 1_000_000;
    for port in 1000..3600 {
        let client = (HMI.0, port);
        now += 3;
        for frame in handshake(client, PLC) {
            passes(&mut simulator, &frame, now);
        }
        let lost = tcp(client, PLC).flags(ACK | PSH).seq(100).ack(500);
        passes(&mut simulator, &lost.payload([0]).spoil_checksum(), now);
        passes(&mut simulator, &tcp(client, PLC).flags(RST).seq(100), now);
    }
    now += 300 * SECOND;
    for port in 30_000..30_200 {
        now += SECOND;
        for frame in handshake((HMI.0, port), PLC) {
            assert!(
                passes(&mut simulator, &frame, now),
                "port {port} is refused"
            );
        }
    }
}

#[test]
fn a_flow_that_is_over_is_not_kept_by_its_initiator() {
    // The same, and then a segment from time to time for which the responder has a reset, if anything.
    let mut simulator = with(&usual_times("registers, reset"), settings(USUAL));
    let mut now = 1_000_000;
    let ends_soon = |simulator: &mut Simulator, port: u16, now: u64| {
        let client = (HMI.0, port);
        for frame in handshake(client, PLC) {
            passes(simulator, &frame, now);
        }
        let lost = tcp(client, PLC).flags(ACK | PSH).seq(100).ack(500);
        passes(simulator, &lost.payload([0]).spoil_checksum(), now);
        passes(simulator, &tcp(client, PLC).flags(RST).seq(100), now);
    };
    let keeps = |simulator: &mut Simulator, port: u16, now: u64| {
        let client = (HMI.0, port);
        passes(simulator, &tcp(client, PLC).flags(ACK).seq(101).ack(1), now);
        let reset = tcp(PLC, client).vlan(VLAN).flags(RST).seq(1);
        passes(simulator, &reset, now);
    };
    for batch in 0..6 {
        for port in batch * 1000..batch * 1000 + 1000 {
            now += 3;
            ends_soon(&mut simulator, 1000 + port, now);
        }
        for port in 0..batch * 1000 + 1000 {
            keeps(&mut simulator, 1000 + port, now);
        }
    }
    for _ in 0..3 {
        now += 40 * SECOND;
        for port in 0..6000 {
            keeps(&mut simulator, 1000 + port, now);
        }
    }
    for port in 30_000..30_200 {
        now += SECOND;
        for frame in handshake((HMI.0, port), PLC) {
            assert!(
                passes(&mut simulator, &frame, now),
                "port {port} is refused"
            );
        }
    }
}

#[test]
fn a_connection_that_was_seen_from_the_start_is_not_picked_up_in_the_middle() {
    let picks_up = Settings {
        adopt_until_ticks: u64::MAX,
        ..settings(USUAL)
    };
    let mut simulator = with(&usual_times("registers, reset"), picks_up);
    for frame in handshake(HMI, PLC) {
        assert!(passes(&mut simulator, &frame, 1000));
    }
    // Half a request, and a reset that the responder throws away.
    let half = tcp(HMI, PLC).flags(PSH | ACK).seq(100).ack(500);
    assert!(passes(
        &mut simulator,
        &half.payload([0, 1, 0, 0, 0, 6, 1]),
        1001
    ));
    let reset = tcp(HMI, PLC).flags(RST).seq(107).spoil_checksum();
    assert!(passes(&mut simulator, &reset, 1002));
    let whole = adu(1, 1, read(3, 0, 1));
    // By itself a read, and behind that half a write of register 0x0b00.
    let behind = [6, 0x0b, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
    let segment = tcp(HMI, PLC).flags(PSH | ACK).seq(107).ack(500);
    let late = 1002 + 61 * SECOND;
    assert_eq!(
        sends(&mut simulator, &segment.payload(behind), late).1,
        Some(Reason::NoFlow)
    );
    // One of which nothing was seen is.
    let other = tcp((HMI.0, 7000), PLC).flags(PSH | ACK).seq(107).ack(500);
    assert!(passes(&mut simulator, &other.payload(whole), late));
}

#[test]
fn a_connection_that_its_responder_half_closed_goes_on_while_it_answers() {
    let mut simulator = opened(&usual_times("registers, drop"));
    let mut now = 1001;
    let fin = tcp(PLC, HMI).vlan(VLAN).flags(FIN | ACK).seq(500).ack(100);
    assert!(passes(&mut simulator, &fin, now));
    for number in 0..10 {
        now += 40 * SECOND;
        let sequence = 100 + 12 * u32::from(number);
        let asked = tcp(HMI, PLC)
            .flags(PSH | ACK)
            .seq(sequence)
            .ack(501)
            .payload(adu(number, 1, read(3, 0, 1)));
        assert!(passes(&mut simulator, &asked, now), "request {number}");
        let taken = tcp(PLC, HMI)
            .vlan(VLAN)
            .flags(ACK)
            .seq(501)
            .ack(sequence + 12);
        assert!(passes(&mut simulator, &taken, now), "answer {number}");
    }
}

#[test]
fn a_forged_reset_takes_no_live_connection_its_time() {
    let mut simulator = opened(&usual_times("registers, drop"));
    assert!(passes(&mut simulator, &request(), 1001));
    // Within what is on its way, and not at its end.
    let forged = tcp(HMI, PLC).flags(RST).seq(105);
    assert!(passes(&mut simulator, &forged, 1002));
    let answer = adu(1, 1, [3, 2, 0, 0]);
    let reply = tcp(PLC, HMI).vlan(VLAN).flags(PSH | ACK).seq(500).ack(112);
    assert!(passes(&mut simulator, &reply.payload(answer), 1003));
    let next = adu(2, 1, read(3, 0, 1));
    let next = tcp(HMI, PLC)
        .flags(PSH | ACK)
        .seq(112)
        .ack(511)
        .payload(next);
    assert!(passes(&mut simulator, &next, 1003 + 100 * SECOND));
}

#[test]
fn a_syn_that_is_denied_ends_no_quiet_time() {
    let mut simulator = opened(&policy_of("registers, reset"));
    let old = tcp(HMI, PLC).flags(SYN).seq(50);
    let reset = tcp(HMI, PLC).flags(RST).seq(100).spoil_checksum();
    assert!(passes(&mut simulator, &reset, 1001));
    let quiet = Some(Reason::OutOfWindow);
    assert_eq!(sends(&mut simulator, &old, 1002).1, quiet);
    let denied = tcp(HMI, PLC).flags(SYN).seq(1 << 30).payload([0]);
    assert_eq!(
        sends(&mut simulator, &denied, 1003).1,
        Some(Reason::SynWithData)
    );
    assert_eq!(sends(&mut simulator, &old, 1004).1, quiet);
    // The next connection of these ports opens as ever.
    let now = 1004 + 3 * SECOND;
    for frame in handshake(HMI, PLC) {
        assert!(passes(&mut simulator, &frame, now));
    }
    assert!(passes(&mut simulator, &request(), now));
}

#[test]
fn nobodys_segments_fill_no_table_while_connections_are_picked_up() {
    let conduit = |port: u16| {
        format!(
            "[[conduits]]\nname = \"c{port}\"\nfrom = [\"a\"]\nto = [\"b\"]\nrationale = \"x\"\n\
             tcp = [{port}]\n"
        )
    };
    let policy = format!(
        "[site]\nname = \"x\"\n[zones.a]\ninterfaces = [\"lo\"]\nnetworks = [\"10.10.0.0/24\"]\n\
         [zones.b]\ninterfaces = [\"lo\"]\nvlans = [20]\nnetworks = [\"10.20.0.0/24\"]\n{}{}",
        conduit(4840),
        conduit(443)
    );
    let began = 1_000_000;
    let adopting = Settings {
        adopt_until_ticks: began + 300 * SECOND,
        ..settings(USUAL)
    };
    let mut simulator = with(&policy, adopting);
    for number in 0..60_000_u32 {
        let host = u8::try_from(2 + number % 250).unwrap();
        let source = (
            [10, 10, 0, host],
            1024 + u16::try_from(number / 250).unwrap(),
        );
        let server = (PLC.0, if number % 2 == 0 { 4840 } else { 443 });
        let stray = tcp(source, server).seq(number).ack(1).spoil_checksum();
        sends(&mut simulator, &stray, began + u64::from(number) * 5 / 4);
    }
    let mut now = began + 600 * SECOND;
    for port in 40_000..41_000 {
        now += SECOND;
        for frame in handshake((HMI.0, port), (PLC.0, 4840)) {
            assert!(
                passes(&mut simulator, &frame, now),
                "port {port} is refused"
            );
        }
    }
}

#[test]
fn what_answers_the_gateway_reaches_none_of_its_services() {
    let policy = "[site]\nname = \"x\"\n[gateway]\naddresses = [\"10.10.0.1\"]\n[zones.a]\n\
         interfaces = [\"lo\"]\nnetworks = [\"10.10.0.0/24\"]\n[[conduits]]\nname = \"ntp\"\n\
         from = [\"gateway\"]\nto = [\"a\"]\nrationale = \"time\"\nudp = [123]\n";
    let loaded = load_text("p.toml", policy).unwrap();
    let surroundings = Surroundings {
        ticks_per_second: TICKS_PER_SECOND,
        gateway_addresses: vec!["10.10.0.1".parse().unwrap()],
        generation: 1,
    };
    let tables = compile(&loaded.policy, &mut Ids::default(), &surroundings).unwrap();
    let mut simulator = Simulator::new(settings(SIZES));
    simulator.apply(&tables, &indexes());
    let mut answers = |port: u16| {
        let datagram = udp(([10, 10, 0, 77], 123), ([10, 10, 0, 1], port));
        passes(&mut simulator, &datagram.payload(*b"x"), 1000)
    };
    assert!(answers(123) && answers(40_000));
    assert!(!answers(161) && !answers(53));
}

#[test]
fn a_third_zone_tells_nobody_of_errors() {
    let policy = policy_of("registers, reset")
        + "\n[zones.guest]\ninterfaces = [\"lo\"]\nnetworks = [\"10.66.0.0/24\"]\nvlans = [66]\n";
    let mut simulator = opened(&policy);
    let quoted = tcp(HMI, PLC).seq(100).payload(b"anything at all".to_vec());
    let rest = [vec![0, 0, 2, 40], quoted.packet()].concat();
    let error = |source, tag| icmp(source, HMI.0, (3, 4), rest.clone()).vlan(tag);
    let guests = sends(&mut simulator, &error([10, 66, 0, 9], 66), 1001);
    assert_eq!(guests.1, Some(Reason::IcmpErrorWithoutFlow));
    assert!(passes(&mut simulator, &error([10, 20, 0, 1], VLAN), 1001));
}

#[test]
fn an_icmp_error_is_about_a_segment_that_is_on_its_way() {
    let mut simulator = opened(&policy_of("registers, reset"));
    assert!(passes(&mut simulator, &request(), 1001));
    // Of the request's segment, 100 to 111, nothing is acknowledged.
    let error = |quoted: &Frame, bytes: usize| {
        let quote = &quoted.packet()[..bytes];
        let rest = [&[0, 0, 2, 40][..], quote].concat();
        icmp([10, 20, 0, 1], HMI.0, (3, 4), rest).vlan(VLAN)
    };
    let of = |sequence| tcp(HMI, PLC).seq(sequence).payload(b"anything".to_vec());
    for (sequence, is_told) in [
        (99, false),
        (100, true),
        (112, true),
        (113, false),
        (0, false),
        (1 << 31, false),
    ] {
        let told = sends(&mut simulator, &error(&of(sequence), 28), 1002);
        let wanted = (!is_told).then_some(Reason::IcmpErrorWithoutFlow);
        assert_eq!(told.1, wanted, "{sequence}");
    }
    // What is quoted stands in the message, not behind it.
    let cut = error(&of(100), 24);
    let mut frame = cut.build();
    frame.extend_from_slice(&of(100).packet()[24..]);
    let judged = simulator.judge(&frame, LOOPBACK, 1003);
    assert_eq!(
        judged.judgement.reason(),
        Some(Reason::IcmpErrorWithoutFlow)
    );
    // So with one that is opened only.
    let syn = tcp((HMI.0, 7000), PLC).flags(SYN).seq(5000);
    assert!(passes(&mut simulator, &syn, 1004));
    let other = tcp((HMI.0, 7000), PLC).flags(SYN).seq(5001);
    assert_eq!(
        sends(&mut simulator, &error(&other, 28), 1005).1,
        Some(Reason::IcmpErrorWithoutFlow)
    );
    assert!(passes(&mut simulator, &error(&syn, 28), 1005));
}

#[test]
fn a_place_that_was_lost_while_observing_is_not_enforced() {
    let enforcing = policy_of("registers, reset");
    let observing = enforcing.replace(
        "[settings.timeouts]",
        "[settings]\nmode = \"observe\"\n[settings.timeouts]",
    );
    assert_ne!(observing, enforcing);
    let mut ids = Ids::default();
    let mut simulator = Simulator::new(settings(SIZES));
    simulator.apply(&compiled(&observing, &mut ids, 1).unwrap(), &indexes());
    for frame in handshake(HMI, PLC) {
        assert!(passes(&mut simulator, &frame, 1000));
    }
    let asks = |sequence: u32, bytes: Vec<u8>| {
        let frame = tcp(HMI, PLC).flags(PSH | ACK).seq(sequence);
        frame.ack(500).payload(bytes)
    };
    // Seven bytes that a responder skips by their length, and half a request.
    let lie = vec![0, 1, 0, 0, 0, 1, 1, 1, 3, 0, 0, 0, 6];
    assert!(passes(&mut simulator, &asks(100, lie), 1001));
    let taken = tcp(PLC, HMI).vlan(VLAN).seq(500).ack(113);
    assert!(passes(&mut simulator, &taken, 1002));
    simulator.apply(&compiled(&enforcing, &mut ids, 2).unwrap(), &indexes());
    let (outcome, reason) = sends(
        &mut simulator,
        &asks(113, adu(0x0103, 1, read(3, 0, 6))),
        1003,
    );
    assert_ne!(outcome, Outcome::Pass);
    assert_eq!(reason, Some(Reason::PolicyChanged));
}
