//! A request in one segment goes the plain way, one in two segments the long way: both decide alike, for
//! every function with a request of twelve bytes, at the edges of ranges, and for quantities that no
//! server takes.

use anyhow::{Result, ensure};
use conduitfw_tests::chance::Chance;
use conduitfw_tests::conversation::{Stage, Want, plant};
use conduitfw_tests::frames::modbus::{adu, read, write_single};
use conduitfw_tests::stage;

/// Where rules begin and end, and what lies next to that.
const EDGES: [u16; 12] = [0, 1, 9, 10, 11, 29, 30, 40, 41, 65_000, 65_534, 65_535];
const QUANTITIES: [u16; 10] = [0, 1, 2, 10, 20, 30, 31, 125, 536, 65_535];

fn policy(on_deny: &str) -> String {
    plant(
        &format!("on_deny = \"{on_deny}\"\n"),
        &[
            "functions = [1]",
            "functions = [2]\ndiscrete_inputs = [{ first = 10, last = 29 }, { first = 31, last = 40 }]",
            "functions = [3]\nregisters = [{ first = 10, last = 29 }, { first = 30, last = 40 }]",
            "functions = [3]\nregisters = [{ first = 65000, last = 65535 }]",
            "functions = [4]\ninput_registers = [{ first = 0, last = 9 }]",
            "functions = [6]\nregisters = [{ first = 0, last = 65535 }]",
        ],
    )
}

/// What becomes of a request that is sent up to `at`, and then from there; of the last segment.
fn asked(stage: &mut Stage, request: &[u8], at: usize) -> Result<Option<Want>> {
    let mut talk = stage.talk()?;
    let (first, rest) = request.split_at(at);
    if !first.is_empty() {
        let became = stage.becomes_of(&talk.hmi_sends(first).build())?;
        if became != Some(Want::Pass) {
            // Denied as soon as its function code is there.
            return Ok(became);
        }
        talk.next.0 = talk.next.0.wrapping_add(u32::try_from(first.len())?);
    }
    stage.becomes_of(&talk.hmi_sends(rest).build())
}

fn whole_and_split(on_deny: &str) -> Result<()> {
    let mut stage = stage!(&policy(on_deny));
    let mut chance = Chance::new(1);
    let mut outcomes = std::collections::BTreeMap::new();
    for function in 1..=6 {
        for address in EDGES {
            for quantity in QUANTITIES {
                let pdu = match function {
                    5 | 6 => write_single(function, address, quantity),
                    _ => read(function, address, quantity),
                };
                let unit = if chance.once_in(16) { 2 } else { 1 };
                let request = adu(7, unit, pdu);
                let whole = asked(&mut stage, &request, 0)?;
                let split = asked(&mut stage, &request, 1 + chance.below(11))?;
                let name = format!("unit {unit}, function {function}, {quantity} from {address}");
                ensure!(whole == split, "{name}: whole {whole:?}, split {split:?}");
                *outcomes.entry(format!("{whole:?}")).or_insert(0) += 1;
            }
        }
    }
    // It passed, the register was not allowed, nor was the function, nor was the unit.
    ensure!(outcomes.len() == 4, "{outcomes:?}");
    stage.finish()
}

#[test]
fn what_is_dropped() -> Result<()> {
    whole_and_split("drop")
}

#[test]
fn what_is_reset() -> Result<()> {
    whole_and_split("reset")
}
