//! One request: endpoint chosen, sent, sent again where that helps, answered.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Version, request};
use http_body_util::BodyExt as _;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    forward::{self, Failed},
    inlet::Inlet,
    response_body::{ResponseBody, Running},
    view::Upstream,
};
use crate::{
    balance::{EndpointLoad, InFlight},
    model::Protocol,
    pool::Opening,
    record::{Exchange, Spoken},
    respond::{Body, LocalError, Via, is_grpc, prepare_request, prepare_response},
    retry::{AttemptBody, Failure, RequestBody, may_retry},
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request body up to this many bytes can be sent again.
const REPLAY_BYTES: usize = 64 * 1024;

/// Answers one request, with an endpoint's response or with an error of the engine's own. Dropped, the request is
/// cancelled at the endpoint.
pub(super) async fn exchange(inlet: &Rc<Inlet>, request: Request<Body>) -> Response<ResponseBody> {
    let (mut head, body) = request.into_parts();
    let body = RequestBody::new(body, REPLAY_BYTES);
    let spoken = match head.version {
        Version::HTTP_2 if is_grpc(&head.headers) => Spoken::Grpc,
        Version::HTTP_2 => Spoken::Http2,
        _ => Spoken::Http1,
    };
    let mut x = Exchange::begin(inlet.worker.recorder.clone(), inlet.line.clone(), spoken, &head);
    let Some(upstream) = inlet.upstream() else {
        return refuse(
            x,
            body,
            &LocalError::NoEndpoint {
                service: inlet.service(),
            },
        );
    };
    let via = match upstream.port.protocol {
        Protocol::Http2 | Protocol::Grpc => Via::Http2,
        _ if head.version == Version::HTTP_2 => Via::Http2,
        _ => Via::Http1,
    };
    if let Err(error) = prepare_request(&mut head, inlet.caller, via) {
        return refuse(x, body, &error);
    }
    x.identified(request_id(inlet, &mut head));

    match attempts(inlet, &upstream, via, &mut x, head, &body).await {
        Ok((answer, in_flight)) => {
            let (mut head, response) = answer.0.into_parts();
            prepare_response(&mut head);
            x.answered(head.status.as_u16(), &head.headers);
            let running = Running {
                exchange: x,
                request: body,
                lease: Some(answer.1),
                in_flight: Some(in_flight),
            };
            Response::from_parts(head, ResponseBody::new(response, Box::new(running)))
        }
        Err(error) => refuse(x, body, &error),
    }
}

type Answer = (Response<Body>, forward::Lease);

/// Sends the request until it is answered or may not be sent again.
async fn attempts(
    inlet: &Rc<Inlet>,
    upstream: &Upstream,
    via: Via,
    x: &mut Exchange,
    head: request::Parts,
    body: &RequestBody,
) -> Result<(Answer, InFlight), LocalError> {
    let settings = &upstream.port.policy.connection_pool;
    let mut tried: SmallVec<[SocketAddr; 4]> = SmallVec::new();
    let mut last: Option<(Rc<EndpointLoad>, Failed)> = None;
    loop {
        let endpoint = match (inlet.choose(upstream, &tried), &last) {
            (Some(endpoint), _) => endpoint,
            // All have been tried. One that took a connection may be asked once more, on a new one.
            (None, Some((endpoint, failed))) if failed.failure != Failure::Connect => endpoint.clone(),
            (None, _) => return Err(error(inlet, last)),
        };
        let Some(attempt_body) = body.attempt() else {
            return Err(error(inlet, last));
        };
        x.attempt(endpoint.address());
        let in_flight = endpoint.begin();
        let sent = Instant::now();
        let pool = inlet
            .worker
            .pools
            .pool(inlet.pod.slot, endpoint.address(), &inlet.pod.sockets);
        let opening = Opening {
            settings,
            scope: x.scope(),
        };
        match forward::attempt(&pool, opening, via, head.clone(), attempt_body).await {
            Ok(answer) => {
                body.keep_no_longer();
                let now = Instant::now();
                endpoint.observe(now - sent, now.into_std());
                return Ok((answer, in_flight));
            }
            Err(failed) => {
                if failed.failure == Failure::Connect {
                    // A quick refusal must not make it look fast.
                    endpoint.observe(settings.connect_timeout, Instant::now().into_std());
                }
                tracing::debug!(endpoint = %endpoint.address(), reason = failed.reason, "attempt failed");
                let again = may_retry(failed.failure, x.attempts(), x.spoken(), &head.method);
                tried.push(endpoint.address());
                last = Some((endpoint, failed));
                if !again {
                    return Err(error(inlet, last));
                }
            }
        }
    }
}

fn error(inlet: &Inlet, last: Option<(Rc<EndpointLoad>, Failed)>) -> LocalError {
    let service = inlet.service();
    let Some((endpoint, Failed { failure, reason })) = last else {
        return LocalError::NoEndpoint { service };
    };
    let endpoint = endpoint.address();
    match failure {
        Failure::Connect => LocalError::ConnectFailed {
            service,
            endpoint,
            reason,
        },
        Failure::Unprocessed | Failure::Lost => LocalError::ConnectionLost {
            service,
            endpoint,
            reason,
        },
        Failure::Reset => LocalError::StreamReset {
            service,
            endpoint,
            reason,
        },
        Failure::Protocol => LocalError::UpstreamProtocol {
            service,
            endpoint,
            reason,
        },
    }
}

/// Answers with an error of the engine's own. What the caller still sends is read for a while: some clients take an
/// answer that comes before their request has ended for a failure of the stream.
fn refuse(mut x: Box<Exchange>, request: RequestBody, error: &LocalError) -> Response<ResponseBody> {
    if let Some(rest) = request.rest() {
        tokio::task::spawn_local(read_away(rest));
    }
    let (head, body) = error.response(x.spoken()).into_parts();
    x.answered(head.status.as_u16(), &head.headers);
    x.failed(error.flag());
    let running = Running {
        exchange: x,
        request,
        lease: None,
        in_flight: None,
    };
    Response::from_parts(head, ResponseBody::new(body, Box::new(running)))
}

/// Bytes and time that are spent on the rest of a request that has been refused.
const READ_AWAY_BYTES: usize = 64 * 1024;
const READ_AWAY_TIME: Duration = Duration::from_secs(1);

async fn read_away(mut body: AttemptBody) {
    let reading = async {
        let mut read = 0;
        while read < READ_AWAY_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(READ_AWAY_TIME, reading).await;
}

/// The request's id, a new UUIDv7 when the caller gave none.
fn request_id(inlet: &Inlet, head: &mut request::Parts) -> HeaderValue {
    if let Some(given) = head.headers.get(&X_REQUEST_ID) {
        return given.clone();
    }
    let random = inlet.worker.rng.borrow_mut().u128(..).to_ne_bytes();
    let mut ten = [0; 10];
    ten.copy_from_slice(&random[..10]);
    let id = uuid::Builder::from_unix_timestamp_millis(inlet.worker.recorder.unix_millis(), &ten).into_uuid();
    let mut text = uuid::Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut text);
    // Hexadecimal and hyphens are always a valid value.
    let value = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"));
    head.headers.insert(X_REQUEST_ID, value.clone());
    value
}
