//! Routes on a service.

use std::{process::Command, time::Duration};

use derny_tests::{World, clients, eventually, upstream::HTTP_PORT};
use serde_json::{Value, json};

use super::{line, outcome, status};

const SOON: Duration = Duration::from_secs(10);

/// A world in which `http` has these rules.
fn routed(rules: Value) -> World {
    World::with(1, &Default::default(), |options| {
        options.config.routes.push(json!({
            "kind": "HTTPRoute", "name": "split", "namespace": "demo",
            "parentRefs": [{"kind": "Service", "name": "http", "namespace": "demo", "port": 80}],
            "rules": rules,
        }));
    })
    .unwrap()
}

#[test]
fn a_rule_is_chosen_by_path_and_header_and_what_matches_none_is_refused() {
    let world = routed(json!([
        {"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}],
         "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-rule", "value": "api"}]}}],
         "backendRefs": [{"name": "any-http", "namespace": "demo", "port": 80}]},
        {"matches": [{"headers": [{"name": "x-canary", "value": "yes"}]}],
         "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/canary"}}}],
         "backendRefs": [{"name": "http", "namespace": "demo", "port": 80}]},
    ]));
    let api = world.get("http", "/api/x", &[]).unwrap();
    assert_eq!(api["headers"]["x-rule"], "api", "{api}");
    let canary = world.get("http", "/other", &["-H", "x-canary: yes"]).unwrap();
    assert_eq!(canary["path"], "/canary");
    assert_eq!(status(&world, "http", "/other"), "404");
    let line = world
        .agent
        .access_line("no route", |line| line["flags"] == "NR")
        .unwrap();
    assert_eq!(line["code"], 404);
    let line = world
        .agent
        .access_line("the api", |line| line["path"] == "/api/x")
        .unwrap();
    assert_eq!(line["route"], "demo/split", "{line}");
}

#[test]
fn a_rule_says_which_calls_may_be_done_twice() {
    let world = routed(json!([
        {"matches": [{"path": {"type": "PathPrefix", "value": "/status/503/read"}}], "retry": {"idempotent": true},
         "backendRefs": [{"name": "http", "namespace": "demo", "port": 80}]},
        {"backendRefs": [{"name": "http", "namespace": "demo", "port": 80}]},
    ]));
    for (path, runs) in [("/status/503/read", 3), ("/status/503", 1)] {
        let url = world.url("http", path).unwrap();
        let post = ["-s", "-o", "/dev/null", "-d", "bet", &url];
        world.curl(&post).unwrap().success().unwrap();
        assert_eq!(outcome(&line(&world.agent, path)).0, runs, "{path}");
    }
}

#[test]
fn a_rule_says_which_grpc_methods_may_be_done_twice() {
    let world = World::with(3, &Default::default(), |options| {
        options.config.routes.push(json!({
            "kind": "GRPCRoute", "name": "echo", "namespace": "demo",
            "parentRefs": [{"kind": "Service", "name": "grpc", "namespace": "demo", "port": 80}],
            "rules": [
                {"matches": [{"method": {"service": "derny.test.v1.Echo", "method": "Unary"}}],
                 "retry": {"idempotent": true},
                 "backendRefs": [{"name": "grpc", "namespace": "demo", "port": 80}]},
                {"backendRefs": [{"name": "grpc", "namespace": "demo", "port": 80}]},
            ],
        }));
    })
    .unwrap();
    let target = world.target("grpc").unwrap();
    for (method, runs) in [("Unary", 3), ("ServerStream", 1)] {
        let script = format!(
            "import grpc; u = grpc.insecure_channel('{target}').unary_unary('/derny.test.v1.Echo/{method}')\n\
             try: u(b'', metadata=[('x-test-status', '14')])\n\
             except grpc.RpcError as e: print(e.code().name)"
        );
        let python = clients::python("grpc_load.py").unwrap();
        let mut command = Command::new(python.get_program());
        command.args(["-c", &script]);
        assert_eq!(
            world.client.run(command).unwrap().success().unwrap(),
            "UNAVAILABLE\n"
        );
        let path = format!("/derny.test.v1.Echo/{method}");
        assert_eq!(outcome(&line(&world.agent, &path)).0, runs, "{method}");
    }
}

#[test]
fn a_redirect_answers_without_an_endpoint() {
    let world = routed(json!([{
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "example.com", "statusCode": 301}}],
    }]));
    let url = world.url("http", "/x").unwrap();
    let arguments = [
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{redirect_url}",
        &url,
    ];
    let said = world.curl(&arguments).unwrap().success().unwrap();
    assert!(said.starts_with("301 http://example.com"), "{said}");
}

/// Calls to `http` with a mirror at another port of the same server: how many came there by each version.
fn mirrored_at(service: &str, calls: u64) -> Value {
    let world = routed(json!([{
        "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": service, "namespace": "demo", "port": 80}}}],
        "backendRefs": [{"name": "http", "namespace": "demo", "port": 80}],
    }]));
    let url = world.url("http", "/tally").unwrap();
    for _ in 0..calls {
        let post = ["-sf", "--http1.1", "-d", "bet", &url];
        world.curl(&post).unwrap().success().unwrap();
    }
    let server = &world.servers[0].pod;
    let directly = format!("http://{}:{HTTP_PORT}/tally", server.ip());
    let tally = || -> Value {
        let asked = server.run(clients::curl(["-s", &directly])).unwrap();
        serde_json::from_str(&asked.success().unwrap()).unwrap()
    };
    let all = |tally: Value| -> u64 {
        tally
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum()
    };
    eventually("the copies have come", SOON, || all(tally()) >= 2 * calls).unwrap();
    let none = |sum: f64| sum == 0.0;
    let counted = "derny_requests_not_mirrored_total";
    world.agent.metric(counted, &[], none).unwrap();
    tally()
}

