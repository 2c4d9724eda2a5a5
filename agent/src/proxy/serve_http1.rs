//! A caller's HTTP/1.1 connection, and what becomes of it when it switches protocols.

use std::{convert::Infallible, pin::pin, rc::Rc};

use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{exchange::exchange, inlet::Inlet, response_body::ResponseBody, tunnel};
use crate::{accept::Replay, respond::Body};

/// A head larger than this is refused with 431.
const MAX_HEAD: usize = 64 * 1024;

pub(super) async fn serve(inlet: Rc<Inlet>, stream: Replay) {
    let drain = inlet.worker.drain.clone();
    let caller = inlet.clone();
    let ending = stream.ending();
    let of_requests = ending.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // To a caller of HTTP/1.0 the end of the connection is the end of the body (RFC 9112 section 6.3): one that
        // breaks off must not look like that, however it comes to it.
        if request.version() < Version::HTTP_11 {
            of_requests.reset();
        }
        answer(inlet.clone(), request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .half_close(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = drain.signaled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match ended {
        Ok(()) => ending.orderly(),
        Err(error) => tracing::debug!(caller = caller.line.caller, %error, "http/1.1 connection ended"),
    }
}

async fn answer(
    inlet: Rc<Inlet>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let connect = request.method() == Method::CONNECT;
    let caller = (connect || request.headers().contains_key(header::UPGRADE))
        .then(|| hyper::upgrade::on(&mut request));
    request.extensions_mut().clear();
    let mut response = exchange(&inlet, request.map(Body::Http1)).await;
    let status = response.status();
    if let Some(caller) = caller
        && (status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success())
    {
        join(&inlet, caller, hyper::upgrade::on(&mut response));
    }
    Ok(response)
}

/// Both sides have agreed to speak something else: they are joined from here on.
fn join(inlet: &Rc<Inlet>, caller: OnUpgrade, endpoint: OnUpgrade) {
    let inlet = inlet.clone();
    tokio::task::spawn_local(async move {
        let (Ok(caller), Ok(endpoint)) = tokio::join!(caller, endpoint) else {
            return;
        };
        tunnel::join(&inlet, TokioIo::new(caller), TokioIo::new(endpoint)).await;
    });
}
