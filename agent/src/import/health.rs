//! Active health checks: `envoy.config.core.v3.HealthCheck`.

use serde_json::{Map, Value, json};

use super::{NoteKind, fields::put, reading::Node};

pub(super) fn read(cluster: &Node<'_>, protocol: &str, policy: &mut Map<String, Value>) {
    let mut checks = cluster.list("health_checks").into_iter();
    let Some(check) = checks.next() else { return };
    for another in checks {
        another.note(NoteKind::NoEquivalent, "an endpoint has one check");
    }
    let mut out = Map::new();
    let asks = ["http_health_check", "grpc_health_check"].map(|kind| check.get(kind));
    if let (Some(asks), "tls") = (asks.into_iter().flatten().next(), protocol) {
        asks.note(
            NoteKind::NoEquivalent,
            "Envoy asks in TLS, which is not begun here: a connection is enough",
        );
        out.insert("tcp".to_owned(), json!({}));
    } else if let Some(http) = check.get("http_health_check") {
        out.insert("http".to_owned(), Value::Object(of_http(&http, cluster)));
    } else if let Some(grpc) = check.get("grpc_health_check") {
        let service = grpc
            .get("service_name")
            .and_then(|name| name.text())
            .unwrap_or_default();
        out.insert("grpc".to_owned(), json!({"service": service}));
    } else if let Some(tcp) = check.get("tcp_health_check") {
        for field in ["send", "receive"] {
            if let Some(field) = tcp.get(field) {
                field.note(NoteKind::NoEquivalent, "a connection is enough");
            }
        }
        out.insert("tcp".to_owned(), json!({}));
    } else {
        check.no_equivalent();
        return;
    }
    let duration = |name| check.get(name).and_then(|time| time.duration());
    let number = |name| check.get(name).and_then(|number| number.number());
    put(&mut out, "interval", duration("interval"));
    put(&mut out, "timeout", duration("timeout"));
    put(&mut out, "unhealthyThreshold", number("unhealthy_threshold"));
    put(&mut out, "healthyThreshold", number("healthy_threshold"));
    // Envoy's default is no jitter.
    put(
        &mut out,
        "jitter",
        Some(number("interval_jitter_percent").unwrap_or(0)),
    );
    put(&mut out, "port", port(cluster));
    check.pass_over("reuse_connection");
    check.pass_over("always_log_health_check_failures");
    policy.insert("healthCheck".to_owned(), Value::Object(out));
}

/// `HealthCheck.HttpHealthCheck`
fn of_http(http: &Node<'_>, cluster: &Node<'_>) -> Map<String, Value> {
    let mut out = Map::new();
    put(&mut out, "path", http.get("path").and_then(|path| path.text()));
    // Envoy's default.
    let host = http.get("host").or_else(|| cluster.get("name"));
    put(&mut out, "host", host.and_then(|host| host.text()));
    let ranges: Vec<Value> = http
        .list("expected_statuses")
        .iter()
        .filter_map(|range| {
            let start = range.get("start")?.number()?;
            // The end stands outside.
            let end = range.get("end")?.number()?.checked_sub(1)?;
            Some(json!(format!("{start}-{end}")))
        })
        .collect();
    let expected = if ranges.is_empty() {
        vec![json!("200")]
    } else {
        ranges
    };
    out.insert("expectedStatuses".to_owned(), Value::Array(expected));
    out
}

/// Where the endpoints are asked, when all say the same.
fn port(cluster: &Node<'_>) -> Option<u64> {
    let groups = cluster.get("load_assignment")?.list("endpoints");
    let entries = groups.iter().flat_map(|group| group.list("lb_endpoints"));
    let said = entries.filter_map(|entry| {
        let config = entry.at(&["endpoint", "health_check_config"])?;
        Some((config.get("port_value")?.number()?, config))
    });
    let mut port = None;
    for (number, config) in said {
        match port {
            None => port = Some(number),
            Some(first) if first == number => {}
            Some(_) => config.note(NoteKind::NoEquivalent, "all endpoints are asked at one port"),
        }
    }
    port
}
