use super::*;

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!("../../../../docs/examples/envoy/", $name, ".yaml"))
    };
}

/// The file's form, and the notes of both forms as `kind place`, each place cut down to what tells it apart.
fn imported_as(yaml: &str) -> (Value, String) {
    let document = config::yaml(yaml.as_bytes()).unwrap();
    let mut imported = envoy(&document, "shop").unwrap();
    assert_eq!(
        imported.objects.settle().unwrap(),
        [],
        "nothing is out of our ranges"
    );
    let file = imported.objects.written(Form::File);
    let kubernetes = imported.objects.written(Form::Kubernetes);
    let lines = |form: &str, notes: Vec<Note>| -> String {
        let lines = notes
            .iter()
            .map(|note| format!("{form}{} {}\n", note.kind.as_str(), short(&note.path)));
        lines.collect()
    };
    let said = [
        lines("", imported.notes),
        lines("file: ", file.notes),
        lines("kubernetes: ", kubernetes.notes),
    ];
    (file.documents[0].clone(), said.concat())
}

fn short(path: &str) -> String {
    [
        ("static_resources.", ""),
        ("filter_chains[0].filters[0].typed_config.", ""),
        ("filter_chains[0].", ""),
        ("route_config.virtual_hosts", "hosts"),
        (
            "typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.",
            "",
        ),
        ("explicit_http_config.", ""),
        ("load_assignment.", ""),
    ]
    .iter()
    .fold(path.to_owned(), |path, (long, short)| path.replace(long, short))
}

/// The policy for a service.
fn policy<'a>(file: &'a Value, service: &str) -> &'a Value {
    let mut policies = file["policies"].as_array().unwrap().iter();
    policies
        .find(|policy| policy["targetRefs"][0]["name"] == service)
        .unwrap()
}

fn backend(name: &str, port: u16) -> Value {
    json!({"name": name, "namespace": "shop", "port": port})
}

#[test]
fn the_quick_starts_site_is_reached_in_the_applications_own_tls() {
    let (file, notes) = imported_as(example!("quick-start"));
    assert_eq!(
        file["services"],
        json!([{"name": "site", "namespace": "shop", "ports": [{
            "port": 443, "protocol": "tls", "dns": {"name": "www.site.example", "port": 443, "mode": "logical"},
        }]}])
    );
    assert_eq!(file.get("routes"), None);
    assert_eq!(
        notes,
        "no equivalent listeners[0].access_log\n\
         no equivalent listeners[0].hosts[0].routes[0]\n\
         differs clusters[0].dns_lookup_family\n\
         no equivalent clusters[0].transport_socket\n\
         kubernetes: no equivalent clusters[0]\n"
    );
}

#[test]
fn the_front_proxy_routes_by_path_behind_both_of_its_listeners() {
    let (file, notes) = imported_as(example!("front-proxy"));
    let rule = |prefix: &str, service: &str| json!({"matches": [{"path": {"type": "PathPrefix", "value": prefix}}], "backendRefs": [backend(service, 8000)]});
    let route = |name: &str, port: u16| {
        json!({"kind": "HTTPRoute", "name": name, "namespace": "shop",
            "parentRefs": [{"kind": "Service", "name": name, "port": port}],
            "rules": [rule("/odds", "odds"), rule("/users", "users")]})
    };
    assert_eq!(
        file["routes"],
        json!([route("backend", 8080), route("backend-2", 8443)])
    );
    assert_eq!(
        policy(&file, "odds")["loadBalancer"],
        json!({"algorithm": "roundRobin"})
    );
    assert_eq!(
        notes,
        "missing listeners[0].hosts[0]\n\
         differs listeners[0].hosts[0].routes[0].match.prefix\n\
         differs listeners[0].hosts[0].routes[1].match.prefix\n\
         missing listeners[1].hosts[0]\n\
         differs listeners[1].hosts[0].routes[0].match.prefix\n\
         differs listeners[1].hosts[0].routes[1].match.prefix\n\
         no equivalent listeners[1].transport_socket\n\
         no equivalent layered_runtime\n\
         file: differs clusters[0]\n\
         file: differs clusters[1]\n"
    );
}

