//! `/metrics`, `/livez` and `/readyz`, over HTTP/1.1.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::{Error, View, serve::serve};
use crate::drain;

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#overall-structure>
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// How long a caller may take to send its request's head, and so how long it may hold one of the connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound TCP port for scrapes and probes.
#[derive(Debug)]
pub struct HttpWindow {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpWindow {
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Http { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens: the port is the kernel's choice when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the drain begins.
    pub async fn serve(self, view: Arc<dyn View>, drain: drain::Watch) {
        let accept = async || self.listener.accept().await.map(|(stream, _)| stream);
        serve(accept, |stream| connection(stream, view.clone()), "http", drain).await;
    }
}

async fn connection(stream: TcpStream, view: Arc<dyn View>) {
    let service = hyper::service::service_fn(move |request| {
        let view = view.clone();
        async move { Ok::<_, Infallible>(answer(&request, &*view)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection for metrics and probes broke");
    }
}

fn answer<B>(request: &Request<B>, view: &dyn View) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return respond(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "only GET and HEAD are answered here\n",
        );
    }
    match request.uri().path() {
        "/metrics" => respond(StatusCode::OK, OPEN_METRICS, view.metrics()),
        "/livez" => match view.live() {
            Ok(()) => respond(StatusCode::OK, TEXT, "ok\n"),
            Err(reason) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
        },
        "/readyz" => match view.not_ready().as_slice() {
            [] => respond(StatusCode::OK, TEXT, "ok\n"),
            names => respond(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("waiting for {}\n", names.join(", ")),
            ),
        },
        _ => respond(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are /metrics, /livez and /readyz\n",
        ),
    }
}

fn respond(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
