use serde_json::{Value, json};

use super::*;
use crate::config;

/// Bootstraps of the shapes that Envoy's documentation shows.
mod documented;
/// What must not come to mean something else.
mod meaning;

const SIDECAR: &str = include_str!("../../../docs/examples/envoy-sidecar.yaml");

fn imported(yaml: &str) -> (Vec<Value>, Vec<Note>) {
    let document = config::yaml(yaml.as_bytes()).unwrap();
    let mut imported = envoy(&document, "shop").unwrap();
    let left_out = imported.objects.settle().unwrap();
    (
        imported.objects.written(Form::File).documents,
        [imported.notes, left_out].concat(),
    )
}

fn cluster(fields: &str) -> (Value, Vec<Note>) {
    let yaml = format!(
        "static_resources: {{clusters: [{{name: user, type: STATIC, load_assignment: {{endpoints: [{{lb_endpoints: \
         [{{endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: 8080}}}}}}}}]}}]}}, {fields}}}]}}"
    );
    let (documents, notes) = imported(&yaml);
    (documents[0]["policies"][0].clone(), notes)
}

/// Paths with their kinds.
fn places(notes: &[Note]) -> Vec<(String, NoteKind)> {
    notes.iter().map(|note| (note.path.clone(), note.kind)).collect()
}

#[test]
fn what_envoy_leaves_to_its_defaults_is_said() {
    let (policy, notes) = cluster("lb_policy: ROUND_ROBIN");
    assert_eq!(
        policy,
        json!({
            "targetRefs": [{"kind": "Service", "name": "user", "namespace": "shop", "sectionName": "8080"}],
            "loadBalancer": {"algorithm": "roundRobin"},
            "connectionPool": {"connectTimeout": "5s", "idleTimeout": "1h"},
            "outlierDetection": {"enabled": false},
            "retry": {"attempts": 0},
        })
    );
    assert_eq!(notes, []);
}

#[test]
fn outlier_detection_has_envoys_defaults_where_ours_are_others() {
    let (policy, _) = cluster("outlier_detection: {consecutive_5xx: 3, base_ejection_time: 15s}");
    assert_eq!(
        policy["outlierDetection"],
        json!({"consecutive5xx": 3, "baseEjectionTime": "15s", "maxEjectionPercent": 10, "successRate": {}})
    );
    let (policy, notes) = cluster(
        "outlier_detection: {enforcing_success_rate: 0, enforcing_consecutive_5xx: 50, \
         split_external_local_origin_errors: true, enforcing_failure_percentage: 100, failure_percentage_threshold: 60}",
    );
    assert_eq!(
        policy["outlierDetection"],
        json!({
            "consecutive5xx": 5, "splitLocalOrigin": true, "consecutiveLocalErrors": 5, "maxEjectionPercent": 10,
            "failurePercentage": {"threshold": 60},
        })
    );
    let half = "static_resources.clusters[0].outlier_detection.enforcing_consecutive_5xx";
    assert_eq!(places(&notes), [(half.to_owned(), NoteKind::Differs)]);
}

#[test]
fn a_field_that_nothing_does_is_named() {
    let (_, notes) = cluster(
        "transport_socket: {name: envoy.transport_sockets.tls}, circuit_breakers: {thresholds: [{priority: HIGH, \
         max_requests: 1}]}, health_checks: [{timeout: 1s, interval: 5s, unhealthy_threshold: 3, healthy_threshold: 2, \
         tcp_health_check: {}, no_traffic_interval: 60s}]",
    );
    let cluster = |field: &str| {
        (
            format!("static_resources.clusters[0].{field}"),
            NoteKind::NoEquivalent,
        )
    };
    assert_eq!(
        places(&notes),
        [
            cluster("transport_socket"),
            cluster("circuit_breakers.thresholds[0]"),
            cluster("health_checks[0].no_traffic_interval"),
        ]
    );
    assert!(
        notes[0].said.starts_with("TLS is passed through"),
        "{}",
        notes[0].said
    );
}

#[test]
fn a_value_out_of_our_range_is_left_out_and_named() {
    let (policy, notes) = cluster("connect_timeout: 120s");
    assert_eq!(policy["connectionPool"], json!({"idleTimeout": "1h"}));
    assert_eq!(
        places(&notes),
        [(
            "policies[0].connectionPool.connectTimeout".to_owned(),
            NoteKind::NoEquivalent
        )]
    );
}

#[test]
fn a_hash_without_a_hash_policy_is_no_hash() {
    let (policy, _) = cluster("lb_policy: MAGLEV, maglev_lb_config: {table_size: 1009}");
    assert_eq!(policy["loadBalancer"], json!({"algorithm": "random"}));
}

