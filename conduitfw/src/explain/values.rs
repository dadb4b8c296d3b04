//! Values that an operation writes, as they are said on the command line.

use super::fields::{self, Fields};

/// What function 5 writes: 0xff00 or 0 for on and off, any other number as it is (V1.1b3 §6.5).
pub(super) fn coil_word(fields: &mut Fields) -> Result<u16, String> {
    let text = fields
        .text("value")
        .ok_or("a write needs `value=`, as in value=1")?;
    match text.as_str() {
        "1" | "on" | "true" => Ok(0xff00),
        "0" | "off" | "false" => Ok(0),
        other => fields::integer(other)
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| format!("`value={other}` is not a coil's, expected 0, 1, on or off")),
    }
}

fn value_texts(fields: &mut Fields, what: &str) -> Result<Vec<String>, String> {
    let text = match fields.text("values") {
        Some(text) => text,
        None => fields
            .text("value")
            .ok_or_else(|| format!("{what} needs `values=`, as in values=1,2,3"))?,
    };
    let texts: Vec<String> = text.split(',').map(str::to_owned).collect();
    match (fields.number("quantity", 1..=2000)?, texts.as_slice()) {
        // One value for all of them.
        (Some(quantity), [one]) => Ok(vec![one.clone(); usize::from(quantity)]),
        (Some(quantity), several) if several.len() != usize::from(quantity) => Err(format!(
            "quantity={quantity} and {} values contradict each other",
            several.len()
        )),
        _ => Ok(texts),
    }
}

pub(super) fn coils(fields: &mut Fields, what: &str) -> Result<Vec<bool>, String> {
    let texts = value_texts(fields, what)?;
    let coil = |text: &String| match text.as_str() {
        "1" | "on" | "true" => Ok(true),
        "0" | "off" | "false" => Ok(false),
        other => Err(format!("`{other}` is not a coil's value, expected 0 or 1")),
    };
    texts.iter().map(coil).collect()
}

pub(super) fn one_register(fields: &mut Fields, what: &str) -> Result<u16, String> {
    match registers(fields, what)?.as_slice() {
        [one] => Ok(*one),
        several => Err(format!("{what} writes one register, not {}", several.len())),
    }
}

/// Registers as numbers of one register, or of two with `type=`.
pub(super) fn registers(fields: &mut Fields, what: &str) -> Result<Vec<u16>, String> {
    let kind = fields.text("type").unwrap_or_else(|| "u16".to_owned());
    let order = fields.text("word_order");
    let low_word_first = match order.as_deref() {
        None | Some("high-first") => false,
        Some("low-first") => true,
        Some(other) => {
            return Err(format!(
                "`word_order={other}` is not known here, expected high-first or low-first"
            ));
        }
    };
    let mut registers = Vec::new();
    for text in value_texts(fields, what)? {
        let refused = || format!("`{text}` is not a value of type {kind}");
        let number = fields::integer(&text);
        let raw = match kind.as_str() {
            // A negative number is meant in two's complement.
            "u16" | "i16" => {
                let number = number.filter(|number| (-0x8000..=0xffff).contains(number));
                let number = number.ok_or_else(refused)?.rem_euclid(0x1_0000);
                registers.push(u16::try_from(number).unwrap_or_default());
                continue;
            }
            "u32" => number.and_then(|number| u32::try_from(number).ok()),
            "i32" => number
                .and_then(|number| i32::try_from(number).ok())
                .map(i32::cast_unsigned),
            "f32" => text.parse::<f32>().ok().map(f32::to_bits),
            _ => {
                let known = ["u16", "i16", "u32", "i32", "f32"];
                let hint = fields::did_you_mean(&kind, &known);
                return Err(format!("`type={kind}` is not known here{hint}"));
            }
        };
        let [a, b, c, d] = raw.ok_or_else(refused)?.to_be_bytes();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        registers.extend(if low_word_first {
            [low, high]
        } else {
            [high, low]
        });
    }
    Ok(registers)
}
