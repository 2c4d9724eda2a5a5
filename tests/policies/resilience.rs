//! Retries, outlier detection, circuit breaking.

use std::process::Command;

use derny_tests::{World, clients, observe::eventually, upstream::TestdOptions};
use serde_json::json;

use super::{SECONDS, line, no_retries, outcome, status, world};

fn failing_with(status: &str) -> TestdOptions {
    TestdOptions {
        arguments: vec!["--status".to_owned(), status.to_owned()],
        ..TestdOptions::default()
    }
}

#[test]
fn a_503_is_tried_again_on_another_endpoint() {
    let mut world = world(2, &json!({"outlierDetection": {"enabled": false}}));
    world.kill_server(0).unwrap();
    world.start_server(0, &failing_with("503")).unwrap();
    for i in 0..10 {
        assert_eq!(status(&world, "http", &format!("/{i}")), "200");
    }
    let attempts: Vec<u64> = (0..10)
        .map(|i| outcome(&line(&world.agent, &format!("/{i}"))).0)
        .collect();
    assert!(
        attempts.iter().all(|n| *n <= 2) && attempts.contains(&2),
        "{attempts:?}"
    );
}

#[test]
fn a_status_that_the_policy_does_not_name_is_not_tried_again() {
    let world = world(2, &json!({}));
    assert_eq!(status(&world, "http", "/status/500"), "500");
    assert_eq!(outcome(&line(&world.agent, "/status/500")), (1, "-"));
    assert_eq!(status(&world, "http", "/status/503"), "503");
    assert_eq!(
        outcome(&line(&world.agent, "/status/503")).0,
        3,
        "each of the tries that the default allows"
    );
}

/// Nothing that an endpoint may have acted on is done twice unless a policy says so.
#[test]
fn a_post_that_was_answered_503_runs_once() {
    let policies = [(json!({}), 1), (json!({"retry": {"idempotent": true}}), 3)];
    for (policy, runs) in policies {
        let world = world(2, &policy);
        let url = world.url("http", "/status/503").unwrap();
        let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", "bet", &url];
        assert_eq!(world.curl(&arguments).unwrap().success().unwrap(), "503");
        assert_eq!(outcome(&line(&world.agent, "/status/503")).0, runs, "{policy}");
    }
}

#[test]
fn a_grpc_call_that_was_answered_unavailable_runs_once() {
    let world = world(3, &json!({}));
    call_unavailable(&world, "trailers");
    let line = world
        .agent
        .access_line("the call", |line| line["protocol"] == "grpc")
        .unwrap();
    assert_eq!(outcome(&line).0, 1, "{line}");
}

/// A call that is answered UNAVAILABLE, in the headers or in the trailers.
fn call_unavailable(world: &World, place: &str) {
    let script = format!(
        "import grpc; c = grpc.insecure_channel('{}'); u = c.unary_unary('/derny.test.v1.Echo/Unary')\n\
         try: u(b'', metadata=[('x-test-status', '14'), ('x-test-status-in', '{place}'), ('user-agent-x', '{place}')])\n\
         except grpc.RpcError as e: print(e.code().value[0])",
        world.target("grpc").unwrap()
    );
    let mut command = clients::python("grpc_load.py").unwrap();
    let program = command.get_program().to_owned();
    command = Command::new(program);
    command.args(["-c", &script]);
    let said = world.client.run(command).unwrap().success().unwrap();
    assert_eq!(said.trim(), "14", "{place}");
}

#[test]
fn a_grpc_status_is_tried_again_wherever_it_comes() {
    let world = world(
        3,
        &json!({"outlierDetection": {"enabled": false}, "retry": {"idempotent": true}}),
    );
    for place in ["headers", "trailers"] {
        call_unavailable(&world, place);
    }
    let lines = |lines: Vec<serde_json::Value>| -> Vec<u64> {
        lines
            .iter()
            .filter(|l| l["protocol"] == "grpc")
            .filter_map(|l| l["attempts"].as_u64())
            .collect()
    };
    eventually("both lines", SECONDS, || {
        world.agent.access_log().is_ok_and(|log| lines(log) == [3, 3])
    })
    .unwrap();
}

#[test]
fn a_grpc_status_in_the_headers_counts_before_the_stream_ends() {
    let world = world(2, &no_retries());
    let script = format!(
        "import grpc; c = grpc.insecure_channel('{}'); u = c.unary_unary('/derny.test.v1.Echo/Unary')\n\
         for i in range(12):\n\
         \x20try: u(b'', timeout=0.2, metadata=[('x-test-status', '14'), ('x-test-status-in', 'held')])\n\
         \x20except grpc.RpcError: print('failed')",
        world.target("grpc").unwrap()
    );
    let python = clients::python("grpc_load.py").unwrap();
    let mut command = Command::new(python.get_program());
    command.args(["-c", &script]);
    let said = world.client.run(command).unwrap().success().unwrap();
    assert_eq!(said.lines().count(), 12, "{said}");
    let ejected = [("destination_service", "grpc"), ("reason", "consecutive5xx")];
    world
        .agent
        .metric("derny_ejections_total", &ejected, |n| n >= 1.0)
        .unwrap();
}

#[test]
fn five_failures_in_a_row_eject_an_endpoint_until_it_answers_again() {
    let policy =
        json!({"retry": {"attempts": 0}, "outlierDetection": {"baseEjectionTime": "2s", "interval": "1s"}});
    let mut world = world(3, &policy);
    world.kill_server(0).unwrap();
    world.start_server(0, &failing_with("500")).unwrap();
    let codes: Vec<String> = (0..60)
        .map(|i| status(&world, "http", &format!("/{i}")))
        .collect();
    assert_eq!(codes.iter().filter(|code| *code == "500").count(), 5, "{codes:?}");
    let shown = world
        .agent
        .cli_json(&["endpoints", "demo/http"])
        .unwrap()
        .to_string();
    assert!(shown.contains("ejected"), "{shown}");

    world.kill_server(0).unwrap();
    world.start_server(0, &TestdOptions::default()).unwrap();
    let name = "server-1";
    eventually("the endpoint is back", SECONDS, || {
        world
            .get("http", "/", &[])
            .is_ok_and(|answer| answer["endpoint"] == name)
    })
    .unwrap();
}

#[test]
fn overload_is_refused_at_once_and_of_one_service_only() {
    let policy = json!({"circuitBreaking": {"maxRequests": 2}, "retry": {"attempts": 0}});
    let world = world(1, &policy);
    let url = world.url("http", "/delay/1s").unwrap();
    let script =
        format!("for i in 1 2 3 4 5; do curl -s -o /dev/null -w '%{{http_code}} ' {url} & done; wait");
    let mut codes: Vec<String> = world
        .shell(&script)
        .unwrap()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    codes.sort();
    assert_eq!(codes, ["200", "200", "503", "503", "503"]);
    let refused = world
        .agent
        .access_line("an overload", |line| line["flags"] == "UO")
        .unwrap();
    assert_eq!(refused["attempts"], 0, "nothing was sent: {refused}");
    assert_eq!(status(&world, "any-http", "/"), "200");
}

#[test]
fn without_retries_a_failure_goes_to_the_caller() {
    let mut world = world(1, &no_retries());
    world.kill_server(0).unwrap();
    assert_eq!(status(&world, "http", "/gone"), "503");
    assert_eq!(outcome(&line(&world.agent, "/gone")), (1, "UF"));
}
