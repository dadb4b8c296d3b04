//! `conduitfw replay`: a capture judged by a policy, frame by frame.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;

use super::{Failure, check::read_policy, complain, print};
use crate::{
    expect::Expectations,
    policy::Policy,
    replay::{Capture, Cases, Means, Replay, ReplayError, Summary},
};

/// Progress is shown when there is that much to wait for, and again after as long.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Frames between two looks at the clock.
const FRAMES_BETWEEN: u64 = 4096;
const OUTPUT_BUFFER: usize = 1 << 18;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The capture, pcap or pcapng; `-` for standard input
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// Let the kernel's program judge; needs root
    #[arg(long)]
    kernel: bool,
    /// Compare with what is wanted of frames and totals
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// One JSON object a frame
    #[arg(long)]
    json: bool,
}

pub(super) fn replay(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = read_policy(&arguments.policy, false)?;
    let cases = match &arguments.expect {
        Some(file) => {
            let expectations = Expectations::open(file).map_err(Failure::system)?;
            Some(Cases::new(expectations).map_err(Failure::system)?)
        }
        None => None,
    };
    let (file, bytes) = open(&arguments.capture)
        .with_context(|| format!("cannot open {}", arguments.capture.display()))?;
    // The kernel's part happens in a network namespace of its own, which is a thread's.
    let policy = &loaded.policy;
    let done = thread::scope(|scope| {
        let worker = scope.spawn(|| judge_all(arguments, policy, file, bytes, cases));
        worker.join()
    });
    done.unwrap_or_else(|_| Err(Failure::System(anyhow::anyhow!("the replay broke off"))))
}

fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), bytes))
}

fn judge_all(
    arguments: &Arguments,
    policy: &Policy,
    file: impl Read,
    bytes: Option<u64>,
    mut cases: Option<Cases>,
) -> Result<(), Failure> {
    let means = if arguments.kernel {
        Means::Kernel
    } else {
        Means::Simulator
    };
    let mut replay = Replay::new(policy, means).map_err(failure)?;
    let mut output = arguments
        .json
        .then(|| BufWriter::with_capacity(OUTPUT_BUFFER, io::stdout()));
    let mut progress = Progress::new(bytes);
    let mut is_whole = true;
    let name = arguments.capture.display();
    match Capture::open(file) {
        Ok(mut capture) => loop {
            progress.show(capture.offset());
            match capture.next_frame() {
                Ok(Some(frame)) => {
                    let line = replay.judge(&frame).map_err(failure)?;
                    if let Some(output) = &mut output {
                        write_or_leave(line.write_json(output))?;
                    }
                    if let Some(cases) = &mut cases {
                        cases.see(&line);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    progress.clear();
                    complain(&format!("error: {name}: {error}\n"));
                    is_whole = false;
                    break;
                }
            }
        },
        Err(error) => {
            complain(&format!("error: {name}: {error}\n"));
            is_whole = false;
        }
    }
    progress.clear();
    if let Some(output) = &mut output {
        write_or_leave(output.flush())?;
    }
    let summary = replay.finish().map_err(failure)?;
    if !arguments.json {
        let (site, file) = (&policy.site.name, policy.file_name());
        print(&format!(
            "capture       {name}\npolicy        {site}, from {file}\n{summary}"
        ))?;
    }
    conclude(arguments, &summary, cases, is_whole)
}

fn conclude(
    arguments: &Arguments,
    summary: &Summary,
    cases: Option<Cases>,
    is_whole: bool,
) -> Result<(), Failure> {
    if summary.too_long > 0 {
        complain(&format!(
            "error: {}: {} frames are longer than the kernel takes, and were not judged; \
             without `--kernel` they are\n",
            arguments.capture.display(),
            summary.too_long
        ));
    }
    let mut is_met = is_whole && summary.too_long == 0;
    if let Some(cases) = cases {
        let outcome = cases.outcome(summary);
        is_met &= outcome.is_met();
        if arguments.json {
            complain(&outcome.to_string());
        } else {
            print(&outcome.to_string())?;
        }
    }
    if is_met {
        Ok(())
    } else {
        Err(Failure::Refused)
    }
}

fn failure(error: ReplayError) -> Failure {
    if let ReplayError::Refused(refusal) = &error {
        complain(&refusal.render());
        return Failure::Refused;
    }
    Failure::system(error)
}

/// A reader that left (a closed pipe) ends the verb in peace.
fn write_or_leave(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(Failure::system),
    }
}

/// How far it got, for those who watch.
struct Progress {
    bytes: Option<u64>,
    frames: u64,
    began: Instant,
    next: Duration,
    is_watched: bool,
    is_shown: bool,
}

impl Progress {
    fn new(bytes: Option<u64>) -> Self {
        Self {
            bytes,
            frames: 0,
            began: Instant::now(),
            next: PROGRESS_AFTER,
            is_watched: io::stderr().is_terminal(),
            is_shown: false,
        }
    }

    fn show(&mut self, offset: u64) {
        self.frames += 1;
        if !self.is_watched || !self.frames.is_multiple_of(FRAMES_BETWEEN) {
            return;
        }
        let elapsed = self.began.elapsed();
        if elapsed < self.next {
            return;
        }
        self.next = elapsed + PROGRESS_EVERY;
        self.is_shown = true;
        let part = match self.bytes {
            Some(bytes) => format!("{} % of the file, ", offset * 100 / bytes.max(1)),
            None => String::new(),
        };
        complain(&format!("\r{part}{} frames\x1b[K", self.frames));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            complain("\r\x1b[K");
        }
    }
}
