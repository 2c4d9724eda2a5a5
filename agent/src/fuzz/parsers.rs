//! Bytes from peers, from files and from the API server.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::{
    accept::{self, Expecting},
    config::{self, duration as durations},
    import,
    model::{PatternShare, RouteKind},
    proxy, retry,
    route::Table,
};

/// Of a route's regexes.
const SHARE: PatternShare = PatternShare {
    count: 64,
    bytes: 4 << 20,
};

/// The first bytes of a connection: HTTP/1.1, HTTP/2, a TLS ClientHello or anything.
pub(super) fn detect(bytes: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
    else {
        return;
    };
    for expecting in [Expecting::Anything, Expecting::Http, Expecting::Tls] {
        let (_, read) = runtime.block_on(async {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
            accept::detect(&mut &*bytes, expecting, deadline, Duration::from_secs(60)).await
        });
        assert!(bytes.starts_with(&read), "what was read is replayed as it came");
    }
}

pub(super) fn duration(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(parsed) = durations::parse(text)
    {
        let shown = durations::Display(parsed).to_string();
        assert_eq!(
            durations::parse(&shown).ok(),
            Some(parsed),
            "{text:?} is shown as {shown:?}"
        );
    }
}

pub(super) fn grpc_timeout(bytes: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("grpc-timeout"), value)]);
        let most = Duration::from_secs(99_999_999 * 3600);
        assert!(proxy::grpc_timeout(&headers).is_none_or(|timeout| timeout <= most));
    }
}

pub(super) fn pushback(bytes: &[u8]) {
    for name in ["retry-after", "grpc-retry-pushback-ms"] {
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value)]);
            retry::pushback(&headers, SystemTime::UNIX_EPOCH);
        }
    }
}

pub(super) fn config_file(bytes: &[u8]) {
    let _ = config::from_yaml(bytes);
}

/// A route's `spec`, and up to the first end of line the path that is asked for.
pub(super) fn route_object(bytes: &[u8]) {
    let (path, spec) = bytes.split_at(bytes.iter().position(|b| *b == b'\n').unwrap_or(0));
    let Ok(spec) = serde_json::from_slice::<serde_json::Value>(spec) else {
        return;
    };
    let request = Request::builder().uri(path).header("x-test", "1").body(());
    for kind in [RouteKind::Http, RouteKind::Grpc] {
        let Ok(Some(object)) = config::route(kind, ("demo", "route"), 0, spec.clone(), SHARE) else {
            continue;
        };
        let table = Table::new(&[object.route]);
        if let Ok(request) = &request {
            table.choose(&request.clone().into_parts().0);
        }
    }
}

pub(super) fn policy_object(bytes: &[u8]) {
    if let Ok(spec) = serde_json::from_slice(bytes) {
        let _ = config::traffic_policy("demo", spec);
    }
}

pub(super) fn envoy_bootstrap(bytes: &[u8]) {
    if let Ok(document) = config::yaml(bytes) {
        let _ = import::envoy(&document, "demo");
    }
}
