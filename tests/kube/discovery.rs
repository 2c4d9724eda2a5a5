use std::collections::BTreeMap;

use derny_tests::{
    Pod, eventually,
    kube::objects::{self, Standing},
    load::{Call, Load, unix_now},
    upstream::HTTP_PORT,
};
use serde_json::json;

use crate::world::{SOON, World};

/// Calls over one gRPC channel, by endpoint; all must have passed the engine.
fn calls(world: &World, count: u32) -> BTreeMap<String, usize> {
    let calls = Load::grpc_calls(&world.client, &world.target(), count).unwrap();
    let mut by_endpoint = BTreeMap::new();
    for call in calls.finish(SOON).unwrap() {
        assert!(call.by_derny(), "{call:?}");
        *by_endpoint.entry(call.endpoint).or_default() += 1;
    }
    by_endpoint
}

#[test]
fn a_service_is_balanced_over_the_endpoints_of_its_slices() {
    let world = World::new(3, &[]);
    let shown = world.shown("echo");
    assert_eq!(shown["protocol"], "grpc", "{shown}");
    assert!(
        shown["note"].as_str().unwrap().starts_with("not asked for"),
        "{shown}"
    );
    assert_eq!(
        world.sum("derny_kube_watches", &[("resource", "endpointslices")]),
        0.0
    );

    let by_endpoint = calls(&world, 300);
    assert_eq!(by_endpoint.len(), 3, "{by_endpoint:?}");
    let flagged = world.sent_on_unknown();
    assert_eq!(flagged, 0, "the first call waited for the endpoints");
    assert_eq!(
        world.sum("derny_kube_watches", &[("resource", "endpointslices")]),
        1.0
    );
    let endpoints = world.shown("echo")["endpoints"].as_array().unwrap().len();
    assert_eq!(endpoints, 3);
    let status = world.agent.cli(&["status"]).unwrap().success().unwrap();
    assert!(status.contains("endpoints of 1 services watched"), "{status}");
}

#[test]
fn hints_of_slices_keep_calls_in_the_nodes_zone() {
    let world = World::new(3, &["--zone", "a"]);
    let tell = |hints: [Option<&str>; 3]| {
        let ready = objects::ready(&world.servers.iter().collect::<Vec<_>>());
        let mut slice = objects::slice("echo", "echo-1", ("grpc", HTTP_PORT), &ready);
        for (place, zone) in hints.into_iter().enumerate() {
            if let Some(zone) = zone {
                slice["endpoints"][place]["hints"] = json!({"forZones": [{"name": zone}]});
            }
        }
        world.apply(&[slice]);
    };
    let are = |count: usize| {
        eventually(&format!("{count} endpoints"), SOON, || {
            let endpoints = world.shown("echo")["endpoints"].clone();
            endpoints.as_array().is_some_and(|all| all.len() == count)
        })
        .unwrap();
    };
    assert_eq!(calls(&world, 100).len(), 3);
    tell([Some("a"), Some("b"), Some("a")]);
    are(2);
    let near: Vec<String> = calls(&world, 100).into_keys().collect();
    assert_eq!(near, ["server-1", "server-3"]);
    tell([Some("a"), None, Some("a")]);
    are(3);
    assert_eq!(calls(&world, 100).len(), 3);
}

#[test]
fn endpoints_terminate_move_between_slices_and_go_under_load() {
    let world = World::new(3, &[]);
    let load = Load::grpc(&world.client, &world.target()).unwrap();
    load.wait_for("calls pass", 100, 0.0, SOON, Call::by_derny)
        .unwrap();
    let mut endpoints = objects::ready(&world.servers.iter().collect::<Vec<_>>());
    endpoints[0].1 = Standing::Terminating;
    let port = ("grpc", HTTP_PORT);
    world.apply(&[objects::slice("echo", "echo-1", port, &endpoints)]);
    let terminating = || {
        world.sum(
            "derny_endpoints",
            &[("service", "echo"), ("state", "terminating")],
        ) == 1.0
    };
    eventually("the first one terminates", SOON, terminating).unwrap();
    let since = unix_now();
    load.wait_for("calls go on", 200, since, SOON, Call::by_derny)
        .unwrap();
    // The last one moves to another slice, and the first goes.
    world.apply(&[objects::slice("echo", "echo-2", port, &endpoints[2..])]);
    world.apply(&[objects::slice("echo", "echo-1", port, &endpoints[1..2])]);
    let gone = || world.sum("derny_endpoints", &[("service", "echo")]) == 2.0;
    eventually("the first one is gone", SOON, gone).unwrap();
    load.wait_for("calls go on", 200, unix_now(), SOON, Call::by_derny)
        .unwrap();
    let calls = load.end().unwrap();
    let failed: Vec<_> = calls.iter().filter(|call| !call.ok).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let late = calls
        .iter()
        .filter(|call| call.begun > since && call.endpoint == "server-1")
        .count();
    assert_eq!(late, 0, "a terminating endpoint gets no new call");
}

