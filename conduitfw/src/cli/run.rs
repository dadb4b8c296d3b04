//! `conduitfw run`: put a policy in force and stay to report.

use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::{EnvFilter, fmt};

use super::{Failure, check::read_policy};
use crate::{
    controller::{ApplyError, Options, StartError},
    daemon::{self, DaemonError},
    dataplane::AttachMode,
    instance::Instance,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Where to attach: in the driver (native), in the kernel's generic path, or what works (auto)
    #[arg(long, value_enum, default_value_t)]
    mode: AttachMode,
    /// Put the policy in force anew whenever the file changes
    #[arg(long)]
    watch: bool,
    /// Group that may use the control socket [default: conduitfw, where it exists]
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<String>,
    /// Where tables of another version or for other limits are in force, put new ones in their place
    /// without a gap; connections are picked up as `adopt` says, and counters begin anew
    #[arg(long)]
    change_over: bool,
}

pub(super) fn run(instance: Instance, arguments: Arguments) -> Result<(), Failure> {
    start_logging();
    let loaded = read_policy(&arguments.policy, false)?;
    let Arguments {
        policy,
        mode,
        watch,
        socket_group,
        change_over,
    } = arguments;
    let options = Options {
        instance,
        policy_file: policy,
        mode,
        watch,
        socket_group,
        change_over,
    };
    match daemon::run(options, loaded) {
        Ok(()) => Ok(()),
        Err(DaemonError::Start(StartError::Apply(ApplyError::Refused(refusal)))) => {
            super::complain(&refusal.render());
            Err(Failure::Refused)
        }
        Err(error) => Err(Failure::system(error)),
    }
}

fn start_logging() {
    let filter = EnvFilter::try_from_env("CONDUITFW_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,conduitfw=info"));
    let logging = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // The journal keeps its own time.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        logging.without_time().with_ansi(false).init();
    } else {
        logging.with_ansi(false).init();
    }
}
