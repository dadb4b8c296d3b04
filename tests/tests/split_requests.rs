//! The first part of a request does not go on behind another request that waits for its reply: a responder
//! that throws away what it was sent would read the next one in the middle. The segment is cut where that
//! request begins, and its sender repeats the rest.

use std::net::IpAddr;

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, HeldBack, Pass};
use conduitfw_tests::conversation::{Stage, Talk, neutral, plant};
use conduitfw_tests::frames::modbus::{adu, read, write_registers, write_single};
use conduitfw_tests::frames::{ACK, FIN, Frame, PSH};
use conduitfw_tests::scene::{HMI, HMI_V6, PLC, PLC_V6};
use conduitfw_tests::stage;

const DENIED: Want = Want::Exception(Reason::FunctionNotAllowed);

fn policy(on_deny: &str) -> String {
    plant(
        &format!("on_deny = \"{on_deny}\""),
        &["functions = [\"reads\", 16, 17]"],
    )
}

fn ask(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, read(3, 0, 10))
}

fn reply(transaction: u16) -> Vec<u8> {
    adu(transaction, 1, [&[3, 20][..], &[0; 20]].concat())
}

fn talk_of(stage: &mut Stage, hmi: IpAddr, plc: IpAddr) -> Result<Talk> {
    stage.unopened(hmi, plc).open(stage)
}

/// The same segment, as it is built and as it must come out.
fn becomes(
    stage: &mut Stage,
    name: &str,
    frame: impl Fn(&[u8]) -> Frame,
    (sent, goes_on): (&[u8], &[u8]),
    want: Want,
) -> Result<()> {
    stage.becomes(name, &frame(sent), want, &frame(goes_on))
}

/// Where the last request ends that is whole within the first `bytes` bytes.
fn whole(requests: &[Vec<u8>], bytes: usize) -> usize {
    let mut end = 0;
    for request in requests {
        if end + request.len() > bytes {
            break;
        }
        end += request.len();
    }
    end
}

#[test]
fn a_segment_is_cut_where_the_split_request_begins() -> Result<()> {
    let mut stage = stage!(&policy("reset"));
    let requests = [
        ask(1),
        adu(2, 1, write_registers(1, &[7; 3])),
        adu(3, 1, [17]),
        ask(4),
    ];
    let bytes = requests.concat();
    let options = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0];
    for (hmi, plc) in [(HMI, PLC), (HMI_V6, PLC_V6)] {
        for (has_options, last_flags) in [(false, PSH | ACK), (true, PSH | ACK | FIN)] {
            for cut in 1..bytes.len() {
                let mut talk = talk_of(&mut stage, hmi, plc)?;
                let name = format!("{plc}, {cut} bytes, flags {last_flags:#x}");
                let end = match whole(&requests, cut) {
                    0 => cut,
                    end => end,
                };
                let is_cut = end != cut;
                let want = if is_cut { HeldBack } else { Pass };
                let frame = |talk: &Talk, part: &[u8], flags| {
                    let frame = talk.hmi_sends(part).flags(flags);
                    if has_options {
                        frame.tcp_options(&options)
                    } else {
                        frame
                    }
                };
                // No FIN goes on without all that comes before it.
                let flags = if is_cut { last_flags } else { PSH | ACK };
                let sent = frame(&talk, &bytes[..cut], flags);
                let out = frame(&talk, &bytes[..end], PSH | ACK);
                stage.becomes(&name, &sent, want, &out)?;
                talk.asked(end);
                // What was held back is due, and nothing else.
                let mut ahead = talk;
                ahead.asked(1);
                let early = ahead.hmi_sends(&bytes[end..][1..]).build();
                if is_cut {
                    stage.expect(&name, &early, Want::Drop(Reason::OutOfOrder))?;
                }
                let rest = frame(&talk, &bytes[end..], last_flags);
                stage.becomes(&name, &rest, Pass, &rest)?;
            }
        }
    }
    stage.finish()
}

