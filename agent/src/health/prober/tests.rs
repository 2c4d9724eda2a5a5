//! The prober against servers of this process: real sockets and short intervals.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::{
    health::Seen,
    model::{Endpoint as ModelEndpoint, Policy, Probe, Protocol, Service, ServiceName},
    pool::Here,
    snapshot::Reducer,
};

/// A server whose answer the test changes.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    status: Arc<AtomicUsize>,
    /// `METHOD path host` of every request.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(status: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            status: Arc::new(AtomicUsize::new(status)),
            seen: Arc::default(),
        };
        let this = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let this = this.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let host = request.headers()["host"].to_str().unwrap().to_owned();
                    let line = format!("{} {} {host}", request.method(), request.uri());
                    this.seen.lock().unwrap().push(line);
                    let status = u16::try_from(this.status.load(Ordering::Relaxed)).unwrap();
                    let body = Full::new(Bytes::from_static(b"a few words"));
                    async move { Response::builder().status(status).body(body) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        server
    }

    fn say(&self, status: usize) {
        self.status.store(status, Ordering::Relaxed);
    }
}

fn http_check() -> HealthCheck {
    HealthCheck {
        probe: Probe::Http {
            path: "/healthz?deep=1".into(),
            host: None,
            expected: vec![(200, 299)],
        },
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        jitter: 10,
        port: None,
    }
}

fn name() -> ServicePortName {
    let service = ServiceName {
        namespace: "default".into(),
        name: "echo".into(),
    };
    ServicePortName { service, port: 80 }
}

fn service(endpoints: &[SocketAddr], check: Option<HealthCheck>) -> Update {
    let port = ServicePort {
        name: name(),
        protocol: Protocol::Http,
        endpoints: endpoints.iter().copied().map(ModelEndpoint::new).collect(),
        policy: Arc::new(Policy {
            health_check: check,
            ..Policy::default()
        }),
        routes: vec![],
    };
    Update::Service(Arc::new(Service {
        name: name().service,
        addresses: vec![],
        ports: vec![Arc::new(port)],
    }))
}

/// A prober that runs, with the reducer that takes what it says.
struct Running {
    reducer: Reducer,
    view: watch::Sender<Arc<Snapshot>>,
    updates: mpsc::Receiver<Vec<Update>>,
    board: Board,
    passes: Arc<AtomicUsize>,
    _trigger: drain::Trigger,
}

