//! One attempt: a request to one endpoint, up to the headers of its response.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_LENGTH, request};
use http_body::Body as _;

use super::pump::Pump;
use crate::{
    model::{Endpoints, is_grpc},
    pool::{ConnectError, Http1, Http2, Opening, Pool, SMALL_UPLOAD, Uploading},
    respond::{Body, BodyError, LocalError, Via, has_option},
    retry::{AttemptBody, Failure, Sent},
    share::Local,
};

/// What the response came by; held until its body has been read.
#[derive(Debug)]
pub(super) enum Lease {
    Http1(Rc<Pool<AttemptBody>>, Http1<AttemptBody>),
    Http2(Http2),
}

impl Lease {
    /// The body has been read to its end.
    pub(super) fn give_back(self) {
        match self {
            Self::Http1(pool, connection) => pool.put_back(connection),
            Self::Http2(place) => place.give_back(),
        }
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) reason: String,
    /// Which bound was reached, when the failure is an overflow.
    pub(super) bound: &'static str,
    /// Whether the endpoint is judged by it.
    pub(super) blame: Blame,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    Endpoint,
    /// It ended its connection as an endpoint may.
    Nobody,
}

impl Failed {
    pub(super) fn per_try(waited: Duration, queued: bool) -> Self {
        let reason = format!("no response headers within {waited:?}");
        Self {
            blame: if queued { Blame::Nobody } else { Blame::Endpoint },
            ..Self::new(Failure::PerTryTimeout, reason)
        }
    }

    /// The response broke off before anything of it had gone to the caller.
    pub(super) fn broke_off(error: &BodyError) -> Self {
        let sent = Sent::Whole;
        let failure = match error.reset() {
            Some(h2::Reason::REFUSED_STREAM) => Failure::Unprocessed,
            Some(_) => Failure::Reset { sent },
            None => Failure::Lost { sent },
        };
        Self::new(failure, error)
    }

    /// What the caller is told when there is no other attempt at one of the `known` endpoints.
    pub(super) fn told(&self, service: String, endpoint: SocketAddr, known: &Endpoints) -> LocalError {
        let reason = self.reason.clone();
        match self.failure {
            // The node was asked who answers, and nobody does.
            Failure::Connect if matches!(known, Endpoints::LeftToNode { .. }) => {
                LocalError::NoEndpoint { service }
            }
            Failure::Connect | Failure::Overflow => LocalError::ConnectFailed {
                service,
                endpoint,
                reason,
            },
            Failure::Unprocessed | Failure::Lost { .. } => LocalError::ConnectionLost {
                service,
                endpoint,
                reason,
            },
            // Where nothing could be sent the caller is told otherwise.
            Failure::Reset { .. } | Failure::Unfit => LocalError::StreamReset {
                service,
                endpoint,
                reason,
            },
            Failure::PerTryTimeout => LocalError::Timeout {
                service,
                limit: "time of one try",
            },
            Failure::Protocol => LocalError::UpstreamProtocol {
                service,
                endpoint,
                reason,
            },
        }
    }

    fn connect(error: &ConnectError) -> Self {
        let (failure, bound, blame) = match error {
            ConnectError::TooManyPending => (Failure::Overflow, "maxPendingRequests", Blame::Nobody),
            ConnectError::Share(_) => (Failure::Overflow, "the pod's share", Blame::Nobody),
            ConnectError::OfThisSide(_) => (Failure::Connect, "", Blame::Nobody),
            ConnectError::Io(_) | ConnectError::Timeout(_) | ConnectError::Handshake(_) => {
                (Failure::Connect, "", Blame::Endpoint)
            }
        };
        Self {
            bound,
            blame,
            ..Self::new(failure, error)
        }
    }

    fn new(failure: Failure, reason: impl ToString) -> Self {
        Self {
            failure,
            reason: reason.to_string(),
            bound: "",
            blame: Blame::Endpoint,
        }
    }
}

