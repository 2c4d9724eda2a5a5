//! What protects a pod whoever calls it.

use std::process::{Command, Stdio};

use derny_tests::{Pod, World, upstream::HTTP_PORT};
use serde_json::json;

use super::SECONDS;

/// One server with an inbound port that has this bound, and a pod that Derny does not know.
fn world(bound: &str, max: u32) -> (World, Pod) {
    let mut world = World::new(1).unwrap();
    let stranger = world.node.pod("stranger").unwrap();
    let mut config = world
        .config()
        .pod_inbound(&world.servers[0].pod, "server", HTTP_PORT, Some("http"));
    let port = config.pods.last_mut().unwrap().inbound.last_mut().unwrap();
    port.more.insert(bound.to_owned(), json!(max));
    world.reload(config).unwrap();
    let enrolled = [("state", "enrolled")];
    world.agent.metric("derny_pods", &enrolled, |n| n == 2.0).unwrap();
    (world, stranger)
}

/// What `curl` says to five requests at once, each on a connection of its own, in order.
fn five(pod: &Pod, url: &str) -> Vec<String> {
    let script = format!(
        "for i in 1 2 3 4 5; do curl -s -m 10 -o /dev/null -w '%{{http_code}}/%{{exitcode}}\\n' {url} & done; wait"
    );
    let mut command = Command::new("bash");
    command
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let said = pod.run_within(command, SECONDS).unwrap().stdout;
    let mut words: Vec<String> = said.lines().map(str::to_owned).collect();
    words.sort();
    words
}

fn overflow(world: &World, bound: &str, times: f64) {
    let labels = [
        ("direction", "inbound"),
        ("destination_service", "server"),
        ("bound", bound),
    ];
    let name = "derny_breaker_overflow_total";
    world.agent.metric(name, &labels, |n| n == times).unwrap();
}

#[test]
fn requests_beyond_the_bound_are_refused_whoever_sends_them() {
    let (world, stranger) = world("maxRequests", 2);
    let direct = format!("http://{}:{HTTP_PORT}/delay/2s", world.servers[0].pod.ip());
    let refused = ["200/0", "200/0", "503/0", "503/0", "503/0"];
    assert_eq!(five(&stranger, &direct), refused, "a stranger");
    overflow(&world, "requests", 3.0);
    // One that is enrolled on the same node passes the engine once, on its own side.
    let through = world.url("http", "/delay/2s").unwrap();
    assert_eq!(five(&world.client, &through), refused, "a pod of the mesh");
    overflow(&world, "requests", 6.0);
    let line = world
        .agent
        .access_line("an overload", |line| {
            line["flags"] == "UO" && line["direction"] == "inbound"
        })
        .unwrap();
    assert_eq!(line["attempts"], 0, "nothing was sent: {line}");
}

#[test]
fn connections_beyond_the_bound_are_closed() {
    let (world, stranger) = world("maxConnections", 2);
    let direct = format!("http://{}:{HTTP_PORT}/delay/2s", world.servers[0].pod.ip());
    let said = five(&stranger, &direct);
    // 52: nothing was answered; 56: reset.
    let closed = said
        .iter()
        .filter(|word| matches!(word.as_str(), "000/52" | "000/56"));
    assert_eq!(closed.count(), 3, "{said:?}");
    assert_eq!(said.iter().filter(|word| *word == "200/0").count(), 2, "{said:?}");
    overflow(&world, "connections", 3.0);
    // The places are free again.
    assert_eq!(
        five(&stranger, &direct)
            .iter()
            .filter(|word| *word == "200/0")
            .count(),
        2
    );
}
