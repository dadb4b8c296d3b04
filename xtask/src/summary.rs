//! What the test runners counted.

use std::{fmt, iter::Sum};

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Counts {
    /// Takes in the counts of another part.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.add(part);
        }
        all
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Reads a line like `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
///
/// A test that was ignored counts as failed: here every test runs.
pub(crate) fn result_line(line: &str) -> Option<Counts> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |word: &str| {
        rest.split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    let failed: u64 = number("failed")?;
    Some(Counts {
        passed: number("passed")?,
        failed: failed + number("ignored").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runners_result_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(
            result_line(line),
            Some(Counts {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(result_line("test result: a tale"), None);
        assert_eq!(result_line("running 3 tests"), None);
    }

    #[test]
    fn an_ignored_test_counts_as_failed() {
        let line = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            result_line(line),
            Some(Counts {
                passed: 2,
                failed: 1
            })
        );
    }

    #[test]
    fn the_sum_reads_as_the_last_line_of_a_run() {
        let all: Counts = [
            Counts {
                passed: 2,
                failed: 0,
            },
            Counts {
                passed: 3,
                failed: 1,
            },
        ]
        .into_iter()
        .sum();
        assert_eq!(all.to_string(), "5 passed, 1 failed");
    }
}
