//! One accepted connection: whose it is and where it was meant to go.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use super::{
    awaited,
    context::Worker,
    farewell::Farewell,
    guards::Guards,
    local_pod::LocalPod,
    local_ports::{Bounded, called},
    view::{Towards, Upstream},
};
use crate::{
    accept::Place,
    balance::{self, EndpointLoad},
    model::{Endpoint, Family, InboundPort, Policy, Protocol, ServiceName, ServicePort, ServicePortName},
    pool::{Caller, DialAs, Pool},
    record::{Direction, Line, OpenConnection, PodConnection, ScopeKey, Source},
    retry::AttemptBody,
    route::Table,
    share::Peer,
    snapshot::{Destination, Target},
};

/// What all requests of a connection have in common.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) worker: Rc<Worker>,
    pub(super) pod: Rc<LocalPod>,
    opener: Opener,
    /// The address that the caller dialled.
    pub(super) dialled: SocketAddr,
    pub(super) line: Rc<Line>,
    /// Who shares connections to endpoints with others.
    pub(super) sharer: Caller,
    /// Whom endpoints see.
    pub(super) dial_as: DialAs,
    aim: Aim,
    /// The caller is to go elsewhere.
    pub(super) farewell: Farewell,
    /// Connections to the pod's own application, for those who call that and so nothing else.
    application: Option<Rc<Pool<AttemptBody>>>,
    /// The upstream found last, with the view's version.
    found: RefCell<(u64, Option<Rc<Upstream>>)>,
    former: RefCell<Option<Rc<EndpointLoad>>>,
    _open: OpenConnection,
    _of_pod: PodConnection,
    _accepted: Accepted,
}

/// Who opened a connection.
#[derive(Debug)]
enum Opener {
    /// The pod itself, to reach an address of the first one's family, from the second.
    Pod(IpAddr, IpAddr),
    /// Whoever is at this address.
    Peer(SocketAddr),
}

/// What an accepted connection takes up until it ends.
#[derive(Debug)]
struct Accepted {
    /// Of the pod's share.
    _place: Place,
    /// At an inbound port: of the port's bound, and of what one caller may have.
    _inbound: Option<(balance::Permit, Peer)>,
}

/// Where the caller wanted to go.
#[derive(Debug)]
enum Aim {
    /// Any endpoint of a service.
    Service(ServicePortName),
    /// This endpoint of a service and no other.
    Endpoint(ServicePortName, SocketAddr),
    /// One address, of no service that counts for the caller: the pod's own application, or a destination that is
    /// gone or contested.
    Address(Rc<Upstream>),
}

impl Inlet {
    /// A pod of this node calls `destination`.
    pub(super) fn outbound(
        worker: &Rc<Worker>,
        pod: &Rc<LocalPod>,
        destination: &Destination,
        (from, place): (IpAddr, Place),
    ) -> Rc<Self> {
        let address = destination.address;
        let unseen = |name: &str| {
            let name = ServicePortName {
                service: ServiceName {
                    namespace: "-".into(),
                    name: name.into(),
                },
                port: address.port(),
            };
            (Aim::Address(unseen(worker, name.clone(), address)), name)
        };
        let (aim, name) = match destination.target_of(&pod.pod.name.namespace) {
            Target::Service(name) => (Aim::Service(name.clone()), name.clone()),
            Target::Endpoint(name) => (Aim::Endpoint(name.clone(), address), name.clone()),
            Target::Gone => unseen("gone"),
            Target::Contested => unseen("contested"),
        };
        let source = Source {
            namespace: pod.pod.name.namespace.clone(),
            workload: pod.pod.workload.clone(),
        };
        let opener = Opener::Pod(address.ip(), from);
        let key = ScopeKey {
            direction: Direction::Outbound,
            source,
            destination: name,
        };
        let accepted = Accepted {
            _place: place,
            _inbound: None,
        };
        Self::new(
            worker,
            pod,
            (opener, address),
            pod.pod.name.to_string(),
            aim,
            key,
            accepted,
        )
    }

