use std::time::Duration;

use derny_tests::{
    clients, eventually,
    kube::{Fault, objects},
    load::{Call, Load, unix_now},
};
use serde_json::json;

use crate::world::{SOON, World};

/// Calls at a thousand a second, of which none may fail.
fn load(world: &World) -> Load {
    let load = Load::grpc(&world.client, &world.target()).unwrap();
    load.wait_for("calls pass", 100, 0.0, SOON, Call::by_derny)
        .unwrap();
    load
}

fn reaches(load: &Load, server: &str, since: f64) {
    let what = format!("calls reach {server}");
    load.wait_for(&what, 1, since, Duration::from_secs(60), |call| {
        call.endpoint == server
    })
    .unwrap();
}

#[test]
fn a_server_that_is_killed_costs_no_call_and_is_caught_up_with() {
    let mut world = World::new(3, &[]);
    world.endpoints(&[0, 1]);
    let load = load(&world);
    world.cluster.kill9().unwrap();
    eventually("the agent knows", SOON, || world.sum("derny_kube_up", &[]) == 0.0).unwrap();
    let status = world.agent.cli(&["status"]).unwrap().success().unwrap();
    assert!(status.contains("AWAY"), "{status}");
    load.wait_for("calls go on", 2000, unix_now(), SOON, Call::by_derny)
        .unwrap();

    world.cluster.start_again().unwrap();
    world.endpoints(&[2]);
    reaches(&load, "server-3", unix_now());
    eventually("the agent knows", SOON, || world.sum("derny_kube_up", &[]) == 1.0).unwrap();
    load.end_with_all(Call::by_derny).unwrap();
}

#[test]
fn an_agent_that_starts_alone_goes_on_with_what_was_saved() {
    let mut world = World::with(
        2,
        &[],
        &[objects::policy(
            "p",
            "echo",
            json!({"loadBalancer": {"algorithm": "roundRobin"}}),
        )],
    );
    load(&world).end_with_all(Call::by_derny).unwrap();
    let path = world.node.host().run_directory().join("state.json");
    let saved =
        || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&world.servers[0].ip().to_string()));
    eventually("the endpoints are saved", SOON, saved).unwrap();
    world.cluster.kill9().unwrap();
    world.agent.kill9().unwrap();
    world.agent.start_again().unwrap();
    assert_eq!(world.sum("derny_kube_up", &[]), 0.0);
    assert_eq!(world.shown("echo")["algorithm"], "roundRobin");
    let calls = load(&world).end_with_all(Call::by_derny).unwrap();
    assert!(
        ["server-1", "server-2"]
            .iter()
            .all(|s| calls.iter().any(|call| call.endpoint == *s))
    );
    // The server comes back, and is listened to.
    world.cluster.start_again().unwrap();
    world
        .cluster
        .delete(&objects::policy("p", "echo", json!({})))
        .unwrap();
    let gone = || world.shown("echo")["algorithm"] == "peakEwma";
    eventually("what changed meanwhile is seen", Duration::from_secs(60), gone).unwrap();
}

#[test]
fn watches_that_are_cut_forgotten_and_refused_are_taken_up() {
    let world = World::new(3, &[]);
    world.endpoints(&[0]);
    let load = load(&world);
    for (round, server) in [1, 2, 0, 1, 2].into_iter().enumerate() {
        match round {
            0 => {}
            1 => world.cluster.proxy.fault("endpointslices", Fault::Gone, 2),
            2 => world.cluster.proxy.fault("endpointslices", Fault::Broken, 3),
            3 => world.cluster.proxy.fault("endpointslices", Fault::Cut, 2),
            _ => world
                .cluster
                .proxy
                .fault("endpointslices", Fault::StaleBookmark, 2),
        }
        world.cluster.proxy.cut_watches();
        let since = unix_now();
        world.endpoints(&[server]);
        reaches(&load, &format!("server-{}", server + 1), since);
    }
    load.end_with_all(Call::by_derny).unwrap();
    let counted = |result: &str| {
        let labels = [("resource", "endpointslices"), ("result", result)];
        world.sum("derny_kube_requests_total", &labels)
    };
    assert!(counted("gone") >= 2.0 && counted("unavailable") >= 3.0 && counted("unreachable") >= 2.0);
    assert!(world.sum("derny_kube_relists_total", &[("resource", "endpointslices")]) >= 1.0);
    let watched = world.cluster.proxy.seen(&["endpointslices", "watch"]);
    let stale = |path: &String| path.split(['?', '&']).any(|word| word == "resourceVersion=1");
    assert!(
        watched.iter().any(stale),
        "taken up where the bookmark said: {watched:?}"
    );
}