#[test]
fn the_edge_proxys_bounds_are_each_named() {
    let (file, notes) = imported_as(example!("edge"));
    assert_eq!(
        file["services"],
        json!([{"name": "shop", "namespace": "shop", "ports": [{"port": 8080, "protocol": "http2"}]}])
    );
    assert_eq!(
        file["policies"],
        json!([{
            "targetRefs": [{"kind": "Service", "name": "shop", "namespace": "shop", "sectionName": "8080"}],
            "loadBalancer": {"algorithm": "roundRobin"},
            "connectionPool": {"connectTimeout": "5s", "windowSize": 65536, "idleTimeout": "1h"},
            "outlierDetection": {"enabled": false},
            "timeouts": {"request": "15s", "idle": "20s"},
            "retry": {"attempts": 0},
        }])
    );
    assert_eq!(
        notes,
        "no equivalent overload_manager\n\
         no equivalent listeners[0].listener_filters[0]\n\
         no equivalent listeners[0].per_connection_buffer_limit_bytes\n\
         no equivalent listeners[0].filter_chain_match\n\
         no equivalent listeners[0].transport_socket\n\
         no equivalent listeners[0].normalize_path\n\
         no equivalent listeners[0].merge_slashes\n\
         no equivalent listeners[0].path_with_escaped_slashes_action\n\
         no equivalent listeners[0].common_http_protocol_options.idle_timeout\n\
         no equivalent listeners[0].common_http_protocol_options.headers_with_underscores_action\n\
         no equivalent listeners[0].http2_protocol_options.max_concurrent_streams\n\
         no equivalent listeners[0].http2_protocol_options.initial_stream_window_size\n\
         no equivalent listeners[0].http2_protocol_options.initial_connection_window_size\n\
         no equivalent listeners[0].request_timeout\n\
         no equivalent clusters[0].per_connection_buffer_limit_bytes\n\
         missing clusters[0].endpoints[0].lb_endpoints[0]\n\
         differs clusters[0].http2_protocol_options.initial_connection_window_size\n"
    );
}

#[test]
fn a_requests_life_has_endpoints_and_no_tls_of_ours() {
    let (file, notes) = imported_as(example!("life-of-a-request"));
    let endpoints = json!([{"address": "10.1.2.10:10002"}, {"address": "10.1.2.11:10002"}]);
    assert_eq!(
        file["services"],
        json!([{"name": "basket", "namespace": "shop", "ports": [{
            "port": 10002, "protocol": "tls", "endpoints": endpoints,
        }]}])
    );
    assert_eq!(
        notes,
        "no equivalent listeners[0].filter_chain_match\n\
         no equivalent listeners[0].transport_socket\n\
         no equivalent listeners[0].http2_protocol_options.max_concurrent_streams\n\
         no equivalent listeners[0].access_log\n\
         no equivalent listeners[0].hosts[0].routes[0]\n\
         no equivalent clusters[0].transport_socket\n\
         no equivalent clusters[0].http2_protocol_options.max_concurrent_streams\n\
         missing clusters[1]\n\
         no equivalent stats_sinks\n"
    );
}

#[test]
fn the_grpc_bridges_small_letters_are_read() {
    let (file, notes) = imported_as(example!("grpc-bridge-client"));
    assert_eq!(
        file["services"],
        json!([{"name": "store-proxy", "namespace": "shop", "ports": [{
            "port": 8811, "protocol": "http", "dns": {"name": "store-proxy", "port": 8811, "mode": "logical"},
        }]}])
    );
    assert_eq!(
        policy(&file, "store-proxy")["connectionPool"],
        json!({"connectTimeout": "250ms", "idleTimeout": "1h"})
    );
    assert_eq!(
        notes,
        "no equivalent listeners[0].add_user_agent\n\
         no equivalent listeners[0].access_log\n\
         no equivalent listeners[0].common_http_protocol_options.idle_timeout\n\
         no equivalent listeners[0].http_filters[0]\n\
         missing listeners[0].hosts[0]\n\
         file: differs clusters[0]\n"
    );
    let (file, notes) = imported_as(example!("grpc-bridge-server"));
    assert_eq!(
        file["routes"][0]["rules"],
        json!([{
            "matches": [{
                "path": {"type": "PathPrefix", "value": "/"},
                "headers": [{"type": "RegularExpression", "name": "content-type", "value": "application/grpc.*"}],
            }],
            "backendRefs": [backend("store", 8081)],
        }])
    );
    assert_eq!(file["services"][1]["ports"][0]["protocol"], "http2");
    assert_eq!(notes, "missing listeners[0].hosts[0]\n");
}

