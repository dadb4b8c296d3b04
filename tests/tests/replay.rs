//! `conduitfw replay`: captures judged without a gateway, in ordinary memory and by the kernel's
//! program, which say the same line for line.
//!
//! `CONDUITFW_CAPTURES` is a directory of captures (pcap, Ethernet) that are replayed as well.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use conduitfw_tests::captures::captures_in;
use conduitfw_tests::chance::Chance;
use conduitfw_tests::conversations::{CAPTURE_POLICY, POLICY, good_frames};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::frames::{ACK, Frame, PSH, SYN, arp_reply, arp_request, tcp};
use conduitfw_tests::lab::{binary, skipped_without_root};
use conduitfw_tests::scene::dosing;
use serde_json::Value;

const SECOND: u64 = 1_000_000_000;
const BEGINNING: u64 = 1_700_000_000 * SECOND;
const HMI: ([u8; 4], u16) = ([10, 10, 0, 5], 40_000);
const PLC: ([u8; 4], u16) = ([10, 20, 0, 10], 502);

/// A directory that is gone with its owner.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cfw-{}-replay-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// A capture in the classic format, with nanoseconds.
    fn capture(&self, frames: &[(u64, Vec<u8>)]) -> Result<PathBuf> {
        self.file("capture.pcap", classic(frames)?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn classic(frames: &[(u64, Vec<u8>)]) -> Result<Vec<u8>> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let mut bytes = words(&[0xa1b2_3c4d, 0x0004_0002, 0, 0, 65_535, 1]);
    for (time, frame) in frames {
        let length = u32::try_from(frame.len())?;
        let seconds = u32::try_from(time / SECOND)?;
        let nanoseconds = u32::try_from(time % SECOND)?;
        bytes.extend(words(&[seconds, nanoseconds, length, length]));
        bytes.extend(frame);
    }
    Ok(bytes)
}

/// The same frames as pcapng, all seen on one interface.
fn next_generation(interface: &str, frames: &[(u64, Vec<u8>)]) -> Result<Vec<u8>> {
    let block = |kind: u32, body: &[u8]| -> Result<Vec<u8>> {
        let padded = body.len().next_multiple_of(4);
        let length = u32::try_from(padded + 12)?.to_be_bytes();
        let mut bytes = [kind.to_be_bytes(), length].concat();
        bytes.extend(body);
        bytes.resize(8 + padded, 0);
        bytes.extend(length);
        Ok(bytes)
    };
    let mut section = vec![0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0];
    section.extend([0xff; 8]);
    let mut bytes = block(0x0a0d_0d0a, &section)?;
    let mut description = vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    description.push(u8::try_from(interface.len())?);
    description.extend(interface.as_bytes());
    description.resize(description.len().next_multiple_of(4), 0);
    description.extend([0, 9, 0, 1, 9, 0, 0, 0]);
    bytes.extend(block(1, &description)?);
    for (time, frame) in frames {
        let length = u32::try_from(frame.len())?.to_be_bytes();
        let mut body = vec![0; 4];
        body.extend(time.to_be_bytes());
        body.extend([length, length].concat());
        body.extend(frame);
        bytes.extend(block(6, &body)?);
    }
    Ok(bytes)
}

/// One frame every millisecond.
fn timed(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<(u64, Vec<u8>)> {
    (0..)
        .zip(frames)
        .map(|(number, frame)| (BEGINNING + number * 1_000_000, frame))
        .collect()
}

fn replay(
    policy: &Path,
    capture: &Path,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.arg("replay").arg("--policy").arg(policy);
    Ok(command.args(words).arg(capture).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is said of each frame.
fn lines(policy: &Path, capture: &Path) -> Result<Vec<Value>> {
    let output = replay(policy, capture, ["--json"])?;
    let said = text(&output.stdout);
    ensure!(output.status.success(), "{}", text(&output.stderr));
    said.lines()
        .map(|line| serde_json::from_str(line).context("not JSON"))
        .collect()
}

/// Verdict and reason of each frame, in short.
fn verdicts(policy: &Path, capture: &Path) -> Result<Vec<String>> {
    let lines = lines(policy, capture)?;
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or("-").to_owned();
    let short = |line: &Value| format!("{} {}", word(line, "verdict"), word(line, "reason"));
    Ok(lines.iter().map(short).collect())
}

/// Both ways of judging say the same, line for line. Returns how many lines.
fn both_agree(policy: &Path, capture: &Path) -> Result<usize> {
    let mut count = 0;
    for format in [&["--json"][..], &[]] {
        let user = replay(policy, capture, format)?;
        let kernel = replay(policy, capture, [format, &["--kernel"]].concat())?;
        ensure!(
            user.status == kernel.status,
            "{}",
            text(&[user.stderr, kernel.stderr].concat())
        );
        let (user, kernel) = (text(&user.stdout), text(&kernel.stdout));
        for (number, (ours, theirs)) in (1..).zip(user.lines().zip(kernel.lines())) {
            ensure!(
                ours == theirs,
                "line {number}\nuser   {ours}\nkernel {theirs}"
            );
        }
        ensure!(user.lines().count() == kernel.lines().count());
        count = count.max(user.lines().count());
    }
    Ok(count)
}

/// A connection from hmi-1 to plc-dosing, opened.
fn opened() -> Vec<Vec<u8>> {
    vec![
        tcp(HMI, PLC).flags(SYN).seq(99).build(),
        tcp(PLC, HMI).flags(SYN | ACK).seq(499).ack(100).build(),
        tcp(HMI, PLC).seq(100).ack(500).build(),
    ]
}

/// A request on it, the first.
fn request(pdu: impl AsRef<[u8]>) -> Frame {
    let segment = tcp(HMI, PLC).flags(PSH | ACK).seq(100).ack(500);
    segment.payload(adu(1, 1, pdu))
}

#[test]
fn user_and_kernel_say_the_same() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let place = Place::new()?;
    let policy = place.file("policy.toml", POLICY)?;
    let mut chance = Chance::new(7);
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
    let mut chance = Chance::new(3);
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

#[test]
fn a_line_for_each_frame() -> Result<()> {
    let place = Place::new()?;
    let policy = place.file("policy.toml", dosing(r#""reads""#))?;
    let mut frames = opened();
    frames.push(request(modbus::read(3, 0, 10)).build());
    frames.push(request(modbus::write_single(6, 1, 2)).seq(112).build());
    frames.push(vec![0; 5]);
    let capture = place.capture(&timed(frames))?;
    let lines = lines(&policy, &capture)?;
    assert_eq!(lines.len(), 6);
    for (number, line) in (1..).zip(&lines) {
        let keys: Vec<&String> = line.as_object().context("no object")?.keys().collect();
        let wanted = [
            "conduit",
            "frame",
            "operations",
            "reason",
            "time",
            "verdict",
        ];
        let mut sorted = keys.clone();
        sorted.sort();
        assert_eq!(sorted, wanted);
        assert_eq!(line["frame"], number);
    }
    let said = text(&replay(&policy, &capture, ["--json"])?.stdout);
    ensure!(
        said.starts_with(
            r#"{"frame":1,"time":1700000000.000000000,"verdict":"pass","reason":null,"#
        ),
        "{said}"
    );
    let verdicts = verdicts(&policy, &capture)?;
    assert_eq!(
        verdicts,
        [
            "pass -",
            "pass -",
            "pass -",
            "pass -",
            "reset function-not-allowed",
            "drop truncated-frame"
        ]
    );
    assert_eq!(lines[4]["conduit"], "hmi-dosing");
    assert_eq!(lines[5]["conduit"], Value::Null);
    let summary = text(&replay(&policy, &capture, [""; 0])?.stdout);
    for wanted in [
        "6 seen = 4 allowed + 2 denied",
        "1 opened",
        "hmi-dosing: 4 allowed, 1 denied\n              1 function-not-allowed",
        "(no conduit): 0 allowed, 1 denied\n              1 truncated-frame",
    ] {
        ensure!(summary.contains(wanted), "no {wanted} in:\n{summary}");
    }
    Ok(())
}

#[test]
fn what_is_cut_off_is_judged_as_far_as_it_goes() -> Result<()> {
    let place = Place::new()?;
    let policy = place.file("policy.toml", dosing(r#""reads""#))?;
    let whole = classic(&timed(opened()))?;
    let records = [24, 24 + 16 + 54, 24 + 2 * (16 + 54), whole.len()];
    for length in (0..whole.len()).step_by(7) {
        let capture = place.file("cut.pcap", &whole[..length])?;
        let output = replay(&policy, &capture, ["--json"])?;
        let said = text(&output.stderr);
        let judged = records.iter().filter(|end| **end <= length).count();
        assert_eq!(
            text(&output.stdout).lines().count(),
            judged.saturating_sub(1),
            "{length}"
        );
        assert_eq!(output.status.code(), Some(1), "{length}: {said}");
        let start = records.iter().rfind(|end| **end <= length).unwrap_or(&0);
        let wanted = format!("cut.pcap: offset {start}: ");
        ensure!(said.contains(&wanted), "{length}: {said}");
    }
    let missing = replay(&policy, &place.0.join("none.pcap"), ["--json"])?;
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
    let missing = replay(
        &place.0.join("none.toml"),
        &place.0.join("cut.pcap"),
        [""; 0],
    )?;
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
    Ok(())
}

#[test]
fn where_frames_came_in() -> Result<()> {
    let place = Place::new()?;
    let plain = dosing(r#""reads""#);
    let tagged = plain.replace("[\"eth0\"]", "[\"eth0\"]\nvlans = [10]");
    let policy = place.file("policy.toml", &plain)?;
    let tagged = place.file("tagged.toml", tagged)?;
    let stranger = tcp(([192, 0, 2, 1], 1), PLC).flags(SYN).build();
    let probe = arp_request([0, 0, 0, 0].into(), [10, 10, 0, 5].into()).build();
    let mut frames = opened();
    frames.extend([stranger.clone(), probe]);
    let capture = place.capture(&timed(frames.clone()))?;
    let wanted = [
        "pass -",
        "pass -",
        "pass -",
        "drop unknown-interface",
        "pass -",
    ];
    assert_eq!(verdicts(&policy, &capture)?, wanted);
    // A capture often lacks the tags of the frames.
    assert_eq!(verdicts(&tagged, &capture)?, wanted);

    let on = |tag: u16| tcp(HMI, PLC).flags(SYN).vlan(tag).build();
    let capture = place.capture(&timed([on(10), on(11)]))?;
    let wanted = ["pass -", "drop unknown-interface"];
    assert_eq!(verdicts(&tagged, &capture)?, wanted);

    // Where the capture names the interface, a sender that is not at home there is found out; a
    // frame that leaves there came in elsewhere.
    let forged = tcp(PLC, ([10, 20, 0, 11], 502)).flags(SYN).build();
    frames.extend([forged, stranger]);
    let frames = timed(frames);
    let capture = place.file("named.pcapng", next_generation("eth0", &frames)?)?;
    let wanted = [
        "pass -",
        "pass -",
        "pass -",
        "drop spoofed-source",
        "pass -",
        "drop spoofed-source",
        "drop spoofed-source",
    ];
    assert_eq!(verdicts(&policy, &capture)?, wanted);
    // What the gateway itself sends never comes in.
    let own = format!("[gateway]\naddresses = [\"10.10.0.1\"]\n{plain}");
    let own = place.file("own.toml", own)?;
    let reply = arp_reply([10, 10, 0, 1].into(), [10, 10, 0, 5].into()).build();
    let reply = timed([reply]);
    for bytes in [classic(&reply)?, next_generation("eth0", &reply)?] {
        let capture = place.file("own.pcap", bytes)?;
        assert_eq!(verdicts(&own, &capture)?, ["drop unknown-interface"]);
        let summary = text(&replay(&own, &capture, [""; 0])?.stdout);
        ensure!(summary.contains("1 from the gateway's own"), "{summary}");
    }
    let capture = place.file("other.pcapng", next_generation("enp3s0", &frames)?)?;
    assert_eq!(verdicts(&policy, &capture)?[3], "drop unknown-interface");
    Ok(())
}

#[test]
fn what_is_wanted_is_compared() -> Result<()> {
    let place = Place::new()?;
    let policy = place.file("policy.toml", dosing(r#""reads""#))?;
    let mut frames = opened();
    frames.push(request(modbus::write_single(6, 1, 2)).build());
    let capture = place.capture(&timed(frames))?;
    let right = place.file(
        "right.toml",
        "[[expect]]\nframe = 4\nverdict = \"reset\"\nreason = \"function-not-allowed\"\n\
         conduit = \"hmi-dosing\"\n[[expect]]\nframe = 1\nverdict = \"pass\"\nreason = \"none\"\n\
         [summary]\ndenied = 1\nflows = 1\nfunction-not-allowed = 1\n",
    )?;
    let output = replay(
        &policy,
        &capture,
        [OsStr::new("--expect"), right.as_os_str()],
    )?;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    ensure!(text(&output.stdout).ends_with("right.toml: 5 of 5 expectations hold\n"));
    let wrong = place.file(
        "wrong.toml",
        "[[expect]]\nname = \"the setpoint\"\nframe = 4\nverdict = \"pass\"\n\n[[expect]]\n\
         frame = 9\nverdict = \"pass\"\n[summary]\ndenied = 0\n",
    )?;
    let output = replay(
        &policy,
        &capture,
        [OsStr::new("--expect"), wrong.as_os_str()],
    )?;
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for wanted in [
        "wrong.toml:1: the setpoint (frame 4)\n  wanted  pass\n  found   reset, reason function-not-allowed",
        "wrong.toml:6: frame 9\n  wanted  pass\n  found   no such frame was judged",
        "wrong.toml:10: summary: denied\n  wanted  0\n  found   1",
        "0 of 3 expectations hold",
    ] {
        ensure!(said.contains(wanted), "no {wanted} in:\n{said}");
    }
    let odd = place.file("odd.toml", "[summary]\ndenied = 1\nlost = 4\n")?;
    let output = replay(&policy, &capture, [OsStr::new("--expect"), odd.as_os_str()])?;
    assert_eq!(output.status.code(), Some(2));
    ensure!(text(&output.stderr).contains("odd.toml:3: `lost` is not counted"));
    Ok(())
}

#[test]
fn a_large_capture_takes_no_more_memory() -> Result<()> {
    const FRAMES: u64 = 300_000;
    let place = Place::new()?;
    let policy = place.file("policy.toml", dosing(r#""reads""#))?;
    let mut child = Command::new(binary()?)
        .arg("replay")
        .arg("--policy")
        .arg(&policy)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = BufWriter::new(child.stdin.take().context("no input")?);
    input.write_all(&classic(&timed(opened()))?)?;
    let header = classic(&[])?.len();
    let mut most = 0;
    for number in 0..FRAMES {
        let sequence = 100 + 12 * u32::try_from(number)?;
        let frame = request(modbus::read(3, 0, 10)).seq(sequence).ack(500);
        // The responder acknowledges now and then, or the segments could not be remembered.
        let reply = tcp(PLC, HMI).seq(500).ack(sequence.wrapping_add(12));
        let time = BEGINNING + SECOND + number * 1_000_000;
        let both = [(time, frame.build()), (time, reply.build())];
        input.write_all(&classic(&both)?[header..])?;
        if number % 50_000 == 49_999 {
            most = most.max(resident_kilobytes(child.id())?);
        }
    }
    drop(input);
    let output = child.wait_with_output()?;
    let said = text(&output.stdout);
    ensure!(output.status.success(), "{said}");
    ensure!(said.contains(&format!("{} seen", 3 + 2 * FRAMES)), "{said}");
    ensure!(most < 64 << 10, "{most} kB");
    Ok(())
}

fn resident_kilobytes(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(words.parse()?)
}

#[test]
fn anybody_may_replay_and_root_may_ask_the_kernel() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let place = Place::new()?;
    let policy = place.file("policy.toml", dosing(r#""reads""#))?;
    let capture = place.capture(&timed(opened()))?;
    let program = place.0.join("conduitfw");
    fs::copy(binary()?, &program)?;
    let as_nobody = |words: &[&str]| -> Result<Output> {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&program).arg("replay").args(words);
        let input = File::open(&capture)?;
        Ok(command
            .arg("--policy")
            .arg(&policy)
            .arg("-")
            .stdin(input)
            .output()?)
    };
    let output = as_nobody(&[])?;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = as_nobody(&["--kernel"])?;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    ensure!(text(&output.stderr).contains("as root"));
    Ok(())
}
