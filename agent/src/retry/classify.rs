//! Which outcomes a policy wants to be tried again.

use http::{HeaderMap, Method, StatusCode};

use crate::{model::RetryOn, record::Spoken};

/// How an attempt failed before any response headers came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// The endpoint says that it did not process the request: REFUSED_STREAM, or a stream above the last one of
    /// a GOAWAY (RFC 9113 sections 8.7 and 6.8).
    Unprocessed,
    /// The connection ended; the endpoint may or may not have acted on the request.
    Lost { sent: Sent },
    /// The endpoint reset the stream for a reason of its own.
    Reset { sent: Sent },
    /// No response headers within the time of one try.
    PerTryTimeout,
    /// What came back is not HTTP.
    Protocol,
    /// The request has no form in the endpoint's version of HTTP, or the endpoint says that it is none: the caller's
    /// doing, and the same wherever it is sent.
    Unfit,
    /// A bound of the policy was reached: nothing was sent, and nothing is tried again.
    Overflow,
}

impl Failure {
    /// Whether there is no connection any more, so that another try at this endpoint adds nothing to its load.
    pub fn is_of_the_connection(self) -> bool {
        matches!(self, Self::Connect | Self::Unprocessed | Self::Lost { .. })
    }

    /// The same failure, with how much of the request had gone out.
    pub fn after(self, sent: Sent) -> Self {
        match self {
            Self::Lost { .. } => Self::Lost { sent },
            Self::Reset { .. } => Self::Reset { sent },
            other => other,
        }
    }
}

/// How much of the request had gone out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Part,
    Whole,
}

const UNAVAILABLE: u16 = 14;

/// Whether `on` names this failure.
///
/// A lost connection counts as the answer that the caller would get for it: `UNAVAILABLE` to gRPC, whose callers
/// retry that themselves, and 503 to HTTP, where only idempotent methods may be sent again unasked (RFC 9110
/// section 9.2.2).
pub fn failure_may_be_retried(failure: Failure, on: &RetryOn, spoken: Spoken, method: &Method) -> bool {
    let unavailable = match spoken {
        Spoken::Grpc => on.grpc_status.contains(&UNAVAILABLE),
        Spoken::Http1 | Spoken::Http2 => {
            method.is_idempotent() && on.http_status.contains(&StatusCode::SERVICE_UNAVAILABLE)
        }
    };
    // No answer at all: what the gateway says instead is a 5xx.
    let any = on.reset || on.any_5xx || on.gateway_error || may_be_done_twice(on, method);
    let unsent = |sent| on.reset_before_request && sent == Sent::Part;
    match failure {
        Failure::Connect => any || on.connect_failure,
        Failure::Unprocessed => any || on.refused_stream,
        Failure::Lost { sent } => any || unavailable || unsent(sent),
        Failure::Reset { sent } => any || unsent(sent),
        Failure::PerTryTimeout | Failure::Protocol => any,
        Failure::Unfit | Failure::Overflow => false,
    }
}

/// A gRPC call is a POST, which says nothing of what it does.
fn may_be_done_twice(on: &RetryOn, method: &Method) -> bool {
    on.idempotent_methods && method.is_idempotent()
}

