//! Traffic of a server's own, so that there is something to see where nobody calls: other servers are called at a steady
//! pace.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use derny_tests::proto::{EchoRequest, echo_client::EchoClient};
use hickory_resolver::TokioResolver;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// A call has so long.
const LIMIT: Duration = Duration::from_secs(5);

/// Calls `to`, again and again: `http://HOST[:PORT]/PATH` over HTTP/1.1, `grpc://HOST[:PORT]` the echo service. Names are
/// those of `/etc/resolv.conf`'s domains.
pub(crate) async fn call(to: Uri, every: Duration) {
    let mut pace = tokio::time::interval(every);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut kept = None;
    loop {
        pace.tick().await;
        let called = tokio::time::timeout(LIMIT, once(&to, &mut kept));
        let failure = match called.await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        eprintln!("{to}: {failure}");
        kept = None;
    }
}

/// What calls go over, kept as clients do.
enum Connection {
    Http(SendRequest<Empty<Bytes>>),
    Grpc(EchoClient<Channel>),
}

async fn once(to: &Uri, kept: &mut Option<Connection>) -> Result<()> {
    let connection = match kept {
        Some(Connection::Http(sender)) if sender.is_closed() => kept.insert(connect(to).await?),
        Some(connection) => connection,
        None => kept.insert(connect(to).await?),
    };
    match connection {
        Connection::Grpc(client) => {
            client.unary(EchoRequest::default()).await?;
        }
        Connection::Http(sender) => {
            let host = to.authority().map_or("", |authority| authority.as_str());
            let request = Request::get(to.path()).header("host", host);
            sender.ready().await?;
            let answer = sender.send_request(request.body(Empty::new())?).await?;
            let status = answer.status();
            answer.into_body().collect().await?;
            if !status.is_success() {
                bail!("answered {status}");
            }
        }
    }
    Ok(())
}

async fn connect(to: &Uri) -> Result<Connection> {
    let address = resolve(to).await?;
    if to.scheme_str() == Some("grpc") {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        return Ok(Connection::Grpc(EchoClient::new(endpoint.connect().await?)));
    }
    let stream = TcpStream::connect(address).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // What it ends with, the next call sees.
    tokio::task::spawn_local(connection);
    Ok(Connection::Http(sender))
}

/// By a resolver that needs no C library, which an image of one static program has not.
async fn resolve(to: &Uri) -> Result<SocketAddr> {
    let host = to.host().context("no host")?.trim_matches(['[', ']']);
    let port = to.port_u16().unwrap_or(80);
    if let Ok(ip) = host.parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let resolver = TokioResolver::builder_tokio()?.build()?;
    let found = resolver.lookup_ip(host).await?;
    let ip = found.iter().next().context("no address")?;
    Ok(SocketAddr::new(ip, port))
}
