//! Pods of strict namespaces: what they dial is refused until they are enrolled.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    thread,
};

use derny_tests::{Pod, config::NAMESPACE, eventually, kube::objects};
use serde_json::{Value, json};

use crate::{
    kubelet::{Driver, Kubelet, NODE_NAME},
    world::SOON,
};

/// Where a server outside the mesh listens.
const PORT: u16 = 9000;
const REFUSED: &str = "[Errno 111] Connection refused";

fn namespace(mesh: &str, strict: &str) -> Value {
    let mut namespace = objects::namespace(NAMESPACE, mesh);
    if !strict.is_empty() {
        namespace["metadata"]["labels"]["derny.dev/strict"] = strict.into();
    }
    namespace
}

/// A server that says `hello` to everybody, on both addresses of its pod, or on its loopback's.
fn greeter(pod: &Pod, addresses: [SocketAddr; 2]) -> [SocketAddr; 2] {
    for address in addresses {
        let listener = pod.inside(|| TcpListener::bind(address).unwrap()).unwrap();
        // Ends with the process: a thread in accept cannot be asked to stop.
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(b"hello");
            }
        });
    }
    addresses
}

/// What a client in this control group and the pod's network hears, or its error.
fn dial(kubelet: &Kubelet, pod: &Pod, group: &Path, to: SocketAddr, udp: bool) -> String {
    let description = json!({
        "family": if to.is_ipv4() { 4 } else { 6 },
        "to": [to.ip().to_string(), to.port()],
        "udp": udp,
    });
    let mut command = Command::new("python3");
    command.args(["-c", include_str!("../kernel/dial.py"), &description.to_string()]);
    let printed = pod.run_from(kubelet.node.host(), &kubelet.container(group), command);
    let seen: Value = serde_json::from_str(&printed.unwrap().success().unwrap()).unwrap();
    let word = |key: &str| seen[key].as_str().unwrap_or_default().to_owned();
    word("said") + &word("error")
}

impl Kubelet {
    /// `derny redirects`' line of a held pod.
    fn held(&self, pod: &str) -> Option<Value> {
        let agents = self.agent.cli_json(&["redirects"]).unwrap();
        let held = agents
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|agent| agent["held"].as_array().unwrap());
        let label = format!("{NAMESPACE}/{pod}");
        held.clone().find(|held| held["label"] == label.as_str()).cloned()
    }

    fn waits_held(&self, pod: &str, held: bool) {
        eventually(&format!("{pod} held: {held}"), SOON, || {
            self.held(pod).is_some() == held
        })
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.shown(pod), self.agent.log()));
        assert_eq!(self.shown(pod)["held"], held, "{}", self.shown(pod));
    }
}

#[test]
fn what_a_pod_dials_is_refused_until_it_is_enrolled() {
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let kubelet = Kubelet::new(driver, &namespace("enabled", "true"));
        let server = kubelet.node.pod("outside").unwrap();
        let targets = greeter(&server, [server.address(PORT), server.address6(PORT)]);
        let uid = kubelet.apply(&objects::pod("a", NODE_NAME, ""));
        let pod = kubelet.node.pod("a").unwrap();
        // A control group is enough; no process was in it yet.
        let group = kubelet.group(&uid);
        std::fs::create_dir_all(&group).unwrap();
        kubelet.waits_held("a", true);
        kubelet.stands("a", "waiting", "no process of it runs yet");

        // Its network is there, and it cannot be enrolled. Without a loopback nothing can.
        pod.netns().ip_batch("link set lo down\n").unwrap();
        let running = kubelet.run(&pod, &uid);
        kubelet.stands("a", "waiting", "the loopback of demo/a is down");
        for target in targets {
            assert_eq!(dial(&kubelet, &pod, &group, target, false), REFUSED);
            assert_eq!(dial(&kubelet, &pod, &group, target, true), "", "UDP");
        }
        assert_eq!(kubelet.held("a").unwrap()["refused"], 2);
        kubelet
            .agent
            .metric("derny_pods_held", &[], |n| n == 1.0)
            .unwrap();
        let refused = [("decision", "refused_strict")];
        kubelet
            .agent
            .metric("derny_kernel_node_decisions_total", &refused, |n| n == 2.0)
            .unwrap();
        let table = kubelet.agent.cli(&["pods"]).unwrap().success().unwrap();
        assert!(table.contains("waiting (strict: what"), "{table}");
        let table = kubelet.agent.cli(&["redirects"]).unwrap().success().unwrap();
        assert!(table.contains("HELD UNTIL ENROLLED"), "{table}");

        // A neighbour that opted out by its own label.
        let out = kubelet.apply(&objects::pod("out", NODE_NAME, "disabled"));
        let neighbour = kubelet.node.pod("out").unwrap();
        let _neighbour = kubelet.run(&neighbour, &out);
        kubelet.stands("out", "left alone", "disabled");
        for target in targets {
            assert_eq!(
                dial(&kubelet, &neighbour, &kubelet.group(&out), target, false),
                "hello"
            );
        }

        pod.netns().ip_batch("link set lo up\n").unwrap();
        kubelet.stands("a", "enrolled", "");
        kubelet.waits_held("a", false);
        for target in targets {
            assert_eq!(dial(&kubelet, &pod, &group, target, false), "hello");
        }
        assert!(kubelet.is_redirected(&pod));
        // Its end, and the end of its control group.
        drop(running);
        kubelet.stands("a", "waiting", "no process of it runs yet");
        kubelet.waits_held("a", true);
        std::fs::remove_dir(kubelet.container(&group)).unwrap();
        std::fs::remove_dir(&group).unwrap();
        kubelet.waits_held("a", false);
    }
}

