//! Which interval holds an operand: pages of numbers, so that the kernel need not search.

use std::collections::HashMap;

use conduitfw_common::table::{Interval, MAX_PAGES, Operation, PAGE_OPERANDS, Page};

/// The pages, as they grow.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) rows: Vec<Page>,
    /// By the first interval of a run: the row of its first page.
    known: HashMap<u32, u16>,
}

impl Pages {
    /// The cell with pages over its intervals, `run`. Without, when there is no room for them or no
    /// need: the intervals are then searched.
    pub(super) fn index(&mut self, cell: Operation, run: &[Interval]) -> Operation {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return cell;
        };
        let [first_page, _] = first.first.to_be_bytes();
        let [last_page, _] = last.last.to_be_bytes();
        if run.len() == 1 || run.len() >= usize::from(u16::MAX) {
            return cell;
        }
        let pages = if let Some(row) = self.known.get(&cell.first) {
            *row
        } else {
            let Some(row) = self.add(run, first_page, last_page) else {
                return cell;
            };
            self.known.insert(cell.first, row);
            row
        };
        Operation {
            first_page,
            last_page,
            pages: pages + 1,
            ..cell
        }
    }

    fn add(&mut self, run: &[Interval], first_page: u8, last_page: u8) -> Option<u16> {
        let row = self.rows.len();
        let pages = usize::from(last_page - first_page) + 1;
        if row + pages > MAX_PAGES as usize {
            return None;
        }
        let empty = Page {
            intervals: [0; PAGE_OPERANDS],
        };
        self.rows.resize(row + pages, empty);
        for (interval, number) in run.iter().zip(1_u16..) {
            for operand in interval.first..=interval.last {
                let [page, low] = operand.to_be_bytes();
                let page = self.rows.get_mut(row + usize::from(page - first_page))?;
                page.intervals[usize::from(low)] = number;
            }
        }
        u16::try_from(row).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operand_finds_its_interval() {
        let interval = |first, last| Interval {
            first,
            last,
            ..Interval::default()
        };
        let run = [interval(250, 260), interval(261, 261), interval(700, 700)];
        let cell = Operation {
            count: 3,
            ..Operation::default()
        };
        let mut pages = Pages::default();
        let cell = pages.index(cell, &run);
        assert_eq!((cell.first_page, cell.last_page, cell.pages), (0, 2, 1));
        for operand in 0..=u16::MAX {
            let [page, low] = operand.to_be_bytes();
            let wanted = run
                .iter()
                .position(|interval| (interval.first..=interval.last).contains(&operand));
            let found = pages
                .rows
                .get(usize::from(page))
                .map_or(0, |page| page.intervals[usize::from(low)]);
            assert_eq!(
                usize::from(found),
                wanted.map_or(0, |at| at + 1),
                "{operand}"
            );
        }
    }
}
