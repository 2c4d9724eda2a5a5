//! One attempt: a request to one endpoint, up to the headers of its response.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use http::{Request, Response, request};
use http_body::Body as _;

use super::pump::Pump;
use crate::{
    pool::{ConnectError, Http1, Http2, Opening, Pool, Uploading},
    respond::{Body, BodyError, LocalError, Via},
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
}

impl Failed {
    pub(super) fn per_try(waited: Duration) -> Self {
        Self::new(
            Failure::PerTryTimeout,
            format!("no response headers within {waited:?}"),
        )
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

    /// What the caller is told when there is no other attempt.
    pub(super) fn told(&self, service: String, endpoint: SocketAddr) -> LocalError {
        let reason = self.reason.clone();
        match self.failure {
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
            Failure::Reset { .. } => LocalError::StreamReset {
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
        let bound = match error {
            ConnectError::TooManyPending => "maxPendingRequests",
            ConnectError::Share(_) => "the pod's share",
            ConnectError::Io(_) | ConnectError::Timeout(_) | ConnectError::Handshake(_) => "",
        };
        let failure = match bound {
            "" => Failure::Connect,
            _ => Failure::Overflow,
        };
        Self {
            bound,
            ..Self::new(failure, error)
        }
    }

    fn new(failure: Failure, reason: impl ToString) -> Self {
        Self {
            failure,
            reason: reason.to_string(),
            bound: "",
        }
    }
}

/// `again` gives the same request once more, as long as it can be had. It is asked where an idle connection turns out
/// to have been closed before the request reached the endpoint: that is no attempt.
pub(super) async fn attempt(
    pool: &Rc<Pool<AttemptBody>>,
    opening: Opening<'_>,
    via: Via,
    head: request::Parts,
    body: AttemptBody,
    share: &Rc<Local>,
    again: impl Fn() -> Option<Request<AttemptBody>>,
) -> Result<(Response<Body>, Lease), Failed> {
    match via {
        Via::Http1 => over_http1(pool, opening, Request::from_parts(head, body), again).await,
        Via::Http2 => over_http2(pool, opening, head, body, share).await,
    }
}

async fn over_http1(
    pool: &Rc<Pool<AttemptBody>>,
    opening: Opening<'_>,
    mut request: Request<AttemptBody>,
    again: impl Fn() -> Option<Request<AttemptBody>>,
) -> Result<(Response<Body>, Lease), Failed> {
    loop {
        let idle = pool.idle_http1();
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => pool.http1(opening).await.map_err(|e| Failed::connect(&e))?,
        };
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                return Ok((response.map(Body::Http1), Lease::Http1(pool.clone(), connection)));
            }
            Err(mut error) => match error.take_message() {
                // An idle connection that was just being closed: not the request's fault, and no attempt.
                Some(unsent) if reused => request = unsent,
                Some(_) => return Err(Failed::new(Failure::Unprocessed, error.error())),
                None if reused && connection.took_nothing() => match again() {
                    Some(same) => request = same,
                    None => return Err(of_http1(error.error())),
                },
                None => return Err(of_http1(error.error())),
            },
        }
    }
}

fn of_http1(error: &hyper::Error) -> Failed {
    let failure = if error.is_parse() {
        Failure::Protocol
    } else {
        Failure::Lost { sent: Sent::Whole }
    };
    Failed::new(failure, error)
}

async fn over_http2(
    pool: &Rc<Pool<AttemptBody>>,
    opening: Opening<'_>,
    head: request::Parts,
    body: AttemptBody,
    share: &Rc<Local>,
) -> Result<(Response<Body>, Lease), Failed> {
    let end = body.is_end_stream();
    let uploads = if end { Uploading::No } else { Uploading::Yes };
    let place = pool
        .http2(opening, uploads)
        .await
        .map_err(|e| Failed::connect(&e))?;
    let sent = place.sender().send_request(Request::from_parts(head, ()), end);
    let (mut response, stream) = sent.map_err(of_http2)?;
    let mut upload = (!end).then(|| Pump::up(body, stream, place.upload()));
    let response = poll_fn(|cx| {
        if let Some(pump) = &mut upload
            && Pin::new(pump).poll(cx).is_ready()
        {
            upload = None;
        }
        Pin::new(&mut response).poll(cx)
    })
    .await
    .map_err(of_http2)?;
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

/// How much had been sent is not known here; the caller, who has the body, sets it right.
fn of_http2(error: h2::Error) -> Failed {
    let sent = Sent::Whole;
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let failure = match () {
        () if error.is_reset() && error.is_remote() && refused => Failure::Unprocessed,
        // h2 fails with a GOAWAY the streams above its last stream id, and those are the unprocessed ones.
        () if error.is_go_away() && error.is_remote() => Failure::Unprocessed,
        () if error.is_reset() && error.is_remote() => Failure::Reset { sent },
        () if error.is_io() => Failure::Lost { sent },
        () => Failure::Protocol,
    };
    Failed::new(failure, error)
}
