//! Workers, callers, and a configuration that changes.

mod check;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_local, yield_now},
    time::{Instant, advance, sleep},
};

use self::check::Before;
use super::{
    endpoint::{Book, Mood, Site},
    seen::Seen,
    setting::{Nobody, RETRIES, breaking, name, place, policy},
};
use crate::{
    accept::{Ability, Acceptor},
    drain,
    model::{
        Endpoint, EndpointState, EnrolmentId, Pod, PodAddresses, PodName, Policy, Protocol, Service,
        ServicePort, Update,
    },
    pool::Here,
    proxy::{
        Registry,
        context::Worker,
        exchange::exchange,
        inlet::Inlet,
        local_pod::{EnrolledPod, LocalPod, LocalPods},
        local_ports::LocalPorts,
        view::View,
    },
    record::{Hub, LogBounds, Recorder, Sink, Writer},
    respond::Body,
    share::unbounded,
    snapshot::{Destination, Reducer, Snapshot, Target},
};

const ENDPOINTS: usize = 5;
const STEP: Duration = Duration::from_millis(10);
/// Turns of the runtime, each with a look at the sockets, in which one step's requests get as far as they can
/// without time.
const TURNS: usize = 24;

/// One request of a caller.
struct Call {
    number: u64,
    method: Method,
    /// The endpoints that could be had when it began, or later.
    allowed: HashSet<SocketAddr>,
    task: JoinHandle<Outcome>,
}

#[derive(Debug)]
enum Outcome {
    Answered(StatusCode),
    /// The answer broke off.
    BrokenOff,
}