/// Routes over clusters `a` and `b`.
fn routes(routes: &str) -> (Value, Vec<Note>) {
    let (documents, notes) = imported(&bootstrap(routes));
    (documents[0].clone(), notes)
}

fn bootstrap(routes: &str) -> String {
    let cluster = |name: &str, last: u8| {
        format!(
            "{{name: {name}, load_assignment: {{endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: \
             {{address: 10.0.0.{last}, port_value: 80}}}}}}}}]}}]}}}}"
        )
    };
    format!(
        "static_resources: {{listeners: [{{address: {{socket_address: {{address: 10.1.0.1, port_value: 8000}}}}, \
         filter_chains: [{{filters: [{{name: hcm, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         route_config: {{virtual_hosts: [{{name: front, domains: ['*'], routes: {routes}}}]}}}}}}]}}]}}], \
         clusters: [{}, {}]}}",
        cluster("a", 1),
        cluster("b", 2)
    )
}

#[test]
fn rules_say_what_routes_said() {
    let (file, notes) = routes(
        "[{match: {prefix: /a/, headers: [{name: x-tester, string_match: {exact: '1'}}]}, route: {cluster: a, \
         prefix_rewrite: /, timeout: 3s}}, {match: {path: /old}, redirect: {path_redirect: /new}}, \
         {match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 9}, {name: b, weight: 1}]}}}]",
    );
    assert_eq!(notes, []);
    assert_eq!(file["services"][2]["addresses"], json!(["10.1.0.1"]));
    let route = &file["routes"][0];
    assert_eq!(
        route["parentRefs"],
        json!([{"kind": "Service", "name": "front", "port": 8000}])
    );
    let backend = |name: &str| json!({"name": name, "namespace": "shop", "port": 80});
    assert_eq!(
        route["rules"][0],
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": "/a/"}, "headers": [{"name": "x-tester", "value": "1"}]}],
            "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}],
            "backendRefs": [backend("a")],
            "timeouts": {"request": "3s"},
        })
    );
    assert_eq!(
        route["rules"][1]["filters"][0]["requestRedirect"],
        json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"}, "statusCode": 301})
    );
    assert_eq!(route["rules"][2]["backendRefs"][0]["weight"], 9);
}

#[test]
fn a_route_that_cannot_be_expressed_takes_no_request() {
    let (file, notes) = routes(
        "[{match: {prefix: /, headers: [{name: x, string_match: {exact: '1'}, invert_match: true}]}, route: {cluster: \
         a}}, {match: {prefix: /x/}, direct_response: {status: 200}}, {match: {prefix: /}, route: {cluster: b}}]",
    );
    // What was answered directly must not go to b, which takes what the first one would have taken.
    let rules = &file["routes"][0]["rules"];
    assert_eq!(
        rules[0],
        json!({"matches": [{"path": {"type": "PathPrefix", "value": "/x/"}}]})
    );
    assert_eq!(rules[1]["backendRefs"][0]["name"], "b");
    let kinds: Vec<NoteKind> = notes.iter().map(|note| note.kind).collect();
    assert_eq!(
        kinds,
        [NoteKind::NoEquivalent, NoteKind::NoEquivalent],
        "{notes:?}"
    );
}

#[test]
fn an_order_that_would_change_is_named() {
    let (_, notes) = routes(
        "[{match: {prefix: /, headers: [{name: x, string_match: {exact: '1'}}]}, route: {cluster: a}}, \
         {match: {prefix: /api/}, route: {cluster: b}}]",
    );
    let [note] = notes.as_slice() else {
        panic!("{notes:?}")
    };
    assert!(
        note.path.ends_with("routes[0]") && note.kind == NoteKind::Differs,
        "{note:?}"
    );
}

