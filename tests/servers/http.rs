//! HTTP/1.1 and HTTP/2 on one port; the path says what the caller wants.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes of the pattern; `?chunked` without their length announced |
//! | `/bytes/N/sha256` | what they hash to |
//! | `/truncate/N` | announces N bytes and breaks off at half; `?chunked` without their length announced |
//! | `/sum` | length and SHA-256 of the request's body; `?rate=N` reads N bytes a second |
//! | `/sum/early` | the same, but the answer's headers go out before the body has come |
//! | `/whole` | how many bodies of `/sum` came to their end, on all connections |
//! | `/tally` | how many POSTs of it came by each version, on all connections |
//! | `/echo` | the request's body, frame by frame |
//! | `/status/N` | that status; 407 with a challenge |
//! | `/delay/250ms` | the description of the request, later |
//! | `/ticks/N/100ms` | N lines, one each 100 ms |
//! | `/reset` | no answer: TCP reset in HTTP/1.1, RST_STREAM in HTTP/2 |
//! | `/close` | an answer, then the connection ends: `connection: close`, or GOAWAY |
//! | `/cancelled` | how many requests were given up by their callers before the answer began, on all connections |
//! | `/thrown` | how many idle connections were closed with a request in them that nobody had read |
//! | `/health` | 200, or 503 after `POST /health/fail` and until `POST /health/ok` |
//! | `/probed` | how often `/health` was asked |
//! | `/ws` | WebSocket that sends back what it gets |
//! | any other | JSON that describes the request as it arrived |

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    mem::MaybeUninit,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, sync::Notify, time::Instant};

use crate::{
    answers::{duration, hex, sum, sum_early, ticks, truncate},
    body::{Announced, AnyBody, Error, Pattern, any, full},
    grpc, websocket,
};

/// Runs what hyper starts on this thread.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[derive(Clone)]
pub(crate) struct Server {
    name: Rc<str>,
    cancelled: Rc<Cell<u64>>,
    thrown: Rc<Cell<u64>>,
    whole: Rc<Cell<u64>>,
    tally: Rc<RefCell<BTreeMap<String, u64>>>,
    health: Rc<Health>,
    slow: Duration,
    status: Option<u16>,
    idle_close: Option<Duration>,
    builder: Rc<auto::Builder<LocalExecutor>>,
}

/// What `/health` says, and how often it was asked.
#[derive(Default)]
struct Health {
    fails: Cell<bool>,
    asked: Cell<u64>,
}

/// What a request's handler knows of its connection.
pub(crate) struct Connection {
    pub(crate) name: Rc<str>,
    pub(crate) peer: SocketAddr,
    /// Requests that were dropped before they were answered, on all connections.
    cancelled: Rc<Cell<u64>>,
    thrown: Rc<Cell<u64>>,
    /// Bodies of `/sum` that came to their end, on all connections.
    pub(crate) whole: Rc<Cell<u64>>,
    /// POSTs of `/tally` by version, on all connections.
    tally: Rc<RefCell<BTreeMap<String, u64>>>,
    health: Rc<Health>,
    /// How late every answer comes.
    slow: Duration,
    status: Option<u16>,
    /// Requests under way, and since when there is none.
    running: Cell<usize>,
    idle_since: Cell<Instant>,
    /// Told when a caller wants the connection to end.
    close: Notify,
    /// Whether it is to end with a TCP reset.
    abort: Cell<bool>,
}

impl Server {
    pub(crate) fn new(
        name: Rc<str>,
        max_concurrent_streams: u32,
        slow: Duration,
        status: Option<u16>,
        idle_close: Option<Duration>,
    ) -> Self {
        let mut builder = auto::Builder::new(LocalExecutor);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(max_concurrent_streams)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        Self {
            name,
            cancelled: Rc::default(),
            thrown: Rc::default(),
            whole: Rc::default(),
            tally: Rc::default(),
            health: Rc::default(),
            slow,
            status,
            idle_close,
            builder: Rc::new(builder),
        }
    }

    /// Until the connection ends, or what it is in the middle of after `end`.
    pub(crate) async fn serve(self, stream: TcpStream, end: impl Future<Output = ()>) {
        let Ok(peer) = stream.peer_addr() else { return };
        // The same connection, to set its manner of ending while hyper holds it.
        let Ok(again) = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned() else {
            return;
        };
        let again = socket2::Socket::from(again);
        let connection = Rc::new(Connection {
            name: self.name,
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            cancelled: self.cancelled,
            thrown: self.thrown,
            whole: self.whole,
            tally: self.tally,
            health: self.health,
            slow: self.slow,
            status: self.status,
            running: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            close: Notify::new(),
            abort: Cell::new(false),
        });
        let service = service_fn(|request| answer(Rc::clone(&connection), request));
        let serving = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        // Callers may go in any way they like.
        tokio::select! {
            _ = serving.as_mut() => {}
            () = connection.idle_for(self.idle_close) => {
                // The FIN first: it acknowledges what had come before it, and that is what is thrown away.
                let _ = again.shutdown(std::net::Shutdown::Write);
                if matches!(again.peek(&mut [MaybeUninit::uninit()]), Ok(1)) {
                    connection.thrown.set(connection.thrown.get() + 1);
                }
            }
            () = async { tokio::select! { () = connection.close.notified() => {}, () = end => {} } } => {
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            }
        }
        if connection.abort.get() {
            let _ = again.set_linger(Some(Duration::ZERO));
        }
    }
}

