//! A TCP connection, followed from both ends.

use std::net::{IpAddr, SocketAddr};

use conduitfw_common::Reason;
use conduitfw_tests::frames::{ACK, DESTINATION_MAC, Frame, PSH, RST, SOURCE_MAC, SYN, tcp};
use conduitfw_tests::scene::{DOSING, dosing};

use crate::bench::Bench;
use crate::outcome::Want;
use crate::outcome::Want::{Drop, Observed, Pass, SendBack};

/// A TCP connection, followed from both ends.
#[derive(Clone, Copy)]
pub(crate) struct Talk {
    pub(crate) hmi: SocketAddr,
    pub(crate) plc: SocketAddr,
    /// The initiator's next sequence number, and the responder's.
    pub(crate) next: (u32, u32),
}

impl Talk {
    /// Opens a connection to port 502. The sequence numbers soon wrap.
    pub(crate) fn open(bench: &mut Bench, family: (IpAddr, IpAddr), port: u16) -> Self {
        Self::open_from(bench, family, port, 0xffff_fff0)
    }

    /// The same with a first sequence number.
    pub(crate) fn open_from(
        bench: &mut Bench,
        (hmi, plc): (IpAddr, IpAddr),
        port: u16,
        first: u32,
    ) -> Self {
        let mut talk = Self {
            hmi: (hmi, port).into(),
            plc: (plc, 502).into(),
            next: (first, 7000),
        };
        let syn = tcp(talk.hmi, talk.plc)
            .flags(SYN)
            .seq(talk.next.0)
            .tcp_options(&[2, 4, 5, 180]);
        bench.expect("SYN", &syn.build(), Pass);
        talk.next.0 = talk.next.0.wrapping_add(1);
        let answer = talk.plc_sends(&[]).flags(SYN | ACK);
        bench.expect("SYN ACK", &answer.build(), Pass);
        talk.next.1 += 1;
        bench.expect("ACK", &talk.hmi_sends(&[]).build(), Pass);
        talk
    }

    pub(crate) fn hmi_sends(&self, payload: &[u8]) -> Frame {
        let flags = if payload.is_empty() { ACK } else { PSH | ACK };
        let frame = tcp(self.hmi, self.plc).flags(flags);
        frame.seq(self.next.0).ack(self.next.1).payload(payload)
    }

    pub(crate) fn plc_sends(&self, payload: &[u8]) -> Frame {
        let flags = if payload.is_empty() { ACK } else { PSH | ACK };
        let frame = tcp(self.plc, self.hmi).flags(flags);
        frame.seq(self.next.1).ack(self.next.0).payload(payload)
    }

    /// The initiator sends; what passes counts.
    pub(crate) fn ask(
        &mut self,
        bench: &mut Bench,
        name: &str,
        payload: &[u8],
        want: Want,
    ) -> Vec<u8> {
        let out = bench.expect(name, &self.hmi_sends(payload).build(), want);
        if matches!(want, Pass | Observed(_)) {
            let bytes = u32::try_from(payload.len()).unwrap();
            self.next.0 = self.next.0.wrapping_add(bytes);
        }
        out
    }

    /// The responder answers, which acknowledges all that went by.
    pub(crate) fn answer(&mut self, bench: &mut Bench, name: &str, payload: &[u8]) {
        bench.expect(name, &self.plc_sends(payload).build(), Pass);
        self.next.1 += u32::try_from(payload.len()).unwrap();
    }

    /// The initiator sends what is denied; a reset must go on in its place, and each side is told
    /// no more than it needs.
    pub(crate) fn denied(&self, bench: &mut Bench, name: &str, payload: &[u8], reason: Reason) {
        let out = bench.expect(name, &self.hmi_sends(payload).build(), Want::Reset(reason));
        let reset = tcp(self.hmi, self.plc).flags(RST | ACK).window(0);
        let reset = reset.seq(self.next.0).ack(self.next.1).build();
        if out != reset {
            bench.complain(name, &format!("reset {out:02x?}, not {reset:02x?}"));
        }
        self.is_ended(bench, name, payload);
    }

    pub(crate) fn is_ended(&self, bench: &mut Bench, name: &str, payload: &[u8]) {
        let ended = Reason::FlowEnded;
        let out = bench.expect(name, &self.hmi_sends(payload).build(), SendBack(ended));
        let bytes = u32::try_from(payload.len()).unwrap();
        let back = tcp(self.plc, self.hmi).flags(RST | ACK).window(0);
        let back = back.seq(self.next.1).ack(self.next.0.wrapping_add(bytes));
        let back = back.macs(DESTINATION_MAC, SOURCE_MAC).build();
        if out != back {
            bench.complain(name, &format!("sent back {out:02x?}, not {back:02x?}"));
        }
        bench.expect(name, &self.plc_sends(&[1, 2, 3]).build(), Drop(ended));
    }
}

/// [`dosing`] without a limit of new flows, and with other keys of the conduit.
pub(crate) fn unhurried(functions: &str, keys: &str) -> String {
    let keys = format!("{DOSING}new_flows = \"unlimited\"\n{keys}");
    dosing(functions).replace(DOSING, &keys)
}

/// What a server answers to reads of registers and to single writes.
pub(crate) fn replies(requests: &[u8]) -> Vec<u8> {
    let reply = |request: &[u8]| match request[7] {
        3 | 4 => {
            let bytes = request[11] * 2;
            let head = [&request[..5], &[bytes + 3], &request[6..8], &[bytes]].concat();
            [head, vec![0; usize::from(bytes)]].concat()
        }
        _ => request.to_vec(),
    };
    requests.chunks(12).flat_map(reply).collect()
}

pub(crate) fn segment(
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    (seq, ack): (u32, u32),
) -> Frame {
    tcp(from, to).flags(flags).seq(seq).ack(ack)
}
