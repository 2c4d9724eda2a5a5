//! The configuration changes while traffic flows. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{
    Testd, World, clients, eventually,
    load::{Call, Load, unix_now},
    upstream::{HTTP_PORT, TestdOptions},
    wire::{Wire, http2},
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

/// Calls over a standing channel and over new connections, from the world's client.
fn loads(world: &World) -> [Load; 2] {
    [
        Load::grpc(&world.client, &world.target("grpc").unwrap()).unwrap(),
        Load::connections(&world.client, &world.target("http").unwrap()).unwrap(),
    ]
}

fn wait(loads: &[Load], what: &str, since: f64, wanted: impl Fn(&Call) -> bool + Copy) {
    for (load, count) in loads.iter().zip([200, 10]) {
        load.wait_for(what, count, since, SOON, wanted).unwrap();
    }
}

#[test]
fn a_reload_under_load_costs_no_request() {
    let mut world = World::new(3).unwrap();
    let full = world.config();
    let loads = loads(&world);
    wait(&loads, "calls pass Derny", 0.0, Call::by_derny);

    // An endpoint goes.
    let mut smaller = full.clone();
    for service in ["grpc", "http"] {
        smaller.port_of(service).unwrap().endpoints.remove(1);
    }
    world.reload(smaller).unwrap();
    let removed = unix_now();
    wait(&loads, "calls go on with two", removed, Call::by_derny);

    // It comes again.
    let back = unix_now();
    world.reload(full.clone()).unwrap();
    wait(&loads, "calls go on with three", back, Call::by_derny);

    // Another algorithm, and a service that is nobody's business here.
    let mut other = full;
    other.set_algorithm("grpc", "leastRequest").unwrap();
    other.set_algorithm("http", "peakEwma").unwrap();
    other.port_of("tcp").unwrap().endpoints.clear();
    world.reload(other).unwrap();
    wait(&loads, "calls go on otherwise", unix_now(), Call::by_derny);

    for load in loads {
        let calls = load.end_unharmed().unwrap();
        assert!(calls.iter().all(Call::by_derny), "nothing passed the engine by");
        let within = |call: &&Call| call.begun > removed && call.ended() < back;
        let of_two: Vec<_> = calls.iter().filter(within).collect();
        assert!(of_two.len() >= 10, "{}", of_two.len());
        let late: Vec<_> = of_two.iter().filter(|call| call.endpoint == "server-2").collect();
        assert!(
            late.is_empty(),
            "to the endpoint that was removed at {removed}: {late:?}"
        );
        assert!(
            calls
                .iter()
                .any(|call| call.begun > back && call.endpoint == "server-2")
        );
    }
}

#[test]
fn a_bad_file_is_refused_and_reported_until_it_is_good_again() {
    let mut world = World::new(1).unwrap();
    let rejected = |world: &World, value: f64| {
        world
            .agent
            .metric("derny_config_rejected", &[], |sum| sum == value)
            .unwrap();
    };
    rejected(&world, 0.0);
    world.agent.reload_text("pods:\n- name: A\n  netns: x\n").unwrap();
    rejected(&world, 1.0);
    let status = world.agent.cli_json(&["status"]).unwrap();
    let message = status["configError"]["message"].as_str().unwrap();
    assert!(
        message.contains("pods[0].name: `A` is not a DNS label"),
        "{message}"
    );
    let table = world.agent.cli(&["status"]).unwrap().success().unwrap();
    assert!(table.contains("the last good one is in force"), "{table}");
    assert!(world.get("http", "/x", &[]).unwrap()["headers"]["x-request-id"].is_string());

    let mut good = world.config();
    good.set_algorithm("http", "leastRequest").unwrap();
    world.reload(good).unwrap();
    rejected(&world, 0.0);
    assert!(world.agent.cli_json(&["status"]).unwrap()["configError"].is_null());
}

#[test]
fn scrapes_and_reloads_do_not_lock_each_other_out() {
    let mut world = World::new(1).unwrap();
    let mut command = Command::new("wrk");
    let url = format!("http://{}/metrics", derny_tests::agent::HTTP_ADDRESS);
    command
        .args(["-t", "1", "-c", "4", "-d", "60", &url])
        .stdout(Stdio::null());
    let _scraper = world.node.host().spawn(command).unwrap();
    for algorithm in ["leastRequest", "random"].into_iter().cycle().take(1500) {
        let mut config = world.config();
        config.set_algorithm("http", algorithm).unwrap();
        // Returns when a scrape shows the change.
        world.reload(config).unwrap();
    }
}

