//! `retry`

use std::time::Duration;

use http::StatusCode;

use super::{
    HOUR, MINUTE, MS, SECOND, grpc_status,
    section::{Bad, Section, header},
};
use crate::{
    config::{
        error::{At, Faults},
        traffic_policy as written,
    },
    model::{Backoff, Retry, RetryBudget, RetryOn},
};

/// What one request may hold of the node's memory so that it can be sent again.
const MAX_BODY_BUFFER: u32 = 16 * 1024 * 1024;

const CONDITIONS: &str = "use connectFailure, refusedStream, resetBeforeRequest, reset, 5xx, gatewayError, \
    retriable4xx, an HTTP status from 400 to 599, or the name of a gRPC status such as unavailable";

pub(super) fn check(spec: &written::Retry, at: At<'_>, faults: &mut Faults) -> Retry {
    let default = Retry::default();
    let mut section = Section::new(at, faults);
    let body_buffer_bytes = section
        .number("bodyBufferBytes", spec.body_buffer_bytes, 0..=MAX_BODY_BUFFER)
        .and_then(|bytes| usize::try_from(bytes).ok());
    Retry {
        attempts: section
            .number("attempts", spec.attempts, 0..=100)
            .unwrap_or(default.attempts),
        on: conditions(spec, &mut section),
        backoff: section.inner("backoff", |section| backoff(&spec.backoff, section)),
        budget: spec.budget.as_ref().map_or(default.budget, |budget| {
            section.inner("budget", |section| RetryBudget {
                percent: section
                    .percent("percent", budget.percent, 0..=100)
                    .unwrap_or(default.budget.percent),
                min: section
                    .number("min", budget.min, 0..=u32::MAX)
                    .unwrap_or(default.budget.min),
            })
        }),
        body_buffer_bytes: body_buffer_bytes.unwrap_or(default.body_buffer_bytes),
        avoid_previous_endpoint: spec
            .avoid_previous_endpoint
            .unwrap_or(default.avoid_previous_endpoint),
        hold_headers: section
            .optional("holdHeaders", &spec.hold_headers, MS..=SECOND)
            .map_or(default.hold_headers, |time| time.unwrap_or(Duration::ZERO)),
    }
}

/// `on` replaces the default as a whole; the three lists add to what it says.
fn conditions(spec: &written::Retry, section: &mut Section<'_, '_>) -> RetryOn {
    let mut on = match &spec.on {
        None if spec.idempotent == Some(true) => RetryOn::idempotent(),
        None => RetryOn::default(),
        Some(words) => {
            let found = section.items("on", words, |word| condition(&word.0));
            found.into_iter().fold(RetryOn::nothing(), with)
        }
    };
    let statuses = section.items("httpStatus", &spec.http_status, |number| {
        http_status(*number)
            .ok_or_else(|| Bad::new(number, "is not the HTTP status of a failure", "use 400 to 599"))
    });
    let codes = section.items("grpcStatus", &spec.grpc_status, |word| {
        grpc_status::parse(&word.0)
    });
    let statuses = statuses.into_iter().map(Condition::Http);
    on = statuses
        .chain(codes.into_iter().map(Condition::Grpc))
        .fold(on, with);
    on.headers = section.items("headers", &spec.headers, |name| header(name));
    on
}

#[derive(Clone, Copy)]
enum Condition {
    ConnectFailure,
    RefusedStream,
    ResetBeforeRequest,
    Reset,
    Any5xx,
    GatewayError,
    Retriable4xx,
    Http(StatusCode),
    Grpc(u16),
}

fn condition(text: &str) -> Result<Condition, Bad> {
    Ok(match text {
        "connectFailure" => Condition::ConnectFailure,
        "refusedStream" => Condition::RefusedStream,
        "resetBeforeRequest" => Condition::ResetBeforeRequest,
        "reset" => Condition::Reset,
        "5xx" => Condition::Any5xx,
        "gatewayError" => Condition::GatewayError,
        "retriable4xx" => Condition::Retriable4xx,
        _ => {
            let http = text.parse().ok().and_then(http_status).map(Condition::Http);
            let grpc = || grpc_status::by_name(text).map(Condition::Grpc);
            http.or_else(grpc)
                .ok_or_else(|| Bad::new(text, "is not known", CONDITIONS))?
        }
    })
}

/// Of a failure: a retry on any other would throw a good answer away.
fn http_status(number: u64) -> Option<StatusCode> {
    let number = u16::try_from(number).ok().filter(|n| (400..=599).contains(n))?;
    StatusCode::from_u16(number).ok()
}

fn with(mut on: RetryOn, condition: Condition) -> RetryOn {
    match condition {
        Condition::ConnectFailure => on.connect_failure = true,
        Condition::RefusedStream => on.refused_stream = true,
        Condition::ResetBeforeRequest => on.reset_before_request = true,
        Condition::Reset => on.reset = true,
        Condition::Any5xx => on.any_5xx = true,
        Condition::GatewayError => on.gateway_error = true,
        Condition::Retriable4xx => on.retriable_4xx = true,
        Condition::Http(status) if on.http_status.contains(&status) => {}
        Condition::Http(status) => on.http_status.push(status),
        Condition::Grpc(code) if on.grpc_status.contains(&code) => {}
        Condition::Grpc(code) => on.grpc_status.push(code),
    }
    on
}

/// Without `max`, ten times `base`, as in Envoy.
fn backoff(spec: &written::Backoff, section: &mut Section<'_, '_>) -> Backoff {
    let default = Backoff::default();
    let base = section.duration("base", &spec.base, MS..=MINUTE);
    let max = section.duration("max", &spec.max, MS..=HOUR);
    let base = base.unwrap_or(default.base);
    if let Some(max) = max
        && max < base
    {
        let text = spec.max.as_deref().unwrap_or_default();
        section.fault(
            "max",
            text,
            "is shorter than `base`",
            "use at least as long a time",
        );
    }
    Backoff {
        least: default.least,
        base,
        max: max.unwrap_or(base * 10),
    }
}
