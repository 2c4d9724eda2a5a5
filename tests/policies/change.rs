//! Everything that a configuration says of a service changes while it is called.

use std::{collections::BTreeSet, time::Duration};

use derny_tests::{
    Config, World,
    load::{Load, unix_now},
    upstream::TestdOptions,
};
use serde_json::{Value, json};

use super::{policy, status, world};

const SOON: Duration = Duration::from_secs(10);
const SERVICES: [&str; 2] = ["http", "grpc"];

/// Every field of a policy with a value that is not its default and harms no call, one after the other; what else a
/// field needs stands with it.
fn steps() -> Vec<Value> {
    vec![
        json!({"loadBalancer": {"algorithm": "peakEwma", "slowStart": "1s"}}),
        json!({"loadBalancer": {"algorithm": "random", "panicThreshold": 0}}),
        json!({"loadBalancer": {"algorithm": "ringHash", "hashOn": {"header": "x-user"}, "minRingSize": 2048}}),
        json!({"loadBalancer": {"algorithm": "maglev", "hashOn": {"sourceAddress": true}, "tableSize": 1009}}),
        json!({"loadBalancer": {"algorithm": "leastRequest", "zoneAware": {"minEndpoints": 2}}}),
        json!({"connectionPool": {"connectTimeout": "2s"}}),
        json!({"connectionPool": {"idleTimeout": "1s"}}),
        json!({"connectionPool": {"maxRequestsPerConnection": 3}}),
        json!({"connectionPool": {"maxConnectionLifetime": "1s"}}),
        json!({"connectionPool": {"tcpKeepalive": "1s"}}),
        json!({"connectionPool": {"windowSize": 65536}}),
        json!({"connectionPool": {"http2Keepalive": "1s"}}),
        json!({"timeouts": {"request": "10s"}}),
        json!({"timeouts": {"request": "0s", "perTry": "5s"}}),
        json!({"timeouts": {"idle": "0s"}}),
        json!({"retry": {"attempts": 5}}),
        json!({"retry": {"idempotent": true}}),
        json!({"retry": {"on": ["5xx", "gatewayError", "reset", "retriable4xx", "deadlineExceeded"]}}),
        json!({"retry": {"httpStatus": [429]}}),
        json!({"retry": {"grpcStatus": ["aborted"]}}),
        json!({"retry": {"headers": ["x-again"]}}),
        json!({"retry": {"backoff": {"base": "1ms", "max": "10ms"}}}),
        json!({"retry": {"budget": {"percent": 50, "min": 10}}}),
        json!({"retry": {"bodyBufferBytes": 0}}),
        json!({"retry": {"avoidPreviousEndpoint": false}}),
        json!({"retry": {"holdHeaders": "0s"}}),
        json!({"outlierDetection": {"enabled": false}}),
        json!({"outlierDetection": {"consecutive5xx": 2, "consecutiveGatewayErrors": 2}}),
        json!({"outlierDetection": {"splitLocalOrigin": true, "consecutiveLocalErrors": 2}}),
        json!({"outlierDetection": {"grpcStatus": ["internal"]}}),
        json!({"outlierDetection": {"interval": "1s", "baseEjectionTime": "1s", "maxEjectionTime": "2s", "ejectionJitter": "1s", "maxEjectionPercent": 10, "healthCheckUnejects": true}}),
        json!({"outlierDetection": {"successRate": {"minimumHosts": 2, "requestVolume": 10, "stdevFactor": 3}}}),
        json!({"outlierDetection": {"failurePercentage": {"threshold": 50, "minimumHosts": 2, "requestVolume": 10}}}),
        json!({"circuitBreaking": {"maxConnections": 100}}),
        json!({"circuitBreaking": {"maxPendingRequests": 100}}),
        json!({"circuitBreaking": {"maxRequests": 100}}),
        json!({"circuitBreaking": {"maxRetries": 10}}),
        json!({"circuitBreaking": {"perEndpoint": {"maxRequests": 50}}}),
        json!({"healthCheck": {"http": {"path": "/health", "host": "echo", "expectedStatuses": [200]}, "interval": "200ms", "timeout": "100ms"}}),
        json!({"healthCheck": {"tcp": {}, "unhealthyThreshold": 5, "healthyThreshold": 1, "jitter": 50, "port": 9000}}),
        json!({"healthCheck": {"tcp": {}, "interval": "100ms"}}),
        json!({"detectTimeout": "1s"}),
    ]
}

/// Paths of all fields in a policy, `a.b.c`.
fn fields(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        all.insert(path.clone());
        fields(value, &path, all);
    }
}

/// The fields that docs/policies.md lists, with their sections before them.
fn documented() -> BTreeSet<String> {
    let page = std::fs::read_to_string(derny_tests::clients::workspace().join("docs/policies.md")).unwrap();
    let mut all = BTreeSet::new();
    for part in page.split("\n## ").skip(1) {
        let Some(section) = part.strip_prefix('`').and_then(|rest| rest.split('`').next()) else {
            continue;
        };
        // A table of fields says so; others tell what a field's words mean.
        let tables = part.split("\n\n").filter(|table| table.contains("| field |"));
        for row in tables.flat_map(str::lines).filter(|row| row.starts_with("| `")) {
            for name in row.split('|').nth(1).unwrap().split(',') {
                let name = name.trim().trim_matches('`');
                all.insert(if name == section {
                    name.to_owned()
                } else {
                    format!("{section}.{name}")
                });
            }
        }
    }
    all
}

