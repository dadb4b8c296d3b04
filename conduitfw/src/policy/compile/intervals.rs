//! One cell: ranges of several rules as sorted, disjoint intervals.

use std::collections::BTreeSet;

use conduitfw_common::table::Interval;

/// Operands that one rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) first: u16,
    pub(super) last: u16,
    /// Rule id.
    pub(super) rule: u16,
    /// Row of limits.
    pub(super) limits: u16,
    /// Registers of a number: where an interval begins, one begins.
    pub(super) width: u16,
    /// Whether operations are counted against a rate of the rule.
    pub(super) is_rated: bool,
}

/// Two pieces that say different things of the same operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Index of the earlier piece.
    pub(super) one: usize,
    /// Index of the later piece.
    pub(super) other: usize,
    /// The first operand that both have.
    pub(super) operand: u16,
}

/// Pieces in the order of the policy, as the intervals of a cell. Where pieces overlap the first
/// one counts; those that do not agree are conflicts.
pub(super) fn disjoint(pieces: &[Piece]) -> (Vec<Interval>, Vec<Conflict>) {
    let mut conflicts = Vec::new();
    let mut runs: Vec<(Interval, bool)> = Vec::new();
    // Pieces that hold the place, the first of the policy in front.
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut changes = changes(pieces).into_iter().peekable();
    while let Some(change) = changes.next() {
        if change.begins {
            if let Some(&held) = open.first() {
                conflicts.extend(conflict(pieces, held, change.piece));
            }
            open.insert(change.piece);
        } else {
            open.remove(&change.piece);
        }
        let Some(next) = changes.peek().filter(|next| next.at > change.at) else {
            continue;
        };
        let holding = open.first().and_then(|index| pieces.get(*index));
        let (Ok(first), Ok(last)) = (u16::try_from(change.at), u16::try_from(next.at - 1)) else {
            continue;
        };
        if let Some(piece) = holding {
            extend(&mut runs, piece, first, last);
        }
    }
    (with_reach(runs), conflicts)
}

/// A place where a piece begins, or where it is over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    at: u32,
    /// What is over comes first.
    begins: bool,
    piece: usize,
}

fn changes(pieces: &[Piece]) -> Vec<Change> {
    let mut changes = Vec::with_capacity(pieces.len() * 2);
    for (piece, Piece { first, last, .. }) in pieces.iter().enumerate() {
        changes.push(Change {
            at: u32::from(*first),
            begins: true,
            piece,
        });
        changes.push(Change {
            at: u32::from(*last) + 1,
            begins: false,
            piece,
        });
    }
    changes.sort_unstable();
    changes
}

/// What holds a place and what begins there must agree on limits, and on where numbers begin.
fn conflict(pieces: &[Piece], held: usize, begun: usize) -> Option<Conflict> {
    let (one, other) = (pieces.get(held)?, pieces.get(begun)?);
    let offset = other.first.saturating_sub(one.first);
    let agree =
        one.limits == other.limits && one.width == other.width && offset.is_multiple_of(one.width);
    (!agree).then(|| Conflict {
        one: held.min(begun),
        other: held.max(begun),
        operand: other.first,
    })
}

/// Neighbours of one rule are one interval.
fn extend(runs: &mut Vec<(Interval, bool)>, piece: &Piece, first: u16, last: u16) {
    if let Some((before, _)) = runs.last_mut()
        && before.rule == piece.rule
        && before.limits == piece.limits
        && before.last.checked_add(1) == Some(first)
    {
        (before.last, before.reach) = (last, last);
        return;
    }
    let interval = Interval {
        first,
        last,
        reach: last,
        rule: piece.rule,
        limits: piece.limits,
        reserved: 0,
    };
    runs.push((interval, piece.is_rated));
}

