//! `conduitfw replay`: captures judged without a gateway.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::Ipv6Addr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use conduitfw_tests::frames::modbus::{self, adu};
use conduitfw_tests::frames::{
    ACK, Frame, PSH, SYN, arp_reply, arp_request, neighbour_advertisement, neighbour_solicitation,
    tcp,
};
use conduitfw_tests::lab::{binary, skipped_without_root};
use conduitfw_tests::replay::{
    BEGINNING, Place, SECOND, classic, lines, next_generation, replay, text, timed, verdicts,
};
use conduitfw_tests::scene::dosing;
use serde_json::Value;

const HMI: ([u8; 4], u16) = ([10, 10, 0, 5], 40_000);
const PLC: ([u8; 4], u16) = ([10, 20, 0, 10], 502);

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
    let missing = replay(&policy, &place.path("none.pcap"), ["--json"])?;
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
    let missing = replay(&place.path("none.toml"), &place.path("cut.pcap"), [""; 0])?;
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
    // Neighbours find each other before they have addresses that tell where they are.
    let [hmi, router]: [Ipv6Addr; 2] = ["fd00:10::5".parse()?, "fd00:10::1".parse()?];
    let (link_local, nobody) = ("fe80::5".parse()?, Ipv6Addr::UNSPECIFIED);
    let capture = place.capture(&timed([
        neighbour_solicitation(link_local, hmi).build(),
        neighbour_solicitation(nobody, hmi).build(),
        neighbour_advertisement(link_local, hmi).build(),
        neighbour_solicitation(link_local, router).build(),
        neighbour_solicitation(link_local, "fd00:77::1".parse()?).build(),
    ]))?;
    let known = format!("[gateway]\naddresses = [\"fd00:10::1\"]\n{plain}");
    let known = place.file("known.toml", known)?;
    let found = verdicts(&known, &capture)?;
    assert_eq!(found[..4], ["pass -"; 4]);
    assert_eq!(found[4], "drop unknown-interface");

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
    let program = place.path("conduitfw");
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
