//! The checksums of segments that go on changed: right, or left to the device as they were.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, Edited, Pass};
use conduitfw_tests::conversation::{Talk, neutral, plant, refusal};
use conduitfw_tests::frames::modbus::{adu, write_registers, write_single};
use conduitfw_tests::frames::{ACK, PSH};
use conduitfw_tests::scene::{HMI_V6, PLC_V6};
use conduitfw_tests::stage;

const DENIED: Want = Want::Exception(Reason::FunctionNotAllowed);

#[test]
fn checksums_are_right_or_left_to_the_device() -> Result<()> {
    let mut stage = stage!(&plant(
        "on_deny = \"exception\"",
        &["functions = [\"reads\"]"]
    ));
    for is_v6 in [false, true] {
        for asked in [
            adu(7, 1, write_single(6, 10, 4321)),
            adu(7, 1, write_registers(3, &[0xffff; 4])),
            adu(7, 1, [65]),
        ] {
            let form = neutral(&asked);
            let mut talk = if is_v6 {
                let talk = stage.unopened(HMI_V6, PLC_V6);
                talk.open(&mut stage)?
            } else {
                stage.talk()?
            };
            let name = format!("IPv6 {is_v6}, {} bytes", asked.len());
            let partial = |talk: &Talk, bytes: &[u8]| talk.hmi_sends(bytes).partial_checksum();
            let (from, to) = (partial(&talk, &asked), partial(&talk, &form));
            stage.becomes(&name, &from, DENIED, &to)?;
            talk.asked(asked.len());
            let (reply, wanted) = (refusal(&form, 1), refusal(&asked, 1));
            let want = if reply == wanted { Pass } else { Edited };
            let partial = |talk: &Talk, bytes: &[u8]| talk.plc_sends(bytes).partial_checksum();
            let (from, to) = (partial(&talk, &reply), partial(&talk, &wanted));
            stage.becomes(&name, &from, want, &to)?;
            talk.answered(reply.len());
            // With options, so that the payload begins elsewhere; and one that is wrong stays so.
            let options = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0];
            let frame = |talk: &Talk, bytes: &[u8]| {
                talk.hmi_sends(bytes).flags(PSH | ACK).tcp_options(&options)
            };
            let (from, to) = (frame(&talk, &asked), frame(&talk, &form));
            stage.becomes(&name, &from, DENIED, &to)?;
            let spoilt = stage.sends(&from.clone().spoil_checksum().build())?;
            if spoilt == to.build() {
                stage.complain(&name, "a wrong checksum was put right");
            }
        }
    }
    stage.finish()
}
