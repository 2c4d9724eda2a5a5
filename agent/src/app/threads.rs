//! The process's threads: workers, heartbeat, publisher, windows.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::LocalSet,
    time::Instant,
};

use super::{memory, watchdog::Watchdog};
use crate::{
    drain,
    intercept::{Callers, Enrolled, Heartbeat, Netns, Origins, bind_address},
    live::Pulse,
    model::{self, Demand, DestinationId, Ending, EnrolmentId, Pod, Slot, Update},
    pool::{DialAs, Sockets},
    proxy::{self, Command, EnrolledPod, Progress, Registry, Setup},
    publish::{self, Publisher},
    ready,
    record::{Hub, Writer},
    share::{Account, Ledger},
    snapshot::Snapshot,
    transport::Limits,
};

/// The engine's threads.
#[derive(Debug, Default)]
pub(super) struct Workers {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    progress: Vec<Progress>,
}

/// What one worker is made of.
pub(super) struct WorkerParts<'a> {
    pub(super) index: usize,
    pub(super) started: Instant,
    pub(super) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(super) registry: &'a Registry,
    pub(super) origins: Origins,
    pub(super) hub: &'a Hub,
    pub(super) writer: &'a Writer,
    pub(super) drain: &'a drain::Watch,
    pub(super) cut: &'a drain::Watch,
    pub(super) demand: Arc<dyn Demand>,
    pub(super) endpoints_wait: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) workers: usize,
    pub(super) limits: Limits,
}

impl Workers {
    pub(super) fn start(&mut self, parts: WorkerParts<'_>) -> Result<()> {
        let (send, commands) = mpsc::unbounded_channel();
        let progress = Progress::new(parts.started);
        self.commands.push(send);
        self.progress.push(progress.clone());
        let running = progress.clone();
        let setup = Setup {
            index: parts.index,
            snapshot: parts.snapshot,
            registry: parts.registry.clone(),
            commands,
            origins: Box::new(parts.origins),
            hub: parts.hub.clone(),
            writer: parts.writer.clone(),
            progress,
            drain: parts.drain.clone(),
            cut: parts.cut.clone(),
            demand: parts.demand,
            endpoints_wait: parts.endpoints_wait,
            drain_timeout: parts.drain_timeout,
            workers: parts.workers,
            give_memory_back: memory::give_back,
            limits: parts.limits,
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("worker runtime")?;
        thread::Builder::new()
            .name(format!("derny-worker-{}", parts.index))
            .spawn(move || {
                running.runs_as(nix::unistd::gettid().as_raw().unsigned_abs());
                let tasks = LocalSet::new();
                tasks.spawn_local(proxy::run(setup));
                // Ends when every task has, which is when the last connection has been drained.
                runtime.block_on(tasks);
            })
            .context("worker thread")?;
        Ok(())
    }

    pub(super) fn progress(&self) -> Vec<Progress> {
        self.progress.clone()
    }

    /// What the publisher tells the workers by.
    pub(super) fn handles(self, ledger: Ledger, stale_after: Duration) -> Handles {
        Handles {
            workers: self.commands,
            ledger,
            accounts: RefCell::default(),
            stale_after,
        }
    }
}

pub(super) struct Handles {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    ledger: Ledger,
    accounts: RefCell<BTreeMap<Slot, Arc<Account>>>,
    stale_after: Duration,
}

impl publish::Workers for Handles {
    fn enrol(&self, slot: Slot, pod: &Arc<Pod>, enrolled: Enrolled) {
        let sockets = Arc::new(PodSockets {
            netns: enrolled.netns,
            callers: enrolled.callers,
        });
        let account = self.ledger.open(pod.name.clone());
        self.accounts.borrow_mut().insert(slot, account.clone());
        for (worker, listeners) in self.workers.iter().zip(enrolled.listeners) {
            // A worker that has ended is being drained.
            let _ = worker.send(Command::Enrol(EnrolledPod {
                id: enrolled.id,
                pod: pod.clone(),
                addresses: enrolled.addresses.own.clone(),
                sockets: sockets.clone(),
                account: account.clone(),
                outbound: listeners.outbound,
                inbound: listeners.inbound,
            }));
        }
    }

