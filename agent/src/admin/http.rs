//! `/metrics`, `/livez` and `/readyz`, over HTTP/1.1. One answer a connection: what a caller may hold is bounded by time
//! as well as by number.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::{Bounds, Displaced, Error, View, pages::Pages, places::Peer, serve::serve};
use crate::drain;

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#overall-structure>
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// How long a caller may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller may take for everything: to ask, and to read the answer.
const LIFE: Duration = Duration::from_secs(30);
/// A request's head is shorter than this.
const HEAD_BYTES: usize = 16 * 1024;
/// Of an answer, in the kernel, for a caller that does not read.
const SEND_BUFFER: usize = 256 * 1024;

/// What is asked of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// `/metrics`, and probes for whoever has no access to their own address.
    Everything,
    Probes,
}

impl Shows {
    /// The flag that says the address.
    fn flag(self) -> &'static str {
        match self {
            Self::Everything => "--http-address",
            Self::Probes => "--probe-address",
        }
    }

    fn window(self) -> &'static str {
        match self {
            Self::Everything => "http",
            Self::Probes => "probes",
        }
    }
}

/// A bound TCP port for scrapes and probes.
#[derive(Debug)]
pub struct HttpWindow {
    listener: TcpListener,
    address: SocketAddr,
    shows: Shows,
    bounds: Bounds,
    displaced: Displaced,
}

impl HttpWindow {
    pub async fn bind(
        address: SocketAddr,
        shows: Shows,
        bounds: Bounds,
        displaced: Displaced,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Http {
            address,
            flag: shows.flag(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            shows,
            bounds,
            displaced,
        })
    }

    /// Where it listens: the port is the kernel's choice when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the drain begins.
    pub async fn serve(self, view: Arc<dyn View>, drain: drain::Watch) {
        let answers = Answers {
            pages: (self.shows == Shows::Everything).then(|| Pages::of(view.clone())),
            view,
        };
        let accept = async || {
            let (stream, peer) = self.listener.accept().await?;
            // Else what nobody reads would be bounded by the system's largest buffer.
            SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
            Ok((stream, Peer::address(peer.ip())))
        };
        let connection = |stream| connection(stream, answers.clone());
        let window = self.shows.window();
        serve(
            accept,
            connection,
            window,
            self.bounds,
            self.displaced.clone(),
            drain,
        )
        .await;
    }
}

async fn connection(stream: TcpStream, answers: Answers) {
    let service = hyper::service::service_fn(move |request| {
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.to(&request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LIFE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection for metrics and probes broke"),
        Err(_) => tracing::debug!("connection for metrics and probes took too long"),
    }
}

#[derive(Clone)]
struct Answers {
    view: Arc<dyn View>,
    /// `None` where only probes are answered.
    pages: Option<Pages>,
}

impl Answers {
    async fn to<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return respond(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "only GET and HEAD are answered here\n",
            );
        }
        match (request.uri().path(), &self.pages) {
            ("/metrics", Some(pages)) => match pages.page().await {
                Some(page) => respond(StatusCode::OK, OPEN_METRICS, page),
                None => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "no page could be made\n"),
            },
            ("/livez", _) => match self.view.live() {
                Ok(()) => respond(StatusCode::OK, TEXT, "ok\n"),
                Err(reason) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
            },
            ("/readyz", _) => match self.view.not_ready().as_slice() {
                [] => respond(StatusCode::OK, TEXT, "ok\n"),
                names => respond(
                    StatusCode::SERVICE_UNAVAILABLE,
                    TEXT,
                    format!("waiting for {}\n", names.join(", ")),
                ),
            },
            (_, Some(_)) => respond(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are /metrics, /livez and /readyz\n",
            ),
            (_, None) => respond(StatusCode::NOT_FOUND, TEXT, "there are /livez and /readyz\n"),
        }
    }
}

fn respond(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