impl Connection {
    /// Returns when there has been no request for so long; never without a time.
    async fn idle_for(&self, time: Option<Duration>) {
        let Some(time) = time else {
            return std::future::pending().await;
        };
        while self.running.get() > 0 || self.idle_since.get().elapsed() < time {
            let since = if self.running.get() > 0 {
                Instant::now()
            } else {
                self.idle_since.get()
            };
            tokio::time::sleep_until(since + time).await;
        }
    }
}

/// A request under way. Dropped before it is answered, it was cancelled.
struct Running {
    connection: Rc<Connection>,
    answered: bool,
}

impl Running {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.running.set(connection.running.get() + 1);
        Self {
            connection: connection.clone(),
            answered: false,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.running.set(connection.running.get() - 1);
        connection.idle_since.set(Instant::now());
        if !self.answered {
            connection.cancelled.set(connection.cancelled.get() + 1);
        }
    }
}

async fn answer(connection: Rc<Connection>, request: Request<Incoming>) -> Result<Response<AnyBody>, Error> {
    let mut running = Running::new(&connection);
    if !connection.slow.is_zero() {
        tokio::time::sleep(connection.slow).await;
    }
    let answered = match connection.status {
        Some(status) => Ok(Response::builder()
            .status(status)
            .body(any(http_body_util::Full::new(Bytes::new())))?),
        None => answer_as_asked(connection, request).await,
    };
    // An error of hyper's is the request's body that broke off.
    running.answered = !matches!(&answered, Err(error) if error.is::<hyper::Error>());
    answered
}

async fn answer_as_asked(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<AnyBody>, Error> {
    if grpc::is_grpc(&request) {
        return Ok(grpc::answer(connection, request).await);
    }
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let reply = match parts.as_slice() {
        ["bytes", len] => {
            let announced = if query == "chunked" {
                Announced::Nothing
            } else {
                Announced::Length
            };
            Response::new(any(Pattern::new(len.parse()?, announced)))
        }
        ["bytes", len, "sha256"] => {
            let mut hash = Sha256::new();
            let mut pattern = Pattern::new(len.parse()?, Announced::Nothing);
            while let Some(bytes) = pattern.next() {
                hash.update(&bytes);
            }
            Response::new(full(hex(&hash.finalize())))
        }
        ["truncate", len] => {
            let announced = if query == "chunked" {
                Announced::Nothing
            } else {
                Announced::Length
            };
            truncate(len.parse()?, announced)?
        }
        ["sum"] => {
            let rate = query.strip_prefix("rate=").map(str::parse).transpose()?;
            let sum = sum(request.into_body(), rate).await?;
            connection.whole.set(connection.whole.get() + 1);
            json(&sum)?
        }
        ["sum", "early"] => sum_early(connection, request.into_body()),
        ["whole"] => Response::new(full(connection.whole.get().to_string())),
        ["tally"] => {
            if request.method() == Method::POST {
                let version = format!("{:?}", request.version());
                *connection.tally.borrow_mut().entry(version).or_default() += 1;
            }
            json(&serde_json::json!(*connection.tally.borrow()))?
        }
        ["echo"] => {
            let named = request.headers().get(header::TRAILER).cloned();
            let mut reply = Response::new(any(request.into_body()));
            // In HTTP/1.1 only trailers that were named beforehand are sent.
            reply
                .headers_mut()
                .extend(named.map(|names| (header::TRAILER, names)));
            reply
        }
        ["status", status, ..] => {
            let mut reply = describe(&connection, &request)?;
            *reply.status_mut() = StatusCode::from_bytes(status.as_bytes())?;
            if reply.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                let challenge = HeaderValue::from_static("Basic");
                reply.headers_mut().insert(header::PROXY_AUTHENTICATE, challenge);
            }
            reply
        }
        ["delay", time] => {
            tokio::time::sleep(duration(time)?).await;
            describe(&connection, &request)?
        }
        ["ticks", count, every] => ticks(count.parse()?, duration(every)?),
        ["reset"] => {
            connection.abort.set(request.version() < Version::HTTP_2);
            return Err("reset, as asked".into());
        }
        ["close"] => {
            connection.close.notify_one();
            let mut reply = describe(&connection, &request)?;
            if request.version() < Version::HTTP_2 {
                reply
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            reply
        }
        ["thrown"] => Response::new(full(connection.thrown.get().to_string())),
        ["cancelled"] => Response::new(full(connection.cancelled.get().to_string())),
        ["health"] => {
            connection.health.asked.set(connection.health.asked.get() + 1);
            let mut reply = describe(&connection, &request)?;
            if connection.health.fails.get() {
                *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            reply
        }
        ["health", state] if request.method() == Method::POST => {
            connection.health.fails.set(*state == "fail");
            describe(&connection, &request)?
        }
        ["probed"] => json(&connection.health.asked.get().into())?,
        ["ws"] => websocket::upgrade(request)?,
        _ if request.method() == Method::CONNECT => websocket::connect(request),
        _ => describe(&connection, &request)?,
    };
    Ok(reply)
}

/// The request as it arrived.
fn describe(connection: &Connection, request: &Request<Incoming>) -> Result<Response<AnyBody>, Error> {
    let mut headers = serde_json::Map::new();
    for name in request.headers().keys() {
        let values: Vec<_> = request
            .headers()
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        headers.insert(name.to_string(), values.join(", ").into());
    }
    json(&serde_json::json!({
        "endpoint": &*connection.name,
        "peer": connection.peer,
        "version": format!("{:?}", request.version()),
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map_or("", |path| path.as_str()),
        "authority": request.uri().authority().map(|authority| authority.as_str()),
        "headers": headers,
    }))
}

fn json(value: &serde_json::Value) -> Result<Response<AnyBody>, Error> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(full(text))?)
}
