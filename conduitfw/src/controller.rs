//! What the controller does, without the loop that makes it do it.

use std::{
    fmt::Write as _,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use conduitfw_common::event::EventRecord;
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use crate::{
    changes::{Changes, Digest},
    control::protocol::PolicyText,
    dataplane::{
        self, AttachMode, DataPlane, DataPlaneError, InterfaceChange, TableSizes, mtu::may_be_lost,
    },
    events::{EventSink, PolicyInForce, WallClock},
    gateway::{gateway_addresses, routable},
    instance::Instance,
    memory,
    naming::{NameHistory, NameTable, pin_names},
    policy::{
        self, Compiled, CompiledTables, Diagnostic, Ids, Loaded, Mode, Policy, PolicyNames,
        Refusal, Surroundings,
    },
    requester::Requester,
    state::{InForce, sha256, tables_id},
    status::{ControllerStatus, FileNow, Status},
};

/// How `conduitfw run` was started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The instance.
    pub instance: Instance,
    /// The policy file.
    pub policy_file: PathBuf,
    /// Where to attach.
    pub mode: AttachMode,
    /// Whether to follow changes of the policy file.
    pub watch: bool,
    /// The group that may use the control socket.
    pub socket_group: Option<String>,
    /// Whether tables that do not fit are replaced.
    pub change_over: bool,
}

/// Why a policy did not come into force.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The policy is wrong.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The policy does not fit the data plane that is loaded.
    #[error("{0}")]
    DoesNotFit(DataPlaneError),
    /// The machine or the kernel is in the way.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
}

/// Why a controller cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The policy did not come into force.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The data plane cannot be loaded.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// Another controller of this instance runs.
    #[error(
        "another controller of instance `{0}` runs already: use `conduitfw reload` to change its \
         policy, or stop it first"
    )]
    AlreadyRunning(String),
    /// A file or directory cannot be used.
    #[error("{action} {}: {source}{}", path.display(), remedy(source))]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What to do about a file that cannot be used.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run conduitfw as root",
        io::ErrorKind::StorageFull => ": free some space on that file system",
        io::ErrorKind::ReadOnlyFilesystem => ": make that file system writable",
        _ => "",
    }
}

/// A policy that came into force.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its generation.
    pub generation: u32,
    /// What it changed; nothing at a start.
    pub changes: Option<Changes>,
    /// Remarks on it.
    pub notes: Vec<Diagnostic>,
}

impl Applied {
    /// For people: changes, remarks, and the generation.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = self
            .changes
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        for note in &self.notes {
            text.push_str(&note.to_string());
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "generation {} is in force", self.generation);
        text
    }

    /// For machines.
    #[must_use]
    pub fn to_json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Json<'a> {
            ok: bool,
            generation: u32,
            changes: &'a Option<Changes>,
            notes: Vec<serde_json::Value>,
        }
        Json {
            ok: true,
            generation: self.generation,
            changes: &self.changes,
            notes: self.notes.iter().map(Diagnostic::to_json).collect(),
        }
    }
}

/// What is kept of the policy in force: not the policy itself, which is many times as large.
struct Kept {
    file: String,
    text: Arc<str>,
    digest: Digest,
    /// The gateway's addresses, when the policy gives them.
    given_addresses: Option<Vec<IpAddr>>,
    /// Those that it was laid out with.
    gateway: Vec<IpAddr>,
    /// Who had its text put in force.
    by: String,
}

impl Kept {
    fn of(policy: &Policy, digest: Digest, gateway: Vec<IpAddr>, by: &Requester) -> Self {
        Self {
            file: policy.file_name().to_owned(),
            text: Arc::clone(policy.text()),
            digest,
            given_addresses: policy.gateway_addresses.clone(),
            gateway,
            by: by.to_string(),
        }
    }
}

