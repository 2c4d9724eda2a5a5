//! What the workers share: outlier detection and circuit breakers, per (source workload, service port), so that one
//! workload's troubles are not another's. Requests touch only atomics; the registry is locked when a worker meets a
//! pair for the first time, and by the one task that looks after all of them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use crate::{
    balance::{Breaker, Event, EventKind, Levels, Outliers},
    model::{InboundLimits, ServicePort, ServicePortName},
    record::{Direction, ScopeKey, Source},
    snapshot::Snapshot,
};

/// One caller's view of one service port, shared by all workers.
#[derive(Debug)]
pub struct Guards {
    pub outliers: Outliers,
    pub breaker: Arc<Breaker>,
    pub ejections: AtomicU64,
}

impl Guards {
    fn new(port: &ServicePort) -> Self {
        let policy = &port.policy;
        Self {
            outliers: Outliers::new(policy.outlier_detection.clone()),
            breaker: Arc::new(Breaker::new(&policy.circuit_breaking, policy.retry.budget)),
            ejections: AtomicU64::new(0),
        }
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
                self.ejections.fetch_add(1, Relaxed);
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
pub struct Registry(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    guards: HashMap<ScopeKey, Arc<Guards>>,
    /// The snapshot that the guards follow.
    followed: u64,
}

/// One entry of the registry, for the windows.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guards of calls from `source` to `port`.
    pub(super) fn outbound(&self, source: Source, port: &ServicePort) -> Arc<Guards> {
        let key = ScopeKey {
            direction: Direction::Outbound,
            source,
            destination: port.name.clone(),
        };
        self.lock()
            .guards
            .entry(key)
            .or_insert_with(|| Arc::new(Guards::new(port)))
            .clone()
    }

    /// The guards of calls to an inbound port, whoever calls.
    pub(super) fn inbound(&self, key: ScopeKey, limits: &InboundLimits) -> Arc<Guards> {
        let made = || {
            Arc::new(Guards {
                // The one endpoint is the pod itself.
                outliers: Outliers::new(None),
                breaker: Arc::new(Breaker::inbound(limits)),
                ejections: AtomicU64::new(0),
            })
        };
        let guards = self.lock().guards.entry(key).or_insert_with(made).clone();
        guards.breaker.follow_inbound(limits);
        guards
    }

    /// Guards that nobody shares, for a connection of no service.
    pub(super) fn apart(&self, port: &ServicePort) -> Arc<Guards> {
        Arc::new(Guards::new(port))
    }

    /// Everything that time and configuration do to guards: to be called by one task, every 100 ms.
    pub fn look_after(&self, snapshot: &Snapshot, now: Instant, rng: &mut fastrand::Rng) {
        let mut inner = self.lock();
        if inner.followed != snapshot.version {
            inner.followed = snapshot.version;
            inner.guards.retain(|key, guards| match key.direction {
                Direction::Inbound => Arc::strong_count(guards) > 1,
                Direction::Outbound => match snapshot.ports.get(&key.destination) {
                    Some(port) => {
                        guards.follow(port);
                        true
                    }
                    None => false,
                },
            });
        }
        for (key, guards) in &inner.guards {
            for event in guards.outliers.sweep(now, rng) {
                guards.report(key, &event);
            }
        }
    }

    /// An active check of an endpoint passed: whoever had ejected it takes it back.
    pub fn probe_passed(&self, port: &ServicePortName, endpoint: SocketAddr, now: Instant) {
        for (key, guards) in self
            .lock()
            .guards
            .iter()
            .filter(|(key, _)| key.destination == *port)
        {
            if let Some(event) = guards.outliers.probe_passed(endpoint, now) {
                guards.report(key, &event);
            }
        }
    }

    pub fn all(&self) -> Vec<Guarded> {
        let inner = self.lock();
        inner
            .guards
            .iter()
            .map(|(key, guards)| Guarded {
                key: key.clone(),
                guards: guards.clone(),
            })
            .collect()
    }
}
