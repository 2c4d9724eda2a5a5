//! The API server is away for a minute while pods come, end and come again.

use std::time::Duration;

use anyhow::Context as _;
use derny_tests::{
    Pod, Testd, Vip, eventually,
    kube::objects,
    load::{Call, Load, unix_now},
    observe::now,
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::{
    kubelet::{Driver, Kubelet, NODE_NAME, Running},
    world::SOON,
};

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(60);
/// An endpoint that was ejected is called again within this.
const RETURN: Duration = Duration::from_secs(30);
/// After a minute without an answer each watch waits so long before it tries again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const SERVERS: usize = 3;

/// The service `orders`: pods elsewhere, as far as the agent knows, each of which can end and start again.
struct Orders {
    vip: Vip,
    servers: Vec<(Pod, Option<Testd>)>,
}

impl Orders {
    fn new(kubelet: &Kubelet) -> Self {
        let servers: Vec<(Pod, Option<Testd>)> = (1..=SERVERS)
            .map(|n| Self::server(kubelet, &format!("orders-{n}")))
            .collect();
        let pods: Vec<&Pod> = servers.iter().map(|(pod, _)| pod).collect();
        let vip = kubelet.node.service("orders", 80, HTTP_PORT, &pods).unwrap();
        let service = objects::service("orders", &vip.ip().to_string(), "grpc");
        // Who has failed is soon tried again, so that many restarts fit into the minute.
        let soon_back = json!({
            "loadBalancer": {"algorithm": "roundRobin"},
            "outlierDetection": {"baseEjectionTime": "2s"},
            // These calls may be done twice: one whose server is killed goes to another.
            "retry": {"idempotent": true},
        });
        let policy = objects::policy("p", "orders", soon_back);
        kubelet.cluster.apply(&[service, slice(&pods), policy]).unwrap();
        Self { vip, servers }
    }

    fn server(kubelet: &Kubelet, name: &str) -> (Pod, Option<Testd>) {
        let pod = kubelet.node.pod(name).unwrap();
        let testd = Testd::start(&pod).unwrap();
        (pod, Some(testd))
    }

    /// The container of a server is killed, and started again in the same pod.
    fn restart(&mut self, place: usize, kubelet: &Kubelet, load: &Load) {
        let (pod, testd) = &mut self.servers[place];
        testd.take().unwrap().kill9().unwrap();
        load.wait_for("calls go on", 500, unix_now(), SOON, |call| call.ok)
            .unwrap();
        *testd = Some(Testd::start(pod).unwrap());
        reached(kubelet, load, pod.name());
    }
}

fn slice(pods: &[&Pod]) -> Value {
    objects::slice("orders", "orders-1", ("grpc", HTTP_PORT), &objects::ready(pods))
}

/// Waits until calls arrive at a server.
fn reached(kubelet: &Kubelet, load: &Load, server: &str) {
    let what = format!("calls reach {server}");
    let reached = load.wait_for(&what, 1, unix_now(), RETURN, |call| call.endpoint == server);
    reached
        .with_context(|| format!("{:?}", kubelet.agent.cli(&["endpoints"])))
        .unwrap();
}

/// A pod of this node, enrolled.
fn local(kubelet: &Kubelet, name: &str) -> (Pod, String, Running) {
    let uid = kubelet.apply(&objects::pod(name, NODE_NAME, ""));
    let pod = kubelet.node.pod(name).unwrap();
    let running = kubelet.run(&pod, &uid);
    kubelet.stands(name, "enrolled", "");
    (pod, uid, running)
}

#[test]
fn a_minute_without_the_server_under_churn_costs_no_call() {
    let mut kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let mut orders = Orders::new(&kubelet);
    let (caller, _, _caller_runs) = local(&kubelet, "caller");
    let (neighbour, uid, mut neighbour_runs) = local(&kubelet, "neighbour");
    let load = Load::grpc(&caller, &orders.vip.address().to_string()).unwrap();
    load.wait_for("calls pass", 500, 0.0, SOON, Call::by_derny)
        .unwrap();

    // Else an endpoint that has failed is not called for as long as its latency seems bad.
    eventually("the policy is in force", SOON, || {
        let services = kubelet.agent.cli_json(&["services"]).unwrap();
        let orders = services
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["name"] == "orders");
        orders.is_some_and(|orders| orders["algorithm"] == "roundRobin")
    })
    .unwrap();
    let watches = kubelet.agent.metrics().unwrap().sum("derny_kube_watches", &[]);
    kubelet.cluster.kill9().unwrap();
    let away = now();
    eventually("the agent knows", SOON, || kubelet.is_up() == 0.0).unwrap();
    let mut rounds = 0;
    while away.elapsed() < OUTAGE {
        orders.restart(rounds % SERVERS, &kubelet, &load);
        // A pod of this node ends; its next sandbox is enrolled without the API.
        drop(neighbour_runs);
        kubelet.stands("neighbour", "waiting", "no process of it runs yet");
        neighbour_runs = kubelet.run(&neighbour, &uid);
        kubelet.stands("neighbour", "enrolled", "");
        // Its calls are to `echo`, whose endpoints nobody asked for while there was somebody to ask.
        assert!(kubelet.is_redirected(&neighbour));
        rounds += 1;
    }
    assert_eq!(kubelet.is_up(), 0.0);

    // What changed meanwhile is caught up with: a server has been replaced, and a pod of this node has gone.
    let replacement = Orders::server(&kubelet, "orders-4");
    kubelet.cluster.start_again().unwrap();
    eventually("the server is heard again", LONGEST_PAUSE, || {
        kubelet.is_up() == 1.0
    })
    .unwrap();
    // The first watch that hears it tells the others, each of which would wait as long by itself.
    kubelet
        .agent
        .metric("derny_kube_watches", &[], |open| open >= watches)
        .unwrap();
    let pods = [&orders.servers[0].0, &orders.servers[1].0, &replacement.0];
    kubelet.cluster.apply(&[slice(&pods)]).unwrap();
    kubelet
        .cluster
        .delete_at_once(&objects::pod("neighbour", NODE_NAME, ""))
        .unwrap();
    reached(&kubelet, &load, "orders-4");
    eventually("the pod is forgotten", OUTAGE, || {
        kubelet.shown("neighbour") == Value::Null
    })
    .unwrap();
    assert_eq!(kubelet.is_up(), 1.0);
    let calls = load.end_with_all(Call::by_derny).unwrap();
    println!(
        "the API server was away for {} s, {rounds} restarts of a server and of a pod; {} calls in all, 0 failed",
        away.elapsed().as_secs(),
        calls.len()
    );
}
