//! Policies and routes on real traffic: what a team takes a sidecar for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod inbound;
mod metrics;
mod resilience;
mod blame;
mod routes;
mod timeouts;
mod overload;
mod cancellation;
mod replacement;
mod idle_close;
mod change;
mod large;
mod told;
mod zones;

use derny_tests::{Agent, World, config::Config};
use serde_json::{Value, json};

/// One service's policy, as it stands in the file.
fn policy(config: &mut Config, service: &str, fields: Value) {
    let Value::Object(fields) = fields else {
        panic!("a policy is a map")
    };
    config.policy_of(service).unwrap().more.extend(fields);
}

/// A world whose services `http` and `grpc` have this policy.
fn world(servers: usize, fields: &Value) -> World {
    World::with(servers, &Default::default(), |options| {
        for service in ["http", "grpc"] {
            policy(&mut options.config, service, fields.clone());
        }
    })
    .unwrap()
}

/// The HTTP status of one GET.
fn status(world: &World, service: &str, path: &str) -> String {
    let url = world.url(service, path).unwrap();
    let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_code}", &url];
    world.curl(&arguments).unwrap().success().unwrap()
}

/// The access line of the one request with this path.
fn line(agent: &Agent, path: &str) -> Value {
    agent.access_line(path, |line| line["path"] == path).unwrap()
}

/// `attempts` and `flags` of an access line.
fn outcome(line: &Value) -> (u64, &str) {
    (
        line["attempts"].as_u64().unwrap(),
        line["flags"].as_str().unwrap(),
    )
}

/// Deadline of what happens soon.
const SECONDS: std::time::Duration = std::time::Duration::from_secs(20);

fn no_retries() -> Value {
    json!({"retry": {"attempts": 0}})
}
