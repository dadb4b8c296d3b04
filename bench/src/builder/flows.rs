//! Frames of flows that are established.

use anyhow::Result;
use conduitfw::dataplane::TableSizes;
use conduitfw_tests::frames::{ACK, PSH};

use super::{Bed, Builder, Plan};
use crate::pacer::Script;
use crate::policy::{Extent, Policy};
use crate::talk::{Talk, acknowledge, exchange, payload};

impl Builder<'_> {
    pub(super) fn flows(&mut self, bed: &Bed) -> Result<()> {
        let talk = Talk::v4(10, 1024, 502);
        self.acknowledgements(bed, talk, "ACK of an established flow")?;
        self.read(bed, Talk::v4(10, 1025, 502), "FC3", 1)?;
        let (write, written) = (payload::write(), payload::written());
        let talk = Talk::v4(10, 1026, 502);
        self.pair(bed, talk, "FC16, 10 values", (&write, &written), 1)?;
        for (port, count, name) in [
            (1027, 5, "5 ADUs in a segment"),
            (1028, 16, "16 ADUs in a segment"),
        ] {
            self.read(bed, Talk::v4(10, port, 502), name, count)?;
        }
        self.split(bed)?;
        self.plain(bed)?;
        self.acknowledgements(bed, Talk::v6(1032)?, "IPv6: ACK of an established flow")?;
        self.read(bed, Talk::v6(1033)?, "IPv6: FC3", 1)?;
        for (network, port, tags, name) in [
            (40, 1034, &[10_u16][..], "one VLAN tag"),
            (50, 1036, &[100, 20][..], "two VLAN tags"),
        ] {
            let talk = Talk::v4(network, port, 502).tagged(tags);
            let ack = format!("{name}: ACK of an established flow");
            self.acknowledgements(bed, talk, &ack)?;
            let talk = Talk::v4(network, port + 1, 502).tagged(tags);
            self.read(bed, talk, &format!("{name}: FC3"), 1)?;
        }
        Ok(())
    }

    fn acknowledgements(&mut self, bed: &Bed, talk: Talk, name: &str) -> Result<()> {
        let names = [Some(name)];
        self.talk(bed, talk, &acknowledge(talk)?, &Plan::passes(&names))
    }

    /// Ten registers, asked for and given.
    pub(super) fn read(&mut self, bed: &Bed, talk: Talk, name: &str, count: usize) -> Result<()> {
        self.pair(
            bed,
            talk,
            name,
            (&payload::read(), &payload::values()),
            count,
        )
    }

    /// A request and its reply, `count` of each to a segment.
    fn pair(
        &mut self,
        bed: &Bed,
        talk: Talk,
        name: &str,
        (request, reply): (&[u8], &[u8]),
        count: usize,
    ) -> Result<()> {
        let script = exchange(talk, (request, reply), count)?;
        let (first, second) = (format!("{name}, request"), format!("{name}, reply"));
        let names = [Some(first.as_str()), Some(second.as_str())];
        self.talk(bed, talk, &script, &Plan::passes(&names))
    }

    /// A request in two segments.
    fn split(&mut self, bed: &Bed) -> Result<()> {
        let talk = Talk::v4(10, 1029, 502);
        let (request, reply) = (payload::read(), payload::values());
        let (first, second) = request.split_at(7);
        let first = talk.request(ACK, first)?;
        let script = Script::of(vec![
            // The second part has no transaction id, but counts: the reply's must be the same.
            first.adus(1, 7),
            talk.request(PSH | ACK, second)?,
            talk.reply(PSH | ACK, &reply)?.adus(1, reply.len()),
            talk.request(ACK, &[])?,
        ]);
        let names = [
            Some("split ADU, first part"),
            Some("split ADU, second part"),
            None,
            None,
        ];
        self.talk(bed, talk, &script, &Plan::passes(&names))
    }

    /// Conduits that inspect nothing.
    fn plain(&mut self, bed: &Bed) -> Result<()> {
        let talk = Talk::v4(10, 1030, 80);
        let script = Script::of(vec![
            talk.request(PSH | ACK, &[0x55; 100])?,
            talk.reply(PSH | ACK, &[0x55; 100])?,
        ]);
        let names = [Some("plain TCP, 100 bytes"), Some("plain TCP, the answer")];
        self.talk(bed, talk, &script, &Plan::passes(&names))?;
        let talk = Talk::v4(10, 1031, 5000);
        let script = Script::of(vec![
            talk.datagram(&[0x55; 100], false)?,
            talk.datagram(&[0x55; 100], true)?,
        ]);
        let names = [Some("plain UDP, 100 bytes"), Some("plain UDP, the answer")];
        self.case(bed, &script, &script, &Plan::passes(&names))
    }

    /// A script on flows that are opened first.
    pub(super) fn talk(
        &mut self,
        bed: &Bed,
        talk: Talk,
        script: &Script,
        plan: &Plan<'_>,
    ) -> Result<()> {
        let opening = talk.handshake()?.across(u64::from(plan.flows));
        self.case(bed, &opening, script, plan)
    }

    pub(super) fn spread(&mut self) -> Result<()> {
        for (name, flows) in [
            ("ACK, flows spread over 1k entries", 1024),
            ("ACK, flows spread over 64k entries", 65_536),
        ] {
            let sizes = TableSizes {
                flows: flows * 2,
                opening_flows: 4096,
                inspected_flows: flows * 2,
            };
            let bed = self.bed(Policy::of(Extent::USUAL), sizes);
            let talk = Talk::v4(10, 1024, 502);
            let names = [Some(name)];
            let plan = Plan::passes(&names).across(flows);
            let script = acknowledge(talk)?.across(u64::from(flows));
            self.talk(&bed, talk, &script, &plan)?;
        }
        Ok(())
    }
}
