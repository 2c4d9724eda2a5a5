//! What policies do, as /metrics shows it.

use std::process::{Command, Stdio};

use derny_tests::upstream::TestdOptions;
use serde_json::json;

use super::{SECONDS, status, world};

#[test]
fn an_open_breaker_and_an_ejected_endpoint_are_seen() {
    let policy = json!({"circuitBreaking": {"maxRequests": 2}, "retry": {"attempts": 0}});
    let mut world = world(2, &policy);
    world.kill_server(0).unwrap();
    let failing = TestdOptions {
        arguments: vec!["--status".to_owned(), "500".to_owned()],
        ..TestdOptions::default()
    };
    world.start_server(0, &failing).unwrap();
    let of_caller = [("source_workload", "client"), ("destination_service", "http")];
    let metric = |name: &str, more: &[(&str, &str)], expect: f64| {
        let labels = [&of_caller[..], more].concat();
        world.agent.metric(name, &labels, |n| n == expect).unwrap();
    };
    let of_bound = |bound: &'static str| [("bound", bound)];

    let codes: Vec<String> = (0..20).map(|_| status(&world, "http", "/")).collect();
    assert_eq!(codes.iter().filter(|code| *code == "500").count(), 5, "{codes:?}");
    metric("derny_ejections_total", &[("reason", "consecutive5xx")], 1.0);
    metric("derny_ejections_total", &[], 1.0);
    metric("derny_endpoints_ejected", &[], 1.0);
    metric("derny_breaker_open", &[], 0.0);

    let url = world.url("http", "/delay/3s").unwrap();
    let mut command = Command::new("bash");
    let script = format!("for i in 1 2 3 4 5; do curl -s -o /dev/null {url} & done; wait");
    command
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let overload = world.client.spawn(command).unwrap();
    metric("derny_breaker_open", &of_bound("requests"), 1.0);
    metric("derny_requests_active", &[], 2.0);
    metric("derny_breaker_overflow_total", &of_bound("requests"), 3.0);
    metric("derny_breaker_overflow_total", &[], 3.0);
    overload.output(SECONDS).unwrap().success().unwrap();
    metric("derny_breaker_open", &of_bound("requests"), 0.0);
    metric("derny_requests_active", &[], 0.0);
    metric("derny_pool_pending", &[], 0.0);
}
