//! Pods of strict namespaces: what they dial is refused until they are enrolled.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
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

/// A pod, by its name and its control group: other agents of this machine may hold a pod of the same name.
struct Known<'a> {
    kubelet: &'a Kubelet,
    name: &'a str,
    group: u64,
}

impl<'a> Known<'a> {
    /// Its control group is made when it is not there.
    fn new(kubelet: &'a Kubelet, name: &'a str, uid: &str) -> Self {
        let group = kubelet.group(uid);
        fs::create_dir_all(&group).unwrap();
        let group = fs::metadata(&group).unwrap().ino();
        Self { kubelet, name, group }
    }

    /// What `derny redirects` says of each agent of this machine, whether one redirects or not.
    fn agents(&self) -> Vec<Value> {
        let said = self.kubelet.agent.cli(&["redirects", "-o", "json"]).unwrap();
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// An agent's line of it, when that holds it.
    fn is_in(&self, agent: &Value) -> Option<Value> {
        let mut held = agent["held"].as_array().unwrap().iter();
        held.find(|held| held["controlGroup"] == self.group).cloned()
    }

    fn held(&self) -> Option<Value> {
        self.agents().iter().find_map(|agent| self.is_in(agent))
    }

    #[track_caller]
    fn waits(&self, held: bool) {
        let what = format!("{} held: {held}", self.name);
        eventually(&what, SOON, || self.held().is_some() == held)
            .unwrap_or_else(|error| panic!("{error}: {}", self.kubelet.agent.log()));
        let shown = self.kubelet.shown(self.name);
        assert_eq!(shown["held"], held, "{shown}");
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
        let a = Known::new(&kubelet, "a", &uid);
        a.waits(true);
        kubelet.stands("a", "waiting", "no process of it runs yet");

        // Its network is there, and it cannot be enrolled. Without a loopback nothing can.
        pod.netns().ip_batch("link set lo down\n").unwrap();
        let running = kubelet.run(&pod, &uid);
        kubelet.stands("a", "waiting", "the loopback of demo/a is down");
        for target in targets {
            assert_eq!(dial(&kubelet, &pod, &group, target, false), REFUSED);
            assert_eq!(dial(&kubelet, &pod, &group, target, true), "", "UDP");
        }
        let held = a.held().unwrap();
        assert_eq!((&held["refused"], &held["label"]), (&2.into(), &"demo/a".into()));
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
        a.waits(false);
        for target in targets {
            assert_eq!(dial(&kubelet, &pod, &group, target, false), "hello");
        }
        assert!(kubelet.is_redirected(&pod));
        // Its end, and the end of its control group.
        drop(running);
        kubelet.stands("a", "waiting", "no process of it runs yet");
        a.waits(true);
        fs::remove_dir(kubelet.container(&group)).unwrap();
        fs::remove_dir(&group).unwrap();
        a.waits(false);
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
    let a = Known::new(&kubelet, "a", &uid);
    let hears = || dial(&kubelet, &pod, &kubelet.group(&uid), target, false);
    let label = |mesh: &str, strict: &str| kubelet.cluster.apply(&[namespace(mesh, strict)]).unwrap();
    assert_eq!(hears(), "hello", "not strict: it goes direct");

    label("enabled", "true");
    a.waits(true);
    assert_eq!(hears(), REFUSED);
    label("enabled", "");
    a.waits(false);
    assert_eq!(hears(), "hello");
    label("enabled", "true");
    a.waits(true);
    // Out by its own label, and in again.
    kubelet.apply(&objects::pod("a", NODE_NAME, "disabled"));
    a.waits(false);
    assert_eq!(hears(), "hello");
    kubelet.apply(&objects::pod("a", NODE_NAME, ""));
    a.waits(true);

    // An enrolled pod that is withdrawn by its label goes direct.
    pod.netns().ip_batch("link set lo up\n").unwrap();
    kubelet.stands("a", "enrolled", "");
    kubelet.apply(&objects::pod("a", NODE_NAME, "disabled"));
    kubelet.stands("a", "left alone", "disabled");
    a.waits(false);
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
    Known::new(&kubelet, "a", &uid).waits(true);

    kubelet.agent.stop().unwrap();
    let stale = || {
        let a = Known::new(&kubelet, "a", &uid);
        a.agents()
            .iter()
            .any(|agent| agent["redirecting"] == false && a.is_in(agent).is_some())
    };
    eventually("the heartbeat is stale", SOON, stale).unwrap();
    assert_eq!(dial(&kubelet, &pod, &group, target, false), REFUSED);
    kubelet.agent.kill9().unwrap();
    let direct = || dial(&kubelet, &pod, &group, target, false) == "hello";
    eventually("the programs are gone", SOON, direct).unwrap();
    // The next one knows it at once, from what was saved or from the API.
    kubelet.agent.start_again().unwrap();
    Known::new(&kubelet, "a", &uid).waits(true);
    assert_eq!(dial(&kubelet, &pod, &group, target, false), REFUSED);
}