/// A running controller.
pub struct Controller {
    options: Options,
    plane: DataPlane,
    ids: Ids,
    names: NameHistory,
    in_force: Kept,
    /// The same, as it is remembered beside the pins.
    remembered: Option<InForce>,
    started: Timestamp,
    /// Whether much memory was used and may be given back.
    untidy: bool,
    /// The last policy that was put in force, and its tables: to be let go of once its operator has his
    /// answer, for that takes milliseconds.
    done_with: Option<(Policy, CompiledTables)>,
    /// Where events go.
    pub sink: EventSink,
}

impl Controller {
    /// Loads the data plane and puts the policy in force; on failure nothing is left behind that
    /// was not there before, and what was in force before still is.
    ///
    /// # Errors
    ///
    /// The policy is refused, or the machine is in the way.
    pub fn start(options: Options, loaded: Loaded) -> Result<(Self, Applied), StartError> {
        let plane = DataPlane::open(
            &options.instance,
            sizes_of(&loaded.policy),
            loaded.policy.adopt,
            options.mode,
            options.change_over,
        )?;
        let changes_over = plane.changes_over();
        let Loaded { policy, notes } = loaded;
        let mut controller = Self {
            options,
            plane,
            ids: Ids::default(),
            names: NameHistory::default(),
            in_force: Kept::of(&policy, Digest::of(&policy), Vec::new(), &Requester::Start),
            remembered: None,
            started: Timestamp::now(),
            untidy: true,
            done_with: None,
            sink: EventSink::default(),
        };
        match controller.begin(&policy) {
            Ok(generation) => {
                if changes_over {
                    tracing::info!("new tables are in the place of the earlier ones");
                }
                let applied = Applied {
                    generation,
                    changes: None,
                    notes,
                };
                Ok((controller, applied))
            }
            Err(error) => {
                controller.plane.abandon();
                Err(error.into())
            }
        }
    }

    fn begin(&mut self, policy: &Policy) -> Result<u32, ApplyError> {
        self.remember_earlier()?;
        let surroundings = self.surroundings(policy)?;
        let mut ids = self.ids.clone();
        let tables = policy::compile(policy, &mut ids, &surroundings)?;
        let gateway = surroundings.gateway_addresses;
        let generation =
            self.put_in_force(policy, &tables, ids, &gateway, self.in_force.by.clone())?;
        self.in_force.gateway = gateway;
        Ok(generation)
    }

