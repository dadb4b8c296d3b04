//! Templates of a conversation between an initiator and the responder.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Result;
use conduitfw_tests::frames::{ACK, Frame, PSH, SYN, tcp, udp};

use crate::pacer::{Script, Template};
use crate::policy::{PLC, PLC_V6};

/// Modbus payloads that come again and again.
pub(crate) mod payload {
    use conduitfw_tests::frames::modbus::{self, adu};

    /// Ten holding registers, from the range that the policy allows.
    pub(crate) fn read() -> Vec<u8> {
        adu(0, 1, modbus::read(3, 3000, 10))
    }

    pub(crate) fn values() -> Vec<u8> {
        adu(0, 1, [&[3, 20][..], &[7; 20]].concat())
    }

    pub(crate) fn write() -> Vec<u8> {
        adu(0, 1, modbus::write_registers(2000, &[700; 10]))
    }

    pub(crate) fn written() -> Vec<u8> {
        adu(0, 1, modbus::fields(16, &[2000, 10]))
    }

    pub(crate) fn repeated(adu: &[u8], count: usize) -> Vec<u8> {
        adu.repeat(count)
    }
}

/// Who talks to whom.
#[derive(Clone, Copy)]
pub(crate) struct Talk {
    initiator: SocketAddr,
    responder: SocketAddr,
    /// Tags of the initiator's frames.
    tags: &'static [u16],
}

impl Talk {
    /// An initiator over IPv4: every case has a port range of its own.
    pub(crate) fn v4(network: u8, port: u16, to: u16) -> Self {
        Self {
            initiator: ([10, network, 0, 5], port).into(),
            responder: (PLC, to).into(),
            tags: &[],
        }
    }

    /// An initiator over IPv6, to port 502.
    pub(crate) fn v6(port: u16) -> Result<Self> {
        let responder: Ipv6Addr = PLC_V6.parse()?;
        let initiator: Ipv6Addr = "fd00:10::5".parse()?;
        Ok(Self {
            initiator: (initiator, port).into(),
            responder: (responder, 502).into(),
            tags: &[],
        })
    }

    pub(crate) fn tagged(mut self, tags: &'static [u16]) -> Self {
        self.tags = tags;
        self
    }

    pub(crate) fn request(self, flags: u8, payload: &[u8]) -> Result<Template> {
        let frame = tcp(self.initiator, self.responder)
            .flags(flags)
            .payload(payload);
        Template::of_flow(&self.with_tags(frame), self.initiator, false)
    }

    /// A request that is denied: its numbers stay, for the stream does not move.
    pub(crate) fn denied(self, payload: &[u8]) -> Result<Template> {
        Ok(self.request(PSH | ACK, payload)?.staying())
    }

    pub(crate) fn reply(self, flags: u8, payload: &[u8]) -> Result<Template> {
        let frame = tcp(self.responder, self.initiator)
            .flags(flags)
            .payload(payload);
        Template::of_flow(&frame, self.initiator, true)
    }

    pub(crate) fn datagram(self, payload: &[u8], is_reply: bool) -> Result<Template> {
        let frame = if is_reply {
            udp(self.responder, self.initiator)
        } else {
            udp(self.initiator, self.responder)
        };
        Template::of_flow(&frame.payload(payload), self.initiator, is_reply)
    }

    fn with_tags(self, frame: Frame) -> Frame {
        match *self.tags {
            [one] => frame.vlan(one),
            [outer, inner] => frame.vlan2(outer, inner),
            _ => frame,
        }
    }

    /// The handshake of each flow.
    pub(crate) fn handshake(self) -> Result<Script> {
        Ok(Script::of(vec![
            self.request(SYN, &[])?,
            self.reply(SYN | ACK, &[])?,
            self.request(ACK, &[])?,
            self.request(ACK, &[])?,
        ]))
    }
}

/// Acknowledgements, and nothing else.
pub(crate) fn acknowledge(talk: Talk) -> Result<Script> {
    Ok(Script::of(vec![talk.request(ACK, &[])?.keeping_all()]))
}

/// A request and its reply, `count` of each to a segment.
pub(crate) fn exchange(
    talk: Talk,
    (request, reply): (&[u8], &[u8]),
    count: usize,
) -> Result<Script> {
    let asked = talk.request(PSH | ACK, &payload::repeated(request, count))?;
    let answered = talk.reply(PSH | ACK, &payload::repeated(reply, count))?;
    Ok(Script::of(vec![
        asked.adus(count, request.len()),
        answered.adus(count, reply.len()),
    ]))
}
