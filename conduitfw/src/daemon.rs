//! One loop: signals, the control socket, events, interfaces and timers. No logic of its own.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::json;
use thiserror::Error;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    cli::unreadable,
    control::{
        protocol::{Answer, PolicyText},
        server::{Command, Server},
    },
    controller::{ApplyError, Controller, Options, StartError, remedy},
    dataplane::{DataPlaneError, rings::EventRings, rtnetlink},
    events::WallClock,
    lock::InstanceLock,
    memory,
    notify::{Notice, notify},
    policy::Loaded,
    requester::Requester,
};

/// Events taken in a row before others get their turn.
const EVENTS_AT_ONCE: usize = 1024;
/// How long after events the next ones are looked for without being woken: the program wakes once in a
/// tick of the kernel's clock, which is 10 ms at most.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often the policy file and the interfaces are looked at.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// Time for the last answer to leave before the controller does.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why the daemon ended before it was told to.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control socket cannot be made.
    #[error("the control socket {} cannot be made: {source}{}", path.display(), remedy(source))]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that the loop waits for cannot be waited for.
    #[error("{action}: {source}")]
    Wait {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs until it is told to stop; enforcement goes on after that.
///
/// # Errors
///
/// It could not start: nothing is left half done.
pub fn run(options: Options, loaded: Loaded) -> Result<(), DaemonError> {
    memory::keep_some();
    let wait = |action| move |source| DaemonError::Wait { action, source };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(wait("starting the event loop"))?;
    let outcome = runtime.block_on(run_loop(options, loaded));
    // Not waiting for a policy file that hangs.
    runtime.shutdown_background();
    outcome
}

async fn run_loop(options: Options, loaded: Loaded) -> Result<(), DaemonError> {
    let wait = |action| move |source| DaemonError::Wait { action, source };
    let mut hangup = signal(SignalKind::hangup()).map_err(wait("waiting for SIGHUP"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(wait("waiting for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wait("waiting for SIGINT"))?;

    let _lock = InstanceLock::take(&options.instance)?;
    let (commands, mut received) = mpsc::channel(16);
    let socket = options.instance.socket();
    let group = options.socket_group.as_deref();
    let server =
        Server::bind(&socket, group, &options.policy_file, commands).map_err(|source| {
            DaemonError::Socket {
                path: socket,
                source,
            }
        })?;
    let mut watched = WatchedFile::new(&options.policy_file);
    let (mut controller, applied) = Controller::start(options, loaded)?;
    let mut events = events_of(&controller)?;
    let links = rtnetlink::link_changes().and_then(register);
    let links: AsyncFd<OwnedFd> = links.map_err(wait("following interfaces"))?;
    let mut look_around = interval(LOOK_AROUND);
    look_around.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look_again = None;

    if controller.took_over() {
        tracing::info!("taken over without a gap");
    }
    notify(
        Notice::Ready,
        &format!("generation {} is in force", applied.generation),
    );

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => drop(reload(&mut controller, None, &Requester::Hangup)),
            Some(command) = received.recv() => {
                let is_reload = matches!(command, Command::Reload(..));
                if obey(&mut controller, command) {
                    // The client's answer is on its way.
                    tokio::time::sleep(LAST_WORDS).await;
                    notify(Notice::Stopping, "detached: nothing is filtered any more");
                    tracing::warn!("detached and stopping: nothing is filtered any more");
                    return Ok(());
                }
                if is_reload {
                    look_around.reset_after(LAST_WORDS);
                }
            },
            outcome = server.serve_next() => if let Err(error) = outcome {
                tracing::warn!("a control client cannot be served: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            },
            ready = events.readable_mut() => {
                let mut ready = ready.map_err(wait("waiting for events"))?;
                if take_events(ready.get_inner_mut(), &mut controller).is_empty {
                    ready.clear_ready();
                }
                look_again = Some(Instant::now() + LOOK_AGAIN);
            }
            () = sleep_until(look_again.unwrap_or_else(Instant::now)), if look_again.is_some() => {
                let taken = take_events(events.get_mut(), &mut controller);
                look_again = match taken {
                    Taken { any: false, .. } => None,
                    Taken { is_empty: true, .. } => Some(Instant::now() + LOOK_AGAIN),
                    Taken { is_empty: false, .. } => Some(Instant::now()),
                };
            }
            ready = links.readable() => {
                let mut ready = ready.map_err(wait("following interfaces"))?;
                rtnetlink::drain(links.get_ref());
                ready.clear_ready();
                controller.follow_interfaces();
            }
            _ = look_around.tick() => {
                controller.follow_interfaces();
                controller.follow_addresses();
                if controller.options().watch && watched.changed() {
                    drop(reload(&mut controller, None, &Requester::Watch));
                }
                if take_events(events.get_mut(), &mut controller).any {
                    look_again = Some(Instant::now());
                }
                controller.tidy();
            }
        }
    }
    notify(Notice::Stopping, "enforcement goes on without a controller");
    tracing::info!("stopping; the policy in force goes on being enforced");
    Ok(())
}

fn events_of(controller: &Controller) -> Result<AsyncFd<EventRings>, DaemonError> {
    let rings = EventRings::open(controller.pins())
        .map_err(|error| StartError::DataPlane(DataPlaneError::from(error)))?;
    register(rings).map_err(|source| DaemonError::Wait {
        action: "waiting for events",
        source,
    })
}

/// Lets the event loop wait for a descriptor; only for owners that never exchange it.
fn register<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: called with an `OwnedFd` and `EventRings`: both own one open descriptor, which is the
    // same until they are dropped, and the AsyncFd drops its registration before its owner.
    let registered = unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// What [`take_events`] did.
struct Taken {
    /// There was an event.
    any: bool,
    /// The rings are empty now.
    is_empty: bool,
}

/// Takes what is in the rings, within bounds.
fn take_events(rings: &mut EventRings, controller: &mut Controller) -> Taken {
    let clock = WallClock::read();
    controller.forget_interface_names();
    for taken in 0..EVENTS_AT_ONCE {
        match rings.next() {
            Some(record) => controller.take_event(record, clock),
            None => {
                return Taken {
                    any: taken != 0,
                    is_empty: true,
                };
            }
        }
    }
    Taken {
        any: true,
        is_empty: false,
    }
}

/// Answers a command; true when it was the last one. A client that left before its answer is no
/// loss.
fn obey(controller: &mut Controller, command: Command) -> bool {
    match command {
        Command::Status(file, reply) => {
            let _ = reply.send(status(controller, file.as_deref()));
        }
        Command::Reload(given, user, reply) => {
            let _ = reply.send(reload(controller, given, &Requester::User(user)));
        }
        Command::Events(reply) => {
            let _ = reply.send(controller.sink.follow());
        }
        Command::Detach(user, reply) => {
            tracing::warn!("{user} has the program taken off every interface");
            let (answer, is_done) = match controller.detach() {
                Ok(interfaces) => (detached(&interfaces), true),
                Err(error) => (
                    Answer::Failed {
                        text: error.to_string(),
                    },
                    false,
                ),
            };
            let _ = reply.send(answer);
            return is_done;
        }
    }
    false
}

/// The answer to a detach that worked, with or without a controller.
pub(crate) fn detached(interfaces: &[String]) -> Answer {
    let text = if interfaces.is_empty() {
        "nothing was attached\n".to_owned()
    } else {
        format!(
            "detached from {}: nothing is filtered there any more\n",
            interfaces.join(", ")
        )
    };
    Answer::done(&json!({ "ok": true, "interfaces": interfaces }), text)
}

fn status(controller: &Controller, file: Option<&str>) -> Answer {
    match controller.status(file) {
        Ok(status) => Answer::done(&status, status.to_string()),
        Err(error) => Answer::Failed {
            text: error.to_string(),
        },
    }
}

fn reload(controller: &mut Controller, given: Option<PolicyText>, by: &Requester) -> Answer {
    notify(Notice::Reloading, "putting a policy in force");
    let answer = match controller.reload(given, by) {
        Ok(applied) => Answer::done(&applied.to_json(), applied.to_text()),
        Err(error) => {
            tracing::error!(
                "the policy was refused, the one in force stays (asked for by {by}):\n{error}"
            );
            refused(&error)
        }
    };
    notify(Notice::Ready, "a policy is in force");
    answer
}

fn refused(error: &ApplyError) -> Answer {
    match error {
        ApplyError::Refused(refusal) if refusal.is_unreadable() => Answer::Failed {
            text: unreadable(refusal),
        },
        ApplyError::Refused(refusal) => Answer::refused(
            &json!({ "ok": false, "problems": refusal.to_json() }),
            refusal.render(),
        ),
        ApplyError::DoesNotFit(_) => Answer::refused(
            &json!({ "ok": false, "problems": [{
                "severity": "error", "message": error.to_string(),
            }] }),
            format!("error: {error}\n"),
        ),
        ApplyError::DataPlane(_) => Answer::Failed {
            text: error.to_string(),
        },
    }
}

/// The policy file, as far as a look from outside tells whether it changed.
struct WatchedFile {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl WatchedFile {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: Self::look(path),
        }
    }

    fn look(path: &Path) -> Option<(SystemTime, u64)> {
        let file = fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len()))
    }

    /// A file that is missing for a moment, as editors do it, has not changed.
    fn changed(&mut self) -> bool {
        let now = Self::look(&self.path);
        let changed = now.is_some() && now != self.seen;
        if changed {
            self.seen = now;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_file_changes_once() {
        let path = std::env::temp_dir().join(format!("conduitfw-watch-{}", std::process::id()));
        fs::write(&path, "a").unwrap();
        let mut watched = WatchedFile::new(&path);
        assert!(!watched.changed());
        fs::write(&path, "ab").unwrap();
        assert!(watched.changed());
        assert!(!watched.changed());
        fs::remove_file(&path).unwrap();
        assert!(!watched.changed());
        fs::write(&path, "abc").unwrap();
        assert!(watched.changed());
        fs::remove_file(&path).unwrap();
    }
}