    /// Whether the data plane of an earlier controller goes on.
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.plane.took_over()
    }

    /// How it was started.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Directory of the pins.
    #[must_use]
    pub fn pins(&self) -> &Path {
        self.plane.pins().directory()
    }

    /// Reads a policy, by its text or from the controller's own file, and puts it in force.
    ///
    /// # Errors
    ///
    /// The policy in force stays.
    pub fn reload(
        &mut self,
        given: Option<PolicyText>,
        by: &Requester,
    ) -> Result<Applied, ApplyError> {
        let own_file = || self.options.policy_file.display().to_string();
        let PolicyText { file, text } = match given {
            Some(given) => given,
            None => PolicyText {
                file: own_file(),
                text: policy::read_text(&self.options.policy_file)?,
            },
        };
        self.untidy = true;
        let (compiled, gateway) = self.compile(&file, &text)?;
        let Compiled {
            loaded: Loaded { policy, notes },
            tables,
            ids,
        } = compiled;
        self.plane
            .check_sizes(sizes_of(&policy))
            .map_err(ApplyError::DoesNotFit)?;
        // The kernel needs no digest: it is made beside.
        let (generation, digest) = thread::scope(|scope| {
            let digest = thread::Builder::new().spawn_scoped(scope, || Digest::of(&policy));
            let generation = self.put_in_force(&policy, &tables, ids, &gateway, by.to_string());
            let digest = digest.ok().and_then(|digest| digest.join().ok());
            (generation, digest.unwrap_or_else(|| Digest::of(&policy)))
        });
        let generation = generation?;
        let changes = Changes::between(&self.in_force.digest, &digest);
        self.in_force = Kept::of(&policy, digest, gateway, by);
        self.done_with = Some((policy, tables));
        Ok(Applied {
            generation,
            changes: Some(changes),
            notes,
        })
    }

    /// Lays a policy out for this machine as it is now; returns the gateway's addresses as well.
    fn compile(&self, file: &str, text: &str) -> Result<(Compiled, Vec<IpAddr>), ApplyError> {
        let draft = policy::draft(file, text)?;
        let surroundings = self.surroundings(draft.policy())?;
        let compiled = draft.compile(&self.ids, &surroundings)?;
        Ok((compiled, surroundings.gateway_addresses))
    }

    fn surroundings(&self, policy: &Policy) -> Result<Surroundings, ApplyError> {
        Ok(Surroundings {
            ticks_per_second: self.plane.ticks_per_second(),
            gateway_addresses: gateway_addresses(policy.gateway_addresses.as_deref()),
            generation: self.plane.next_generation()?,
        })
    }

    /// What is in force and what it did. `file` is what the controller's own policy file holds by now; nothing when
    /// it cannot be read.
    ///
    /// # Errors
    ///
    /// The maps cannot be read.
    pub fn status(&self, file: Option<&str>) -> Result<Status, DataPlaneError> {
        let (events_delivered, events_missed) = self.sink.delivered_and_lost();
        let controller = ControllerStatus {
            pid: std::process::id(),
            policy_file: self.options.policy_file.display().to_string(),
            file_now: match file {
                Some(text) if *text == *self.in_force.text => FileNow::InForce,
                Some(_) => FileNow::Another,
                None => FileNow::Unreadable,
            },
            watch: self.options.watch,
            started: self.started,
            events_delivered,
            events_missed,
            flows_adopted: self.sink.flows_adopted(),
        };
        Ok(Status::read(
            &self.options.instance,
            self.plane.maps(),
            Some(controller),
            self.remembered.clone(),
        )?)
    }

    /// What tells the tables from any others.
    fn tables(&self) -> Option<String> {
        let settings = self.plane.maps().settings.get(&0, 0).ok()?;
        Some(tables_id(&settings.0))
    }

    /// Takes the program off every interface and removes every pin.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed.
    pub fn detach(&self) -> Result<Vec<String>, DataPlaneError> {
        dataplane::detach(&self.options.instance)
    }

    /// Takes one record of the rings.
    pub fn take_event(&mut self, record: EventRecord, clock: WallClock) {
        self.sink.take(record, clock, &mut self.names);
    }

    /// Learns the names of interfaces anew, for the events to come.
    pub fn forget_interface_names(&mut self) {
        self.names.forget_interfaces();
    }

    /// Gives memory back that reading a policy took.
    pub fn tidy(&mut self) {
        if std::mem::take(&mut self.untidy) {
            self.done_with = None;
            memory::give_back();
        }
    }

    /// Puts the policy in force anew when the machine's own addresses have changed, unless the
    /// policy names them.
    pub fn follow_addresses(&mut self) {
        if self.in_force.given_addresses.is_some() {
            return;
        }
        let now = gateway_addresses(None);
        if routable(&now).eq(routable(&self.in_force.gateway)) {
            return;
        }
        self.untidy = true;
        let outcome = self
            .compile(&self.in_force.file, &self.in_force.text)
            .and_then(|(compiled, gateway)| {
                let policy = &compiled.loaded.policy;
                let by = format!("{}; anew for the machine's new addresses", self.in_force.by);
                self.put_in_force(policy, &compiled.tables, compiled.ids, &gateway, by)?;
                self.in_force.gateway = gateway;
                Ok(())
            });
        if let Err(error) = outcome {
            // Not again until they change again.
            self.in_force.gateway = now;
            tracing::error!("the machine's addresses changed, the policy knows the old: {error}");
        }
    }

    /// Guards interfaces of the policy that came since the last call.
    pub fn follow_interfaces(&mut self) {
        for change in self.plane.follow_interfaces() {
            match change {
                InterfaceChange::Guarded(name) => {
                    tracing::info!(interface = name, "came back and is guarded");
                }
                InterfaceChange::Gone(name) => {
                    tracing::warn!(
                        interface = name,
                        "is gone; it is guarded again when it comes"
                    );
                }
                InterfaceChange::TooLarge(name, mtu) => {
                    tracing::warn!(interface = name, "{}", may_be_lost(mtu));
                }
                InterfaceChange::Fits(name, mtu) => {
                    tracing::info!(interface = name, "its MTU is {mtu}: every frame fits again");
                }
                InterfaceChange::Unguarded(name, reason) => {
                    tracing::error!(interface = name, "came and cannot be guarded: {reason}");
                }
            }
        }
    }

    /// Names, ids and the policy that an earlier controller left.
    fn remember_earlier(&mut self) -> Result<(), ApplyError> {
        if !self.plane.took_over() {
            return Ok(());
        }
        let maps = self.plane.maps();
        self.ids = NameTable::read(maps)
            .map_err(DataPlaneError::from)?
            .to_ids();
        self.names.learn_conduits(&self.ids);
        let generation = maps.in_force().map_err(DataPlaneError::from)?.1.number;
        let instance = &self.options.instance;
        if let Some(earlier) = InForce::load(instance, generation, self.tables().as_deref())
            && let Some(text) = earlier.text(instance)
            && let Ok(loaded) = policy::load_text(&earlier.policy_file, &text)
        {
            let gateway = gateway_addresses(loaded.policy.gateway_addresses.as_deref());
            let names = PolicyNames::of(&loaded.policy, &gateway);
            self.names.push(generation, names, &self.ids);
        }
        Ok(())
    }

    fn put_in_force(
        &mut self,
        policy: &Policy,
        tables: &CompiledTables,
        ids: Ids,
        gateway: &[IpAddr],
        by: String,
    ) -> Result<u32, ApplyError> {
        pin_names(&ids, &self.ids, self.plane.maps_mut()).map_err(|source| {
            DataPlaneError::Write {
                what: "names of conduits and rules",
                source,
            }
        })?;
        // Pinned names stay even if the policy does not come into force: so do their ids.
        self.ids = ids;
        self.plane.put_in_force(tables)?;

        let generation = tables.generation.number;
        let in_force = InForce {
            generation,
            since: Timestamp::now(),
            policy_file: policy.file_name().to_owned(),
            site: policy.site.name.clone(),
            sha256: Some(sha256(policy.text().as_bytes())),
            by: Some(by),
            tables: self.tables(),
        };
        if let Err(error) = in_force.save(&self.options.instance, policy.text()) {
            let directory = self.options.instance.state();
            tracing::warn!(
                ?directory,
                "the policy in force cannot be remembered: {error}"
            );
        }
        in_force.log();
        self.remembered = Some(in_force.clone());
        let names = PolicyNames::of(policy, gateway);
        if let Some(forgotten) = self.names.push(generation, names, &self.ids) {
            self.sink.forget_names(forgotten);
        }
        self.sink.policy_in_force(PolicyInForce {
            time: in_force.since,
            event: "policy",
            generation,
            policy_file: in_force.policy_file,
            sha256: in_force.sha256,
            by: in_force.by,
            mode: if policy.mode == Mode::Observe {
                "observe"
            } else {
                "enforce"
            }
            .to_owned(),
        });
        Ok(generation)
    }
}

fn sizes_of(policy: &Policy) -> TableSizes {
    TableSizes {
        flows: policy.limits.flows,
        opening_flows: policy.limits.opening_flows,
        inspected_flows: policy.limits.inspected_flows,
    }
}
