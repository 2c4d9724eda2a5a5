mod faults;

use std::time::Duration;

use crate::{
    config::{Checked, Error, from_yaml},
    model::{Algorithm, EndpointState, Protocol},
};

fn good(yaml: &str) -> Checked {
    from_yaml(yaml.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// `expect` are the lines of the error, all of them.
#[track_caller]
fn check(yaml: &str, expect: &[&str]) {
    let error = from_yaml(yaml.as_bytes()).expect_err(yaml);
    assert_eq!(error.problems(), expect, "{yaml}");
}

/// A service `default/echo` at 10.96.0.10:80 with `more` fields in its port.
fn with_port(more: &str) -> String {
    format!("services: [{{name: echo, addresses: [10.96.0.10], ports: [{{port: 80, {more}}}]}}]")
}

/// [`with_port`] and a policy for it.
fn with_policy(policy: &str) -> String {
    format!(
        "{}\npolicies: [{{targetRefs: [{{kind: Service, name: echo}}], {policy}}}]",
        with_port("")
    )
}

/// The sections of a policy stand in it alone, and the example at its end whole.
#[test]
fn the_page_of_policies_has_good_examples() {
    let page = include_str!("../../../../docs/policies.md");
    let examples: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() > 7, "{examples:?}");
    for example in examples
        .iter()
        .filter(|example| !example.starts_with("policies:"))
    {
        let port = "{port: 80, endpoints: [{address: '10.0.0.1:80'}]}";
        let fields: String = example.lines().map(|line| format!("  {line}\n")).collect();
        good(&format!(
            "services:\n- {{name: echo, ports: [{port}]}}\npolicies:\n- targetRefs: [{{kind: Service, name: echo}}]\n{fields}"
        ));
    }
}

#[test]
fn the_documented_example_is_good() {
    let checked = good(include_str!("../../../../docs/examples/derny.yaml"));
    let names: Vec<String> = checked.pods.iter().map(|pod| pod.name.to_string()).collect();
    assert_eq!(names, ["demo/client-1", "demo/echo-1", "demo/echo-2"]);
    assert_eq!(checked.zone.as_deref(), Some("europe-west1-b"));
    let [cache, echo, _, shop] = checked.services.as_slice() else {
        panic!("{:?}", checked.services)
    };
    assert_eq!(cache.ports[0].protocol, Protocol::Tcp);
    assert_eq!(
        cache.ports[0].policy.connection_pool.connect_timeout,
        Duration::from_secs(1)
    );

    let [main, metrics] = echo.ports.as_slice() else {
        panic!("{:?}", echo.ports)
    };
    assert_eq!(main.protocol, Protocol::Grpc);
    assert_eq!(
        main.endpoints.iter().map(|e| e.weight).collect::<Vec<_>>(),
        [1, 2, 1]
    );
    assert_eq!(main.policy.load_balancer.algorithm, Algorithm::RoundRobin);
    assert_eq!(main.policy.connection_pool.idle_timeout, Duration::from_secs(300));
    assert_eq!(
        main.policy.connection_pool.connect_timeout,
        Duration::from_secs(1)
    );
    let rules = |port: &crate::model::ServicePort| {
        let routes = port
            .routes
            .iter()
            .map(|r| (r.kind, r.name.to_string(), r.rules.len()));
        routes.collect::<Vec<_>>()
    };
    use crate::model::RouteKind;
    assert_eq!(rules(main), [(RouteKind::Grpc, "echo-canary".to_owned(), 2)]);
    assert_eq!(rules(&shop.ports[0]), [(RouteKind::Http, "shop".to_owned(), 3)]);
    assert_eq!(rules(metrics), []);
    assert_eq!(metrics.protocol, Protocol::Http);
    assert_eq!(metrics.policy.load_balancer.algorithm, Algorithm::PeakEwma);
    assert_eq!(
        metrics.policy.connection_pool.connect_timeout,
        Duration::from_millis(500)
    );
}

#[test]
fn what_is_left_out_has_its_default() {
    let checked = good("pods: [{name: a, netns: /run/netns/a, inbound: [{port: 9}, {port: 8, name: grpc}]}]");
    let pod = &checked.pods[0];
    assert_eq!(pod.name.to_string(), "default/a");
    assert_eq!(&*pod.workload, "a");
    let inbound: Vec<_> = pod.inbound.iter().map(|i| (i.port, i.protocol)).collect();
    assert_eq!(inbound, [(8, Protocol::Grpc), (9, Protocol::Detect)]);

    let checked = good(&with_port("endpoints: [{address: '10.0.0.1:80'}]"));
    let port = &checked.services[0].ports[0];
    assert_eq!(port.name.to_string(), "default/echo:80");
    assert_eq!(*port.policy, crate::model::Policy::default());
    assert_eq!(port.endpoints[0].weight, 1);
    assert_eq!(good("{}"), Checked::default());
}

#[test]
fn shapes_are_told_by_path() {
    for yaml in ["", "[]", "# nothing yet", "text"] {
        check(
            yaml,
            &[
                "the file: expected the sections pods, services, policies and routes: write `pods: []` to serve none",
            ],
        );
    }
    check(
        "pods: [{nam: a}]",
        &[
            "pods[0].nam: unknown field `nam`, expected one of `name`, `namespace`, \
        `workload`, `netns`, `addresses`, `inbound`",
        ],
    );
    check("pods: [{name: a}]", &["pods[0]: missing field `netns`"]);
    check(
        &with_policy("detectTimeout: 5"),
        &[
            "policies[0].detectTimeout: invalid type: integer `5`, expected a \
        duration with its unit, such as 250ms, 15s or 1m30s",
        ],
    );
    let yaml = "policies: [{targetRefs: [{kind: Service, name: a, sectionName: 80}]}]";
    check(
        yaml,
        &[
            "policies[0].targetRefs[0].sectionName: invalid type: integer `80`, expected a port's name, or \
        its number in quotes, such as \"80\"",
        ],
    );
}

#[test]
fn a_pod_may_be_called_no() {
    let checked = good("pods: [{name: no, netns: /n}, {name: y, netns: /y}]");
    assert_eq!(
        checked.pods.iter().map(|pod| &*pod.name.name).collect::<Vec<_>>(),
        ["no", "y"]
    );
}

#[test]
fn broken_yaml_is_told_by_line() {
    for yaml in [
        "pods: [",
        "pods: []\npods: []",
        "a: &a [*a]",
        "- x\n y: z: q",
        "\u{0}",
        "pods: []\n---\npods: []",
    ] {
        let error = from_yaml(yaml.as_bytes()).expect_err(yaml);
        assert!(
            matches!(error, Error::Yaml(_) | Error::Shape { .. }),
            "{yaml}: {error}"
        );
    }
    let error = from_yaml(b"pods:\n  - name: a\n netns: b\n").expect_err("bad indentation");
    assert!(error.to_string().contains("line 3"), "{error}");
    assert!(from_yaml(&[0xff, 0xfe, 0x00]).is_err());
}

#[test]
fn inbound_ports_have_limits() {
    let pod = |port: &str| format!("pods: [{{name: b, netns: /n, inbound: [{{port: 8, {port}}}]}}]");
    let checked = good(&pod("maxRequests: 100, maxConnections: 1"));
    let limits = checked.pods[0].inbound[0].limits;
    assert_eq!(
        (limits.max_requests, limits.max_connections),
        (Some(100), Some(1))
    );
    check(
        &pod("maxRequests: 0, maxConnections: 4294967296"),
        &[
            "pods[0].inbound[0].maxRequests: `0` is out of range: use 1 to 4294967295",
            "pods[0].inbound[0].maxConnections: `4294967296` is out of range: use 1 to 4294967295",
        ],
    );
}

#[test]
fn endpoints_have_state_and_zone() {
    let endpoint = |more: &str| with_port(&format!("endpoints: [{{address: '10.0.0.1:80', {more}}}]"));
    let checked = good(&endpoint("state: terminating, zone: europe-west1-b"));
    let found = &checked.services[0].ports[0].endpoints[0];
    assert_eq!(found.state, EndpointState::Terminating);
    assert_eq!(found.zone.as_deref(), Some("europe-west1-b"));
    check(
        &endpoint("state: unhealthy, zone: -b"),
        &[
            "services[0].ports[0].endpoints[0].state: `unhealthy` is not known: use one of ready, terminating",
            "services[0].ports[0].endpoints[0].zone: `-b` is not a zone: use 1 to 63 letters, digits, -, _ and ., \
             with a letter or digit at both ends",
        ],
    );
}

#[test]
fn a_node_has_1024_slots() {
    let pods = |n: usize| {
        let pods: Vec<String> = (0..n).map(|i| format!("{{name: p{i}, netns: /n/{i}}}")).collect();
        format!("pods: [{}]", pods.join(", "))
    };
    assert_eq!(good(&pods(1024)).pods.len(), 1024);
    check(
        &pods(1025),
        &["pods: `1025` pods are too many: keep at most 1024, the number of slots of a node"],
    );
}

#[test]
fn the_ports_own_policy_wins_and_one_level_has_one() {
    let port = with_port("name: grpc-main");
    let policies = |sections: [&str; 2]| {
        let [a, b] = sections.map(|s| {
            if s.is_empty() {
                String::new()
            } else {
                format!(", sectionName: '{s}'")
            }
        });
        format!(
            "{port}\npolicies:\n- {{targetRefs: [{{kind: Service, name: echo{a}}}], detectTimeout: 1s}}\n- \
             {{targetRefs: [{{kind: Service, name: echo{b}}}], detectTimeout: 2s}}"
        )
    };
    for (sections, seconds) in [(["grpc-main", ""], 1), (["", "grpc-main"], 2), (["", "80"], 2)] {
        let checked = good(&policies(sections));
        assert_eq!(
            checked.services[0].ports[0].policy.detect_timeout,
            Duration::from_secs(seconds)
        );
    }
    for (sections, name) in [
        (["", ""], "default/echo"),
        (["80", "80"], "default/echo:80"),
        (["grpc-main", "80"], "default/echo:80"),
    ] {
        let expect = format!(
            "policies[1].targetRefs[0]: `{name}` has a policy already: keep one policy for each service and for each \
             port"
        );
        check(&policies(sections), &[&expect]);
    }
}

#[test]
fn an_endpoint_of_two_services_is_told_with_the_first_one_first() {
    let service = |name: &str, ip: u8| {
        format!(
            "{{name: {name}, addresses: [10.96.0.{ip}], ports: [{{port: 1, endpoints: [{{address: '10.0.0.1:1'}}]}}, \
             {{port: 2, endpoints: [{{address: '10.0.0.1:1'}}, {{address: '10.0.0.2:1'}}]}}]}}"
        )
    };
    let checked = good(&format!("services: [{}, {}]", service("b", 1), service("a", 2)));
    let shared: Vec<(String, Vec<String>)> = checked
        .shared_endpoints()
        .into_iter()
        .map(|(address, names)| (address.to_string(), names.iter().map(|n| n.to_string()).collect()))
        .collect();
    let both = vec!["default/a".to_owned(), "default/b".to_owned()];
    assert_eq!(
        shared,
        [
            ("10.0.0.1:1".to_owned(), both.clone()),
            ("10.0.0.2:1".to_owned(), both)
        ]
    );
}

#[test]
fn ten_thousand_rules_with_filters_are_not_too_many() {
    let rule = |i| {
        format!(
            "{{matches: [{{path: {{type: PathPrefix, value: /api/{i}}}}}], filters: [{{type: RequestHeaderModifier, \
             requestHeaderModifier: {{set: [{{name: x-rule, value: '{i}'}}]}}}}], \
             backendRefs: [{{name: echo, port: 80, weight: 1}}]}}"
        )
    };
    let rules: Vec<String> = (0..10_000).map(rule).collect();
    let route = format!(
        "routes: [{{kind: HTTPRoute, name: large, parentRefs: [{{kind: Service, name: echo}}], rules: [{}]}}]",
        rules.join(", ")
    );
    let checked = good(&format!("{}\n{route}", with_port("")));
    assert_eq!(checked.services[0].ports[0].routes[0].rules.len(), 10_000);
}
