use super::*;

#[test]
fn retries_keep_what_has_an_equivalent() {
    let (file, notes) = imported_as(example!("retries"));
    assert_eq!(
        policy(&file, "users")["retry"],
        json!({
            "attempts": 2, "on": ["5xx", "connectFailure", "reset"], "backoff": {"base": "50ms", "max": "500ms"},
            "avoidPreviousEndpoint": true, "bodyBufferBytes": 1_048_576,
        })
    );
    let rules = &file["routes"][0]["rules"];
    assert_eq!(
        rules[0]["timeouts"],
        json!({"request": "3s", "backendRequest": "800ms"})
    );
    // Envoy retries statuses here and no lost connection; a rule's own retries would do both.
    assert_eq!(rules[1]["retry"], json!({"attempts": 0}));
    // A policy without a condition retries nothing.
    assert_eq!(policy(&file, "orders")["retry"], json!({"attempts": 0}));
    assert_eq!(
        notes,
        "no equivalent listeners[0].hosts[0].retry_policy.retry_host_predicate[1]\n\
         no equivalent listeners[0].hosts[0].retry_policy.retry_priority\n\
         differs listeners[0].hosts[0].routes[0]\n\
         no equivalent listeners[0].hosts[0].routes[1].route.retry_policy\n\
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