    fn overloaded(&self) -> BTreeSet<Slot> {
        let accounts = self.accounts.borrow();
        let overloaded = accounts
            .iter()
            .filter(|(_, account)| account.is_overloaded(self.stale_after));
        overloaded.map(|(slot, _)| *slot).collect()
    }

    fn addresses(&self, id: EnrolmentId, own: &[IpAddr]) {
        let own: Arc<[IpAddr]> = own.into();
        for worker in &self.workers {
            let _ = worker.send(Command::Addresses(id, own.clone()));
        }
    }

    fn ending(&self, id: EnrolmentId) {
        for worker in &self.workers {
            let _ = worker.send(Command::Ending(id));
        }
    }

    fn withdraw(&self, slot: Slot, id: EnrolmentId, ending: Ending) {
        self.accounts.borrow_mut().remove(&slot);
        self.end(id, ending);
    }

    fn end(&self, id: EnrolmentId, ending: Ending) {
        for worker in &self.workers {
            let _ = worker.send(Command::Withdraw(id, ending));
        }
    }
}

/// The sockets of a pod.
#[derive(Debug)]
struct PodSockets {
    netns: Arc<Netns>,
    callers: Callers,
}

impl Sockets for PodSockets {
    fn tcp_socket(&self, to: SocketAddr, dial_as: DialAs) -> io::Result<socket2::Socket> {
        let socket = self.netns.tcp_socket(to)?;
        match dial_as {
            DialAs::Pod => {}
            DialAs::Bound(address) if is_same_family(address, to) => bind_address(&socket, address)?,
            // The endpoint is of the other family, where the application has bound nothing.
            DialAs::Bound(_) => {}
            DialAs::Caller(caller) => self.callers.show(&socket, caller)?,
        }
        Ok(socket)
    }

