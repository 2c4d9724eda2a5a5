use std::process::{Command, Stdio};

use derny_tests::{
    Pod, Testd,
    config::NAMESPACE,
    eventually,
    kube::objects,
    load::{Call, Load},
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::{
    are_told,
    kubelet::{Driver, Kubelet, NODE_NAME, SOON},
};

/// A pod that writes about itself what the kubelet writes about the mirror of a static pod whose hash is `uid`.
fn forged_mirror(name: &str, uid: &str) -> Value {
    let mut pod = objects::pod(name, NODE_NAME, "enabled");
    pod["metadata"]["annotations"] =
        json!({"kubernetes.io/config.hash": uid, "kubernetes.io/config.mirror": uid});
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Node", "name": NODE_NAME, "uid": "n", "controller": true,
    }]);
    pod
}

#[test]
fn a_pod_does_not_take_the_uid_of_another() {
    let mut kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let uid = kubelet.apply(&objects::pod("victim", NODE_NAME, ""));
    let victim = kubelet.node.pod("victim").unwrap();
    let _running = kubelet.run(&victim, &uid);
    kubelet.stands("victim", "enrolled", "");
    let mut annotated = objects::pod("a-annotated", NODE_NAME, "enabled");
    annotated["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": uid});
    kubelet.apply(&annotated);
    kubelet.apply(&forged_mirror("a-mirror", &uid));
    for _ in 0..2 {
        for thief in ["a-annotated", "a-mirror"] {
            kubelet.stands(thief, "waiting", "no process of it runs yet");
        }
        kubelet.stands("victim", "enrolled", "");
        assert!(kubelet.is_redirected(&victim));
        kubelet.agent.kill9().unwrap();
        kubelet.agent.start_again().unwrap();
    }
    let line = kubelet.agent.access_log().unwrap();
    assert!(
        line.iter()
            .all(|line| line["source"] == format!("{NAMESPACE}/victim")),
        "{line:?}"
    );
}

#[test]
fn of_two_pods_that_claim_one_static_pod_neither_is_enrolled() {
    let kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let hash = "0123456789abcdef0123456789abcdef";
    let pod = kubelet.node.pod("static").unwrap();
    let _running = kubelet.run(&pod, hash);
    kubelet.apply(&forged_mirror("static", hash));
    kubelet.stands("static", "enrolled", "");
    kubelet.apply(&forged_mirror("a-thief", hash));
    for name in ["static", "a-thief"] {
        kubelet.stands(name, "left alone", "claims the same control group");
    }
    assert!(!kubelet.is_redirected(&pod));
    kubelet
        .cluster
        .delete_at_once(&forged_mirror("a-thief", hash))
        .unwrap();
    kubelet.stands("static", "enrolled", "");
}

/// Programs in a network namespace that the pod has made for itself.
fn own_network() -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["-Urn", "sh", "-c", "ip link set lo up; exec sleep infinity"])
        .stdin(Stdio::null());
    command
}

#[test]
fn a_network_that_a_pod_makes_is_not_taken_for_its_own() {
    let mut kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let uid = kubelet.apply(&objects::pod("a", NODE_NAME, ""));
    let pod = kubelet.node.pod("a").unwrap();
    let running = kubelet.run(&pod, &uid);
    let before = kubelet.stands("a", "enrolled", "");
    // In containers of its own, which are looked at before and after the sandbox's.
    let _children: Vec<_> = ["0", "5", "f"]
        .map(|digit| {
            let container = running.group.join(digit.repeat(64));
            pod.spawn_from(kubelet.node.host(), &container, own_network())
                .unwrap()
        })
        .into();
    for _ in 0..3 {
        kubelet.agent.kill9().unwrap();
        kubelet.agent.start_again().unwrap();
        let after = kubelet.stands("a", "enrolled", "");
        assert_eq!(after["addresses"], before["addresses"]);
        assert_eq!(after["netnsCookie"], before["netnsCookie"]);
        assert!(kubelet.is_redirected(&pod));
    }
}

const THIEF: &str = "a-thief";
const STRANGER: &str = "stranger";

pub(crate) fn of(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = namespace.into();
    object
}

/// Whether all of some calls pass the engine; all are answered.
pub(crate) fn called(pod: &Pod, target: &str) -> bool {
    let calls = Load::grpc_calls(pod, target, 5).unwrap().finish(SOON).unwrap();
    assert!(calls.iter().all(|call| call.ok), "{calls:?}");
    calls.iter().all(Call::by_derny)
}

