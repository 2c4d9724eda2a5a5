//! `derny-testd`: the server behind the agent in tests, the demo and the benches. One process plays one pod.
//!
//! HTTP/1.1, HTTP/2 and gRPC share a port; an echo and a server that speaks first have one each. It prints
//! `listening` when all ports do. After SIGTERM it accepts nothing, lets the requests of HTTP connections end, with
//! GOAWAY or `connection: close`, and ends itself.

use std::{
    net::{Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

mod http;
mod answers;
mod body;
mod grpc;
mod websocket;
mod tcp;
mod calls;

#[derive(Debug, Parser)]
struct Options {
    /// What the server calls itself in every answer.
    #[arg(long)]
    name: String,
    /// Port of HTTP/1.1, HTTP/2 with prior knowledge, and gRPC.
    #[arg(long)]
    http: u16,
    /// Port that sends back what it gets, with half-close.
    #[arg(long)]
    tcp: Option<u16>,
    /// Port that speaks first, as MySQL does, then sends back what it gets.
    #[arg(long)]
    greet: Option<u16>,
    /// Every HTTP answer comes so many milliseconds late.
    #[arg(long, default_value_t = 0)]
    slow: u64,
    /// Every answer over HTTP has this status and nothing else.
    #[arg(long)]
    status: Option<u16>,
    /// A connection without a request is closed without a word after so many milliseconds.
    #[arg(long)]
    idle_close: Option<u64>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    #[arg(long, default_value_t = 1024)]
    max_concurrent_streams: u32,
    /// Calls another server: `http://HOST/PATH`, or `grpc://HOST`. May be said more than once.
    #[arg(long, value_name = "URL")]
    call: Vec<::http::Uri>,
    /// How often each of them is called, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    call_every: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("building the runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(options))
}

async fn serve(options: Options) -> Result<()> {
    let name: Rc<str> = options.name.as_str().into();
    let http = listen(options.http)?;
    if let Some(port) = options.tcp {
        let listener = listen(port)?;
        tokio::task::spawn_local(accept(listener, |stream| {
            tokio::task::spawn_local(tcp::echo(stream));
        }));
    }
    if let Some(port) = options.greet {
        let (listener, name) = (listen(port)?, Rc::clone(&name));
        tokio::task::spawn_local(accept(listener, move |stream| {
            tokio::task::spawn_local(tcp::greet(stream, Rc::clone(&name)));
        }));
    }
    println!("listening");
    for to in options.call {
        tokio::task::spawn_local(calls::call(to, Duration::from_millis(options.call_every)));
    }
    let server = http::Server::new(
        name,
        options.max_concurrent_streams,
        Duration::from_millis(options.slow),
        options.status,
        options.idle_close.map(Duration::from_millis),
    );
    let (end, ended) = watch::channel(false);
    let accepting = accept(http, move |stream| {
        let mut ended = ended.clone();
        let serving = server.clone();
        tokio::task::spawn_local(async move {
            let end = async {
                // An error is the end, too.
                let _ = ended.wait_for(|ended| *ended).await;
            };
            serving.serve(stream, end).await;
            // Held until here: the process ends with the last receiver.
            drop(ended);
        });
    });
    let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        () = accepting => {}
        _ = terminated.recv() => {}
    }
    let _ = end.send(true);
    // Each connection holds a receiver.
    end.closed().await;
    Ok(())
}

/// Listens in both address families.
fn listen(port: u16) -> Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        socket.listen(4096)?;
        TcpListener::from_std(socket.into())
    };
    open().with_context(|| format!("listening on port {port}"))
}

async fn accept(listener: TcpListener, mut handle: impl FnMut(TcpStream)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Fails only on a connection that is gone already.
                let _ = stream.set_nodelay(true);
                handle(stream);
            }
            // Out of file descriptors, most likely: those that stand may end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
