//! What is left where no API server is to be had: real HTTP, lists, watches and server-side apply, over a store in
//! memory. It knows no schemas, no conflicts between appliers, and never forgets a version.

mod store;

use std::{
    convert::Infallible,
    net::{Ipv4Addr, TcpListener},
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Poll},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use store::{Key, Query, Refused, Store};

/// Bytes of events that may wait for a slow watcher, in events.
const AHEAD: usize = 1024;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The server. What it knows outlives [`Small::stop`].
#[derive(Debug)]
pub(super) struct Small {
    runtime: Handle,
    port: u16,
    store: Arc<Store>,
    serving: Option<JoinHandle<()>>,
}

impl Small {
    pub(super) fn new(runtime: &Handle, port: u16) -> Self {
        Self {
            runtime: runtime.clone(),
            port,
            store: Arc::default(),
            serving: None,
        }
    }

    pub(super) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: t, cluster: {{server: \"http://127.0.0.1:{}\"}}}}]\n\
             users: [{{name: a, user: {{}}}}]\ncontexts: [{{name: t, context: {{cluster: t, user: a}}}}]\n\
             current-context: t\n",
            self.port
        )
    }

    pub(super) fn start(&mut self) -> Result<()> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).context("the small API server's port")?;
        listener
            .set_nonblocking(true)
            .context("the small API server's port")?;
        let store = self.store.clone();
        self.serving = Some(self.runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            // Dropped with this task, they end with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let store = store.clone();
                let serve = service_fn(move |request| answer(store.clone(), request));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
                while connections.try_join_next().is_some() {}
            }
        }));
        Ok(())
    }

    /// Every connection ends at once, as when the process is killed.
    pub(super) fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = self.runtime.block_on(serving);
        }
    }
}

async fn answer(store: Arc<Store>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let query = Query::read(head.uri.query().unwrap_or_default());
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let path = head.uri.path();
    if matches!(path, "/readyz" | "/healthz" | "/livez") {
        return Ok(full(StatusCode::OK, "ok".into()));
    }
    let Some((key, sub)) = Key::read(path) else {
        return Ok(refusal(&Refused::NotFound));
    };
    if head.method == Method::GET && key.name.is_none() && query.watch {
        return Ok(Response::new(watch(store, key, query).boxed_unsync()));
    }
    let object = serde_saphyr::from_slice::<Value>(&body).unwrap_or_default();
    let done = match (head.method, &key.name) {
        (Method::GET, None) => Ok(store.list(&key, &query)),
        (Method::GET, Some(_)) => store.get(&key),
        (Method::POST, None) => store.create(&key, object),
        (Method::PUT, Some(_)) => store.replace(&key, sub, object),
        (Method::PATCH, Some(_)) => store.apply(&key, sub, object),
        (Method::DELETE, Some(_)) => store.delete(&key, &object),
        _ => Err(Refused::NotFound),
    };
    Ok(match done {
        Ok(value) => full(StatusCode::OK, value.to_string()),
        Err(refused) => refusal(&refused),
    })
}

fn full(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

fn refusal(refused: &Refused) -> Response<Body> {
    let (status, reason) = match refused {
        Refused::NotFound => (StatusCode::NOT_FOUND, "NotFound"),
        Refused::AlreadyExists => (StatusCode::CONFLICT, "AlreadyExists"),
        Refused::Conflict => (StatusCode::CONFLICT, "Conflict"),
    };
    let text = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": status.as_u16(),
    });
    full(status, text.to_string())
}

/// Everything that has happened since the version that the query names, and that happens from now on.
fn watch(store: Arc<Store>, key: Key, query: Query) -> Events {
    let (send, receive) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut changed = store.changes();
        let mut at = query.version;
        let ends = tokio::time::sleep(query.lasts);
        let mut ends = std::pin::pin!(ends);
        loop {
            let (events, newest) = store.since(at, &key, &query);
            at = newest;
            for event in events {
                if send.send(Bytes::from(format!("{event}\n"))).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = &mut ends => return,
                () = send.closed() => return,
            }
        }
    });
    Events(receive)
}

/// A body that goes on for as long as events come.
struct Events(mpsc::Receiver<Bytes>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