/// A headless service whose endpoints somebody has written to be this address, with a policy for callers.
fn claim(namespace: &str, server: &Pod) -> [Value; 3] {
    let mut service = objects::service("echo", "None", "grpc");
    service["spec"]["clusterIPs"] = json!(["None"]);
    let slice = objects::slice("echo", "echo-1", ("grpc", HTTP_PORT), &objects::ready(&[server]));
    let policy = objects::policy("slow", "echo", json!({"timeouts": {"request": "1ms"}}));
    [service, slice, policy].map(|object| of(namespace, object))
}

#[test]
fn a_foreign_slice_does_not_capture_calls_to_an_address() {
    let kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let server = kubelet.node.pod("bank").unwrap();
    let _testd = Testd::start(&server).unwrap();
    let target = server.address(HTTP_PORT).to_string();
    for namespace in [THIEF, STRANGER] {
        kubelet
            .cluster
            .apply(&[objects::namespace(namespace, "enabled")])
            .unwrap();
    }
    let start = |namespace: &str| {
        let uid = kubelet.apply(&of(namespace, objects::pod(namespace, NODE_NAME, "")));
        let pod = kubelet.node.pod(namespace).unwrap();
        let running = kubelet.run(&pod, &uid);
        kubelet.stands(namespace, "enrolled", "");
        (pod, running)
    };
    let call = |pod: &Pod| called(pod, &target);
    let contested = || kubelet.agent.cli_json(&["status"]).unwrap()["contested"].clone();
    let (stranger, _stranger) = start(STRANGER);
    assert!(!call(&stranger), "nobody claims it");

    // The owner claims the address, and the thief does.
    let [service, slice, mut policy] = claim(NAMESPACE, &server);
    policy["spec"]["timeouts"]["request"] = "10s".into();
    kubelet
        .cluster
        .apply(&[service, slice, policy].map(|o| named(o, "bank")))
        .unwrap();
    eventually("it is the owner's to all", SOON, || call(&stranger)).unwrap();
    kubelet.cluster.apply(&claim(THIEF, &server)).unwrap();
    eventually("two claim it", SOON, || contested()[0]["address"] == target).unwrap();
    let shown = contested();
    assert_eq!(
        shown[0]["services"],
        json!(["a-thief/echo:80", "demo/bank:80"]),
        "{shown}"
    );
    eventually("it is left alone", SOON, || !call(&stranger)).unwrap();
    assert_eq!(
        kubelet.agent.cli_json(&["status"]).unwrap()["contested"][0]["redirected"],
        false
    );
    let told = || are_told(&kubelet, &[THIEF, NAMESPACE], "AddressContested");
    eventually("Events tell the claimants", SOON, told).unwrap();
    let explained = explain(&kubelet, STRANGER, &target);
    assert!(
        explained.contains("is claimed by a-thief/echo:80 and demo/bank:80"),
        "{explained}"
    );

    // To the owner's pods it is the owner's, whatever the thief says.
    let (owner, running) = start(NAMESPACE);
    eventually("it is the owner's to its own", SOON, || call(&owner)).unwrap();
    assert!(!call(&stranger), "relayed unseen");
    let explained = explain(&kubelet, STRANGER, &target);
    assert!(
        explained.contains("a-thief/echo:80 and demo/bank:80 claim it"),
        "{explained}"
    );
    let lines = kubelet.agent.access_log().unwrap();
    let thiefs = |line: &&Value| line.to_string().contains(THIEF);
    assert_eq!(lines.iter().find(thiefs), None);
    drop(running);
    eventually("it is left alone again", SOON, || {
        kubelet.agent.cli_json(&["status"]).unwrap()["contested"][0]["redirected"] == false
    })
    .unwrap();

    // Without the thief, it is the owner's to all.
    kubelet.cluster.delete(&claim(THIEF, &server)[1]).unwrap();
    eventually("one claims it", SOON, || contested() == json!([])).unwrap();
    eventually("it is the owner's again", SOON, || call(&stranger)).unwrap();
}

/// The same object of another service.
fn named(object: Value, service: &str) -> Value {
    let text = object.to_string().replace("\"echo", &format!("\"{service}"));
    serde_json::from_str(&text).unwrap()
}

fn explain(kubelet: &Kubelet, namespace: &str, target: &str) -> String {
    let url = format!("http://{target}/");
    let from = format!("{namespace}/{namespace}");
    kubelet
        .agent
        .cli_json(&["explain", "--from", &from, &url])
        .unwrap()
        .to_string()
}