    /// Somebody at `peer` calls a pod of this node at `local`. `None` when that port has as many connections as it
    /// may, which is counted.
    pub(super) fn inbound(
        worker: &Rc<Worker>,
        pod: &Rc<LocalPod>,
        (local, peer): (SocketAddr, SocketAddr),
        (port, guards): &(InboundPort, Arc<Guards>),
        (place, of_peer): (Place, Peer),
    ) -> Option<Rc<Self>> {
        let key = called(&pod.pod, port.port);
        let name = key.destination.clone();
        let of_port = guards.breaker.connection()?;
        let one = Arc::new(single(name, port.protocol, local, Policy::inbound(&port.limits)));
        let aim = Aim::Address(Upstream::inbound(
            one,
            guards.clone(),
            &mut worker.rng.borrow_mut(),
        ));
        let caller = peer.ip().to_canonical().to_string();
        let accepted = Accepted {
            _place: place,
            _inbound: Some((of_port, of_peer)),
        };
        Some(Self::new(
            worker,
            pod,
            (Opener::Peer(peer), local),
            caller,
            aim,
            key,
            accepted,
        ))
    }

    fn new(
        worker: &Rc<Worker>,
        pod: &Rc<LocalPod>,
        (opener, dialled): (Opener, SocketAddr),
        caller_name: String,
        aim: Aim,
        key: ScopeKey,
        accepted: Accepted,
    ) -> Rc<Self> {
        let (sharer, dial_as) = match opener {
            Opener::Pod(_, from) => {
                // A socket that was bound to no address stands on the loopback, where its connection was redirected to.
                let dial_as = match from.is_loopback() {
                    true => DialAs::Pod,
                    false => DialAs::Bound(from),
                };
                (Caller::Connection(worker.next_connection()), dial_as)
            }
            Opener::Peer(peer) => (Caller::Host(peer.ip()), DialAs::Caller(peer)),
        };
        let application = match &aim {
            Aim::Address(upstream) if key.direction == Direction::Inbound => upstream
                .port
                .endpoints
                .iter()
                .next()
                .map(|it| pod.pools.pool(it.address, dial_as)),
            _ => None,
        };
        let scope = worker.recorder.counters.scope(pod.series(key));
        Rc::new(Self {
            worker: worker.clone(),
            pod: pod.clone(),
            opener,
            dialled,
            sharer,
            dial_as,
            aim,
            farewell: Farewell::default(),
            application,
            found: RefCell::new((u64::MAX, None)),
            former: RefCell::default(),
            _open: scope.connection(),
            _of_pod: pod.counters.connection(),
            _accepted: accepted,
            line: worker.recorder.line(caller_name, scope, &pod.pod.name),
        })
    }

    /// The caller's address, as the next hop is told it. `None` while nobody has said what the pod's is.
    pub(super) fn caller(&self) -> Option<IpAddr> {
        match self.opener {
            Opener::Pod(to, _) => self.pod.addresses.towards(to),
            Opener::Peer(peer) => Some(peer.ip()),
        }
    }

    /// The service port as it is now; `None` when it has gone.
    pub(super) fn upstream(&self) -> Option<Rc<Upstream>> {
        let name = match &self.aim {
            Aim::Address(upstream) => return Some(upstream.clone()),
            Aim::Service(name) | Aim::Endpoint(name, _) => name,
        };
        let mut rng = self.worker.rng.borrow_mut();
        let version = self.worker.view.follow(&mut rng);
        let mut found = self.found.borrow_mut();
        if found.0 != version {
            let newest = self
                .worker
                .view
                .upstream(self.source(), name, self.family(), &mut rng);
            // Whoever has dialled an endpoint stays with it, whatever becomes of the service.
            let kept = || found.1.clone().filter(|_| matches!(self.aim, Aim::Endpoint(..)));
            *found = (version, newest.or_else(kept));
        }
        found.1.clone()
    }

