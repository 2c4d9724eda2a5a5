//! Outlier detection and circuit breakers.

use serde_json::{Map, Value, json};

use super::{NoteKind, fields::put, reading::Node};

/// `envoy.config.cluster.v3.OutlierDetection`. A cluster without it ejects nobody.
pub(super) fn outliers(detection: Option<Node<'_>>, policy: &mut Map<String, Value>) {
    let mut out = Map::new();
    let Some(detection) = detection else {
        policy.insert("outlierDetection".to_owned(), json!({"enabled": false}));
        return;
    };
    let number = |name| detection.get(name).and_then(|number| number.number());
    let duration = |name| detection.get(name).and_then(|time| time.duration());
    // A detector that is enforced in a part of the cases is here on or off.
    let enforced = |name, default| {
        let share = detection.get(name);
        let percent = share.as_ref().and_then(|share| share.number()).unwrap_or(default);
        if let Some(share) = share
            && !matches!(percent, 0 | 100)
        {
            share.note(super::NoteKind::Differs, "a detector is on or off: it is on");
        }
        percent > 0
    };
    let consecutive = number("consecutive_5xx").unwrap_or(5);
    let on = enforced("enforcing_consecutive_5xx", 100);
    put(&mut out, "consecutive5xx", Some(if on { consecutive } else { 0 }));
    let gateway = number("consecutive_gateway_failure").unwrap_or(5);
    if enforced("enforcing_consecutive_gateway_failure", 0) {
        put(&mut out, "consecutiveGatewayErrors", Some(gateway));
    }
    let local = number("consecutive_local_origin_failure").unwrap_or(5);
    let local_on = enforced("enforcing_consecutive_local_origin_failure", 100);
    let split = detection
        .get("split_external_local_origin_errors")
        .and_then(|split| split.truth());
    if split == Some(true) {
        put(&mut out, "splitLocalOrigin", split);
        put(
            &mut out,
            "consecutiveLocalErrors",
            Some(if local_on { local } else { 0 }),
        );
    }
    for (from, to) in [
        ("interval", "interval"),
        ("base_ejection_time", "baseEjectionTime"),
        ("max_ejection_time", "maxEjectionTime"),
        ("max_ejection_time_jitter", "ejectionJitter"),
    ] {
        put(&mut out, to, duration(from));
    }
    let most = number("max_ejection_percent").unwrap_or(10);
    put(&mut out, "maxEjectionPercent", Some(most));
    let unejects = detection.get("successful_active_health_check_uneject_host");
    put(
        &mut out,
        "healthCheckUnejects",
        unejects.and_then(|unejects| unejects.truth()),
    );
    if let Some(one) = detection.get("always_eject_one_host")
        && one.truth() == Some(false)
    {
        one.remark(
            NoteKind::Differs,
            "of two endpoints or more, one may always be ejected",
        );
    }
    if enforced("enforcing_success_rate", 100) {
        let mut rate = Map::new();
        put(&mut rate, "minimumHosts", number("success_rate_minimum_hosts"));
        put(&mut rate, "requestVolume", number("success_rate_request_volume"));
        #[allow(clippy::cast_precision_loss, reason = "in thousandths, and small")]
        let factor = number("success_rate_stdev_factor").map(|thousandths| thousandths as f64 / 1000.0);
        put(&mut rate, "stdevFactor", factor);
        out.insert("successRate".to_owned(), Value::Object(rate));
    }
    if enforced("enforcing_failure_percentage", 0) {
        let mut percentage = Map::new();
        put(
            &mut percentage,
            "threshold",
            number("failure_percentage_threshold"),
        );
        put(
            &mut percentage,
            "minimumHosts",
            number("failure_percentage_minimum_hosts"),
        );
        put(
            &mut percentage,
            "requestVolume",
            number("failure_percentage_request_volume"),
        );
        out.insert("failurePercentage".to_owned(), Value::Object(percentage));
    }
    // What these say without their detector changes nothing.
    for field in [
        "success_rate_minimum_hosts",
        "success_rate_request_volume",
        "success_rate_stdev_factor",
        "failure_percentage_threshold",
        "failure_percentage_minimum_hosts",
        "failure_percentage_request_volume",
    ] {
        detection.pass_over(field);
    }
    policy.insert("outlierDetection".to_owned(), Value::Object(out));
}

/// `envoy.config.cluster.v3.CircuitBreakers`. The thresholds of default priority. Where Envoy has 1,024 because nobody said
/// anything there is no bound; its default of retries is said.
pub(super) fn breakers(breakers: Option<Node<'_>>, policy: &mut Map<String, Value>) {
    let mut out = Map::new();
    let mut budget = None;
    for thresholds in breakers.iter().flat_map(|breakers| breakers.list("thresholds")) {
        let priority = thresholds.get("priority").and_then(|priority| priority.word());
        if priority.is_some_and(|priority| priority != "DEFAULT") {
            thresholds.note(super::NoteKind::NoEquivalent, "requests have no priority");
            continue;
        }
        // The remaining room is always in the metrics.
        thresholds.pass_over("track_remaining");
        for (from, to) in [
            ("max_connections", "maxConnections"),
            ("max_pending_requests", "maxPendingRequests"),
            ("max_requests", "maxRequests"),
            ("max_retries", "maxRetries"),
        ] {
            put(&mut out, to, thresholds.get(from).and_then(|most| most.number()));
        }
        budget = thresholds.get("retry_budget").map(|budget| {
            let percent = budget
                .at(&["budget_percent", "value"])
                .and_then(|value| value.decimal());
            let min = budget.get("min_retry_concurrency").and_then(|min| min.number());
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
            let percent = percent.unwrap_or(20.0).clamp(0.0, 100.0).round() as u64;
            json!({"percent": percent, "min": min.unwrap_or(3)})
        });
    }
    match budget {
        Some(budget) => {
            // Envoy lets the budget win.
            out.remove("maxRetries");
            policy.insert("retry".to_owned(), json!({"budget": budget}));
        }
        None => {
            out.entry("maxRetries").or_insert_with(|| json!(3));
        }
    }
    policy.insert("circuitBreaking".to_owned(), Value::Object(out));
}
