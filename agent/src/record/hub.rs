//! All workers' shards, and their sum for a scrape.

use std::{
    cell::{Cell as Slate, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    cells::Cell,
    labels::{Direction, OTHER, ScopeKey, Source},
    scope::{Scope, ScopeShard},
};
use crate::model::{EnrolmentId, ServiceName, ServicePortName};

/// How much one worker tells apart. What is beyond is counted together, under the name `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesBounds {
    /// (Caller, service port) of all workloads.
    pub scopes: usize,
    /// Those of one workload, so that it cannot use up the others' places.
    pub scopes_of_workload: usize,
    /// (HTTP status, gRPC status, flag) of one scope, for each protocol.
    pub outcomes: usize,
    /// Those of one workload.
    pub outcomes_of_workload: usize,
}

impl Default for SeriesBounds {
    fn default() -> Self {
        Self {
            scopes: 10_000,
            scopes_of_workload: 1_000,
            outcomes: 64,
            outcomes_of_workload: 4_096,
        }
    }
}

/// Numbers of a worker that belong to no scope.
#[derive(Debug)]
pub(super) struct WorkerShard {
    pub(super) series_overflow: Cell,
    pub(super) outcomes_overflow: Cell,
    /// Access lines of pods that had used up their share of the queue.
    pub(super) access_dropped: Cell,
    pub(super) accept_errors: Cell,
    pub(super) accept_limit: Cell,
    pods: Mutex<Vec<Arc<PodShard>>>,
    /// What a scrape shows. The worker never waits for this lock: see [`Counters::publish`].
    published: Mutex<Vec<Arc<ScopeShard>>>,
}

impl WorkerShard {
    fn new() -> Self {
        Self {
            series_overflow: Cell::default(),
            outcomes_overflow: Cell::default(),
            access_dropped: Cell::default(),
            accept_errors: Cell::default(),
            accept_limit: Cell::default(),
            pods: Mutex::default(),
            published: Mutex::default(),
        }
    }

    fn pods(&self) -> MutexGuard<'_, Vec<Arc<PodShard>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn scopes(&self) -> Vec<Arc<ScopeShard>> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What one workload uses of a worker's bounds.
#[derive(Debug)]
struct OfWorkload {
    scopes: usize,
    /// How many more outcomes may be told apart.
    room: Rc<Slate<usize>>,
}

impl OfWorkload {
    fn new(bounds: &SeriesBounds) -> Self {
        Self {
            scopes: 0,
            room: Rc::new(Slate::new(bounds.outcomes_of_workload)),
        }
    }
}

/// Numbers of a worker that belong to one enrolment of a pod.
#[derive(Debug)]
struct PodShard {
    id: EnrolmentId,
    open: Cell,
}

/// Owned by the process: what all workers counted.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    workers: Arc<Mutex<Vec<Arc<WorkerShard>>>>,
    bounds: SeriesBounds,
}

impl Hub {
    pub fn new(bounds: SeriesBounds) -> Self {
        Self {
            workers: Arc::default(),
            bounds,
        }
    }

    /// The counters of one more worker.
    pub fn worker(&self) -> Counters {
        let shard = Arc::new(WorkerShard::new());
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(shard.clone());
        Counters {
            shard,
            bounds: self.bounds,
            scopes: RefCell::default(),
            of_workload: RefCell::default(),
            unpublished: Slate::new(false),
        }
    }

