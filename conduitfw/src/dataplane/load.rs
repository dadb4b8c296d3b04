//! From the object in this binary to programs in the kernel and maps under their pins.

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, MapData},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
    util::KernelVersion,
};
use conduitfw_common::table::{ABI_VERSION, Active, Settings};

use super::{
    DataPlaneError, Pins,
    change_over::ChangeOver,
    maps::{Maps, PINNED, Plain, open_settings},
    rings::EventRoom,
    sizes::{TableSizes, hash_keys},
};

/// The data plane, built for the BPF target.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/conduitfw-ebpf"));

/// Name of the program that decides frames.
pub(super) const PROGRAM: &str = "conduitfw";
/// Name of the program that tells the time.
const CLOCK_PROGRAM: &str = "clock";
/// A loaded data plane, not yet attached by this controller.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) maps: Maps,
    pub(super) ticks_per_second: u32,
    pub(super) took_over: bool,
    /// The earlier data plane, whose place this one is to take.
    pub(super) change_over: Option<ChangeOver>,
}

/// Loads the programs, with new maps or with those that an earlier controller left pinned. New ones
/// pick up connections that are open already, for the time `adopt`. Pinned ones that do not fit are in
/// the way, unless this `may_change_over`.
pub(super) fn load(
    pins: &Pins,
    bpffs: &Path,
    sizes: TableSizes,
    adopt: Duration,
    may_change_over: bool,
) -> Result<Loaded, DataPlaneError> {
    check_kernel()?;
    let sizes = sizes.rounded();
    let mut change_over = ChangeOver::unfinished(pins, || is_in_force(pins))?;
    let took_over = match check_pinned(pins, sizes) {
        Err(DataPlaneError::OtherVersion { .. } | DataPlaneError::OtherLimits { .. })
            if may_change_over =>
        {
            change_over = Some(ChangeOver::begin(pins)?);
            false
        }
        checked => checked?,
    };
    let loaded = (|| {
        if !took_over {
            // What a start that did not finish may have left would be taken for ours.
            pins.remove_own()?;
            pins.create(bpffs)?;
        }
        load_into(pins, sizes, adopt, took_over)
    })();
    match loaded {
        Ok(loaded) => Ok(Loaded {
            change_over,
            ..loaded
        }),
        Err(error) => {
            if !took_over {
                forget(pins, change_over);
            }
            Err(error)
        }
    }
}

/// Removes what was pinned of a data plane that did not come into force, and gives an earlier one its place
/// back.
pub(super) fn forget(pins: &Pins, change_over: Option<ChangeOver>) {
    let forgotten = match change_over {
        Some(change_over) => change_over.take_back(pins),
        None => pins.remove_own().map(drop),
    };
    if let Err(error) = forgotten {
        tracing::error!("what was pinned cannot be removed: {error}");
    }
}

/// Whether a policy is in force in pinned tables of this version.
fn is_in_force(pins: &Pins) -> bool {
    let is_ours =
        open_settings(pins.directory()).is_ok_and(|settings| settings.abi_version == ABI_VERSION);
    is_ours
        && Maps::open(pins.directory())
            .is_ok_and(|maps| maps.in_force().is_ok_and(|(_, now)| now.number != 0))
}

/// Whether limits fit the tables of a data plane that is already loaded.
pub(super) fn check_sizes(maps: &Maps, sizes: TableSizes) -> Result<(), DataPlaneError> {
    same_sizes(&maps.settings.get(&0, 0)?.0, sizes.rounded())
}

fn same_sizes(settings: &Settings, wanted: TableSizes) -> Result<(), DataPlaneError> {
    let found = TableSizes::of(settings);
    if found == wanted {
        Ok(())
    } else {
        Err(DataPlaneError::OtherLimits { found, wanted })
    }
}

/// Whether the pins can be taken over; not so those of a start that never finished.
fn check_pinned(pins: &Pins, sizes: TableSizes) -> Result<bool, DataPlaneError> {
    if !pins.exist() {
        return Ok(false);
    }
    let settings = check_version(pins)?;
    if settings.abi_version == 0 {
        tracing::info!("removing the pins of a start that did not finish");
        return Ok(false);
    }
    same_sizes(&settings, sizes)?;
    Ok(true)
}

