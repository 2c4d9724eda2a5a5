//! Requests stay in the node's zone while it can take them.

use derny_tests::{World, observe::eventually};
use serde_json::json;

use super::{SECONDS, policy, status};

/// Four servers, two in each of the zones a and b, on a node in zone a.
fn world() -> World {
    World::with(4, &Default::default(), |options| {
        options.arguments.extend(["--zone".to_owned(), "a".to_owned()]);
        let config = &mut options.config;
        policy(
            config,
            "http",
            json!({"retry": {"attempts": 2, "on": ["connectFailure"]}, "outlierDetection": {"consecutive5xx": 1, "maxEjectionPercent": 100}}),
        );
        let balancer = json!({"algorithm": "roundRobin", "zoneAware": {"minEndpoints": 2}, "panicThreshold": 0});
        let entry = config.policy_of("http").unwrap();
        entry.load_balancer = None;
        entry.more.insert("loadBalancer".to_owned(), balancer);
        let endpoints = &mut config.port_of("http").unwrap().endpoints;
        for (endpoint, zone) in endpoints.iter_mut().zip(["a", "a", "b", "b"]) {
            endpoint.zone = Some(zone.to_owned());
        }
    })
    .unwrap()
}

/// Which servers answer twenty requests; all of them are answered.
fn answering(world: &World) -> Vec<usize> {
    let before = world.calls("http").unwrap();
    for i in 0..20 {
        assert_eq!(status(world, "http", &format!("/{i}")), "200");
    }
    let mut answered = Vec::new();
    eventually("twenty lines", SECONDS, || {
        let Ok(calls) = world.calls("http") else {
            return false;
        };
        let new: Vec<usize> = calls.iter().zip(&before).map(|(now, then)| now - then).collect();
        answered = (0..new.len()).filter(|place| new[*place] > 0).collect();
        new.iter().sum::<usize>() == 20
    })
    .unwrap();
    answered
}

#[test]
fn requests_stay_in_the_zone_and_spill_over_when_nobody_is_left_in_it() {
    let mut world = world();
    let status = world.agent.cli_json(&["status"]).unwrap();
    assert_eq!(status["zone"], "a", "{status}");
    assert_eq!(answering(&world), [0, 1]);

    // Dead: each is ejected by its first refused connection.
    world.kill_server(0).unwrap();
    world.kill_server(1).unwrap();
    assert_eq!(answering(&world), [2, 3]);

    // Gone from the configuration.
    let mut config = world.config();
    config.port_of("http").unwrap().endpoints.drain(..2);
    world.reload(config).unwrap();
    assert_eq!(answering(&world), [2, 3]);
}

#[test]
fn the_zone_of_the_file_may_change() {
    let mut world = World::with(4, &Default::default(), |options| {
        let config = &mut options.config;
        config.node = Some(json!({"zone": "a"}));
        let balancer = json!({"algorithm": "roundRobin", "zoneAware": {"minEndpoints": 2}});
        let entry = config.policy_of("http").unwrap();
        entry.load_balancer = None;
        entry.more.insert("loadBalancer".to_owned(), balancer);
        let endpoints = &mut config.port_of("http").unwrap().endpoints;
        for (endpoint, zone) in endpoints.iter_mut().zip(["a", "a", "b", "b"]) {
            endpoint.zone = Some(zone.to_owned());
        }
    })
    .unwrap();
    assert_eq!(answering(&world), [0, 1]);
    let mut config = world.config();
    config.node = Some(json!({"zone": "b"}));
    world.reload(config).unwrap();
    assert_eq!(answering(&world), [2, 3]);
}
