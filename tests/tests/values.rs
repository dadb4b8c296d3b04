//! What may be written: values, bits, coils, and numbers of two registers.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, Pass, Reset};
use conduitfw_tests::conversation::plant;
use conduitfw_tests::frames::modbus::{
    mask_write, read_write, write_coils, write_registers, write_single,
};
use conduitfw_tests::stage;

const REFUSED: Want = Reset(Reason::ValueNotAllowed);
const WRITES: &str = "functions = [6, 16, 22, 23]\nregisters = [{ first = 0, last = 199 }]";

/// A value written in every way there is, and as one of several.
fn ways(value: u16, good: u16) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("function 6", write_single(6, 3, value)),
        ("function 16", write_registers(3, &[value])),
        ("function 22", mask_write(3, 0, value)),
        ("function 23", read_write((0, 1), 3, &[value])),
        ("the first of 123", {
            let mut values = vec![good; 123];
            values[0] = value;
            write_registers(3, &values)
        }),
        ("the last of 123", {
            let mut values = vec![good; 123];
            values[122] = value;
            write_registers(3, &values)
        }),
        ("the last of 121", {
            let mut values = vec![good; 121];
            values[120] = value;
            read_write((0, 1), 3, &values)
        }),
    ]
}

#[test]
fn values_within_and_beyond() -> Result<()> {
    for (limits, good, bad) in [
        (
            "values = { min = 10, max = 20 }",
            vec![10, 15, 20],
            vec![0, 9, 21, 65_535],
        ),
        ("values = { min = 10 }", vec![10, 65_535], vec![0, 9]),
        (
            "values = { max = 10 }",
            vec![0, 10],
            vec![11, 0x8000, 65_535],
        ),
        (
            "values = [1, 5, \"10-20\"]",
            vec![1, 5, 10, 20],
            vec![0, 2, 4, 6, 9, 21],
        ),
        (
            "signed = true\nvalues = { min = -5, max = 5 }",
            vec![0, 5, 0xffff, 0xfffb],
            vec![6, 0xfffa, 0x7fff, 0x8000],
        ),
        (
            "type = \"i16\"\nvalues = { max = -1 }",
            vec![0x8000, 0xffff],
            vec![0, 1, 0x7fff],
        ),
    ] {
        let mut stage = stage!(&plant("", &[&format!("{WRITES}\n{limits}")]));
        for (values, want) in [(&good, Pass), (&bad, REFUSED)] {
            for value in values {
                for (name, pdu) in ways(*value, good[0]) {
                    stage.each(&[(&format!("{limits}: {value} by {name}"), pdu, want)])?;
                }
            }
        }
        stage.finish()?;
    }
    Ok(())
}

#[test]
fn bits_and_masks() -> Result<()> {
    let mut stage = stage!(&plant("", &[&format!("{WRITES}\nbits = [0, \"4-6\"]")]));
    for bit in 0..16 {
        let value = 1_u16 << bit;
        let want = if [0, 4, 5, 6].contains(&bit) {
            Pass
        } else {
            REFUSED
        };
        for (name, pdu) in [
            ("function 6", write_single(6, 3, value)),
            ("function 16", write_registers(3, &[0, value])),
            ("function 23", read_write((0, 1), 3, &[value])),
            ("a mask that clears", mask_write(3, !value, 0)),
            ("a mask that sets", mask_write(3, !value, value)),
            (
                "a mask that clears it and one more",
                mask_write(3, !(value | 1), 0),
            ),
        ] {
            stage.each(&[(&format!("bit {bit} by {name}"), pdu, want)])?;
        }
    }
    stage.each(&[
        ("all that may be", write_single(6, 3, 0x71), Pass),
        (
            "a mask that changes nothing",
            mask_write(3, 0xffff, 0xffff),
            Pass,
        ),
        ("a mask that overwrites", mask_write(3, 0, 0), REFUSED),
        (
            "an OR behind a mask that keeps all",
            mask_write(3, 0xffff, 0x8),
            Pass,
        ),
    ])?;
    stage.finish()?;
    let mut stage = stage!(&plant(
        "",
        &[&format!("{WRITES}\nvalues = {{ max = 100 }}")]
    ));
    for and in [1, 0x8000, 0xffff] {
        let name = format!("values and the mask {and:#x}");
        stage.each(&[(&name, mask_write(3, and, 5), REFUSED)])?;
    }
    stage.finish()
}