/// `fields` for both services, each with its own algorithm where the step has none.
fn with_policy(config: &Config, fields: &Value) -> Config {
    let mut config = config.clone();
    for service in SERVICES {
        if fields["loadBalancer"].is_object() {
            config.policy_of(service).unwrap().load_balancer = None;
        }
        policy(&mut config, service, fields.clone());
    }
    config
}

#[test]
fn any_field_of_a_policy_changes_under_load_and_no_request_fails() {
    let steps = steps();
    let mut covered = BTreeSet::new();
    for step in &steps {
        fields(step, "", &mut covered);
    }
    // The server's gRPC port has no health service.
    let without: BTreeSet<String> = ["healthCheck.grpc.service".to_owned()].into();
    let missing: Vec<_> = documented()
        .difference(&covered)
        .filter(|f| !without.contains(*f))
        .cloned()
        .collect();
    assert!(missing.is_empty(), "not tried: {missing:?}");

    let mut world = World::new(3).unwrap();
    let plain = world.config();
    let loads = [
        Load::http(&world.client, &world.target("http").unwrap(), &[]).unwrap(),
        Load::grpc_with(&world.client, &world.target("grpc").unwrap(), &["--rate", "300"]).unwrap(),
    ];
    let go_on = |what: &str| {
        let now = unix_now();
        for load in &loads {
            load.wait_for(what, 20, now, SOON, |_| true).unwrap();
        }
    };
    go_on("calls");
    for step in steps {
        world.reload(with_policy(&plain, &step)).unwrap();
        go_on(&step.to_string());
    }
    // Routes: made, changed, taken away.
    for header in ["one", "two"] {
        let rule = json!({
            "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-rule", "value": header}]}}],
            "backendRefs": [{"name": "http", "namespace": "demo", "port": 80, "weight": 1}, {"name": "any-http", "namespace": "demo", "port": 80, "weight": 1}],
        });
        let mut config = plain.clone();
        config.routes = vec![json!({
            "kind": "HTTPRoute", "name": "split", "namespace": "demo",
            "parentRefs": [{"kind": "Service", "name": "http", "namespace": "demo", "port": 80}], "rules": [rule],
        })];
        world.reload(config).unwrap();
        go_on(header);
    }
    // Endpoints: weights, and other services altogether.
    let mut weighted = plain.clone();
    for service in SERVICES {
        weighted.port_of(service).unwrap().endpoints[0].weight = Some(10);
    }
    world.reload(weighted).unwrap();
    go_on("weights");
    let mut fewer = plain.clone();
    fewer
        .services
        .retain(|service| SERVICES.contains(&service.name.as_str()));
    fewer.policies.retain(|policy| {
        policy
            .target_refs
            .iter()
            .any(|target| SERVICES.contains(&target.name.as_str()))
    });
    world.reload(fewer).unwrap();
    go_on("without other services");
    world.reload(plain).unwrap();
    go_on("as it was");
    for load in loads {
        load.end_unharmed().unwrap();
    }
}

/// `ejected` endpoints of `http`.
fn ejected(world: &World) -> Vec<String> {
    let endpoints = world.agent.cli_json(&["endpoints", "demo/http"]).unwrap();
    let out = endpoints.as_array().unwrap().iter().filter(|endpoint| {
        let uses = endpoint["uses"].as_array().unwrap();
        uses.iter().any(|one| one["standing"] == "ejected")
    });
    out.map(|endpoint| endpoint["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_ejection_outlives_what_does_not_concern_it() {
    let fields = json!({"retry": {"attempts": 0}, "outlierDetection": {"baseEjectionTime": "60s"}});
    let mut world = world(3, &fields);
    world.kill_server(0).unwrap();
    let failing = TestdOptions {
        arguments: vec!["--status".to_owned(), "500".to_owned()],
        ..TestdOptions::default()
    };
    world.start_server(0, &failing).unwrap();
    let failures = |world: &World, what: &str| {
        let codes = (0..30).map(|i| status(world, "http", &format!("/{what}/{i}")));
        codes.filter(|code| code == "500").count()
    };
    assert_eq!(failures(&world, "before"), 5);
    let out = ejected(&world);
    assert_eq!(out.len(), 1, "{out:?}");

    // The server is well again; only the ejection keeps requests away.
    let mut config = world.config();
    config.port_of("tcp").unwrap().endpoints.clear();
    world.reload(config).unwrap();
    assert_eq!((failures(&world, "service"), ejected(&world)), (0, out.clone()));

    let mut config = world.config();
    policy(&mut config, "http", json!({"timeouts": {"request": "7s"}}));
    world.reload(config).unwrap();
    assert_eq!((failures(&world, "policy"), ejected(&world)), (0, out.clone()));

    let mut config = world.config();
    config.set_algorithm("http", "leastRequest").unwrap();
    config.port_of("http").unwrap().endpoints[1].weight = Some(3);
    world.reload(config).unwrap();
    assert_eq!((failures(&world, "endpoints"), ejected(&world)), (0, out));
}
