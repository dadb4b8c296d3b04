//! What was decided about a frame, on its way back up the street.

use crate::flow::entry::Direction;
use crate::verdict::{Reason, Verdict};

/// The decision on one frame, small enough to travel in a register.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement(u64);

const REASON_SHIFT: u32 = 0;
const VERDICT_SHIFT: u32 = 8;
const CONDUIT_SHIFT: u32 = 16;
const DIRECTION_SHIFT: u32 = 32;
const OBSERVE: u64 = 1 << 40;
const TO_INITIATOR: u64 = 1 << 41;
const EDITED: u64 = 1 << 42;
const NOTICE: u64 = 1 << 43;
const PLAIN_REQUEST: u64 = 1 << 44;
/// From here on the bits name stages.
const FIRST_STAGE_BIT: u32 = 56;
const ESTABLISH: u64 = 1 << 60;

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "fields of a word"
)]
impl Judgement {
    /// Not a judgement: the flow at hand is not the frame's after all.
    pub const AGAIN: Self = Self(1 << 63);
    /// Not a judgement: the flow goes the long way.
    pub const SETTLE: Self = Self(1 << 62);
    /// Not a judgement: the segment's bytes are to be inspected.
    pub const INSPECT: Self = Self(1 << 61);

    /// Not a judgement: the same, of an established flow about which nothing is unusual, nor about the
    /// segment: it may be all plain.
    pub const PLAIN: Self = Self(1 << 61 | 1);

    /// Not a judgement: what an ICMP error quotes is to be looked up.
    pub const QUOTES: Self = Self(1 << 59);

    /// Not a judgement: a flow is to be opened.
    pub const OPEN: Self = Self(1 << 58);

    /// Not a judgement: the replies in the segment are to be inspected.
    pub const INSPECT_REPLY: Self = Self(1 << 57);

    /// Not a judgement: the same, as for [`Self::PLAIN`].
    pub const PLAIN_REPLY: Self = Self(1 << 57 | 1);

    /// Not a judgement: a connection that was open before may be picked up.
    pub const ADOPT: Self = Self(1 << 56);

    /// Not a judgement: the opening flow at `place` is to be moved to the established ones.
    #[inline(always)]
    pub const fn establish(place: u32, direction: Direction) -> Self {
        Self(ESTABLISH | place as u64).going(direction)
    }

    /// Whether it is a judgement, and not the name of a stage that is wanted next.
    #[inline(always)]
    #[must_use]
    pub const fn is_decided(self) -> bool {
        self.0 >> FIRST_STAGE_BIT == 0
    }