/// The settings of pinned tables, if those are of this version, or of a start that never finished.
///
/// # Errors
///
/// They are of another version, or cannot be read.
pub fn check_version(pins: &Pins) -> Result<Settings, DataPlaneError> {
    let other = |found| DataPlaneError::OtherVersion {
        found,
        wanted: ABI_VERSION,
    };
    match open_settings(pins.directory()) {
        Ok(settings) if matches!(settings.abi_version, 0 | ABI_VERSION) => Ok(settings),
        Ok(settings) => Err(other(format!("version {}", settings.abi_version))),
        Err(error) if error.is_of_another_layout() => Err(other("of another layout".to_owned())),
        Err(error) => Err(error.into()),
    }
}

fn load_into(
    pins: &Pins,
    sizes: TableSizes,
    adopt: Duration,
    took_over: bool,
) -> Result<Loaded, DataPlaneError> {
    let room = EventRoom::of_machine().map_err(|source| DataPlaneError::System {
        action: "counting processors",
        source,
    })?;
    let mut loader = EbpfLoader::new();
    for (name, rows) in sizes.rows().into_iter().chain(room.rows()) {
        loader.map_max_entries(name, rows);
    }
    for name in PINNED {
        loader.map_pin_path(name, pins.directory().join(name));
    }
    let mut ebpf = loader.load(OBJECT).map_err(object_error)?;
    for name in PINNED {
        if ebpf.map(name).is_none() {
            return Err(DataPlaneError::Incomplete(name));
        }
    }
    let mut maps = Maps::open(pins.directory())?;
    let known = maps.in_force()?.1.ticks_per_second;
    // While the clock runs, the kernel verifies the program, which takes as long.
    let watch = if took_over && known != 0 {
        None
    } else {
        Some(Watch::start(&mut ebpf)?)
    };
    program(&mut ebpf, PROGRAM)?
        .load()
        .map_err(|error| load_error(PROGRAM, error))?;
    let ticks_per_second = match watch {
        None => known,
        Some(watch) => {
            let clock = watch.stop(&mut ebpf)?;
            // The window is that of the first load: a controller that takes over has nothing to
            // pick up.
            if !took_over {
                let settings = Plain(sizes.settings(Some(room), hash_keys()?, clock.end_of(adopt)));
                let write = |source| DataPlaneError::Write {
                    what: "settings",
                    source,
                };
                // No policy is in force yet: what comes is denied, and told of.
                let active = Active {
                    settings: settings.0,
                    ..Active::default()
                };
                maps.active.set(0, Plain(active), 0).map_err(write)?;
                maps.settings.set(0, settings, 0).map_err(write)?;
            }
            clock.ticks_per_second
        }
    };
    Ok(Loaded {
        ebpf,
        maps,
        ticks_per_second,
        took_over,
        change_over: None,
    })
}

fn check_kernel() -> Result<(), DataPlaneError> {
    match KernelVersion::current() {
        Ok(version) if version >= KernelVersion::new(6, 1, 0) => Ok(()),
        Ok(_) => Err(DataPlaneError::OldKernel {
            found: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "older".to_owned(), |release| release.trim().to_owned()),
        }),
        Err(_) => Ok(()),
    }
}

/// One of the programs of the object.
pub(super) fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut Xdp, DataPlaneError> {
    let program = ebpf
        .program_mut(name)
        .ok_or(DataPlaneError::Incomplete(name))?;
    program.try_into().map_err(|error| load_error(name, error))
}

/// The kernel's tick counter.
struct Clock {
    now_ticks: u64,
    ticks_per_second: u32,
}

/// Learns the kernel's HZ by watching its tick count beside its clock.
struct Watch {
    first_ticks: u64,
    first_ns: u64,
    started: Instant,
}

impl Watch {
    /// Times shorter than this tell 250 from 300 ticks a second not well enough.
    const SHORTEST: Duration = Duration::from_millis(200);

    fn start(ebpf: &mut Ebpf) -> Result<Self, DataPlaneError> {
        program(ebpf, CLOCK_PROGRAM)?
            .load()
            .map_err(|error| load_error(CLOCK_PROGRAM, error))?;
        let (first_ticks, first_ns) = read_clock(ebpf)?;
        Ok(Self {
            first_ticks,
            first_ns,
            started: Instant::now(),
        })
    }

