//! [`Cluster`]: the processes that run, and the disks that stay.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinator::Deps;
use coordinator::sim::Node;
use shared::config::CoordinatorConfig;
use shared::ids::{PublishId, Seeded, StreamKey, TemplateId, WorkerId};
use shared::rule::{Rule, RuleKey};
use shared::store::{MetaStore as _, Model, StoreError, Txn, keys};
use shared::telemetry::Metrics;
use shared::template::{Format, FormatSettings, Template, TemplateSpec};
use shared::time::{Clock as _, Steady};
use tokio::sync::mpsc;
use tokio::time::Instant;
use worker::sim::{Running, Setup, SharedDisk};

use crate::bucket::{Bucket, Stored};
use crate::checks::Checks;
use crate::line::{Doors, Wire};
use crate::process::Process;
use crate::sabotage::Earlier;
use crate::store::Reached;
use crate::world::{MachineClock, Place, World, lock};

pub(crate) const COORDINATORS: usize = 2;
pub(crate) const WORKERS: usize = 3;
/// Silence after which a worker is lost; so long a task that is over waits for what workers know.
pub(crate) const WORKER_TIMEOUT: Duration = Duration::from_secs(4);
/// Silence after which a worker's streams are offline.
pub(crate) const OFFLINE: Duration = Duration::from_secs(15);
/// A worker's clock that jumps so soon after its start is followed.
const WATCHED: Duration = Duration::from_secs(10);
/// How long stitched recordings wait for their streams.
pub(crate) const CONTINUE_S: u32 = 12;

/// How this run's cluster is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Workers read each other's objects.
    pub(crate) shared_storage: bool,
    /// Absence after which a worker's recordings are given up.
    pub(crate) lost_timeout: Duration,
    /// How much of a live publish is kept for recordings to come.
    pub(crate) preroll: Duration,
}

/// A worker's machine.
pub(crate) struct Machine {
    pub(crate) id: WorkerId,
    pub(crate) disk: SharedDisk,
    pub(crate) stored: Arc<Stored>,
    pub(crate) clock: Arc<MachineClock>,
    /// What the process believes of it.
    believed: Arc<Steady>,
    started: Instant,
    pub(crate) process: Option<Process<Running>>,
    /// Who publishes what here.
    pub(crate) live: Rc<RefCell<BTreeMap<StreamKey, PublishId>>>,
    /// Publishers that are to be disconnected.
    hang_up: mpsc::UnboundedSender<(PublishId, String)>,
    hung_up: mpsc::UnboundedReceiver<(PublishId, String)>,
}

impl Machine {
    /// True if the worker has read its disk and takes publishers: the one comes before the other.
    pub(crate) fn runs(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.is_made() && !process.is_stopped())
    }

    /// True if the worker has ended this publisher's connection.
    pub(crate) fn is_hung_up(&mut self, publish: PublishId) -> bool {
        while let Ok((dropped, _)) = self.hung_up.try_recv() {
            self.live.borrow_mut().retain(|_, live| *live != dropped);
        }
        !self.live.borrow().values().any(|live| *live == publish)
    }
}

pub(crate) struct Cluster {
    pub(crate) world: Arc<World>,
    pub(crate) model: Arc<Model>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) ids: Arc<Seeded>,
    pub(crate) doors: Doors,
    pub(crate) shape: Shape,
    pub(crate) coordinators: RefCell<Vec<Option<Process<Node>>>>,
    pub(crate) clocks: Vec<Arc<MachineClock>>,
    pub(crate) machines: RefCell<Vec<Machine>>,
}

