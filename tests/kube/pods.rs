use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, Process, Testd, Vip,
    config::NAMESPACE,
    eventually,
    kube::{Cluster, objects},
    load::Load,
    process::Output,
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::world::SOON;

/// Pods that the file names as well.
mod both;

pub(crate) const NODE_NAME: &str = "n1";
/// Bound of the slowest enrolment but one in a hundred, on a machine that builds beside the tests.
const ENROLLED_WITHIN: Duration = Duration::from_millis(500);

/// How the kubelet names control groups.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Driver {
    Cgroupfs,
    Systemd,
}

/// Dropped in the order of its fields.
pub(crate) struct Kubelet {
    agent: Agent,
    pub(crate) cluster: Cluster,
    driver: Driver,
    /// A Service of the API, and what answers for it; that is not in the mesh.
    echo: Vip,
    _testd: Testd,
    _server: Pod,
    pub(crate) node: Node,
}

/// A pod with a first process, as a runtime's pause is.
pub(crate) struct Running {
    _pause: Process,
    group: PathBuf,
    /// Before the process was there, in milliseconds since the epoch.
    begun: u64,
}

impl Kubelet {
    fn new(driver: Driver, namespace: &Value) -> Self {
        let node = Node::new().unwrap();
        let cluster = Cluster::start(&node).unwrap();
        let server = node.pod("server").unwrap();
        let testd = Testd::start(&server).unwrap();
        let echo = node.service("echo", 80, HTTP_PORT, &[&server]).unwrap();
        let slice = objects::slice("echo", "echo-1", ("grpc", HTTP_PORT), &objects::ready(&[&server]));
        let service = objects::service("echo", &echo.ip().to_string(), "grpc");
        cluster.apply(&[namespace.clone(), service, slice]).unwrap();
        let mut options = AgentOptions::new(Config::default());
        options.arguments = cluster.arguments();
        let state = state_file(&node).display().to_string();
        let more = ["--node-name", NODE_NAME, "--state-file", &state].map(str::to_owned);
        options.arguments.extend(more);
        let agent = Agent::start(&node, options).unwrap();
        Self {
            agent,
            cluster,
            driver,
            echo,
            _testd: testd,
            _server: server,
            node,
        }
    }

    pub(crate) fn enabled(driver: Driver) -> Self {
        Self::new(driver, &objects::namespace(NAMESPACE, "enabled"))
    }