#[test]
fn it_goes_on_when_nothing_waits_any_more() -> Result<()> {
    let mut stage = stage!(&policy("reset"));
    let mut talk = stage.talk()?;
    talk.asks(&mut stage, "the first", &ask(1), Pass)?;
    let half = &ask(2)[..7];
    let frame = |part: &[u8]| talk.hmi_sends(part).flags(PSH | ACK);
    for _ in 0..3 {
        // What it acknowledges still arrives. A busy responder may take its time.
        becomes(&mut stage, "half", frame, (half, &[]), HeldBack)?;
        stage.wait(10_000);
    }
    talk.answers(&mut stage, "the reply", &reply(1), Pass)?;
    talk.asks(&mut stage, "half, at last", half, Pass)?;
    talk.asks(&mut stage, "a byte", &ask(2)[7..8], Pass)?;
    let rest = [&ask(2)[8..], &ask(3)[..5]].concat();
    let frame = |part: &[u8]| talk.hmi_sends(part).flags(PSH | ACK);
    let parts = (&rest[..], &rest[..4]);
    becomes(&mut stage, "the rest", frame, parts, HeldBack)?;
    stage.finish()
}

/// A unit that never answers does not slow down the others for as long as the connection lasts.
#[test]
fn a_request_that_is_never_answered_holds_back_until_a_later_one_is() -> Result<()> {
    for transactions in [[1, 2, 3], [16, 32, 48]] {
        let mut stage = stage!(&policy("reset"));
        let mut talk = stage.talk()?;
        let [lost, answered, split] = transactions.map(ask);
        talk.asks(&mut stage, "lost", &lost, Pass)?;
        stage.wait(5_000);
        let frame = |part: &[u8]| talk.hmi_sends(part).flags(PSH | ACK);
        let parts = (&answered[..7], &[][..]);
        becomes(&mut stage, "half of the next", frame, parts, HeldBack)?;
        // A sender that repeats it has the rest by then.
        talk.asks(&mut stage, "the next", &answered, Pass)?;
        let frame = |part: &[u8]| talk.hmi_sends(part).flags(PSH | ACK);
        let parts = (&split[..7], &[][..]);
        becomes(&mut stage, "half", frame, parts, HeldBack)?;
        talk.answers(&mut stage, "its reply", &reply(transactions[1]), Pass)?;
        talk.asks(&mut stage, "half, then", &split[..7], Pass)?;
        talk.asks(&mut stage, "the rest", &split[7..], Pass)?;
        stage.finish()?;
    }
    Ok(())
}

/// The whole went by and was lost behind the gateway: in parts it comes again as it would the first time.
#[test]
fn nor_does_it_go_on_when_it_is_repeated() -> Result<()> {
    let mut stage = stage!(&policy("reset"));
    let requests = [ask(1), adu(2, 1, write_registers(1, &[7; 3])), ask(3)];
    let bytes = requests.concat();
    let ends = [12, 31, 43];
    let mut talk = stage.talk()?;
    let before = talk;
    talk.asks(&mut stage, "whole", &bytes, Pass)?;
    for first in 0..bytes.len() {
        for last in first + 1..=bytes.len() {
            let mut again = before;
            again.asked(first);
            let end = if last < 12 || ends.contains(&last) {
                last
            } else {
                whole(&requests, last).max(first)
            };
            let want = if end == last { Pass } else { HeldBack };
            let frame = |part: &[u8]| again.hmi_sends(part).flags(PSH | ACK);
            let name = format!("{first}..{last}");
            let parts = (&bytes[first..last], &bytes[first..end]);
            becomes(&mut stage, &name, frame, parts, want)?;
        }
    }
    // Once the first is answered, parts of the second may come.
    talk.answers(&mut stage, "the reply", &reply(1), Pass)?;
    let mut again = before;
    again.asked(12);
    stage.expect("half", &again.hmi_sends(&bytes[12..20]).build(), Pass)?;
    stage.finish()
}

