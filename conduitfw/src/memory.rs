//! Memory of the controller: enough is kept to read the next policy, and the rest is the machine's.

use std::fs;

/// Memory that the controller keeps, in use or not, beside its program and the rings of events: as much as a
/// policy of ten thousand rules and the reading of another one take. A page that comes anew costs more than what
/// is written to it.
const KEPT: i32 = 18 << 20;

/// Has the allocator leave it to [`give_back`] what is done with freed memory. By itself it would ask for most
/// of it anew with every policy.
pub(crate) fn keep_some() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (nix::libc::M_TRIM_THRESHOLD, i32::MAX),
        (nix::libc::M_MMAP_THRESHOLD, KEPT),
        // One heap: another thread runs for milliseconds.
        (nix::libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt(3) takes two numbers; one that it refuses costs time and nothing else.
        unsafe { nix::libc::mallopt(parameter, value) };
    }
}

/// Gives back what the allocator keeps for later, where it is more than one policy takes: between two of them
/// may lie months.
pub(crate) fn give_back() {
    if anonymous().is_some_and(|bytes| bytes <= KEPT.into()) {
        return;
    }
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim(3) takes a number and touches only what is not allocated.
        unsafe { nix::libc::malloc_trim(0) };
    }
}

/// Bytes of memory that this process has and no file stands behind, by `proc_pid_status(5)`.
fn anonymous() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_size() {
        let before = anonymous().unwrap();
        let more = vec![1_u8; 64 << 20];
        let after = anonymous().unwrap();
        assert!(
            after - before >= 32 << 20,
            "{before}, then {after} with {}",
            std::hint::black_box(&more).len()
        );
    }
}
