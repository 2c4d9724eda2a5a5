//! A caller's HTTP/1.1 connection, and what becomes of it when it switches protocols.

use std::{convert::Infallible, future::poll_fn, pin::pin, rc::Rc, task::Poll, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{
    answering::{Answer, Answering},
    exchange::exchange,
    inlet::Inlet,
    outcome::Upgraded,
    relay::End,
    tunnel,
};
use crate::{
    accept::Replay,
    pool,
    record::TimeLimit,
    respond::Body,
    share::Part,
    transport::{Event, Vigil},
};

/// What a connection may hold in bytes of what it reads, and of what it writes. A head that is larger is refused with
/// 431.
const MAX_BUFFER: u64 = 64 * 1024;
/// How long a caller that is to go elsewhere has for one more request.
const LAST_CALL: Duration = Duration::from_millis(500);
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
    let (caller, limits) = (inlet.clone(), inlet.worker.limits);
    let pulse = stream.pulse().clone();
    let answering = Rc::new(Answering::new(pulse.clone()));
    let mut vigil = Vigil::new(pulse, limits);
    let state = answering.clone();
    let ending = stream.ending();
    let of_requests = ending.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // To a caller of HTTP/1.0 the end of the connection is the end of the body (RFC 9112 section 6.3): one that
        // breaks off must not look like that, however it comes to it.
        if request.version() < Version::HTTP_11 {
            of_requests.reset();
        }
        answer(inlet.clone(), state.clone(), request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(buffer)
            .half_close(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut leaving = pin!(async {
        caller.to_leave().await;
        // A caller that is at work takes it from its next answer. To close under one that sends just now would lose
        // its request.
        tokio::time::sleep(LAST_CALL).await;
    });
    let mut told = false;
    loop {
        let step = poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Step::Ended(ended)),
            Poll::Pending => vigil.poll(answering.situation(), cx).map(Step::Event),
        });
        let event = tokio::select! {
            step = step => match step {
                Step::Ended(Ok(())) => {
                    // How a connection ends that has switched protocols is for those to say who go on with it.
                    if !answering.is_upgraded() {
                        ending.orderly();
                    }
                    break;
                }
                Step::Ended(Err(error)) => {
                    tracing::debug!(caller = caller.line.caller, %error, "http/1.1 connection ended");
                    break;
                }
                Step::Event(event) => event,
            },
            () = &mut leaving, if !told => {
                connection.as_mut().graceful_shutdown();
                told = true;
                continue;
            }
        };
        let scope = &caller.line.scope;
        match event {
            Event::HeadTooLong => return scope.timed_out(TimeLimit::Head),
            Event::IdleTooLong => return scope.timed_out(TimeLimit::Connection),
            Event::Unread(time) => {
                // Nothing more can be told on this connection: it ends, and the answer with it.
                if answering.is_late(time, Instant::now()) {
                    return;
                }
                if limits.write.is_some_and(|limit| limit <= time) {
                    return scope.timed_out(TimeLimit::Write);
                }
            }
        }
    }
}

enum Step {
    Ended(hyper::Result<()>),
    Event(Event),
}

async fn answer(
    inlet: Rc<Inlet>,
    answering: Rc<Answering>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let underway = answering.begin();
    let connect = request.method() == Method::CONNECT;
    let caller = (connect || request.headers().contains_key(header::UPGRADE))
        .then(|| hyper::upgrade::on(&mut request));
    request.extensions_mut().clear();
    let answered = exchange(&inlet, request.map(Body::Http1)).await;
    let mut response = answered.unwrap_or_else(|refused| refused.answer(&inlet));
    let status = response.status();
    if let Some(caller) = caller
        && (status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success())
    {
        answering.upgrade();
        let upgraded = response.body_mut().take_upgraded();
        join(&inlet, caller, hyper::upgrade::on(&mut response), upgraded);
    } else if inlet.farewell.is_said() {
        // hyper ends the connection after it.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answer::new(body, underway)))
}

/// Both sides have agreed to speak something else: they are joined from here on. `upgraded` goes when that ends.
fn join(inlet: &Rc<Inlet>, caller: OnUpgrade, endpoint: OnUpgrade, upgraded: Option<Box<Upgraded>>) {
    let inlet = inlet.clone();
    let share = inlet.pod.share.clone();
    share.spawn(async move {
        let _upgraded = upgraded;
        let (Ok(caller), Ok(endpoint)) = tokio::join!(caller, endpoint) else {
            return;
        };
        let caller = caller.downcast::<TokioIo<Replay>>().ok().map(|parts| {
            let (first, socket) = parts.io.into_inner().into_parts();
            let first = [parts.read_buf, first].concat().into();
            End { first, socket }
        });
        let endpoint = pool::upgraded(endpoint).map(|(first, socket)| End { first, socket });
        if let (Some(caller), Some(endpoint)) = (caller, endpoint) {
            tunnel::join(&inlet, caller, endpoint).await;
        }
    });
}
