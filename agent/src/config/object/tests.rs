use super::*;

fn policy(spec: Value) -> Result<PolicyObject, String> {
    traffic_policy("demo", spec).map_err(|e| e.one_line())
}

#[test]
fn a_policy_is_read_as_the_file_reads_it() {
    let read = policy(json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "echo", "sectionName": "grpc"}],
        "loadBalancer": {"algorithm": "roundRobin", "speed": 9},
        "fancy": {"a": [1]},
    }))
    .unwrap();
    assert_eq!(read.targets[0].service.to_string(), "demo/echo");
    assert_eq!(read.targets[0].section.as_deref(), Some("grpc"));
    assert_eq!(read.policy.load_balancer.algorithm.as_str(), "roundRobin");
    assert_eq!(read.ignored, ["spec.loadBalancer.speed", "spec.fancy"]);
}

#[test]
fn faults_of_a_policy_are_those_of_the_file() {
    let check = |spec: Value, expect: &str| assert_eq!(policy(spec).unwrap_err(), expect);
    let target = json!([{"kind": "Service", "name": "echo"}]);
    check(
        json!({"targetRefs": target, "loadBalancer": {"algorithm": "fastest"}, "detectTimeout": "2h"}),
        "spec.loadBalancer.algorithm: `fastest` is not known: use one of peakEwma, leastRequest, roundRobin, \
         random, ringHash, maglev; spec.detectTimeout: `2h` is out of range: use 10ms to 1m",
    );
    check(
        json!({"targetRefs": [{"kind": "Service", "name": "a", "namespace": "b"}]}),
        "spec.targetRefs[0].namespace: `b` is not the policy's namespace: leave it out; a policy is for services \
         of its own namespace",
    );
    check(
        json!({"targetRefs": target, "retry": {"attempts": "two"}}),
        "spec.retry.attempts: invalid type: string \"two\", expected u64",
    );
    check(
        json!({"targetRefs": []}),
        "spec.targetRefs: `[]` names no target: name at least one service, or remove the policy",
    );
}

#[test]
fn a_route_has_the_parents_that_are_services() {
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"});
    let service = json!({"group": "", "kind": "Service", "name": "echo", "port": 80, "sectionName": "main"});
    let rules = json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/a"}}],
        "backendRefs": [{"group": "", "kind": "Service", "name": "other", "namespace": "far", "port": 1, "weight": 1}]}]);
    let read = |parents: Value, rules: Value| {
        let spec = json!({"parentRefs": parents, "rules": rules, "hostnames": ["x"]});
        route(RouteKind::Http, ("demo", "r"), 7, spec, PatternShare::UNLIMITED).map_err(|e| e.one_line())
    };
    assert_eq!(read(json!([gateway]), rules.clone()), Ok(None));
    let found = read(json!([gateway, service]), rules.clone()).unwrap().unwrap();
    assert_eq!((found.parents.len(), found.parents[0].port), (1, Some(80)));
    assert_eq!(found.parents[0].written, service);
    assert_eq!(found.ignored, ["spec.hostnames"]);
    assert_eq!((found.route.created, found.route.rules.len()), (7, 1));
    assert_eq!(found.route.rules[0].backends[0].target.to_string(), "far/other:1");
    let elsewhere = json!([{"group": "", "kind": "Service", "name": "echo", "namespace": "far"}]);
    let consumer = read(elsewhere, rules).unwrap().unwrap();
    assert_eq!(consumer.parents[0].service.to_string(), "far/echo");
    assert!(
        read(json!([service]), json!([{"filters": [{"type": "ExtensionRef"}]}]))
            .unwrap_err()
            .starts_with("spec.rules[0].filters[0].type")
    );
}

/// Of the good rules and of those with faults.
#[test]
fn a_rule_with_a_fault_leaves_the_others_in_force() {
    let good = json!({"backendRefs": [{"name": "a", "port": 1}]});
    let read = |rules: Value| {
        let parent = json!({"group": "", "kind": "Service", "name": "echo"});
        let spec = json!({"parentRefs": [parent], "rules": rules});
        let read = route(RouteKind::Http, ("demo", "r"), 7, spec, PatternShare::UNLIMITED);
        read.map(Option::unwrap).map_err(|error| error.one_line())
    };
    let path = json!({"type": "RegularExpression", "value": "("});
    let pattern = json!({"matches": [{"path": path}], "backendRefs": [{"name": "a", "port": 1}]});
    let filter = json!({"filters": [{"type": "ExtensionRef"}], "backendRefs": [{"name": "b", "port": 1}]});
    let found = read(json!([pattern, good, filter])).unwrap();
    let faults: Vec<_> = found.route.rules.iter().map(|rule| rule.fault.clone()).collect();
    let [Some(RuleFault::Matches), None, Some(RuleFault::Refused(reason))] = faults.as_slice() else {
        panic!("{faults:?}")
    };
    assert!(
        reason.starts_with("spec.rules[2].filters[0].type: `ExtensionRef`"),
        "{reason}"
    );
    let dropped = found.dropped.unwrap();
    assert!(
        dropped.starts_with("Dropped Rule 0 (its requests go to the other rules): spec.rules[0]"),
        "{dropped}"
    );
    assert!(
        dropped.contains("; Dropped Rule 2 (its requests are answered with 500): spec.rules[2]"),
        "{dropped}"
    );
    let backends: Vec<String> = found.route.backends().map(ToString::to_string).collect();
    assert_eq!(backends, ["demo/a:1"]);
    // None is left.
    let refused = read(json!([pattern, filter])).unwrap_err();
    assert!(refused.starts_with("spec.rules[0]"), "{refused}");
    assert!(refused.contains("; spec.rules[1].filters[0].type"), "{refused}");
}

#[test]
fn a_backend_of_another_kind_is_refused_alone() {
    let bucket = json!({"group": "storage.example", "kind": "Bucket", "name": "files"});
    let mut backend = bucket.clone();
    backend["weight"] = json!(3);
    let rules = json!([{
        "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": bucket}}],
        "backendRefs": [backend, {"name": "a", "port": 1}],
    }]);
    let spec = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "echo"}], "rules": rules});
    let read = route(RouteKind::Http, ("demo", "r"), 7, spec, PatternShare::UNLIMITED);
    let found = read.unwrap().unwrap();
    let rule = &found.route.rules[0];
    assert!(rule.fault.is_none() && rule.filters.is_empty() && found.dropped.is_none());
    let [files, a] = rule.backends.as_slice() else {
        panic!("{rule:?}")
    };
    assert_eq!(
        files.fault.as_deref(),
        Some("demo/files is a Bucket.storage.example, and no Service")
    );
    assert_eq!(
        (files.weight, files.target.port, a.fault.as_deref()),
        (3, 0, None)
    );
    let foreign = found.foreign.unwrap();
    assert!(
        foreign.contains("spec.rules[0].backendRefs[0]: `Bucket.storage.example` is no Service"),
        "{foreign}"
    );
    assert!(
        foreign.contains("spec.rules[0].filters[0].requestMirror.backendRef"),
        "{foreign}"
    );
}