#[test]
fn coils_around_the_edges_of_bytes() -> Result<()> {
    let rules = [
        "functions = [5, 15]\ncoils = [{ first = 0, last = 99 }]\nvalues = [0]",
        "functions = [5, 15]\ncoils = [{ first = 100, last = 1999 }]\nvalues = [1]",
        "functions = [5, 15]\ncoils = [{ first = 2000, last = 4000 }]",
    ];
    let mut stage = stage!(&plant("", &rules));
    stage.each(&[
        ("off", write_single(5, 0, 0), Pass),
        ("on", write_single(5, 0, 0xff00), REFUSED),
        ("neither", write_single(5, 0, 1), REFUSED),
        ("on where it may be", write_single(5, 100, 0xff00), Pass),
        ("off where it must not be", write_single(5, 100, 0), REFUSED),
        ("0xff01", write_single(5, 100, 0xff01), REFUSED),
        (
            "anything where nothing is said",
            write_single(5, 2000, 0xff01),
            Pass,
        ),
    ])?;
    for quantity in [1, 7, 8, 9, 15, 16, 17, 23, 24, 25] {
        for wrong in 0..quantity {
            let mut coils = vec![false; quantity];
            stage.each(&[("all off", write_coils(10, &coils), Pass)])?;
            coils[wrong] = true;
            let name = format!("coil {wrong} of {quantity} on");
            stage.each(&[(&name, write_coils(10, &coils), REFUSED)])?;
            let mut coils = vec![true; quantity];
            coils[wrong] = false;
            let name = format!("coil {wrong} of {quantity} off");
            stage.each(&[(&name, write_coils(110, &coils), REFUSED)])?;
        }
        // From the rule that wants them off into the one that wants them on, at every offset.
        for off in 1..quantity {
            let at = 100 - u16::try_from(off)?;
            let mut coils = vec![true; quantity];
            coils[..off].fill(false);
            let name = format!("{off} of {quantity} before the border");
            stage.each(&[(&name, write_coils(at, &coils), Pass)])?;
            for wrong in [off - 1, off] {
                let mut coils = coils.clone();
                coils[wrong] = !coils[wrong];
                stage.each(&[(&name, write_coils(at, &coils), REFUSED)])?;
            }
        }
    }
    let mut many = vec![true; 1968];
    many[..50].fill(false);
    stage.each(&[("1968 coils", write_coils(50, &many), Pass)])?;
    many[1900] = false;
    stage.each(&[("the 1901st", write_coils(50, &many), REFUSED)])?;
    many[1950] = false;
    many[1900] = true;
    stage.each(&[("where nothing is said", write_coils(50, &many), Pass)])?;
    // What is behind the last coil in its byte is nobody's.
    let mut spare = write_coils(10, &[false; 3]);
    spare[6] = 0xf8;
    stage.each(&[("spare bits", spare, Pass)])?;
    stage.finish()
}

/// The two registers of a number.
fn words(bits: u32, is_high_first: bool) -> [u16; 2] {
    let [a, b, c, d] = bits.to_be_bytes();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if is_high_first {
        [high, low]
    } else {
        [low, high]
    }
}

#[test]
fn numbers_of_two_registers() -> Result<()> {
    let signed = |number: i32| u32::from_be_bytes(number.to_be_bytes());
    let cases = [
        (
            "u32",
            "min = 65536, max = 131072",
            vec![65_536, 131_072],
            vec![0, 65_535, 131_073, u32::MAX, 1],
        ),
        (
            "i32",
            "min = -100000, max = 5",
            vec![0, 5, signed(-1), signed(-100_000)],
            vec![6, signed(-100_001), 0x8000_0000, 0x7fff_ffff],
        ),
        (
            "f32",
            "min = -0.5, max = 1.5",
            [0.0, -0.0, 0.5, 1.5, -0.5, f32::MIN_POSITIVE]
                .map(f32::to_bits)
                .to_vec(),
            [
                1.500_000_1,
                -0.500_000_06,
                f32::MAX,
                f32::MIN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                f32::NAN,
                -f32::NAN,
            ]
            .map(f32::to_bits)
            .into_iter()
            .chain([0x7f80_0001, 0xffff_ffff])
            .collect(),
        ),
    ];
    for (kind, range, good, bad) in cases {
        for (order, is_high_first) in [("high-first", true), ("low-first", false)] {
            let rule = format!(
                "functions = [16, 23]\nregisters = [{{ first = 10, last = 19 }}]\ntype = \
                 \"{kind}\"\nword_order = \"{order}\"\nvalues = {{ {range} }}"
            );
            let mut stage = stage!(&plant("", &[&rule]));
            let two = |bits| words(bits, is_high_first);
            for (values, want) in [(&good, Pass), (&bad, REFUSED)] {
                for bits in values {
                    let name = format!("{kind} {order} {bits:#x}");
                    let four = [two(good[0]), two(*bits)].concat();
                    stage.each(&[
                        (&name, write_registers(10, &two(*bits)), want),
                        (&name, write_registers(18, &two(*bits)), want),
                        (&name, write_registers(12, &four), want),
                        (&name, read_write((10, 1), 10, &two(*bits)), want),
                    ])?;
                }
            }
            let number = two(good[0]);
            let shifted = [number[1], number[0]];
            let three = [number[0], number[1], number[0]];
            stage.each(&[
                ("the first half", write_registers(10, &number[..1]), REFUSED),
                (
                    "the second half",
                    write_registers(11, &number[1..]),
                    REFUSED,
                ),
                ("the last half", write_registers(19, &number[1..]), REFUSED),
                ("two halves", write_registers(11, &shifted), REFUSED),
                ("one and a half", write_registers(10, &three), REFUSED),
            ])?;
            stage.finish()?;
        }
    }
    Ok(())
}

#[test]
fn each_of_123_registers_has_its_own_rule() -> Result<()> {
    let rules: Vec<String> = (0..123)
        .map(|at| {
            format!(
                "functions = [16, 23]\nregisters = [{at}]\nvalues = [{}]",
                at + 1000
            )
        })
        .collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let mut stage = stage!(&plant("", &rules));
    let values: Vec<u16> = (1000..1123).collect();
    stage.each(&[
        ("all", write_registers(0, &values), Pass),
        (
            "121 by function 23",
            read_write((0, 1), 2, &values[2..]),
            Pass,
        ),
    ])?;
    for wrong in 0..123 {
        let mut changed = values.clone();
        changed[wrong] += 1;
        let name = format!("register {wrong}");
        stage.each(&[(&name, write_registers(0, &changed), REFUSED)])?;
    }
    stage.finish()
}
