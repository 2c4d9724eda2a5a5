//! The floor: a relay of hyper and hyper-util's pooled client on one thread, with no feature at all. Endpoints in
//! turn, per request.

use std::{cell::Cell, future::Future, net::SocketAddr, rc::Rc};

use anyhow::{Context, Result};
use http::{Request, Response, Uri, Version, uri::Authority};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioIo,
    server::conn::auto,
};
use tokio::{net::TcpListener, task::LocalSet};

/// Runs tasks on this thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

struct Relay {
    http1: Client<HttpConnector, Incoming>,
    http2: Client<HttpConnector, Incoming>,
    endpoints: Vec<Authority>,
    turn: Cell<usize>,
}

/// `PORT ENDPOINT…`
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (port, endpoints) = arguments.split_first().context("relay PORT ENDPOINT…")?;
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse().context("port")?));
    let endpoints = endpoints
        .iter()
        .map(|e| e.parse().context("endpoint"))
        .collect::<Result<_>>()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let relay = Rc::new(Relay {
        http1: Client::builder(Local).build(connector.clone()),
        http2: Client::builder(Local).http2_only(true).build(connector),
        endpoints,
        turn: Cell::new(0),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let relay = relay.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| relay.clone().forward(request));
                // A caller that goes away ends its connection; there is nobody to tell.
                let _ = auto::Builder::new(Local)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

impl Relay {
    async fn forward(self: Rc<Self>, mut request: Request<Incoming>) -> Result<Response<Incoming>> {
        let turn = self.turn.get();
        self.turn.set(turn + 1);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(self.endpoints[turn % self.endpoints.len()].clone());
        *request.uri_mut() = Uri::from_parts(parts)?;
        let client = if request.version() == Version::HTTP_2 {
            &self.http2
        } else {
            &self.http1
        };
        Ok(client.request(request).await?)
    }
}
