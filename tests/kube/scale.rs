use std::time::Duration;

use derny_tests::{
    eventually,
    kube::objects::{self, Standing},
    load::{Call, Load, unix_now},
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::world::{SOON, World};

#[test]
fn a_changed_endpoint_is_used_within_a_tenth_of_a_second() {
    const CHANGES: usize = 60;
    let policy = objects::policy("p", "echo", json!({"loadBalancer": {"algorithm": "roundRobin"}}));
    let world = World::with(3, &[], &[policy]);
    world.endpoints(&[0]);
    let load = Load::grpc(&world.client, &world.target()).unwrap();
    load.wait_for("calls pass", 100, 0.0, SOON, Call::by_derny)
        .unwrap();
    let mut changes = Vec::new();
    for change in 0..CHANGES {
        let place = (change + 1) % 3;
        let name = format!("server-{}", place + 1);
        let at = unix_now();
        world.endpoints(&[place]);
        load.wait_for("calls reach the new one", 20, at, SOON, |call| {
            call.endpoint == name
        })
        .unwrap();
        changes.push((at, name));
    }
    let calls = load.end().unwrap();
    let failed = calls.iter().filter(|call| !call.by_derny()).count();
    assert_eq!(failed, 0);
    // From before the API server was asked to change it until the first call that began with the new endpoint.
    let mut took: Vec<f64> = changes
        .iter()
        .map(|(at, name)| {
            let first = calls
                .iter()
                .filter(|call| call.begun >= *at && call.endpoint == *name);
            let first = first.map(|call| call.begun).fold(f64::INFINITY, f64::min);
            (first - at) * 1000.0
        })
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
    println!(
        "change to first call, ms: p50 {:.1}, p90 {:.1}, p99 {:.1}",
        at(50),
        at(90),
        at(99)
    );
    assert!(at(99) < 100.0, "{took:?}");
}

/// Ten endpoints in one slice of each.
fn cluster_of(services: usize) -> Vec<Value> {
    let mut objects = Vec::with_capacity(services * 2);
    for n in 0..services {
        let name = format!("s{n}");
        objects.push(objects::service(
            &name,
            &format!("10.97.{}.{}", n / 250, n % 250),
            "grpc",
        ));
        let endpoints: Vec<(String, Standing)> = (0..10)
            .map(|e| (format!("10.{}.{}.{}", 100 + e, n / 250, n % 250), Standing::Ready))
            .collect();
        objects.push(objects::slice(
            &name,
            &format!("{name}-1"),
            ("grpc", HTTP_PORT),
            &endpoints,
        ));
    }
    objects
}

#[test]
fn a_large_cluster_costs_what_this_node_uses_of_it() {
    const SERVICES: usize = 10_000;
    const USED: usize = 20;
    let world = World::new(1, &[]);
    let idle = world.agent.resident().unwrap();
    world.cluster.apply(&cluster_of(SERVICES)).unwrap();
    let all = || world.agent.cli_json(&["status"]).unwrap()["services"] == SERVICES + 1;
    eventually("all services are known", Duration::from_secs(60), all).unwrap();
    // A lease is renewed by the clock, whatever there is in the cluster.
    let requests = || {
        world.sum("derny_kube_requests_total", &[])
            - world.sum("derny_kube_requests_total", &[("resource", "leases")])
    };
    let before = requests();
    for n in 0..USED {
        // Nobody is there: what counts is that it was dialled.
        let target = format!("10.97.0.{n}:80");
        let script = format!(
            "timeout 5 curl -s -m 4 --http2-prior-knowledge -d x http://{target}/ >/dev/null || true"
        );
        world
            .client
            .run_within(shell(&script), Duration::from_secs(20))
            .unwrap();
    }
    let watched = || world.sum("derny_kube_watches", &[("resource", "endpointslices")]) == USED as f64;
    eventually("those that are used are watched", SOON, watched).unwrap();
    let asked = requests() - before;
    let now = world.agent.resident().unwrap();
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    println!(
        "{SERVICES} services, {} endpoints, {USED} used: {:.1} MiB, idle {:.1} MiB; {asked} requests for {USED} services",
        SERVICES * 10,
        mib(now),
        mib(idle)
    );
    // One list and one watch for each service that is used, and some slack for watches that end.
    assert!((40.0..60.0).contains(&asked), "{asked}");
    assert!(
        now < idle + 30 * 1024 * 1024,
        "{:.1} MiB over {:.1}",
        mib(now - idle),
        mib(idle)
    );
}

fn shell(script: &str) -> std::process::Command {
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script]);
    command
}