#[test]
fn routes_and_policies_are_in_force_as_they_are_applied() {
    let world = World::new(3, &[]);
    let ip = world
        .node
        .service("other", 80, HTTP_PORT, &[&world.servers[2]])
        .unwrap()
        .ip()
        .to_string();
    let other = &world.servers[2..].iter().collect::<Vec<_>>();
    world.apply(&[
        objects::service("other", &ip, "grpc"),
        objects::slice("other", "other-1", ("grpc", HTTP_PORT), &objects::ready(other)),
        objects::policy("p", "echo", json!({"loadBalancer": {"algorithm": "roundRobin"}})),
    ]);
    let algorithm = |world: &World| world.shown("echo")["algorithm"].clone();
    eventually("the policy is in force", SOON, || {
        algorithm(&world) == "roundRobin"
    })
    .unwrap();
    let even = calls(&world, 300);
    assert!(even.values().all(|count| (99..=101).contains(count)), "{even:?}");

    let rules = json!([{"matches": [{"method": {"service": "derny.test.v1.Echo"}}],
        "backendRefs": [{"group": "", "kind": "Service", "name": "other", "port": 80, "weight": 1}]}]);
    world.apply(&[objects::route("GRPCRoute", "r", "echo", rules.clone())]);
    eventually("the route is in force", SOON, || {
        world.shown("echo")["routes"] == 1
    })
    .unwrap();
    let routed = calls(&world, 100);
    assert_eq!(routed.keys().collect::<Vec<_>>(), ["server-3"]);

    // To a service that is not there: refused.
    let mut far = rules.clone();
    far[0]["backendRefs"][0]["namespace"] = json!("far");
    world.apply(&[objects::route("GRPCRoute", "r", "echo", far)]);
    let refused = || {
        let load = Load::grpc_calls(&world.client, &world.target(), 1).unwrap();
        load.finish(SOON).unwrap()[0].code == "UNAVAILABLE"
    };
    eventually("a reference to nobody leads nowhere", SOON, refused).unwrap();
    world
        .cluster
        .delete(&objects::route("GRPCRoute", "r", "echo", rules))
        .unwrap();
    eventually("the route is gone", SOON, || world.shown("echo")["routes"] == 0).unwrap();
    world
        .cluster
        .delete(&objects::policy("p", "echo", json!({})))
        .unwrap();
    eventually("the policy is gone", SOON, || algorithm(&world) == "peakEwma").unwrap();
}

#[test]
fn a_faulty_object_is_refused_alone() {
    let world = World::new(2, &[]);
    let policy = |name: &str, sections| objects::policy(name, "echo", sections);
    if world.cluster.validates() {
        refused_by_the_server(&world);
    }
    // What no schema can say does: a table's size that is no prime.
    let maglev = |size: u64| json!({"loadBalancer": {"algorithm": "maglev", "hashOn": {"sourceAddress": true}, "tableSize": size}});
    world.apply(&[policy("p", maglev(2003))]);
    eventually("it is in force", SOON, || {
        world.shown("echo")["algorithm"] == "maglev"
    })
    .unwrap();
    world.apply(&[policy("p", maglev(2000))]);
    let rejected = || world.sum("derny_kube_objects_rejected", &[("resource", "trafficpolicies")]) == 1.0;
    eventually("it is refused", SOON, rejected).unwrap();
    let status = world.agent.cli(&["status"]).unwrap().success().unwrap();
    assert!(
        status.contains("trafficpolicies demo/p was refused; its last good version is in force"),
        "{status}"
    );
    assert!(
        status.contains("spec.loadBalancer.tableSize: `2000` is not a prime"),
        "{status}"
    );
    assert_eq!(world.shown("echo")["algorithm"], "maglev");
    // Others are taken meanwhile.
    world.apply(&[objects::service("late", "10.96.0.200", "http")]);
    eventually("others are taken", SOON, || {
        world.shown("late")["protocol"] == "http"
    })
    .unwrap();
    world.apply(&[policy("p", maglev(3001))]);
    eventually("it is good again", SOON, || !rejected()).unwrap();
}

