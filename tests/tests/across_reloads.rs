//! What is on its way while the policy changes.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{Drop, Pass};
use conduitfw_tests::conversation::plant;
use conduitfw_tests::frames::modbus::{adu, read, write_single};
use conduitfw_tests::frames::{ACK, Frame, PSH, SYN, tcp, udp};
use conduitfw_tests::scene::{HMI, PLANT, PLC};
use conduitfw_tests::stage;

fn reads() -> String {
    plant("", &["functions = [\"reads\"]"])
}

#[test]
fn a_handshake_goes_on() -> Result<()> {
    let mut stage = stage!(&reads());
    let mut talk = stage.unopened(HMI, PLC);
    let syn = tcp(talk.hmi, talk.plc).flags(SYN).seq(talk.next.0).build();
    stage.expect("SYN", &syn, Pass)?;
    talk.asked(1);
    stage.reload(&reads())?;
    stage.expect(
        "SYN+ACK",
        &talk.plc_sends(&[]).flags(SYN | ACK).build(),
        Pass,
    )?;
    talk.answered(1);
    stage.reload(&reads())?;
    stage.expect("ACK", &talk.hmi_sends(&[]).build(), Pass)?;
    talk.asks(&mut stage, "data", &adu(1, 1, read(3, 0, 1)), Pass)?;
    stage.finish()
}

#[test]
fn a_handshake_that_is_forbidden_ends() -> Result<()> {
    let mut stage = stage!(&reads());
    let mut talk = stage.unopened(HMI, PLC);
    let syn = tcp(talk.hmi, talk.plc).flags(SYN).seq(talk.next.0).build();
    stage.expect("SYN", &syn, Pass)?;
    talk.asked(1);
    stage.reload(&reads().replace("units = [1]", "units = [1]\nport = 503"))?;
    let answer = talk.plc_sends(&[]).flags(SYN | ACK).build();
    stage.expect("SYN+ACK", &answer, Drop(Reason::PolicyChanged))?;
    stage.expect("SYN", &syn, Drop(Reason::NoConduit))?;
    stage.finish()
}

#[test]
fn a_datagram_is_answered() -> Result<()> {
    let policy = format!(
        "{PLANT}\n[[conduits]]\nname = \"u\"\nfrom = [\"hmi-1\"]\nto = [\"plc-dosing\"]\n\
         rationale = \"x\"\nudp = [161]\n"
    );
    let mut stage = stage!(&policy);
    stage.expect("ask", &udp((HMI, 5000), (PLC, 161)).build(), Pass)?;
    stage.reload(&policy)?;
    stage.expect("answer", &udp((PLC, 161), (HMI, 5000)).build(), Pass)?;
    stage.finish()
}

#[test]
fn a_rate_that_is_raised_holds_at_once() -> Result<()> {
    let rule = |rate: &str| {
        let rule = "functions = [6]\nregisters = [{ first = 0, last = 9 }]\nmax_rate = ";
        plant("on_deny = \"drop\"", &[&format!("{rule}\"{rate}\"")])
    };
    let mut stage = stage!(&rule("1/m burst 10"));
    let mut talk = stage.talk()?;
    for number in 0..10 {
        let pdu = write_single(6, 5, number);
        talk.asks(&mut stage, "burst", &adu(number, 1, pdu.clone()), Pass)?;
        talk.answers(&mut stage, "answer", &adu(number, 1, pdu), Pass)?;
    }
    stage.reload(&rule("10/s"))?;
    stage.wait(60_000);
    let write = adu(99, 1, write_single(6, 5, 1));
    talk.asks(&mut stage, "a minute after", &write, Pass)?;
    stage.finish()
}

#[test]
fn a_rate_of_new_flows_that_is_raised_holds_at_once() -> Result<()> {
    let policy = |rate: &str| {
        let new = format!("new_flows = \"{rate}\"");
        reads().replace("new_flows = \"unlimited\"", &new)
    };
    let mut stage = stage!(&policy("1/m burst 10"));
    for _ in 0..10 {
        stage.talk()?;
    }
    stage.reload(&policy("100/s"))?;
    stage.wait(60_000);
    stage.talk()?;
    stage.finish()
}

#[test]
fn a_zone_that_moved_takes_its_flows_along() -> Result<()> {
    let policy = |operations: u16, guests: u16| {
        let of = |tag: u16| format!("interfaces = [\"lo\"]\nvlans = [{tag}]");
        reads()
            .replace("interfaces = [\"eth0\"]", &of(operations))
            .replace("interfaces = [\"eth1\"]", &of(20))
            + &format!(
                "\n[zones.guest]\n{}\nnetworks = [\"10.99.0.0/24\"]\n",
                of(guests)
            )
    };
    let (hmi, plc) = ((HMI, 4000), (PLC, 502));
    let asks = |flags: u8, sequence: u32| tcp(hmi, plc).flags(flags).seq(sequence).ack(500);
    let answers = |flags: u8| {
        tcp(plc, hmi)
            .flags(flags)
            .seq(500)
            .ack(112)
            .vlan(20)
            .build()
    };
    let request = || asks(PSH | ACK, 100).payload(adu(1, 1, read(3, 0, 1)));
    let in_vlan = |frame: Frame, tag: u16| frame.vlan(tag).build();
    for does_the_plc_speak_first in [false, true] {
        let mut stage = stage!(&policy(10, 30));
        stage.expect("SYN", &in_vlan(asks(SYN, 99).ack(0), 10), Pass)?;
        let answer = tcp(plc, hmi).flags(SYN | ACK).seq(499).ack(100).vlan(20);
        stage.expect("SYN+ACK", &answer.build(), Pass)?;
        stage.expect("ACK", &in_vlan(asks(ACK, 100), 10), Pass)?;
        stage.expect("request", &in_vlan(request(), 10), Pass)?;
        // What was the operators' tag is the guests' now.
        stage.reload(&policy(30, 10))?;
        if does_the_plc_speak_first {
            stage.expect("acknowledged", &answers(ACK), Pass)?;
        }
        let forged = in_vlan(request(), 10);
        stage.expect("by a guest", &forged, Drop(Reason::SpoofedSource))?;
        stage.expect("by the operator", &in_vlan(request(), 30), Pass)?;
        stage.expect("acknowledged", &answers(ACK), Pass)?;
        stage.finish()?;
    }
    Ok(())
}
