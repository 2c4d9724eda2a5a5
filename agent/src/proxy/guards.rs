//! What the workers share: outlier detection and circuit breakers, per (source workload, service port), so that one
//! workload's troubles are not another's. Requests touch only atomics; the registry is locked when a worker meets a
//! pair for the first time, and by the one task that looks after all of them.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::hash_tables::HashTables;
use crate::{
    balance::{Breaker, EjectReason, Event, EventKind, Levels, Outliers},
    model::{EnrolmentId, InboundLimits, ServicePort, ServicePortName},
    record::{Direction, ScopeKey, Source},
    snapshot::Snapshot,
};

/// One caller's view of one service port, shared by all workers.
#[derive(Debug)]
pub struct Guards {
    pub outliers: Outliers,
    pub breaker: Arc<Breaker>,
    /// In the order of [`EjectReason::ALL`].
    ejections: [AtomicU64; EjectReason::ALL.len()],
    /// Requests that found every endpoint at its own bound.
    endpoints_full: AtomicU64,
}

impl Guards {
    fn new(port: &ServicePort) -> Self {
        let policy = &port.policy;
        Self::of(
            Outliers::new(policy.outlier_detection.clone()),
            Breaker::new(&policy.circuit_breaking, policy.retry.budget),
        )
    }

    fn of(outliers: Outliers, breaker: Breaker) -> Self {
        Self {
            outliers,
            breaker: Arc::new(breaker),
            ejections: Default::default(),
            endpoints_full: AtomicU64::new(0),
        }
    }

    /// Ejections so far, by every reason that there is.
    pub fn ejections(&self) -> impl Iterator<Item = (EjectReason, u64)> {
        let counts = self.ejections.iter().map(|count| count.load(Relaxed));
        EjectReason::ALL.into_iter().zip(counts)
    }

    /// A request was refused because every endpoint is at its own bound.
    pub(super) fn endpoints_are_full(&self) {
        self.endpoints_full.fetch_add(1, Relaxed);
    }

    /// How often that was.
    pub fn endpoints_full(&self) -> u64 {
        self.endpoints_full.load(Relaxed)
    }

    fn follow(&self, port: &ServicePort) {
        let policy = &port.policy;
        let addresses = port.endpoints.iter().map(|endpoint| endpoint.address);
        self.outliers.follow(policy.outlier_detection.as_ref(), addresses);
        self.breaker.follow(&policy.circuit_breaking, policy.retry.budget);
    }

    /// Tells an operator that an endpoint was ejected or is back.
    pub(super) fn report(&self, key: &ScopeKey, event: &Event) {
        let (source, service, endpoint) = (&key.source.workload, &key.destination, event.address);
        match &event.kind {
            EventKind::Ejected { reason, times, .. } => {
                for (of, count) in EjectReason::ALL.iter().zip(&self.ejections) {
                    if of == reason {
                        count.fetch_add(1, Relaxed);
                    }
                }
                tracing::warn!(%source, %service, %endpoint, reason = reason.as_str(), times, "endpoint ejected");
            }
            EventKind::Returned { how } => {
                tracing::info!(%source, %service, %endpoint, by = how.as_str(), "endpoint is back");
            }
        }
    }
}

/// All guards of the node.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    shared: Arc<Shared>,
    tables: HashTables,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// What the windows look at, apart from what workers lock: no worker waits for somebody who looks. Weak, since
    /// guards that are only looked at are not held.
    shown: Mutex<Vec<(ScopeKey, Weak<Guards>)>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whether `shown` lacks some of these.
    unshown: bool,
    guards: HashMap<Key, Arc<Guards>>,
    /// The snapshot that the guards follow.
    followed: u64,
}

/// Who is guarded from whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    scope: ScopeKey,
    /// The called pod of an inbound port: its bounds protect that pod, and not its workload nor its successor.
    pod: Option<EnrolmentId>,
}

/// One entry of the registry, for the windows. Pods of one workload have an entry each for the same inbound port.
#[derive(Clone, Debug)]
pub struct Guarded {
    pub key: ScopeKey,
    pub guards: Arc<Guards>,
}

