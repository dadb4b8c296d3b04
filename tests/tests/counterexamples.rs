//! What got through once, and what was cut off, by name.

use anyhow::{Context as _, Result, ensure};
use conduitfw::simulator::Outcome;
use conduitfw_tests::frames::modbus::{adu, read, write_registers, write_single};
use conduitfw_tests::frames::{ACK, FIN, Frame, PSH, RST, SYN, URG, tcp};
use conduitfw_tests::lab::skipped_without_root;
use conduitfw_tests::oracle::gate::{Gate, Passage, Simulated};
use conduitfw_tests::oracle::play::play;
use conduitfw_tests::oracle::reader::Reader;
use conduitfw_tests::oracle::receiver::MODELS;
use conduitfw_tests::oracle::schedule::{Fate, Schedule, Sent, Spoil, Step};
use conduitfw_tests::oracle::site::{SITES, Site};
use conduitfw_tests::oracle::wire::Segment;
use conduitfw_tests::twin::{Sizes, Twin};

const HMI: ([u8; 4], u16) = ([10, 10, 0, 5], 40_000);
const PLC: ([u8; 4], u16) = ([10, 20, 0, 10], 502);
const VLAN: u16 = 20;

fn site(name: &str) -> Result<&'static Site> {
    SITES
        .iter()
        .find(|site| site.name == name)
        .context("no such site")
}

/// Plays the steps to every receiver and application; none may read what is denied.
fn holds(name: &str, steps: &[Step]) -> Result<()> {
    let site = site(name)?;
    let schedule = Schedule {
        first: 1000,
        steps: steps.to_vec(),
    };
    let mut port = 2000;
    for model in MODELS {
        for reader in Reader::ALL {
            port += 1;
            let mut gate = Simulated::new(site)?;
            let (_, violation) = play(site, &mut gate, &schedule, (model, reader), port)?;
            assert_eq!(violation, None, "{}, {reader:?}", model.name);
        }
    }
    Ok(())
}

#[test]
fn a_refused_request_has_one_length_for_every_reader() -> Result<()> {
    // Read by its function alone, the first one was shorter than by its header.
    let mut behind = adu(0x0600, 1, read(3, 10, 1));
    behind.extend(adu(0x0606, 1, read(3, 10, 1)));
    for denied in [
        adu(1, 1, write_registers(900, &[1, 2, 3])),
        adu(1, 7, [2; 19]),
        adu(1, 1, write_single(6, 900, 1)),
        adu(1, 1, [17]),
    ] {
        let end = i32::try_from(denied.len())?;
        let half = denied.len().min(12);
        let steps = [
            Step::send(0, &denied[..half]),
            Step::acknowledge(),
            Step::send(12, &denied[half..]),
            Step::acknowledge(),
            Step::Answer,
            Step::send(end, &*behind),
        ];
        holds("registers, exception", &steps)?;
        let whole = [Step::send(0, &*denied), Step::send(end, &*behind)];
        holds("registers, exception", &whole)?;
    }
    Ok(())
}

#[test]
fn a_picked_up_connection_takes_nothing_below_what_it_began_with() -> Result<()> {
    let steps = [
        Step::send(12, adu(1, 1, read(3, 0, 10))),
        Step::send(0, adu(2, 1, write_single(6, 1, 1))),
    ];
    holds("registers, drop, picked up", &steps)
}

#[test]
fn a_picked_up_connection_begins_with_nothing_that_another_request_fits_in() -> Result<()> {
    // The receiver has the first 13 bytes already, and reads the values as a request.
    let hidden = adu(2, 1, write_single(6, 1, 1));
    let values: Vec<u16> = hidden
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    let steps = [Step::send(-13, adu(1, 1, write_registers(40, &values)))];
    holds("registers, drop, picked up", &steps)
}

#[test]
fn a_repeated_handshake_changes_nothing() -> Result<()> {
    let mut gate = Simulated::new(site("registers, reset")?)?;
    let syn = tcp(HMI, PLC).flags(SYN).seq(99);
    let answer = tcp(PLC, HMI).flags(SYN | ACK).seq(499).ack(100).vlan(VLAN);
    let third = tcp(HMI, PLC).seq(100).ack(500);
    let request = tcp(HMI, PLC).flags(PSH | ACK).seq(100).ack(500);
    let request = request.payload(adu(1, 1, read(3, 0, 1)));
    // The SYN twice around its answer; the answer again after the third segment was lost.
    for frame in [
        &syn, &answer, &syn, &answer, &third, &answer, &third, &request,
    ] {
        let bytes = frame.build();
        assert_eq!(
            gate.pass(&bytes, 1_000_000)?,
            Passage::On(bytes.clone()),
            "{frame:?}"
        );
    }
    Ok(())
}

