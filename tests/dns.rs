//! Services whose endpoints come from a real name server that changes its answers. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{net::IpAddr, time::Duration};

use derny_tests::{
    World,
    dns::{NAME_SERVER, NameServer, TTL},
    load::{Call, Load, unix_now},
    upstream::{HTTP_PORT, TestdOptions},
};

const SOON: Duration = Duration::from_secs(15);
const NAME: &str = "echo.example";

/// A world of three servers, and a name server that knows those whose places are given.
fn world(places: &[usize]) -> (NameServer, World) {
    let world = World::with(3, &TestdOptions::default(), |options| {
        options.arguments = vec!["--dns-server".to_owned(), NAME_SERVER.to_string()];
    })
    .unwrap();
    let server = NameServer::start(&world.node, &[(NAME, &addresses(&world, places))]).unwrap();
    (server, world)
}

fn addresses(world: &World, places: &[usize]) -> Vec<IpAddr> {
    let address = |place: &usize| IpAddr::V4(world.servers[*place].pod.ip());
    places.iter().map(address).collect()
}

/// Makes the service `grpc` one of the name, and waits until it has so many endpoints.
fn resolve(world: &mut World, mode: &str, endpoints: f64) {
    let mut config = world.config();
    let port = config.port_of("grpc").unwrap();
    port.endpoints.clear();
    port.dns = Some(serde_json::json!({ "name": NAME, "port": HTTP_PORT, "mode": mode }));
    world.agent.reload(config).unwrap();
    wait(world, endpoints);
}

fn wait(world: &World, endpoints: f64) {
    let labels = [("service", "grpc"), ("state", "ready")];
    world
        .agent
        .metric("derny_endpoints", &labels, |count| count == endpoints)
        .unwrap();
}

#[test]
fn a_change_is_followed_within_its_ttl_and_costs_no_call() {
    let (mut server, mut world) = world(&[0]);
    resolve(&mut world, "all", 1.0);
    let load = Load::grpc(&world.client, &world.target("grpc").unwrap()).unwrap();
    load.wait_for("calls reach the first", 100, 0.0, SOON, |call| {
        call.endpoint == "server-1"
    })
    .unwrap();

    server.say(&[(NAME, &addresses(&world, &[1, 2]))]).unwrap();
    let changed = unix_now();
    for endpoint in ["server-2", "server-3"] {
        load.wait_for("calls reach the others", 100, changed, SOON, |call| {
            call.endpoint == endpoint
        })
        .unwrap();
    }
    // For some time behind the last moment at which the old answer may have been in force.
    let late = changed + 2.0 * TTL.as_secs_f64() + 0.5;
    load.wait_for("calls go on", 200, late, SOON, Call::by_derny)
        .unwrap();

    let calls = load.end_with_all(Call::by_derny).unwrap();
    let stale: Vec<_> = calls
        .iter()
        .filter(|call| call.begun > late && call.endpoint == "server-1")
        .collect();
    assert!(
        stale.is_empty(),
        "more than its TTL after the change at {changed}: {stale:?}"
    );
}

#[test]
fn what_the_name_server_loses_stays_in_force() {
    let (mut server, mut world) = world(&[0, 1]);
    resolve(&mut world, "all", 2.0);
    let load = Load::grpc(&world.client, &world.target("grpc").unwrap()).unwrap();
    load.wait_for("calls pass", 100, 0.0, SOON, Call::by_derny)
        .unwrap();

    // It forgets the name, then it is gone itself.
    server.say(&[]).unwrap();
    world
        .agent
        .metric("derny_dns_lookups_total", &[("result", "nxdomain")], |n| n >= 2.0)
        .unwrap();
    server.kill9().unwrap();
    let gone = unix_now();
    load.wait_for("calls go on", 1000, gone, SOON, Call::by_derny)
        .unwrap();
    wait(&world, 2.0);

    let failed = load.end().unwrap().into_iter().filter(|call| !call.ok).count();
    assert_eq!(failed, 0);
    let log = world.agent.log();
    let said = log.matches("the last good answer stays in force").count();
    // One line for each kind of failure, however often it was tried.
    assert!((1..=2).contains(&said), "{log}");
}

#[test]
fn a_logical_name_is_one_endpoint() {
    let (mut server, mut world) = world(&[0, 1, 2]);
    resolve(&mut world, "logical", 1.0);
    let target = world.target("grpc").unwrap();
    let calls = Load::grpc_calls(&world.client, &target, 20)
        .unwrap()
        .finish(SOON)
        .unwrap();
    assert!(calls.iter().all(Call::by_derny), "{calls:?}");
    server.say(&[(NAME, &addresses(&world, &[2]))]).unwrap();
    let load = Load::grpc(&world.client, &target).unwrap();
    load.wait_for("calls reach the new first", 100, 0.0, SOON, |call| {
        call.endpoint == "server-3"
    })
    .unwrap();
    load.end().unwrap();
}
