//! One thread of the engine. Everything in it belongs to this thread; it hears of the world through the snapshot
//! and a few commands, and tells of itself through numbers that it alone writes.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{
    connection, guards::Registry, local_ports::LocalPorts, own_addresses::OwnAddresses, trim::Trim,
    view::View,
};
use crate::{
    accept::{Ability, Acceptor},
    drain,
    model::{Demand, Origins, Pod, Slot},
    pool::{Pools, Sockets},
    record::{Direction, Hub, Recorder, ScopeKey, Source, Writer},
    retry::AttemptBody,
    share::{Account, Holding, Local, Peers, Share, Task, Turns},
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
/// How long a withdrawn pod's listeners, and those of an agent that ends, go on accepting: connections that the
/// kernel redirected before it was told are in their backlog.
const LINGER: Duration = Duration::from_secs(1);

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
    pub demand: Arc<dyn Demand>,
    /// How long a request waits to learn who answers for its service.
    pub endpoints_wait: Duration,
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
    Addresses(Slot, Arc<[IpAddr]>),
    Withdraw(Slot),
}

/// A pod whose connections the kernel redirects, with this worker's listeners in it.
#[derive(Debug)]
pub struct EnrolledPod {
    pub slot: Slot,
    pub pod: Arc<Pod>,
    pub addresses: Vec<IpAddr>,
    pub sockets: Arc<dyn Sockets + Send + Sync>,
    /// Who pays for it.
    pub account: Arc<Account>,
    pub outbound: Vec<std::net::TcpListener>,
    pub inbound: Vec<std::net::TcpListener>,
}

/// When a worker last did anything: milliseconds since the process's clock began.
#[derive(Clone, Debug)]
pub struct Progress {
    since: Instant,
    millis: Arc<AtomicU64>,
    ability: Ability,
}

impl Progress {
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            millis: Arc::default(),
            ability: Ability::new(now),
        }
    }

    /// For how long the worker has not been able to accept connections.
    pub fn cannot_accept_for(&self, now: Instant) -> Option<Duration> {
        self.ability.lost_for(now)
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

/// A pod as this worker knows it.
#[derive(Debug)]
pub(super) struct LocalPod {
    pub(super) slot: Slot,
    pub(super) pod: Arc<Pod>,
    pub(super) addresses: OwnAddresses,
    pub(super) sockets: Rc<dyn Sockets>,
    pub(super) share: Rc<Local>,
    /// Who calls its inbound ports.
    pub(super) peers: Rc<Peers>,
    /// Combinations of labels that its connections are counted under.
    pub(super) series: RefCell<HashMap<ScopeKey, Holding>>,
}

impl LocalPod {
    /// `key`, or the common one of all that are more than the pod may have.
    pub(super) fn series(&self, key: ScopeKey) -> ScopeKey {
        let mut series = self.series.borrow_mut();
        if series.contains_key(&key) {
            return key;
        }
        match self.share.take(Share::Series, 1) {
            Some(paid) => drop(series.insert(key.clone(), paid)),
            None => return ScopeKey::other(key.direction),
        }
        key
    }
}

pub(super) struct Worker {
    pub(super) view: View,
    pub(super) local_ports: LocalPorts,
    pub(super) pools: Pools<AttemptBody>,
    pub(super) recorder: Rc<Recorder>,
    pub(super) acceptor: Acceptor,
    pub(super) origins: Box<dyn Origins>,
    pub(super) rng: RefCell<fastrand::Rng>,
    pub(super) drain: drain::Watch,
    pub(super) demand: Arc<dyn Demand>,
    pub(super) endpoints_wait: Duration,
    /// How many workers there are: each has its part of what a pod may hold.
    pub(super) workers: u64,
    pub(super) limits: Limits,
    /// Connections accepted so far.
    pub(super) connections: Cell<u64>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    /// The number of a connection, which no other of this worker has.
    pub(super) fn next_connection(&self) -> u64 {
        let number = self.connections.get();
        self.connections.set(number + 1);
        number
    }

    /// Series of callers and services that the snapshot no longer has are not shown any more.
    fn forget_series(&self) {
        self.view.follow(&mut self.rng.borrow_mut());
        let snapshot = self.view.snapshot();
        let workloads: HashSet<(&str, &str)> = snapshot
            .pods
            .values()
            .map(|pod| (&*pod.name.namespace, &*pod.workload))
            .collect();
        let is_there = |source: &Source| workloads.contains(&(&*source.namespace, &*source.workload));
        self.view.forget(is_there);
        self.recorder.counters.retain(|key| {
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
        demand,
        endpoints_wait,
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
        pools: Pools::default(),
        acceptor: Acceptor::new(progress.ability.clone(), limits.dead_peer, recorder.clone()),
        recorder,
        origins,
        rng: RefCell::new(fastrand::Rng::new()),
        drain: drain.clone(),
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

    let mut listening: HashMap<Slot, Listening> = HashMap::new();
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = drain.signaled() => None,
        };
        match command {
            Some(Command::Enrol(enrolled)) => {
                let slot = enrolled.slot;
                let name = enrolled.pod.name.clone();
                match listen(&worker, enrolled) {
                    Ok(begun) => drop(listening.insert(slot, begun)),
                    Err(error) => tracing::error!(pod = %name, %error, "listeners not registered"),
                }
            }
            Some(Command::Addresses(slot, addresses)) => {
                if let Some(Listening { pod, .. }) = listening.get(&slot) {
                    pod.addresses.set(&addresses);
                    worker.local_ports.withdraw(slot);
                    worker
                        .local_ports
                        .enrol(worker.view.registry(), slot, &pod.pod, &addresses);
                }
            }
            Some(Command::Withdraw(slot)) => {
                for task in listening.remove(&slot).map(|it| it.tasks).unwrap_or_default() {
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(LINGER).await;
                        task.end();
                    });
                }
                worker.pools.forget(slot);
                worker.local_ports.withdraw(slot);
            }
            None => break,
        }
    }
    // What the kernel redirected before it was told is in the backlogs. After that nobody listens, and the worker
    // ends with its last connection.
    tokio::time::sleep(LINGER).await;
    listening
        .into_values()
        .flat_map(|it| it.tasks)
        .for_each(Task::end);
    turns.end();
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
            worker.acceptor.try_again();
            if now.duration_since(swept) >= SWEEP {
                swept = now;
                worker.pools.sweep(now);
                turns.settle();
            }
            if now.duration_since(told) >= USED {
                told = now;
                worker.demand.used(worker.view.take_used());
            }
            if now.duration_since(forgot) >= FORGET {
                forgot = now;
                worker.forget_series();
            }
        });
        if trim.is_due(turns.bill()) {
            turns.for_itself(give_memory_back);
        }
    }
}