#[test]
fn urgent_data_ends_a_connection_only_at_the_number_that_is_due() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let sizes = Sizes {
        buckets: 64,
        streams: 64,
    };
    let mut twin = Twin::new(&site("functions, reset")?.policy(), sizes)?;
    for frame in [
        tcp(HMI, PLC).flags(SYN).seq(99),
        tcp(PLC, HMI).flags(SYN | ACK).seq(499).ack(100).vlan(VLAN),
        tcp(HMI, PLC).seq(100).ack(500),
    ] {
        twin.send(&frame.build(), 1_000_000)?;
    }
    let urgent = |sequence| {
        let frame = tcp(HMI, PLC).flags(URG | ACK).seq(sequence).ack(500);
        frame.urgent(1).payload([1]).build()
    };
    for guessed in [99, 101, 150] {
        let judged = twin.send(&urgent(guessed), 1_000_000)?;
        ensure!(
            judged.is_some_and(|judged| judged.outcome == Outcome::Drop),
            "whoever guesses {guessed} ends the connection"
        );
    }
    let judged = twin.send(&urgent(100), 1_000_000)?;
    let Some(Outcome::Reset(bytes)) = judged.map(|judged| judged.outcome) else {
        anyhow::bail!("no reset went on");
    };
    let segment = Segment::read(&bytes).context("no segment")?;
    assert_eq!((segment.sequence, segment.is_sound), (100, true));
    Ok(())
}

#[test]
fn a_connection_does_not_end_before_what_went_by() -> Result<()> {
    // Data on its way behind the gateway was overtaken by a FIN and a SYN with lower numbers: the
    // new connection took it, and began to read in the middle.
    let data = [
        adu(0x0452, 1, read(4, 0x4196, 2)),
        adu(0x0102, 1, read(4, 0xf5e0, 3)),
    ];
    let held = Step::Send(Sent {
        bytes: data.concat(),
        fate: Fate::Held,
        ..Sent::default()
    });
    holds(
        "functions, reset",
        &[held, bare(0, FIN | ACK), bare(5, SYN)],
    )
}

/// A segment without ACK and PSH.
fn bare(at: i32, flags: u8) -> Step {
    Step::Send(Sent {
        at,
        flags,
        bare: true,
        ..Sent::default()
    })
}

/// Longer than the time in which ports are not opened anew.
const QUIET: Step = Step::Wait(600);

#[test]
fn a_connection_that_a_loose_receiver_gave_up_is_not_read_in_the_middle() -> Result<()> {
    // A reset that is not quite at its place ends it for some; the SYN is ahead of what is due.
    let first = adu(1, 1, read(3, 0, 10));
    let second = adu(2, 1, write_registers(40, &[0x0102, 0, 6, 0x0106, 900, 1]));
    let end = i32::try_from(first.len())?;
    let into = end + 12;
    for pause in [Step::Wait(0), QUIET] {
        let steps = [
            Step::send(0, &*first),
            Step::acknowledge(),
            bare(end + 3, RST | ACK),
            pause,
            bare(into, SYN),
            Step::send(end, &*second),
            Step::acknowledge(),
            Step::send(end, &*second),
        ];
        holds("registers, reset", &steps)?;
    }
    Ok(())
}

#[test]
fn what_was_acknowledged_is_not_read_by_the_next_connection() -> Result<()> {
    let asked = adu(1, 1, read(3, 0, 10));
    let steps = [
        Step::send(0, &*asked),
        Step::acknowledge(),
        bare(15, RST | ACK),
        QUIET,
        bare(-1, SYN),
        Step::send(0, adu(2, 1, write_single(6, 900, 1))),
    ];
    holds("registers, reset", &steps)
}

#[test]
fn a_connection_that_lives_goes_on_after_a_forged_syn() -> Result<()> {
    let mut gate = Simulated::new(site("registers, reset")?)?;
    let up = tcp(HMI, PLC).seq(100).ack(500);
    let down = tcp(PLC, HMI).seq(500).ack(100).vlan(VLAN);
    let request = up
        .clone()
        .flags(PSH | ACK)
        .payload(adu(1, 1, read(3, 0, 1)));
    let mut now = 1_000_000;
    let mut passes = |frame: &Frame, later: u64| -> Result<bool> {
        now += later;
        let bytes = frame.build();
        Ok(gate.pass(&bytes, now)? == Passage::On(bytes))
    };
    let syn = tcp(HMI, PLC).flags(SYN).seq(99);
    let answer = tcp(PLC, HMI).flags(SYN | ACK).seq(499).ack(100).vlan(VLAN);
    for frame in [&syn, &answer, &up] {
        assert!(passes(frame, 0)?, "{frame:?}");
    }
    let forged = tcp(HMI, PLC).flags(SYN).seq(110);
    assert!(!passes(&forged, 1)?, "too early");
    assert!(passes(&forged, 600)?, "one that was switched off and on");
    assert!(!passes(&request, 1)?, "nobody knows which connection it is");
    assert!(passes(&down, 0)?, "the responder has the old one");
    assert!(passes(&request, 0)?);
    Ok(())
}

