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
    balance::{Balancer, Breaker, EndpointLoad, InFlight, TableMaker},
    model::{Endpoint, Endpoints, Family, ServicePort, ServicePortName},
    pool::{Bounds, Held, Unbounded},
    record::Source,
    route::Table,
    share,
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
    /// Follows the newest view: a request that began before a change, and is tried again after it, goes where others
    /// go now.
    balancer: Rc<RefCell<Balancer>>,
    /// Whether a request has come here since that was last asked.
    used: Cell<bool>,
    /// Until when requests wait for discovery to say who answers, since it was first asked; while that is not known.
    pub(super) waits_until: Cell<Option<Instant>>,
}

impl Upstream {
    /// `before`, if it is given, is the same port before a change: its balancer goes on, and so do the loads of the
    /// endpoints that stay.
    pub(super) fn new(
        port: Arc<ServicePort>,
        table: Option<Arc<Table>>,
        guards: Arc<Guards>,
        before: Option<&Upstream>,
        towards: Towards<'_>,
        tables: &dyn TableMaker,
        rng: &mut fastrand::Rng,
    ) -> Rc<Self> {
        let Towards { zone, family } = towards;
        let now = Instant::now().into_std();
        let known: HashMap<SocketAddr, &Rc<EndpointLoad>> = before
            .iter()
            .flat_map(|b| &b.endpoints)
            .map(|e| (e.address(), e))
            .collect();
        let most = port.policy.circuit_breaking.max_requests_per_endpoint;
        let endpoints: Vec<_> = reached(&port.endpoints, family)
            .into_iter()
            .map(|(known_as, endpoint)| match known.get(&endpoint.address) {
                Some(load) => {
                    load.follow(&endpoint, most, now);
                    Rc::clone(load)
                }
                None => EndpointLoad::new(&endpoint, guards.outliers.host(known_as), most, now),
            })
            .collect();
        let settings = &port.policy.load_balancer;
        let balancer = match before {
            Some(before) => {
                let mut balancer = before.balancer.borrow_mut();
                balancer.follow(settings, endpoints.clone(), zone, tables, rng);
                before.balancer.clone()
            }
            None => Rc::new(RefCell::new(Balancer::new(
                settings,
                endpoints.clone(),
                zone,
                tables,
                rng,
            ))),
        };
        let bounds: Rc<dyn Bounds> = Rc::new(BreakerBounds(guards.breaker.clone()));
        Rc::new(Self {
            port,
            table,
            guards,
            bounds,
            endpoints,
            balancer,
            used: Cell::new(false),
            waits_until: Cell::new(
                before
                    .filter(|before| !before.port.endpoints.is_known())
                    .and_then(|before| before.waits_until.get()),
            ),
        })
    }

    /// An inbound port. Its connections are bounded where they are accepted.
    pub(super) fn inbound(port: Arc<ServicePort>, guards: Arc<Guards>, rng: &mut fastrand::Rng) -> Rc<Self> {
        let mut this = Self::new(port, None, guards, None, Towards::default(), &(), rng);
        if let Some(this) = Rc::get_mut(&mut this) {
            this.bounds = Rc::new(Unbounded);
        }
        this
    }

    /// Begins a request at the endpoint that `choose` gives. Another worker may take an endpoint's last place
    /// between the choice and the begin: then another one is chosen.
    pub(super) fn begin(
        &self,
        mut choose: impl FnMut() -> Option<Rc<EndpointLoad>>,
    ) -> Result<InFlight, NoPlace> {
        // Whoever is full is not chosen again, unless a place has become free meanwhile.
        for _ in 0..=self.endpoints.len() {
            let chosen = choose().ok_or(NoPlace)?;
            if let Some(in_flight) = chosen.try_begin() {
                return Ok(in_flight);
            }
        }
        Err(NoPlace)
    }

    /// The endpoint for the next attempt; `None` when all are in `tried` or full.
    pub(super) fn choose(
        &self,
        key: Option<u64>,
        tried: &[SocketAddr],
        rng: &mut fastrand::Rng,
    ) -> Option<Rc<EndpointLoad>> {
        self.used.set(true);
        self.balancer
            .borrow_mut()
            .choose(key, tried, share::now().into_std(), rng)
    }