impl Guarded {
    pub fn levels(&self) -> Levels {
        self.guards.breaker.levels()
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn new(tables: HashTables) -> Self {
        Self {
            shared: Arc::default(),
            tables,
        }
    }

    /// Where the tables of hashing load balancers are made.
    pub(super) fn tables(&self) -> &HashTables {
        &self.tables
    }

    /// The guards of `key`, made when they are new.
    fn of(&self, key: Key, made: impl FnOnce() -> Guards) -> Arc<Guards> {
        let mut inner = self.lock();
        if let Some(guards) = inner.guards.get(&key) {
            return guards.clone();
        }
        let guards = Arc::new(made());
        match self.shared.shown.try_lock() {
            Ok(mut shown) => shown.push((key.scope.clone(), Arc::downgrade(&guards))),
            // Somebody looks; `look_after` comes within a tenth of a second.
            Err(_) => inner.unshown = true,
        }
        inner.guards.insert(key, guards.clone());
        guards
    }

    fn show(&self, inner: &mut Inner) {
        if let Ok(mut shown) = self.shared.shown.try_lock() {
            let weak = |(key, guards): (&Key, &Arc<Guards>)| (key.scope.clone(), Arc::downgrade(guards));
            *shown = inner.guards.iter().map(weak).collect();
            inner.unshown = false;
        }
    }

    /// The guards of calls from `source` to `port`.
    pub(super) fn outbound(&self, source: Source, port: &ServicePort) -> Arc<Guards> {
        let key = Key {
            scope: ScopeKey {
                direction: Direction::Outbound,
                source,
                destination: port.name.clone(),
            },
            pod: None,
        };
        self.of(key, || Guards::new(port))
    }

    /// The guards of calls to an inbound port of `pod`, whoever calls. They stay for as long as somebody holds them, as
    /// each worker does that knows the pod.
    pub(super) fn inbound(&self, scope: ScopeKey, pod: EnrolmentId, limits: &InboundLimits) -> Arc<Guards> {
        // The one endpoint is the pod itself, and is never ejected.
        let made = || Guards::of(Outliers::new(None), Breaker::inbound(limits));
        let key = Key {
            scope,
            pod: Some(pod),
        };
        self.of(key, made)
    }

    /// Guards that nobody shares, for a connection of no service.
    pub(super) fn apart(&self, port: &ServicePort) -> Arc<Guards> {
        Arc::new(Guards::new(port))
    }

    /// Everything that time and configuration do to guards: to be called by one task, every 100 ms.
    pub fn look_after(&self, snapshot: &Snapshot, now: Instant, rng: &mut fastrand::Rng) {
        let mut inner = self.lock();
        // Pods go without a new snapshot, when the last of their connections has ended.
        let held = |key: &Key, guards: &mut Arc<Guards>| key.pod.is_none() || Arc::strong_count(guards) > 1;
        inner.guards.retain(held);
        if inner.followed != snapshot.version {
            inner.followed = snapshot.version;
            let callers: HashSet<(&str, &str)> = (snapshot.pods.values())
                .map(|pod| (&*pod.name.namespace, &*pod.workload))
                .collect();
            inner.guards.retain(|Key { scope, pod }, guards| {
                // Whoever holds them must meet the same ones again when the caller comes back.
                let held = Arc::strong_count(guards) > 1;
                if pod.is_some() {
                    return true;
                }
                let caller = (&*scope.source.namespace, &*scope.source.workload);
                match snapshot.ports.get(&scope.destination) {
                    Some(port) if held || callers.contains(&caller) => {
                        guards.follow(port);
                        true
                    }
                    _ => false,
                }
            });
            inner.unshown = true;
        }
        if inner.unshown {
            self.show(&mut inner);
        }
        for (key, guards) in &inner.guards {
            for event in guards.outliers.sweep(now, rng) {
                guards.report(&key.scope, &event);
            }
        }
    }

    /// An active check of an endpoint passed: whoever had ejected it takes it back.
    pub fn probe_passed(&self, port: &ServicePortName, endpoint: SocketAddr, now: Instant) {
        for (key, guards) in self
            .lock()
            .guards
            .iter()
            .filter(|(key, _)| key.pod.is_none() && key.scope.destination == *port)
        {
            if let Some(event) = guards.outliers.probe_passed(endpoint, now) {
                guards.report(&key.scope, &event);
            }
        }
    }

    pub fn all(&self) -> Vec<Guarded> {
        let shown = self.shared.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let guarded = |(key, guards): &(ScopeKey, Weak<Guards>)| {
            Some(Guarded {
                key: key.clone(),
                guards: guards.upgrade()?,
            })
        };
        shown.iter().filter_map(guarded).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceName;

    fn pod(generation: u64) -> EnrolmentId {
        EnrolmentId {
            netns_cookie: 7,
            generation,
        }
    }

    fn inbound() -> ScopeKey {
        let unknown = || "unknown".into();
        ScopeKey {
            direction: Direction::Inbound,
            source: Source {
                namespace: unknown(),
                workload: unknown(),
            },
            destination: ServicePortName {
                service: ServiceName {
                    namespace: "demo".into(),
                    name: "web".into(),
                },
                port: 80,
            },
        }
    }

    fn limits(connections: u32) -> InboundLimits {
        InboundLimits {
            max_connections: Some(connections),
            max_requests: None,
            ..InboundLimits::default()
        }
    }

    #[test]
    fn an_inbound_port_is_guarded_for_each_pod_of_a_workload() {
        let registry = Registry::default();
        let (one, other) = (pod(1), pod(2));
        let first = registry.inbound(inbound(), one, &limits(1));
        let _held = first.breaker.connection().unwrap();
        assert!(
            registry
                .inbound(inbound(), one, &limits(1))
                .breaker
                .connection()
                .is_none()
        );
        assert!(
            registry
                .inbound(inbound(), other, &limits(1))
                .breaker
                .connection()
                .is_some()
        );
    }

    #[test]
    fn the_next_enrolment_of_a_pod_begins_with_guards_of_its_own() {
        let registry = Registry::default();
        let guards = registry.inbound(inbound(), pod(1), &limits(1));
        let held = guards.breaker.connection().unwrap();
        let next = registry.inbound(inbound(), pod(2), &limits(1));
        assert!(
            next.breaker.connection().is_some(),
            "what the former holds is not its own"
        );
        let snapshot = Snapshot::default();
        let now = tokio::time::Instant::now().into_std();
        let mut rng = fastrand::Rng::with_seed(1);
        registry.look_after(&snapshot, now, &mut rng);
        assert_eq!(registry.all().len(), 2);
        drop(guards);
        registry.look_after(&snapshot, now, &mut rng);
        // A connection in hand still holds the breaker, and nothing else.
        assert_eq!(registry.all().len(), 1);
        drop(held);
    }
}