#[test]
fn a_changed_file_is_seen_without_a_signal() {
    let mut world = World::new(1).unwrap();
    let mut config = world.config();
    config.set_algorithm("http", "leastRequest").unwrap();
    config.write(&world.agent.config_path()).unwrap();
    let changed = || {
        let services = world.agent.cli_json(&["services"]).unwrap();
        let mut of_http = services
            .as_array()
            .unwrap()
            .iter()
            .filter(|service| service["name"] == "http");
        of_http.next().unwrap()["algorithm"] == "leastRequest"
    };
    eventually("the new algorithm is in force", Duration::from_secs(3), changed).unwrap();
    // And with one, at once: SIGHUP reads what the half second has not.
    let config = world.config();
    world.reload(config).unwrap();
}

#[test]
fn a_pod_is_enrolled_and_withdrawn_while_its_traffic_flows() {
    let mut world = World::new(2).unwrap();
    let without = world.config();
    let pod = world.node.pod("late").unwrap();
    let standing = Load::grpc(&pod, &world.target("grpc").unwrap()).unwrap();
    let new = Load::connections(&pod, &world.target("http").unwrap()).unwrap();
    standing
        .wait_for("direct calls", 100, 0.0, SOON, Call::directly)
        .unwrap();

    world.reload(without.clone().pod(&pod, "late")).unwrap();
    let enrolled = unix_now();
    new.wait_for("redirected connections", 10, enrolled, SOON, Call::by_derny)
        .unwrap();
    // What stood before goes on as it was.
    standing
        .wait_for("direct calls", 100, enrolled, SOON, Call::directly)
        .unwrap();
    let redirected = Load::grpc(&pod, &world.target("grpc").unwrap()).unwrap();
    redirected
        .wait_for("redirected calls", 100, 0.0, SOON, Call::by_derny)
        .unwrap();

    world.reload(without).unwrap();
    let withdrawn = unix_now();
    new.wait_for("direct connections", 10, withdrawn, SOON, Call::directly)
        .unwrap();
    // What was redirected is told GOAWAY and goes on directly.
    redirected
        .wait_for("direct calls", 100, withdrawn, SOON, Call::directly)
        .unwrap();
    for load in [standing, new, redirected] {
        load.end_unharmed().unwrap();
    }
}

#[test]
fn a_pod_whose_namespace_goes_is_let_go_and_taken_again_when_it_returns() {
    let mut world = World::new(1).unwrap();
    let pod = world.node.pod("guest").unwrap();
    world.reload(world.config().pod(&pod, "guest")).unwrap();
    let state = |world: &World| {
        let pods = world.agent.cli_json(&["pods"]).unwrap();
        let mut guests = pods
            .as_array()
            .unwrap()
            .iter()
            .filter(|pod| pod["name"] == "guest");
        guests
            .next()
            .map(|pod| pod["state"].as_str().unwrap().to_lowercase())
    };
    let becomes = |world: &World, wanted: Option<&str>| {
        let what = format!("the pod is {wanted:?}");
        eventually(&what, SOON, || state(world).as_deref() == wanted).unwrap();
    };
    becomes(&world, Some("enrolled"));
    let label = |world: &World| {
        let redirects = world.agent.cli_json(&["redirects"]).unwrap().to_string();
        redirects.contains("demo/guest")
    };
    assert!(label(&world));

    drop(pod);
    becomes(&world, Some("waiting"));
    assert!(!label(&world), "the kernel has forgotten it");
    let _pod = world.node.pod("guest").unwrap();
    becomes(&world, Some("enrolled"));

    let without: Vec<_> = world
        .config()
        .pods
        .into_iter()
        .filter(|pod| pod.name != "guest")
        .collect();
    let mut config = world.config();
    config.pods = without;
    world.reload(config).unwrap();
    becomes(&world, None);
    // Its slot rests: the next pod has one that nobody had.
    let next = world.node.pod("next").unwrap();
    world.reload(world.config().pod(&next, "next")).unwrap();
    let next = world.agent.pod_stands("next", "enrolled", "").unwrap();
    assert_eq!(next["slot"], 2);
}

