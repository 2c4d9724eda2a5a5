//! `healthCheck`

use std::time::Duration;

use http::uri::{Authority, PathAndQuery};

use super::{
    super::words,
    HOUR, MINUTE,
    section::{Bad, Section},
};
use crate::{
    config::{
        error::{At, Faults},
        traffic_policy as written,
    },
    model::{HealthCheck, Probe},
};

const OK: (u16, u16) = (200, 299);

/// `None` when it says nothing that could be probed.
pub(super) fn check(spec: &written::HealthCheck, at: At<'_>, faults: &mut Faults) -> Option<HealthCheck> {
    let port = spec
        .port
        .and_then(|port| words::port(port, at.field("port"), faults));
    let mut section = Section::new(at, faults);
    let probe = probe(spec, &mut section);
    // The rest is looked at even when the probe is wrong, for its own faults.
    let default = HealthCheck::new(Probe::Tcp);
    let interval = section
        .duration("interval", &spec.interval, Duration::from_millis(100)..=HOUR)
        .unwrap_or(default.interval);
    let timeout = section
        .duration("timeout", &spec.timeout, Duration::from_millis(10)..=MINUTE)
        .unwrap_or(default.timeout);
    let unhealthy_threshold = section.number("unhealthyThreshold", spec.unhealthy_threshold, 1..=1000);
    let healthy_threshold = section.number("healthyThreshold", spec.healthy_threshold, 1..=1000);
    let jitter = section.percent("jitter", spec.jitter, 0..=100);
    Some(HealthCheck {
        probe: probe?,
        interval,
        timeout,
        unhealthy_threshold: unhealthy_threshold.unwrap_or(default.unhealthy_threshold),
        healthy_threshold: healthy_threshold.unwrap_or(default.healthy_threshold),
        jitter: jitter.unwrap_or(default.jitter),
        port,
    })
}

fn probe(spec: &written::HealthCheck, section: &mut Section<'_, '_>) -> Option<Probe> {
    match (&spec.http, &spec.grpc, &spec.tcp) {
        (Some(http), None, None) => section.inner("http", |section| http_probe(http, section)),
        (None, Some(grpc), None) => section.inner("grpc", |section| grpc_probe(grpc, section)),
        (None, None, Some(written::TcpProbe {})) => Some(Probe::Tcp),
        (None, None, None) => {
            section.own_fault(
                "{}",
                "has no probe",
                "add `http: {path: /}`, `grpc: {}` or `tcp: {}`",
            );
            None
        }
        _ => {
            let given = [
                ("http", spec.http.is_some()),
                ("grpc", spec.grpc.is_some()),
                ("tcp", spec.tcp.is_some()),
            ];
            let given = given.iter().filter(|(_, there)| *there).map(|(name, _)| *name);
            let given = given.collect::<Vec<_>>().join(", ");
            section.own_fault(&given, "are several probes", "keep one of them");
            None
        }
    }
}

fn http_probe(spec: &written::HttpProbe, section: &mut Section<'_, '_>) -> Option<Probe> {
    let path = &spec.path;
    let good_path = path.starts_with('/') && path.parse::<PathAndQuery>().is_ok();
    if !good_path {
        section.fault(
            "path",
            path,
            "is not a path",
            "write it like /healthz, percent-encoded",
        );
    }
    let good_host = spec.host.as_deref().is_none_or(|host| {
        let good = host.parse::<Authority>().is_ok() && !host.contains('@');
        if !good {
            section.fault(
                "host",
                host,
                "is not a host",
                "write it like echo.example or echo.example:8080",
            );
        }
        good
    });
    let expected = match spec.expected_statuses.as_deref() {
        None => vec![OK],
        Some([]) => {
            section.fault(
                "expectedStatuses",
                "[]",
                "lets nothing pass",
                "name a status, or remove it",
            );
            return None;
        }
        Some(words) => section.items("expectedStatuses", words, |word| statuses(&word.0)),
    };
    (good_path && good_host).then(|| Probe::Http {
        path: path.as_str().into(),
        host: spec.host.as_deref().map(Into::into),
        expected,
    })
}

/// `404`, or `200-299` with both ends included.
fn statuses(text: &str) -> Result<(u16, u16), Bad> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
    match (status(low), status(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        _ => Err(Bad::new(
            text,
            "is not a status or a range of them",
            "write 204 or 200-299, within 100 to 599",
        )),
    }
}

/// A full name as in a `.proto`: `package.Service`.
fn grpc_probe(spec: &written::GrpcProbe, section: &mut Section<'_, '_>) -> Option<Probe> {
    let service = &spec.service;
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-' | b'/');
    let good = service.len() <= 255 && service.bytes().all(inner);
    if !good {
        let remedy = "write it like example.v1.Echo, or leave it out for the server as a whole";
        section.fault("service", service, "is not a gRPC service's name", remedy);
    }
    good.then(|| Probe::Grpc {
        service: service.as_str().into(),
    })
}