/// An operation may go on from one interval to the next where they touch, but takes of no other
/// rule's rate than that of the rule it begins in.
fn with_reach(runs: Vec<(Interval, bool)>) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = Vec::with_capacity(runs.len());
    let mut behind: Option<(Interval, bool)> = None;
    for (mut interval, is_rated) in runs.into_iter().rev() {
        if let Some((next, next_is_rated)) = behind
            && interval.last.checked_add(1) == Some(next.first)
            && ((!is_rated && !next_is_rated) || interval.rule == next.rule)
        {
            interval.reach = next.reach;
        }
        behind = Some((interval, is_rated));
        intervals.push(interval);
    }
    intervals.reverse();
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(first: u16, last: u16, rule: u16) -> Piece {
        Piece {
            first,
            last,
            rule,
            limits: 0,
            width: 1,
            is_rated: false,
        }
    }

    /// First, last, reach and rule.
    fn run(pieces: &[Piece]) -> Vec<(u16, u16, u16, u16)> {
        let (intervals, conflicts) = disjoint(pieces);
        assert_eq!(conflicts, []);
        let fields =
            |interval: &Interval| (interval.first, interval.last, interval.reach, interval.rule);
        intervals.iter().map(fields).collect()
    }

    #[test]
    fn overlapping_ranges_become_disjoint_and_the_first_counts() {
        assert_eq!(run(&[]), []);
        assert_eq!(
            run(&[piece(5, 9, 1), piece(10, 20, 1), piece(0, 2, 1)]),
            [(0, 2, 2, 1), (5, 20, 20, 1)]
        );
        assert_eq!(
            run(&[piece(10, 20, 1), piece(5, 30, 2)]),
            [(5, 9, 30, 2), (10, 20, 30, 1), (21, 30, 30, 2)]
        );
        assert_eq!(run(&[piece(0, u16::MAX, 3)]), [(0, u16::MAX, u16::MAX, 3)]);
        assert_eq!(run(&[piece(7, 7, 1), piece(7, 7, 2)]), [(7, 7, 7, 1)]);
        assert_eq!(
            run(&[piece(7, 7, 2), piece(9, 9, 2), piece(8, 8, 1)]),
            [(7, 7, 9, 2), (8, 8, 9, 1), (9, 9, 9, 2)]
        );
    }

    #[test]
    fn the_reach_ends_at_a_gap_and_at_a_rate_of_another_rule() {
        let rated = |first, last, rule| Piece {
            is_rated: true,
            limits: 1,
            ..piece(first, last, rule)
        };
        assert_eq!(
            run(&[
                piece(0, 4, 1),
                rated(5, 6, 2),
                piece(7, 8, 3),
                piece(9, 9, 4)
            ]),
            [(0, 4, 4, 1), (5, 6, 6, 2), (7, 8, 9, 3), (9, 9, 9, 4)]
        );
        assert_eq!(
            run(&[rated(0, 4, 1), rated(5, 9, 2)]),
            [(0, 4, 4, 1), (5, 9, 9, 2)]
        );
        assert_eq!(run(&[rated(0, 4, 1), rated(5, 9, 1)]), [(0, 9, 9, 1)]);
    }

    #[test]
    fn what_two_rules_do_not_agree_on_is_found_once_for_each_pair() {
        let limited = Piece {
            limits: 1,
            ..piece(10, 12, 1)
        };
        let (_, conflicts) = disjoint(&[piece(0, 100, 2), limited]);
        let conflict = Conflict {
            one: 0,
            other: 1,
            operand: 10,
        };
        assert_eq!(conflicts, [conflict]);
        let pairs = |first, last| Piece {
            width: 2,
            limits: 1,
            ..piece(first, last, 1)
        };
        assert_eq!(disjoint(&[pairs(0, 3), pairs(2, 5)]).1, []);
        assert_eq!(disjoint(&[pairs(0, 3), pairs(1, 4)]).1.len(), 1);
        assert_eq!(disjoint(&[pairs(0, 3), pairs(4, 7)]).1, []);
    }
}
