//! Which failures may be tried again on another endpoint.

use http::Method;

use crate::record::Spoken;

/// Attempts after the first.
pub(super) const RETRIES: u32 = 2;

/// How an attempt failed before any response headers came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// The endpoint says that it did not process the request: REFUSED_STREAM, or a stream above the last one of
    /// a GOAWAY (RFC 9113 sections 8.7 and 6.8).
    Unprocessed,
    /// The connection ended; the endpoint may or may not have acted on the request.
    Lost,
    /// The endpoint reset the stream for a reason of its own.
    Reset,
    /// What came back is not HTTP.
    Protocol,
}

/// Whether the request may be sent again, if its body still can be.
///
/// A lost connection is tried again where that is the caller's own rule: gRPC calls it `UNAVAILABLE`, which
/// clients retry; of HTTP's methods the idempotent ones (RFC 9110 section 9.2.2).
pub fn may_retry(failure: Failure, attempts: u32, spoken: Spoken, method: &Method) -> bool {
    attempts <= RETRIES
        && match failure {
            Failure::Connect | Failure::Unprocessed => true,
            Failure::Lost => spoken == Spoken::Grpc || method.is_idempotent(),
            Failure::Reset | Failure::Protocol => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_processed_is_always_sent_again_and_the_rest_only_where_it_does_no_harm() {
        let check = |failure, spoken, method: Method, expect| {
            assert_eq!(
                may_retry(failure, 1, spoken, &method),
                expect,
                "{failure:?} {spoken:?} {method}"
            );
        };
        check(Failure::Connect, Spoken::Http1, Method::POST, true);
        check(Failure::Unprocessed, Spoken::Http2, Method::POST, true);
        check(Failure::Lost, Spoken::Grpc, Method::POST, true);
        check(Failure::Lost, Spoken::Http1, Method::POST, false);
        check(Failure::Lost, Spoken::Http1, Method::PUT, true);
        check(Failure::Reset, Spoken::Grpc, Method::POST, false);
        check(Failure::Protocol, Spoken::Http1, Method::GET, false);
    }

    #[test]
    fn the_third_attempt_is_the_last() {
        assert!(may_retry(Failure::Connect, 2, Spoken::Http1, &Method::GET));
        assert!(!may_retry(Failure::Connect, 3, Spoken::Http1, &Method::GET));
    }
}
