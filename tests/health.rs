//! Active health checks of real servers. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use derny_tests::{
    World,
    load::{Call, Load, unix_now},
    upstream::{HTTP_PORT, TestdOptions},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(15);

/// Three servers, enrolled with their port; the service `grpc` is checked by HTTP.
fn world() -> World {
    let mut world = World::new(3).unwrap();
    let mut config = world.config();
    for server in &world.servers {
        config = config.pod_inbound(&server.pod, "server", HTTP_PORT, None);
    }
    config.policy_of("grpc").unwrap().health_check = Some(json!({
        "http": { "path": "/health" },
        "interval": "200ms",
        "timeout": "1s",
        "unhealthyThreshold": 2,
        "healthyThreshold": 2,
    }));
    world.agent.reload(config).unwrap();
    world
        .agent
        .metric("derny_health_checks_total", &[("result", "passed")], |n| n >= 6.0)
        .unwrap();
    world
}

/// What the server itself says, asked from its own pod.
fn ask(world: &World, place: usize, method: &str, path: &str) -> String {
    let url = format!("http://127.0.0.1:{HTTP_PORT}{path}");
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", "-X", method, &url]);
    world.servers[place].pod.run(command).unwrap().success().unwrap()
}

fn endpoints(world: &World, state: &str, count: f64) {
    let labels = [("service", "grpc"), ("state", state)];
    world
        .agent
        .metric("derny_endpoints", &labels, |n| n == count)
        .unwrap();
}

#[test]
fn a_sick_endpoint_gets_no_call_until_it_is_well() {
    let world = world();
    endpoints(&world, "ready", 3.0);
    let load = Load::grpc(&world.client, &world.target("grpc").unwrap()).unwrap();
    let at = |name: &'static str| move |call: &Call| call.endpoint == name;
    load.wait_for("calls reach all", 100, 0.0, SOON, at("server-2"))
        .unwrap();

    ask(&world, 1, "POST", "/health/fail");
    endpoints(&world, "unhealthy", 1.0);
    // Workers follow the snapshot with their next request.
    let sick = unix_now() + 0.2;
    load.wait_for("calls go on with two", 300, sick, SOON, Call::by_derny)
        .unwrap();
    let well = unix_now();
    ask(&world, 1, "POST", "/health/ok");
    endpoints(&world, "unhealthy", 0.0);
    load.wait_for("calls reach it again", 50, well, SOON, at("server-2"))
        .unwrap();

    let calls = load.end().unwrap();
    assert!(calls.iter().all(|call| call.ok), "a check costs no call");
    let wrong: Vec<_> = calls
        .iter()
        .filter(|call| call.begun > sick && call.begun < well && call.endpoint == "server-2")
        .collect();
    assert!(wrong.is_empty(), "while it was sick: {wrong:?}");
    assert_eq!(
        world.agent.log().matches("endpoint health changed").count(),
        5,
        "{}",
        world.agent.log()
    );
}

#[test]
fn a_server_that_dies_is_found_by_the_check_alone() {
    let mut world = world();
    world.kill_server(2).unwrap();
    endpoints(&world, "unhealthy", 1.0);
    // Nobody has called it: the check has found it, and calls fail at it no more.
    let target = world.target("grpc").unwrap();
    let calls = Load::grpc_calls(&world.client, &target, 60)
        .unwrap()
        .finish(SOON)
        .unwrap();
    assert!(
        calls.iter().all(|call| call.ok && call.endpoint != "server-3"),
        "{calls:?}"
    );
    let shown = world.agent.cli_json(&["endpoints", "demo/grpc"]).unwrap();
    let dead = format!("{}:", world.servers[2].pod.ip());
    let checks = shown.as_array().unwrap().iter().map(|endpoint| {
        let is_dead = endpoint["address"].as_str().unwrap().starts_with(&dead);
        let expect = if is_dead { "unhealthy" } else { "healthy" };
        assert_eq!(endpoint["check"]["verdict"], expect, "{endpoint}");
        let failure = endpoint["check"]["failure"].as_str().unwrap();
        assert_eq!(failure.starts_with("connect: "), is_dead, "{endpoint}");
    });
    assert_eq!(checks.count(), 3);
    world.start_server(2, &TestdOptions::default()).unwrap();
    endpoints(&world, "ready", 3.0);
}

#[test]
fn one_prober_asks_and_passes_its_own_interception_by() {
    let world = world();
    let asked = |place| {
        ask(&world, place, "GET", "/probed")
            .trim()
            .parse::<f64>()
            .unwrap()
    };
    let passed = |wanted: &dyn Fn(f64) -> bool| {
        let results = [("result", "passed")];
        world
            .agent
            .metric("derny_health_checks_total", &results, wanted)
            .unwrap()
    };
    let before = passed(&|_| true);
    passed(&|n| n >= before + 15.0);
    let sum: f64 = (0..3).map(asked).sum();
    let counted = passed(&|_| true);
    // Each check was one request: none was made twice, retried or relayed. One may end between the looks.
    assert!((counted - sum).abs() <= 3.0, "{sum} asked, {counted} counted");

    for server in &world.servers {
        let decided = |decision: &str| {
            let labels = [("pod", server.pod.name()), ("decision", decision)];
            world
                .agent
                .metrics()
                .unwrap()
                .sum("derny_kernel_decisions_total", &labels)
        };
        // The servers are enrolled; a probe is not taken for a call that their inbound side has to see.
        assert_eq!(decided("steered_inbound"), 0.0);
        assert!(decided("skipped_same_node") + decided("skipped_node_address") >= 5.0);
    }
    let inbound = [("direction", "inbound")];
    assert_eq!(
        world
            .agent
            .metrics()
            .unwrap()
            .sum("derny_connections_total", &inbound),
        0.0
    );
}