    /// Whether the frame passes as it is, and nothing more is to be done.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain_pass(self) -> bool {
        self.0 & !(0xffff << CONDUIT_SHIFT | 0xff << DIRECTION_SHIFT) == 0
    }

    /// The place of an opening flow that is to be moved, plus 1; else 0.
    #[inline(always)]
    #[must_use]
    pub const fn to_be_established(self) -> u32 {
        if self.0 & ESTABLISH == 0 {
            0
        } else {
            (self.0 as u32).wrapping_add(1)
        }
    }

    /// The frame passes, on this conduit's account (0: nobody's).
    #[inline(always)]
    pub const fn pass(conduit: u16) -> Self {
        Self((conduit as u64) << CONDUIT_SHIFT)
    }

    /// The frame is dropped.
    #[inline(always)]
    pub const fn deny(reason: Reason, conduit: u16) -> Self {
        Self(
            (reason as u64) << REASON_SHIFT
                | (Verdict::Drop as u64) << VERDICT_SHIFT
                | (conduit as u64) << CONDUIT_SHIFT,
        )
    }

    /// The same, with the flow's direction.
    #[inline(always)]
    pub const fn going(self, direction: Direction) -> Self {
        let number = match direction {
            Direction::Request => crate::event::direction::REQUEST,
            Direction::Reply => crate::event::direction::REPLY,
        };
        Self(self.0 | (number as u64) << DIRECTION_SHIFT)
    }

    /// The same, only reported: the frame passes.
    #[inline(always)]
    pub const fn observed(self) -> Self {
        Self((self.0 & !(0xff << VERDICT_SHIFT | EDITED)) | OBSERVE)
    }

    /// The same, with the segment turned into a reset to the responder.
    #[inline(always)]
    pub const fn reset_responder(self) -> Self {
        Self((self.0 & !(0xff << VERDICT_SHIFT)) | (Verdict::Reset as u64) << VERDICT_SHIFT)
    }

    /// The same, with the segment turned into a reset to the initiator.
    #[inline(always)]
    pub const fn reset_initiator(self) -> Self {
        Self(self.reset_responder().0 | TO_INITIATOR)
    }

    /// The same, with denied requests in it changed to what the responder refuses.
    #[inline(always)]
    pub const fn neutralised(self) -> Self {
        Self(
            (self.0 & !(0xff << VERDICT_SHIFT))
                | (Verdict::Exception as u64) << VERDICT_SHIFT
                | EDITED,
        )
    }

    /// The frame passes, and may hold bytes that are to be changed as they were before.
    #[inline(always)]
    pub const fn edited(self) -> Self {
        Self(self.0 | EDITED)
    }

    /// The segment passes but for its end, where a request begins that is not whole.
    #[inline(always)]
    pub const fn held_back(conduit: u16) -> Self {
        Self((Reason::SplitRequest as u64) << REASON_SHIFT | (conduit as u64) << CONDUIT_SHIFT)
            .edited()
    }

    /// The frame passes, and someone should know.
    #[inline(always)]
    pub const fn notice(reason: Reason, conduit: u16) -> Self {
        Self((reason as u64) << REASON_SHIFT | (conduit as u64) << CONDUIT_SHIFT | NOTICE)
    }

    /// Whether the program may forward the frame if it passes. Not one that only passes because nothing is
    /// denied, and whose headers are not what they should be.
    #[inline(always)]
    #[must_use]
    pub const fn is_readable(self) -> bool {
        const PARSED: u8 = Reason::UnknownInterface as u8;
        let reason = self.reason_number();
        reason == 0 || reason >= PARSED
    }

    /// The same, of a segment that is one plain request, on a conduit that is enforced; no flow is held any
    /// more. Nothing is left to be done but to report it, and what it asks for stands in the frame
    /// ([`crate::modbus::plain::denied`]).
    #[inline(always)]
    pub const fn of_plain_request(self) -> Self {
        Self(self.0 | PLAIN_REQUEST)
    }

    /// Whether it is [`Self::of_plain_request`].
    #[inline(always)]
    #[must_use]
    pub const fn is_of_plain_request(self) -> bool {
        self.0 & PLAIN_REQUEST != 0
    }

    /// Whether the frame may hold bytes that are to be changed.
    #[inline(always)]
    #[must_use]
    pub const fn is_edited(self) -> bool {
        self.0 & EDITED != 0
    }

    /// Whether the frame passes and is only told of.
    #[inline(always)]
    #[must_use]
    pub const fn is_notice(self) -> bool {
        self.0 & NOTICE != 0
    }

    /// Whether the frame does not pass.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(self) -> bool {
        self.reason_number() != 0 && !self.is_observed() && !self.is_notice() && !self.is_edited()
    }

    /// Whether the frame is dropped and nothing else comes of it.
    #[inline(always)]
    #[must_use]
    pub const fn is_only_dropped(self) -> bool {
        const DROP: u64 = (Verdict::Drop as u64) << VERDICT_SHIFT;
        self.0 & (0xff << VERDICT_SHIFT | OBSERVE | EDITED | NOTICE) == DROP
    }

    /// Number of the reason; 0 when the frame is allowed.
    #[inline(always)]
    #[must_use]
    pub const fn reason_number(self) -> u8 {
        (self.0 >> REASON_SHIFT) as u8
    }

    /// The reason, when it is denied (or would be).
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        Reason::from_number(self.reason_number())
    }

    /// What happens to the frame.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        match (self.0 >> VERDICT_SHIFT) as u8 {
            0 => Verdict::Pass,
            2 => Verdict::Reset,
            3 => Verdict::Exception,
            _ => Verdict::Drop,
        }
    }

    /// The conduit on whose account the frame goes.
    #[inline(always)]
    #[must_use]
    pub const fn conduit(self) -> u16 {
        (self.0 >> CONDUIT_SHIFT) as u16
    }

    /// One of [`crate::event::direction`].
    #[inline(always)]
    #[must_use]
    pub const fn direction_number(self) -> u8 {
        (self.0 >> DIRECTION_SHIFT) as u8
    }

    /// Whether the denial is only reported.
    #[inline(always)]
    #[must_use]
    pub const fn is_observed(self) -> bool {
        self.0 & OBSERVE != 0
    }

    /// Whether a reset goes back to the initiator.
    #[inline(always)]
    #[must_use]
    pub const fn is_to_initiator(self) -> bool {
        self.0 & TO_INITIATOR != 0
    }

    /// Whether someone should see the denial. What a sender mends by repeating, and the tail of a
    /// flow that was ended, is only counted.
    #[inline(always)]
    #[must_use]
    pub const fn is_event(self) -> bool {
        const OUT_OF_ORDER: u8 = Reason::OutOfOrder as u8;
        const HISTORY_FULL: u8 = Reason::HistoryFull as u8;
        const FLOW_ENDED: u8 = Reason::FlowEnded as u8;
        const FLOW_BUSY: u8 = Reason::FlowBusy as u8;
        const SPLIT_REQUEST: u8 = Reason::SplitRequest as u8;
        !matches!(
            self.reason_number(),
            0 | OUT_OF_ORDER | HISTORY_FULL | FLOW_ENDED | FLOW_BUSY | SPLIT_REQUEST
        )
    }

    /// As a word, to cross a stage.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From a word that [`Self::to_bits`] made.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}