#[test]
fn calls_from_outside_the_mesh_pass_the_pods_inbound_port() {
    let mut world = World::new(1).unwrap();
    let server = world.node.pod("inbound").unwrap();
    let _testd = Testd::start(&server).unwrap();
    let outside = world.node.pod("outside").unwrap();
    world
        .reload(
            world
                .config()
                .pod_inbound(&server, "inbound", HTTP_PORT, Some("http")),
        )
        .unwrap();
    let url = format!("http://{}/x", server.address(HTTP_PORT));
    let get = || {
        outside
            .run(derny_tests::clients::curl([&url]))
            .unwrap()
            .success()
            .unwrap()
    };
    eventually("calls pass the engine", SOON, || get().contains("x-request-id")).unwrap();
    assert!(
        get().contains(&format!("\"x-forwarded-for\":\"{}\"", outside.ip())),
        "{}",
        get()
    );
    let line = world
        .agent
        .access_line("the call", |line| line["direction"] == "inbound")
        .unwrap();
    assert_eq!(line["source"], outside.ip().to_string(), "{line}");
    assert_eq!(
        (&line["service"], &line["code"]),
        (&"demo/inbound:8080".into(), &200.into()),
        "{line}"
    );
}

/// Nobody has seen such a call, so another endpoint may take it: the caller must be able to tell.
#[test]
fn a_stream_to_a_pod_whose_application_is_gone_is_refused_and_not_answered() {
    let mut world = World::new(1).unwrap();
    let server = world.node.pod("inbound").unwrap();
    let outside = world.node.pod("outside").unwrap();
    let config = world
        .config()
        .pod_inbound(&server, "inbound", HTTP_PORT, Some("http"));
    world.reload(config).unwrap();
    let url = format!("http://{}/", server.address(HTTP_PORT));
    let ask = |version| {
        let arguments = ["-sv", "-o", "/dev/null", "-w", "%{http_code}", version, &url];
        outside.run(clients::curl(arguments)).unwrap()
    };
    eventually("calls pass the engine", SOON, || ask("--http1.1").stdout == "503").unwrap();
    let mut nghttp = Command::new("nghttp");
    nghttp.args(["-nv", "--timeout=5s", &url]);
    let frames = outside.run(nghttp).unwrap().stdout;
    // GOAWAY first, so that the caller does not ask for the stream again on this connection.
    let place = |of: &str| frames.find(of).unwrap_or_else(|| panic!("no {of}: {frames}"));
    assert!(
        place("recv GOAWAY") < place("error_code=REFUSED_STREAM"),
        "{frames}"
    );
    let refused = |line: &Value| line["direction"] == "inbound" && line["protocol"] == "http2";
    let line = world.agent.access_line("the stream", refused).unwrap();
    assert_eq!(
        (&line["code"], &line["flags"]),
        (&0.into(), &"UF".into()),
        "{line}"
    );
}

/// What a caller would see of the application itself, which closes its connections when it ends.
#[test]
fn callers_hear_that_the_application_of_a_pod_has_ended() {
    let mut world = World::new(1).unwrap();
    let server = world.node.pod("inbound").unwrap();
    let outside = world.node.pod("outside").unwrap();
    let application = Testd::start(&server).unwrap();
    let config = world
        .config()
        .pod_inbound(&server, "inbound", HTTP_PORT, Some("http"));
    world.reload(config).unwrap();
    let to = server.address(HTTP_PORT);
    let get = "GET /x HTTP/1.1\r\nhost: inbound\r\n\r\n";
    eventually("calls pass the engine", SOON, || {
        let mut http1 = Wire::say(&outside, to, get).unwrap();
        let answer = http1.expect("\"inbound\"", SOON).unwrap();
        String::from_utf8_lossy(&answer).contains("x-request-id")
    })
    .unwrap();
    let mut http1 = Wire::say(&outside, to, get).unwrap();
    let request = [http2::preface(65_535), http2::get(1, "/x")].concat();
    let mut stream = Wire::say(&outside, to, request).unwrap();
    http1.expect("\"inbound\"", SOON).unwrap();
    stream.expect("\"inbound\"", SOON).unwrap();

    drop(application);
    stream.expect(b"\0\0\x08\x07\0\0\0\0\0", SOON).unwrap();
    http1.send(get).unwrap();
    http1.expect("connection: close", SOON).unwrap();
}

/// What `deploy/example` runs in the place of an application.
#[test]
fn the_examples_program_makes_traffic_of_its_own() {
    let world = World::new(1).unwrap();
    let calls = [("http", "http"), ("grpc", "grpc")].map(|(scheme, service)| {
        let target = world.target(service).unwrap();
        format!("--call={scheme}://{target}/x")
    });
    let options = TestdOptions {
        arguments: [&calls[..], &["--call-every=100".to_owned()]].concat(),
        ..TestdOptions::default()
    };
    let _gateway = Testd::start_with(&world.client, &options).unwrap();
    for protocol in ["http1", "grpc"] {
        let is_call = |line: &Value| line["protocol"] == protocol && line["code"] == 200;
        world.agent.access_line("a call of its own", is_call).unwrap();
    }
}