    /// One that the service no longer has, for a caller that has dialled it.
    pub(super) fn former(&self, address: SocketAddr) -> Rc<EndpointLoad> {
        let most = self.port.policy.circuit_breaking.max_requests_per_endpoint;
        let host = self.guards.outliers.host(address);
        EndpointLoad::new(&Endpoint::new(address), host, most, Instant::now().into_std())
    }

    /// The load of the endpoint at `address`.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Option<&Rc<EndpointLoad>> {
        self.endpoints.iter().find(|e| e.address() == address)
    }

    /// What the other endpoints take on average, in seconds, as far as they are known.
    pub(super) fn latency_beside(&self, address: SocketAddr) -> Option<f64> {
        let others = self.endpoints.iter().filter(|e| e.address() != address);
        let known = others.filter_map(|e| e.latency());
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), seconds| (sum + seconds, count + 1.0));
        (count > 0.0).then(|| sum / count)
    }

    /// Whether there is an endpoint in rotation that is not in `tried`.
    pub(super) fn has_beside(&self, tried: &[SocketAddr]) -> bool {
        let mut endpoints = self.endpoints.iter();
        endpoints.any(|e| e.host().is_in() && !tried.contains(&e.address()))
    }

    /// Whether an endpoint has as many requests as it may: the reason why none was found.
    pub(super) fn is_full(&self) -> bool {
        self.endpoints.iter().any(|e| e.is_full())
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

/// From where and by which family endpoints are reached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Towards<'z> {
    /// The node's.
    pub(super) zone: Option<&'z Arc<str>>,
    /// That of the address which was dialled; `None` where all endpoints are of one.
    pub(super) family: Option<Family>,
}

/// Who answers, each with the address by which it is known: those that can be reached by the family that was dialled, as
/// without the mesh, or all where there is none of it. Where nobody is known it is the service's own address.
fn reached(endpoints: &Endpoints, family: Option<Family>) -> Vec<(SocketAddr, Endpoint)> {
    let all = || endpoints.iter().chain(endpoints.instead());
    let of_family = all().filter_map(|endpoint| {
        let address = match family {
            Some(family) => endpoint.address_in(family)?,
            None => endpoint.address,
        };
        let reached = Endpoint {
            address,
            ..endpoint.clone()
        };
        Some((endpoint.address, reached))
    });
    let of_family: Vec<_> = of_family.collect();
    match of_family.is_empty() {
        false => of_family,
        true => all()
            .map(|endpoint| (endpoint.address, endpoint.clone()))
            .collect(),
    }
}

/// No endpoint takes the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPlace;

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
    upstreams: RefCell<HashMap<Key, Rc<Upstream>>>,
}

