//! Modbus/TCP: ADUs and the PDUs in them (Modbus Application Protocol V1.1b3).

use super::short;

/// The PDU in an MBAP header with protocol id 0 and the right length.
#[must_use]
pub fn adu(transaction_id: u16, unit: u8, pdu: impl AsRef<[u8]>) -> Vec<u8> {
    let pdu = pdu.as_ref();
    with_header(transaction_id, 0, short(pdu.len() + 1), unit, pdu)
}

/// The PDU in an MBAP header of which every field is given.
#[must_use]
pub fn with_header(
    transaction_id: u16,
    protocol_id: u16,
    length: u16,
    unit: u8,
    pdu: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(7 + pdu.len());
    for field in [transaction_id, protocol_id, length] {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
    bytes.push(unit);
    bytes.extend_from_slice(pdu);
    bytes
}

/// A function code and one or more 16-bit fields.
#[must_use]
pub fn fields(function: u8, fields: &[u16]) -> Vec<u8> {
    let mut pdu = vec![function];
    for field in fields {
        pdu.extend_from_slice(&field.to_be_bytes());
    }
    pdu
}

/// A read of coils, discrete inputs or registers (functions 1 to 4).
#[must_use]
pub fn read(function: u8, address: u16, quantity: u16) -> Vec<u8> {
    fields(function, &[address, quantity])
}

/// Write single coil (5) or register (6).
#[must_use]
pub fn write_single(function: u8, address: u16, value: u16) -> Vec<u8> {
    fields(function, &[address, value])
}

/// Write multiple coils (15).
#[must_use]
pub fn write_coils(address: u16, coils: &[bool]) -> Vec<u8> {
    let mut pdu = fields(15, &[address, short(coils.len())]);
    let bytes = coils.chunks(8).map(|eight| {
        eight
            .iter()
            .rev()
            .fold(0, |byte, coil| byte << 1 | u8::from(*coil))
    });
    let bytes: Vec<u8> = bytes.collect();
    let [_, count] = short(bytes.len()).to_be_bytes();
    pdu.push(count);
    pdu.extend(bytes);
    pdu
}

/// Write multiple registers (16).
#[must_use]
pub fn write_registers(address: u16, values: &[u16]) -> Vec<u8> {
    let mut pdu = fields(16, &[address, short(values.len())]);
    append_registers(&mut pdu, values);
    pdu
}

/// Mask write register (22).
#[must_use]
pub fn mask_write(address: u16, and: u16, or: u16) -> Vec<u8> {
    fields(22, &[address, and, or])
}

/// Read/write multiple registers (23).
#[must_use]
pub fn read_write((from, quantity): (u16, u16), to: u16, values: &[u16]) -> Vec<u8> {
    let mut pdu = fields(23, &[from, quantity, to, short(values.len())]);
    append_registers(&mut pdu, values);
    pdu
}

fn append_registers(pdu: &mut Vec<u8>, values: &[u16]) {
    let [_, count] = short(values.len() * 2).to_be_bytes();
    pdu.push(count);
    pdu.extend(values.iter().flat_map(|value| value.to_be_bytes()));
}

/// Diagnostics (8) with one data field.
#[must_use]
pub fn diagnostics(sub_function: u16, field: u16) -> Vec<u8> {
    fields(8, &[sub_function, field])
}

/// Encapsulated interface transport (43) of any MEI type.
#[must_use]
pub fn encapsulated(mei_type: u8, content: &[u8]) -> Vec<u8> {
    [&[43, mei_type], content].concat()
}

/// A well-formed request of any function code: the shortest that the specification knows,
/// and the bare code where it knows none.
#[must_use]
pub fn request(function: u8) -> Vec<u8> {
    match function {
        1..=4 => read(function, 0, 1),
        5 => write_single(5, 0, 0xff00),
        6 => write_single(6, 0, 1),
        8 => diagnostics(0, 0x1234),
        15 => write_coils(0, &[true]),
        16 => write_registers(0, &[1]),
        20 => vec![20, 7, 6, 0, 1, 0, 0, 0, 1],
        21 => vec![21, 9, 6, 0, 1, 0, 0, 0, 1, 0, 7],
        22 => mask_write(0, 0xffff, 0),
        23 => read_write((0, 1), 0, &[1]),
        24 => fields(24, &[0]),
        43 => encapsulated(14, &[1, 0]),
        other => vec![other],
    }
}