#[test]
fn behind_a_denied_request_it_waits_as_well() -> Result<()> {
    let mut stage = stage!(&policy("exception"));
    let (denied, next) = (adu(1, 1, write_single(6, 10, 4321)), ask(2));
    let also_denied = adu(2, 1, write_single(6, 11, 1));
    for behind in [&next, &also_denied] {
        for part in 1..12 {
            let mut talk = stage.talk()?;
            let before = talk;
            let sent = [&denied[..], &behind[..part]].concat();
            let frame = |part: &[u8]| before.hmi_sends(part);
            let name = format!("{part} bytes behind it");
            let parts = (&sent[..], &neutral(&denied)[..]);
            becomes(&mut stage, &name, frame, parts, DENIED)?;
            // The same again: its denial was told of.
            becomes(&mut stage, &name, frame, parts, HeldBack)?;
            talk.asked(12);
            // It is judged, and told of, once it is whole.
            let (want, goes_on) = if *behind == next {
                (Pass, next.clone())
            } else {
                (DENIED, neutral(&also_denied))
            };
            talk.asks_as(&mut stage, &name, behind, (want, &goes_on))?;
        }
    }
    stage.finish()
}

#[test]
fn observed_it_passes() -> Result<()> {
    let mut stage = stage!(&plant(
        "mode = \"observe\"",
        &["functions = [\"reads\", 16, 17]"]
    ));
    let mut talk = stage.talk()?;
    let bytes = [ask(1), ask(2)].concat();
    talk.asks(&mut stage, "one and a half", &bytes[..17], Pass)?;
    talk.asks(&mut stage, "the rest", &bytes[17..], Pass)?;
    stage.finish()
}

/// A checksum that is left to the device stays so, for the shorter segment.
#[test]
fn a_checksum_that_is_left_to_the_device_is_of_what_goes_on() -> Result<()> {
    let mut stage = stage!(&policy("exception"));
    let sent = [ask(1), ask(2)[..7].to_vec()].concat();
    let denied = [adu(1, 1, write_single(6, 10, 1)), ask(2)[..7].to_vec()].concat();
    for (hmi, plc) in [(HMI, PLC), (HMI_V6, PLC_V6)] {
        for (sent, goes_on, want) in [
            (&sent, sent[..12].to_vec(), HeldBack),
            (&denied, neutral(&denied[..12]), DENIED),
        ] {
            let talk = talk_of(&mut stage, hmi, plc)?;
            let frame = |part: &[u8]| talk.hmi_sends(part).partial_checksum();
            let name = format!("partial, {plc}");
            becomes(&mut stage, &name, frame, (sent, &goes_on), want)?;
            // One that is wrong stays so.
            let talk = talk_of(&mut stage, hmi, plc)?;
            let spoilt = talk.hmi_sends(sent).spoil_checksum().build();
            if stage.sends(&spoilt)? == talk.hmi_sends(&goes_on).build() {
                stage.complain("spoilt", "a wrong checksum was put right");
            }
        }
    }
    stage.finish()
}

/// What the gateway saw go by and the responder did not take: the oldest trick of a sender who wants the two to
/// disagree.
#[test]
fn a_reply_to_another_request_of_its_transaction_does_not_count() -> Result<()> {
    let mut stage = stage!(&policy("reset"));
    let mut talk = stage.talk()?;
    // X has the row that A's transaction begins its search at, and so A has the next one.
    talk.asks(&mut stage, "X", &ask(17), Pass)?;
    talk.asks(&mut stage, "A", &ask(1), Pass)?;
    talk.answers(&mut stage, "X's reply", &reply(17), Pass)?;
    // B takes the row that is free again. The responder gets it later than A.
    talk.asks(&mut stage, "B", &ask(1), Pass)?;
    talk.answers(&mut stage, "A's reply", &reply(1), Pass)?;
    let frame = |part: &[u8]| talk.hmi_sends(part).flags(PSH | ACK);
    let parts = (&ask(2)[..6], &[][..]);
    becomes(&mut stage, "half, while B waits", frame, parts, HeldBack)?;
    talk.answers(&mut stage, "B's reply", &reply(1), Pass)?;
    talk.asks(&mut stage, "half", &ask(2)[..6], Pass)?;
    stage.finish()
}

