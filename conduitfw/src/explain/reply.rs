//! What a responder answers: rightly, or as it is asked about.

use conduitfw_common::{
    edit,
    modbus::{function::FunctionCode, reply::EXCEPTION_BIT},
};

use super::fields::{self, Fields};
use super::operation::{Operands, Operation, adu, count, low_byte, packed};

/// What the words of a reply may be.
const KEYS: &[&str] = &[
    "unit",
    "fc",
    "function",
    "transaction",
    "exception",
    "bytes",
    "address",
    "register",
    "quantity",
    "value",
    "data",
    "unsolicited",
];

/// A reply that is asked about: what differs from the right one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// To a request that nobody made.
    pub is_unsolicited: bool,
    /// Another unit.
    pub unit: Option<u8>,
    /// Another function.
    pub function: Option<FunctionCode>,
    /// An exception with this code.
    pub exception: Option<u8>,
    /// Another count of bytes, where the reply has one.
    pub bytes: Option<u8>,
    /// Another address, where the reply repeats it.
    pub address: Option<u16>,
    /// Another quantity or value, where the reply repeats it.
    pub second: Option<u16>,
    /// Other bytes behind the function code.
    pub data: Option<Vec<u8>>,
}

impl Reply {
    /// Reads `unit=1 fc=3 bytes=18`, `exception=2` or `unsolicited`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(text)?;
        let code = match fields.text("fc") {
            Some(code) => Some(code),
            None => fields.text("function"),
        };
        let function = code.map(|code| fields::function(&code)).transpose()?;
        let quantity = fields.number("quantity", 0..=u16::MAX)?;
        let value = fields.number("value", 0..=u16::MAX)?;
        let data = fields.text("data");
        let reply = Self {
            is_unsolicited: fields.flag("unsolicited"),
            unit: fields.byte("unit")?,
            function,
            exception: fields.byte("exception")?,
            bytes: fields.byte("bytes")?,
            address: fields.address("", function.unwrap_or(FunctionCode(0)))?,
            second: quantity.or(value),
            data: data.map(|data| fields::hex(&data)).transpose()?,
        };
        fields.finish("a reply", KEYS)?;
        Ok(reply)
    }

    /// Its ADU, as the answer to a request.
    #[must_use]
    pub fn adu(&self, request: &Operation, transaction: u16) -> Vec<u8> {
        let asked = Operation {
            unit: self.unit.unwrap_or(request.unit),
            function: self.function.unwrap_or(request.function),
            operands: request.operands.clone(),
        };
        let transaction = if self.is_unsolicited {
            transaction.wrapping_add(0x5555)
        } else {
            transaction
        };
        if let Some(code) = self.exception {
            // V1.1b3 §7: the function code with its highest bit set.
            return adu(
                transaction,
                asked.unit,
                asked.function.0 | EXCEPTION_BIT,
                &[code],
            );
        }
        let data = match &self.data {
            Some(data) => data.clone(),
            None => self.data(&asked),
        };
        adu(transaction, asked.unit, asked.function.0, &data)
    }

    /// What follows the function code: V1.1b3 §6.
    fn data(&self, asked: &Operation) -> Vec<u8> {
        let pair = |address: u16, second: u16| {
            let address = self.address.unwrap_or(address);
            let second = self.second.unwrap_or(second);
            [address.to_be_bytes(), second.to_be_bytes()].concat()
        };
        match &asked.operands {
            Operands::Read { quantity, .. } if matches!(asked.function.0, 1 | 2) => {
                let coils = vec![false; usize::from(*quantity)];
                self.counted(&packed(&coils))
            }
            Operands::Read { quantity, .. }
            | Operands::WriteRegisters {
                read: Some((_, quantity)),
                ..
            } => self.counted(&vec![0; usize::from(*quantity) * 2]),
            Operands::WriteOne { address, value } => pair(*address, *value),
            Operands::WriteCoils { address, coils } => pair(*address, count(coils.len())),
            Operands::WriteRegisters {
                address, values, ..
            } => pair(*address, count(values.len())),
            Operands::Mask { and, or, address } => {
                let mut data = pair(*address, *and);
                data.extend(or.to_be_bytes());
                data
            }
            // An empty queue: a byte count, and the count of registers.
            Operands::Fifo { .. } => vec![0, 2, 0, 0],
            Operands::Record { length, values, .. } if values.is_empty() => {
                let bytes = usize::from(*length) * 2 + 1;
                let mut data = vec![low_byte(bytes + 1), low_byte(bytes), 6];
                data.resize(bytes + 2, 0);
                data
            }
            Operands::Sub { .. } if asked.function != FunctionCode::DIAGNOSTICS => {
                // Basic identification, nothing follows, one empty object (§6.21).
                vec![14, 1, 1, 0, 0, 1, 0, 0]
            }
            Operands::Other { .. } => match asked.function.0 {
                7 => vec![0],
                11 => vec![0xff, 0xff, 0, 0],
                12 => vec![6, 0, 0, 0, 0, 0, 0],
                17 => vec![2, 1, 0xff],
                _ => asked.adu(0).split_off(8),
            },
            // An echo of the request.
            Operands::Record { .. } | Operands::Sub { .. } => asked.adu(0).split_off(8),
        }
    }

    /// A byte count and so many bytes.
    fn counted(&self, data: &[u8]) -> Vec<u8> {
        let bytes = self.bytes.unwrap_or(low_byte(data.len()));
        let mut counted = vec![bytes];
        counted.extend(data);
        counted.resize(1 + usize::from(bytes), 0);
        counted
    }
}

/// What a responder answers to a denied request, which came to it in a form that it refuses:
/// "illegal data address" (§7).
pub(super) fn refusal(request: &Operation, transaction: u16) -> Vec<u8> {
    let function = edit::refused(count(request.adu(transaction).len()));
    adu(transaction, request.unit, function | EXCEPTION_BIT, &[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(request: &str, reply: &str) -> Vec<u8> {
        let request = Operation::parse(request).unwrap();
        Reply::parse(reply).unwrap().adu(&request, 7)
    }

    #[test]
    fn replies_are_right_unless_told_otherwise() {
        let read = "unit=1 fc=3 address=0 quantity=2";
        assert_eq!(
            reply(read, ""),
            [0, 7, 0, 0, 0, 7, 1, 3, 4, 0, 0, 0, 0],
            "as many bytes as registers have"
        );
        assert_eq!(
            reply(read, "unit=2 bytes=2"),
            [0, 7, 0, 0, 0, 5, 2, 3, 2, 0, 0]
        );
        assert_eq!(reply(read, "exception=2"), [0, 7, 0, 0, 0, 3, 1, 0x83, 2]);
        assert_ne!(reply(read, "unsolicited")[..2], [0, 7]);
        assert_eq!(
            reply("unit=1 fc=1 address=0 quantity=9", ""),
            [0, 7, 0, 0, 0, 5, 1, 1, 2, 0, 0]
        );
        assert_eq!(
            reply("unit=1 fc=16 address=3 values=5,6", "quantity=1"),
            [0, 7, 0, 0, 0, 6, 1, 16, 0, 3, 0, 1]
        );
        let said = Reply::parse("exeption=2").unwrap_err();
        assert!(said.contains("did you mean `exception`?"), "{said}");
    }
}