    fn stop(self, ebpf: &mut Ebpf) -> Result<Clock, DataPlaneError> {
        thread::sleep(Self::SHORTEST.saturating_sub(self.started.elapsed()));
        let (last_ticks, last_ns) = read_clock(ebpf)?;
        program(ebpf, CLOCK_PROGRAM)?
            .unload()
            .map_err(|error| load_error(CLOCK_PROGRAM, error))?;
        let ticks = last_ticks.saturating_sub(self.first_ticks);
        let nanoseconds = last_ns.saturating_sub(self.first_ns).max(1);
        Ok(Clock {
            now_ticks: last_ticks,
            ticks_per_second: nearest_rate(ticks, nanoseconds),
        })
    }
}

impl Clock {
    /// What the counter shows when a time from now is over; 0 when there is no time.
    fn end_of(&self, time: Duration) -> u64 {
        if time.is_zero() {
            return 0;
        }
        let ticks = time.as_millis() * u128::from(self.ticks_per_second) / 1000;
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.now_ticks.saturating_add(ticks)
    }
}

fn read_clock(ebpf: &mut Ebpf) -> Result<(u64, u64), DataPlaneError> {
    let frame = [0; 64];
    program(ebpf, CLOCK_PROGRAM)?
        .test_run(TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        })
        .map_err(|error| load_error(CLOCK_PROGRAM, error))?;
    let map = ebpf
        .map("CLOCK")
        .ok_or(DataPlaneError::Incomplete("CLOCK"))?;
    let clock: Array<&MapData, [u64; 2]> = map.try_into()?;
    let [ticks, nanoseconds] = clock.get(&0, 0)?;
    Ok((ticks, nanoseconds))
}

/// The HZ that kernels are built with, or else what was measured.
fn nearest_rate(ticks: u64, nanoseconds: u64) -> u32 {
    const BUILT_WITH: [u64; 4] = [100, 250, 300, 1000];
    let measured = ticks.saturating_mul(1_000_000_000) / nanoseconds.max(1);
    let nearest = BUILT_WITH
        .into_iter()
        .find(|rate| measured.abs_diff(*rate) * 12 <= *rate)
        .unwrap_or(measured);
    u32::try_from(nearest.max(1)).unwrap_or(u32::MAX)
}

pub(super) fn object_error(error: EbpfError) -> DataPlaneError {
    if let EbpfError::MapError(map_error) = &error
        && is_permission(map_error)
    {
        return DataPlaneError::NoPermission {
            action: "create BPF maps",
        };
    }
    DataPlaneError::Object(Box::new(error))
}

fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io_error) = error.downcast_ref::<io::Error>()
            && io_error.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// The last lines of the verifier say why; ten thousand lines before them do not help.
pub(super) fn load_error(program: &'static str, error: ProgramError) -> DataPlaneError {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            if log.trim().is_empty() && io_error.kind() == io::ErrorKind::PermissionDenied {
                return DataPlaneError::NoPermission {
                    action: "load BPF programs",
                };
            }
            tracing::debug!("verifier log of {program}:\n{log}");
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines
                .get(lines.len().saturating_sub(30)..)
                .unwrap_or_default();
            DataPlaneError::Load {
                program,
                reason: format!("{io_error}\n{}", tail.join("\n")),
            }
        }
        other => DataPlaneError::Load {
            program,
            reason: chain(&other),
        },
    }
}

/// An error and what is behind it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_rate_snaps_to_what_kernels_are_built_with() {
        assert_eq!(nearest_rate(50, 200_300_000), 250);
        assert_eq!(nearest_rate(21, 200_300_000), 100);
        assert_eq!(nearest_rate(199, 200_300_000), 1000);
        assert_eq!(nearest_rate(60, 200_000_000), 300);
        assert_eq!(nearest_rate(12, 200_000_000), 60);
        assert_eq!(nearest_rate(0, 0), 1);
    }

    #[test]
    fn the_window_ends_when_its_time_is_over() {
        let clock = Clock {
            now_ticks: 4_294_000_000,
            ticks_per_second: 250,
        };
        assert_eq!(clock.end_of(Duration::from_mins(5)), 4_294_075_000);
        assert_eq!(clock.end_of(Duration::ZERO), 0);
    }
}
