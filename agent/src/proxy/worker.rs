//! One thread of the engine. Everything in it belongs to this thread; it hears of the world through the snapshot
//! and a few commands, and tells of itself through numbers that it alone writes.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{
    accepting,
    context::Worker,
    guards::Registry,
    local_pod::{EnrolledPod, LocalPods},
    local_ports::LocalPorts,
    trim::Trim,
    view::View,
};
use crate::{
    accept::{Ability, Acceptor},
    drain,
    model::{Demand, Ending, EnrolmentId, Origins},
    record::{Direction, Hub, Recorder, Source, Writer},
    share::Turns,
    snapshot::Snapshot,
    transport::Limits,
};

/// How often a worker shows progress and hands its access lines on.
const TICK: Duration = Duration::from_millis(100);
/// How often idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How often series of pods and services that have gone are forgotten: late enough for a last scrape.
const FORGET: Duration = Duration::from_secs(120);
/// How often discovery is told what is in use; what it watches for that it keeps for minutes.
const USED: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a worker is given at its start.
pub struct Setup {
    pub index: usize,
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    pub registry: Registry,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub origins: Box<dyn Origins + Send>,
    pub hub: Hub,
    pub writer: Writer,
    pub progress: Progress,
    pub drain: drain::Watch,
    /// What is still in flight is to be cut off.
    pub cut: drain::Watch,
    pub demand: Arc<dyn Demand>,
    /// How long a request waits to learn who answers for its service.
    pub endpoints_wait: Duration,
    /// How long what is in flight of a withdrawn pod may take.
    pub drain_timeout: Duration,
    /// How many workers there are.
    pub workers: usize,
    /// Gives memory that this thread does not use back to the system.
    pub give_memory_back: fn(),
    /// Of accepted connections.
    pub limits: Limits,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// What changes at a worker beside the snapshot. Few enough (pods of a node) that the queue needs no bound.
#[derive(Debug)]
pub enum Command {
    Enrol(EnrolledPod),
    /// The pod's own addresses are these now.
    Addresses(EnrolmentId, Arc<[IpAddr]>),
    /// The pod is being deleted.
    Ending(EnrolmentId),
    Withdraw(EnrolmentId, Ending),
}

/// When a worker last did anything: milliseconds since the process's clock began.
#[derive(Clone, Debug)]
pub struct Progress {
    since: Instant,
    millis: Arc<AtomicU64>,
    /// The kernel's number of the thread; 0 until it runs.
    task: Arc<AtomicU32>,
    ability: Ability,
}

impl Progress {
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            millis: Arc::default(),
            task: Arc::default(),
            ability: Ability::new(now),
        }
    }

    /// For how long the worker has not been able to accept connections.
    pub fn cannot_accept_for(&self, now: Instant) -> Option<Duration> {
        self.ability.lost_for(now)
    }

    /// The kernel's number of the worker's thread, once that runs.
    pub fn task(&self) -> Option<u32> {
        Some(self.task.load(Relaxed)).filter(|task| *task != 0)
    }

    /// The worker runs on this thread, which has this number.
    pub fn runs_as(&self, task: u32) {
        self.task.store(task, Relaxed);
    }

    fn made(&self) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Relaxed);
    }

    /// How long ago.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since + Duration::from_millis(self.millis.load(Relaxed)))
    }
}