#[test]
fn a_mirror_sees_the_request_and_the_caller_does_not_see_the_mirror() {
    assert_eq!(mirrored_at("any-http", 5), json!({"HTTP/1.1": 10}));
}

#[test]
fn a_mirror_is_asked_as_its_own_port_speaks() {
    assert_eq!(mirrored_at("http2", 5), json!({"HTTP/1.1": 5, "HTTP/2.0": 5}));
}

/// A rule with this `retry` and these `timeouts`, in front of one endpoint.
fn retried(retry: Value, timeouts: Value) -> World {
    routed(json!([{
        "retry": retry, "timeouts": timeouts,
        "backendRefs": [{"name": "http", "namespace": "demo", "port": 80}],
    }]))
}

/// Duration in milliseconds, attempts and flags of the one request with this path.
fn told(world: &World, path: &str) -> (f64, u64, String) {
    let line = line(&world.agent, path);
    let (attempts, flags) = outcome(&line);
    (line["duration_ms"].as_f64().unwrap(), attempts, flags.to_owned())
}

/// GEP-1731: "Implementations SHOULD retry on connection errors (disconnect, reset, timeout, TCP failure) if a retry
/// stanza is configured."
#[test]
fn a_rules_retries_cover_its_codes_resets_and_attempts_that_take_too_long() {
    let world = retried(
        json!({"attempts": 2, "codes": [500]}),
        json!({"backendRequest": "200ms"}),
    );
    for (path, code, attempts) in [
        ("/status/500", "500", 3),
        ("/status/503", "503", 1),
        ("/reset", "503", 3),
        ("/delay/5s", "504", 3),
    ] {
        let url = world.url("http", path).unwrap();
        let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", "x", &url];
        assert_eq!(world.curl(&arguments).unwrap().success().unwrap(), code, "{path}");
        assert_eq!(told(&world, path).1, attempts, "a POST to {path}");
    }
}

#[test]
fn a_rules_backoff_is_the_least_pause_between_two_attempts() {
    let world = retried(
        json!({"attempts": 2, "codes": [500], "backoff": "300ms"}),
        json!({}),
    );
    for path in ["/status/500", "/reset"] {
        status(&world, "http", path);
        let (took, attempts, _) = told(&world, path);
        assert!(
            attempts == 3 && (600.0..2000.0).contains(&took),
            "{path}: {took} ms"
        );
    }
}

#[test]
fn an_attempt_that_no_longer_fits_into_a_rules_timeout_is_a_timeout() {
    let world = retried(
        json!({"attempts": 5, "codes": [500], "backoff": "400ms"}),
        json!({"request": "1s"}),
    );
    assert_eq!(status(&world, "http", "/status/500"), "504");
    let (took, attempts, flags) = told(&world, "/status/500");
    assert!(attempts == 3 && took < 1200.0, "{attempts} attempts in {took} ms");
    assert_eq!(flags, "UT");
}

/// GEP-1767. Preflights end at the engine; an endpoint would describe the request.
#[test]
fn a_cors_filter_answers_preflights_and_says_to_whom_answers_may_be_shown() {
    let world = routed(json!([{
        "filters": [{"type": "CORS", "cors": {
            "allowOrigins": ["https://shop.example", "https://*.shop.example"], "allowCredentials": true,
            "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-a"], "exposeHeaders": ["x-b"], "maxAge": 60,
        }}],
        "backendRefs": [{"name": "http", "namespace": "demo", "port": 80}],
    }]));
    let said = |path: &str, more: &[&str]| {
        let url = world.url("http", path).unwrap();
        let mut arguments = vec!["-s", "-i", &url];
        arguments.extend(more);
        world.curl(&arguments).unwrap().success().unwrap().to_lowercase()
    };
    let preflight = |origin: &str| {
        let origin = format!("origin: {origin}");
        let asked = "access-control-request-method: PUT";
        said("/asked", &["-X", "OPTIONS", "-H", &origin, "-H", asked])
    };
    let allowed = preflight("https://a.shop.example");
    for line in [
        "http/1.1 204",
        "access-control-allow-origin: https://a.shop.example",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: get, put",
        "access-control-allow-headers: x-a",
        "access-control-max-age: 60",
        "server: derny",
    ] {
        assert!(allowed.contains(line), "{line} in {allowed}");
    }
    let refused = preflight("https://else.example");
    assert!(
        refused.starts_with("http/1.1 204") && !refused.contains("access-control"),
        "{refused}"
    );
    assert_eq!(
        outcome(&line(&world.agent, "/asked")).0,
        0,
        "no endpoint was asked"
    );

    let from = ["-H", "origin: https://shop.example"];
    for path in ["/", "/status/500", "/reset"] {
        let answer = said(path, &from);
        assert!(
            answer.contains("access-control-allow-origin: https://shop.example"),
            "{path}: {answer}"
        );
        assert!(
            answer.contains("access-control-expose-headers: x-b"),
            "{path}: {answer}"
        );
    }
    let options = said("/", &["-X", "OPTIONS", from[0], from[1]]);
    assert!(
        options.contains("\"method\":\"options\""),
        "an endpoint's own: {options}"
    );
    assert!(!said("/", &[]).contains("access-control"));
}