/// A pod, and what accepts its connections.
struct Listening {
    pod: Rc<LocalPod>,
    tasks: Vec<Task>,
}

fn listen(worker: &Rc<Worker>, enrolled: EnrolledPod) -> std::io::Result<Listening> {
    worker.local_ports.enrol(
        worker.view.registry(),
        enrolled.slot,
        &enrolled.pod,
        &enrolled.addresses,
    );
    let pod = Rc::new(LocalPod {
        slot: enrolled.slot,
        pod: enrolled.pod,
        addresses: OwnAddresses::new(&enrolled.addresses),
        sockets: Rc::new(enrolled.sockets),
        share: Local::new(enrolled.account),
        peers: Rc::default(),
        series: RefCell::default(),
    });
    let mut tasks = Vec::new();
    for listener in enrolled.outbound {
        let (worker, pod, listener) = (worker.clone(), pod.clone(), TcpListener::from_std(listener)?);
        tasks.push(pod.share.clone().task(async move {
            loop {
                let (stream, place) = worker.acceptor.accept(&listener, &pod.share).await;
                let served = connection::outbound(worker.clone(), pod.clone(), stream, place);
                pod.share.spawn(served);
            }
        }));
    }
    for listener in enrolled.inbound {
        let (worker, pod, listener) = (worker.clone(), pod.clone(), TcpListener::from_std(listener)?);
        tasks.push(pod.share.clone().task(async move {
            loop {
                let (stream, place) = worker.acceptor.accept(&listener, &pod.share).await;
                let served = connection::inbound(worker.clone(), pod.clone(), stream, place);
                pod.share.spawn(served);
            }
        }));
    }
    Ok(Listening { pod, tasks })
}

impl Sockets for Arc<dyn Sockets + Send + Sync> {
    fn tcp_socket(&self, to: std::net::SocketAddr) -> std::io::Result<socket2::Socket> {
        (**self).tcp_socket(to)
    }
}
