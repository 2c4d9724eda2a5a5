//! Answers that the engine gives by itself. Each says which part refused and why, in the caller's own form: a
//! status and a text for HTTP, trailers-only with `grpc-status` for gRPC
//! (gRPC over HTTP/2, "Responses"; status mapping as Envoy's `Grpc::Utility::httpToGrpcStatus`).

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Body, Cause};
use crate::record::{Flag, Spoken};

/// Why the engine answered instead of an endpoint.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LocalError {
    /// The service has no endpoint, or each has been tried.
    #[error("no endpoint of {service} to send to")]
    NoEndpoint { service: String },
    #[error("{service}: no connection to {endpoint}: {reason}")]
    ConnectFailed {
        service: String,
        endpoint: SocketAddr,
        reason: String,
    },
    #[error("{service}: {endpoint} closed the connection before it answered: {reason}")]
    ConnectionLost {
        service: String,
        endpoint: SocketAddr,
        reason: String,
    },
    #[error("{service}: {endpoint} reset the stream: {reason}")]
    StreamReset {
        service: String,
        endpoint: SocketAddr,
        reason: String,
    },
    #[error("{service}: what {endpoint} sent is not HTTP: {reason}")]
    UpstreamProtocol {
        service: String,
        endpoint: SocketAddr,
        reason: String,
    },
    #[error("the request cannot be passed on: {reason}")]
    BadRequest { reason: &'static str },
    /// The caller went away within its request's body, or wrote what is none.
    #[error("the request's body {}", match cause {
        Cause::Gone => "broke off before its end",
        Cause::Malformed => "is malformed",
    })]
    RequestBrokeOff { cause: Cause },
    /// Nothing more of it has come for as long as a stream may be silent.
    #[error("the request did not go on within the idle timeout")]
    RequestStalled,
    #[error("{service}: no answer within the {limit}")]
    Timeout { service: String, limit: &'static str },
    /// A bound of `circuitBreaking` or of an inbound port.
    #[error("{service}: overloaded: {bound} is reached")]
    Overload { service: String, bound: &'static str },
    #[error("no route of {service} matches the request")]
    NoRoute { service: String },
    #[error("route {route} of {service} has no backend for the request: {reason}")]
    NoBackend {
        service: String,
        route: String,
        reason: String,
    },
}

impl LocalError {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoint { .. }
            | Self::ConnectFailed { .. }
            | Self::ConnectionLost { .. }
            | Self::StreamReset { .. }
            | Self::Overload { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::RequestStalled => StatusCode::REQUEST_TIMEOUT,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::NoBackend { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamProtocol { .. } => StatusCode::BAD_GATEWAY,
            Self::BadRequest { .. } | Self::RequestBrokeOff { .. } => StatusCode::BAD_REQUEST,
        }
    }

    pub fn flag(&self) -> Flag {
        match self {
            Self::NoEndpoint { .. } => Flag::NoHealthyUpstream,
            Self::ConnectFailed { .. } => Flag::UpstreamConnectionFailure,
            Self::ConnectionLost { .. } => Flag::UpstreamConnectionTermination,
            Self::StreamReset { .. } => Flag::UpstreamRemoteReset,
            Self::UpstreamProtocol { .. } => Flag::UpstreamProtocolError,
            Self::BadRequest { .. }
            | Self::RequestBrokeOff {
                cause: Cause::Malformed,
            } => Flag::DownstreamProtocolError,
            Self::RequestBrokeOff { cause: Cause::Gone } => Flag::DownstreamConnectionTermination,
            Self::RequestStalled => Flag::StreamIdleTimeout,
            Self::Timeout { .. } => Flag::UpstreamTimeout,
            Self::Overload { .. } => Flag::UpstreamOverflow,
            Self::NoRoute { .. } => Flag::NoRoute,
            Self::NoBackend { .. } => Flag::NoRoute,
        }
    }

    /// `UNAVAILABLE` (14) when another attempt may succeed, or a route has no backend (Gateway API, `GRPCRouteRule`),
    /// `DEADLINE_EXCEEDED` (4) when time has run out, `UNIMPLEMENTED` (12) when nobody serves the method, `INTERNAL` (13)
    /// when the request is bad.
    fn grpc_status(&self) -> HeaderValue {
        HeaderValue::from_static(match self.status() {
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => {
                "14"
            }
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "4",
            StatusCode::NOT_FOUND => "12",
            _ => "13",
        })
    }

    /// The answer in the caller's form.
    pub fn response(&self, spoken: Spoken) -> Response<Body> {
        let text = format!("derny: {self}");
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::SERVER, HeaderValue::from_static("derny"));
        if matches!(self, Self::Overload { .. }) {
            headers.insert("x-derny-overloaded", HeaderValue::from_static("true"));
        }
        let (status, body) = if spoken == Spoken::Grpc {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", self.grpc_status());
            headers.insert("grpc-message", grpc_message(&text));
            (StatusCode::OK, Body::Empty)
        } else {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            (self.status(), Body::Full(Bytes::from(text + "\n")))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// What a `grpc-message` must have percent-encoded: everything but 0x20–0x24 and 0x26–0x7E.
const MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

fn grpc_message(text: &str) -> HeaderValue {
    let encoded = utf8_percent_encode(text, MESSAGE).to_string();
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static("derny"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_caller_is_answered_with_trailers_only() {
        let error = LocalError::NoEndpoint {
            service: "demo/größe:80".into(),
        };
        let response = error.response(Spoken::Grpc);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(
            response.headers()["grpc-message"],
            "derny: no endpoint of demo/gr%C3%B6%C3%9Fe:80 to send to"
        );
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[test]
    fn an_http_caller_is_told_in_plain_text() {
        let response = LocalError::NoEndpoint {
            service: "demo/a:80".into(),
        }
        .response(Spoken::Http1);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::SERVER], "derny");
    }
}
