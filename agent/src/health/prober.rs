//! Follows the snapshot: every endpoint of a port with a health check has a task that probes it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use imbl::ordmap::DiffItem;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{Board, Failure, Thresholds, Verdict, permits::Permits, probe::probe};
use crate::{
    drain,
    model::{EndpointState, HealthCheck, Protocol, Refusals, ServicePort, ServicePortName, Update},
    pool::Sockets,
    snapshot::Snapshot,
};

/// Makes sockets in the node's network namespace, with the agent's mark: no kernel program takes a probe for a
/// pod's connection.
pub type NodeSockets = Arc<dyn Sockets + Send + Sync>;

/// A probe that an endpoint has passed: an endpoint that was ejected for what requests saw may come back by it.
#[derive(Clone, Copy, Debug)]
pub struct Passed<'a> {
    pub port: &'a ServicePortName,
    pub endpoint: SocketAddr,
}

type OnPass = Arc<dyn Fn(Passed<'_>) + Send + Sync>;

/// Verdicts on their way from the probes to the snapshot.
const VERDICTS: usize = 256;

/// The node's prober.
pub struct Prober {
    board: Board,
    permits: Permits,
    on_pass: OnPass,
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober")
            .field("board", &self.board)
            .finish_non_exhaustive()
    }
}

impl Prober {
    /// At most `max_probes` are under way at a time, and `share` of them for services of one namespace. `on_pass` is told of
    /// every probe that passes; it must not wait.
    pub fn new(
        max_probes: usize,
        share: usize,
        refusals: Refusals,
        on_pass: impl Fn(Passed<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            board: Board::default(),
            permits: Permits::new(max_probes, share, refusals),
            on_pass: Arc::new(on_pass),
        }
    }

    /// A handle to what the probes show.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Probes until the drain begins, or nobody takes updates any more.
    pub async fn run(
        self,
        mut snapshot: watch::Receiver<Arc<Snapshot>>,
        updates: mpsc::Sender<Vec<Update>>,
        sockets: NodeSockets,
        drain: drain::Watch,
    ) {
        let (verdicts, mut changed) = mpsc::channel(VERDICTS);
        let mut watched = Watched {
            parts: Parts {
                board: self.board,
                permits: self.permits,
                on_pass: self.on_pass,
                sockets,
                verdicts,
            },
            ports: HashMap::new(),
            unconfirmed: HashSet::new(),
        };
        let mut current = Arc::<Snapshot>::default();
        // What is in force already counts as news.
        snapshot.mark_changed();
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = drain.signaled() => return,
                news = snapshot.changed() => {
                    if news.is_err() {
                        return;
                    }
                    let next = snapshot.borrow_and_update().clone();
                    batch.extend(watched.follow(&current, &next));
                    current = next;
                }
                _ = changed.recv_many(&mut batch, VERDICTS) => {}
            }
            watched.said(&batch);
            if !batch.is_empty() && updates.send(std::mem::take(&mut batch)).await.is_err() {
                return;
            }
        }
    }
}

/// What each task needs.
#[derive(Clone)]
struct Parts {
    board: Board,
    permits: Permits,
    on_pass: OnPass,
    sockets: NodeSockets,
    verdicts: mpsc::Sender<Update>,
}

/// Every port with a health check, and the tasks of its endpoints.
struct Watched {
    parts: Parts,
    ports: HashMap<ServicePortName, (Asked, HashMap<SocketAddr, Task>)>,
    /// Ports of which something was said that no snapshot has shown yet.
    unconfirmed: HashSet<ServicePortName>,
}

/// How the endpoints of a port are asked.
type Asked = (HealthCheck, Protocol);

