//! Flows: how they begin, how they are judged anew, and how many there is room for.

use std::mem::offset_of;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData};
use aya::programs::{Xdp, XdpMode};
use conduitfw_common::Reason;
use conduitfw_common::flow::entry::FlowEntry;
use conduitfw_tests::frames::modbus::adu;
use conduitfw_tests::frames::{
    ACK, FIN, PSH, RST, SYN, echo_reply, echo_request, modbus, port_unreachable, tcp, udp,
};
use conduitfw_tests::scene::{DOSING, HMI, HMI_V6, PLANT, PLC, PLC_V6, STRANGER, dosing};

use crate::bench::{Bench, Entry, FAMILIES, FLOWS, OUTSIDER, STREAMS, XDP_PASS, bench};
use crate::outcome::Want;
use crate::outcome::Want::{Drop, Observed, Pass};
use crate::packets::broad;
use crate::talk::{Talk, replies, segment, unhurried};

#[test]
fn echo_and_reply_are_one_flow() {
    let mut bench = bench!(&broad());
    bench.all(&[
        (
            "echo reply unasked",
            echo_reply(PLC, HMI, 9, 1),
            Drop(Reason::NoFlow),
        ),
        ("echo request", echo_request(HMI, PLC, 7, 1), Pass),
        ("echo request again", echo_request(HMI, PLC, 7, 2), Pass),
        ("echo reply", echo_reply(PLC, HMI, 7, 1), Pass),
        ("echo request answered", echo_request(HMI, PLC, 7, 3), Pass),
        (
            "echo reply to another",
            echo_reply(PLC, HMI, 8, 1),
            Drop(Reason::NoFlow),
        ),
        (
            "echo of the PLC",
            echo_request(PLC, HMI, 7, 1),
            Drop(Reason::NoConduit),
        ),
        (
            "echo request, IPv6",
            echo_request(HMI_V6, PLC_V6, 7, 1),
            Pass,
        ),
        ("echo reply, IPv6", echo_reply(PLC_V6, HMI_V6, 7, 1), Pass),
    ]);
}

#[test]
fn datagrams_answers_and_errors_about_them() {
    let mut bench = bench!(&broad());
    let quoted = udp((HMI, 41_000), (PLC, 5000));
    bench.all(&[
        (
            "an error about nothing",
            port_unreachable(PLC, HMI, &quoted),
            Drop(Reason::IcmpErrorWithoutFlow),
        ),
        ("datagram", quoted.clone(), Pass),
        (
            "an error about it",
            port_unreachable(PLC, HMI, &quoted),
            Pass,
        ),
        (
            "an error about it to another",
            port_unreachable(PLC, STRANGER, &quoted),
            Drop(Reason::IcmpErrorWithoutFlow),
        ),
        ("its answer", udp((PLC, 5000), (HMI, 41_000)), Pass),
        ("the next one", quoted.clone(), Pass),
        (
            "an error about the answer",
            port_unreachable(HMI, PLC, &udp((PLC, 5000), (HMI, 41_000))),
            Pass,
        ),
        (
            "an answer unasked",
            udp((PLC, 5000), (HMI, 41_001)),
            Drop(Reason::NoConduit),
        ),
    ]);
}

