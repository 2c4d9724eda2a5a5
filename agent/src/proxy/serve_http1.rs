//! A caller's HTTP/1.1 connection, and what becomes of it when it switches protocols.

use std::{convert::Infallible, pin::pin, rc::Rc};

use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{exchange::exchange, inlet::Inlet, response_body::ResponseBody, tunnel};
use crate::{accept::Replay, respond::Body, share::Part};

/// What a connection may hold in bytes of what it reads, and of what it writes. A head that is larger is refused with
/// 431.
const MAX_BUFFER: u64 = 64 * 1024;
/// hyper takes no less.
const MIN_BUFFER: u64 = 8 * 1024;

pub(super) async fn serve(inlet: Rc<Inlet>, stream: Replay) {
    let Some(memory) = inlet
        .pod
        .share
        .take_part(2 * MAX_BUFFER, 2 * MIN_BUFFER, Part::OfHttp1)
    else {
        return;
    };
    let buffer = usize::try_from(memory.amount() / 2).unwrap_or(usize::MAX);
    let drain = inlet.worker.drain.clone();
    let caller = inlet.clone();
    let service = service_fn(move |request| answer(inlet.clone(), request));
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(buffer)
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
    if let Err(error) = ended {
        tracing::debug!(caller = caller.line.caller, %error, "http/1.1 connection ended");
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
    let share = inlet.pod.share.clone();
    share.spawn(async move {
        let (Ok(caller), Ok(endpoint)) = tokio::join!(caller, endpoint) else {
            return;
        };
        tunnel::join(&inlet, TokioIo::new(caller), TokioIo::new(endpoint)).await;
    });
}
