//! A node with an agent, on which a kubelet and a runtime start pods: control groups and processes, as they make them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, Process, Testd, Vip,
    config::NAMESPACE,
    kube::{Cluster, objects},
    load::Load,
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

/// How long what has happened may take to show.
pub(crate) const SOON: Duration = Duration::from_secs(10);
pub(crate) const NODE_NAME: &str = "n1";

/// How the kubelet names control groups.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Driver {
    Cgroupfs,
    Systemd,
}

/// Dropped in the order of its fields.
pub(crate) struct Kubelet {
    pub(crate) agent: Agent,
    pub(crate) cluster: Cluster,
    driver: Driver,
    /// A Service of the API, and what answers for it; that is not in the mesh.
    pub(crate) echo: Vip,
    _testd: Testd,
    _server: Pod,
    pub(crate) node: Node,
}

/// A pod with a first process, as a runtime's pause is.
pub(crate) struct Running {
    _pause: Process,
    pub(crate) group: PathBuf,
    /// Before the process was there, in milliseconds since the epoch.
    pub(crate) begun: u64,
}

impl Kubelet {
    pub(crate) fn new(driver: Driver, namespace: &Value) -> Self {
        Self::with(driver, namespace, &[])
    }

    /// With more arguments of the agent.
    pub(crate) fn with(driver: Driver, namespace: &Value, arguments: &[&str]) -> Self {
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
        options
            .arguments
            .extend(arguments.iter().map(ToString::to_string));
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
    pub(crate) fn group(&self, uid: &str) -> PathBuf {
        let below = match self.driver {
            Driver::Cgroupfs => format!("burstable/pod{uid}"),
            Driver::Systemd => format!(
                "kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
                uid.replace('-', "_")
            ),
        };
        self.node.host().kubepods().join(below)
    }

    /// The control group of the container of the pod of this group.
    pub(crate) fn container(&self, group: &Path) -> PathBuf {
        let id = "4f".repeat(32);
        group.join(match self.driver {
            Driver::Cgroupfs => id,
            Driver::Systemd => format!("cri-containerd-{id}.scope"),
        })
    }

    /// Starts the first process of a pod.
    pub(crate) fn run(&self, pod: &Pod, uid: &str) -> Running {
        let mut pause = Command::new("sleep");
        pause.arg("infinity").stdin(Stdio::null());
        let group = self.group(uid);
        let container = self.container(&group);
        let begun = unix_ms();
        Running {
            _pause: pod.spawn_from(self.node.host(), &container, pause).unwrap(),
            group,
            begun,
        }
    }

    /// Says to the API server that the pod runs and has this address, as a kubelet does some time after its start.
    pub(crate) fn reports(&self, name: &str, address: &str) {
        let reported = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
            "status": {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"},
        });
        self.cluster.apply_status(&reported).unwrap();
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

pub(crate) fn state_file(node: &Node) -> PathBuf {
    node.host().run_directory().join("state.json")
}

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
