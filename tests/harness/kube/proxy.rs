//! Between the agent and the API server: plain HTTP in the node's network namespace, and faults on demand.

use std::{
    convert::Infallible,
    future::Future,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as Poller, Poll},
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use tokio::{runtime::Handle, sync::watch, time::Instant};

use crate::Node;

/// What happens to a request in the place of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// 410: the server no longer knows the version.
    Gone,
    /// 500.
    Broken,
    /// 404.
    NotFound,
    /// 429, as of a server that has just started.
    Throttled,
    /// 429 in plain text with so many seconds in its header, as priority and fairness answer.
    RetryAfter(u32),
    /// 403.
    Forbidden,
    /// The connection ends.
    Cut,
    /// The answer comes so much later.
    Slow(Duration),
    /// A watch of EndpointSlices says that it stands where everything began, and ends.
    StaleBookmark,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
struct Rule {
    /// In the path and query.
    contains: String,
    fault: Fault,
    /// Requests that it is still for.
    left: usize,
}

impl Rule {
    fn new(contains: &str, fault: Fault, times: usize) -> Self {
        Self {
            contains: contains.to_owned(),
            fault,
            left: times,
        }
    }
}

#[derive(Debug, Default)]
struct Told {
    rules: Mutex<Vec<Rule>>,
    /// Path and query of every request, and when it came.
    seen: Mutex<Vec<(Instant, String)>>,
}

#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    told: Arc<Told>,
    /// Counts up when all answers that stream are to end.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    pub(super) fn start(node: &Node, runtime: &Handle, client: Client) -> Result<Self> {
        let listener = node
            .host()
            .netns()
            .run(|| TcpListener::bind("127.0.0.1:0"))?
            .context("the proxy's port")?;
        listener.set_nonblocking(true).context("the proxy's port")?;
        let address = listener.local_addr().context("the proxy's port")?;
        let told = Arc::<Told>::default();
        let (cuts, _) = watch::channel(0);
        let (rules, cut) = (told.clone(), cuts.subscribe());
        runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                let (client, told, cut) = (client.clone(), rules.clone(), cut.clone());
                let serve =
                    service_fn(move |request| relay(client.clone(), told.clone(), cut.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        Ok(Self { address, told, cuts })
    }

    /// A kubeconfig that leads here.
    pub(super) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: t, cluster: {{server: \"http://{}\"}}}}]\n\
             users: [{{name: a, user: {{}}}}]\ncontexts: [{{name: t, context: {{cluster: t, user: a}}}}]\n\
             current-context: t\n",
            self.address
        )
    }

    /// The next `times` requests with `contains` in their path or query fail so.
    pub fn fault(&self, contains: &str, fault: Fault, times: usize) {
        lock(&self.told.rules).push(Rule::new(contains, fault, times));
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.heal_but([]);
    }

    /// Takes all faults back, and from the same moment on has these: what [`Self::fault`] takes.
    pub fn heal_but<'a>(&self, faults: impl IntoIterator<Item = (&'a str, Fault, usize)>) {
        let rules = faults
            .into_iter()
            .map(|(contains, fault, times)| Rule::new(contains, fault, times));
        *lock(&self.told.rules) = rules.collect();
    }

    /// Ends all answers that stream: every watch.
    pub fn cut_watches(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Path and query of the requests so far that contain all of `words`.
    pub fn seen(&self, words: &[&str]) -> Vec<String> {
        self.seen_at(words).into_iter().map(|(_, path)| path).collect()
    }

    /// The same, with when each came.
    pub fn seen_at(&self, words: &[&str]) -> Vec<(Instant, String)> {
        let seen = lock(&self.told.seen);
        let wanted = seen
            .iter()
            .filter(|(_, path)| words.iter().all(|word| path.contains(word)));
        wanted.cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn relay(
    client: Client,
    told: Arc<Told>,
    cut: watch::Receiver<u64>,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError> {
    let path = request
        .uri()
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    lock(&told.seen).push((Instant::now(), path.clone()));
    match take(&told, &path) {
        None => {}
        Some(Fault::Cut) => return Err("cut".into()),
        Some(Fault::Slow(by)) => tokio::time::sleep(by).await,
        Some(Fault::StaleBookmark) => return Ok(stale_bookmark()),
        Some(Fault::Gone) => return Ok(refusal(StatusCode::GONE, "Expired")),
        Some(Fault::Broken) => return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
        Some(Fault::NotFound) => return Ok(refusal(StatusCode::NOT_FOUND, "NotFound")),
        Some(Fault::Forbidden) => return Ok(refusal(StatusCode::FORBIDDEN, "Forbidden")),
        Some(Fault::RetryAfter(seconds)) => return Ok(retry_after(seconds)),
        Some(Fault::Throttled) => return Ok(refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")),
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut forward = Request::new(Body::from(body.to_vec()));
    *forward.method_mut() = head.method;
    *forward.uri_mut() = path.parse()?;
    *forward.headers_mut() = head.headers;
    forward.headers_mut().remove(http::header::HOST);
    // A server that is away is away for who asks here, too.
    let response = client.send(forward).await?;
    let mut cut = cut;
    cut.mark_unchanged();
    let ended = Box::pin(async move {
        let _ = cut.changed().await;
    });
    let (mut head, body) = response.into_parts();
    head.version = http::Version::HTTP_11;
    head.headers.remove(http::header::TRANSFER_ENCODING);
    Ok(Response::from_parts(
        head,
        Cuttable { body, ended }.boxed_unsync(),
    ))
}

/// The fault of a request, of the first rule that is for it.
fn take(told: &Told, path: &str) -> Option<Fault> {
    let mut rules = lock(&told.rules);
    let rule = rules
        .iter_mut()
        .find(|rule| rule.left > 0 && path.contains(&rule.contains))?;
    rule.left -= 1;
    Some(rule.fault.clone())
}

fn refusal(status: StatusCode, reason: &str) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let text = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "as the test wants it", "reason": reason, "code": status.as_u16(),
    });
    let mut response = whole(text);
    *response.status_mut() = status;
    response
}

fn retry_after(seconds: u32) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let text = http_body_util::Full::from("Too many requests, please try again later.\n");
    let mut response = Response::new(text.map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response
        .headers_mut()
        .insert(http::header::RETRY_AFTER, seconds.into());
    response
}

fn stale_bookmark() -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let object = serde_json::json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {"resourceVersion": "1"},
    });
    whole(serde_json::json!({"type": "BOOKMARK", "object": object}))
}

/// An answer that is complete, of one line.
fn whole(value: serde_json::Value) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let line = http_body_util::Full::from(format!("{value}\n"));
    Response::new(line.map_err(|never: Infallible| match never {}).boxed_unsync())
}

/// A body that ends badly when it is told to.
struct Cuttable {
    body: Body,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl http_body::Body for Cuttable {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("cut".into())));
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(BoxError::from)
    }
}
