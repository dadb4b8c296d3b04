//! How applications cut the byte stream of a connection into requests.

/// A request as an application takes it from its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The transaction id of the MBAP header.
    pub transaction_id: u16,
    /// The unit id.
    pub unit: u8,
    /// The PDU, the function code first.
    pub pdu: Vec<u8>,
}

/// What an application believes about the length of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The length in the MBAP header.
    Mbap,
    /// The length that the function implies; the MBAP length where it implies none.
    Function,
    /// As libmodbus 3.1 does it: by the function, 12 bytes below 7, 8 bytes when it is unknown.
    Libmodbus,
}

impl Reader {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Mbap, Self::Function, Self::Libmodbus];

    /// The request that begins at the start of `stream`, and its bytes; nothing while it is not whole.
    #[must_use]
    pub fn take(self, stream: &[u8]) -> Option<(Request, usize)> {
        let length = self.length(stream)?;
        let adu = stream.get(..length)?;
        let request = Request {
            transaction_id: short(adu, 0)?,
            unit: adu.get(6).copied().unwrap_or(0),
            pdu: adu.get(7..).unwrap_or_default().to_vec(),
        };
        Some((request, length))
    }

    fn length(self, stream: &[u8]) -> Option<usize> {
        let by_header = 6 + usize::from(short(stream, 4)?);
        if self == Self::Mbap {
            return Some(by_header);
        }
        let function = *stream.get(7)?;
        let counted = |at: usize| stream.get(at).map(|count| at + 1 + usize::from(*count));
        match (self, function) {
            (_, 1..=6) | (Self::Function, 8) | (Self::Libmodbus, 0) => Some(12),
            (_, 15 | 16) => counted(12),
            (_, 22) => Some(14),
            (_, 23) => counted(16),
            (Self::Function, 7 | 11 | 12 | 17) | (Self::Libmodbus, _) => Some(8),
            (Self::Function, 20 | 21) => counted(8),
            (Self::Function, 24) => Some(10),
            (Self::Function | Self::Mbap, _) => Some(by_header),
        }
    }
}

/// The 16-bit number at `at`.
pub(super) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

/// A correct answer: zeros for what is read, an exception for what no server knows.
#[must_use]
pub fn answer(request: &Request) -> Vec<u8> {
    let function = request.pdu.first().copied().unwrap_or(0);
    let quantity = short(&request.pdu, 3).unwrap_or(0);
    let zeros = |count: u16| {
        let mut pdu = vec![function, count.to_be_bytes()[1]];
        pdu.resize(2 + usize::from(count), 0);
        pdu
    };
    let pdu = match function {
        1 | 2 if (1..=2000).contains(&quantity) => zeros(quantity.div_ceil(8)),
        3 | 4 | 23 if (1..=125).contains(&quantity) => zeros(quantity * 2),
        15 | 16 if quantity == 0 => vec![function | 0x80, 3],
        5 | 6 | 15 | 16 => request.pdu.iter().take(5).copied().collect(),
        22 => request.pdu.iter().take(7).copied().collect(),
        1..=4 | 23 => vec![function | 0x80, 3],
        _ => vec![function | 0x80, 1],
    };
    crate::frames::modbus::adu(request.transaction_id, request.unit, pdu)
}

/// Whether a server that lacks every other address refuses the request.
#[must_use]
pub fn refuses(request: &Request) -> bool {
    short(&request.pdu, 1).is_some_and(|address| address & 1 != 0)
}

/// Its refusal: "illegal data address".
#[must_use]
pub fn refusal(request: &Request) -> Vec<u8> {
    let function = request.pdu.first().copied().unwrap_or(0) | 0x80;
    crate::frames::modbus::adu(request.transaction_id, request.unit, [function, 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::modbus::{adu, read, with_header, write_registers, write_single};

    #[test]
    fn readers_agree_on_what_is_well_formed() {
        for pdu in [
            read(3, 0, 10),
            write_single(6, 1, 2),
            write_registers(3, &[1, 2]),
        ] {
            let bytes = adu(7, 1, &pdu);
            for reader in Reader::ALL {
                let (request, length) = reader.take(&bytes).unwrap();
                assert_eq!((&request.pdu, length), (&pdu, bytes.len()), "{reader:?}");
                assert_eq!(reader.take(&bytes[..length - 1]), None);
            }
        }
    }

    #[test]
    fn a_request_behind_a_wrong_length_is_seen_by_those_who_trust_the_function() {
        let hidden = adu(2, 1, write_single(6, 0, 1));
        let mut bytes = with_header(1, 0, 18, 1, &read(3, 0, 1));
        bytes.extend(&hidden);
        assert_eq!(Reader::Mbap.take(&bytes).unwrap().1, 24);
        let (_, length) = Reader::Function.take(&bytes).unwrap();
        assert_eq!(Reader::Function.take(&bytes[length..]).unwrap().0.pdu[0], 6);
    }
}