/// Runs on the current thread, inside a `LocalSet`, until the drain has begun; connections in hand go on as tasks
/// of the set.
pub async fn run(setup: Setup) {
    let Setup {
        snapshot,
        registry,
        mut commands,
        origins,
        hub,
        writer,
        progress,
        drain,
        cut,
        demand,
        endpoints_wait,
        drain_timeout,
        workers,
        give_memory_back,
        limits,
        ..
    } = setup;
    let turns = Turns::begin();
    tokio::task::spawn_local(turns.clone().run());
    let recorder = Recorder::new(&hub, &writer);
    let worker = Rc::new(Worker {
        view: View::new(snapshot, registry),
        local_ports: LocalPorts::default(),
        pods: LocalPods::default(),
        acceptor: Acceptor::new(progress.ability.clone(), limits.dead_peer, recorder.clone()),
        recorder,
        origins,
        rng: RefCell::new(fastrand::Rng::new()),
        _drain: drain.guard(),
        demand,
        endpoints_wait,
        workers: workers.max(1) as u64,
        limits,
        connections: Cell::new(0),
    });
    tokio::task::spawn_local(tick(
        Rc::downgrade(&worker),
        turns.clone(),
        progress,
        give_memory_back,
    ));

    tokio::task::spawn_local(cut_off(Rc::downgrade(&worker), cut));

    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = drain.signaled() => None,
        };
        match command {
            Some(Command::Enrol(enrolled)) => {
                let name = enrolled.pod.name.clone();
                if let Err(error) = accepting::enrol(&worker, enrolled) {
                    tracing::error!(pod = %name, %error, "listeners not registered");
                }
            }
            Some(Command::Addresses(id, addresses)) => {
                if let Some(pod) = worker.pods.get(id) {
                    pod.addresses.set(&addresses);
                    worker.local_ports.withdraw(id);
                    worker.local_ports.enrol(id, &addresses, pod.ports());
                }
            }
            Some(Command::Ending(id)) => worker.pods.drain_inbound(id),
            Some(Command::Withdraw(id, ending)) => {
                worker.local_ports.withdraw(id);
                worker.pods.withdraw(id, ending, drain_timeout);
            }
            None => break,
        }
    }
    // What the kernel redirected before it was told is in the backlogs. After that nobody listens, and the worker
    // ends with its last connection.
    worker.pods.drain().await;
    turns.end();
}

/// Ends what has not been finished when the drain's time is over, so that each connection is reset and has its line. The
/// process waits for that as long as it waits for `cut`.
async fn cut_off(worker: std::rc::Weak<Worker>, cut: drain::Watch) {
    cut.signaled().await;
    if let Some(worker) = worker.upgrade() {
        worker.pods.end();
    }
    // Tasks end in their turn, and the last of them lets go of the worker.
    while worker.strong_count() > 0 {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Shows that the thread is alive, hands access lines on and closes what is idle.
async fn tick(worker: std::rc::Weak<Worker>, turns: Rc<Turns>, progress: Progress, give_memory_back: fn()) {
    let mut trim = Trim::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    let mut forgot = swept;
    let mut told = swept;
    loop {
        let now = ticks.tick().await;
        progress.made();
        let Some(worker) = worker.upgrade() else { return };
        turns.for_itself(|| {
            worker.recorder.tick();
            // An old snapshot holds pods that have gone, and their network namespaces.
            worker.view.follow(&mut worker.rng.borrow_mut());
            worker.acceptor.try_again();
            if now.duration_since(swept) >= SWEEP {
                swept = now;
                worker.pods.sweep(now);
                turns.settle();
            }
            if now.duration_since(told) >= USED {
                told = now;
                worker.demand.used(worker.view.take_used());
            }
            if now.duration_since(forgot) >= FORGET {
                forgot = now;
                forget_series(&worker);
            }
        });
        if trim.is_due(turns.bill()) {
            turns.for_itself(give_memory_back);
        }
    }
}

/// Series of callers and services that the snapshot no longer has are not shown any more.
fn forget_series(worker: &Worker) {
    worker.view.follow(&mut worker.rng.borrow_mut());
    let snapshot = worker.view.snapshot();
    let workloads: HashSet<(&str, &str)> = snapshot
        .pods
        .values()
        .map(|pod| (&*pod.name.namespace, &*pod.workload))
        .collect();
    let is_there = |source: &Source| workloads.contains(&(&*source.namespace, &*source.workload));
    worker.view.forget(is_there);
    worker.recorder.counters.retain(|key| {
        let service = &key.destination.service;
        match key.direction {
            Direction::Outbound => {
                let known = key.is_overflow() || snapshot.ports.contains_key(&key.destination);
                known && is_there(&key.source)
            }
            Direction::Inbound => workloads.contains(&(&*service.namespace, &*service.name)),
        }
    });
}
