//! The Modbus operation that is asked about, and its ADU.

use conduitfw_common::modbus::function::{FunctionCode, MEI_TYPES, SUB_FUNCTIONS};

use super::fields::{self, Fields, function_words};
use super::values::{coil_word, coils, one_register, registers};

/// What the words of an operation may be.
const KEYS: &[&str] = &[
    "unit",
    "fc",
    "function",
    "address",
    "register",
    "quantity",
    "value",
    "values",
    "type",
    "word_order",
    "and",
    "or",
    "sub_function",
    "mei",
    "data",
    "file",
    "record",
    "read_address",
    "read_register",
    "read_quantity",
];

/// The longest data of a PDU: 253 bytes less the function code.
const LONGEST_DATA: usize = 252;

/// An operation, as it is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The unit id.
    pub unit: u8,
    /// The function code.
    pub function: FunctionCode,
    /// The rest.
    pub operands: Operands,
}

/// What an operation says behind its function code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operands {
    /// Functions 1 to 4: what is read.
    Read {
        /// The first.
        address: u16,
        /// How many.
        quantity: u16,
    },
    /// Functions 5 and 6: the value as it stands in the ADU.
    WriteOne {
        /// The coil or register.
        address: u16,
        /// The value.
        value: u16,
    },
    /// Function 15.
    WriteCoils {
        /// The first.
        address: u16,
        /// Whether each is on.
        coils: Vec<bool>,
    },
    /// Functions 16 and 23.
    WriteRegisters {
        /// The first.
        address: u16,
        /// What each becomes.
        values: Vec<u16>,
        /// What function 23 reads: the first register, and how many.
        read: Option<(u16, u16)>,
    },
    /// Function 22.
    Mask {
        /// The register.
        address: u16,
        /// Bits that stay.
        and: u16,
        /// Bits that are set.
        or: u16,
    },
    /// Function 24.
    Fifo {
        /// The pointer's address.
        address: u16,
    },
    /// Functions 20 and 21: one sub-request.
    Record {
        /// The file.
        file: u16,
        /// The first record.
        record: u16,
        /// How many.
        length: u16,
        /// What function 21 writes.
        values: Vec<u16>,
    },
    /// Functions 8 and 43.
    Sub {
        /// The sub-function, or the MEI type.
        number: u16,
        /// What follows.
        data: Vec<u8>,
    },
    /// Any other: what follows the function code.
    Other {
        /// The bytes.
        data: Vec<u8>,
    },
}

impl Operation {
    /// Reads `unit=1 fc=6 address=10 value=9999`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(text)?;
        let unit = fields
            .byte("unit")?
            .ok_or("an operation needs `unit=`, as in unit=1 fc=3 address=0 quantity=2")?;
        let code = match fields.text("fc") {
            Some(code) => Some(code),
            None => fields.text("function"),
        };
        let code = code.ok_or("an operation needs `fc=`, a function code or its name")?;
        let function = fields::function(&code)?;
        let operands = Operands::read(&mut fields, function)?;
        fields.finish(&function_words(function), KEYS)?;
        let operation = Self {
            unit,
            function,
            operands,
        };
        if operation.data().len() > LONGEST_DATA {
            return Err(format!(
                "{} does not fit into an ADU",
                function_words(function)
            ));
        }
        Ok(operation)
    }

    /// Its ADU: MODBUS Messaging on TCP/IP Implementation Guide V1.0b §3.1.
    #[must_use]
    pub fn adu(&self, transaction: u16) -> Vec<u8> {
        adu(transaction, self.unit, self.function.0, &self.data())
    }

    /// The register or coil that it begins with, if it has one.
    #[must_use]
    pub fn address(&self) -> Option<u16> {
        match &self.operands {
            Operands::Read { address, .. }
            | Operands::WriteOne { address, .. }
            | Operands::WriteCoils { address, .. }
            | Operands::WriteRegisters { address, .. }
            | Operands::Mask { address, .. }
            | Operands::Fifo { address } => Some(*address),
            Operands::Record { .. } | Operands::Sub { .. } | Operands::Other { .. } => None,
        }
    }

    /// What follows the function code.
    fn data(&self) -> Vec<u8> {
        match &self.operands {
            Operands::Read { address, quantity } => words(&[*address, *quantity]),
            Operands::WriteOne { address, value } => words(&[*address, *value]),
            Operands::Mask { address, and, or } => words(&[*address, *and, *or]),
            Operands::Fifo { address } => words(&[*address]),
            Operands::WriteCoils { address, coils } => {
                let mut data = words(&[*address, count(coils.len())]);
                data.push(low_byte(coils.len().div_ceil(8)));
                data.extend(packed(coils));
                data
            }
            Operands::WriteRegisters {
                address,
                values,
                read,
            } => {
                let mut data = read.map_or_else(Vec::new, |(first, many)| words(&[first, many]));
                data.extend(words(&[*address, count(values.len())]));
                data.push(low_byte(values.len() * 2));
                data.extend(words(values));
                data
            }
            Operands::Record {
                file,
                record,
                length,
                values,
            } => {
                // One sub-request, of reference type 6 (V1.1b3 §6.14).
                let mut data = vec![low_byte(7 + values.len() * 2), 6];
                data.extend(words(&[*file, *record, *length]));
                data.extend(words(values));
                data
            }
            Operands::Sub { number, data: rest } => {
                let mut data = words(&[*number]);
                if self.function != FunctionCode::DIAGNOSTICS {
                    // An MEI type is a byte.
                    data.remove(0);
                }
                data.extend(rest);
                data
            }
            Operands::Other { data } => data.clone(),
        }
    }
}