type Key = (Source, ServicePortName, Option<Family>);

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
        let zone = newest.zone.as_ref();
        let same_zone = self.seen.borrow().zone.as_ref() == zone;
        self.upstreams
            .borrow_mut()
            .retain(|(source, name, family), upstream| match newest.ports.get(name) {
                Some(port) if same_zone && Arc::ptr_eq(port, &upstream.port) => true,
                Some(port) => {
                    let table = newest.table(name, &source.namespace);
                    let guards = upstream.guards.clone();
                    let tables = self.registry.tables().of(&name.service.namespace);
                    let towards = Towards {
                        zone,
                        family: *family,
                    };
                    *upstream =
                        Upstream::new(port.clone(), table, guards, Some(upstream), towards, &tables, rng);
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

    /// Forgets what no pod of the node and no connection uses any more.
    pub(super) fn forget(&self, is_there: impl Fn(&Source) -> bool) {
        self.upstreams
            .borrow_mut()
            .retain(|(source, ..), upstream| Rc::strong_count(upstream) > 1 || is_there(source));
    }

    /// To wait for the next version by.
    pub(super) fn published(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.published.clone()
    }

    /// The ports to which requests came since this was last called, and from which namespaces.
    pub(super) fn take_used(&self) -> Vec<(Arc<str>, ServicePortName)> {
        let upstreams = self.upstreams.borrow();
        let used = upstreams.iter().filter(|(_, upstream)| upstream.used.take());
        used.map(|((source, name, _), _)| (source.namespace.clone(), name.clone()))
            .collect()
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The service port `name` as `source` sees it that has dialled an address of `family`; `None` when there is none.
    pub(super) fn upstream(
        &self,
        source: &Source,
        name: &ServicePortName,
        family: Option<Family>,
        rng: &mut fastrand::Rng,
    ) -> Option<Rc<Upstream>> {
        let key = (source.clone(), name.clone(), family);
        if let Some(known) = self.upstreams.borrow().get(&key) {
            return Some(known.clone());
        }
        let (port, table, zone) = {
            let snapshot = self.snapshot();
            (
                snapshot.ports.get(name).cloned()?,
                snapshot.table(name, &source.namespace),
                snapshot.zone.clone(),
            )
        };
        let guards = self.registry.outbound(source.clone(), &port);
        let tables = self.registry.tables().of(&name.service.namespace);
        let towards = Towards {
            zone: zone.as_ref(),
            family,
        };
        let upstream = Upstream::new(port, table, guards, None, towards, &tables, rng);
        self.upstreams.borrow_mut().insert(key, upstream.clone());
        Some(upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Algorithm, Endpoint, HashKey, Policy, Protocol, ServiceName, ZoneAware};

    fn name() -> ServicePortName {
        ServicePortName {
            service: ServiceName {
                namespace: "demo".into(),
                name: "echo".into(),
            },
            port: 80,
        }
    }

    fn caller(workload: &str) -> Source {
        Source {
            namespace: "demo".into(),
            workload: workload.into(),
        }
    }

    /// Two endpoints in each of the zones a and b.
    fn port(policy: Policy) -> ServicePort {
        let endpoint = |n: u8, zone: &str| Endpoint {
            zone: Some(zone.into()),
            ..Endpoint::new(([10, 0, 0, n], 80).into())
        };
        ServicePort {
            name: name(),
            protocol: Protocol::Http,
            endpoints: vec![
                endpoint(1, "a"),
                endpoint(2, "a"),
                endpoint(3, "b"),
                endpoint(4, "b"),
            ]
            .into(),
            policy: policy.into(),
            routes: vec![],
        }
    }

    /// A view, and where snapshots are published to it.
    struct Published {
        send: watch::Sender<Arc<Snapshot>>,
        view: View,
        rng: fastrand::Rng,
    }

    impl Published {
        fn new(port: ServicePort, zone: Option<&str>) -> Self {
            let (send, receive) = watch::channel(Arc::new(snapshot(1, port, zone)));
            Self {
                send,
                view: View::new(receive, Registry::default()),
                rng: fastrand::Rng::with_seed(7),
            }
        }

        fn publish(&mut self, port: ServicePort, zone: Option<&str>) {
            let version = self.send.borrow().version + 1;
            self.send.send_replace(Arc::new(snapshot(version, port, zone)));
            self.view.follow(&mut self.rng);
        }

        fn upstream(&mut self) -> Rc<Upstream> {
            self.view
                .upstream(&caller("web"), &name(), None, &mut self.rng)
                .unwrap()
        }

        /// Last octets of the endpoints chosen.
        fn chosen(&mut self, n: usize, key: Option<u64>) -> Vec<u8> {
            let upstream = self.upstream();
            let one = |rng: &mut fastrand::Rng| match upstream.choose(key, &[], rng).unwrap().address() {
                SocketAddr::V4(address) => address.ip().octets()[3],
                SocketAddr::V6(address) => panic!("{address}"),
            };
            (0..n).map(|_| one(&mut self.rng)).collect()
        }
    }

    fn snapshot(version: u64, port: ServicePort, zone: Option<&str>) -> Snapshot {
        Snapshot {
            version,
            zone: zone.map(Into::into),
            ports: [(name(), Arc::new(port))].into_iter().collect(),
            ..Snapshot::default()
        }
    }

    fn balanced(algorithm: Algorithm) -> Policy {
        let mut policy = Policy::default();
        policy.load_balancer.algorithm = algorithm;
        policy
    }

    #[test]
    fn another_is_chosen_when_an_endpoint_fills_up_before_the_request_begins() {
        let mut policy = balanced(Algorithm::RoundRobin);
        policy.circuit_breaking.max_requests_per_endpoint = Some(1);
        let mut published = Published::new(port(policy), None);
        let upstream = published.upstream();
        let mut taken = Vec::new();
        let begun = upstream.begin(|| {
            let chosen = upstream.choose(None, &[], &mut published.rng)?;
            // Another worker is quicker, three times.
            if taken.len() < 3 {
                taken.push(chosen.begin());
            }
            Some(chosen)
        });
        let begun = begun.unwrap();
        let busy = |held: &InFlight| Rc::ptr_eq(held.endpoint(), begun.endpoint());
        assert!(taken.len() == 3 && !taken.iter().any(busy));
        assert!(upstream.is_full());
        let refused = upstream.begin(|| upstream.choose(None, &[], &mut published.rng));
        assert_eq!(refused.map(drop), Err(NoPlace));
        taken.clear();
        assert!(
            upstream
                .begin(|| upstream.choose(None, &[], &mut published.rng))
                .is_ok()
        );
    }

    #[test]
    fn whose_turn_it_is_survives_an_unrelated_change() {
        let mut published = Published::new(port(balanced(Algorithm::RoundRobin)), None);
        let mut turns = published.chosen(3, None);
        for attempts in 3..20 {
            let mut policy = balanced(Algorithm::RoundRobin);
            policy.retry.attempts = attempts;
            published.publish(port(policy), None);
            turns.extend(published.chosen(3, None));
        }
        let first = turns[..4].to_vec();
        assert!(turns.chunks_exact(4).all(|four| four == first), "{turns:?}");
    }

    #[test]
    fn a_request_that_goes_on_sees_who_was_removed() {
        let algorithm = Algorithm::Maglev {
            key: HashKey::SourceAddress,
            table_size: 1009,
        };
        let mut published = Published::new(port(balanced(algorithm.clone())), None);
        let before = published.upstream();
        let mut fewer = port(balanced(algorithm));
        fewer.endpoints = fewer.endpoints[..1].to_vec().into();
        published.publish(fewer, None);
        for key in 0..100 {
            let chosen = before.choose(Some(key), &[], &mut published.rng).unwrap();
            assert_eq!(chosen.address(), ([10, 0, 0, 1], 80).into());
        }
    }

    #[test]
    fn the_nodes_zone_may_change() {
        let policy = || {
            let mut policy = balanced(Algorithm::Random);
            policy.load_balancer.zone_aware = ZoneAware::On { min_endpoints: 2 };
            policy
        };
        let mut published = Published::new(port(policy()), Some("a"));
        assert!(published.chosen(100, None).iter().all(|n| [1, 2].contains(n)));
        published.publish(port(policy()), Some("b"));
        assert!(published.chosen(100, None).iter().all(|n| [3, 4].contains(n)));
        published.publish(port(policy()), None);
        let all = published.chosen(200, None);
        assert!((1..=4).all(|n| all.contains(&n)), "{all:?}");
    }

    #[test]
    fn callers_that_have_gone_are_forgotten_when_nothing_holds_their_view() {
        let mut published = Published::new(port(Policy::default()), None);
        let held = published.upstream();
        let guards = Arc::downgrade(&held.guards);
        published.view.forget(|_| false);
        assert!(Rc::ptr_eq(&held, &published.upstream()));
        drop(held);
        published.view.forget(|_| false);
        let now = Instant::now().into_std();
        let registry = published.view.registry();
        registry.look_after(
            &snapshot(9, port(Policy::default()), None),
            now,
            &mut published.rng,
        );
        assert!(guards.upgrade().is_none());
    }
}
