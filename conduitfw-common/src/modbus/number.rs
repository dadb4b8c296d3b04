//! Written registers as numbers: in their order, and in fixed point.
//!
//! The kernel has no floating point, so that IEEE 754 numbers are ordered and subtracted as the
//! integers that they are made of.

use crate::table::number;

/// Registers of a number: 1 or 2.
#[inline(always)]
#[must_use]
pub const fn width(kind: u8) -> u32 {
    if kind >= number::U32 { 2 } else { 1 }
}

/// A number whose keys are in the order of the numbers: `key(a) < key(b)` if and only if `a < b`.
/// `raw` holds the register, or both with the upper half first. `None` for what is not a number.
///
/// Minus zero comes right before zero.
#[inline(always)]
#[must_use]
pub const fn key(kind: u8, raw: u32) -> Option<u32> {
    match kind {
        number::I16 => Some(raw & 0xffff ^ 0x8000),
        number::I32 => Some(raw ^ 0x8000_0000),
        number::F32 => {
            if raw & 0x7fff_ffff > 0x7f80_0000 {
                return None;
            }
            if raw >> 31 == 0 {
                Some(raw ^ 0x8000_0000)
            } else {
                Some(!raw)
            }
        }
        number::U32 => Some(raw),
        _ => Some(raw & 0xffff),
    }
}

/// A number in fixed point: `scale` bits behind the point for an IEEE 754 number (cut, not
/// rounded; the policy chooses a scale at which the numbers that it allows fit), the number itself
/// for an integer.
#[inline(always)]
#[must_use]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "two's complement by definition"
)]
pub const fn fixed(kind: u8, raw: u32, scale: i16) -> i64 {
    match kind {
        number::I16 => raw as u16 as i16 as i64,
        number::I32 => raw as i32 as i64,
        number::F32 => fixed_from_float(raw, scale),
        number::U32 => raw as i64,
        _ => (raw & 0xffff) as i64,
    }
}

/// IEEE 754 §3.4: sign, 8 bits of exponent, 23 bits of fraction.
#[inline(always)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_wrap,
    reason = "24 bits, moved by at most 38"
)]
const fn fixed_from_float(raw: u32, scale: i16) -> i64 {
    let exponent = (raw >> 23) & 0xff;
    let fraction = (raw & 0x007f_ffff) as u64;
    // A number below the normal ones has no leading 1, and the exponent of the smallest of them.
    let (significand, exponent) = if exponent == 0 {
        (fraction, 1)
    } else {
        (fraction | 0x0080_0000, exponent)
    };
    let shift = (exponent as i32)
        .wrapping_sub(150)
        .wrapping_add(scale as i32);
    let magnitude = if shift >= 0 {
        // What would not fit is as large as can be.
        significand << (if shift > 38 { 38 } else { shift }).cast_unsigned()
    } else if shift > -25 {
        significand >> shift.wrapping_neg().cast_unsigned()
    } else {
        0
    };
    if raw >> 31 == 0 {
        magnitude as i64
    } else {
        (magnitude as i64).wrapping_neg()
    }
}

/// How far two numbers are apart, in fixed point.
#[inline(always)]
#[must_use]
pub const fn distance(one: i64, other: i64) -> u64 {
    one.abs_diff(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_the_numbers() {
        let integers = [i32::MIN, -70_000, -1, 0, 1, 70_000, i32::MAX];
        for (low, high) in integers.iter().zip(integers.iter().skip(1)) {
            let raw = |value: i32| value.cast_unsigned();
            assert!(key(number::I32, raw(*low)) < key(number::I32, raw(*high)));
        }
        let shorts = [i16::MIN, -1, 0, 1, i16::MAX];
        for (low, high) in shorts.iter().zip(shorts.iter().skip(1)) {
            let raw = |value: i16| u32::from(value.cast_unsigned());
            assert!(key(number::I16, raw(*low)) < key(number::I16, raw(*high)));
        }
        let floats = [
            f32::NEG_INFINITY,
            f32::MIN,
            -1.5,
            -f32::MIN_POSITIVE,
            -f32::from_bits(1),
            -0.0,
            0.0,
            f32::from_bits(1),
            1e-20,
            1.0,
            1.000_001,
            f32::MAX,
            f32::INFINITY,
        ];
        for (low, high) in floats.iter().zip(floats.iter().skip(1)) {
            assert!(key(number::F32, low.to_bits()) < key(number::F32, high.to_bits()));
        }
        for nan in [f32::NAN.to_bits(), 0x7f80_0001, 0xffff_ffff, 0xff80_0001] {
            assert_eq!(key(number::F32, nan), None);
        }
    }

    #[test]
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "whole numbers that fit"
    )]
    fn fixed_point_is_the_number_times_a_power_of_two() {
        for value in [0.0_f32, 1.0, -1.0, 0.1, 1500.25, -273.15, 1e-9, 3.4e4] {
            for scale in [0_i16, 10, 40] {
                let exact = f64::from(value) * f64::from(scale).exp2();
                let got = fixed(number::F32, value.to_bits(), scale);
                assert_eq!(got, exact.trunc() as i64, "{value} at {scale}");
            }
        }
        let large = 1e30_f32;
        let exact = f64::from(large) / 60_f64.exp2();
        assert_eq!(fixed(number::F32, large.to_bits(), -60), exact as i64);
        assert_eq!(fixed(number::I16, 0xffff, 0), -1);
        assert_eq!(fixed(number::U16, 0xffff, 0), 65_535);
        assert_eq!(fixed(number::I32, 0xffff_fffe, 0), -2);
    }
}
