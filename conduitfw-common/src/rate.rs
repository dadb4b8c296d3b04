//! Rates, by the generic cell rate algorithm (ITU-T I.371 annex A): one number per bucket, the
//! time at which the next unit would be due if all had come at the allowed rate.

use crate::platform::Platform;

/// Tries to replace the number before giving up on other processors.
const TRIES: u32 = 4;

/// Takes one unit of a conduit's rate of new flows. `interval` and `burst` are in 1/65,536 tick.
#[inline(always)]
pub fn take<P: Platform>(p: &mut P, conduit: u16, interval: u32, burst: u64) -> bool {
    if interval == 0 {
        return true;
    }
    let now = p.now_ticks() << 16;
    for _ in 0..TRIES {
        let due = p.rate(conduit);
        match next_due(now, due, u64::from(interval), burst) {
            None => return false,
            Some(next) if p.replace_rate(conduit, due, next) => return true,
            Some(_) => {}
        }
    }
    false
}

/// Takes one operation of a rule's rate. `interval` and `burst` are in 1/65,536 tick.
#[inline(always)]
pub fn take_of_rule<P: Platform>(p: &mut P, rule: u16, interval: u32, burst: u64) -> bool {
    let now = p.now_ticks() << 16;
    for _ in 0..TRIES {
        let due = p.rule_rate(rule);
        match next_due(now, due, u64::from(interval), burst) {
            None => return false,
            Some(next) if p.replace_rule_rate(rule, due, next) => return true,
            Some(_) => {}
        }
    }
    false
}

/// When the unit after this one is due, or `None` when this one comes too early.
#[inline(always)]
#[must_use]
pub const fn next_due(now: u64, due: u64, interval: u64, burst: u64) -> Option<u64> {
    let latest = now.saturating_add(burst);
    // Nothing at this rate makes it later, but for processors that a tick is between: it was made by a
    // slower one, which a reload has replaced, and whose burst is used up at this one as well.
    let most = latest.saturating_add(interval).saturating_add(TWO_TICKS);
    if due > latest && due <= most {
        return None;
    }
    let base = if due > latest {
        latest
    } else if due > now {
        due
    } else {
        now
    };
    Some(base.saturating_add(interval))
}

/// In 1/65,536 tick.
const TWO_TICKS: u64 = 2 << 16;

#[cfg(test)]
mod tests {
    use super::next_due;

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let (interval, burst) = (10, 20);
        let mut due = 0;
        let mut passed = 0;
        while let Some(next) = next_due(100, due, interval, burst) {
            due = next;
            passed += 1;
        }
        assert_eq!(passed, 3, "one, and two ahead of the rate");
        assert_eq!(next_due(109, due, interval, burst), None);
        assert_eq!(next_due(110, due, interval, burst), Some(140));
    }

    #[test]
    fn a_slower_rate_of_before_is_forgotten() {
        let (now, interval, burst) = (1 << 40, 1000, 5000);
        let of_before = now + (1 << 35);
        let due = next_due(now, of_before, interval, burst);
        assert_eq!(due, Some(now + burst + interval));
        assert_eq!(next_due(now, now + burst + interval, interval, burst), None);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        assert_eq!(next_due(1_000_000, 5, 10, 20), Some(1_000_010));
    }
}
