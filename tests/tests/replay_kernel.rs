//! `conduitfw replay`, in ordinary memory and with `--kernel`: the same, line for line.
//!
//! `CONDUITFW_AGREEMENT_SEED` is where the chance starts from, `CONDUITFW_CAPTURES` a directory of
//! captures (pcap, Ethernet) that are replayed as well.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use conduitfw::policy::load_text;
use conduitfw::replay::{CaptureTime, CapturedFrame, Means, Replay};
use conduitfw_common::Verdict;
use conduitfw_common::edit::refused;
use conduitfw_tests::captures::captures_in;
use conduitfw_tests::chance::Chance;
use conduitfw_tests::conversations::{CAPTURE_POLICY, POLICY, good_frames};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::frames::{ACK, Frame, PSH, SYN, tcp};
use conduitfw_tests::lab::skipped_without_root;
use conduitfw_tests::replay::{
    BEGINNING, Place, SECOND, both_agree, next_generation, timed, verdicts,
};
use conduitfw_tests::scene::{DOSING, PLANT, dosing};

const PLC: ([u8; 4], u16) = ([10, 20, 0, 10], 502);

fn chance() -> Result<Chance> {
    let seed = std::env::var("CONDUITFW_AGREEMENT_SEED").map_or(Ok(1), |text| text.parse())?;
    println!("seed {seed}");
    Ok(Chance::new(seed))
}

#[test]
fn user_and_kernel_say_the_same() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let place = Place::new()?;
    let policy = place.file("policy.toml", POLICY)?;
    let mut chance = chance()?;
    let (mut frames, mut time) = (Vec::new(), BEGINNING);
    for round in 0..4 {
        let good: Vec<Vec<u8>> = good_frames(round).iter().map(Frame::build).collect();
        for frame in &good {
            // Time goes on in small steps and large ones, stands still, and goes back.
            let step = match chance.below(200) {
                0 => 90 * SECOND,
                1..50 => 0,
                _ => chance.number() % 5_000_000,
            };
            time += step;
            let back = if chance.once_in(20) { SECOND } else { 0 };
            frames.push((time - back, frame.clone()));
            if chance.once_in(4) {
                let mut changed = frame.clone();
                let other = chance.one_of(&good).cloned().unwrap_or_default();
                chance.change(&mut changed, &other, 0);
                frames.push((time, changed));
            }
        }
    }
    let capture = place.capture(&frames)?;
    assert_eq!(both_agree(&policy, &capture)?, frames.len());
    let capture = place.file("named.pcapng", next_generation("lo", &frames)?)?;
    assert_eq!(both_agree(&policy, &capture)?, frames.len());
    Ok(())
}