#[test]
fn a_server_that_comes_back_piece_by_piece_is_watched_at_once() {
    /// Failures in a row after which a watch waits six seconds or more for its next try.
    const LONG_AWAY: f64 = 7.0;
    const KINDS: [&str; 4] = ["services", "httproutes", "grpcroutes", "trafficpolicies"];
    let world = World::new(1, &[]);
    let watches = || world.sum("derny_kube_watches", &[]);
    eventually("all is watched", SOON, || watches() >= KINDS.len() as f64).unwrap();
    let all = watches();
    world.cluster.proxy.fault("/api", Fault::Cut, usize::MAX);
    world.cluster.proxy.cut_watches();
    let failed = |kind| {
        let labels = [("resource", kind), ("result", "unreachable")];
        world.sum("derny_kube_requests_total", &labels)
    };
    eventually("each has failed often", Duration::from_secs(60), || {
        KINDS.iter().all(|kind| failed(kind) >= LONG_AWAY)
    })
    .unwrap();
    // The first that is heard again fails too, like each other kind, in its own way.
    let pieces = [
        ("/services?", Fault::Throttled, 1),
        ("/httproutes?", Fault::Broken, 2),
        ("/grpcroutes?", Fault::Cut, 1),
        ("/trafficpolicies?", Fault::NotFound, 2),
    ];
    world.cluster.proxy.heal_but(pieces);
    eventually("the server is heard", Duration::from_secs(40), || {
        world.sum("derny_kube_up", &[]) == 1.0
    })
    .unwrap();
    eventually("all is watched again", Duration::from_secs(5), || {
        watches() >= all
    })
    .unwrap();
}

#[test]
fn endpoints_that_do_not_come_leave_the_choice_to_the_service() {
    let world = World::new(2, &["--endpoints-wait", "300ms"]);
    // Nobody waits for a server that has not been heard yet.
    eventually("the server is heard", SOON, || {
        world.sum("derny_kube_up", &[]) == 1.0
    })
    .unwrap();
    world
        .cluster
        .proxy
        .fault("endpointslices", Fault::Broken, usize::MAX);
    let load = Load::grpc_calls(&world.client, &world.target(), 50).unwrap();
    let calls = load.finish(SOON).unwrap();
    assert!(calls.iter().all(Call::by_derny), "{calls:?}");
    let waited = calls.iter().filter(|call| call.took > 250.0).count();
    assert!((1..=4).contains(&waited), "only those that came first: {waited}");
    let line = world
        .agent
        .access_line("a call", |line| line["flags"] == "EU")
        .unwrap();
    assert_eq!(line["endpoint"], world.target(), "{line}");
    world
        .agent
        .metric("derny_requests_total", &[("flag", "EU")], |n| n == 50.0)
        .unwrap();

    world.cluster.proxy.heal();
    let load = self::load(&world);
    let endpoints = ["server-1", "server-2"];
    for endpoint in endpoints {
        reaches(&load, endpoint, unix_now());
    }
    let known = || {
        world.shown("echo")["endpoints"]
            .as_array()
            .is_some_and(|known| known.len() == 2)
    };
    eventually("the endpoints are known", Duration::from_secs(60), known).unwrap();
    load.end_with_all(Call::by_derny).unwrap();
}

/// As when a webhook that converts one kind does not answer.
#[test]
fn a_kind_that_the_server_cannot_give_keeps_nobody_from_waiting_for_endpoints() {
    let world = World::new(1, &[]);
    let is_up = || world.sum("derny_kube_up", &[]) == 1.0;
    eventually("the server is heard", SOON, is_up).unwrap();
    let proxy = &world.cluster.proxy;
    proxy.fault("httproutes", Fault::Broken, usize::MAX);
    proxy.cut_watches();
    // The other watches are back by then, and the newest that was heard is a failure.
    let refused = || {
        let labels = [("resource", "httproutes"), ("result", "unavailable")];
        world.sum("derny_kube_requests_total", &labels)
    };
    eventually("routes are asked for in vain", SOON * 2, || {
        refused() >= 4.0 && !is_up()
    })
    .unwrap();
    let url = format!("http://{}/x", world.target());
    let call = clients::curl(["-sf", "--http2-prior-knowledge", &url]);
    world.client.run(call).unwrap().success().unwrap();
    let calls = |flag| world.sum("derny_requests_total", &[("flag", flag)]);
    assert_eq!((calls("EU"), calls("-")), (0.0, 1.0));
}

