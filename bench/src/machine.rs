//! Where the figures come from.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine, as far as it bears on the figures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    /// The processor's own name.
    pub(crate) processor: String,
    /// How many of them.
    pub(crate) processors: usize,
    /// Whether it is a virtual machine.
    pub(crate) is_virtual: bool,
    /// The kernel.
    pub(crate) kernel: String,
    /// Mitigations that cost an XDP program something.
    pub(crate) mitigations: String,
    /// Load average of the last minute, when the run began and when it was over.
    pub(crate) load: [f64; 2],
    /// The commit that was measured.
    pub(crate) commit: String,
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or(0.0)
}

impl Machine {
    /// This machine, now.
    pub(crate) fn look() -> Self {
        let info = read("/proc/cpuinfo");
        let value = |key: &str| {
            let line = info.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(": ")?.1.to_owned())
        };
        let flags = value("flags").unwrap_or_default();
        Self {
            processor: value("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            processors: info
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            is_virtual: flags.split(' ').any(|flag| flag == "hypervisor"),
            kernel: read("/proc/sys/kernel/osrelease"),
            mitigations: read("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
            load: [load(); 2],
            commit: std::env::var("CONDUITFW_COMMIT").unwrap_or_default(),
        }
    }

    /// All of it in one paragraph.
    pub(crate) fn sentence(&self) -> String {
        let Self {
            processor,
            processors,
            is_virtual,
            kernel,
            mitigations,
            load: [before, after],
            commit,
        } = self;
        let kind = if *is_virtual {
            "virtual processors"
        } else {
            "processors"
        };
        format!(
            "{processors} {kind} ({processor}), Linux {kernel}; Spectre v2: {mitigations}. Load average \
             {before:.1} when the run began, {after:.1} when it was over. Commit {commit}."
        )
    }
}