#[test]
fn crowded_tables_are_crowded_in_both() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let place = Place::new()?;
    let limits = "[settings.limits]\nflows = 64\nopening_flows = 64\ninspected_flows = 16\n";
    let policy = dosing(r#""all""#)
        .replace("[zones.operations]", &format!("{limits}[zones.operations]"))
        .replace("[\"hmi-1\"]", "[\"operations\"]\nnew_flows = \"unlimited\"");
    let policy = place.file("policy.toml", policy)?;
    let mut chance = chance()?;
    let (mut frames, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..4_000 {
        let client = ([10, 10, 0, chance.byte()], 1 + chance.short(9));
        frames.push(tcp(client, PLC).flags(SYN).seq(99).build());
        clients.push(client);
        // Some are answered when their place may be another's.
        let earlier = chance.one_of(&clients).copied().unwrap_or(client);
        let client = if chance.once_in(2) { client } else { earlier };
        frames.push(tcp(PLC, client).flags(SYN | ACK).seq(499).ack(100).build());
        if chance.once_in(3) {
            frames.push(tcp(client, PLC).seq(100).ack(500).build());
            let segment = tcp(client, PLC).flags(PSH | ACK).seq(100).ack(500);
            frames.push(segment.payload(adu(1, 1, modbus::read(3, 0, 9))).build());
        }
    }
    let capture = place.capture(&timed(frames))?;
    let verdicts = verdicts(&policy, &capture)?;
    assert_eq!(both_agree(&policy, &capture)?, verdicts.len());
    for wanted in ["pass -", "drop flow-table-full", "drop no-flow"] {
        ensure!(
            verdicts.iter().any(|verdict| verdict == wanted),
            "no {wanted}"
        );
    }
    Ok(())
}

#[test]
fn given_captures() -> Result<()> {
    let Some(directory) = std::env::var_os("CONDUITFW_CAPTURES") else {
        println!("no CONDUITFW_CAPTURES: left out");
        return Ok(());
    };
    if skipped_without_root() {
        return Ok(());
    }
    let place = Place::new()?;
    let all = place.file("all.toml", CAPTURE_POLICY)?;
    let reads = CAPTURE_POLICY.replace(r#"functions = ["all"]"#, r#"functions = ["reads"]"#);
    let reads = reads
        .replace("sub_functions = \"all\"\n", "")
        .replace("mei_types = \"all\"\n", "");
    let reads = place.file("reads.toml", reads)?;
    for capture in captures_in(Path::new(&directory))? {
        for policy in [&all, &reads] {
            let frames =
                both_agree(policy, &capture).with_context(|| capture.display().to_string())?;
            println!("{}: {frames} frames", capture.display());
        }
    }
    Ok(())
}

/// Every limit there is on one conduit.
const LIMITED: &str = r#"
on_deny = "exception"
new_flows = "unlimited"
[[conduits.modbus]]
max_outstanding = 3
units = [1]
functions = ["read-holding-registers", "read-coils", "read-file-record"]
holding_registers = [{ first = 0, last = 50 }]
coils = [{ first = 0, last = 20 }]
files = [4]
records = "0-9"
[[conduits.modbus]]
units = [1]
functions = ["write-single-register", "write-multiple-registers"]
holding_registers = [{ first = 10, last = 13 }]
values = { min = 0, max = 1500 }
max_step = 400
[[conduits.modbus]]
units = [1]
functions = ["write-multiple-registers"]
holding_registers = [{ first = 20, last = 23 }]
type = "f32"
word_order = "low-first"
values = { min = -2.5, max = 100.0 }
max_step = 10.5
[[conduits.modbus]]
units = [1]
functions = ["write-single-coil", "mask-write-register"]
coils = [{ first = 0, last = 3 }]
holding_registers = [{ first = 30, last = 31 }]
max_rate = "2/s burst 2"
"#;

/// A request that the limits are about, allowed or not.
fn request(chance: &mut Chance) -> Vec<u8> {
    let address = chance.short(16);
    let value = chance.short(2_000);
    let float = |chance: &mut Chance| {
        let number = f32::from(chance.short(300)) / 2.0 - 10.0;
        let [a, b, c, d] = number.to_be_bytes();
        [u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b])]
    };
    match chance.below(8) {
        0 => modbus::read(3, address * 4, 1 + chance.short(9)),
        1 => modbus::read(1, address, 1 + chance.short(9)),
        2 => modbus::write_single(6, 10 + address % 5, value),
        3 => modbus::write_registers(9 + address % 4, &[value, chance.short(1_600)]),
        4 => modbus::write_registers(20 + address % 5, &float(chance)),
        5 => modbus::write_single(5, address % 5, if chance.once_in(2) { 0xff00 } else { 0 }),
        6 => modbus::mask_write(30 + address % 3, value, value),
        _ => modbus::read(43, address, value),
    }
}

/// Its answer: right, an exception, or wrong in some way.
fn answer(chance: &mut Chance, transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let function = pdu.first().copied().unwrap_or(0);
    let quantity = pdu.get(4).copied().unwrap_or(0);
    let right = match function {
        1 => {
            let bytes = quantity.div_ceil(8);
            [vec![1, bytes], vec![0; usize::from(bytes)]].concat()
        }
        3 => [vec![3, quantity * 2], vec![7; usize::from(quantity) * 2]].concat(),
        16 => pdu.iter().take(5).copied().collect(),
        _ => pdu.to_vec(),
    };
    let pdu = match chance.below(80) {
        0..12 => vec![function | 0x80, 1 + chance.byte() % 5],
        12 => right.iter().copied().chain([0]).collect(),
        13 => vec![function ^ 1, 2, 0, 0],
        _ => right,
    };
    let other = u16::from(chance.once_in(60));
    adu(
        transaction ^ other,
        unit ^ u8::from(chance.once_in(60)),
        pdu,
    )
}

