//! A configuration of ten thousand rules.

use std::time::Duration;

use derny_tests::{Config, World, observe::now};
use serde_json::{Value, json};

const RULES: usize = 10_000;
/// For reading, checking, compiling and handing out the whole file.
const LOADED: Duration = Duration::from_secs(5);

/// A route of `http` in which rule `i` of so many is for `/api/i`, and says so in a header.
fn route(rules: usize) -> Value {
    let rule = |i: usize| {
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": format!("/api/{i}")}}],
            "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-rule", "value": i.to_string()}]}}],
            "backendRefs": [{"name": "any-http", "namespace": "demo", "port": 80}],
        })
    };
    json!({
        "kind": "HTTPRoute", "name": "large", "namespace": "demo",
        "parentRefs": [{"kind": "Service", "name": "http", "namespace": "demo", "port": 80}],
        "rules": (0..rules).map(rule).collect::<Vec<_>>(),
    })
}

fn with_route(config: &Config, route: Value) -> Config {
    let mut config = config.clone();
    config.routes = vec![route];
    config
}

fn goes_to(world: &World, path: &str, rule: &str) {
    let answer = world.get("http", path, &[]).unwrap();
    assert_eq!(answer["headers"]["x-rule"], rule, "{path}: {answer}");
}

/// The agent's CPU time for so many requests in turn to the first, middle and last of so many rules.
fn cost(world: &World, rules: usize) -> Duration {
    const REQUESTS: usize = 3000;
    let urls = [0, rules / 2, rules - 1].map(|i| world.url("http", &format!("/api/{i}/x")).unwrap());
    let before = world.agent.cpu().unwrap();
    let mut load = std::process::Command::new("h2load");
    load.args(["--h1", "-n", &REQUESTS.to_string(), "-c", "2"])
        .args(urls);
    let said = world.client.run(load).unwrap().success().unwrap();
    assert!(said.contains(&format!("{REQUESTS} succeeded")), "{said}");
    world.agent.cpu().unwrap() - before
}

#[test]
fn ten_thousand_rules_load_are_found_and_change() {
    let mut world = World::new(1).unwrap();
    let plain = world.config();
    world.reload(with_route(&plain, route(10))).unwrap();
    let of_ten = cost(&world, 10);

    let mut large = route(RULES);
    let begun = now();
    world.reload(with_route(&plain, large.clone())).unwrap();
    let loaded = now() - begun;
    for i in [0, RULES / 2, RULES - 1] {
        goes_to(&world, &format!("/api/{i}"), &i.to_string());
    }
    let of_all = cost(&world, RULES);

    let set = &mut large["rules"][RULES / 2]["filters"][0]["requestHeaderModifier"]["set"][0]["value"];
    *set = "changed".into();
    let begun = now();
    world.reload(with_route(&plain, large)).unwrap();
    let changed = now() - begun;
    goes_to(&world, &format!("/api/{}", RULES / 2), "changed");
    goes_to(&world, &format!("/api/{}", RULES - 1), &(RULES - 1).to_string());

    println!(
        "loaded in {loaded:?}, one rule changed in {changed:?}; CPU {of_ten:?} by ten rules, {of_all:?} by all"
    );
    assert!(loaded < LOADED && changed < LOADED, "{loaded:?}, {changed:?}");
    // Looking at each rule would cost hundreds of times as much; what is measured is mostly not the search.
    assert!(of_all < of_ten * 3, "{of_all:?} against {of_ten:?}");
}