    pub(super) fn workers(&self) -> Vec<Arc<WorkerShard>> {
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Connections from and to the pod that are open now.
    pub fn open_connections(&self, id: EnrolmentId) -> u64 {
        let of_worker = |worker: &Arc<WorkerShard>| -> u64 {
            let pods = worker.pods();
            pods.iter()
                .filter(|pod| pod.id == id)
                .map(|pod| pod.open.get())
                .sum()
        };
        self.workers().iter().map(of_worker).sum()
    }
}

/// One worker's counters.
#[derive(Debug)]
pub struct Counters {
    pub(super) shard: Arc<WorkerShard>,
    bounds: SeriesBounds,
    scopes: RefCell<HashMap<ScopeKey, Rc<Scope>>>,
    of_workload: RefCell<HashMap<Source, OfWorkload>>,
    /// Whether a scrape sees other scopes than there are.
    unpublished: Slate<bool>,
}

impl Counters {
    /// The scope of `key`, made when it is new.
    pub fn scope(&self, key: ScopeKey) -> Rc<Scope> {
        if let Some(scope) = self.scopes.borrow().get(&key) {
            return scope.clone();
        }
        let key = self.within_bounds(key);
        let mut scopes = self.scopes.borrow_mut();
        let scope = scopes.entry(key).or_insert_with_key(|key| {
            let mut of_workload = self.of_workload.borrow_mut();
            let own = of_workload
                .entry(workload(key))
                .or_insert_with(|| OfWorkload::new(&self.bounds));
            own.scopes += 1;
            let shard = Arc::new(ScopeShard::new(key.clone()));
            match self.shard.published.try_lock() {
                Ok(mut published) => published.push(shard.clone()),
                Err(_) => self.unpublished.set(true),
            }
            Scope::new(shard, self.bounds.outcomes, own.room.clone())
        });
        scope.clone()
    }

    /// `key`, or what it is counted under when there are too many.
    fn within_bounds(&self, key: ScopeKey) -> ScopeKey {
        let of_workload = self
            .of_workload
            .borrow()
            .get(&workload(&key))
            .map_or(0, |own| own.scopes);
        let scopes = self.scopes.borrow();
        let is_full = scopes.len() >= self.bounds.scopes;
        let has_its_share = of_workload >= self.bounds.scopes_of_workload;
        if !is_full && !has_its_share {
            return key;
        }
        let own = others(&key);
        let overflow = if has_its_share && (!is_full || scopes.contains_key(&own)) {
            own
        } else {
            ScopeKey::other(key.direction)
        };
        self.shard.series_overflow.add(1);
        overflow
    }

    /// Forgets the scopes that `keep` does not want: those of pods and services that have gone. A scope in use
    /// goes on counting, and is not seen again.
    pub fn retain(&self, keep: impl Fn(&ScopeKey) -> bool) {
        let mut scopes = self.scopes.borrow_mut();
        scopes.retain(|key, _| is_overflow_of_all(key) || keep(key));
        let mut of_workload = self.of_workload.borrow_mut();
        for own in of_workload.values_mut() {
            own.scopes = 0;
            own.room.set(self.bounds.outcomes_of_workload);
        }
        for (key, scope) in scopes.iter() {
            if let Some(own) = of_workload.get_mut(&workload(key)) {
                own.scopes += 1;
                own.room.set(own.room.get().saturating_sub(scope.outcomes()));
            }
        }
        of_workload.retain(|_, own| own.scopes > 0);
        drop(scopes);
        self.unpublished.set(true);
        self.publish();
    }

    /// Shows scrapes which scopes there are. While one looks, later: a worker does not wait for a scrape.
    pub(super) fn publish(&self) {
        if !self.unpublished.get() {
            return;
        }
        if let Ok(mut published) = self.shard.published.try_lock() {
            let scopes = self.scopes.borrow();
            published.clear();
            published.extend(scopes.values().map(|scope| scope.shard().clone()));
            self.unpublished.set(false);
        }
    }

    /// The numbers of a pod, which are shown until this is dropped.
    pub fn pod(&self, id: EnrolmentId) -> PodCounters {
        let pod = Arc::new(PodShard {
            id,
            open: Cell::default(),
        });
        self.shard.pods().push(pod.clone());
        PodCounters {
            shard: self.shard.clone(),
            pod,
        }
    }

    /// A request's outcome was not told apart.
    pub(super) fn outcome_beyond(&self) {
        self.shard.outcomes_overflow.add(1);
    }

    pub fn accept_error(&self) {
        self.shard.accept_errors.add(1);
    }

