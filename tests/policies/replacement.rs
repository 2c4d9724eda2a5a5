//! All endpoints are replaced, one at a time, as a rollout does it.

use std::time::Duration;

use derny_tests::{
    Config, World,
    config::EndpointEntry,
    eventually,
    load::{Load, unix_now},
    upstream::{HTTP_PORT, TestdOptions},
    world::Server,
};
use serde_json::json;

use super::world;

const SOON: Duration = Duration::from_secs(10);
const SERVICES: [&str; 2] = ["http", "grpc"];

/// Changes the endpoints of both services, and returns when that is in force.
fn change(world: &mut World, change: impl Fn(&mut Vec<EndpointEntry>)) {
    let mut config: Config = world.config();
    for service in SERVICES {
        change(&mut config.port_of(service).unwrap().endpoints);
    }
    world.reload(config).unwrap();
}

#[test]
fn a_rollout_under_load_costs_no_call() {
    // Without retries: not one request may go where nobody answers.
    let mut world = world(3, &json!({"retry": {"attempts": 0}}));
    let http = Load::http(&world.client, &world.target("http").unwrap(), &[]).unwrap();
    let grpc = Load::grpc(&world.client, &world.target("grpc").unwrap()).unwrap();
    let go_on = |what: &str| {
        let now = unix_now();
        for load in [&http, &grpc] {
            load.wait_for(what, 40, now, SOON, |call| call.ok).unwrap();
        }
    };
    go_on("calls to the old");
    for place in 0..3 {
        let pod = world.node.pod(&format!("new-{}", place + 1)).unwrap();
        let (new, old) = (
            pod.address(HTTP_PORT),
            world.servers[place].pod.address(HTTP_PORT).to_string(),
        );
        world.servers.push(Server { testd: None, pod });
        world.start_server(3 + place, &TestdOptions::default()).unwrap();
        change(&mut world, |endpoints| endpoints.push(EndpointEntry::from(&new)));
        go_on("calls with a new one");
        change(&mut world, |endpoints| {
            let leaving = endpoints
                .iter_mut()
                .find(|endpoint| endpoint.address == old)
                .unwrap();
            leaving.state = Some("terminating".to_owned());
        });
        eventually("the old one has no request any more", SOON, || {
            world.agent.in_flight(&old).unwrap() == 0
        })
        .unwrap();
        world.kill_server(place).unwrap();
        go_on("calls without an old one");
        change(&mut world, |endpoints| {
            endpoints.retain(|endpoint| endpoint.address != old)
        });
        go_on("calls when it is forgotten");
    }
    for load in [http, grpc] {
        let calls = load.end_unharmed().unwrap();
        for server in &world.servers {
            let name = server.pod.name();
            assert!(
                calls.iter().any(|call| call.endpoint == name),
                "no call to {name}"
            );
        }
        let last = &calls[calls.len() - 20..];
        assert!(
            last.iter().all(|call| call.endpoint.starts_with("new-")),
            "{last:?}"
        );
    }
}
