//! The kernel and the simulator agree: the same frames through both, one by one, with the same
//! policy, end in the same judgement, the same operations, the same event and the same bytes.
//!
//! `CONDUITFW_AGREEMENT_FRAMES` is the number of changed frames (100,000 unless said),
//! `CONDUITFW_AGREEMENT_SEED` where the chance starts from, `CONDUITFW_CAPTURES` a directory of
//! captures (pcap, Ethernet) that are sent as well.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use conduitfw_common::{
    Reason,
    packet::{self, Packet},
};
use conduitfw_tests::agreement::{self, SIZES};
use conduitfw_tests::conversations::{POLICY, good_frames};
use conduitfw_tests::lab::skipped_without_root;
use conduitfw_tests::twin::{SHORTEST, Twin};

fn number(name: &str, otherwise: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(otherwise), |text| {
        text.parse().with_context(|| format!("{name}={text}"))
    })
}

#[test]
fn every_prefix_of_every_good_frame() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let mut both = Twin::new(POLICY, SIZES)?;
    let mut reasons = BTreeMap::<_, u64>::new();
    for frame in good_frames(0) {
        let frame = frame.build();
        for bytes in SHORTEST..=frame.len() {
            let judged = both.send(&frame[..bytes], 1_000_000)?;
            let judged = judged.context("a frame too long")?;
            *reasons.entry(judged.judgement.reason()).or_default() += 1;
        }
    }
    both.compare_rest()?;
    println!("{} frames: {reasons:?}", both.sent());
    // The frames are what they are meant to be: many pass, and many reasons are seen.
    ensure!(reasons.get(&None).is_some_and(|passed| *passed > 200));
    for wanted in [
        Reason::RegisterNotAllowed,
        Reason::ValueNotAllowed,
        Reason::StepTooLarge,
        Reason::RateExceeded,
        Reason::UnsolicitedReply,
    ] {
        ensure!(
            reasons.contains_key(&Some(wanted)),
            "{wanted:?}: {reasons:?}"
        );
    }
    Ok(())
}

#[test]
fn good_frames_changed_at_random() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let frames = number("CONDUITFW_AGREEMENT_FRAMES", 100_000)?;
    let seed = number("CONDUITFW_AGREEMENT_SEED", 1)?;
    let figures = agreement::changed_frames(seed, |so_far| so_far >= frames)?;
    println!("seed {seed}: {figures:?}");
    ensure!(figures.reasons.len() > 25, "{figures:?}");
    Ok(())
}

#[test]
fn captures() -> Result<()> {
    let Some(directory) = std::env::var_os("CONDUITFW_CAPTURES") else {
        println!("no CONDUITFW_CAPTURES: left out");
        return Ok(());
    };
    if skipped_without_root() || !Path::new(&directory).exists() {
        return Ok(());
    }
    for (file, figures) in agreement::captures(Path::new(&directory))? {
        println!("{}: {figures:?}", file.display());
    }
    Ok(())
}

#[test]
fn nothing_of_the_frame_before_is_left() {
    // The kernel reads each frame over the headers of the one before.
    let left: Packet = zerocopy::transmute!([0xff_u8; size_of::<Packet>()]);
    let mut frames = 0;
    for frame in good_frames(0) {
        let whole = frame.build();
        for bytes in 0..=whole.len() {
            let frame = &whole[..bytes];
            let (mut fresh, mut used) = (Packet::default(), left);
            let length = u32::try_from(bytes).unwrap_or(u32::MAX);
            let parsed = packet::parse(frame, length, &mut fresh);
            assert_eq!(parsed, packet::parse(frame, length, &mut used));
            if parsed.is_err() {
                packet::read_as_far_as_it_goes(frame, length, &mut used);
            }
            used.reserved = [0; 3];
            assert_eq!(fresh, used, "{bytes} bytes of {whole:02x?}");
            frames += 1;
        }
    }
    assert!(frames > 5000, "{frames}");
}