impl Cluster {
    pub(crate) fn new(world: &Arc<World>, seed: u64, shape: Shape) -> Rc<Self> {
        let ids = Arc::new(Seeded::new(seed));
        let model = Arc::new(Model::new(MachineClock::new(world)));
        let common = Arc::new(Stored::default());
        let machines: Vec<Machine> = (0..WORKERS)
            .map(|_| {
                let (hang_up, hung_up) = mpsc::unbounded_channel();
                let clock = MachineClock::new(world);
                Machine {
                    id: WorkerId::generate(ids.as_ref(), world.now()),
                    disk: SharedDisk::default(),
                    stored: match shape.shared_storage {
                        true => Arc::clone(&common),
                        false => Arc::default(),
                    },
                    believed: Steady::over(Arc::<MachineClock>::clone(&clock)),
                    started: Instant::now(),
                    clock,
                    process: None,
                    live: Rc::default(),
                    hang_up,
                    hung_up,
                }
            })
            .collect();
        let stored = machines
            .iter()
            .map(|machine| (machine.id, Arc::clone(&machine.stored)))
            .collect();
        Rc::new(Cluster {
            world: Arc::clone(world),
            model,
            checks: Checks::new(world, stored),
            ids,
            doors: Arc::new(Mutex::new(vec![None; COORDINATORS])),
            shape,
            coordinators: RefCell::new((0..COORDINATORS).map(|_| None).collect()),
            clocks: (0..COORDINATORS).map(|_| MachineClock::new(world)).collect(),
            machines: RefCell::new(machines),
        })
    }

    /// What an operator has set up: one domain is recorded in files, one is stitched.
    pub(crate) async fn furnish(&self) -> Result<(), StoreError> {
        let now = self.world.now();
        let mut txn = Txn::new();
        let of = |format, settings| (format, settings);
        let files = FormatSettings {
            record_interval_s: 30,
            ..FormatSettings::default()
        };
        let list = FormatSettings {
            flow_continue_s: CONTINUE_S,
            ..FormatSettings::default()
        };
        let all = [
            ("files", vec![of(Format::Flv, files.clone())]),
            ("lists", vec![of(Format::Hls, list), of(Format::Flv, files)]),
        ];
        for (name, formats) in all {
            let template = Template {
                id: TemplateId::generate(self.ids.as_ref(), now),
                spec: TemplateSpec {
                    name: name.to_owned(),
                    description: String::new(),
                    formats: formats.into_iter().collect(),
                    place: String::new(),
                },
                created: now,
                updated: now,
            };
            let key = RuleKey::new(name, "", "").map_err(|error| StoreError::Invalid(error.to_string()))?;
            let rule = Rule {
                key,
                template: template.id,
                created: now,
            };
            txn = txn
                .put_json(keys::template(template.id), &template)?
                .put_json(keys::rule(&rule.key), &rule)?;
        }
        shared::store::ensure_layout(self.model.as_ref()).await?;
        self.model.commit(txn).await.map(drop)
    }

    pub(crate) fn start_coordinator(&self, n: usize) {
        self.world.say(format_args!("start c{n}"));
        // Time servers come first: what a clock says when its coordinator starts is believed.
        self.jump(Place::Coordinator(n), 0);
        let config = CoordinatorConfig {
            name: Some(format!("c{n}")),
            advertise: Some(format!("http://c{n}")),
            leader_ttl: Duration::from_secs(2),
            heartbeat: Duration::from_secs(1),
            worker_timeout: WORKER_TIMEOUT,
            offline_timeout: OFFLINE,
            lost_timeout: self.shape.lost_timeout,
            ..CoordinatorConfig::default()
        };
        let store = Arc::new(Reached {
            world: Arc::clone(&self.world),
            model: Arc::clone(&self.model),
            checks: Arc::clone(&self.checks),
            from: Place::Coordinator(n),
            earlier: Earlier::default(),
        });
        let Some(clock) = self.clocks.get(n).cloned() else {
            return;
        };
        let deps = Deps {
            clock,
            ids: Arc::<Seeded>::clone(&self.ids),
            metrics: Metrics::new(),
        };
        let world = Arc::clone(&self.world);
        let process = Process::start(move || match Node::start(config, store, deps) {
            Ok(node) => node,
            Err(error) => {
                world.broke(format_args!("a coordinator does not start: {error}"));
                panic!("a coordinator does not start: {error}");
            }
        });
        if let Some(door) = lock(&self.doors).get_mut(n) {
            *door = Some(process.calls());
        }
        if let Some(place) = self.coordinators.borrow_mut().get_mut(n) {
            *place = Some(process);
        }
    }

