use std::collections::VecDeque;

use derny_tests::{
    load::{Call, Load, unix_now},
    wire::{Wire, http2},
};

use crate::{
    kubelet::{Kubelet, SOON},
    pod::{FIRST, RunningPod},
};

const SECOND: &str = "8b6f4";
const REPLICAS: usize = 3;

/// One pod more than there are replicas, never one less. Nothing is said of retries: the defaults have to do.
#[test]
fn a_deployment_is_updated_under_load_and_no_call_fails() {
    let mut kubelet = Kubelet::opted_in();
    let mut pods: VecDeque<RunningPod> = (1..=REPLICAS)
        .map(|number| kubelet.server(FIRST, number))
        .collect();
    kubelet.endpoints(&pods.iter().collect::<Vec<_>>(), &[]);
    let client = kubelet.client();
    kubelet.is_enrolled(&client);
    let standing = client.grpc("standing", &kubelet.echo.address().to_string());
    let anew = client.connections("anew", &kubelet.web.address().to_string());
    standing
        .wait_for("calls", 100, 0.0, SOON, Call::by_derny)
        .unwrap();

    for number in 1..=REPLICAS {
        let new = kubelet.server(SECOND, number);
        let name = new.name.clone();
        pods.push_back(new);
        kubelet.endpoints(&pods.iter().collect::<Vec<_>>(), &[]);
        let reached = |call: &Call| call.endpoint == name;
        standing.wait_for("the new pod", 10, 0.0, SOON, reached).unwrap();
        let old = pods.pop_front().unwrap();
        kubelet.delete(old, &pods.iter().collect::<Vec<_>>());
    }

    let updated = unix_now();
    standing
        .wait_for("calls of the new version", 100, updated, SOON, Call::by_derny)
        .unwrap();
    let calls = standing.end_with_all(Call::by_derny).unwrap();
    let connections = anew.end_with_all(Call::by_derny).unwrap();
    println!(
        "{} calls and {} connections, none failed",
        calls.len(),
        connections.len()
    );
    let after = calls.iter().filter(|call| call.begun > updated);
    for call in after {
        assert!(call.endpoint.contains(SECOND), "{call:?}");
    }
}

/// The callers are in no mesh and each stay with one connection, so that what they are told is all that they have to go
/// by.
#[test]
fn standing_connections_from_outside_the_mesh_follow_a_rollout_and_no_call_fails() {
    let mut kubelet = Kubelet::opted_in();
    let mut old = kubelet.server(FIRST, 1);
    kubelet.is_called_through_the_agent(&old);
    kubelet.endpoints(&[&old], &[]);
    let outside = kubelet.node.pod("outside").unwrap();
    let paced = ["--rate", "200", "--threads", "2"];
    let grpc = Load::grpc_with(&outside, &kubelet.echo.address().to_string(), &paced).unwrap();
    let paced = ["--connections", "8", "--pause", "5-100"];
    let http = Load::http(&outside, &kubelet.web.address().to_string(), &paced).unwrap();
    let reaches = |name: &str| {
        for load in [&grpc, &http] {
            let reached = |call: &Call| call.by_derny() && call.endpoint == name;
            load.wait_for(name, 20, 0.0, SOON, reached).unwrap();
        }
    };
    reaches(&old.name);
    for number in 1..=REPLICAS {
        let new = kubelet.server(SECOND, number);
        kubelet.is_called_through_the_agent(&new);
        let leaving = std::mem::replace(&mut old, new);
        kubelet.retire(leaving, &[&old]);
        reaches(&old.name);
    }
    let calls = grpc.end_unharmed().unwrap().len() + http.end_unharmed().unwrap().len();
    println!("{calls} calls, none failed");
}

/// Who keeps a connection and says nothing hears of the end by the connection alone, and only while the pod's interface
/// stands.
#[test]
fn callers_that_are_silent_hear_of_the_end_of_a_pod() {
    let kubelet = Kubelet::opted_in();
    let pod = kubelet.server(FIRST, 1);
    kubelet.is_called_through_the_agent(&pod);
    let outside = kubelet.node.pod("outside").unwrap();
    let answered = |request: &[u8]| {
        let mut wire = Wire::say(&outside, pod.address(), request).unwrap();
        wire.expect(&pod.name, SOON).unwrap();
        wire
    };
    let mut http1 = answered(b"GET /x HTTP/1.1\r\nhost: echo\r\n\r\n");
    let mut http2 = answered(&[http2::preface(65_535), http2::get(1, "/x")].concat());
    let open = kubelet.agent.shown_pod(&pod.name).unwrap();
    assert_eq!(open["openConnections"], 2, "{open}");

    kubelet.cluster.delete_gracefully(&pod.object, SOON).unwrap();
    pod.end(SOON);
    http1.ended(SOON).unwrap();
    http2.ended(SOON).unwrap();
}