#[test]
fn a_slow_server_holds_nobody_up_for_longer_than_said() {
    let world = World::new(1, &[]);
    world
        .cluster
        .proxy
        .fault("endpointslices", Fault::Slow(Duration::from_millis(200)), 1);
    let calls = Load::grpc_calls(&world.client, &world.target(), 10)
        .unwrap()
        .finish(SOON)
        .unwrap();
    assert!(calls.iter().all(Call::by_derny), "{calls:?}");
    let longest = calls.iter().map(|call| call.took).fold(0.0, f64::max);
    assert!((200.0..1000.0).contains(&longest), "{longest} ms");
    let flagged = world.sent_on_unknown();
    assert_eq!(flagged, 0);
}

#[test]
fn what_is_asked_for_with_retry_after_is_given_by_every_request() {
    let world = World::new(1, &[]);
    let proxy = &world.cluster.proxy;
    for kind in ["/leases", "/services?"] {
        let before = proxy.seen_at(&[kind]).len();
        proxy.fault(kind, Fault::RetryAfter(3), 1);
        proxy.cut_watches();
        let asked = || proxy.seen_at(&[kind]).len() >= before + 2;
        eventually("the kind is asked for again", SOON * 3, asked).unwrap();
        let seen = proxy.seen_at(&[kind]);
        let gap = seen[before + 1].0 - seen[before].0;
        assert!(gap >= Duration::from_secs(3), "{kind}: {gap:?}");
    }
}

#[test]
fn a_right_that_is_missing_is_named_and_no_more_when_it_is_there() {
    let world = World::new(1, &[]);
    let says = |words: &str| {
        let status = world.agent.cli(&["status"]).unwrap();
        status.stdout.contains(words)
    };
    let asked = Load::grpc_calls(&world.client, &world.target(), 1).unwrap();
    asked.finish(SOON).unwrap();
    let proxy = &world.cluster.proxy;
    let (list, watch) = ("endpointslices?&labelSelector", "endpointslices?&watch");
    // Who is told that his watch is too old lists again.
    let of_list = vec![
        (list, Fault::Forbidden, usize::MAX),
        (watch, Fault::Gone, usize::MAX),
    ];
    for (right, faults) in [
        ("list", of_list),
        ("watch", vec![(watch, Fault::Forbidden, usize::MAX)]),
    ] {
        proxy.heal_but(faults);
        proxy.cut_watches();
        let words = format!("{right} endpointslices: not allowed:");
        eventually("it is said", SOON, || says(&words)).unwrap();
        proxy.heal();
        eventually("it is said no more", SOON * 2, || !says("not allowed")).unwrap();
    }
}

#[test]
fn a_server_whose_certificate_is_not_trusted_is_said_so() {
    let world = World::new(1, &[]);
    let directory = world.node.host().run_directory();
    let ca = directory.join("another-cluster.pem");
    std::fs::write(&ca, include_str!("another-cluster.pem")).unwrap();
    let right = std::fs::read_to_string(world.cluster.kubeconfig()).unwrap();
    let server = right
        .split('"')
        .find(|word| word.starts_with("https://"))
        .unwrap();
    let with_another = format!(
        "clusters: [{{name: c, cluster: {{server: \"{server}\", certificate-authority: {}}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\ncurrent-context: c\n",
        ca.display()
    );
    let kubeconfig = directory.join("another-cluster.yaml");
    std::fs::write(&kubeconfig, with_another).unwrap();
    // The server stands beside the node, whose proxy has no certificate.
    let asked = std::process::Command::new(derny_tests::derny().unwrap())
        .args(["clear-statuses", "--kubeconfig"])
        .arg(kubeconfig)
        .output()
        .unwrap();
    assert!(!asked.status.success());
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(
        said.contains(
            "does certificate-authority, of the kubeconfig or the service account, belong to this server?"
        ),
        "{said}"
    );
}