#[test]
fn labels_hold_and_release_at_once() {
    let kubelet = Kubelet::new(Driver::Cgroupfs, &namespace("enabled", ""));
    let server = kubelet.node.pod("outside").unwrap();
    let [target, _] = greeter(&server, [server.address(PORT), server.address6(PORT)]);
    let uid = kubelet.apply(&objects::pod("a", NODE_NAME, ""));
    let pod = kubelet.node.pod("a").unwrap();
    pod.netns().ip_batch("link set lo down\n").unwrap();
    let _running = kubelet.run(&pod, &uid);
    kubelet.stands("a", "waiting", "the loopback of demo/a is down");
    let hears = || dial(&kubelet, &pod, &kubelet.group(&uid), target, false);
    let label = |mesh: &str, strict: &str| kubelet.cluster.apply(&[namespace(mesh, strict)]).unwrap();
    assert_eq!(hears(), "hello", "not strict: it goes direct");

    label("enabled", "true");
    kubelet.waits_held("a", true);
    assert_eq!(hears(), REFUSED);
    label("enabled", "");
    kubelet.waits_held("a", false);
    assert_eq!(hears(), "hello");
    label("enabled", "true");
    kubelet.waits_held("a", true);
    // Out by its own label, and in again.
    kubelet.apply(&objects::pod("a", NODE_NAME, "disabled"));
    kubelet.waits_held("a", false);
    assert_eq!(hears(), "hello");
    kubelet.apply(&objects::pod("a", NODE_NAME, ""));
    kubelet.waits_held("a", true);

    // An enrolled pod that is withdrawn by its label goes direct.
    pod.netns().ip_batch("link set lo up\n").unwrap();
    kubelet.stands("a", "enrolled", "");
    kubelet.apply(&objects::pod("a", NODE_NAME, "disabled"));
    kubelet.stands("a", "left alone", "disabled");
    assert_eq!(kubelet.held("a"), None);
    assert_eq!(hears(), "hello");
}

#[test]
fn a_held_pod_stays_held_while_the_agent_hangs_and_goes_direct_without_it() {
    let mut kubelet = Kubelet::new(Driver::Cgroupfs, &namespace("enabled", "true"));
    let server = kubelet.node.pod("outside").unwrap();
    let [target, _] = greeter(&server, [server.address(PORT), server.address6(PORT)]);
    let uid = kubelet.apply(&objects::pod("a", NODE_NAME, ""));
    let pod = kubelet.node.pod("a").unwrap();
    let group = kubelet.group(&uid);
    pod.netns().ip_batch("link set lo down\n").unwrap();
    let _running = kubelet.run(&pod, &uid);
    kubelet.waits_held("a", true);

    kubelet.agent.stop().unwrap();
    let stale = || {
        let said = kubelet.agent.cli(&["redirects"]).unwrap();
        said.stdout.contains("standing aside") && said.stdout.contains("HELD UNTIL ENROLLED")
    };
    eventually("the heartbeat is stale", SOON, stale).unwrap();
    assert_eq!(dial(&kubelet, &pod, &group, target, false), REFUSED);
    kubelet.agent.kill9().unwrap();
    let direct = || dial(&kubelet, &pod, &group, target, false) == "hello";
    eventually("the programs are gone", SOON, direct).unwrap();
    // The next one knows it at once, from what was saved or from the API.
    kubelet.agent.start_again().unwrap();
    kubelet.waits_held("a", true);
    assert_eq!(dial(&kubelet, &pod, &group, target, false), REFUSED);
}
