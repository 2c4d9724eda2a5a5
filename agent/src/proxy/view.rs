//! The snapshot as one worker sees it: with the worker's own balancers and loads beside it.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use tokio::{sync::watch, time::Instant};

use super::guards::{Guards, Registry};
use crate::{
    balance::{Balancer, Breaker, EndpointLoad},
    model::{ServicePort, ServicePortName},
    pool::{Bounds, Held},
    record::Source,
    route::Table,
    snapshot::Snapshot,
};

/// A service port as the pods of one workload see it, with this worker's knowledge of its endpoints. A request
/// keeps the one it started with.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) port: Arc<ServicePort>,
    /// `None`: no routes, requests go to the endpoints.
    table: Option<Arc<Table>>,
    guards: Arc<Guards>,
    bounds: Rc<dyn Bounds>,
    endpoints: Vec<Rc<EndpointLoad>>,
    balancer: RefCell<Balancer>,
}

impl Upstream {
    /// Loads of endpoints that `before` has too go on.
    pub(super) fn new(
        port: Arc<ServicePort>,
        table: Option<Arc<Table>>,
        guards: Arc<Guards>,
        before: Option<&Upstream>,
        rng: &mut fastrand::Rng,
    ) -> Rc<Self> {
        let now = Instant::now().into_std();
        let known: HashMap<SocketAddr, &Rc<EndpointLoad>> = before
            .iter()
            .flat_map(|b| &b.endpoints)
            .map(|e| (e.address(), e))
            .collect();
        let most = port.policy.circuit_breaking.max_requests_per_endpoint;
        let endpoints: Vec<_> = (port.endpoints.iter())
            .map(|endpoint| match known.get(&endpoint.address) {
                Some(load) => {
                    load.follow(endpoint, most, now);
                    Rc::clone(load)
                }
                None => EndpointLoad::new(endpoint, guards.outliers.host(endpoint.address), most, now),
            })
            .collect();
        let balancer = Balancer::new(&port.policy.load_balancer, endpoints.clone(), None, rng);
        let bounds: Rc<dyn Bounds> = Rc::new(BreakerBounds(guards.breaker.clone()));
        Rc::new(Self {
            port,
            table,
            guards,
            bounds,
            endpoints,
            balancer: RefCell::new(balancer),
        })
    }

    /// The endpoint for the next attempt; `None` when all are in `tried` or full.
    pub(super) fn choose(
        &self,
        key: Option<u64>,
        tried: &[SocketAddr],
        rng: &mut fastrand::Rng,
    ) -> Option<Rc<EndpointLoad>> {
        self.balancer
            .borrow_mut()
            .choose(key, tried, Instant::now().into_std(), rng)
    }

    /// The load of the endpoint at `address`.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Option<&Rc<EndpointLoad>> {
        self.endpoints.iter().find(|e| e.address() == address)
    }

    /// Whether there is an endpoint in rotation that is not in `tried`.
    pub(super) fn has_beside(&self, tried: &[SocketAddr]) -> bool {
        let mut endpoints = self.endpoints.iter();
        endpoints.any(|e| e.host().is_in() && !tried.contains(&e.address()))
    }

    /// Whether each endpoint has as many requests as it may.
    pub(super) fn is_full(&self) -> bool {
        !self.endpoints.is_empty() && self.endpoints.iter().all(|e| e.is_full())
    }

    pub(super) fn table(&self) -> Option<&Table> {
        self.table.as_deref()
    }

    pub(super) fn guards(&self) -> &Guards {
        &self.guards
    }

    pub(super) fn bounds(&self) -> &Rc<dyn Bounds> {
        &self.bounds
    }
}

/// A breaker as the pools see it.
#[derive(Debug)]
struct BreakerBounds(Arc<Breaker>);

impl Bounds for BreakerBounds {
    fn connection(&self) -> Option<Held> {
        self.0.connection().map(Held::new)
    }

    fn pending(&self) -> Option<Held> {
        self.0.pending().map(Held::new)
    }
}

/// A worker's view. Ports come into it when a connection first asks for them.
#[derive(Debug)]
pub(super) struct View {
    published: watch::Receiver<Arc<Snapshot>>,
    registry: Registry,
    seen: RefCell<Arc<Snapshot>>,
    /// Counts up whenever `upstreams` may have changed.
    version: Cell<u64>,
    upstreams: RefCell<HashMap<(Source, ServicePortName), Rc<Upstream>>>,
}

impl View {
    pub(super) fn new(published: watch::Receiver<Arc<Snapshot>>, registry: Registry) -> Self {
        let seen = RefCell::new(published.borrow().clone());
        Self {
            published,
            registry,
            seen,
            version: Cell::new(0),
            upstreams: RefCell::default(),
        }
    }

    /// Follows what was published. Costs one comparison when nothing was.
    pub(super) fn follow(&self, rng: &mut fastrand::Rng) -> u64 {
        let newest = {
            let published = self.published.borrow();
            if published.version == self.seen.borrow().version {
                return self.version.get();
            }
            published.clone()
        };
        self.upstreams
            .borrow_mut()
            .retain(|(_, name), upstream| match newest.ports.get(name) {
                Some(port) if Arc::ptr_eq(port, &upstream.port) => true,
                Some(port) => {
                    let table = newest.tables.get(name).cloned();
                    *upstream =
                        Upstream::new(port.clone(), table, upstream.guards.clone(), Some(upstream), rng);
                    true
                }
                None => false,
            });
        *self.seen.borrow_mut() = newest;
        self.version.set(self.version.get() + 1);
        self.version.get()
    }

    pub(super) fn snapshot(&self) -> Ref<'_, Arc<Snapshot>> {
        self.seen.borrow()
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The service port `name` as `source` sees it; `None` when there is none.
    pub(super) fn upstream(
        &self,
        source: &Source,
        name: &ServicePortName,
        rng: &mut fastrand::Rng,
    ) -> Option<Rc<Upstream>> {
        let key = (source.clone(), name.clone());
        if let Some(known) = self.upstreams.borrow().get(&key) {
            return Some(known.clone());
        }
        let (port, table) = {
            let snapshot = self.snapshot();
            (
                snapshot.ports.get(name).cloned()?,
                snapshot.tables.get(name).cloned(),
            )
        };
        let guards = self.registry.outbound(source.clone(), &port);
        let upstream = Upstream::new(port, table, guards, None, rng);
        self.upstreams.borrow_mut().insert(key, upstream.clone());
        Some(upstream)
    }
}
