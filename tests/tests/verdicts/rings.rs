//! The rings that events come by: what they hold, what they lose, and in which order they are read.

use std::thread;
use std::time::Duration;

use conduitfw::dataplane::maps::Plain;
use conduitfw_common::Reason;
use conduitfw_common::event::EventRecord;
use conduitfw_common::table::{Active, EVENT_BURST, Reporting};
use conduitfw_tests::frames::udp;
use conduitfw_tests::scene::dosing;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::bench::{Bench, FAMILIES, bench, event_room, settings};

/// Gives frames that no conduit allows, all on one processor.
fn denied(bench: &mut Bench, processor: usize, frames: u32) {
    let (hmi, plc) = FAMILIES[0];
    let frame = udp((hmi, 1), (plc, 9)).payload([1]).build();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut only = CpuSet::new();
            only.set(processor).unwrap();
            sched_setaffinity(Pid::from_raw(0), &only).unwrap();
            for _ in 0..frames {
                bench.give(&frame);
            }
        });
    });
}

/// Makes the budget of events whole again, which time would do.
fn rest(bench: &mut Bench) {
    let row = bench.reporting.get(&0, 0).unwrap().0;
    let rested = Reporting {
        room: EVENT_BURST,
        ..row
    };
    bench.reporting.set(0, Plain(rested), 0).unwrap();
}

fn lost(bench: &Bench) -> u64 {
    bench.reporting.iter().map(|row| row.unwrap().0.lost).sum()
}

fn sequences(events: &[EventRecord]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

#[test]
fn a_full_ring_loses_what_is_new_and_goes_on_when_it_is_read() {
    let mut bench = bench!(&dosing(r#""reads""#));
    let records = event_room().records();
    // Twice, so that the ring goes round.
    for _ in 0..2 {
        rest(&mut bench);
        denied(&mut bench, 0, 1);
        let first = bench.events()[0].sequence + 1;
        let before = lost(&bench);
        rest(&mut bench);
        denied(&mut bench, 0, records + 100);
        assert_eq!(lost(&bench), before + 100);
        let held = u64::from(records);
        let expected: Vec<u64> = (first..first + held).collect();
        assert_eq!(sequences(&bench.events()), expected);
        rest(&mut bench);
        denied(&mut bench, 0, 3);
        let expected: Vec<u64> = (first + held + 100..first + held + 103).collect();
        assert_eq!(sequences(&bench.events()), expected);
    }
}

#[test]
fn events_of_several_processors_come_in_the_order_of_their_times() {
    let mut bench = bench!(&dosing(r#""reads""#));
    let processors = thread::available_parallelism().unwrap().get().min(2);
    for turn in 0..20 {
        denied(&mut bench, turn % processors, 2);
        // Longer than the kernel's coarse clock stands still.
        thread::sleep(Duration::from_millis(11));
    }
    let events = bench.events();
    assert_eq!(events.len(), 40);
    assert!(events.is_sorted_by_key(|event| event.time_ns));
    for processor in 0..2_u32 {
        let own: Vec<EventRecord> = events
            .iter()
            .filter(|event| event.cpu == processor)
            .copied()
            .collect();
        assert!(sequences(&own).is_sorted_by(|one, next| one + 1 == *next));
        assert_eq!(
            own.len(),
            if processors == 1 { [40, 0] } else { [20, 20] }[processor as usize]
        );
    }
}

#[test]
fn a_ring_whose_counts_make_no_sense_is_begun_anew() {
    let mut bench = bench!(&dosing(r#""reads""#));
    denied(&mut bench, 0, 5);
    let row = bench.reporting.get(&0, 0).unwrap().0;
    let far = Reporting {
        written: row.written.wrapping_add(event_room().records() + 1),
        ..row
    };
    bench.reporting.set(0, Plain(far), 0).unwrap();
    assert_eq!(bench.events(), []);
    denied(&mut bench, 0, 2);
    assert_eq!(bench.events().len(), 2);
}

#[test]
fn the_counts_of_a_ring_go_round() {
    let mut bench = bench!(&dosing(r#""reads""#));
    let row = bench.reporting.get(&0, 0).unwrap().0;
    let last = Reporting {
        written: u32::MAX - 2,
        ..row
    };
    bench.reporting.set(0, Plain(last), 0).unwrap();
    assert_eq!(bench.events(), []);
    for _ in 0..3 {
        denied(&mut bench, 0, 2);
        assert_eq!(bench.events().len(), 2);
    }
    assert_eq!(bench.reporting.get(&0, 0).unwrap().0.written, 3);
}

#[test]
fn what_comes_before_any_policy_is_in_force_is_told_of() {
    let mut bench = bench!(&dosing(r#""reads""#));
    bench.clear(0);
    let none = Active {
        settings: settings(),
        ..Active::default()
    };
    bench.active.set(0, Plain(none), 0).unwrap();
    let before = lost(&bench);
    denied(&mut bench, 0, 1);
    let events = bench.events();
    let reasons: Vec<u8> = events.iter().map(|event| event.reason).collect();
    assert_eq!(reasons, [Reason::UnknownInterface.number()]);
    assert_eq!(lost(&bench), before);
}
