//! What is to become of a frame: action, counters and events.

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use conduitfw::dataplane::maps::Plain;
use conduitfw_common::event::EventRecord;
use conduitfw_common::table::Counter;
use conduitfw_common::{REASON_SLOTS, Reason, Verdict};
use conduitfw_tests::frames::Frame;

use crate::bench::{Bench, LOOPBACK, XDP_DROP, XDP_PASS, XDP_REDIRECT};
use crate::outcome::Want::{Drop, Observed, Pass, SendBack};

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Pass,
    Drop(Reason),
    /// The segment goes on as a reset.
    Reset(Reason),
    /// The segment comes back as a reset.
    SendBack(Reason),
    /// It passes, and is reported.
    Observed(Reason),
}

impl Want {
    pub(crate) fn action(self) -> u32 {
        match self {
            Pass | Observed(_) | Want::Reset(_) => XDP_PASS,
            Drop(_) => XDP_DROP,
            SendBack(_) => XDP_REDIRECT,
        }
    }

    pub(crate) fn reason(self) -> Option<Reason> {
        match self {
            Pass => None,
            Drop(reason) | Want::Reset(reason) | SendBack(reason) | Observed(reason) => {
                Some(reason)
            }
        }
    }

    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Pass | Observed(_) => Verdict::Pass,
            Drop(_) => Verdict::Drop,
            Want::Reset(_) | SendBack(_) => Verdict::Reset,
        }
    }
}

impl Bench {
    /// The frame goes in; what the program answers, and the frame that it leaves.
    pub(crate) fn give(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 2048];
        let program = self.ebpf.program_mut("conduitfw").unwrap();
        let program: &mut Xdp = program.try_into().unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ..TestRunOptions::new()
            })
            .unwrap();
        out.truncate(usize::try_from(result.data_size_out).unwrap());
        (result.return_value, out)
    }

    /// Frames and bytes by conduit and reason, of the first conduits.
    pub(crate) fn counts(&self) -> Vec<(u64, u64)> {
        let conduits = u32::try_from(self.ids.iter().count()).unwrap_or(0).min(3) + 1;
        let sum = |index| {
            let values = self.counters.get(&index, 0).unwrap();
            let add = |(frames, bytes), value: &Plain<Counter>| {
                (frames + value.0.frames, bytes + value.0.bytes)
            };
            values.iter().fold((0, 0), add)
        };
        (0..conduits * REASON_SLOTS).map(sum).collect()
    }

    pub(crate) fn would_deny(&self) -> u64 {
        let rows = self.reporting.iter();
        rows.map(|row| row.unwrap().0.would_deny).sum()
    }

    pub(crate) fn events(&mut self) -> Vec<EventRecord> {
        let mut events = Vec::new();
        while let Some(event) = self.events.next() {
            events.push(event);
        }
        events
    }

    pub(crate) fn complain(&mut self, name: &str, what: &str) {
        self.complaints.push(format!("{name}: {what}"));
    }

    /// The frame goes in, and action, counters and events must be what is wanted. Returns the
    /// frame that comes out.
    pub(crate) fn expect(&mut self, name: &str, frame: &[u8], want: Want) -> Vec<u8> {
        let (before, would_deny) = (self.counts(), self.would_deny());
        let (action, out) = self.give(frame);
        let (after, would_deny_after) = (self.counts(), self.would_deny());
        let changed: Vec<_> = (0..after.len())
            .filter(|&i| after[i] != before[i])
            .collect();
        let named = |index: usize| {
            let number = u8::try_from(index % 64).unwrap();
            Reason::from_number(number).map_or("passed", Reason::label)
        };
        let events = self.events();
        let reported = events
            .first()
            .map(|event| Reason::from_number(event.reason).map_or("passed", Reason::label));
        let counted: Vec<_> = changed.iter().map(|&index| named(index)).collect();
        let is_observed = matches!(want, Observed(_));
        let wanted = want.reason().filter(|_| !is_observed);
        let right = action == want.action()
            && counted == [wanted.map_or("passed", Reason::label)]
            && changed.iter().all(|&index| {
                after[index].0 == before[index].0 + 1
                    && after[index].1 == before[index].1 + frame.len() as u64
            });
        if !right {
            let seen = format!("action {action}, counted {counted:?}, event {reported:?}");
            self.complain(
                name,
                &format!("wanted {want:?}; {seen}; frame {frame:02x?}"),
            );
            return out;
        }
        if would_deny_after - would_deny != u64::from(is_observed) {
            self.complain(name, "would_deny is not what it should be");
        }
        self.check_events(name, frame, want, &events);
        if want == Pass && out != frame {
            self.complain(name, &format!("the frame was changed: {out:02x?}"));
        }
        out
    }

    pub(crate) fn check_events(
        &mut self,
        name: &str,
        frame: &[u8],
        want: Want,
        events: &[EventRecord],
    ) {
        let silent = [
            Reason::OutOfOrder,
            Reason::HistoryFull,
            Reason::FlowEnded,
            Reason::FlowBusy,
        ];
        let due = want.reason().filter(|reason| !silent.contains(reason));
        let (Some(reason), [event]) = (due, events) else {
            if due.is_some() || !events.is_empty() {
                self.complain(name, &format!("{} events for {want:?}", events.len()));
            }
            return;
        };
        let bytes: Vec<u8> = event
            .frame
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let captured = usize::try_from(event.captured).unwrap();
        let right = event.reason == reason.number()
            && event.verdict == want.verdict() as u8
            && event.would_deny == u8::from(matches!(want, Observed(_)))
            && usize::from(event.frame_length) == frame.len()
            && event.generation == self.generation
            && event.ifindex == LOOPBACK
            && captured == frame.len().min(64) / 8 * 8
            && bytes[..captured] == frame[..captured];
        if !right {
            self.complain(name, &format!("the event is not right: {event:?}"));
        }
    }

    pub(crate) fn all(&mut self, cases: &[(&str, Frame, Want)]) {
        for (name, frame, want) in cases {
            self.expect(name, &frame.build(), *want);
        }
        self.finish();
    }

    #[track_caller]
    pub(crate) fn finish(&mut self) {
        let complaints = std::mem::take(&mut self.complaints);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}
