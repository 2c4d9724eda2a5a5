//! HTTP and gRPC calls on demand: one JSON object a line on standard input, one on standard output when it has ended.
//! Each call has a connection of its own; all run at the same time.

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use derny_tests::calls::{Answer, Call, Protocol};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::LocalSet, time::Instant};

/// A call that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run() -> Result<()> {
    let (sender, mut calls) = tokio::sync::mpsc::unbounded_channel::<Call>();
    let reader = std::thread::spawn(move || -> Result<()> {
        for line in std::io::stdin().lock().lines() {
            let line = line.context("reading calls")?;
            let call = serde_json::from_str(&line).with_context(|| format!("call {line:?}"))?;
            if sender.send(call).is_err() {
                break;
            }
        }
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("building the runtime")?;
    LocalSet::new().block_on(&runtime, async {
        while let Some(call) = calls.recv().await {
            tokio::task::spawn_local(one(call));
        }
    });
    reader.join().ok().context("the reader panicked")?
}

/// One call; prints how it ended.
async fn one(call: Call) {
    let begun = Instant::now();
    let mut answer = Answer {
        id: call.id,
        ..Answer::default()
    };
    answer.error = match tokio::time::timeout(PATIENCE, ask(&call, &mut answer)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("no end of it".to_owned()),
    };
    answer.took_ms = begun.elapsed().as_secs_f64() * 1000.0;
    if let Ok(line) = serde_json::to_string(&answer) {
        // Nobody listens any more: the end comes with the end of standard input.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

async fn ask(call: &Call, answer: &mut Answer) -> Result<()> {
    let response = send(call).await?;
    answer.status = response.status().as_u16();
    read_headers(response.headers(), answer);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the body broke off")?;
        if let Some(trailers) = frame.trailers_ref() {
            read_headers(trailers, answer);
        }
    }
    Ok(())
}

async fn send(call: &Call) -> Result<Response<Incoming>> {
    let target: SocketAddr = call.target.parse().context("target")?;
    let stream = TcpStream::connect(target).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let request = request(call)?;
    if call.protocol == Protocol::Http1 {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        // The sender goes after the headers; the connection lives as long as the body.
        return Ok(sender.send_request(request).await?);
    }
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender.send_request(request).await?)
}

fn request(call: &Call) -> Result<Request<Full<Bytes>>> {
    let (method, uri) = match call.protocol {
        Protocol::Http1 => (&*call.method, call.path.clone()),
        Protocol::Http2 => (&*call.method, format!("http://{}{}", call.target, call.path)),
        Protocol::Grpc => ("POST", format!("http://{}{}", call.target, call.path)),
    };
    let mut request = Request::builder().method(method).uri(uri);
    let mut headers: BTreeMap<&str, &str> = BTreeMap::new();
    match call.protocol {
        Protocol::Http1 => drop(headers.insert("host", &call.target)),
        Protocol::Http2 => {}
        Protocol::Grpc => headers.extend([("content-type", "application/grpc"), ("te", "trailers")]),
    }
    headers.extend(call.headers.iter().map(|(name, value)| (&**name, &**value)));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let body = match call.protocol {
        // One empty message.
        Protocol::Grpc => vec![0; 5],
        Protocol::Http1 | Protocol::Http2 => vec![b'x'; call.body_bytes],
    };
    request.body(Full::from(body)).context("building the request")
}

fn read_headers(headers: &HeaderMap, answer: &mut Answer) {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse().ok();
    answer.grpc_status = number("grpc-status").or(answer.grpc_status);
    answer.overloaded |= ["x-derny-overloaded", "x-envoy-overloaded"]
        .iter()
        .any(|name| headers.contains_key(*name));
}