    pub fn accept_limited(&self) {
        self.shard.accept_limit.add(1);
    }
}

/// One worker's numbers of one enrolment of a pod.
#[derive(Debug)]
pub struct PodCounters {
    shard: Arc<WorkerShard>,
    pod: Arc<PodShard>,
}

impl PodCounters {
    /// A connection of the pod is open until the guard is dropped.
    pub fn connection(&self) -> PodConnection {
        self.pod.open.add(1);
        PodConnection(self.pod.clone())
    }
}

impl Drop for PodCounters {
    fn drop(&mut self) {
        self.shard.pods().retain(|pod| !Arc::ptr_eq(pod, &self.pod));
    }
}

/// Counts one connection as a pod's.
#[derive(Debug)]
pub struct PodConnection(Arc<PodShard>);

impl Drop for PodConnection {
    fn drop(&mut self) {
        self.0.open.sub(1);
    }
}

/// Whose share a scope is counted against: the pod of this node at its end.
fn workload(key: &ScopeKey) -> Source {
    match key.direction {
        Direction::Outbound => key.source.clone(),
        Direction::Inbound => Source {
            namespace: key.destination.service.namespace.clone(),
            workload: key.destination.service.name.clone(),
        },
    }
}

/// The scope for what a workload has too many of: its destinations, or its ports.
fn others(key: &ScopeKey) -> ScopeKey {
    let service = match key.direction {
        Direction::Outbound => ServiceName {
            namespace: OTHER.into(),
            name: OTHER.into(),
        },
        Direction::Inbound => key.destination.service.clone(),
    };
    ScopeKey {
        destination: ServicePortName { service, port: 0 },
        ..key.clone()
    }
}

fn is_overflow_of_all(key: &ScopeKey) -> bool {
    key.is_overflow() && &*key.source.workload == OTHER && &*key.source.namespace == OTHER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{NodeSample, encode};

    fn outbound(workload: &str, port: u16) -> ScopeKey {
        ScopeKey {
            direction: Direction::Outbound,
            source: Source {
                namespace: "demo".into(),
                workload: workload.into(),
            },
            destination: ServicePortName {
                service: ServiceName {
                    namespace: "demo".into(),
                    name: "echo".into(),
                },
                port,
            },
        }
    }

    fn hub() -> Hub {
        Hub::new(SeriesBounds {
            scopes: 5,
            scopes_of_workload: 3,
            outcomes: 2,
            outcomes_of_workload: 5,
        })
    }

    #[test]
    fn a_workload_has_a_share_and_the_rest_is_counted_together() {
        let counters = hub().worker();
        let ports = |workload: &str| -> Vec<(String, u16)> {
            (1..=5)
                .map(|port| counters.scope(outbound(workload, port)).key().clone())
                .map(|key| (key.source.workload.to_string(), key.destination.port))
                .collect()
        };
        let of = |workload: &str, port| (workload.to_owned(), port);
        let web = [
            of("web", 1),
            of("web", 2),
            of("web", 3),
            of("web", 0),
            of("web", 0),
        ];
        assert_eq!(ports("web"), web);
        // The node's bound: one more place, and then the scope that all share.
        let api = [
            of("api", 1),
            of("other", 0),
            of("other", 0),
            of("other", 0),
            of("other", 0),
        ];
        assert_eq!(ports("api"), api);
        assert_eq!(counters.shard.series_overflow.get(), 6);

        counters.retain(|key| &*key.source.workload != "web");
        let api = [
            of("api", 1),
            of("api", 2),
            of("api", 3),
            of("api", 0),
            of("api", 0),
        ];
        assert_eq!(ports("api"), api);
    }

    #[test]
    fn a_worker_does_not_wait_for_a_scrape() {
        let hub = hub();
        let counters = hub.worker();
        let shard = counters.shard.clone();
        let scrape = shard.published.lock().unwrap();
        let scope = counters.scope(outbound("web", 1));
        scope.retried();
        drop(scrape);
        let shown = || encode(&hub, NodeSample::default()).contains("derny_retries_total{");
        assert!(!shown());
        counters.publish();
        assert!(shown());
    }
}
