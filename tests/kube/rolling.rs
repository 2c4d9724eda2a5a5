//! A Deployment's pods are replaced one at a time, as its EndpointSlices tell it.

use derny_tests::{
    Testd, eventually,
    kube::objects::{self, Standing},
    load::{Load, unix_now},
    upstream::HTTP_PORT,
};
use serde_json::json;

use crate::world::{SOON, World};

const REPLICAS: usize = 3;

/// Tells the standing of the servers from place `first` on; those before it are gone.
fn tell(world: &World, first: usize, leaving: Option<usize>) {
    let endpoints: Vec<(String, Standing)> = (first..world.servers.len())
        .map(|place| {
            let standing = match leaving {
                Some(leaving) if leaving == place => Standing::Terminating,
                _ => Standing::Ready,
            };
            (world.servers[place].ip().to_string(), standing)
        })
        .collect();
    world.apply(&[objects::slice("echo", "echo-1", ("grpc", HTTP_PORT), &endpoints)]);
}

#[test]
fn a_rolling_update_under_load_costs_no_call() {
    // Without retries: not one call may go where nobody answers.
    let no_retries = objects::policy("p", "echo", json!({"retry": {"attempts": 0}}));
    let mut world = World::with(REPLICAS, &[], &[no_retries]);
    eventually("the policy is in force", SOON, || {
        world.shown("echo")["policy"] == json!(["retry"])
    })
    .unwrap();
    let load = Load::grpc(&world.client, &world.target()).unwrap();
    let reaches = |name: &str| {
        load.wait_for(&format!("calls reach {name}"), 20, unix_now(), SOON, |call| {
            call.endpoint == name
        })
        .unwrap();
    };
    reaches("server-1");
    for place in 0..REPLICAS {
        let name = format!("new-{}", place + 1);
        let new = world.node.pod(&name).unwrap();
        world.testds.push(Some(Testd::start(&new).unwrap()));
        world.servers.push(new);
        tell(&world, place, None);
        reaches(&name);
        tell(&world, place, Some(place));
        let old = world.servers[place].address(HTTP_PORT).to_string();
        eventually("the old one has no call any more", SOON, || {
            world.agent.in_flight(&old).unwrap() == 0
        })
        .unwrap();
        world.testds[place].take().unwrap().kill9().unwrap();
        reaches(&name);
        tell(&world, place + 1, None);
        reaches(&name);
    }
    let calls = load.end_unharmed().unwrap();
    for server in &world.servers {
        assert!(
            calls.iter().any(|call| call.endpoint == server.name()),
            "no call to {}",
            server.name()
        );
    }
    let last = &calls[calls.len() - 20..];
    assert!(
        last.iter().all(|call| call.endpoint.starts_with("new-")),
        "{last:?}"
    );
}
