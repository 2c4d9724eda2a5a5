//! The endpoints: sockets in pods of the node, served by one thread of this process, and what they have seen.

use std::{
    net::{Ipv4Addr, TcpListener as StdListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use derny_tests::{Pod, calls::Protocol, observe::now};
use socket2::{Domain, Socket, Type};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use crate::{
    http1, http2,
    script::{Endpoint, Probes, Script, Step},
};

pub(crate) const HEALTH_PATH: &str = "/health";
pub(crate) const GRPC_HEALTH_PATH: &str = "/grpc.health.v1.Health/Check";

/// The endpoints of one row behind one proxy.
#[derive(Debug)]
pub(crate) struct Site {
    script: Script,
    seen: Mutex<Seen>,
}

/// What endpoints have seen, in the order of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Arrival>,
    pub(crate) probes: Vec<ProbeSeen>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) endpoint: usize,
    pub(crate) at: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeSeen {
    pub(crate) endpoint: usize,
    pub(crate) at: Instant,
    pub(crate) passes: bool,
}

/// What a probe gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Pass,
    Fail(Probes),
}

impl Site {
    pub(crate) fn new(script: &Script) -> Arc<Self> {
        Arc::new(Self {
            script: script.clone(),
            seen: Mutex::default(),
        })
    }

    pub(crate) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// A request has come whole: what to do with it.
    pub(crate) fn arrived(&self, endpoint: usize, protocol: Protocol) -> Step {
        let mut seen = self.lock();
        let counts = |arrival: &&Arrival| self.script.shared || arrival.endpoint == endpoint;
        let before = seen.requests.iter().filter(counts).count();
        seen.requests.push(Arrival { endpoint, at: now() });
        let step = match &self.script.endpoints[endpoint] {
            Endpoint::Answers(steps) => steps.get(before).or(steps.last()).copied(),
            Endpoint::Refuses | Endpoint::Blackhole => None,
        };
        step.unwrap_or(Step::Good).in_words_of(protocol)
    }

    /// A probe has come.
    pub(crate) fn probed(&self, endpoint: usize) -> Verdict {
        let mut seen = self.lock();
        let begun = seen.requests.first().map(|arrival| arrival.at);
        let counts =
            |probe: &&ProbeSeen| probe.endpoint == endpoint && begun.is_some_and(|at| probe.at >= at);
        let before = seen.probes.iter().filter(counts).count();
        let fails = |probes: &Probes| (probes.good..probes.good.saturating_add(probes.bad)).contains(&before);
        let probes = self.script.probes.filter(|_| endpoint < self.script.sick);
        let fault = probes.filter(fails);
        seen.probes.push(ProbeSeen {
            endpoint,
            at: now(),
            passes: fault.is_none(),
        });
        fault.map_or(Verdict::Pass, Verdict::Fail)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that serves all endpoints.
#[derive(Debug)]
pub(crate) struct Upstreams {
    open: mpsc::UnboundedSender<Opening>,
}

struct Opening {
    listener: StdListener,
    site: Arc<Site>,
    endpoint: usize,
    until: oneshot::Receiver<()>,
}

/// A port that is open as long as this lives.
#[derive(Debug)]
pub(crate) struct Open(#[expect(dead_code, reason = "held for its drop")] oneshot::Sender<()>);

impl Upstreams {
    /// The thread ends when this is dropped.
    pub(crate) fn start() -> Result<Self> {
        let (open, mut openings) = mpsc::unbounded_channel::<Opening>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("building the endpoints' runtime")?;
        thread::spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                while let Some(opening) = openings.recv().await {
                    tokio::task::spawn_local(serve(opening));
                }
            });
        });
        Ok(Self { open })
    }

    /// Opens `port` in `pod`. The socket is made in there and stays, whoever serves it.
    pub(crate) fn listen(&self, pod: &Pod, port: u16, site: &Arc<Site>, endpoint: usize) -> Result<Open> {
        let listener = pod
            .inside(|| bind(port))?
            .with_context(|| format!("listening on port {port} of {}", pod.name()))?;
        let (sender, until) = oneshot::channel();
        let opening = Opening {
            listener,
            site: Arc::clone(site),
            endpoint,
            until,
        };
        self.open.send(opening).ok().context("the endpoints' thread")?;
        Ok(Open(sender))
    }
}

fn bind(port: u16) -> std::io::Result<StdListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&(std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

async fn serve(opening: Opening) {
    let Opening {
        listener,
        site,
        endpoint,
        until,
    } = opening;
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let accepting = async {
        while let Ok((stream, _)) = listener.accept().await {
            let site = Arc::clone(&site);
            tokio::task::spawn_local(async move {
                let _ = stream.set_nodelay(true);
                let mut first = [0; 3];
                // Only a connection without a byte, such as a TCP check, has no version.
                let spoken = stream.peek(&mut first).await;
                if !matches!(spoken, Ok(count) if count > 0) {
                    return;
                }
                // A caller that goes away is no fault of the endpoint's.
                let _ = if first.starts_with(b"PRI") {
                    http2::serve(stream, &site, endpoint).await
                } else {
                    http1::serve(stream, &site, endpoint).await
                };
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = until => {}
    }
}
