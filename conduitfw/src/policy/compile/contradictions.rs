//! What is said of two rules that limit the same operands in different ways.

use std::collections::HashSet;

use conduitfw_common::modbus::function::FunctionCode;

use super::super::diagnostic::Diagnostics;
use super::intervals::{Conflict, Piece};
use super::loopholes::Loophole;
use super::modbus::Rules;
use super::operands::operand_in_words;

/// Pairs of rules that something is said of at most: more than are shown.
const REPORTED_PAIRS: usize = 1000;

/// Pairs of rules, by id, that something was said of.
#[derive(Debug, Default)]
pub(super) struct Said {
    pairs: HashSet<(u16, u16)>,
}

impl Said {
    /// Remarks on limits that another function goes around, once for each pair of rules.
    pub(super) fn loopholes(
        &mut self,
        found: &[Loophole],
        rules: Rules<'_>,
        diagnostics: &mut Diagnostics,
    ) {
        for loophole in found {
            let ((limited_id, by), (open_id, way)) = (loophole.limited, loophole.open);
            if !self.is_new((limited_id, open_id)) {
                continue;
            }
            let rule = |id| rules.numbered.iter().find(|(_, own)| *own == id);
            let (Some((limited, _)), Some((open, _))) = (rule(limited_id), rule(open_id)) else {
                continue;
            };
            let at = diagnostics.line_of(limited.span);
            diagnostics.note(
                "limited-by-function",
                open.span,
                format!(
                    "rule `{}` of conduit `{}` writes {} without the limits that `{}` has for \
                     function {}",
                    open.name,
                    rules.conduit.name,
                    operand_in_words(way, loophole.operand),
                    limited.name,
                    by.0
                ),
                format!("give both functions the limits, unless this is meant (the other: {at})"),
            );
        }
    }

    /// Reports two rules that limit the same operand in different ways, once for each pair.
    pub(super) fn contradiction(
        &mut self,
        function: FunctionCode,
        allowing: Rules<'_>,
        pieces: &[Piece],
        conflict: Conflict,
        diagnostics: &mut Diagnostics,
    ) {
        if self.pairs.len() >= REPORTED_PAIRS {
            return;
        }
        let rule = |piece: usize| {
            let id = pieces.get(piece)?.rule;
            allowing
                .numbered
                .iter()
                .find(|(_, own)| *own == id)
                .copied()
        };
        let (Some((one, one_id)), Some((other, other_id))) =
            (rule(conflict.one), rule(conflict.other))
        else {
            return;
        };
        if !self.is_new((one_id, other_id)) {
            return;
        }
        let operand = operand_in_words(function, conflict.operand);
        let name = &allowing.conduit.name;
        if one_id == other_id {
            diagnostics.error(
                "limited-twice",
                other.span,
                format!(
                    "rule `{}` of conduit `{name}` has {operand} in two numbers",
                    one.name
                ),
                "its ranges overlap by half a number: give each number once",
            );
            return;
        }
        let (one_says, other_says) = (
            one.limits_in_words(function),
            other.limits_in_words(function),
        );
        let (message, help) = if one_says == other_says {
            (
                format!(
                    "rules `{}` and `{}` of conduit `{name}` read {operand} as part of different \
                     numbers",
                    one.name, other.name
                ),
                "begin their ranges at the same half",
            )
        } else {
            (
                format!(
                    "rules `{}` and `{}` of conduit `{name}` limit {operand} in different ways: \
                     {one_says}; {other_says}",
                    one.name, other.name
                ),
                "name it in one of them, or give both the same limits",
            )
        };
        let at = diagnostics.line_of(one.span);
        let help = format!("{help} (the other: {at})");
        diagnostics.error("limited-twice", other.span, message, help);
    }

    /// Whether nothing was said of a pair of rules; of very many pairs nothing more is said.
    fn is_new(&mut self, pair: (u16, u16)) -> bool {
        self.pairs.len() < REPORTED_PAIRS && self.pairs.insert(pair)
    }
}