#[test]
fn a_syn_that_is_denied_holds_nothing() -> Result<()> {
    // The responder never sees it, and so would never say that the connection lives.
    let mut gate = Simulated::new(site("registers, reset")?)?;
    let up = tcp(HMI, PLC).seq(100).ack(500);
    let syn = tcp(HMI, PLC).flags(SYN).seq(99);
    let answer = tcp(PLC, HMI).flags(SYN | ACK).seq(499).ack(100).vlan(VLAN);
    for frame in [&syn, &answer, &up] {
        gate.pass(&frame.build(), 1_000_000)?;
    }
    let forged = tcp(HMI, PLC).flags(SYN).seq(110);
    for forged in [forged.clone().payload([1]), forged.flags(SYN | URG)] {
        let passage = gate.pass(&forged.build(), 1_000_600)?;
        assert!(!matches!(passage, Passage::On(_)), "{forged:?}");
    }
    let request = up.flags(PSH | ACK).payload(adu(1, 1, read(3, 0, 1)));
    let bytes = request.build();
    assert_eq!(gate.pass(&bytes, 1_000_600)?, Passage::On(bytes.clone()));
    Ok(())
}

#[test]
fn a_syn_beyond_the_rate_of_new_flows_holds_nothing() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    // Denied as well, and yet it left the connection in doubt, which only an answer would have ended.
    let policy = site("registers, reset")?
        .policy()
        .replace("new_flows = \"unlimited\"", "new_flows = \"1/s burst 1\"");
    assert!(policy.contains("burst 1"), "{policy}");
    let sizes = Sizes {
        buckets: 64,
        streams: 64,
    };
    let mut twin = Twin::new(&policy, sizes)?;
    let up = tcp(HMI, PLC).seq(100).ack(500);
    let answer = tcp(PLC, HMI).flags(SYN | ACK).seq(499).ack(100).vlan(VLAN);
    for frame in [&tcp(HMI, PLC).flags(SYN).seq(99), &answer, &up] {
        let judged = twin.send(&frame.build(), 1_000_000)?.context("refused")?;
        assert_eq!(judged.outcome, Outcome::Pass);
    }
    // Another connection uses up the rate.
    let other = tcp((HMI.0, 40_001), PLC).flags(SYN).seq(1);
    let judged = twin.send(&other.build(), 1_000_590)?.context("refused")?;
    assert_eq!(judged.outcome, Outcome::Pass);
    let forged = tcp(HMI, PLC).flags(SYN).seq(110);
    let judged = twin.send(&forged.build(), 1_000_600)?.context("refused")?;
    assert_eq!(judged.outcome, Outcome::Drop);
    let request = up.flags(PSH | ACK).payload(adu(1, 1, read(3, 0, 1)));
    let judged = twin.send(&request.build(), 1_000_600)?.context("refused")?;
    assert_eq!(judged.outcome, Outcome::Pass, "{:?}", judged.judgement);
    Ok(())
}

#[test]
fn no_byte_stands_in_the_place_of_a_fin() -> Result<()> {
    // The number that a FIN counts for was held against nothing: a byte there counted as new each time.
    let allowed = adu(1, 1, write_single(6, 40, 0x0501));
    let lost = |at: usize, flags: u8, bytes: &[u8]| -> Result<Step> {
        Ok(Step::Send(Sent {
            at: i32::try_from(at)?,
            flags,
            bytes: bytes.to_vec(),
            spoil: Spoil::Checksum,
            ..Sent::default()
        }))
    };
    holds(
        "registers, reset",
        &[
            Step::send(0, &allowed[..11]),
            lost(11, FIN, &[])?,
            lost(11, PSH | ACK, &allowed[11..])?,
            // 1,535 where 1,500 is the highest.
            Step::send(11, [0xff]),
        ],
    )
}

/// A reset that the responder does not believe, and a SYN that is denied.
fn forgotten(at: i32) -> [Step; 2] {
    [
        Step::Send(Sent {
            at,
            flags: RST,
            bare: true,
            spoil: Spoil::Checksum,
            ..Sent::default()
        }),
        Step::Send(Sent {
            at: 1 << 30,
            flags: SYN,
            bare: true,
            bytes: vec![0],
            ..Sent::default()
        }),
    ]
}

#[test]
fn a_connection_is_not_forgotten_to_be_picked_up_elsewhere() -> Result<()> {
    let before = |next: Vec<u8>| {
        vec![
            Step::send(0, adu(9, 1, read(3, 0, 1))),
            Step::acknowledge(),
            Step::Answer,
            Step::send(12, next),
            Step::acknowledge(),
        ]
    };
    // Half a read, which the one that is picked up completes.
    let mut shifted = before(vec![1, 3, 0, 0, 0, 6]);
    shifted.extend(forgotten(18));
    shifted.extend([
        Step::send(18, adu(0x0103, 1, read(3, 0, 6))),
        Step::acknowledge(),
        Step::Answer,
        Step::send(30, adu(0x0106, 1, read(3, 0, 6))),
    ]);
    holds("registers, drop, picked up", &shifted)?;
    // Picked up ahead, with the transaction of a read that is slow; its reply is taken for this one's.
    let mut below = before(adu(7, 1, read(3, 0, 1)));
    below.extend(forgotten(24));
    below.extend([
        Step::send(24 + 1000, adu(7, 1, read(3, 0, 1))),
        Step::Answer,
        Step::send(24, adu(8, 1, write_single(6, 0, 0xdead))),
    ]);
    holds("registers, drop, picked up", &below)
}