/// `again` gives the same body once more, as long as it can be had, or only when all of it had been sent. It is asked
/// where a connection turns out to have been ended before the request reached the endpoint: that is no attempt.
///
/// The request is put together where it is sent. Handed down it would have a place in each of these futures.
pub(super) async fn attempt(
    pool: &Rc<Pool<AttemptBody>>,
    opening: Opening<'_>,
    via: Via,
    (head, body): (&request::Parts, AttemptBody),
    share: &Rc<Local>,
    again: impl Fn(Sent) -> Option<AttemptBody>,
) -> Result<(Response<Body>, Lease), Failed> {
    match via {
        Via::Http1 => over_http1(pool, opening, head, body, again).await,
        Via::Http2 => over_http2(pool, opening, head, body, share, again).await,
    }
}

async fn over_http1(
    pool: &Rc<Pool<AttemptBody>>,
    opening: Opening<'_>,
    head: &request::Parts,
    mut body: AttemptBody,
    again: impl Fn(Sent) -> Option<AttemptBody>,
) -> Result<(Response<Body>, Lease), Failed> {
    loop {
        let idle = pool.idle_http1();
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            // Boxed: most requests find an idle one, and need not set aside what opening takes.
            None => Box::pin(pool.http1(opening))
                .await
                .map_err(|e| Failed::connect(&e))?,
        };
        let request = Request::from_parts(head.clone(), body);
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                if reused
                    && ends_idle_connection(&response)
                    && let Some(same) = again(Sent::Whole)
                {
                    body = same;
                    continue;
                }
                return Ok((response.map(Body::Http1), Lease::Http1(pool.clone(), connection)));
            }
            Err(mut error) => match error.take_message() {
                // An idle connection that was just being closed: not the request's fault, and no attempt.
                _ if error.error().is_user() => return Err(of_http1(error.error())),
                Some(unsent) if reused => body = unsent.into_body(),
                Some(_) => return Err(Failed::new(Failure::Unprocessed, error.error())),
                None if reused && connection.took_nothing() => match again(Sent::Part) {
                    Some(same) => body = same,
                    None => return Err(of_http1(error.error())),
                },
                None => return Err(of_http1(error.error())),
            },
        }
    }
}

/// An answer to the silence before the request, which it has crossed: the server had waited for one for too long (RFC 9110
/// section 15.5.9).
fn ends_idle_connection(response: &Response<hyper::body::Incoming>) -> bool {
    response.status() == StatusCode::REQUEST_TIMEOUT && has_option(response.headers(), "close")
}

fn of_http1(error: &hyper::Error) -> Failed {
    let (failure, blame) = match () {
        () if error.is_parse() => (Failure::Protocol, Blame::Endpoint),
        () if error.is_user() => (Failure::Unfit, Blame::Nobody),
        () => (Failure::Lost { sent: Sent::Whole }, Blame::Endpoint),
    };
    Failed {
        blame,
        ..Failed::new(failure, error)
    }
}

async fn over_http2(
    pool: &Rc<Pool<AttemptBody>>,
    opening: Opening<'_>,
    head: &request::Parts,
    mut body: AttemptBody,
    share: &Rc<Local>,
    again: impl Fn(Sent) -> Option<AttemptBody>,
) -> Result<(Response<Body>, Lease), Failed> {
    let mut ended = 0;
    loop {
        match once_over_http2(pool, opening, head, body, share).await {
            // The connection was just being ended: not the request's fault and not the endpoint's, and no attempt.
            Err(NotAnswered::Stream(error)) if ended < MAX_ENDED && ended_before_it_took(&error) => {
                ended += 1;
                match again(Sent::Part) {
                    Some(same) => body = same,
                    None => return Err(of_http2(error)),
                }
            }
            sent => return sent.map_err(NotAnswered::failed),
        }
    }
}

/// So many connections may end before they take a request. An endpoint that ends more has had an attempt, or it could keep
/// the request for ever.
const MAX_ENDED: u32 = 4;

