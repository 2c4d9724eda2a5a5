//! A server closes idle connections just when they are about to be used again.

use std::time::Duration;

use derny_tests::{
    World, clients,
    load::Load,
    upstream::{HTTP_PORT, TestdOptions},
};
use serde_json::json;

use super::policy;

/// Callers' pauses, in milliseconds, lie around what the server waits.
const IDLE: &str = "30";
const PAUSE: &str = "24-34";
const CALLS: usize = 3000;

#[test]
fn a_connection_found_closed_costs_no_request_and_no_retry() {
    let testd = TestdOptions {
        arguments: vec!["--idle-close".to_owned(), IDLE.to_owned()],
        ..TestdOptions::default()
    };
    let world = World::with(1, &testd, |options| {
        policy(
            &mut options.config,
            "http",
            json!({"retry": {"attempts": 0}, "outlierDetection": {"enabled": false}}),
        );
    })
    .unwrap();
    let arguments = ["--connections", "12", "--pause", PAUSE];
    let load = Load::http(&world.client, &world.target("http").unwrap(), &arguments).unwrap();
    load.wait_for("calls", CALLS, 0.0, Duration::from_secs(30), |_| true)
        .unwrap();
    let calls = load.end().unwrap();

    // Only what had reached the server, which closed without reading it, may fail: nobody can know that it was not
    // acted on.
    let server = &world.servers[0].pod;
    let url = format!("http://{}/thrown", server.address(HTTP_PORT));
    let thrown: usize = server
        .run(clients::curl([&url]))
        .unwrap()
        .success()
        .unwrap()
        .parse()
        .unwrap();
    let failed: Vec<_> = calls.iter().filter(|call| !call.ok).collect();
    assert!(
        failed.len() <= thrown && thrown < CALLS / 100,
        "{thrown} thrown away: {failed:?}"
    );

    // Otherwise it was not shown: most connections serve again, and many are closed under the engine's hands.
    let opened = world
        .agent
        .metrics()
        .unwrap()
        .sum("derny_upstream_connections_total", &[]);
    let calls = calls.len() as f64;
    assert!(
        opened > 50.0 && opened < calls,
        "{opened} connections for {calls} calls"
    );
    println!(
        "{} failed and {thrown} thrown away, {opened} connections for {calls} calls",
        failed.len()
    );
}
