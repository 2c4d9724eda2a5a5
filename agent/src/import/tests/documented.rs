use super::*;

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/examples/envoy/",
            $name,
            ".yaml"
        ))
    };
}

/// Routes and what they share.
mod routing;
/// What clusters say of their endpoints.
mod clusters;

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
         missing listeners[0].hosts[0]\n\
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
                "headers": [{"type": "RegularExpression", "name": "content-type", "value": "application/grpc(\\+.*)?"}],
            }],
            "backendRefs": [backend("store", 8081)],
        }])
    );
    assert_eq!(file["services"][1]["ports"][0]["protocol"], "http2");
    assert_eq!(notes, "missing listeners[0].hosts[0]\n");
}