#[test]
fn subsets_are_named_wherever_they_are_chosen() {
    let (file, notes) = imported_as(example!("subsets"));
    let rules = &file["routes"][0]["rules"];
    assert_eq!(
        rules[0]["matches"][0]["headers"],
        json!([{"name": "x-version", "value": "pre-release"}])
    );
    assert_eq!(rules[1]["backendRefs"][0]["weight"], 90);
    assert_eq!(file["services"][0]["ports"][0]["endpoints"][0]["weight"], 3);
    assert_eq!(
        policy(&file, "odds")["loadBalancer"],
        json!({"algorithm": "leastRequest"})
    );
    assert_eq!(
        notes,
        "no equivalent listeners[0].hosts[0].routes[0].route.metadata_match\n\
         no equivalent listeners[0].hosts[0].routes[1].route.weighted_clusters.clusters[0].metadata_match\n\
         differs clusters[0].least_request_lb_config.choice_count\n\
         no equivalent clusters[0].lb_subset_config\n\
         no equivalent clusters[0].endpoints[0].lb_endpoints[0].metadata\n\
         no equivalent clusters[0].endpoints[0].lb_endpoints[1].metadata\n\
         kubernetes: no equivalent clusters[0]\n\
         kubernetes: missing listeners[0].hosts[0]\n"
    );
}

#[test]
fn localities_are_zones_without_priorities() {
    let (file, notes) = imported_as(example!("localities"));
    assert_eq!(
        file["services"][0]["ports"][0]["endpoints"],
        json!([{"address": "10.0.1.1:8000", "zone": "a"}, {"address": "10.0.2.1:8000", "zone": "b"}])
    );
    let policy = policy(&file, "backend");
    assert_eq!(
        policy["loadBalancer"],
        json!({"algorithm": "roundRobin", "panicThreshold": 30, "zoneAware": {"minEndpoints": 4}})
    );
    assert_eq!(policy["healthCheck"]["port"], 8001);
    assert_eq!(
        notes,
        "no equivalent clusters[0].health_checks[0].no_traffic_interval\n\
         no equivalent clusters[0].endpoints[0].locality.region\n\
         no equivalent clusters[0].endpoints[0].load_balancing_weight\n\
         no equivalent clusters[0].endpoints[1].locality.region\n\
         no equivalent clusters[0].endpoints[1].load_balancing_weight\n\
         no equivalent clusters[0].endpoints[2]\n"
    );
}

#[test]
fn health_checks_outliers_and_breakers_are_policies() {
    let (file, notes) = imported_as(example!("health-checks"));
    let web = policy(&file, "web");
    assert_eq!(
        web["healthCheck"],
        json!({
            "http": {"path": "/healthz", "host": "web.internal", "expectedStatuses": ["200-299"]},
            "interval": "1m", "timeout": "1s", "unhealthyThreshold": 3, "healthyThreshold": 3, "jitter": 0,
        })
    );
    assert_eq!(
        web["outlierDetection"],
        json!({
            "consecutive5xx": 10, "consecutiveGatewayErrors": 5, "interval": "10s", "baseEjectionTime": "30s",
            "maxEjectionPercent": 20, "successRate": {"minimumHosts": 5, "requestVolume": 100, "stdevFactor": 1.9},
        })
    );
    // Nothing is retried, so nothing bounds it.
    assert_eq!(
        web["circuitBreaking"],
        json!({"maxConnections": 1000, "maxPendingRequests": 500, "maxRequests": 1000})
    );
    let calls = policy(&file, "calls");
    assert_eq!(calls["healthCheck"]["grpc"], json!({"service": "calls.v1.Calls"}));
    assert_eq!(calls["connectionPool"]["http2Keepalive"], "30s");
    assert_eq!(calls["circuitBreaking"], json!({"maxRequests": 200}));
    assert_eq!(
        file["services"][0]["ports"][0]["endpoints"][0]["state"],
        "terminating"
    );
    let store = policy(&file, "store");
    assert_eq!(store["healthCheck"]["tcp"], json!({}));
    assert_eq!(store["loadBalancer"], json!({"algorithm": "random"}));
    assert_eq!(file["services"][1]["ports"][0]["protocol"], "tcp");
    assert_eq!(
        notes,
        "no equivalent clusters[0].health_checks[0].interval_jitter\n\
         no equivalent clusters[0].health_checks[0].http_health_check.codec_client_type\n\
         no equivalent clusters[0].circuit_breakers.thresholds[1]\n\
         differs clusters[1].http2_protocol_options.connection_keepalive.timeout\n\
         no equivalent clusters[1].health_checks[0].grpc_health_check.authority\n\
         no equivalent clusters[1].health_checks[1]\n\
         no equivalent clusters[2].health_checks[0].tcp_health_check.send\n\
         no equivalent clusters[2].health_checks[0].tcp_health_check.receive\n\
         kubernetes: no equivalent clusters[2]\n"
    );
}

