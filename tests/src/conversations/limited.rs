//! Conversations about registers, values, files and rates: what the rules below allow,
//! and next to each what they do not.

use std::net::SocketAddr;

use super::Talk;
use crate::frames::modbus::{
    adu, fields, mask_write, read, read_write, write_coils, write_registers, write_single,
};
use crate::frames::{ACK, Frame, PSH};
use crate::oracle::reader::{Request, answer};

macro_rules! rules {
    () => {
        r#"
[[conduits.modbus]]
units = [1]
functions = [3]
holding_registers = [{ first = 0, last = 99 }]
[[conduits.modbus]]
units = [1]
functions = [4]
input_registers = [{ first = 0, last = 9 }]
[[conduits.modbus]]
units = [1]
functions = [1, 15]
coils = [{ first = 0, last = 15 }]
[[conduits.modbus]]
units = [1]
functions = [5]
coils = [{ first = 0, last = 15 }]
values = [1]
[[conduits.modbus]]
units = [1]
functions = [6, 16, 22, 23]
holding_registers = [{ first = 40, last = 49 }]
values = { min = 0, max = 1500 }
max_step = 100
[[conduits.modbus]]
units = [1]
functions = [6, 22]
holding_registers = [{ first = 60, last = 61 }]
bits = [0, "3-5"]
[[conduits.modbus]]
units = [1]
functions = [16]
holding_registers = [{ first = 70, last = 73 }]
type = "f32"
word_order = "high-first"
values = { min = 0.2, max = 1.8 }
max_step = 0.5
[[conduits.modbus]]
units = [1]
functions = [16]
holding_registers = [{ first = 80, last = 83 }]
type = "i32"
word_order = "low-first"
values = { min = -5, max = 100000 }
[[conduits.modbus]]
units = [1]
functions = [20, 21]
files = [4]
records = "0-99"
[[conduits.modbus]]
units = [1]
functions = [24]
holding_registers = [{ first = 5, last = 5 }]
[[conduits.modbus]]
units = [1]
functions = [90]
max_length = 40
[[conduits.modbus]]
units = [2]
functions = [3]
holding_registers = [{ first = 0, last = 9 }]
max_rate = "1/s burst 3"
"#
    };
}

/// Two responders with the same rules, whose requests are denied in different ways.
macro_rules! limited {
    () => {
        concat!(
            r#"
[assets.dosing]
zone = "field"
address = "10.20.0.13"
[assets.mixer]
zone = "field"
address = "10.20.0.14"
[[conduits]]
name = "hmi-dosing"
from = ["hmi"]
to = ["dosing"]
rationale = "test"
on_deny = "exception"
new_flows = "unlimited"
"#,
            rules!(),
            r#"
[[conduits]]
name = "hmi-mixer"
from = ["hmi"]
to = ["mixer"]
rationale = "test"
new_flows = "unlimited"
"#,
            rules!(),
        )
    };
}

