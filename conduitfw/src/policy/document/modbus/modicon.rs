//! Modicon numbers: a table by its leading digit, and a number in it that counts from 1.
//!
//! `40011` is holding register address 10. Five digits reach 9,999, six digits 65,536.

use super::super::super::model::{ModbusTable, OperandRange};
use super::super::super::value::{self, Fault};

/// The last number in a table.
const LAST_NUMBER: u32 = 65_536;

/// `"40011"` or `"40011-40014"`.
pub(super) fn range(text: &str) -> Result<(ModbusTable, OperandRange), Fault> {
    let Some((first, last)) = text.split_once('-') else {
        let (table, address) = single(text)?;
        let range = OperandRange {
            first: address,
            last: address,
        };
        return Ok((table, range));
    };
    let (first, last) = (first.trim(), last.trim());
    let ((table, from), (other, to)) = (single(first)?, single(last)?);
    if table != other {
        return Err(Fault::new(
            "bad-register",
            format!("the range `{text}` begins in one table and ends in another"),
            format!(
                "`{first}` is {}, `{last}` is {}",
                value::a(table.item()),
                value::a(other.item())
            ),
        ));
    }
    if from > to {
        return Err(Fault::new(
            "range-upside-down",
            format!("the range `{text}` is upside down"),
            format!("did you mean \"{last}-{first}\"?"),
        ));
    }
    let range = OperandRange {
        first: from,
        last: to,
    };
    Ok((table, range))
}

/// The address that an integer would stand for if it were written as a string.
pub(super) fn reading(table: ModbusTable, number: u16) -> Option<u16> {
    // An integer has no leading 0, so that no coil is taken for one.
    let (of, address) = single(&number.to_string()).ok()?;
    (of == table).then_some(address)
}

fn single(text: &str) -> Result<(ModbusTable, u16), Fault> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    let (Some((leading, rest)), true, 5 | 6) = (text.split_at_checked(1), is_number, text.len())
    else {
        return Err(malformed(text, is_number));
    };
    let digit = |text: &str| text.parse::<u32>().ok();
    let table = ModbusTable::ALL
        .into_iter()
        .find(|table| {
            table
                .modicon_digit()
                .is_some_and(|own| digit(leading) == Some(own))
        })
        .ok_or_else(|| {
            Fault::new(
                "bad-register",
                format!("`{text}` is in no table: none has the leading digit {leading}"),
                "0 is for coils, 1 discrete inputs, 3 input registers, 4 holding registers",
            )
        })?;
    let number = digit(rest).unwrap_or(0);
    if number == 0 {
        return Err(Fault::new(
            "bad-register",
            format!("`{text}` does not exist: Modicon numbers count from 1"),
            format!("the first {} is \"{leading}0001\"", table.item()),
        ));
    }
    match u16::try_from(number - 1) {
        Ok(address) => Ok((table, address)),
        Err(_) => Err(Fault::new(
            "bad-register",
            format!("`{text}` is beyond the table of {}s", table.item()),
            format!("the last one is \"{leading}{LAST_NUMBER}\""),
        )),
    }
}

fn malformed(text: &str, is_number: bool) -> Fault {
    let help = match text.parse::<u32>() {
        Ok(number) if is_number && number < 10_000 => {
            format!(
                "did you mean {number}, without quotes (an address from 0), or \"4{number:04}\"?"
            )
        }
        _ => "expected 5 or 6 digits as in \"40011\", or two such as in \"40011-40014\"; \
              an address from 0 is an integer, a range of them { first = 10, last = 13 }"
            .to_owned(),
    };
    Fault::new(
        "bad-register",
        format!("`{text}` is not a Modicon number"),
        help,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(ModbusTable, u16, u16)> {
        let (table, range) = range(text).ok()?;
        Some((table, range.first, range.last))
    }

    #[test]
    fn the_leading_digit_is_the_table_and_the_rest_counts_from_1() {
        use ModbusTable::{Coils, DiscreteInputs, HoldingRegisters, InputRegisters};
        assert_eq!(of("40001"), Some((HoldingRegisters, 0, 0)));
        assert_eq!(of("40011-40014"), Some((HoldingRegisters, 10, 13)));
        assert_eq!(of("49999-410000"), Some((HoldingRegisters, 9998, 9999)));
        assert_eq!(of("465536"), Some((HoldingRegisters, 65_535, 65_535)));
        assert_eq!(of("300001 - 365536"), Some((InputRegisters, 0, 65_535)));
        assert_eq!(of("10001"), Some((DiscreteInputs, 0, 0)));
        assert_eq!(of("00001"), Some((Coils, 0, 0)));
        assert_eq!(of("065536"), Some((Coils, 65_535, 65_535)));
        for text in [
            "",
            "-",
            "4",
            "4001",
            "40000",
            "400000",
            "465537",
            "50001",
            "20001",
            "4001a",
            "4000١",
            "+0001",
            "-0001",
            "40014-40011",
            "40001-30001",
            "40001-",
            "4000001",
            "0x0001",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