#[test]
fn retries_keep_what_has_an_equivalent() {
    let (file, notes) = imported_as(example!("retries"));
    assert_eq!(
        policy(&file, "users")["retry"],
        json!({
            "attempts": 2, "on": ["5xx", "connectFailure", "reset"], "backoff": {"base": "50ms", "max": "500ms"},
            "avoidPreviousEndpoint": true,
        })
    );
    let rules = &file["routes"][0]["rules"];
    assert_eq!(
        rules[0]["timeouts"],
        json!({"request": "3s", "backendRequest": "800ms"})
    );
    assert_eq!(rules[1]["retry"], json!({"attempts": 1, "codes": [409, 503]}));
    // A policy without a condition retries nothing.
    assert_eq!(policy(&file, "orders")["retry"], json!({"attempts": 0}));
    assert_eq!(
        notes,
        "no equivalent listeners[0].hosts[0].retry_policy.retry_host_predicate[1]\n\
         no equivalent listeners[0].hosts[0].retry_policy.retry_priority\n\
         differs listeners[0].hosts[0].routes[0]\n\
         differs listeners[0].hosts[0].routes[1].route.retry_policy\n\
         kubernetes: no equivalent routes[0].rules[1].retry\n"
    );
}

#[test]
fn a_share_of_the_requests_is_a_weight() {
    let (file, notes) = imported_as(example!("traffic-splitting"));
    let weighted = |name: &str, weight: u64| {
        let mut backend = backend(name, 80);
        backend["weight"] = json!(weight);
        backend
    };
    let rules = |route: usize| &file["routes"][route]["rules"];
    assert_eq!(
        rules(0)[0]["backendRefs"],
        json!([weighted("greeter-v1", 1), weighted("greeter-v2", 3)])
    );
    assert_eq!(rules(0).as_array().unwrap().len(), 1);
    assert_eq!(
        rules(1)[0]["backendRefs"],
        json!([weighted("greeter-v1", 33), weighted("greeter-v2", 67)])
    );
    assert_eq!(
        rules(1)[0]["filters"][0]["requestMirror"],
        json!({"backendRef": backend("greeter-v2", 80), "fraction": {"numerator": 5, "denominator": 100}})
    );
    // Kubernetes has the service, at a port that the bootstrap does not say.
    assert_eq!(
        file["routes"][0]["parentRefs"],
        json!([{"kind": "Service", "name": "greeter"}])
    );
    assert_eq!(
        notes,
        "missing listeners[0].hosts[0]\n\
         differs listeners[0].hosts[0].routes[0].match.runtime_fraction\n\
         no equivalent listeners[0].hosts[0].routes[0].match.runtime_fraction.runtime_key\n\
         missing listeners[0].hosts[1]\n\
         no equivalent listeners[0].hosts[1].routes[0].route.weighted_clusters.runtime_key_prefix\n"
    );
}

#[test]
fn shares_of_several_routes_are_of_what_the_ones_before_leave() {
    let share = |of: u64, cluster: &str| {
        format!(
            "{{match: {{prefix: /, runtime_fraction: {{default_value: {{numerator: {of}, denominator: hundred}}}}}}, \
             route: {{cluster: {cluster}}}}}"
        )
    };
    let all = format!(
        "[{}, {}, {{match: {{prefix: /}}, route: {{cluster: a}}}}]",
        share(50, "a"),
        share(20, "b")
    );
    let (file, _) = routes(&all);
    let backends = &file["routes"][0]["rules"][0]["backendRefs"];
    let weights: Vec<(&str, u64)> = (backends.as_array().unwrap().iter())
        .map(|backend| {
            (
                backend["name"].as_str().unwrap(),
                backend["weight"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(weights, [("a", 5), ("b", 1), ("a", 4)]);
    // Nothing gets the rest in the same way: the share is left out, and named.
    let other = format!(
        "[{}, {{match: {{prefix: /}}, route: {{cluster: b, timeout: 3s}}}}]",
        share(50, "a")
    );
    let (file, notes) = routes(&other);
    assert_eq!(file.get("routes"), None, "what is left is all of b");
    assert!(
        notes.iter().any(|note| note.path.ends_with("routes[0]")),
        "{notes:?}"
    );
}

#[test]
fn a_route_of_more_rules_than_an_object_has_room_for_is_several() {
    let many: Vec<String> = (0..20)
        .map(|n| format!("{{match: {{prefix: /{n}/}}, route: {{cluster: a}}}}"))
        .collect();
    let yaml = bootstrap(&format!("[{}]", many.join(", ")));
    let document = config::yaml(yaml.as_bytes()).unwrap();
    let imported = envoy(&document, "shop").unwrap();
    let documents = imported.objects.written(Form::Kubernetes).documents;
    let routes: Vec<(&str, usize)> = documents
        .iter()
        .filter(|object| object["kind"] == "HTTPRoute")
        .map(|route| {
            let rules = route["spec"]["rules"].as_array().unwrap().len();
            (route["metadata"]["name"].as_str().unwrap(), rules)
        })
        .collect();
    assert_eq!(routes, [("front", 16), ("front-002", 4)]);
}
