//! The kernel: its version and what the data plane asks of it.

use std::{fs, path::Path};

use super::Finding;
use crate::shell;

/// The oldest kernel that the project promises to run on.
const OLDEST: (u32, u32) = (6, 1);

/// Needed to load and attach: network, tracing and BPF rights, by their numbers.
const CAPABILITIES: [(u32, &str); 3] =
    [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];

/// All about the kernel.
pub(super) fn findings() -> Vec<Finding> {
    vec![rights(), version(), types(), file_system(), compiler()]
}

fn rights() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lacking = lacking_capabilities(&status);
    let who = if shell::is_root() { "root" } else { "not root" };
    if lacking.is_empty() {
        return Finding::good(
            "rights",
            format!("{who}, with all capabilities that are needed"),
        );
    }
    Finding::bad(
        "rights",
        format!("{who}, without {}", lacking.join(", ")),
        "run as root",
    )
}

fn lacking_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or(0);
    let lacks = |number: u32| effective & (1_u64 << number) == 0;
    CAPABILITIES
        .iter()
        .filter(|(number, _)| lacks(*number))
        .map(|(_, name)| *name)
        .collect()
}

fn version() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match parse_release(release) {
        Some(version) if version >= OLDEST => Finding::good("kernel", release),
        _ => Finding::bad(
            "kernel",
            format!("{release} is older than 6.1"),
            "boot Linux 6.1 or newer",
        ),
    }
}

/// Reads the first two numbers of `uname -r`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn types() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").is_file() {
        return Finding::good("kernel types", "/sys/kernel/btf/vmlinux");
    }
    Finding::fair(
        "kernel types",
        "no BTF",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
    )
}

fn file_system() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    match mount_of_type(&mounts, "bpf") {
        Some(place) => Finding::good("bpf file system", place),
        None => Finding::bad(
            "bpf file system",
            "not mounted",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

fn mount_of_type<'a>(mounts: &'a str, kind: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == kind).then_some(place)
    })
}

fn compiler() -> Finding {
    let value = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    match value.trim() {
        "1" | "2" => Finding::good("just-in-time compiler", "on"),
        "" => Finding::fair(
            "just-in-time compiler",
            "cannot be seen without root",
            "run as root",
        ),
        _ => Finding::fair(
            "just-in-time compiler",
            "off: every frame takes about ten times as long",
            "sysctl net.core.bpf_jit_enable=1",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        assert_eq!(parse_release("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert!(parse_release("6.12.1").unwrap() > OLDEST);
        assert!(parse_release("5.10.0-8-amd64").unwrap() < OLDEST);
        assert_eq!(parse_release("unknown"), None);
    }

    #[test]
    fn capabilities_that_are_lacking_are_named() {
        assert_eq!(
            lacking_capabilities("CapEff:\t000001ffffffffff\n"),
            Vec::<&str>::new()
        );
        assert_eq!(
            lacking_capabilities("CapEff:\t0000000000001000\n"),
            ["CAP_PERFMON", "CAP_BPF"]
        );
    }

    #[test]
    fn the_bpf_file_system_is_found_by_its_type() {
        let mounts = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n";
        assert_eq!(mount_of_type(mounts, "bpf"), Some("/sys/fs/bpf"));
        assert_eq!(mount_of_type("sysfs /sys sysfs rw 0 0\n", "bpf"), None);
    }
}