/// A task that ends when nobody wants it any more.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watched {
    /// Work is in proportion to what changed. Gives verdicts that the snapshot does not know.
    fn follow(&mut self, old: &Snapshot, new: &Snapshot) -> Vec<Update> {
        let mut unknown = Vec::new();
        for item in old.ports.diff(&new.ports) {
            match item {
                DiffItem::Add(_, port) | DiffItem::Update { new: (_, port), .. } => {
                    self.set(port, &mut unknown);
                }
                DiffItem::Remove(name, _) => self.remove(name),
            }
        }
        // An endpoint that went and came back between two looks is no difference, but has lost its verdict.
        for name in std::mem::take(&mut self.unconfirmed) {
            if let Some(port) = new.ports.get(&name) {
                self.set(port, &mut unknown);
            }
        }
        unknown
    }

    /// What goes to the snapshot is to be seen in it; until then it is said again with each that comes.
    fn said(&mut self, updates: &[Update]) {
        for update in updates {
            if let Update::Health { port, .. } = update {
                self.unconfirmed.insert(port.clone());
            }
        }
    }

    fn set(&mut self, port: &ServicePort, unknown: &mut Vec<Update>) {
        let Some(check) = &port.policy.health_check else {
            return self.remove(&port.name);
        };
        let (before, tasks) = self
            .ports
            .entry(port.name.clone())
            .or_insert_with(|| ((check.clone(), port.protocol), HashMap::new()));
        let Parts { board, .. } = &self.parts;
        if before.0 != *check || before.1 != port.protocol {
            // All are probed anew, at once; what is known of them stays until a result says otherwise.
            *before = (check.clone(), port.protocol);
            tasks.clear();
        }
        tasks.retain(|address, _| {
            let keep = port.endpoints.iter().any(|e| e.address == *address);
            if !keep {
                board.forget(&port.name, *address);
            }
            keep
        });
        for endpoint in &port.endpoints {
            let address = endpoint.address;
            tasks.entry(address).or_insert_with(|| {
                board.begin(&port.name, address, Instant::now().into_std());
                let task = Endpoint {
                    port: port.name.clone(),
                    address,
                    check: check.clone(),
                    protocol: port.protocol,
                    parts: self.parts.clone(),
                };
                Task(tokio::spawn(task.run()))
            });
            let known = board.of(&port.name, address).map(|seen| seen.state.verdict());
            if let Some(verdict @ Verdict::Unhealthy { .. }) = known
                && endpoint.state == EndpointState::Ready
            {
                unknown.push(update(&port.name, address, verdict));
            }
        }
    }

    fn remove(&mut self, name: &ServicePortName) {
        if let Some((_, tasks)) = self.ports.remove(name) {
            for address in tasks.keys() {
                self.parts.board.forget(name, *address);
            }
        }
    }
}

fn update(port: &ServicePortName, endpoint: SocketAddr, verdict: Verdict) -> Update {
    Update::Health {
        port: port.clone(),
        endpoint,
        state: verdict.endpoint_state(),
    }
}

/// One endpoint that is probed.
struct Endpoint {
    port: ServicePortName,
    address: SocketAddr,
    check: HealthCheck,
    protocol: Protocol,
    parts: Parts,
}

impl Endpoint {
    async fn run(self) {
        let mut rng = fastrand::Rng::new();
        let mut turn = Turn::First;
        loop {
            let permit = self
                .parts
                .permits
                .take(&self.port.service.namespace, &self.parts.board)
                .await;
            let began = Instant::now();
            let result = probe(&self.check, self.protocol, self.address, &*self.parts.sockets).await;
            drop(permit);
            self.report(result).await;
            let wait = pause(&self.check, turn, began.elapsed(), &mut rng);
            turn = Turn::Later;
            tokio::time::sleep(wait).await;
        }
    }

    async fn report(&self, result: Result<(), Failure>) {
        let (service, endpoint) = (&self.port, self.address);
        let reason = result.as_ref().err().cloned();
        let now = Instant::now().into_std();
        let thresholds = Thresholds::from(&self.check);
        let board = &self.parts.board;
        let Some(observed) = board.observe(service, endpoint, result, thresholds, now) else {
            return;
        };
        if observed.newly_misconfigured
            && let Some(error) = &reason
        {
            tracing::error!(%service, %endpoint, %error, "health check is misconfigured");
        }
        if let Some(change) = observed.change {
            let (from, to) = (change.from.as_str(), change.to.as_str());
            match &reason {
                Some(error) => {
                    tracing::warn!(%service, %endpoint, from, to, %error, "endpoint health changed")
                }
                None => tracing::info!(%service, %endpoint, from, to, "endpoint health changed"),
            }
            // An error says that the prober has ended, and this task is about to.
            let _ = self
                .parts
                .verdicts
                .send(update(service, endpoint, change.to))
                .await;
        }
        if reason.is_none() {
            (self.parts.on_pass)(Passed {
                port: service,
                endpoint,
            });
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Later,
}

/// How long to wait for the next probe after one that took `spent`. An interval runs from one probe's start to the
/// next one's. Endpoints that came at the same time are probed together once; the first wait is a random part of
/// the interval, which spreads them.
fn pause(check: &HealthCheck, turn: Turn, spent: Duration, rng: &mut fastrand::Rng) -> Duration {
    let interval = match turn {
        Turn::First => check.interval.mul_f64(0.1 + 0.9 * rng.f64()),
        Turn::Later => {
            check.interval
                + check
                    .interval
                    .mul_f64(f64::from(check.jitter.min(100)) / 100.0 * rng.f64())
        }
    };
    interval.saturating_sub(spent)
}

#[cfg(test)]
mod tests;