/// Requests of unit 1, in their order, and whether they are allowed.
fn requests() -> Vec<(bool, Vec<u8>)> {
    vec![
        (true, read(3, 0, 10)),
        (false, read(3, 95, 10)),
        (true, read(4, 0, 5)),
        (false, read(4, 8, 5)),
        (true, read(1, 0, 16)),
        (false, read(1, 10, 10)),
        (true, write_single(6, 40, 100)),
        (true, write_single(6, 40, 150)),
        (false, write_single(6, 40, 400)),
        (false, write_single(6, 40, 1600)),
        (false, write_single(6, 50, 1)),
        (true, write_registers(45, &[1, 2, 3])),
        (false, write_registers(48, &[1, 2, 3])),
        (false, write_registers(41, &[0; 9])),
        (true, mask_write(41, 0, 7)),
        (false, mask_write(41, 0xff, 7)),
        (true, mask_write(60, !0x39, 0x39)),
        (false, mask_write(60, 0, 1)),
        (true, write_single(6, 60, 0x39)),
        (false, write_single(6, 60, 2)),
        (true, read_write((40, 5), 42, &[7, 8])),
        (false, read_write((10, 5), 42, &[7])),
        (true, write_registers(70, &[0x3f80, 0])),
        (false, write_registers(70, &[0x3fe0, 0])),
        (false, write_registers(70, &[0x7fc0, 0])),
        (false, write_registers(71, &[0x3f80, 0])),
        (true, write_registers(72, &[0x3f00, 0])),
        (true, write_registers(80, &[5, 0])),
        (true, write_registers(80, &[0xffff, 0xffff])),
        (false, write_registers(80, &[0xfff0, 0xffff])),
        (true, write_single(5, 3, 0xff00)),
        (false, write_single(5, 3, 0)),
        (false, write_single(5, 3, 0x1234)),
        (true, write_coils(0, &[true; 9])),
        (false, write_coils(10, &[true; 9])),
        (true, vec![20, 7, 6, 0, 4, 0, 0, 0, 1]),
        (
            false,
            vec![20, 14, 6, 0, 4, 0, 0, 0, 1, 6, 0, 5, 0, 0, 0, 1],
        ),
        (true, vec![21, 9, 6, 0, 4, 0, 50, 0, 1, 0, 7]),
        (false, vec![21, 11, 6, 0, 4, 0, 99, 0, 2, 0, 7, 0, 8]),
        (true, fields(24, &[5])),
        (true, vec![90; 10]),
        (false, vec![90; 60]),
        (false, vec![17]),
        (false, fields(24, &[6])),
    ]
}

/// What a responder answers to the form that a denied request of this many bytes goes on in.
fn refusal(bytes: &[u8]) -> Vec<u8> {
    let pdu = match bytes.len() {
        8 => [0xff, 1],
        12 => [0x83, 3],
        _ => [0x90, 3],
    };
    let id = bytes.first_chunk::<2>().copied().unwrap_or_default();
    let unit = bytes.get(6).copied().unwrap_or(0);
    adu(u16::from_be_bytes(id), unit, pdu)
}

/// Conversations from ports of `client` on.
pub(super) fn frames(client: SocketAddr) -> Vec<Frame> {
    let ports = client.port()..=u16::MAX;
    let mut clients = ports.map(|port| SocketAddr::new(client.ip(), port));
    let mut frames = Vec::new();
    // Where a denial does not end the connection, one for all; else one for a few.
    for (server, size, at_a_time) in [
        ([10, 20, 0, 13], 300, usize::MAX),
        ([10, 20, 0, 13], 11, 2),
        ([10, 20, 0, 14], 300, 2),
    ] {
        let numbered: Vec<_> = (1..).zip(requests()).collect();
        for some in numbered.chunks(at_a_time.min(numbered.len())) {
            let Some(client) = clients.next() else {
                break;
            };
            let mut talk = Talk::new(client, (server, 502).into());
            for (id, (is_allowed, pdu)) in some {
                ask(&mut talk, (*id, 1), *is_allowed, pdu, size);
            }
            frames.extend(talk.close());
        }
    }
    // The rate of a rule that is used up.
    if let Some(client) = clients.next() {
        let mut talk = Talk::new(client, ([10, 20, 0, 13], 502).into());
        for id in 0..5 {
            ask(&mut talk, (id, 2), id < 3, &read(3, id, 1), 300);
        }
        frames.extend(talk.close());
    }
    frames
}

/// A request, and the answer that comes back when it is allowed or not.
fn ask(talk: &mut Talk, (id, unit): (u16, u8), is_allowed: bool, pdu: &[u8], size: usize) {
    let bytes = adu(id, unit, pdu);
    talk.ask(&bytes, size);
    let request = Request {
        transaction_id: id,
        unit,
        pdu: pdu.to_vec(),
    };
    let answer = if is_allowed {
        answer(&request)
    } else {
        refusal(&bytes)
    };
    talk.say(false, PSH | ACK, &answer);
}