/// Why a stream has no response.
enum NotAnswered {
    Connection(ConnectError),
    Stream(h2::Error),
}

impl NotAnswered {
    fn failed(self) -> Failed {
        match self {
            Self::Connection(error) => Failed::connect(&error),
            Self::Stream(error) => of_http2(error),
        }
    }
}

/// Whether the endpoint ends the connection in an orderly way and has done nothing for the stream: it is above the last
/// one that GOAWAY names (RFC 9113 section 6.8).
fn ended_before_it_took(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

async fn once_over_http2(
    pool: &Rc<Pool<AttemptBody>>,
    opening: Opening<'_>,
    head: &request::Parts,
    body: AttemptBody,
    share: &Rc<Local>,
) -> Result<(Response<Body>, Lease), NotAnswered> {
    let end = body.is_end_stream();
    let uploads = if end {
        Uploading::No
    } else {
        uploading(&head.headers)
    };
    let place = pool
        .http2(opening, uploads)
        .await
        .map_err(NotAnswered::Connection)?;
    let sent = place
        .sender()
        .send_request(Request::from_parts(head.clone(), ()), end);
    let (mut response, stream) = sent.map_err(NotAnswered::Stream)?;
    let mut upload = (!end).then(|| Pump::up(body, stream, place.upload(uploads)));
    let response = poll_fn(|cx| {
        if let Some(pump) = &mut upload
            && Pin::new(pump).poll(cx).is_ready()
        {
            upload = None;
        }
        Pin::new(&mut response).poll(cx)
    })
    .await
    .map_err(NotAnswered::Stream)?;
    if let Some(rest) = upload {
        // The answer begins before the request ends, as in a bidirectional stream. Each side now goes at its own
        // pace; when the caller goes away the body breaks off and the stream is reset.
        share.spawn(async move {
            // Broken says that one side has gone, which that side's exchange records.
            let _ = rest.await;
        });
    }
    Ok((response.map(Body::of_stream), Lease::Http2(place)))
}

/// A gRPC call says nothing of its length, and most are small. What else says nothing may be of any length.
fn uploading(headers: &HeaderMap) -> Uploading {
    if is_grpc(headers) {
        return Uploading::Small;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    match length.and_then(|it| it.parse::<u64>().ok()) {
        Some(..=SMALL_UPLOAD) => Uploading::Small,
        _ => Uploading::Large,
    }
}

/// Whether the endpoint holds the request for malformed (RFC 9113 section 8.1.1), or takes it over HTTP/1.1 only.
fn says_unfit(error: &h2::Error) -> bool {
    matches!(
        error.reason(),
        Some(h2::Reason::PROTOCOL_ERROR | h2::Reason::HTTP_1_1_REQUIRED)
    )
}

/// How much had been sent is not known here; the caller, who has the body, sets it right.
fn of_http2(error: h2::Error) -> Failed {
    let sent = Sent::Whole;
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // What h2 itself would not send is the only thing for which it gives no reason.
    let unsendable = !error.is_io() && error.reason().is_none();
    let failure = match () {
        () if unsendable => Failure::Unfit,
        () if error.is_reset() && error.is_remote() && says_unfit(&error) => Failure::Unfit,
        () if error.is_reset() && error.is_remote() && refused => Failure::Unprocessed,
        // h2 fails with a GOAWAY the streams above its last stream id, and those are the unprocessed ones.
        () if error.is_go_away() && error.is_remote() => Failure::Unprocessed,
        () if error.is_reset() && error.is_remote() => Failure::Reset { sent },
        () if error.is_io() => Failure::Lost { sent },
        () => Failure::Protocol,
    };
    let blame = if ended_before_it_took(&error) || failure == Failure::Unfit {
        Blame::Nobody
    } else {
        Blame::Endpoint
    };
    Failed {
        blame,
        ..Failed::new(failure, error)
    }
}
