//! The whole way of a request, with two pods on one worker and a server that says what it was told. One pod sends the
//! input; the other calls meanwhile, and must get its own answer whole, and nobody else any of it.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use derny::{
    drain,
    model::{
        DestinationId, Endpoint, EnrolmentId, Origins, Pod, PodAddresses, PodName, Policy, Protocol,
        ServiceName, ServicePort, ServicePortName, Slot,
    },
    pool::{DialAs, Sockets},
    proxy::{self, Command, EnrolledPod, Progress, Registry, Setup},
    record::{Hub, LogBounds, SeriesBounds, Sink, Writer},
    share::{Ledger, Limits},
    snapshot::{Destination, Snapshot, Target},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    sync::{mpsc, watch},
    task::LocalSet,
    time::timeout,
};

use crate::memory;

/// What the attacked pod says, in a header and fifty times in the body, which HTTP/2 does not compress. Nothing else
/// contains it.
const SECRET: &str = "secret-of-the-other-pod";
/// What the attack may take, of the engine, the server and the test.
const ATTACK_BYTES: usize = 16 << 20;
/// How long an attacking connection is listened to while nothing comes.
const PATIENCE: Duration = Duration::from_millis(5);
const LEAKED: &str = "the attacker was sent what the other pod said";

static PANICS: AtomicU64 = AtomicU64::new(0);

/// A node with two pods.
pub(super) struct Site {
    runtime: Runtime,
    tasks: LocalSet,
    /// Where each pod's calls to the service arrive.
    pods: [SocketAddr; 2],
    calls: u64,
    /// Their ends would be the worker's.
    _ends: (
        drain::Trigger,
        watch::Sender<Arc<Snapshot>>,
        mpsc::UnboundedSender<Command>,
    ),
}

impl Site {
    pub(super) fn start() -> Result<Self, String> {
        // SAFETY: to ignore a signal runs no code when it comes. A `main` of Rust's does the same, libFuzzer's does not.
        let ignored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
        ignored.map_err(|error| error.to_string())?;
        // The engine catches panics of tasks. libFuzzer's own hook, which comes after this, ends the process.
        let after = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Relaxed);
            after(panic);
        }));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let tasks = LocalSet::new();
        let (pods, ends) = tasks.block_on(&runtime, build());
        let mut site = Self {
            runtime,
            tasks,
            pods,
            calls: 0,
            _ends: ends,
        };
        // An attack is answered, and what must not be in the answer would be found.
        let told = format!("GET / HTTP/1.1\r\nhost: echo\r\nx-secret: {SECRET}\r\nconnection: close\r\n\r\n");
        match site.attack_for(told.as_bytes(), Duration::from_secs(5)) {
            Err(fault) if fault == LEAKED => Ok(site),
            other => Err(format!("the test does not see what it looks for: {other:?}")),
        }
    }

    /// One pod sends `bytes` while the other makes a call.
    pub(super) fn attack(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.attack_for(bytes, PATIENCE)
    }

    fn attack_for(&mut self, bytes: &[u8], patience: Duration) -> Result<(), String> {
        self.calls += 1;
        let (panics, before) = (PANICS.load(Relaxed), memory::reset_peak());
        let own = format!("{SECRET}-{}", self.calls);
        let both = async { tokio::join!(attack(self.pods[0], bytes, patience), call(self.pods[1], &own)) };
        let (attacker, answer) = self.tasks.block_on(&self.runtime, both);
        let answer = answer.map_err(|error| format!("the other pod's call failed: {error}"))?;
        let taken = memory::peak().saturating_sub(before);
        if PANICS.load(Relaxed) != panics {
            return Err("something panicked".to_owned());
        }
        if attacker
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes())
        {
            return Err(LEAKED.to_owned());
        }
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        if !head.starts_with("HTTP/1.1 200") || body != own.repeat(50) {
            return Err(format!("the other pod was answered {answer:?}"));
        }
        if taken > ATTACK_BYTES {
            return Err(format!("{taken} bytes of memory"));
        }
        Ok(())
    }
}

type Ends = (
    drain::Trigger,
    watch::Sender<Arc<Snapshot>>,
    mpsc::UnboundedSender<Command>,
);

