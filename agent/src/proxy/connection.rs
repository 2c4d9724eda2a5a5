//! An accepted connection, until it is known what it speaks.

use std::{io, rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpStream, time::Instant};

use super::{
    context::Worker,
    inlet::Inlet,
    local_pod::{LINGER, LocalPod},
    serve_http1, serve_http2,
    tunnel::{self, Opaque, Unreached},
};
use crate::{
    accept::{self, Detected, Expecting, Place, Replay, detect, silent, spoke},
    model::Protocol,
    share::Share,
};

/// A caller that speaks first does so within this; after that the server is given the chance to.
const GRACE: Duration = Duration::from_millis(20);
/// A caller on a declared HTTP port that says nothing at all is closed after this.
const HTTP_SILENCE: Duration = Duration::from_secs(300);

/// A pod of this node called somebody.
pub(super) async fn outbound(worker: Rc<Worker>, pod: Rc<LocalPod>, stream: TcpStream, place: Place) {
    worker.view.follow(&mut worker.rng.borrow_mut());
    let Ok((local, peer)) = addresses(&stream) else {
        // It was closed before it was looked at.
        return;
    };
    let id = (worker.origins).destination(pod.id.netns_cookie, local, peer);
    let destination = id.and_then(|id| worker.view.snapshot().destinations.get(&id).cloned());
    match destination {
        Some(destination) => {
            let inlet = Inlet::outbound(&worker, &pod, &destination, (peer.ip().to_canonical(), place));
            serve(inlet, stream).await;
        }
        None => {
            tracing::warn!(pod = %pod.pod.name, %local, "a connection for no known destination was closed")
        }
    }
}

/// Somebody called a pod of this node.
pub(super) async fn inbound(worker: Rc<Worker>, pod: Rc<LocalPod>, stream: TcpStream, place: Place) {
    let Ok((local, peer)) = addresses(&stream) else {
        return;
    };
    let left = pod.share.account().left(Share::Connections) / worker.workers;
    let Some(of_peer) = pod.peers.place(peer.ip(), left) else {
        pod.share.account().exceeded(Share::Connections);
        return accept::refuse(&stream);
    };
    // The listener itself stands on the loopback, where it is nobody's destination: a connection to it is none that the
    // kernel steered, and to dial its address would be to call oneself.
    let is_own = !local.ip().to_canonical().is_loopback();
    let port = pod.inbound(local.port()).filter(|_| is_own);
    match port {
        Some(port) => match Inlet::inbound(&worker, &pod, (local, peer), port, (place, of_peer)) {
            Some(inlet) => serve(inlet, stream).await,
            // Closed without a word, as Envoy's connection limit does.
            None => tracing::debug!(pod = %pod.pod.name, %local, %peer, "maxConnections is reached"),
        },
        None => tracing::warn!(pod = %pod.pod.name, %local, "a connection for no inbound port was closed"),
    }
}

fn addresses(stream: &TcpStream) -> io::Result<(std::net::SocketAddr, std::net::SocketAddr)> {
    Ok((stream.local_addr()?, stream.peer_addr()?))
}

async fn serve(inlet: Rc<Inlet>, mut stream: TcpStream) {
    let head = inlet.worker.limits.head;
    let protocol = inlet.upstream().map_or(Protocol::Tcp, |u| u.port.protocol);
    match protocol {
        Protocol::Tcp => tunnel::relay(&inlet, Bytes::new(), stream, Opaque::TCP, None).await,
        Protocol::Tls => {
            let deadline = Instant::now() + detect_timeout(&inlet);
            let (detected, first) = detect(&mut stream, Expecting::Tls, deadline, head).await;
            by_detection(inlet, detected, first, stream).await;
        }
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
            let deadline = Instant::now() + HTTP_SILENCE;
            let (detected, first) = tokio::select! {
                detected = detect(&mut stream, Expecting::Http, deadline, head) => detected,
                () = leaves_in_silence(&inlet) => return,
            };
            match detected {
                Detected::Http2 => serve_http2::serve(inlet, Replay::new(first, stream)).await,
                Detected::Http1 => serve_http1::serve(inlet, Replay::new(first, stream)).await,
                Detected::Tls { .. } | Detected::Opaque | Detected::Closed | Detected::Broken => {}
            }
        }
        Protocol::Detect => whoever_speaks_first(inlet, stream).await,
    }
}

/// Returns some time after the caller was to leave, when nothing has come by then: nothing is in flight.
async fn leaves_in_silence(inlet: &Inlet) {
    inlet.to_leave().await;
    tokio::time::sleep(LINGER).await;
}

fn detect_timeout(inlet: &Inlet) -> Duration {
    inlet
        .upstream()
        .map_or(Duration::ZERO, |u| u.port.policy.detect_timeout)
}

/// Nobody said what this port speaks. Most callers speak first, and at once; for one that does not, the endpoint
/// is connected to, and if that speaks first the port is opaque.
async fn whoever_speaks_first(inlet: Rc<Inlet>, mut stream: TcpStream) {
    let head = inlet.worker.limits.head;
    let deadline = Instant::now() + detect_timeout(&inlet);
    let mut upstream = None;
    if silent(&stream, GRACE).await {
        let connected = match tunnel::connect(&inlet).await {
            Ok(connected) => connected,
            Err(unreached) => {
                tunnel::record(&inlet, unreached);
                return accept::refuse(&stream);
            }
        };
        let caller_spoke = tokio::select! {
            biased;
            () = spoke(&stream) => true,
            () = spoke(&connected.stream) => false,
            () = tokio::time::sleep_until(deadline) => {
                inlet.line.scope.detect_timed_out();
                false
            }
        };
        if !caller_spoke {
            return tunnel::relay(&inlet, Bytes::new(), stream, Opaque::TCP, Some(connected)).await;
        }
        upstream = Some(connected);
    }
    let (detected, first) = detect(&mut stream, Expecting::Anything, deadline, head).await;
    match (detected, upstream) {
        (opaque @ (Detected::Opaque | Detected::Closed), upstream) => {
            if opaque == Detected::Opaque && Instant::now() >= deadline {
                inlet.line.scope.detect_timed_out();
            }
            tunnel::relay(&inlet, first, stream, Opaque::TCP, upstream).await;
        }
        (Detected::Tls { server_name }, upstream) => {
            tunnel::relay(&inlet, first, stream, Opaque::tls(server_name), upstream).await;
        }
        (detected, _) => by_detection(inlet, detected, first, stream).await,
    }
}

async fn by_detection(inlet: Rc<Inlet>, detected: Detected, first: Bytes, stream: TcpStream) {
    match detected {
        Detected::Http1 => serve_http1::serve(inlet, Replay::new(first, stream)).await,
        Detected::Http2 => serve_http2::serve(inlet, Replay::new(first, stream)).await,
        Detected::Tls { server_name } => {
            tunnel::relay(&inlet, first, stream, Opaque::tls(server_name), None).await;
        }
        // One that ends without a word may want to hear what the endpoint has to say.
        Detected::Opaque | Detected::Closed => tunnel::relay(&inlet, first, stream, Opaque::TCP, None).await,
        Detected::Broken => tunnel::record(&inlet, Unreached::BROKEN),
    }
}