#[test]
fn what_is_not_used_is_not_watched_any_more() {
    let world = World::new(2, &["--endpoints-idle", "3s"]);
    calls(&world, 10);
    let watches = || world.sum("derny_kube_watches", &[("resource", "endpointslices")]);
    assert_eq!(watches(), 1.0);
    eventually("the watch is dropped", SOON, || watches() == 0.0).unwrap();
    eventually("and said", SOON, || world.shown("echo")["note"] != "").unwrap();
    assert_eq!(calls(&world, 100).len(), 2, "and begun again");
}

#[test]
fn services_that_cannot_be_served_are_said_and_left_alone() {
    let world = World::new(1, &[]);
    let mut external = objects::service("db", "", "tcp");
    external["spec"] =
        json!({"type": "ExternalName", "externalName": "db.example", "sessionAffinity": "None"});
    world.apply(&[external]);
    let said = |service: &str, word: &str| {
        eventually("it is said", SOON, || {
            let note = world.shown(service)["note"].clone();
            note.as_str().is_some_and(|note| note.contains(word))
        })
        .unwrap();
    };
    said("db", "db.example");
    let mut local = objects::service("collector", "10.96.7.7", "grpc");
    local["spec"]["internalTrafficPolicy"] = json!("Local");
    world.apply(&[local]);
    said("collector", "internalTrafficPolicy: Local");
}

/// What the server's own schema finds never comes to the agent.
fn refused_by_the_server(world: &World) {
    for (sections, says) in [
        (
            json!({"loadBalancer": {"algorithm": "fastest"}}),
            "Unsupported value",
        ),
        (json!({"loadBalancer": {"algorithm": "maglev"}}), "need hashOn"),
        (json!({"detectTimeout": "2h"}), "use 10ms to 1m"),
        (json!({"connectionPool": {"tcpKeepalive": "1"}}), "should match"),
        (json!({"retry": {"attempts": 101}}), "less than or equal to 100"),
        (
            json!({"retry": {"budget": {}}, "circuitBreaking": {"maxRetries": 1}}),
            "keep one of the two",
        ),
        (
            json!({"healthCheck": {"tcp": {}, "grpc": {}}}),
            "name one of http, grpc and tcp",
        ),
    ] {
        let refusal = world
            .cluster
            .refusal(&objects::policy("bad", "echo", sections.clone()));
        let said = refusal.unwrap();
        assert!(said.contains(says), "{sections}: {said}");
    }
}

/// Init containers that wait by `nc -z`, and health checks, go by `connect` alone.
#[test]
fn a_tcp_service_of_which_no_endpoint_is_known_is_left_to_the_node() {
    let world = World::new(1, &[]);
    let server = &world.servers[0];
    // Who answers for it is known to another dataplane than that of the API server.
    let mut vip = world.node.service("db", 80, HTTP_PORT, &[server]).unwrap();
    let slice = |pods: &[&Pod]| objects::slice("db", "db-1", ("tcp", HTTP_PORT), &objects::ready(pods));
    world.apply(&[objects::service("db", &vip.ip().to_string(), "tcp"), slice(&[])]);
    let ip = vip.ip();
    let connects = || {
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", &format!("exec 3<>/dev/tcp/{ip}/80")]);
        world.client.run(bash).unwrap().status.success()
    };
    let counted = |decision: &str| world.sum("derny_kernel_decisions_total", &[("decision", decision)]);
    let left_alone = || {
        let before = counted("passed_left_to_node");
        assert!(connects());
        counted("passed_left_to_node") > before
    };
    for _ in 0..2 {
        // The first one has the agent ask who answers.
        eventually("it is left alone", SOON, left_alone).unwrap();
        world.apply(&[slice(&[server])]);
        eventually("it is redirected", SOON, || !left_alone()).unwrap();
        world.apply(&[slice(&[])]);
    }
    eventually("it is left alone", SOON, left_alone).unwrap();
    vip.set_endpoints(&[]).unwrap();
    assert!(!connects(), "as the node answers");
}
