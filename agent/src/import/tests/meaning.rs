use super::*;

#[test]
fn a_rule_whose_condition_is_refused_goes_whole() {
    let (file, notes) = routes(
        "[{match: {prefix: //admin}, route: {cluster: a}}, \
         {match: {prefix: /, headers: [{name: x, string_match: {safe_regex: {regex: '\\Qa.b\\E'}}}]}, route: {cluster: a}}, \
         {match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 3000000}, {name: b, weight: \
         1000000}]}}}]",
    );
    let rules = file["routes"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1, "{rules:?}");
    let weights = [0, 1].map(|n| rules[0]["backendRefs"][n]["weight"].as_u64().unwrap());
    assert_eq!(weights, [3, 1]);
    let left_out = notes
        .iter()
        .filter(|note| note.said.contains("the rule is left out"));
    assert_eq!(left_out.count(), 2, "{notes:?}");
}

#[test]
fn any_number_of_values_may_be_out_of_our_ranges() {
    let clusters: Vec<String> = (0..70)
        .map(|n| {
            format!(
                "{{name: c{n}, connect_timeout: 120s, load_assignment: {{endpoints: [{{lb_endpoints: [{{endpoint: \
                 {{address: {{socket_address: {{address: 10.0.1.{n}, port_value: 80}}}}}}}}]}}]}}}}"
            )
        })
        .collect();
    let (_, notes) = imported(&format!(
        "static_resources: {{clusters: [{}]}}",
        clusters.join(", ")
    ));
    assert_eq!(notes.len(), 70);
}

/// A listener with these virtual hosts, in front of the clusters of [`bootstrap`].
fn hosts(hosts: &str) -> (Value, Vec<Note>) {
    let one = bootstrap("[]");
    let begin = one.find("virtual_hosts: [").unwrap() + "virtual_hosts: [".len();
    let end = begin + one[begin..].find("routes: []}").unwrap() + "routes: []}".len();
    let (documents, notes) = imported(&format!("{}{hosts}{}", &one[..begin], &one[end..]));
    (documents[0].clone(), notes)
}

#[test]
fn an_address_is_given_to_one_service() {
    let host = |name: &str| {
        format!(
            "{{name: {name}, domains: [{name}.example], routes: [{{match: {{prefix: /a/}}, route: {{cluster: a}}}}]}}"
        )
    };
    let (file, notes) = hosts(&format!("{}, {}", host("one"), host("two")));
    let addresses: Vec<&Value> = file["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["addresses"])
        .collect();
    assert_eq!(
        addresses.iter().filter(|a| !a.is_null()).count(),
        1,
        "{addresses:?}"
    );
    assert_eq!(
        notes.iter().filter(|note| note.kind == NoteKind::Missing).count(),
        1,
        "{notes:?}"
    );
}

#[test]
fn routes_that_share_a_service_and_differ_are_named() {
    let (file, notes) = hosts(
        "{name: one, domains: [user], routes: [{match: {prefix: /}, route: {cluster: a, timeout: 2s, idle_timeout: 10s}}]}, \
         {name: two, domains: [user.shop], routes: [{match: {prefix: /}, route: {cluster: a, timeout: 60s}}]}",
    );
    assert_eq!(
        file["policies"][0]["timeouts"],
        json!({"request": "2s", "idle": "10s"})
    );
    let differs = notes.iter().filter(|note| note.kind == NoteKind::Differs);
    assert_eq!(differs.count(), 1, "{notes:?}");
}

#[test]
fn who_was_called_at_a_listener_is_said() {
    let (_, notes) = routes("[{match: {prefix: /}, route: {cluster: a}}]");
    let [note] = notes.as_slice() else {
        panic!("{notes:?}")
    };
    assert_eq!(note.kind, NoteKind::Missing);
    assert!(
        note.said
            .contains("10.1.0.1, port 8000: they dial shop/a, port 80, now"),
        "{note:?}"
    );
}

#[test]
fn a_check_in_tls_is_one_of_connections() {
    let (policy, notes) = cluster(
        "transport_socket: {name: envoy.transport_sockets.tls}, health_checks: [{timeout: 1s, interval: 5s, \
         unhealthy_threshold: 3, healthy_threshold: 2, http_health_check: {path: /ready}}]",
    );
    assert_eq!(policy["healthCheck"]["tcp"], json!({}));
    assert_eq!(policy["healthCheck"].get("http"), None);
    assert_eq!(notes.len(), 2, "{notes:?}");
}

/// Routes of one document that all have a fault: each goes, and none takes another's place.
#[test]
fn routes_that_lose_all_of_their_rules_go_together() {
    let host = |name: &str, prefix: &str| {
        format!(
            "{{name: {name}, domains: [{name}.example], routes: [{{match: {{prefix: {prefix}}}, route: {{cluster: a, \
             prefix_rewrite: /}}}}]}}"
        )
    };
    let three = [host("one", "//x"), host("two", "//y"), host("three", "/z/")];
    let (file, notes) = hosts(&three.join(", "));
    let routes = file["routes"].as_array().unwrap();
    let names: Vec<&Value> = routes.iter().map(|route| &route["name"]).collect();
    assert_eq!(names, ["three"]);
    assert_eq!(routes[0]["rules"][0]["matches"][0]["path"]["value"], "/z/");
    let left_out = notes
        .iter()
        .filter(|note| note.said.contains("the rule is left out"));
    assert_eq!(left_out.count(), 2, "{notes:?}");
}

#[test]
fn a_service_of_kubernetes_has_its_policy_whatever_its_port() {
    let host = "{name: x, domains: [front.shop.svc.cluster.local], routes: [{match: {prefix: /a/}, route: {cluster: a, \
                retry_policy: {retry_on: 5xx}}}]}";
    let begin = hosts(host).0;
    let policies = begin["policies"].as_array().unwrap();
    let own = policies
        .iter()
        .find(|policy| policy["targetRefs"][0]["name"] == "front");
    let own = own.unwrap();
    assert_eq!(
        own["targetRefs"],
        json!([{"kind": "Service", "name": "front", "namespace": "shop"}])
    );
    assert_eq!(own["retry"]["on"], json!(["5xx"]));
}

#[test]
fn fields_beside_those_that_are_read_are_named() {
    let (_, notes) = cluster(
        "dns_refresh_rate: 5s, outlier_detection: {always_eject_one_host: false}, \
         typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
         {explicit_http_config: {http_protocol_options: {}}}}",
    );
    let differ: Vec<&str> = notes
        .iter()
        .filter(|note| note.kind == NoteKind::Differs)
        .filter_map(|note| note.path.rsplit('.').next())
        .collect();
    assert_eq!(
        differ,
        [
            "dns_refresh_rate",
            "always_eject_one_host",
            "http_protocol_options"
        ],
        "{notes:?}"
    );

    let yaml = bootstrap("[{match: {prefix: /a/}, route: {cluster: a}}]").replace(
        "route_config:",
        "http_filters: [{name: envoy.filters.http.router, typed_config: {'@type': \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, upstream_log: [{name: x}]}}], route_config:",
    );
    let (_, notes) = imported(&yaml);
    assert!(
        notes
            .iter()
            .any(|note| note.path.ends_with("typed_config.upstream_log")),
        "{notes:?}"
    );
}