#[test]
fn retries_of_the_first_route_are_those_of_the_service_that_is_dialled() {
    let (file, notes) = routes(
        "[{match: {prefix: /a/}, route: {cluster: a, retry_policy: {retry_on: 'connect-failure,gateway-error,unavailable', \
         num_retries: 3, per_try_timeout: 0.5s, retry_back_off: {base_interval: 0.1s, max_interval: 1s}}}}, \
         {match: {prefix: /b/}, route: {cluster: b}}, \
         {match: {prefix: /c/}, route: {cluster: a, retry_policy: {retry_on: '5xx,unavailable'}}}, \
         {match: {prefix: /d/}, route: {cluster: a, retry_policy: {retry_on: 'connect-failure,retriable-4xx'}}}]",
    );
    let policy = |service: &str| {
        let mut policies = file["policies"].as_array().unwrap().iter();
        policies
            .find(|policy| policy["targetRefs"][0]["name"] == service)
            .unwrap()
    };
    assert_eq!(
        policy("front")["retry"],
        json!({
            "attempts": 3, "on": ["connectFailure", "gatewayError", "reset", "unavailable"],
            "backoff": {"base": "100ms", "max": "1s"}, "avoidPreviousEndpoint": false, "bodyBufferBytes": 1_048_576,
        }),
        "of what is dialled"
    );
    assert_eq!(policy("front")["targetRefs"][0]["sectionName"], "8000");
    assert_eq!(
        policy("a")["retry"],
        json!({"attempts": 0}),
        "who dials it has no route"
    );
    assert_eq!(
        policy("a")["circuitBreaking"],
        json!({"maxRetries": 3}),
        "that of the endpoints"
    );
    let rules = &file["routes"][0]["rules"];
    assert_eq!(rules[0]["timeouts"], json!({"backendRequest": "500ms"}));
    assert_eq!(rules[1]["retry"], json!({"attempts": 0}));
    assert_eq!(
        rules[2]["retry"],
        json!({"attempts": 1, "codes": [500, 502, 503, 504]})
    );
    assert_eq!(
        rules[3]["retry"],
        json!({"attempts": 0}),
        "a rule's own retries would do more than Envoy's"
    );
    let [less, nothing] = notes.as_slice() else {
        panic!("{notes:?}")
    };
    assert!(less.said.ends_with("no condition like unavailable"), "{less:?}");
    assert!(nothing.said.ends_with("this rule retries nothing"), "{nothing:?}");
}

#[test]
fn what_is_no_bootstrap_is_refused() {
    for document in [json!({}), json!([]), json!({"static_resources": {}})] {
        assert_eq!(envoy(&document, "x").unwrap_err(), ImportError::NotABootstrap);
    }
}

#[test]
fn a_sidecars_bootstrap_becomes_objects_of_kubernetes() {
    let document = config::yaml(SIDECAR.as_bytes()).unwrap();
    let mut imported = envoy(&document, "betting").unwrap();
    assert_eq!(imported.objects.settle().unwrap(), []);
    let documents = imported.objects.written(Form::Kubernetes).documents;
    let named: Vec<String> = documents
        .iter()
        .map(|object| {
            let metadata = &object["metadata"];
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!(
                "{} {}/{}",
                text(&object["kind"]),
                text(&metadata["namespace"]),
                text(&metadata["name"])
            )
        })
        .collect();
    assert_eq!(
        named,
        [
            "Service betting/ledger",
            "EndpointSlice betting/ledger-5432-ipv4-5432",
            "HTTPRoute betting/race",
            "TrafficPolicy betting/user-8080",
            "TrafficPolicy betting/race-8080",
            "TrafficPolicy betting/race-canary-8080",
            "TrafficPolicy betting/ledger-5432",
        ]
    );
    let places: Vec<&str> = imported.notes.iter().map(|note| &*note.path).collect();
    assert_eq!(
        places,
        [
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.access_log",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0]",
            "static_resources.listeners[1].filter_chains[0].filters[0].typed_config.cluster",
        ],
        "{:?}",
        imported.notes
    );
}

#[test]
fn hosts_of_one_name_stay_apart_and_a_lone_value_is_a_list() {
    let listener = |port: u16| {
        format!(
            "{{address: {{socket_address: {{address: 0.0.0.0, port_value: {port}}}}}, filter_chains: [{{filters: \
             [{{name: hcm, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
             route_config: {{virtual_hosts: [{{name: back, domains: ['*'], routes: [{{match: {{prefix: /one/}}, route: \
             {{cluster: one}}}}]}}]}}}}}}]}}]}}"
        )
    };
    let yaml = format!(
        "static_resources: {{listeners: [{}, {}], clusters: {{name: one, type: STRICT_DNS, load_assignment: {{endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: one, port_value: 80}}}}}}}}]}}]}}}}}}",
        listener(8000),
        listener(8443)
    );
    let (documents, notes) = imported(&yaml);
    let names: Vec<&Value> = documents[0]["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| &route["name"])
        .collect();
    assert_eq!(names, ["back", "back-2"]);
    assert_eq!(documents[0]["services"][2]["name"], "one");
    let kinds: Vec<NoteKind> = notes.iter().map(|note| note.kind).collect();
    assert_eq!(kinds, [NoteKind::Missing; 2], "{notes:?}");
}
