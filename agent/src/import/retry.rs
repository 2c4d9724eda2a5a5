//! `envoy.config.route.v3.RetryPolicy` → `TrafficPolicy.spec.retry`, or a rule's `retry`.

use serde_json::{Map, Value, json};

use super::{NoteKind, fields::put, reading::Node};

/// A retry policy, carried over.
#[derive(Clone, Debug)]
pub(super) struct Retry<'a> {
    pub(super) node: Node<'a>,
    /// `TrafficPolicy.spec.retry`
    pub(super) policy: Map<String, Value>,
    /// `per_try_timeout`
    pub(super) per_try: Option<String>,
}

/// Words of `retry_on`, and what they are here.
const CONDITIONS: [(&str, &[&str]); 13] = [
    ("5xx", &["5xx"]),
    // Envoy counts lost connections to it.
    ("gateway-error", &["gatewayError", "reset", "connectFailure"]),
    ("reset", &["reset"]),
    ("reset-before-request", &["resetBeforeRequest"]),
    ("connect-failure", &["connectFailure"]),
    ("refused-stream", &["refusedStream"]),
    ("retriable-4xx", &["retriable4xx"]),
    ("cancelled", &["cancelled"]),
    ("deadline-exceeded", &["deadlineExceeded"]),
    ("internal", &["internal"]),
    ("resource-exhausted", &["resourceExhausted"]),
    ("unavailable", &["unavailable"]),
    // Their lists say which.
    ("retriable-status-codes", &[]),
];

pub(super) fn read<'a>(node: &Node<'a>) -> Retry<'a> {
    let mut policy = Map::new();
    let per_try = node.get("per_try_timeout").and_then(|time| time.duration());
    let number = |name| node.get(name).and_then(|number| number.number());
    put(&mut policy, "attempts", Some(number("num_retries").unwrap_or(1)));
    let mut on = Vec::<Value>::new();
    let words = node.get("retry_on");
    let said = words.as_ref().and_then(|words| words.text()).unwrap_or_default();
    for word in said.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match CONDITIONS.iter().find(|(envoy, _)| *envoy == word) {
            Some((_, ours)) => on.extend(ours.iter().map(|word| json!(word))),
            None if word == "retriable-headers" => {}
            None => {
                if let Some(words) = &words {
                    words.remark(
                        NoteKind::NoEquivalent,
                        format!("there is no condition like {word}"),
                    );
                }
            }
        }
    }
    on.sort_by_key(Value::to_string);
    on.dedup();
    policy.insert("on".to_owned(), Value::Array(on));
    let codes = node.list("retriable_status_codes");
    let codes: Vec<Value> = codes
        .iter()
        .filter_map(|code| Some(json!(code.number()?)))
        .collect();
    if !codes.is_empty() && said.contains("retriable-status-codes") {
        policy.insert("httpStatus".to_owned(), Value::Array(codes));
    }
    headers(node, &mut policy);
    backoff(node, &mut policy);
    let predicates = node.list("retry_host_predicate");
    let mut avoid = false;
    for predicate in &predicates {
        let name = predicate.get("name").and_then(|name| name.text());
        if name.is_some_and(|name| name.contains("previous_hosts")) {
            avoid = true;
            predicate.seen();
        } else {
            predicate.no_equivalent();
        }
    }
    policy.insert("avoidPreviousEndpoint".to_owned(), json!(avoid));
    // How often a choice is repeated that met a host to be avoided: it is not.
    node.pass_over("host_selection_retry_max_attempts");
    // Envoy's default.
    put(&mut policy, "bodyBufferBytes", Some(1 << 20));
    if said.trim().is_empty() {
        // Without a condition nothing is retried, whatever else it says.
        policy = Map::from_iter([("attempts".to_owned(), json!(0))]);
    }
    Retry {
        node: node.clone(),
        policy,
        per_try,
    }
}

fn headers(node: &Node<'_>, policy: &mut Map<String, Value>) {
    let mut names = Vec::new();
    for header in node.list("retriable_headers") {
        let Some(name) = header.get("name").and_then(|name| name.text()) else {
            continue;
        };
        if header.get("present_match").and_then(|present| present.truth()) != Some(true) {
            header.remark(NoteKind::Differs, "that the header is there is enough");
            header.seen();
        }
        names.push(json!(name));
    }
    if !names.is_empty() {
        policy.insert("headers".to_owned(), Value::Array(names));
    }
}

fn backoff(node: &Node<'_>, policy: &mut Map<String, Value>) {
    let Some(backoff) = node.get("retry_back_off") else {
        return;
    };
    let duration = |name| backoff.get(name).and_then(|time| time.duration());
    let mut out = Map::new();
    put(&mut out, "base", duration("base_interval"));
    put(&mut out, "max", duration("max_interval"));
    if !out.is_empty() {
        policy.insert("backoff".to_owned(), Value::Object(out));
    }
}

impl Retry<'_> {
    /// Whether it retries every failure without an answer, as a rule's own `retry` does: then that does not retry more.
    pub(super) fn covers_a_rule(&self) -> bool {
        let on = self.policy.get("on").and_then(Value::as_array);
        let mut words = on.into_iter().flatten().filter_map(Value::as_str);
        words.any(|word| matches!(word, "5xx" | "gatewayError" | "reset"))
    }

    /// Its conditions that a rule's own `retry` cannot have beside statuses of HTTP and failures without an answer.
    pub(super) fn beyond_a_rule(&self) -> Vec<&str> {
        let of_rules = [
            "5xx",
            "gatewayError",
            "reset",
            "resetBeforeRequest",
            "retriable4xx",
            "connectFailure",
            "refusedStream",
        ];
        let on = self.policy.get("on").and_then(Value::as_array);
        let words = on.into_iter().flatten().filter_map(Value::as_str);
        let headers = self.policy.contains_key("headers").then_some("headers");
        words
            .filter(|word| !of_rules.contains(word))
            .chain(headers)
            .collect()
    }

    /// As much of it as a rule's own `retry` can say.
    pub(super) fn of_rule(&self) -> Value {
        let mut codes: Vec<u64> = Vec::new();
        let on = self.policy.get("on").and_then(Value::as_array);
        for word in on.into_iter().flatten().filter_map(Value::as_str) {
            match word {
                "5xx" => codes.extend([500, 502, 503, 504]),
                "gatewayError" => codes.extend([502, 503, 504]),
                "retriable4xx" => codes.push(409),
                _ => {}
            }
        }
        let listed = self.policy.get("httpStatus").and_then(Value::as_array);
        codes.extend(listed.into_iter().flatten().filter_map(Value::as_u64));
        codes.sort_unstable();
        codes.dedup();
        let mut out = Map::new();
        put(&mut out, "attempts", self.policy.get("attempts").cloned());
        if !codes.is_empty() {
            out.insert("codes".to_owned(), json!(codes));
        }
        let base = self.policy.get("backoff").and_then(|backoff| backoff.get("base"));
        put(&mut out, "backoff", base.cloned());
        Value::Object(out)
    }
}