#[test]
fn a_segment_that_was_dropped_waits_for_nothing() -> Result<()> {
    let mut stage = stage!(&policy("drop"));
    let mut talk = stage.talk()?;
    let denied = adu(3, 1, write_single(6, 10, 1));
    let sent = [&ask(1)[..], &ask(2), &denied].concat();
    for _ in 0..20 {
        let want = Want::Drop(Reason::FunctionNotAllowed);
        talk.asks(&mut stage, "two and a denied one", &sent, want)?;
    }
    talk.asks(&mut stage, "of the second's transaction", &ask(2), Pass)?;
    talk.asks(&mut stage, "in the second's place", &ask(7), Pass)?;
    talk.answers(&mut stage, "the first reply", &reply(2), Pass)?;
    let frame = |part: &[u8]| talk.hmi_sends(part).flags(PSH | ACK);
    let parts = (&ask(8)[..6], &[][..]);
    becomes(&mut stage, "half", frame, parts, HeldBack)?;
    talk.answers(
        &mut stage,
        "never asked",
        &reply(1),
        Want::Drop(Reason::UnsolicitedReply),
    )?;
    talk.answers(&mut stage, "the second reply", &reply(7), Pass)?;
    talk.asks(&mut stage, "half, then", &ask(8)[..6], Pass)?;
    stage.finish()
}

#[test]
fn nor_does_a_request_whose_end_was_dropped() -> Result<()> {
    let mut stage = stage!(&policy("drop"));
    let mut talk = stage.talk()?;
    let denied = adu(3, 1, write_single(6, 10, 1));
    talk.asks(&mut stage, "the first part", &ask(1)[..5], Pass)?;
    let sent = [&ask(1)[5..], &denied].concat();
    for _ in 0..20 {
        let want = Want::Drop(Reason::FunctionNotAllowed);
        talk.asks(&mut stage, "the rest and a denied one", &sent, want)?;
    }
    talk.asks(&mut stage, "the rest", &ask(1)[5..], Pass)?;
    talk.answers(&mut stage, "its reply", &reply(1), Pass)?;
    talk.asks(&mut stage, "half of the next", &ask(2)[..6], Pass)?;
    stage.finish()
}

/// Requests that wait too long give way to others. They may be answered still.
#[test]
fn what_gave_way_is_not_taken_for_answered() -> Result<()> {
    for (transaction, want) in [(17, HeldBack), (18, Pass)] {
        let mut stage = stage!(&policy("reset"));
        let mut talk = stage.talk()?;
        talk.asks(&mut stage, "A", &ask(17), Pass)?;
        stage.wait(10);
        for other in 0..15 {
            talk.asks(&mut stage, "others", &ask(other + 32), Pass)?;
        }
        talk.answers(&mut stage, "acknowledged", &[], Pass)?;
        stage.wait(2_000);
        talk.asks(&mut stage, "one more", &ask(transaction), Pass)?;
        talk.answers(&mut stage, "a reply", &reply(transaction), Pass)?;
        let frame = |part: &[u8]| talk.hmi_sends(part).flags(PSH | ACK);
        let goes_on = if want == Pass { &ask(5)[..6] } else { &[] };
        becomes(&mut stage, "half", frame, (&ask(5)[..6], goes_on), want)?;
        stage.finish()?;
    }
    Ok(())
}

/// What the responder has not acknowledged may be sent again, and is held against what went by.
#[test]
fn what_is_not_acknowledged_does_not_give_way() -> Result<()> {
    let mut stage = stage!(&policy("reset"));
    let mut talk = stage.talk()?;
    let before = talk;
    for number in 0..16 {
        talk.asks(&mut stage, "asked", &ask(number), Pass)?;
    }
    stage.wait(60_000);
    let full = Want::Drop(Reason::HistoryFull);
    talk.asks(&mut stage, "one more", &ask(16), full)?;
    for number in 0..16_u16 {
        let mut again = before;
        again.asked(12 * usize::from(number));
        again.asks(&mut stage, "again", &ask(number), Pass)?;
        let mut again = before;
        again.asked(12 * usize::from(number));
        if number != 0 {
            let frame = |part: &[u8]| again.hmi_sends(part).flags(PSH | ACK);
            let parts = (&ask(number)[..6], &[][..]);
            becomes(&mut stage, "half of it", frame, parts, HeldBack)?;
        }
    }
    let mut acknowledged = talk;
    acknowledged.answers(&mut stage, "the acknowledgement", &[], Pass)?;
    talk.asks(&mut stage, "one more, then", &ask(16), Pass)?;
    stage.finish()
}
