//! Memory of the controller: enough is kept to read the next policy, and the rest is the machine's.

use std::{fs, process};

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
    let own = bytes_of(process::id(), "RssAnon:");
    if own.is_some_and(|bytes| bytes <= u64::from(KEPT.unsigned_abs())) {
        return;
    }
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim(3) takes a number and touches only what is not allocated.
        unsafe { nix::libc::malloc_trim(0) };
    }
}

/// Memory of a process in bytes, by a key of `proc_pid_status(5)`.
pub(crate) fn bytes_of(process: u32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    number(&status, key).map(|kilobytes| kilobytes * 1024)
}

/// The number behind a key of a file of `proc(5)`.
pub(crate) fn number(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_keys() {
        let text = "pos:\t0\nmemlock:\t4194304\nVmRSS:\t   21504 kB\n";
        assert_eq!(number(text, "memlock:"), Some(4_194_304));
        assert_eq!(number(text, "VmRSS:"), Some(21_504));
        assert_eq!(number(text, "VmHWM:"), None);
        for key in ["VmRSS:", "RssAnon:"] {
            assert!(bytes_of(process::id(), key).unwrap() > 1 << 20, "{key}");
        }
    }
}