    /// Applies a pod; the UID that the server has given it.
    pub(crate) fn apply(&self, pod: &Value) -> String {
        self.cluster.apply(std::slice::from_ref(pod)).unwrap();
        let got = self.cluster.get(pod).unwrap();
        got["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// The pod's control group.
    fn group(&self, uid: &str) -> PathBuf {
        let below = match self.driver {
            Driver::Cgroupfs => format!("burstable/pod{uid}"),
            Driver::Systemd => format!(
                "kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
                uid.replace('-', "_")
            ),
        };
        self.node.host().kubepods().join(below)
    }

    /// Starts the first process of a pod.
    pub(crate) fn run(&self, pod: &Pod, uid: &str) -> Running {
        let id = "4f".repeat(32);
        let container = match self.driver {
            Driver::Cgroupfs => id,
            Driver::Systemd => format!("cri-containerd-{id}.scope"),
        };
        let mut pause = Command::new("sleep");
        pause.arg("infinity").stdin(Stdio::null());
        let group = self.group(uid);
        let begun = unix_ms();
        Running {
            _pause: pod
                .spawn_from(self.node.host(), &group.join(container), pause)
                .unwrap(),
            group,
            begun,
        }
    }

    pub(crate) fn shown(&self, pod: &str) -> Value {
        self.agent.shown_pod(pod).unwrap()
    }

    /// Waits until `derny pods` says this of a pod.
    pub(crate) fn stands(&self, pod: &str, state: &str, reason: &str) -> Value {
        self.agent.pod_stands(pod, state, reason).unwrap()
    }

    /// Whether the agent hears from the API server: 1 or 0.
    pub(crate) fn is_up(&self) -> f64 {
        self.agent.metrics().unwrap().sum("derny_kube_up", &[])
    }

    /// Whether a call from the pod to the service `echo` passes the engine.
    pub(crate) fn is_redirected(&self, pod: &Pod) -> bool {
        let calls = Load::grpc_calls(pod, &self.echo.address().to_string(), 1).unwrap();
        let calls = calls.finish(SOON).unwrap();
        calls.iter().all(|call| call.by_derny())
    }
}

fn state_file(node: &Node) -> PathBuf {
    node.host().run_directory().join("state.json")
}

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn a_pod_is_enrolled_whoever_tells_of_it_first() {
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let kubelet = Kubelet::enabled(driver);
        // The API first.
        let uid = kubelet.apply(&objects::pod("early", NODE_NAME, ""));
        kubelet.stands("early", "waiting", "no process of it runs yet");
        let early = kubelet.node.pod("early").unwrap();
        let running = kubelet.run(&early, &uid);
        let shown = kubelet.stands("early", "enrolled", "");
        assert_eq!(shown["workload"], "early");
        assert_eq!(shown["addresses"][0], early.ip().to_string(), "{shown}");
        assert!(kubelet.is_redirected(&early));
        let line = kubelet
            .agent
            .access_line("the call", |line| line["service"] == "demo/echo:80")
            .unwrap();
        assert!(line.to_string().contains("early"), "{line}");
        let gap = shown["enrolledAtMs"].as_u64().unwrap() - running.begun;
        println!("{driver:?}: enrolled {gap} ms after the runtime began to start its first process");

        // The sandbox first: the pod comes to this node when it runs already.
        let uid = kubelet.apply(&objects::pod("late", "", ""));
        let late = kubelet.node.pod("late").unwrap();
        let _running_late = kubelet.run(&late, &uid);
        assert_eq!(kubelet.shown("late"), Value::Null);
        kubelet.apply(&objects::pod("late", NODE_NAME, ""));
        kubelet.stands("late", "enrolled", "");

        // The end of the processes is the end of the enrolment; the API may say so later.
        drop(running);
        kubelet.stands("early", "waiting", "no process of it runs yet");
        kubelet
            .cluster
            .delete_at_once(&objects::pod("early", NODE_NAME, ""))
            .unwrap();
        eventually("the pod is forgotten", SOON, || {
            kubelet.shown("early") == Value::Null
        })
        .unwrap();
    }
}

#[test]
fn labels_decide_and_count_at_once() {
    let kubelet = Kubelet::new(Driver::Cgroupfs, &objects::namespace(NAMESPACE, ""));
    let uid = kubelet.apply(&objects::pod("a", NODE_NAME, ""));
    let pod = kubelet.node.pod("a").unwrap();
    let _running = kubelet.run(&pod, &uid);
    kubelet.stands("a", "left alone", "no label derny.dev/mesh");
    assert!(!kubelet.is_redirected(&pod));

    kubelet
        .cluster
        .apply(&[objects::namespace(NAMESPACE, "enabled")])
        .unwrap();
    kubelet.stands("a", "enrolled", "");
    assert!(kubelet.is_redirected(&pod));
    kubelet.apply(&objects::pod("a", NODE_NAME, "disabled"));
    kubelet.stands("a", "left alone", "label derny.dev/mesh: disabled");
    kubelet
        .cluster
        .apply(&[objects::namespace(NAMESPACE, "")])
        .unwrap();
    kubelet.apply(&objects::pod("a", NODE_NAME, "enabled"));
    kubelet.stands("a", "enrolled", "");

    let mut annotated = objects::pod("a", NODE_NAME, "enabled");
    annotated["metadata"]["annotations"] = json!({"derny.dev/inbound": "8080=h3"});
    kubelet.apply(&annotated);
    let fault = || {
        kubelet.shown("a")["note"]
            .as_str()
            .unwrap_or_default()
            .contains("`h3` is no protocol")
    };
    eventually("the fault is said", SOON, fault).unwrap();
    assert_eq!(kubelet.shown("a")["state"], "enrolled");

    let mut others = objects::pod("host", NODE_NAME, "enabled");
    others["spec"]["hostNetwork"] = true.into();
    kubelet.apply(&others);
    kubelet.stands("host", "left alone", "hostNetwork");
    let mut others = objects::pod("sandboxed", NODE_NAME, "enabled");
    others["spec"]["runtimeClassName"] = "gvisor".into();
    kubelet.apply(&others);
    kubelet.stands("sandboxed", "left alone", "runtimeClassName gvisor");
    let table: Output = kubelet.agent.cli(&["pods"]).unwrap();
    println!("{}", table.success().unwrap());
    let left_alone = kubelet
        .agent
        .metric("derny_pods", &[("state", "left_alone")], |n| n == 2.0);
    left_alone.unwrap();
}

#[test]
fn an_agent_that_starts_again_enrols_what_runs() {
    let mut kubelet = Kubelet::enabled(Driver::Systemd);
    let saved = state_file(&kubelet.node).with_added_extension("pods");
    let pods: Vec<(Pod, Running)> = ["a", "b"]
        .map(|name| {
            let uid = kubelet.apply(&objects::pod(name, NODE_NAME, ""));
            let pod = kubelet.node.pod(name).unwrap();
            let running = kubelet.run(&pod, &uid);
            (pod, running)
        })
        .into();
    for (pod, _) in &pods {
        kubelet.stands(pod.name(), "enrolled", "");
    }
    kubelet.agent.kill9().unwrap();
    kubelet.agent.start_again().unwrap();
    for (pod, running) in &pods {
        kubelet.stands(pod.name(), "enrolled", "");
        assert!(running.group.is_dir());
    }
    // What ran before the agent says nothing about how fast it is.
    let timed = kubelet
        .agent
        .metrics()
        .unwrap()
        .sum("derny_enrolment_seconds_count", &[]);
    assert_eq!(timed, 0.0);

    // The same while the API server is away.
    let is_saved = || {
        let text = std::fs::read_to_string(&saved).unwrap_or_default();
        text.contains("\"a\"") && text.contains("\"b\"")
    };
    eventually("the pods are saved", SOON, is_saved).unwrap();
    kubelet.cluster.kill9().unwrap();
    kubelet.agent.kill9().unwrap();
    kubelet.agent.start_again().unwrap();
    for (pod, _) in &pods {
        kubelet.stands(pod.name(), "enrolled", "");
    }
}

/// Each pod's time is taken from before its first process was begun until its connections are redirected.
#[test]
fn a_hundred_pods_at_once_are_each_enrolled_at_once() {
    const PODS: usize = 100;
    const STARTERS: usize = 4;
    let kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let names: Vec<String> = (0..PODS).map(|n| format!("p{n}")).collect();
    let objects: Vec<Value> = names
        .iter()
        .map(|name| objects::pod(name, NODE_NAME, ""))
        .collect();
    kubelet.cluster.apply(&objects).unwrap();
    let pods: Vec<(Pod, String)> = names
        .iter()
        .zip(&objects)
        .map(|(name, object)| {
            let uid = kubelet.cluster.get(object).unwrap()["metadata"]["uid"]
                .as_str()
                .unwrap()
                .to_owned();
            (kubelet.node.pod(name).unwrap(), uid)
        })
        .collect();
    let waiting = |n: f64| n == PODS as f64;
    kubelet
        .agent
        .metric("derny_pods", &[("state", "waiting")], waiting)
        .unwrap();

    let running = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for part in pods.chunks(PODS.div_ceil(STARTERS)) {
            let (kubelet, running) = (&kubelet, &running);
            scope.spawn(move || {
                for (pod, uid) in part {
                    let begun = kubelet.run(pod, uid);
                    running.lock().unwrap().push((pod.name().to_owned(), begun));
                }
            });
        }
    });
    kubelet
        .agent
        .metric("derny_pods", &[("state", "enrolled")], waiting)
        .unwrap();
    let shown = kubelet.agent.cli_json(&["pods"]).unwrap();
    let enrolled_at = |name: &str| {
        let mut shown = shown.as_array().unwrap().iter();
        shown.find(|pod| pod["name"] == name).unwrap()["enrolledAtMs"]
            .as_u64()
            .unwrap()
    };
    let running = running.into_inner().unwrap();
    let mut gaps: Vec<u64> = running
        .iter()
        .map(|(name, running)| enrolled_at(name).saturating_sub(running.begun))
        .collect();
    gaps.sort_unstable();
    let first = running.iter().map(|(_, running)| running.begun).min().unwrap();
    let last = running.iter().map(|(_, running)| running.begun).max().unwrap();
    println!(
        "{PODS} pods begun within {} ms; from before the first process to enrolled: p50 {} ms, p99 {} ms, max {} ms",
        last - first,
        gaps[PODS / 2],
        gaps[PODS * 99 / 100 - 1],
        gaps[PODS - 1]
    );
    let metrics = kubelet.agent.metrics().unwrap();
    for sample in metrics.matching("derny_enrolment_seconds_bucket", &[]) {
        println!(
            "seen by the agent, within {} s: {}",
            sample.labels["le"], sample.value
        );
    }
    assert_eq!(metrics.sum("derny_enrolment_seconds_count", &[]), PODS as f64);
    assert!(
        Duration::from_millis(gaps[PODS * 99 / 100 - 1]) < ENROLLED_WITHIN,
        "{gaps:?}"
    );
}
