//! What callers are told when a pod leaves, and what goes on when nobody tells them.

use std::time::Duration;

use derny_tests::{
    Pod, Testd, clients, eventually,
    kube::objects,
    load::{Call, Load, unix_now},
    upstream::HTTP_PORT,
};
use serde_json::json;

use crate::{
    kubelet::{Driver, Kubelet, NODE_NAME, Running},
    world::{SOON, World},
};

const GRACE: Duration = Duration::from_secs(60);

/// A pod in the mesh that answers, and one outside that calls it.
struct Called {
    kubelet: Kubelet,
    object: serde_json::Value,
    app: Pod,
    _running: Running,
    _testd: Testd,
    outside: Pod,
}

impl Called {
    /// `inbound` says what the port speaks.
    fn new(inbound: &str) -> Self {
        let kubelet = Kubelet::enabled(Driver::Cgroupfs);
        let mut object = objects::pod("app", NODE_NAME, "");
        object["metadata"]["annotations"] = json!({"derny.dev/inbound": format!("{HTTP_PORT}={inbound}")});
        let uid = kubelet.apply(&object);
        let app = kubelet.node.pod("app").unwrap();
        let running = kubelet.run(&app, &uid);
        kubelet.reports("app", &app.ip().to_string());
        let known = json!([app.ip().to_string()]);
        eventually("its address is known", SOON, || {
            kubelet.shown("app")["addresses"] == known
        })
        .unwrap();
        Self {
            object,
            _testd: Testd::start(&app).unwrap(),
            _running: running,
            outside: kubelet.node.pod("outside").unwrap(),
            app,
            kubelet,
        }
    }

    fn open_connections(&self) -> u64 {
        self.kubelet.shown("app")["openConnections"].as_u64().unwrap()
    }
}

#[test]
fn a_caller_of_a_pod_that_is_being_deleted_is_told_and_no_call_fails() {
    let called = Called::new("http");
    let target = called.app.address(HTTP_PORT).to_string();
    let loads = [
        Load::grpc_with(&called.outside, &target, &["--rate", "200"]).unwrap(),
        Load::http(&called.outside, &target, &["--pause", "5-100"]).unwrap(),
    ];
    for load in &loads {
        load.wait_for("calls", 20, 0.0, SOON, Call::by_derny).unwrap();
    }
    called
        .kubelet
        .cluster
        .delete_gracefully(&called.object, GRACE)
        .unwrap();
    let deleted = unix_now();
    for load in &loads {
        load.wait_for("calls past the agent", 20, deleted, SOON, Call::directly)
            .unwrap();
    }
    eventually("nobody stands on the agent", SOON, || {
        called.open_connections() == 0
    })
    .unwrap();
    for load in loads {
        load.end_unharmed().unwrap();
    }
    // An agent that comes now leaves new callers alone as well.
    let mut kubelet = called.kubelet;
    kubelet.agent.kill9().unwrap();
    kubelet.agent.start_again().unwrap();
    kubelet.stands("app", "enrolled", "");
    let again = Load::grpc_calls(&called.outside, &target, 5)
        .unwrap()
        .finish(SOON)
        .unwrap();
    assert!(again.iter().all(Call::directly), "{again:?}");
}

#[test]
fn a_caller_hears_what_the_application_says_of_its_connections() {
    let called = Called::new("http");
    let head = |path: &str| {
        let url = format!("http://{}{path}", called.app.address(HTTP_PORT));
        let answer = called
            .outside
            .run(clients::curl(["--head", "--request", "GET", &url]))
            .unwrap();
        answer.success().unwrap().to_lowercase()
    };
    assert!(!head("/x").contains("connection: close"));
    assert!(head("/close").contains("connection: close"));
}

#[test]
fn a_connection_to_a_dialled_pod_goes_on_when_that_is_not_ready() {
    let world = World::new(2, &[]);
    // Who answers for the service is known from here on, and with it that the pod's address is one of its endpoints.
    let asked = Load::grpc_calls(&world.client, &world.target(), 1).unwrap();
    asked.finish(SOON).unwrap();
    let first = &world.servers[0];
    let target = first.address(HTTP_PORT).to_string();
    let anew = || {
        let calls = Load::grpc_calls(&world.client, &target, 1)
            .unwrap()
            .finish(SOON)
            .unwrap();
        calls[0].clone()
    };
    eventually("the pod's address is the mesh's", SOON, || anew().by_derny()).unwrap();
    let load = Load::grpc_with(&world.client, &target, &["--rate", "100"]).unwrap();
    load.wait_for("calls", 20, 0.0, SOON, Call::by_derny).unwrap();
    world.endpoints(&[1]);
    eventually("it is the mesh's no more", SOON, || anew().directly()).unwrap();
    let unready = unix_now();
    load.wait_for("calls go on", 50, unready, SOON, |call| {
        call.by_derny() && call.endpoint == first.name()
    })
    .unwrap();
    // The service goes as well.
    let service = objects::service("echo", &world.echo.ip().to_string(), "grpc");
    world.cluster.delete(&service).unwrap();
    eventually("the service has gone", SOON, || world.shown("echo").is_null()).unwrap();
    load.wait_for("calls go on", 50, unix_now(), SOON, Call::by_derny)
        .unwrap();
    load.end_unharmed().unwrap();
}