    pub(crate) fn kill_coordinator(&self, n: usize) {
        self.world.say(format_args!("kill c{n}"));
        if let Some(door) = lock(&self.doors).get_mut(n) {
            *door = None;
        }
        let killed = self.coordinators.borrow_mut().get_mut(n).and_then(Option::take);
        drop(killed);
        self.world.set_stopped(Place::Coordinator(n), false);
    }

    pub(crate) fn stop_coordinator(&self, n: usize, stopped: bool) {
        self.world
            .say(format_args!("{} c{n}", if stopped { "stop" } else { "continue" }));
        self.world.set_stopped(Place::Coordinator(n), stopped);
        if let Some(Some(process)) = self.coordinators.borrow().get(n) {
            process.stop(stopped);
        }
    }

    pub(crate) fn start_worker(&self, n: usize) {
        self.world.say(format_args!("start w{n}"));
        let mut machines = self.machines.borrow_mut();
        let Some(machine) = machines.get_mut(n) else { return };
        let hang_up = machine.hang_up.clone();
        let world = Arc::clone(&self.world);
        (machine.believed, machine.started) =
            (Steady::over(Arc::<MachineClock>::clone(&machine.clock)), Instant::now());
        if machine.clock.is_wrong() {
            world.mislead();
        }
        let setup = Setup {
            worker: machine.id,
            name: format!("w{n}"),
            storage: if self.shape.shared_storage {
                "s3://sim".to_owned()
            } else {
                String::new()
            },
            disk: Arc::clone(&machine.disk),
            bucket: Arc::new(Bucket {
                world: Arc::clone(&self.world),
                stored: Arc::clone(&machine.stored),
                from: Place::Worker(n),
            }),
            line: Arc::new(Wire {
                world: Arc::clone(&self.world),
                doors: Arc::clone(&self.doors),
                checks: Arc::clone(&self.checks),
                from: Place::Worker(n),
                current: AtomicUsize::new(0),
                session: AtomicUsize::new(0),
            }),
            clock: Arc::<Steady>::clone(&machine.believed),
            preroll: self.shape.preroll,
            hang_up: Box::new(move |publish, reason| {
                world.say(format_args!("w{n} hangs up {publish}: {reason}"));
                drop(hang_up.send((publish, reason)));
            }),
        };
        machine.process = Some(Process::start(move || Running::start(setup)));
    }

    pub(crate) fn kill_worker(&self, n: usize) {
        self.world.say(format_args!("kill w{n}"));
        let mut machines = self.machines.borrow_mut();
        let Some(machine) = machines.get_mut(n) else { return };
        machine.live.borrow_mut().clear();
        let killed = machine.process.take();
        drop(machines);
        drop(killed);
        self.world.set_stopped(Place::Worker(n), false);
    }

    pub(crate) fn stop_worker(&self, n: usize, stopped: bool) {
        self.world
            .say(format_args!("{} w{n}", if stopped { "stop" } else { "continue" }));
        self.world.set_stopped(Place::Worker(n), stopped);
        if let Some(process) = self
            .machines
            .borrow()
            .get(n)
            .and_then(|machine| machine.process.as_ref())
        {
            process.stop(stopped);
        }
    }

    /// Jumps a machine's time of day.
    pub(crate) fn jump(&self, place: Place, ahead_ms: i64) {
        self.world
            .say(format_args!("the clock of {place} is {ahead_ms} ms ahead"));
        match place {
            Place::Coordinator(n) => {
                if let Some(clock) = self.clocks.get(n) {
                    clock.jump_to(ahead_ms);
                }
            }
            Place::Worker(n) => {
                if let Some(machine) = self.machines.borrow().get(n) {
                    machine.clock.jump_to(ahead_ms);
                    if ahead_ms != 0 && machine.started.elapsed() < WATCHED {
                        self.world.mislead();
                    }
                }
            }
            Place::Store | Place::Bucket => {}
        }
    }

    pub(crate) fn wall_of_machine(&self, machine: &Machine) -> i64 {
        machine.believed.now().as_millis()
    }

    pub(crate) fn wall_of(&self, worker: usize) -> i64 {
        let machines = self.machines.borrow();
        machines.get(worker).map_or(0, |machine| self.wall_of_machine(machine))
    }
}