fn words(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

impl Operands {
    fn read(fields: &mut Fields, function: FunctionCode) -> Result<Self, String> {
        let what = function_words(function);
        let address = |fields: &mut Fields| {
            let found = fields.address("", function)?;
            found.ok_or_else(|| format!("{what} needs `address=`, counted from 0"))
        };
        match function.0 {
            1..=4 => Ok(Self::Read {
                address: address(fields)?,
                quantity: fields.number("quantity", 0..=u16::MAX)?.unwrap_or(1),
            }),
            5 => Ok(Self::WriteOne {
                address: address(fields)?,
                value: coil_word(fields)?,
            }),
            6 => Ok(Self::WriteOne {
                address: address(fields)?,
                value: one_register(fields, &what)?,
            }),
            15 => Ok(Self::WriteCoils {
                address: address(fields)?,
                coils: coils(fields, &what)?,
            }),
            16 => Ok(Self::WriteRegisters {
                address: address(fields)?,
                values: registers(fields, &what)?,
                read: None,
            }),
            20 | 21 => Self::record(fields, function),
            22 => Ok(Self::Mask {
                address: address(fields)?,
                and: fields.number("and", 0..=u16::MAX)?.unwrap_or(0),
                or: fields.number("or", 0..=u16::MAX)?.unwrap_or(0),
            }),
            23 => {
                let written = address(fields)?;
                let read = fields.address("read_", function)?;
                let read = read.ok_or_else(|| format!("{what} needs `read_address=`"))?;
                let quantity = fields.number("read_quantity", 0..=u16::MAX)?.unwrap_or(1);
                Ok(Self::WriteRegisters {
                    address: written,
                    values: registers(fields, &what)?,
                    read: Some((read, quantity)),
                })
            }
            24 => Ok(Self::Fifo {
                address: address(fields)?,
            }),
            8 | 43 => Self::sub(fields, function),
            _ => Ok(Self::Other {
                data: data(fields)?.unwrap_or_default(),
            }),
        }
    }

    fn record(fields: &mut Fields, function: FunctionCode) -> Result<Self, String> {
        let what = function_words(function);
        let file = fields.required("file", 0..=u16::MAX, &what)?;
        let record = fields.required("record", 0..=u16::MAX, &what)?;
        let (length, values) = if function == FunctionCode::WRITE_FILE_RECORD {
            let values = registers(fields, &what)?;
            (count(values.len()), values)
        } else {
            let length = fields.number("quantity", 0..=u16::MAX)?.unwrap_or(1);
            (length, Vec::new())
        };
        Ok(Self::Record {
            file,
            record,
            length,
            values,
        })
    }

    fn sub(fields: &mut Fields, function: FunctionCode) -> Result<Self, String> {
        let what = function_words(function);
        let (key, kind, names, largest) = if function == FunctionCode::DIAGNOSTICS {
            ("sub_function", "sub-function", SUB_FUNCTIONS, u16::MAX)
        } else {
            ("mei", "MEI type", MEI_TYPES, 255)
        };
        let text = fields.text(key);
        let text = text.ok_or_else(|| format!("{what} needs `{key}=`"))?;
        let number = fields::named_number(&text, kind, names)?;
        if number > largest {
            return Err(format!("{number} is not a {kind}, expected 0 to {largest}"));
        }
        // Data that a device would take: none for most sub-functions, the basic identification.
        let default: &[u8] = match (function.0, number) {
            (8, _) => &[0, 0],
            (_, 14) => &[1, 0],
            _ => &[],
        };
        Ok(Self::Sub {
            number,
            data: data(fields)?.unwrap_or_else(|| default.to_vec()),
        })
    }
}

/// An ADU of this function and data.
pub(super) fn adu(transaction: u16, unit: u8, function: u8, data: &[u8]) -> Vec<u8> {
    let mut adu = Vec::with_capacity(8 + data.len());
    adu.extend(transaction.to_be_bytes());
    adu.extend([0, 0]);
    adu.extend(count(data.len() + 2).to_be_bytes());
    adu.extend([unit, function]);
    adu.extend(data);
    adu
}

/// Coils eight to a byte, the first in the lowest bit.
pub(super) fn packed(coils: &[bool]) -> Vec<u8> {
    coils
        .chunks(8)
        .map(|byte| {
            byte.iter()
                .rev()
                .fold(0, |bits, coil| bits << 1 | u8::from(*coil))
        })
        .collect()
}

fn data(fields: &mut Fields) -> Result<Option<Vec<u8>>, String> {
    fields
        .text("data")
        .map(|text| fields::hex(&text))
        .transpose()
}

/// A count that was held against the room in an ADU, or will be.
pub(super) fn count(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

pub(super) fn low_byte(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adu_of(text: &str) -> Vec<u8> {
        let operation = Operation::parse(text).unwrap_or_else(|said| panic!("{text}: {said}"));
        operation.adu(7)
    }

    fn refused(text: &str) -> String {
        Operation::parse(text).unwrap_err()
    }

    #[test]
    fn operations_become_adus() {
        // Transaction, protocol, length, unit, function, and what the function has.
        let expected: &[(&str, &[u8])] = &[
            (
                "unit=1 fc=3 address=10 quantity=2",
                &[0, 7, 0, 0, 0, 6, 1, 3, 0, 10, 0, 2],
            ),
            (
                "unit=2,fc=16,address=1,values=1,2",
                &[0, 7, 0, 0, 0, 11, 2, 16, 0, 1, 0, 2, 4, 0, 1, 0, 2],
            ),
            (
                "unit=1 fc=6 address=\"40011\" value=9999",
                &[0, 7, 0, 0, 0, 6, 1, 6, 0, 10, 0x27, 0x0f],
            ),
            (
                "unit=1 fc=write-single-coil register=00003 value=on",
                &[0, 7, 0, 0, 0, 6, 1, 5, 0, 2, 0xff, 0],
            ),
            (
                "unit=1 fc=15 address=0 values=1,0,1,0,0,0,0,0,1",
                &[0, 7, 0, 0, 0, 9, 1, 15, 0, 0, 0, 9, 2, 5, 1],
            ),
            (
                "unit=2 fc=16 address=1 values=-1,0x10",
                &[0, 7, 0, 0, 0, 11, 2, 16, 0, 1, 0, 2, 4, 0xff, 0xff, 0, 16],
            ),
            (
                "unit=2 fc=16 address=1 type=f32 value=1.5",
                &[0, 7, 0, 0, 0, 11, 2, 16, 0, 1, 0, 2, 4, 0x3f, 0xc0, 0, 0],
            ),
            (
                "unit=1 fc=22 address=4 and=0xf2 or=0x25",
                &[0, 7, 0, 0, 0, 8, 1, 22, 0, 4, 0, 0xf2, 0, 0x25],
            ),
            (
                "unit=1 fc=23 read_address=3 read_quantity=6 address=14 values=255",
                &[0, 7, 0, 0, 0, 13, 1, 23, 0, 3, 0, 6, 0, 14, 0, 1, 2, 0, 255],
            ),
            (
                "unit=1 fc=8 sub_function=return-query-data",
                &[0, 7, 0, 0, 0, 6, 1, 8, 0, 0, 0, 0],
            ),
            ("unit=1 fc=43 mei=14", &[0, 7, 0, 0, 0, 5, 1, 43, 14, 1, 0]),
            (
                "unit=1 fc=20 file=4 record=1 quantity=2",
                &[0, 7, 0, 0, 0, 10, 1, 20, 7, 6, 0, 4, 0, 1, 0, 2],
            ),
            (
                "unit=1 fc=21 file=4 record=7 values=1",
                &[0, 7, 0, 0, 0, 12, 1, 21, 9, 6, 0, 4, 0, 7, 0, 1, 0, 1],
            ),
            ("unit=1 fc=7", &[0, 7, 0, 0, 0, 2, 1, 7]),
            ("unit=1 fc=90 data=0001", &[0, 7, 0, 0, 0, 4, 1, 90, 0, 1]),
        ];
        for (text, bytes) in expected {
            assert_eq!(adu_of(text), *bytes, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("fc=3 address=0", "`unit=`"),
            ("unit=1 address=0", "`fc=`"),
            ("unit=256 fc=3 address=0", "0 to 255"),
            ("unit=1 fc=read-holding-register address=0", "did you mean"),
            ("unit=1 fc=3", "`address=`"),
            ("unit=1 fc=3 address=0 value=1", "has no `value`"),
            ("unit=1 fc=3 adress=0", "`address=`"),
            (
                "unit=1 fc=3 address=0 quantiti=1",
                "did you mean `quantity`?",
            ),
            (
                "unit=1 fc=4 address=\"40011\"",
                "40011 is a holding register",
            ),
            ("unit=1 fc=3 address=\"4x011\"", "Modicon"),
            ("unit=1 fc=6 address=0 value=70000", "type u16"),
            ("unit=1 fc=6 address=0 values=1,2", "writes one register"),
            ("unit=1 fc=16 address=0 quantity=3 values=1,2", "contradict"),
            (
                "unit=1 fc=16 address=0 quantity=200 value=1",
                "does not fit",
            ),
            ("unit=1 unit=2 fc=3", "given twice"),
        ] {
            let found = refused(text);
            assert!(found.contains(said), "{text}: {found}");
        }
    }
}