pub(super) struct World {
    rng: fastrand::Rng,
    /// What the registry's own sweep goes by.
    sweeps: fastrand::Rng,
    sites: Vec<Rc<Site>>,
    /// Whether the configuration has each site, and in which state.
    listed: Vec<Option<EndpointState>>,
    policy: Policy,
    protocol: Protocol,
    reducer: Reducer,
    snapshot: watch::Sender<Arc<Snapshot>>,
    registry: Registry,
    workers: Vec<Rc<Worker>>,
    inlets: Vec<Rc<Inlet>>,
    hub: Hub,
    book: Rc<Book>,
    calls: Vec<Call>,
    next: u64,
    /// Calls that were not given up before they began.
    begun: Rc<Cell<u64>>,
    ended: Rc<RefCell<HashSet<u64>>>,
    /// Levels of each breaker after the step before, and endpoints out per workload.
    before: Vec<Before>,
    seen: Seen,
}

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        fastrand::seed(seed);
        let protocol = if seed.is_multiple_of(2) {
            Protocol::Http
        } else {
            Protocol::Http2
        };
        let book = Rc::new(Book::default());
        let mut sites = Vec::new();
        for _ in 0..ENDPOINTS {
            sites.push(Site::new(protocol, book.clone(), rng.u64(..)).await);
        }
        let policy = policy(&mut rng);
        let hub = Hub::default();
        let writer = Writer::start(Sink::Off, LogBounds::default(), ()).unwrap();
        let registry = Registry::default();
        let (snapshot, published) = watch::channel(Arc::default());
        let (_, drain) = drain::channel();
        let worker = || {
            let recorder = Recorder::new(&hub, &writer);
            Rc::new(Worker {
                view: View::new(published.clone(), registry.clone()),
                pods: LocalPods::default(),
                acceptor: Acceptor::new(Ability::new(Instant::now()), None, recorder.clone()),
                recorder,
                origins: Box::new(Nobody),
                local_ports: LocalPorts::default(),
                rng: RefCell::new(fastrand::Rng::with_seed(seed)),
                _drain: drain.guard(),
                demand: Arc::new(()),
                endpoints_wait: std::time::Duration::ZERO,
                workers: 2,
                limits: crate::transport::Limits::default(),
                connections: std::cell::Cell::new(0),
            })
        };
        let mut this = Self {
            sweeps: rng.fork(),
            listed: vec![Some(EndpointState::Ready); ENDPOINTS],
            reducer: Reducer::default(),
            workers: vec![worker(), worker()],
            inlets: Vec::new(),
            calls: Vec::new(),
            next: 0,
            begun: Rc::default(),
            ended: Rc::default(),
            before: Vec::new(),
            seen: Seen::default(),
            rng,
            sites,
            policy,
            protocol,
            snapshot,
            registry,
            hub,
            book,
        };
        this.publish();
        // Two replicas of one workload on two workers, and a neighbour that calls the same service.
        for (number, (worker, workload)) in [(0, "front"), (1, "front"), (1, "neighbour")]
            .into_iter()
            .enumerate()
        {
            let inlet = this.inlet(worker, u16::try_from(number).unwrap(), workload).await;
            this.inlets.push(inlet);
        }
        this
    }

    async fn inlet(&self, worker: usize, number: u16, workload: &str) -> Rc<Inlet> {
        let worker = &self.workers[worker];
        let id = EnrolmentId {
            netns_cookie: number.into(),
            generation: 1,
        };
        let enrolled = EnrolledPod {
            id,
            pod: Arc::new(Pod {
                name: PodName {
                    namespace: "demo".into(),
                    name: format!("pod-{number}").into(),
                },
                workload: workload.into(),
                netns: "/nowhere".into(),
                addresses: PodAddresses::default(),
                since: None,
                inbound: Vec::new(),
                is_ending: false,
            }),
            addresses: vec![[127, 0, 0, 1].into()],
            sockets: Arc::new(Here),
            account: unbounded().account().clone(),
            outbound: Vec::new(),
            inbound: Vec::new(),
        };
        let (pod, _) = LocalPod::new(worker.view.registry(), &worker.recorder.counters, &enrolled);
        let destination = Destination::new(([10, 96, 0, 1], 80).into(), Target::Service(name()));
        let place = place(&worker.acceptor, &pod.share).await;
        Inlet::outbound(worker, &pod, &destination, (Ipv4Addr::LOCALHOST.into(), place))
    }

    /// Gives the workers the configuration as it is now.
    fn publish(&mut self) {
        let endpoints = (self.sites.iter().zip(&self.listed)).filter_map(|(site, state)| {
            let state = (*state)?;
            Some(Endpoint {
                state,
                ..Endpoint::new(site.address)
            })
        });
        let port = ServicePort {
            name: name(),
            protocol: self.protocol,
            endpoints: endpoints.collect(),
            policy: self.policy.clone().into(),
            routes: Vec::new(),
        };
        let service = Service {
            name: name().service,
            addresses: vec![[10, 96, 0, 1].into()],
            ports: vec![Arc::new(port)],
        };
        let refused = self.reducer.apply(
            vec![Update::Service(Arc::new(service))],
            Instant::now().into_std(),
        );
        assert!(refused.is_empty());
        self.snapshot.send_replace(self.reducer.view());
        let open = self.open_to_new();
        for call in &mut self.calls {
            call.allowed.extend(&open);
        }
    }

    /// The endpoints that get new requests, as far as the configuration goes.
    fn open_to_new(&self) -> HashSet<SocketAddr> {
        let any_ready = self.listed.contains(&Some(EndpointState::Ready));
        let open = |state: &EndpointState| match state {
            EndpointState::Ready => true,
            // Better than nobody.
            EndpointState::Terminating | EndpointState::Unhealthy => !any_ready,
        };
        let listed = self.sites.iter().zip(&self.listed);
        listed
            .filter(|(_, state)| state.as_ref().is_some_and(open))
            .map(|(site, _)| site.address)
            .collect()
    }

    pub(super) async fn step(&mut self) {
        if self.rng.u8(..) < 24 {
            let site = &self.sites[self.rng.usize(..ENDPOINTS)];
            let mood = if self.rng.bool() {
                Mood::Good
            } else {
                Mood::ALL[self.rng.usize(..Mood::ALL.len())]
            };
            site.change(mood).await;
        }
        let changed = self.rng.u8(..) < 16;
        if changed {
            self.change();
        }
        for _ in 0..self.rng.usize(..4) {
            self.call();
        }
        if self.rng.u8(..) < 32 && !self.calls.is_empty() {
            let which = self.rng.usize(..self.calls.len());
            self.calls[which].task.abort();
        }
        self.go_on().await;
        self.check(changed);
    }

    async fn go_on(&mut self) {
        advance(STEP).await;
        let now = Instant::now();
        self.registry
            .look_after(&self.snapshot.borrow().clone(), now.into_std(), &mut self.sweeps);
        for inlet in &self.inlets {
            inlet.pod.pools.sweep(now);
        }
        for _ in 0..TURNS {
            yield_now().await;
        }
        self.reap().await;
    }

    /// An endpoint comes, goes, or is about to; or a bound of the policy moves.
    fn change(&mut self) {
        self.seen.changes += 1;
        match self.rng.u8(..4) {
            0 => {
                let breaking = breaking(&mut self.rng);
                self.policy.circuit_breaking = breaking;
            }
            1 => self.policy.retry.attempts = self.rng.u32(..=RETRIES),
            _ => {
                let states = [None, Some(EndpointState::Terminating), Some(EndpointState::Ready)];
                let which = self.rng.usize(..ENDPOINTS);
                self.listed[which] = states[self.rng.usize(..3)];
            }
        }
        self.publish();
    }

    fn call(&mut self) {
        let number = self.next;
        self.next += 1;
        let inlet = self.inlets[self.rng.usize(..self.inlets.len())].clone();
        let (method, body) = match self.rng.u8(..3) {
            0 => (Method::POST, Body::Full("a question".into())),
            _ => (Method::GET, Body::Empty),
        };
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("/{number}"))
            .header("host", "echo")
            .header("x-request-id", number)
            .body(body)
            .unwrap();
        let patience = Duration::from_millis(self.rng.u64(..30));
        let (begun, ended) = (self.begun.clone(), self.ended.clone());
        let task = spawn_local(async move {
            begun.set(begun.get() + 1);
            let answered = exchange(&inlet, request).await;
            let response = answered.unwrap_or_else(|refused| refused.answer(&inlet));
            let status = response.status();
            // A caller that is slow to read.
            sleep(patience).await;
            let read = response.into_body().collect().await;
            assert!(ended.borrow_mut().insert(number), "{number} ended twice");
            match read {
                Ok(_) => Outcome::Answered(status),
                Err(_) => Outcome::BrokenOff,
            }
        });
        self.calls.push(Call {
            number,
            method,
            allowed: self.open_to_new(),
            task,
        });
    }
}