    /// The routes that apply: those of a service, when the caller left the choice of the endpoint to it.
    pub(super) fn table<'u>(&self, dialled: &'u Upstream) -> Option<&'u Table> {
        match &self.aim {
            Aim::Service(_) => dialled.table(),
            Aim::Endpoint(..) | Aim::Address(_) => None,
        }
    }

    /// `upstream` when it is known who answers for it, or when that has taken too long.
    pub(super) async fn known(&self, upstream: Rc<Upstream>) -> Rc<Upstream> {
        awaited::known(&self.worker, self.source(), self.family(), upstream).await
    }

    /// Of the address that was dialled.
    fn family(&self) -> Option<Family> {
        match self.opener {
            Opener::Pod(to, _) => Some(Family::of(to)),
            Opener::Peer(_) => None,
        }
    }

    /// Another service port that a route names.
    pub(super) fn backend(&self, name: &ServicePortName) -> Option<Rc<Upstream>> {
        self.worker.view.upstream(
            self.source(),
            name,
            self.family(),
            &mut self.worker.rng.borrow_mut(),
        )
    }

    /// Connections to `endpoint`.
    pub(super) fn pool(&self, endpoint: SocketAddr) -> Rc<Pool<AttemptBody>> {
        match &self.application {
            Some(application) => application.clone(),
            None => self.pod.pools.pool(endpoint, self.dial_as),
        }
    }

    /// Whether the one endpoint is the pod's own application.
    pub(super) fn is_inbound(&self) -> bool {
        self.line.scope.key().direction == Direction::Inbound
    }

    /// Returns when the caller is to be told to open another connection, which goes elsewhere.
    pub(super) async fn to_leave(&self) {
        let drain = match self.application {
            Some(_) => &self.pod.inbound_drain,
            None => &self.pod.drain,
        };
        let left = async {
            match &self.application {
                Some(application) => application.left().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = drain.signaled() => {}
            () = self.farewell.said() => {}
            () = left => {}
        }
        self.farewell.say();
    }

    fn source(&self) -> &Source {
        &self.line.scope.key().source
    }

    /// The endpoint for the next attempt: the caller's own choice where it made one. `key` is what a hashing
    /// algorithm goes by.
    pub(super) fn choose(
        &self,
        upstream: &Upstream,
        key: Option<u64>,
        tried: &[SocketAddr],
    ) -> Option<Rc<EndpointLoad>> {
        match &self.aim {
            Aim::Endpoint(_, address) if tried.is_empty() => {
                let known = upstream.endpoint(*address).cloned();
                known.or_else(|| Some(self.former(upstream, *address)))
            }
            Aim::Endpoint(..) => None,
            Aim::Service(_) | Aim::Address(_) => {
                upstream.choose(key, tried, &mut self.worker.rng.borrow_mut())
            }
        }
    }

    /// The endpoint that was dialled, which the service does not have any more.
    fn former(&self, upstream: &Upstream, address: SocketAddr) -> Rc<EndpointLoad> {
        let mut former = self.former.borrow_mut();
        former.get_or_insert_with(|| upstream.former(address)).clone()
    }

    /// What bounds calls to an endpoint that is a pod of this node. Calls from outside have met it when they were
    /// accepted.
    pub(super) fn bounded(&self, endpoint: SocketAddr) -> Option<Bounded> {
        match &self.aim {
            Aim::Service(_) | Aim::Endpoint(..) => self.worker.local_ports.at(endpoint),
            Aim::Address(_) => None,
        }
    }

    /// Whether a retry may go to an endpoint that is not in `tried`.
    pub(super) fn has_beside(&self, upstream: &Upstream, tried: &[SocketAddr]) -> bool {
        match &self.aim {
            Aim::Endpoint(..) => false,
            Aim::Service(_) | Aim::Address(_) => upstream.has_beside(tried),
        }
    }

    /// The destination, for messages.
    pub(super) fn service(&self) -> String {
        self.line.scope.key().destination.to_string()
    }
}

/// A destination of no service that counts for the caller: bytes to that address and nothing else.
fn unseen(worker: &Worker, name: ServicePortName, address: SocketAddr) -> Rc<Upstream> {
    let policy = Policy {
        outlier_detection: None,
        ..Policy::default()
    };
    let port = single(name, Protocol::Tcp, address, policy);
    let guards = worker.view.registry().apart(&port);
    Upstream::new(
        Arc::new(port),
        None,
        guards,
        None,
        Towards::default(),
        &(),
        &mut worker.rng.borrow_mut(),
    )
}

/// A service port with one endpoint.
fn single(name: ServicePortName, protocol: Protocol, address: SocketAddr, policy: Policy) -> ServicePort {
    ServicePort {
        name,
        protocol,
        endpoints: vec![Endpoint::new(address)].into(),
        policy: policy.into(),
        routes: Vec::new(),
    }
}