async fn build() -> ([SocketAddr; 2], Ends) {
    let server = serve().await;
    let service = ServicePortName {
        service: ServiceName {
            namespace: "demo".into(),
            name: "echo".into(),
        },
        port: 80,
    };
    let port = ServicePort {
        name: service.clone(),
        protocol: Protocol::Http,
        endpoints: vec![Endpoint::new(server)].into(),
        policy: Policy {
            // Whatever the attacker makes of its calls, the endpoint stays.
            outlier_detection: None,
            ..Policy::default()
        }
        .into(),
        routes: Vec::new(),
    };
    let id = DestinationId::new(1).unwrap();
    let destination = Destination::new(([10, 96, 0, 1], 80).into(), Target::Service(service.clone()));
    let pods = [pod("attacker"), pod("other")];
    let slots = [Slot::new(0).unwrap(), Slot::new(1).unwrap()];
    let snapshot = Snapshot {
        version: 1,
        pods: slots.into_iter().zip(pods.clone()).collect(),
        ports: [(service, Arc::new(port))].into_iter().collect(),
        destinations: [(id, destination)].into_iter().collect(),
        ..Snapshot::default()
    };
    let (snapshots, snapshot) = watch::channel(Arc::new(snapshot));
    let (commands, told) = mpsc::unbounded_channel();
    let (trigger, drain) = drain::channel();
    tokio::task::spawn_local(proxy::run(Setup {
        index: 0,
        snapshot,
        registry: Registry::default(),
        commands: told,
        origins: Box::new(ToTheService(id)),
        hub: Hub::new(SeriesBounds::default()),
        writer: Writer::start(Sink::Off, LogBounds::default(), ()).unwrap(),
        progress: Progress::new(tokio::time::Instant::now()),
        cut: drain.clone(),
        drain,
        demand: Arc::new(()),
        endpoints_wait: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        workers: 1,
        give_memory_back: || (),
        limits: derny::transport::Limits::default(),
    }));
    let ledger = Ledger::new(Limits::none());
    let addresses = [0, 1].map(|n| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let enrolled = EnrolledPod {
            id: EnrolmentId {
                netns_cookie: slots[n].get().into(),
                generation: 1,
            },
            pod: pods[n].clone(),
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            sockets: Arc::new(Here),
            account: ledger.open(pods[n].name.clone()),
            outbound: vec![listener],
            inbound: Vec::new(),
        };
        assert!(commands.send(Command::Enrol(enrolled)).is_ok(), "the worker runs");
        address
    });
    (addresses, (trigger, snapshots, commands))
}

fn pod(name: &str) -> Arc<Pod> {
    Arc::new(Pod {
        name: PodName {
            namespace: "demo".into(),
            name: name.into(),
        },
        workload: name.into(),
        netns: "/nowhere".into(),
        addresses: PodAddresses::default(),
        since: None,
        is_ending: false,
        inbound: Vec::new(),
    })
}

/// Every redirected connection is to the one service.
struct ToTheService(DestinationId);

impl Origins for ToTheService {
    fn destination(&self, _: u64, _: SocketAddr, _: SocketAddr) -> Option<DestinationId> {
        Some(self.0)
    }
}

#[derive(Debug)]
struct Here;

impl Sockets for Here {
    fn tcp_socket(&self, to: SocketAddr, _: DialAs) -> io::Result<socket2::Socket> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// A server of both versions that answers with what it was sent.
async fn serve() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        // What each header's value was is answered as well: a mixture of two requests would show.
        let echo = service_fn(async |request: Request<Incoming>| {
            let (parts, body) = request.into_parts();
            let body = body
                .collect()
                .await
                .map(|body| body.to_bytes())
                .unwrap_or_default();
            let mut response = Response::new(Full::<Bytes>::new(body));
            if let Some(secret) = parts.headers.get("x-secret") {
                response.headers_mut().insert("x-secret", secret.clone());
            }
            Ok::<_, Infallible>(response)
        });
        let echo = Rc::new(echo);
        while let Ok((stream, _)) = listener.accept().await {
            let echo = echo.clone();
            tokio::task::spawn_local(async move {
                let server = auto::Builder::new(LocalExecutor);
                let _ = server.serve_connection(TokioIo::new(stream), echo).await;
            });
        }
    });
    address
}

#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

/// Everything that is answered to `bytes`, until nothing comes for as long as `patience`, and then to the end of them.
async fn attack(pod: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut answer = Vec::new();
    // Whether the connection breaks is not asked here.
    let _ = talk(pod, bytes, patience, &mut answer).await;
    answer
}

async fn talk(pod: SocketAddr, bytes: &[u8], patience: Duration, answer: &mut Vec<u8>) -> io::Result<()> {
    let mut stream = TcpStream::connect(pod).await?;
    // In two parts: what waits for more is another state than what has it.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    stream.write_all(first).await?;
    tokio::task::yield_now().await;
    stream.write_all(second).await?;
    while let Ok(read) = timeout(patience, stream.read_buf(answer)).await {
        if read? == 0 {
            return Ok(());
        }
    }
    stream.shutdown().await?;
    let _ = timeout(patience, stream.read_to_end(answer)).await;
    Ok(())
}

async fn call(pod: SocketAddr, own: &str) -> io::Result<String> {
    let body = own.repeat(50);
    let length = body.len();
    let request = format!(
        "POST /{own} HTTP/1.1\r\nhost: echo\r\nx-secret: {own}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(pod).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}
