//! How long the responders of a conduit take to reply, as the data plane counts it: in buckets that
//! double.

use std::fmt;

use conduitfw_common::table::RESPONSE_BUCKETS;
use serde::Serialize;

/// Replies that took less than a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// They took less than this, in milliseconds, and not less than the bucket before; nothing for
    /// the last bucket, which has all above.
    pub under_ms: Option<f64>,
    /// How many.
    pub replies: u64,
}

/// The response times of a conduit, since its name first came into force.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ResponseTimes {
    /// Replies that were counted.
    pub replies: u64,
    /// Half of the replies took less than this, in milliseconds; nothing when it is beyond the
    /// buckets, or there are no replies.
    pub median_under_ms: Option<f64>,
    /// So did 99 of 100.
    pub p99_under_ms: Option<f64>,
    /// Buckets, the fastest first; those after the last reply are left out.
    pub buckets: Vec<Bucket>,
}

impl ResponseTimes {
    /// From the counts of a conduit's buckets. Bucket 0 has what took less than a tick, bucket `n`
    /// what took `2^(n-1)` to `2^n - 1` ticks, the last one all above.
    #[must_use]
    pub fn new(counts: &[u64], ticks_per_second: u32) -> Self {
        let tick_ms = 1000.0 / f64::from(ticks_per_second.max(1));
        let used = counts
            .iter()
            .rposition(|count| *count > 0)
            .map_or(0, |last| last + 1);
        let buckets = counts.iter().zip(0..RESPONSE_BUCKETS).take(used);
        let buckets: Vec<Bucket> = buckets
            .map(|(&replies, number)| {
                let is_last = number + 1 == RESPONSE_BUCKETS;
                let under = tick_ms * f64::from(1_u32 << number);
                Bucket {
                    under_ms: (!is_last).then_some(under),
                    replies,
                }
            })
            .collect();
        let replies = counts.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
        Self {
            replies,
            median_under_ms: under(&buckets, replies, 50),
            p99_under_ms: under(&buckets, replies, 99),
            buckets,
        }
    }
}

/// The end of the bucket in which so many of a hundred replies are reached.
fn under(buckets: &[Bucket], replies: u64, percent: u64) -> Option<f64> {
    let wanted = (u128::from(replies) * u128::from(percent)).div_ceil(100);
    let mut seen = 0;
    let reached = buckets.iter().find(|bucket| {
        seen += u128::from(bucket.replies);
        seen >= wanted
    });
    reached?.under_ms
}

/// "half under 4 ms, 99% under 16 ms (under 4 ms: 60, under 8 ms: 39, more: 1)".
impl fmt::Display for ResponseTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, time) in [("half", self.median_under_ms), (", 99%", self.p99_under_ms)] {
            match time {
                Some(time) => write!(f, "{what} under {time} ms")?,
                None => write!(f, "{what} slower than can be told")?,
            }
        }
        f.write_str(" (")?;
        let counted = self.buckets.iter().filter(|bucket| bucket.replies > 0);
        for (index, bucket) in counted.enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match bucket.under_ms {
                Some(time) => write!(f, "under {time} ms: {}", bucket.replies)?,
                None => write!(f, "more: {}", bucket.replies)?,
            }
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_and_nearly_all_are_told_by_their_bucket() {
        let times = ResponseTimes::new(&[60, 39, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 250);
        assert_eq!(times.replies, 100);
        assert_eq!(times.median_under_ms, Some(4.0));
        assert_eq!(times.p99_under_ms, Some(8.0));
        assert_eq!(times.buckets.len(), 4);
        assert_eq!(
            times.to_string(),
            "half under 4 ms, 99% under 8 ms (under 4 ms: 60, under 8 ms: 39, under 32 ms: 1)"
        );
    }

    #[test]
    fn what_is_slower_than_the_buckets_has_no_bound() {
        let mut counts = [0; 16];
        counts[15] = 3;
        counts[0] = 1;
        let times = ResponseTimes::new(&counts, 1000);
        assert_eq!(times.median_under_ms, None);
        assert_eq!(
            times.to_string(),
            "half slower than can be told, 99% slower than can be told (under 1 ms: 1, more: 3)"
        );
        assert_eq!(ResponseTimes::new(&[0; 16], 250), ResponseTimes::default());
    }
}
