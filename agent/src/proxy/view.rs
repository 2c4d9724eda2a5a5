//! The snapshot as one worker sees it: with the worker's own balancers and loads beside it.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    balance::{Balancer, EndpointLoad, Outliers},
    model::{ServicePort, ServicePortName},
    snapshot::Snapshot,
};

/// A service port with this worker's knowledge of its endpoints. A request keeps the one it started with.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) port: Arc<ServicePort>,
    outliers: Rc<Outliers>,
    endpoints: Vec<Rc<EndpointLoad>>,
    balancer: RefCell<Balancer>,
}

impl Upstream {
    /// Loads of endpoints that `before` has too go on.
    pub(super) fn new(
        port: Arc<ServicePort>,
        before: Option<&Upstream>,
        rng: &mut fastrand::Rng,
    ) -> Rc<Self> {
        let now = Instant::now().into_std();
        let outliers = before.map_or_else(|| Rc::new(Outliers::new(None)), |b| b.outliers.clone());
        outliers.follow(None, port.endpoints.iter().map(|e| e.address));
        let known: HashMap<SocketAddr, &Rc<EndpointLoad>> = before
            .iter()
            .flat_map(|b| &b.endpoints)
            .map(|e| (e.address(), e))
            .collect();
        let endpoints: Vec<_> = (port.endpoints.iter())
            .map(|endpoint| match known.get(&endpoint.address) {
                Some(load) => {
                    load.follow(endpoint, None, now);
                    Rc::clone(load)
                }
                None => EndpointLoad::new(endpoint, outliers.host(endpoint.address), None, now),
            })
            .collect();
        let balancer = RefCell::new(Balancer::new(
            &port.policy.load_balancer,
            endpoints.clone(),
            None,
            rng,
        ));
        Rc::new(Self {
            port,
            outliers,
            endpoints,
            balancer,
        })
    }

    /// The endpoint for the next attempt; `None` when all are in `tried`.
    pub(super) fn choose(&self, tried: &[SocketAddr], rng: &mut fastrand::Rng) -> Option<Rc<EndpointLoad>> {
        let now = Instant::now().into_std();
        self.balancer.borrow_mut().choose(None, tried, now, rng)
    }

    /// The load of the endpoint at `address`.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Option<&Rc<EndpointLoad>> {
        self.endpoints.iter().find(|e| e.address() == address)
    }
}

/// A worker's view. Ports come into it when a connection first asks for them.
#[derive(Debug)]
pub(super) struct View {
    published: watch::Receiver<Arc<Snapshot>>,
    seen: RefCell<Arc<Snapshot>>,
    /// Counts up whenever `upstreams` may have changed.
    version: Cell<u64>,
    upstreams: RefCell<HashMap<ServicePortName, Rc<Upstream>>>,
}

impl View {
    pub(super) fn new(published: watch::Receiver<Arc<Snapshot>>) -> Self {
        let seen = RefCell::new(published.borrow().clone());
        Self {
            published,
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
            .retain(|name, upstream| match newest.ports.get(name) {
                Some(port) if Arc::ptr_eq(port, &upstream.port) => true,
                Some(port) => {
                    *upstream = Upstream::new(port.clone(), Some(upstream), rng);
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

    pub(super) fn upstream(&self, name: &ServicePortName, rng: &mut fastrand::Rng) -> Option<Rc<Upstream>> {
        if let Some(known) = self.upstreams.borrow().get(name) {
            return Some(known.clone());
        }
        let port = self.snapshot().ports.get(name).cloned()?;
        let upstream = Upstream::new(port, None, rng);
        self.upstreams.borrow_mut().insert(name.clone(), upstream.clone());
        Some(upstream)
    }
}
