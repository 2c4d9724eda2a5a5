//! One request: planned, sent, answered.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header, request,
};
use http_body_util::BodyExt as _;

use super::{
    attempts,
    inlet::Inlet,
    mirror,
    outcome::Answer,
    plan::{Plan, Planned, plan},
    response_body::{Clock, ResponseBody, Running},
};
use crate::{
    balance::Permit,
    model::is_grpc,
    record::{Exchange, Flag, Spoken},
    respond::{Body, LocalError, Via, has_option, name_host, prepare_request, prepare_response},
    retry::{AttemptBody, RequestBody},
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request that the engine could not pass on.
pub(super) struct Refused {
    exchange: Box<Exchange>,
    body: RequestBody,
    error: LocalError,
    /// What lets a page of another origin see the answer.
    for_origin: Option<Box<HeaderMap>>,
}

impl Refused {
    /// The engine's own answer.
    pub(super) fn answer(self, inlet: &Inlet) -> Response<ResponseBody> {
        application_has_gone(inlet, &self.error);
        refuse(inlet, self)
    }

    /// The same for a stream of HTTP/2, which may also be reset.
    ///
    /// A pod whose application takes no connection has not seen the request, and only its caller can send it elsewhere.
    /// REFUSED_STREAM tells it so (RFC 9113 section 8.7); an answer would count as the pod's own.
    pub(super) fn answer_stream(mut self, inlet: &Inlet) -> Result<Response<ResponseBody>, h2::Reason> {
        if application_has_gone(inlet, &self.error) {
            self.exchange.refused(self.error.flag());
            return Err(h2::Reason::REFUSED_STREAM);
        }
        Ok(refuse(inlet, self))
    }
}

/// Whether the error says so; then the caller is told to go elsewhere.
fn application_has_gone(inlet: &Inlet, error: &LocalError) -> bool {
    let has_gone = inlet.is_inbound() && matches!(error, LocalError::ConnectFailed { .. });
    if has_gone {
        inlet.farewell.say();
    }
    has_gone
}

/// A request that its caller cancelled before it was looked at: recorded, and nobody else hears of it.
pub(super) fn cancelled(inlet: &Rc<Inlet>, request: Request<Body>) {
    drop(begin(inlet, &request.into_parts().0));
}

fn begin(inlet: &Inlet, head: &request::Parts) -> Box<Exchange> {
    let spoken = match head.version {
        Version::HTTP_2 if is_grpc(&head.headers) => Spoken::Grpc,
        Version::HTTP_2 => Spoken::Http2,
        _ => Spoken::Http1,
    };
    Exchange::begin(inlet.worker.recorder.clone(), inlet.line.clone(), spoken, head)
}

/// Answers one request with an endpoint's response, or has it refused. Dropped, the request is cancelled at the endpoint.
pub(super) async fn exchange(
    inlet: &Rc<Inlet>,
    request: Request<Body>,
) -> Result<Response<ResponseBody>, Refused> {
    let (mut head, body) = request.into_parts();
    let mut x = begin(inlet, &head);
    let dialled = inlet.upstream();
    let bound = dialled
        .as_ref()
        .map_or(0, |u| u.port.policy.retry.body_buffer_bytes);
    let body = RequestBody::new(body, bound, &inlet.pod.share);
    let refused = |exchange, body, error| {
        Err(Refused {
            exchange,
            body,
            error,
            for_origin: None,
        })
    };
    let Some(dialled) = dialled else {
        let service = inlet.service();
        return refused(x, body, LocalError::NoEndpoint { service });
    };
    let mut plan = match plan(inlet, &dialled, &mut head, &mut x) {
        Ok(Planned::Go(plan)) => plan,
        Ok(Planned::Answer(response)) => return Ok(direct(x, body, response)),
        Err(error) => return refused(x, body, error),
    };
    plan.upstream = inlet.known(plan.upstream).await;
    if !plan.upstream.port.endpoints.is_known() {
        x.endpoints_unknown();
    }
    let connect = head.method == Method::CONNECT;
    match send(inlet, &plan, &mut x, &mut head, &body).await {
        Ok((answer, permit)) => {
            if inlet.is_inbound() && has_option(&answer.head.headers, "close") {
                inlet.farewell.say();
            }
            let status = answer.head.status;
            let switches = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
            Ok(answered(&plan, x, body, answer, permit, switches))
        }
        Err(error) => Err(Refused {
            exchange: x,
            body,
            error,
            for_origin: plan.for_origin(),
        }),
    }
}

async fn send(
    inlet: &Rc<Inlet>,
    plan: &Plan<'_>,
    x: &mut Exchange,
    head: &mut request::Parts,
    body: &RequestBody,
) -> Result<(Answer, Permit), LocalError> {
    let permit = plan.upstream.guards().breaker.request();
    let overload = || LocalError::Overload {
        service: inlet.service(),
        bound: "maxRequests",
    };
    let permit = permit.ok_or_else(overload)?;
    let via = Via::of(plan.upstream.port.protocol, head.version);
    name_host(head, inlet.dialled);
    // As the caller sent it: a mirror may be asked by another version.
    let mut mirrored = (!plan.mirrors.is_empty()).then(|| head.clone());
    prepare_request(head, inlet.caller(), via)?;
    let id = request_id(inlet, head);
    if let Some(head) = &mut mirrored {
        head.headers.insert(X_REQUEST_ID, id.clone());
    }
    x.identified(id);
    let answer = attempts::run(inlet, plan, via, x, head, body).await?;
    if let Some(head) = mirrored {
        mirror::send(inlet, &plan.mirrors, &head, body);
    }
    body.keep_no_longer();
    Ok((answer, permit))
}

fn answered(
    plan: &Plan<'_>,
    mut x: Box<Exchange>,
    body: RequestBody,
    answer: Answer,
    permit: Permit,
    switches: bool,
) -> Response<ResponseBody> {
    let Answer {
        mut head,
        first,
        body: response,
        lease,
        judged,
    } = answer;
    prepare_response(&mut head);
    plan.filter_response(&mut head.headers);
    // hyper closes a connection of HTTP/1.1 whose request is not read to its end.
    if x.spoken() == Spoken::Http1 && head.status.as_u16() >= 400 && !body.has_ended() {
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    x.answered(head.status.as_u16(), &head.headers);
    let running = Running {
        exchange: x,
        request: body,
        lease: Some(lease),
        judged: Some(judged),
        clock: Clock::new(plan.deadlines),
        permit: Some(permit),
        switches,
    };
    Response::from_parts(head, ResponseBody::new(first, response, Box::new(running)))
}

/// The route's own answer.
fn direct(mut x: Box<Exchange>, body: RequestBody, response: Response<()>) -> Response<ResponseBody> {
    let (mut head, ()) = response.into_parts();
    head.headers
        .insert(http::header::SERVER, HeaderValue::from_static("derny"));
    x.answered(head.status.as_u16(), &head.headers);
    x.failed(Flag::Direct);
    Response::from_parts(head, ResponseBody::new(None, Body::Empty, local(x, body)))
}

/// Answers with an error of the engine's own. What the caller still sends is read for a while: some clients take an
/// answer that comes before their request has ended for a failure of the stream.
fn refuse(inlet: &Inlet, refused: Refused) -> Response<ResponseBody> {
    let Refused {
        exchange: mut x,
        body,
        error,
        for_origin,
    } = refused;
    if let Some(rest) = body.rest() {
        inlet.pod.share.spawn(read_away(rest));
    }
    let (mut head, text) = error.response(x.spoken()).into_parts();
    if let Some(more) = for_origin {
        head.headers.extend(*more);
    }
    x.answered(head.status.as_u16(), &head.headers);
    x.refused(error.flag());
    Response::from_parts(head, ResponseBody::new(None, text, local(x, body)))
}

fn local(exchange: Box<Exchange>, request: RequestBody) -> Box<Running> {
    Box::new(Running {
        exchange,
        request,
        lease: None,
        judged: None,
        clock: None,
        permit: None,
        switches: false,
    })
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