/// A plant in the making: its frames, and what the gateway that they go through says of them.
struct Plant<'a> {
    gateway: Replay<'a>,
    chance: Chance,
    time: u64,
    frames: Vec<(u64, Vec<u8>)>,
    seen: BTreeSet<String>,
}

impl Plant<'_> {
    fn send(&mut self, frame: &Frame) -> Result<Option<Verdict>> {
        let bytes = frame.build();
        let line = self.gateway.judge(&CapturedFrame {
            time: CaptureTime(self.time.into()),
            bytes: &bytes,
            is_cut_short: false,
            interface: None,
        })?;
        let verdict = line.verdict;
        self.seen
            .extend(line.verdict.map(|word| word.label().to_owned()));
        self.seen
            .extend(line.reason.map(|word| word.label().to_owned()));
        self.frames.push((self.time, bytes));
        Ok(verdict)
    }

    fn wait(&mut self, most: u64) {
        self.time += self.chance.number() % most;
    }

    /// A connection with requests and their answers, one after the other.
    fn talk(&mut self, port: u16) -> Result<()> {
        let client = ([10, 10, 0, 5], port);
        let (mut mine, mut theirs) = (100_u32, 500_u32);
        // Some connections were open before the capture.
        if !self.chance.once_in(5) {
            self.send(&tcp(client, PLC).flags(SYN).seq(99))?;
            self.send(&tcp(PLC, client).flags(SYN | ACK).seq(499).ack(100))?;
            self.send(&tcp(client, PLC).seq(100).ack(500))?;
        }
        for transaction in 0..40_u16 {
            let slowness = if self.chance.once_in(3) { 2 } else { 20 };
            self.wait(SECOND / slowness);
            let pdu = request(&mut self.chance);
            let unit = 1 + u8::from(self.chance.once_in(30));
            let bytes = adu(transaction, unit, &pdu);
            let size = if self.chance.once_in(5) {
                5
            } else {
                bytes.len()
            };
            let mut verdict = None;
            for piece in bytes.chunks(size) {
                let segment = tcp(client, PLC).flags(PSH | ACK).seq(mine).ack(theirs);
                verdict = self.send(&segment.payload(piece))?;
                mine = mine.wrapping_add(u32::try_from(piece.len())?);
            }
            if self.chance.once_in(5) {
                continue;
            }
            self.wait(SECOND / 50);
            // What the gateway made of a denied request, the responder refuses.
            let bytes = if verdict == Some(Verdict::Exception) {
                adu(
                    transaction,
                    unit,
                    [0x80 | refused(u16::try_from(bytes.len())?), 1],
                )
            } else {
                answer(&mut self.chance, transaction, unit, &pdu)
            };
            let segment = tcp(PLC, client).flags(PSH | ACK).seq(theirs).ack(mine);
            theirs = theirs.wrapping_add(u32::try_from(bytes.len())?);
            self.send(&segment.payload(bytes))?;
        }
        Ok(())
    }
}

#[test]
fn every_limit_holds_in_both() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let text = format!("{PLANT}{DOSING}{LIMITED}");
    let loaded = load_text("policy.toml", &text);
    let policy = loaded.map_err(|refusal| anyhow!(refusal.render()))?.policy;
    let mut plant = Plant {
        gateway: Replay::new(&policy, Means::Simulator)?,
        chance: chance()?,
        time: BEGINNING,
        frames: Vec::new(),
        seen: BTreeSet::new(),
    };
    for port in 20_000..20_120 {
        plant.talk(port)?;
    }
    let place = Place::new()?;
    let policy = place.file("policy.toml", text)?;
    let capture = place.capture(&plant.frames)?;
    assert_eq!(both_agree(&policy, &capture)?, plant.frames.len());
    for wanted in [
        "pass",
        "exception",
        "flow-adopted",
        "unit-not-allowed",
        "function-not-allowed",
        "register-not-allowed",
        "value-not-allowed",
        "step-too-large",
        "rate-exceeded",
        "reply-mismatch",
        "unsolicited-reply",
        "too-many-outstanding",
    ] {
        ensure!(
            plant.seen.contains(wanted),
            "no {wanted} in {:?}",
            plant.seen
        );
    }
    Ok(())
}