/// Whether `on` names this response. `trailers` are looked at as well once they are there.
pub fn response_may_be_retried(
    status: StatusCode,
    headers: &HeaderMap,
    grpc_status: Option<u16>,
    on: &RetryOn,
    method: &Method,
) -> bool {
    on.any_5xx && status.is_server_error()
        || status == StatusCode::SERVICE_UNAVAILABLE && may_be_done_twice(on, method)
        || on.gateway_error && matches!(status.as_u16(), 502..=504)
        || on.retriable_4xx && status == StatusCode::CONFLICT
        || on.http_status.contains(&status)
        || grpc_status.is_some_and(|status| on.grpc_status.contains(&status))
        || on.headers.iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_only_what_does_no_harm_is_sent_again() {
        let check = |failure, spoken, method: Method, expect| {
            let answer = failure_may_be_retried(failure, &RetryOn::default(), spoken, &method);
            assert_eq!(answer, expect, "{failure:?} {spoken:?} {method}");
        };
        let (part, whole) = (
            Failure::Lost { sent: Sent::Part },
            Failure::Lost { sent: Sent::Whole },
        );
        check(Failure::Connect, Spoken::Http1, Method::POST, true);
        check(Failure::Unprocessed, Spoken::Http2, Method::POST, true);
        let reset = Failure::Reset { sent: Sent::Whole };
        for (spoken, method) in [
            (Spoken::Grpc, Method::POST),
            (Spoken::Http1, Method::POST),
            (Spoken::Http2, Method::PATCH),
        ] {
            check(part, spoken, method.clone(), true);
            for failure in [whole, reset, Failure::Protocol, Failure::PerTryTimeout] {
                check(failure, spoken, method.clone(), false);
            }
        }
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            for failure in [whole, reset, Failure::Protocol, Failure::PerTryTimeout] {
                check(failure, Spoken::Http1, method.clone(), true);
            }
        }
    }

    #[test]
    fn calls_that_may_be_done_twice_are_retried_when_their_connection_is_lost() {
        let whole = Failure::Lost { sent: Sent::Whole };
        for spoken in [Spoken::Grpc, Spoken::Http1] {
            assert!(failure_may_be_retried(
                whole,
                &RetryOn::idempotent(),
                spoken,
                &Method::POST
            ));
        }
    }

    #[test]
    fn a_callers_mistake_is_not_made_again() {
        let mut on = RetryOn::idempotent();
        (on.any_5xx, on.gateway_error) = (true, true);
        for spoken in Spoken::ALL {
            assert!(!failure_may_be_retried(Failure::Unfit, &on, spoken, &Method::GET));
        }
    }

    #[test]
    fn a_policy_without_conditions_retries_nothing() {
        for failure in [
            Failure::Connect,
            Failure::Unprocessed,
            Failure::Lost { sent: Sent::Part },
            Failure::Reset { sent: Sent::Part },
            Failure::PerTryTimeout,
            Failure::Protocol,
        ] {
            assert!(
                !failure_may_be_retried(failure, &RetryOn::nothing(), Spoken::Grpc, &Method::GET),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn each_word_for_a_failure_without_an_answer_covers_all_of_them() {
        let words: [fn(&mut RetryOn); 3] = [
            |on| on.reset = true,
            |on| on.any_5xx = true,
            |on| on.gateway_error = true,
        ];
        for word in words {
            let mut on = RetryOn::nothing();
            word(&mut on);
            for failure in [
                Failure::Connect,
                Failure::Unprocessed,
                Failure::Lost { sent: Sent::Whole },
                Failure::Reset { sent: Sent::Whole },
                Failure::PerTryTimeout,
                Failure::Protocol,
            ] {
                assert!(
                    failure_may_be_retried(failure, &on, Spoken::Http2, &Method::POST),
                    "{failure:?} {on:?}"
                );
            }
        }
    }

    #[test]
    fn a_try_that_takes_too_long_is_no_unavailable_endpoint() {
        for spoken in [Spoken::Grpc, Spoken::Http1] {
            let on = RetryOn {
                http_status: vec![StatusCode::SERVICE_UNAVAILABLE],
                grpc_status: vec![UNAVAILABLE],
                ..RetryOn::nothing()
            };
            assert!(!failure_may_be_retried(
                Failure::PerTryTimeout,
                &on,
                spoken,
                &Method::GET
            ));
        }
    }

    #[test]
    fn responses_are_retried_by_status_grpc_status_and_header() {
        let check = |on: RetryOn, status: u16, grpc: Option<u16>, expect: bool| {
            let mut headers = HeaderMap::new();
            headers.insert("x-try-again", "1".parse().unwrap());
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                response_may_be_retried(status, &headers, grpc, &on, &Method::POST),
                expect,
                "{status} {grpc:?} {on:?}"
            );
        };
        check(RetryOn::default(), 503, None, false);
        check(RetryOn::idempotent(), 503, None, true);
        check(RetryOn::idempotent(), 500, None, false);
        check(RetryOn::default(), 200, Some(14), false);
        check(RetryOn::idempotent(), 200, Some(14), true);
        check(RetryOn::idempotent(), 200, Some(13), false);
        let of_get = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            response_may_be_retried(status, &HeaderMap::new(), None, &RetryOn::default(), &Method::GET)
        };
        assert!(of_get(503) && !of_get(500));
        check(
            RetryOn {
                any_5xx: true,
                ..RetryOn::nothing()
            },
            500,
            None,
            true,
        );
        check(
            RetryOn {
                gateway_error: true,
                ..RetryOn::nothing()
            },
            500,
            None,
            false,
        );
        check(
            RetryOn {
                gateway_error: true,
                ..RetryOn::nothing()
            },
            504,
            None,
            true,
        );
        check(
            RetryOn {
                retriable_4xx: true,
                ..RetryOn::nothing()
            },
            409,
            None,
            true,
        );
        check(
            RetryOn {
                headers: vec!["x-try-again".parse().unwrap()],
                ..RetryOn::nothing()
            },
            200,
            None,
            true,
        );
    }
}