#[test]
fn in_mode_observe_everything_passes_and_is_reported() {
    let observing = PLANT.replace(
        "[zones.operations]",
        "[settings]\nmode = \"observe\"\n\n[zones.operations]",
    );
    let mut bench = bench!(&unhurried(r#""reads""#, "").replace(PLANT, &observing));
    let stray = tcp((OUTSIDER, 1), (PLC, 80)).flags(SYN).build();
    bench.expect("stranger", &stray, Observed(Reason::SpoofedSource));
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let read = adu(1, 1, modbus::read(3, 0, 1));
    for policy in [None, Some(unhurried(r#""reads""#, "mode = \"observe\"\n"))] {
        if let Some(policy) = policy {
            bench.apply(&policy);
        }
        let mut talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
        talk.ask(
            &mut bench,
            "write",
            &write,
            Observed(Reason::FunctionNotAllowed),
        );
        talk.ask(&mut bench, "read", &read, Pass);
        talk.ask(
            &mut bench,
            "write again",
            &write,
            Observed(Reason::FunctionNotAllowed),
        );
        talk.ask(&mut bench, "read again", &read, Pass);
        talk.answer(&mut bench, "answer", &replies(&read));
        bench.forget_flows();
    }
    bench.expect("stranger", &stray, Drop(Reason::SpoofedSource));
    bench.finish();
}

#[test]
fn a_reload_judges_flows_anew() {
    let all = unhurried(r#""all""#, "udp = [5000]\n");
    let mut bench = bench!(&all);
    let write = adu(1, 1, modbus::write_single(6, 0, 1));
    let question = udp((HMI, 1), (PLC, 5000)).build();
    let answer = udp((PLC, 5000), (HMI, 1)).build();
    let mut goes_on = Talk::open(&mut bench, FAMILIES[0], 50_000);
    let mut narrowed = Talk::open(&mut bench, FAMILIES[0], 50_001);
    let ended = Talk::open(&mut bench, FAMILIES[1], 50_002);
    let told_late = Talk::open(&mut bench, FAMILIES[1], 50_003);
    bench.expect("question", &question, Pass);
    bench.expect("answer", &answer, Pass);
    goes_on.ask(&mut bench, "write", &write[..9], Pass);
    bench.apply(&all);
    goes_on.ask(&mut bench, "the write's end", &write[9..], Pass);
    goes_on.answer(&mut bench, "its answer", &replies(&write));
    narrowed.ask(&mut bench, "write", &write, Pass);
    bench.expect("question", &question, Pass);
    bench.apply(&unhurried(r#""reads""#, ""));
    narrowed.denied(&mut bench, "write", &write, Reason::FunctionNotAllowed);
    bench.expect("question", &question, Drop(Reason::PolicyChanged));
    let other = format!("{PLANT}{DOSING}tcp = [80]\n");
    bench.apply(&other);
    ended.denied(&mut bench, "no conduit left", &write, Reason::PolicyChanged);
    let late = told_late.plc_sends(&write).build();
    bench.expect("the responder first", &late, Drop(Reason::PolicyChanged));
    let reset = told_late.hmi_sends(&write).build();
    bench.expect("then the initiator", &reset, Want::Reset(Reason::FlowEnded));
    told_late.is_ended(&mut bench, "both told", &write);
    bench.finish();
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old() {
    const NEW: u32 = 70_000;
    let more = r#"
[[conduits]]
name = "telemetry"
from = ["operations"]
to = ["plc-dosing"]
rationale = "Measurements"
udp = [5000]
new_flows = "unlimited"
"#;
    let mut bench = bench!(&format!("{}{more}", dosing(r#""reads""#)));
    let mut talk = Talk::open(&mut bench, FAMILIES[0], 50_000);
    let read = adu(1, 1, modbus::read(3, 0, 1));
    let ends = |number: u32| -> (SocketAddr, SocketAddr) {
        let port = u16::try_from(1024 + number % 32_768).unwrap();
        let bank = u8::try_from(number / 32_768).unwrap();
        (
            (Ipv4Addr::new(10, 10, 0, 100 + bank), port).into(),
            (PLC, 5000).into(),
        )
    };
    let mut kept = Vec::new();
    let before = bench.counts();
    for number in 0..NEW {
        let (from, to) = ends(number);
        let (asked, _) = bench.give(&udp(from, to).build());
        let (answered, _) = bench.give(&udp(to, from).build());
        if asked != XDP_PASS {
            bench.complain("question", &format!("number {number}: {asked}"));
        }
        if answered == XDP_PASS {
            kept.push(number);
        }
        if number % 4096 == 0 {
            bench.events();
        }
    }
    bench.events();
    let after = bench.counts();
    let reason = usize::from(Reason::FlowTableFull.number());
    let full = |counts: &[(u64, u64)]| -> u64 {
        counts
            .iter()
            .skip(reason)
            .step_by(64)
            .map(|count| count.0)
            .sum()
    };
    let refused = full(&after) - full(&before);
    assert_eq!(refused + kept.len() as u64, u64::from(NEW));
    assert!(
        kept.len() >= usize::try_from(FLOWS).unwrap(),
        "{} flows",
        kept.len()
    );
    println!("{} of {NEW} flows kept in a table for {FLOWS}", kept.len());
    for number in kept {
        let (from, to) = ends(number);
        let (answered, _) = bench.give(&udp(to, from).build());
        if answered != XDP_PASS {
            bench.complain("kept", &format!("flow {number} is forgotten"));
        }
    }
    talk.ask(&mut bench, "the first flow", &read, Pass);
    talk.answer(&mut bench, "its answer", &replies(&read));
    bench.finish();
}

#[test]
fn a_handshake_takes_three_segments_of_the_right_numbers() {
    let mut bench = bench!(&broad());
    for (hmi, plc) in FAMILIES {
        let (hmi, plc) = ((hmi, 40_000).into(), (plc, 80).into());
        let there = |flags: u8, seq: u32, ack: u32| segment(hmi, plc, flags, (seq, ack));
        let back = |flags: u8, seq: u32, ack: u32| segment(plc, hmi, flags, (seq, ack));
        bench.all(&[
            ("SYN", there(SYN, 9, 0), Pass),
            ("SYN again", there(SYN, 9, 0), Pass),
            (
                "data too early",
                there(ACK, 10, 500).payload([1]),
                Drop(Reason::NoFlow),
            ),
            (
                "answer to another",
                back(SYN | ACK, 499, 11),
                Drop(Reason::NoFlow),
            ),
            (
                "answer with data",
                back(SYN | ACK, 499, 10).payload([1]),
                Drop(Reason::NoFlow),
            ),
            ("SYN ACK", back(SYN | ACK, 499, 10), Pass),
            ("SYN ACK again", back(SYN | ACK, 499, 10), Pass),
            ("ACK of another", there(ACK, 10, 501), Drop(Reason::NoFlow)),
            ("ACK elsewhere", there(ACK, 11, 500), Drop(Reason::NoFlow)),
            ("ACK", there(ACK, 10, 500), Pass),
            ("data", there(PSH | ACK, 10, 500).payload([1, 2, 3]), Pass),
            ("data back", back(PSH | ACK, 500, 13).payload([1, 2]), Pass),
            ("FIN", there(FIN | ACK, 13, 502), Pass),
            (
                "data after FIN",
                there(ACK, 14, 502).payload([1]),
                Drop(Reason::DataAfterFin),
            ),
            (
                "data to the closed side",
                back(ACK, 502, 14).payload([1]),
                Pass,
            ),
            ("FIN back", back(FIN | ACK, 503, 14), Pass),
            ("last ACK", there(ACK, 14, 504), Pass),
            ("SYN anew", there(SYN, 90_000, 0), Pass),
            ("refused", back(RST | ACK, 0, 90_001), Pass),
        ]);
    }
}

#[test]
fn new_flows_come_no_faster_than_allowed() {
    let mut bench = bench!(&format!(
        "{PLANT}{DOSING}tcp = [80]\nnew_flows = \"1/s burst 50\"\n"
    ));
    for number in 0..60 {
        let syn = tcp((HMI, 2000 + number), (PLC, 80)).flags(SYN).build();
        let want = if number < 50 {
            Pass
        } else {
            Drop(Reason::NewFlowRate)
        };
        bench.expect(&format!("flow {number}"), &syn, want);
    }
    bench.finish();
}

#[test]
fn more_inspected_flows_than_there_is_memory_for_are_refused() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    let read = adu(1, 1, modbus::read(3, 0, 1));
    let mut first = Talk::open(&mut bench, FAMILIES[0], 1024);
    let mut refused = 0;
    for port in 1025..1024 + 3 * u16::try_from(STREAMS).unwrap() {
        let (hmi, plc) = ((HMI, port).into(), (PLC, 502).into());
        let opening = [
            segment(hmi, plc, SYN, (9, 0)),
            segment(plc, hmi, SYN | ACK, (499, 10)),
        ];
        for frame in opening {
            if bench.give(&frame.build()).0 != XDP_PASS {
                bench.complain("opening", &format!("port {port}"));
            }
        }
        let (confirmed, _) = bench.give(&segment(hmi, plc, ACK, (10, 500)).build());
        if confirmed != XDP_PASS {
            refused += 1;
            let reasons: Vec<u8> = bench.events().iter().map(|event| event.reason).collect();
            if reasons != [Reason::FlowTableFull.number()] {
                bench.complain("full", &format!("port {port}: {reasons:?}"));
            }
        }
    }
    assert!(refused >= 2 * STREAMS - 1, "{refused} flows refused");
    first.ask(&mut bench, "the first flow", &read, Pass);
    first.answer(&mut bench, "its answer", &replies(&read));
    bench.finish();
}

#[test]
fn closed_connections_leave_their_memory_to_new_ones() {
    let mut bench = bench!(&unhurried(r#""reads""#, ""));
    for port in 1025..1024 + 3 * u16::try_from(STREAMS).unwrap() {
        let (hmi, plc) = ((HMI, port).into(), (PLC, 502).into());
        let connection = [
            segment(hmi, plc, SYN, (9, 0)),
            segment(plc, hmi, SYN | ACK, (499, 10)),
            segment(hmi, plc, ACK, (10, 500)),
            segment(hmi, plc, FIN | ACK, (10, 500)),
            segment(plc, hmi, FIN | ACK, (500, 11)),
            segment(hmi, plc, ACK, (11, 501)),
        ];
        for (number, frame) in connection.into_iter().enumerate() {
            if bench.give(&frame.build()).0 != XDP_PASS {
                bench.complain("segment", &format!("{number} of port {port} is denied"));
            }
        }
    }
    bench.finish();
}

/// On a thread with a network namespace of its own, which ends with it.
#[test]
fn the_program_attaches_in_native_mode_to_veth() {
    let mut bench = bench!(&broad());
    let ebpf = &mut bench.ebpf;
    std::thread::scope(|scope| {
        let attached = scope.spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let ip = |words: &str| {
                let output = std::process::Command::new("ip")
                    .args(words.split_whitespace())
                    .output()
                    .unwrap();
                assert!(output.status.success(), "ip {words}: {output:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            ip("link add cfw-a type veth peer name cfw-b");
            let program: &mut Xdp = ebpf.program_mut("conduitfw").unwrap().try_into().unwrap();
            let link = program.attach("cfw-a", XdpMode::Driver).unwrap();
            let shown = ip("link show dev cfw-a");
            program.detach(link).unwrap();
            shown
        });
        let shown = attached.join().unwrap();
        assert!(shown.contains("prog/xdp"), "{shown}");
        assert!(!shown.contains("xdpgeneric"), "{shown}");
    });
}

/// The place of the only flow, its entry, and that when somebody holds it.
fn only_flow(bench: &Bench, flows: &Array<MapData, Entry>) -> (u32, Entry, Entry) {
    let (buckets, count) = &bench.buckets[0];
    let place = (0..*count)
        .flat_map(|bucket| (1..8).map(move |way| (bucket, way)))
        .find(|(bucket, way)| buckets.get(bucket, 0).unwrap()[*way as usize] != 0)
        .map(|(bucket, way)| bucket * 8 + way)
        .unwrap();
    let free = flows.get(&place, 0).unwrap();
    let mut held = free;
    let at = offset_of!(FlowEntry, lock);
    held[at..at + 4].copy_from_slice(&1_u32.to_ne_bytes());
    (place, free, held)
}

/// How long the flow is held: far longer than the frames of a second need that come in on the other
/// processor, and as long as an interrupt may take there.
const HELD: Duration = Duration::from_micros(120);

#[test]
fn a_frame_waits_for_a_flow_that_another_processor_holds() {
    let mut bench = bench!(&dosing(r#""reads""#));
    let talk = Talk::open(&mut bench, FAMILIES[0], 50_100);
    let mut flows = bench.flows.take().unwrap();
    let (place, free, held) = only_flow(&bench, &flows);
    let ack = talk.hmi_sends(&[]).build();
    // The holder may be kept from its processor for longer than a frame waits: then once more.
    let started = Instant::now();
    let mut has_waited = false;
    while !has_waited && started.elapsed() < Duration::from_secs(30) {
        flows.set(place, held, 0).unwrap();
        let began = Instant::now();
        let action = thread::scope(|scope| {
            scope.spawn(|| {
                while began.elapsed() < HELD {
                    std::hint::spin_loop();
                }
                flows.set(place, free, 0).unwrap();
            });
            bench.give(&ack).0
        });
        // A frame that came late has not waited.
        has_waited = action == XDP_PASS && began.elapsed() >= HELD;
    }
    assert!(has_waited, "no frame waited");

    // Nobody lets it go: the wait ends.
    flows.set(place, held, 0).unwrap();
    bench.expect("a flow that is never let go", &ack, Drop(Reason::FlowBusy));
    flows.set(place, free, 0).unwrap();
    bench.expect("and after it", &ack, Pass);
    bench.flows = Some(flows);
    bench.finish();
}

#[test]
fn a_frame_waits_once_whether_or_not_a_hint_says_for_what() {
    let mut bench = bench!(&dosing(r#""reads""#));
    let ack = |talk: Talk| talk.hmi_sends(&[]).build();
    let talk = ack(Talk::open(&mut bench, FAMILIES[0], 50_100));
    let mut flows = bench.flows.take().unwrap();
    let (place, free, held) = only_flow(&bench, &flows);
    // The lower ten bits of their marks are the same: a frame of it takes the hint away.
    let other = ack(Talk::open(&mut bench, FAMILIES[0], 50_100 + 1024));
    let mut waited = |last: &[u8]| {
        flows.set(place, free, 0).unwrap();
        bench.expect("a flow that is free", last, Pass);
        flows.set(place, held, 0).unwrap();
        let began = Instant::now();
        bench.expect("one that is not", &talk, Drop(Reason::FlowBusy));
        began.elapsed()
    };
    // In turns, for a machine that is emulated beside others is slower at times than a wait is long.
    let (by_hint, by_hash): (Vec<_>, Vec<_>) =
        (0..50).map(|_| (waited(&talk), waited(&other))).unzip();
    flows.set(place, free, 0).unwrap();
    bench.flows = Some(flows);
    let (by_hint, by_hash) = (by_hint.iter().min().unwrap(), by_hash.iter().min().unwrap());
    assert!(*by_hint < *by_hash * 3 / 2, "{by_hint:?}, {by_hash:?}");
    bench.finish();
}