impl Running {
    fn start(max_probes: usize) -> Self {
        let passes = Arc::new(AtomicUsize::new(0));
        let counted = passes.clone();
        let prober = Prober::new(max_probes, max_probes, Refusals::default(), move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let board = prober.board();
        let view = watch::Sender::default();
        let (send, updates) = mpsc::channel(4);
        let (trigger, drain) = drain::channel();
        tokio::spawn(prober.run(view.subscribe(), send, Arc::new(Here), drain));
        Self {
            reducer: Reducer::default(),
            view,
            updates,
            board,
            passes,
            _trigger: trigger,
        }
    }

    fn apply(&mut self, update: Update) {
        self.reducer.apply(vec![update], Instant::now().into_std());
        self.view.send_replace(self.reducer.view());
    }

    /// Applies what the prober says until `endpoint` is as given.
    async fn until(&mut self, endpoint: SocketAddr, state: EndpointState) {
        let reached = async {
            while self.state(endpoint) != state {
                for update in self.updates.recv().await.expect("a prober that runs") {
                    self.apply(update);
                }
            }
        };
        timeout(Duration::from_secs(10), reached)
            .await
            .expect("the verdict in time");
    }

    fn state(&self, endpoint: SocketAddr) -> EndpointState {
        let view = self.reducer.view();
        let port = view.ports.get(&name()).unwrap();
        port.endpoints
            .iter()
            .find(|e| e.address == endpoint)
            .unwrap()
            .state
    }

    /// Waits until what is known of `endpoint` is so.
    async fn seen(&self, endpoint: SocketAddr, so: impl Fn(&Seen) -> bool) -> Seen {
        let look = async {
            loop {
                if let Some(seen) = self.board.of(&name(), endpoint)
                    && so(&seen)
                {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), look)
            .await
            .expect("the result in time")
    }
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn an_endpoint_leaves_and_comes_back() {
    let (good, sick) = (Server::start(200).await, Server::start(200).await);
    let mut running = Running::start(8);
    running.apply(service(&[good.address, sick.address], Some(http_check())));
    running
        .seen(sick.address, |seen| seen.state.verdict() == Verdict::Healthy)
        .await;
    sick.say(503);
    running.until(sick.address, EndpointState::Unhealthy).await;
    let seen = running.seen(sick.address, |seen| seen.failure.is_some()).await;
    assert_eq!(seen.failure, Some(Failure::Status(503)));
    assert!(seen.state.consecutive() >= 3, "{seen:?}");
    let request = format!("GET /healthz?deep=1 {}", sick.address);
    assert_eq!(sick.seen.lock().unwrap().first(), Some(&request));

    sick.say(204);
    running.until(sick.address, EndpointState::Ready).await;
    assert_eq!(running.state(good.address), EndpointState::Ready);
    assert!(running.passes.load(Ordering::Relaxed) > 0);
    let results: HashMap<_, _> = running.board.numbers().results.into_iter().collect();
    assert!(results["status"] >= 3 && results["passed"] >= 3, "{results:?}");
}

#[tokio::test]
async fn the_first_verdict_needs_one_probe() {
    let address = nobody().await;
    let mut running = Running::start(8);
    let check = HealthCheck {
        interval: Duration::from_secs(3600),
        ..http_check()
    };
    running.apply(service(&[address], Some(check)));
    assert_eq!(running.state(address), EndpointState::Ready);
    running.until(address, EndpointState::Unhealthy).await;
    let seen = running.board.of(&name(), address).unwrap();
    assert_eq!(seen.state.consecutive(), 1);
    assert!(matches!(seen.failure, Some(Failure::Connect(_))), "{seen:?}");
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_no_longer_probed() {
    let (one, two) = (Server::start(200).await, Server::start(500).await);
    let mut running = Running::start(8);
    running.apply(service(&[one.address, two.address], Some(http_check())));
    running.until(two.address, EndpointState::Unhealthy).await;
    running.apply(service(&[one.address], Some(http_check())));
    let gone = async {
        while running.board.of(&name(), two.address).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), gone)
        .await
        .expect("forgotten in time");
    let before = two.seen.lock().unwrap().len();
    let rounds = one.seen.lock().unwrap().len() + 5;
    running
        .seen(one.address, |_| one.seen.lock().unwrap().len() >= rounds)
        .await;
    assert_eq!(two.seen.lock().unwrap().len(), before);

    // Without the check the endpoint is as discovery says, and a check that comes again finds out anew.
    running.apply(service(&[one.address, two.address], None));
    assert_eq!(running.state(two.address), EndpointState::Ready);
    running.apply(service(&[one.address, two.address], Some(http_check())));
    running.until(two.address, EndpointState::Unhealthy).await;
}

#[tokio::test]
async fn another_check_keeps_the_verdict_until_it_has_its_own() {
    let server = Server::start(500).await;
    let mut running = Running::start(8);
    running.apply(service(&[server.address], Some(http_check())));
    running.until(server.address, EndpointState::Unhealthy).await;
    let expects_500 = HealthCheck {
        probe: Probe::Http {
            path: "/".into(),
            host: Some("echo.example".into()),
            expected: vec![(404, 404), (500, 500)],
        },
        ..http_check()
    };
    running.apply(service(&[server.address], Some(expects_500)));
    assert_eq!(running.state(server.address), EndpointState::Unhealthy);
    running.until(server.address, EndpointState::Ready).await;
    assert_eq!(server.seen.lock().unwrap().last().unwrap(), "GET / echo.example");
}

#[tokio::test]
async fn a_verdict_that_was_lost_is_said_again() {
    let address = nobody().await;
    let mut running = Running::start(8);
    let check = HealthCheck {
        interval: Duration::from_secs(3600),
        ..http_check()
    };
    running.apply(service(&[address], Some(check.clone())));
    running.until(address, EndpointState::Unhealthy).await;
    // The endpoint goes and comes back faster than the prober looks: to it nothing has happened.
    running
        .reducer
        .apply(vec![service(&[], Some(check.clone()))], Instant::now().into_std());
    running.apply(service(&[address], Some(check)));
    assert_eq!(running.state(address), EndpointState::Ready);
    running.until(address, EndpointState::Unhealthy).await;
}

#[tokio::test]
async fn no_more_probes_than_allowed_are_under_way() {
    // They accept, and never answer: each probe takes its whole timeout.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: Vec<_> = silent.iter().map(|l| l.local_addr().unwrap()).collect();
    let mut running = Running::start(1);
    let check = HealthCheck {
        interval: Duration::from_secs(3600),
        timeout: Duration::from_millis(50),
        ..http_check()
    };
    let began = Instant::now();
    running.apply(service(&addresses, Some(check)));
    for address in addresses {
        let seen = running.seen(address, |seen| seen.failure.is_some()).await;
        assert_eq!(seen.failure, Some(Failure::Timeout(Duration::from_millis(50))));
    }
    assert!(
        began.elapsed() >= Duration::from_millis(150),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(running.board.numbers().held_back, 2);
}

#[test]
fn an_interval_runs_from_start_to_start() {
    let check = HealthCheck {
        interval: Duration::from_secs(10),
        jitter: 20,
        ..http_check()
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let mut waits = |turn, spent| -> Vec<Duration> {
        let waits = (0..1000).map(|_| pause(&check, turn, Duration::from_secs(spent), &mut rng));
        waits.collect()
    };
    let later = waits(Turn::Later, 3);
    let (least, most) = (*later.iter().min().unwrap(), *later.iter().max().unwrap());
    assert!(
        least >= Duration::from_secs(7) && least < Duration::from_millis(7100),
        "{least:?}"
    );
    assert!(
        most <= Duration::from_secs(9) && most > Duration::from_millis(8900),
        "{most:?}"
    );
    // Spread over the interval after the first.
    let first = waits(Turn::First, 0);
    let early = first
        .iter()
        .filter(|wait| **wait < Duration::from_millis(5500))
        .count();
    assert!((400..600).contains(&early), "{early}");
    // A probe that took longer than the interval is followed at once.
    assert_eq!(waits(Turn::Later, 60)[0], Duration::ZERO);
}
