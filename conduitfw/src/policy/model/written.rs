//! What may be written: numbers of one register or two, and the limits of a rule on them.

use std::fmt::{self, Write as _};

use conduitfw_common::modbus::function::FunctionCode;
use conduitfw_common::table::number;

/// How written registers are read as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NumberType {
    /// One register, unsigned.
    #[default]
    U16,
    /// One register, two's complement.
    I16,
    /// Two registers, unsigned.
    U32,
    /// Two registers, two's complement.
    I32,
    /// Two registers, IEEE 754 single precision.
    F32,
}

impl NumberType {
    /// Every type.
    pub const ALL: [Self; 5] = [Self::U16, Self::I16, Self::U32, Self::I32, Self::F32];

    /// The word for it in a policy.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
        }
    }

    /// Its number in [`conduitfw_common::table::number`].
    #[must_use]
    pub const fn kind(self) -> u8 {
        match self {
            Self::U16 => number::U16,
            Self::I16 => number::I16,
            Self::U32 => number::U32,
            Self::I32 => number::I32,
            Self::F32 => number::F32,
        }
    }

    /// Registers that a number takes: 1 or 2.
    #[must_use]
    pub const fn registers(self) -> u16 {
        match self {
            Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
        }
    }

    /// The number that stands in registers, the upper half first: the other way of [`Number::raw`].
    #[must_use]
    pub fn number(self, raw: u32) -> Number {
        match self {
            Self::F32 => Number::Real(f32::from_bits(raw)),
            _ => Number::Integer(conduitfw_common::modbus::number::fixed(self.kind(), raw, 0)),
        }
    }

    /// The smallest number that can be written, and the largest one; infinities do not count.
    #[must_use]
    pub const fn bounds(self) -> (Number, Number) {
        match self {
            Self::U16 => (Number::Integer(0), Number::Integer(0xffff)),
            Self::I16 => (Number::Integer(-0x8000), Number::Integer(0x7fff)),
            Self::U32 => (Number::Integer(0), Number::Integer(0xffff_ffff)),
            Self::I32 => (Number::Integer(-0x8000_0000), Number::Integer(0x7fff_ffff)),
            Self::F32 => (Number::Real(f32::MIN), Number::Real(f32::MAX)),
        }
    }
}

/// Which of two registers comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WordOrder {
    /// The first register holds the upper half.
    #[default]
    HighFirst,
    /// The first register holds the lower half.
    LowFirst,
}

impl WordOrder {
    /// The word for it in a policy.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::HighFirst => "high-first",
            Self::LowFirst => "low-first",
        }
    }
}

/// A number as it is written to a device: a whole one for the integer types, else a real one.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Number {
    /// Of `u16`, `i16`, `u32` or `i32`.
    Integer(i64),
    /// Of `f32`; in a policy never "not a number".
    Real(f32),
}

impl Number {
    /// The bits as they stand in the registers, the upper half first: two's complement, or IEEE 754.
    #[must_use]
    pub fn raw(self) -> u32 {
        match self {
            Self::Integer(number) => {
                let [_, _, _, _, a, b, c, d] = number.to_be_bytes();
                u32::from_be_bytes([a, b, c, d])
            }
            Self::Real(number) => number.to_bits(),
        }
    }
}

impl Number {
    /// As a double, exactly.
    fn as_f64(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "32 bits, and a double has 53")]
            Self::Integer(number) => number as f64,
            Self::Real(number) => number.into(),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(out),
            Self::Real(number) => number.fmt(out),
        }
    }
}

/// Numbers `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberRange {
    /// The smallest.
    pub first: Number,
    /// The largest, inclusive.
    pub last: Number,
}

impl fmt::Display for NumberRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(out, "{}", self.first)
        } else {
            write!(out, "{} to {}", self.first, self.last)
        }
    }
}

/// Ranges of values that are shown at most.
const SHOWN_VALUES: usize = 6;
/// [`Written::scale`] at most, and with a minus at least.
const HIGHEST_SCALE: i16 = 100;

/// What a rule says about written values. It holds for functions 5, 6, 15, 16, 22 and 23.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// How registers are read.
    pub number: NumberType,
    /// Which register of a two-register number comes first.
    pub word_order: WordOrder,
    /// Values that may be written, sorted and disjoint; none given, any.
    pub values: Option<Vec<NumberRange>>,
    /// Bits of a register that may be set, and touched by function 22.
    pub bits: Option<u16>,
    /// The largest change against the last value that passed.
    pub max_step: Option<Number>,
}

impl Written {
    /// Whether it limits anything.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        self.values.is_some() || self.bits.is_some() || self.max_step.is_some()
    }

    /// Bits behind the point of a number in fixed point, in which steps are measured
    /// ([`conduitfw_common::modbus::number::fixed`]): as many as leave the largest value room in
    /// 61 bits. Whole numbers have none.
    #[must_use]
    pub fn scale(&self) -> i16 {
        if self.number != NumberType::F32 {
            return 0;
        }
        let values = self.values.iter().flatten();
        let largest = values
            .flat_map(|range| [range.first, range.last])
            .map(|number| number.as_f64().abs())
            .fold(0.0, f64::max);
        if largest == 0.0 {
            return HIGHEST_SCALE;
        }
        // IEEE 754 §3.4: the exponent of a normal double, which every single is as a double.
        let exponent = i16::try_from(largest.to_bits() >> 52 & 0x7ff).unwrap_or(0) - 1023;
        (60 - exponent).clamp(-HIGHEST_SCALE, HIGHEST_SCALE)
    }

    /// `max_step` in fixed point, rounded down.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a step is positive, and one that is larger than any distance may be cut"
    )]
    pub fn fixed_step(&self) -> Option<u64> {
        match self.max_step? {
            Number::Integer(step) => u64::try_from(step).ok(),
            Number::Real(step) => {
                Some((f64::from(step) * f64::from(self.scale()).exp2()).floor() as u64)
            }
        }
    }

    /// Functions that it holds for.
    #[must_use]
    pub const fn concerns(function: FunctionCode) -> bool {
        matches!(function.0, 5 | 6 | 15 | 16 | 22 | 23)
    }

    /// What it asks, part by part.
    pub(super) fn in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(values) = &self.values {
            let mut text = String::from("values ");
            for (index, range) in values.iter().take(SHOWN_VALUES).enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                // Writing to a string cannot fail.
                let _ = write!(text, "{comma}{range}");
            }
            if values.len() > SHOWN_VALUES {
                let _ = write!(text, " and {} others", values.len() - SHOWN_VALUES);
            }
            words.push(text);
        }
        if let Some(bits) = self.bits {
            let listed: Vec<String> = (0..16)
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit: u16| bit.to_string())
                .collect();
            words.push(format!("bits {}", listed.join(", ")));
        }
        if let Some(step) = self.max_step {
            words.push(format!("steps of {step} at most"));
        }
        if self.number != NumberType::U16 {
            words.push(format!("as {}", self.number.label()));
        }
        if self.number.registers() == 2 {
            words.push(self.word_order.label().to_owned());
        }
        words
    }
}