    fn tcp_socket_beyond(&self, to: SocketAddr, dial_as: DialAs) -> io::Result<socket2::Socket> {
        let bound = match dial_as {
            DialAs::Bound(address) if is_same_family(address, to) => Some(address),
            DialAs::Bound(_) | DialAs::Pod | DialAs::Caller(_) => None,
        };
        let socket = self.netns.tcp_socket_beyond(to, bound)?;
        if let DialAs::Caller(caller) = dial_as {
            self.callers.show(&socket, caller)?;
        }
        Ok(socket)
    }
}

fn is_same_family(address: IpAddr, to: SocketAddr) -> bool {
    address.is_ipv4() == to.is_ipv4()
}

/// The sockets of the node, for probes.
impl Sockets for Netns {
    fn tcp_socket(&self, to: SocketAddr, _: DialAs) -> io::Result<socket2::Socket> {
        Netns::tcp_socket(self, to)
    }
}

impl model::Origins for Origins {
    fn destination(&self, netns_cookie: u64, local: SocketAddr, peer: SocketAddr) -> Option<DestinationId> {
        Origins::destination(self, netns_cookie, local, peer)
    }
}

/// How often ejections are looked at; they are timed in seconds.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// Lets ejections expire and the guards follow the configuration, until the drain begins.
pub(super) async fn look_after(
    registry: Registry,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    drain: drain::Watch,
) {
    let mut rng = fastrand::Rng::new();
    let mut ticks = tokio::time::interval(LOOK_AFTER);
    loop {
        tokio::select! {
            now = ticks.tick() => {
                let newest = snapshot.borrow().clone();
                registry.look_after(&newest, now.into_std(), &mut rng);
            }
            () = drain.signaled() => return,
        }
    }
}

/// Tells the kernel that the engine works, for as long as every worker makes progress, and ends the process when it has
/// hung for `hang_timeout`, unless that is zero. A thread of its own, so that neither a busy worker nor a scrape delays it.
pub(super) fn heartbeat(
    heartbeat: Heartbeat,
    workers: Vec<Progress>,
    (stale_after, hang_timeout): (Duration, Duration),
    pulse: Pulse,
    drain: drain::Watch,
) -> Result<()> {
    let mut stood_aside = false;
    let mut watchdog = match hang_timeout.is_zero() {
        true => None,
        false => Some(Watchdog::new(hang_timeout, workers.len(), Instant::now()).context("watchdog")?),
    };
    let beat = move || {
        while !drain.is_signaled() {
            pulse.beat();
            let now = Instant::now();
            if let Some(watchdog) = &mut watchdog {
                watchdog.look(&workers, now);
            }
            if workers.iter().all(|worker| worker.age(now) < stale_after / 2)
                && !aside(&workers, stale_after, now, &mut stood_aside)
                && let Err(error) = heartbeat.beat()
            {
                tracing::error!(%error, "heartbeat not written");
            }
            thread::park_timeout(stale_after / 5);
        }
    };
    thread::Builder::new()
        .name("derny-heartbeat".into())
        .spawn(beat)
        .context("heartbeat thread")?;
    Ok(())
}

/// Whether a worker has not been able to accept connections for so long that the kernel is to leave all connections
/// alone, as if the agent hung. Says it once.
fn aside(workers: &[Progress], stale_after: Duration, now: Instant, stood_aside: &mut bool) -> bool {
    let aside = (workers.iter()).any(|w| w.cannot_accept_for(now).is_some_and(|since| since > stale_after));
    if aside != *stood_aside {
        *stood_aside = aside;
        match aside {
            true => tracing::error!("a worker cannot accept connections: new ones pass the agent by"),
            false => tracing::info!("connections can be accepted again"),
        }
    }
    aside
}

/// The publisher's thread: entering a pod's network namespace takes its time, and must not hold up a scrape.
pub(super) fn publisher(
    publisher: Publisher<Handles>,
    updates: mpsc::Receiver<Vec<Update>>,
    first: Option<ready::Guard>,
    pulse: Pulse,
    drain: drain::Watch,
) -> Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("publisher runtime")?;
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                () = publisher.run(updates, first, drain) => {}
                () = beating(pulse) => {}
            }
        });
    };
    thread::Builder::new()
        .name("derny-publish".into())
        .spawn(run)
        .context("publisher thread")
}

/// How often a thread of tasks shows that they get their turn.
const BEAT: Duration = Duration::from_secs(1);

/// Shows progress for as long as this thread's tasks get their turn.
pub(super) async fn beating(pulse: Pulse) {
    let mut beats = tokio::time::interval(BEAT);
    loop {
        beats.tick().await;
        pulse.beat();
    }
}

/// The windows' runtime and thread: who asks takes nothing from discovery and health checks.
pub(super) struct WindowThread(Runtime);

impl WindowThread {
    pub(super) fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build()
            .context("runtime of the windows")?;
        Ok(Self(runtime))
    }

    /// Where sockets are opened that [`WindowThread::serve`] serves.
    pub(super) fn block_on<T>(&self, open: impl Future<Output = T>) -> T {
        self.0.block_on(open)
    }

    pub(super) fn serve(self, windows: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        thread::Builder::new()
            .name("derny-windows".into())
            .spawn(move || self.0.block_on(windows))
            .context("windows thread")?;
        Ok(())
    }
}

/// Allows as many open files as the system lets this process have, and says how many: each connection is one, each
/// pod several.
pub(super) fn raise_file_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a pointer to one rlimit, which lives here.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        tracing::warn!(error = %io::Error::last_os_error(), "limit of open files not raised");
    }
    limit.rlim_cur
}
