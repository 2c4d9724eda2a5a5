use std::{net::TcpStream, process::Command, time::Duration};

use derny_tests::{
    Agent, AgentOptions, Config, Node, Vip,
    agent::only,
    clients,
    config::NAMESPACE,
    containers::Runtime,
    eventually,
    kube::{
        Cluster,
        objects::{self, Standing},
    },
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::pod::{FIRST, RunningPod, replica};

pub(crate) const NODE_NAME: &str = "n1";
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// `terminationGracePeriodSeconds`, and longer than any test's request.
const GRACE: Duration = Duration::from_secs(10);
const PROBE: Duration = Duration::from_secs(1);

/// Also the controllers of Deployments and EndpointSlices, and kube-proxy. Dropped in the order of its fields.
pub(crate) struct Kubelet {
    pub(crate) agent: Agent,
    pub(crate) cluster: Cluster,
    pub(crate) runtime: Runtime,
    /// The Service `echo`, which speaks gRPC.
    pub(crate) echo: Vip,
    /// The Service `web`, which speaks HTTP. The same pods answer for both.
    pub(crate) web: Vip,
    pub(crate) node: Node,
}

impl Kubelet {
    /// With the label `derny.dev/mesh` of the namespace, unless that is empty, and the policy of both services.
    pub(crate) fn new(mesh: &str, policy: Value) -> Self {
        let node = Node::new().unwrap();
        let cluster = Cluster::start(&node).unwrap();
        let runtime = Runtime::start(&node).unwrap();
        let echo = node.service("echo", 80, HTTP_PORT, &[]).unwrap();
        let web = node.service("web", 80, HTTP_PORT, &[]).unwrap();
        let mut policy = objects::policy("calls", "echo", policy);
        let other = json!({"group": "", "kind": "Service", "name": "web"});
        policy["spec"]["targetRefs"].as_array_mut().unwrap().push(other);
        cluster
            .apply(&[
                objects::namespace(NAMESPACE, mesh),
                objects::service("echo", &echo.ip().to_string(), "grpc"),
                objects::service("web", &web.ip().to_string(), "http"),
                policy,
            ])
            .unwrap();
        let mut options = AgentOptions::new(Config::default());
        options.arguments = cluster.arguments();
        let state = node.host().run_directory().join("state.json");
        let state = state.display().to_string();
        options
            .arguments
            .extend(["--node-name", NODE_NAME, "--state-file", &state].map(str::to_owned));
        options.under = only(&capabilities());
        Self {
            agent: Agent::start(&node, options).unwrap(),
            cluster,
            runtime,
            echo,
            web,
            node,
        }
    }

    /// With a namespace that is opted in, and services without a policy but for even balancing.
    pub(crate) fn opted_in() -> Self {
        Self::new("enabled", even(json!({})))
    }

    /// Gives a pod to the API server, makes its sandbox, and starts its container.
    pub(crate) fn start(&self, object: Value, command: Command) -> RunningPod {
        self.cluster.apply(std::slice::from_ref(&object)).unwrap();
        RunningPod::start(&self.cluster, &self.runtime, (object, 0), command)
    }

    /// Starts a replica of `echo`, and waits until it is ready.
    pub(crate) fn server(&self, hash: &str, number: usize) -> RunningPod {
        let object = replica("echo", hash, number);
        let port = HTTP_PORT.to_string();
        let server = clients::testd(["--name", crate::pod::name(&object), "--http", &port]).unwrap();
        let pod = self.start(object, server);
        self.probe(&pod);
        pod
    }

    /// Starts a pod of the workload `shop` that does nothing by itself.
    pub(crate) fn client(&self) -> RunningPod {
        let mut idle = Command::new("sleep");
        idle.arg("infinity");
        self.start(replica("shop", FIRST, 1), idle)
    }

    /// As a readiness probe on a TCP port, until it succeeds.
    pub(crate) fn probe(&self, pod: &RunningPod) {
        let connects = || {
            let connect = || TcpStream::connect_timeout(&pod.address(), PROBE).is_ok();
            self.node.host().netns().run(connect).unwrap_or(false)
        };
        let ready = eventually("the pod's port listens", SOON, connects);
        ready.unwrap_or_else(|error| panic!("{error}: {:?}", pod.container));
    }

    /// Makes these the endpoints of both services, and what their virtual addresses lead to.
    pub(crate) fn endpoints(&mut self, ready: &[&RunningPod], terminating: &[&RunningPod]) {
        let all = |pods: &[&RunningPod], standing| -> Vec<(String, Standing)> {
            pods.iter().map(|pod| (pod.ip.to_string(), standing)).collect()
        };
        let endpoints = [
            all(ready, Standing::Ready),
            all(terminating, Standing::Terminating),
        ]
        .concat();
        let slice =
            |service, port| objects::slice(service, &format!("{service}-1"), (port, HTTP_PORT), &endpoints);
        self.cluster
            .apply(&[slice("echo", "grpc"), slice("web", "http")])
            .unwrap();
        let addresses: Vec<_> = ready.iter().map(|pod| pod.ip).collect();
        self.echo.set_addresses(&addresses).unwrap();
        self.web.set_addresses(&addresses).unwrap();
    }

    /// The end of an endpoint as a cluster brings it about: it is told to end, and taken off the services, at the same
    /// time. `rest` stay.
    pub(crate) fn delete(&mut self, pod: RunningPod, rest: &[&RunningPod]) {
        let (name, object) = (pod.name.clone(), pod.object.clone());
        self.cluster.delete_gracefully(&object, GRACE).unwrap();
        let container = pod.container.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| container.stop(GRACE).unwrap());
            self.endpoints(rest, &[&pod]);
        });
        assert_eq!(
            container.exit_code().unwrap(),
            Some(0),
            "{name} drained and ended"
        );
        self.endpoints(rest, &[]);
        pod.end(GRACE);
        self.cluster.delete_at_once(&object).unwrap();
        let gone = || self.agent.shown_pod(&name).unwrap() == Value::Null;
        eventually("the agent has forgotten the pod", SOON, gone).unwrap();
    }

    /// As [`Kubelet::delete`] of a pod whose application is told to end after its callers have heard of it, as by a `preStop`
    /// hook. Nobody calls it any more by then.
    pub(crate) fn retire(&mut self, pod: RunningPod, rest: &[&RunningPod]) {
        self.cluster.delete_gracefully(&pod.object, GRACE).unwrap();
        self.endpoints(rest, &[&pod]);
        let left = || self.agent.shown_pod(&pod.name).unwrap()["openConnections"] == 0;
        eventually("its callers have left", SOON, left).unwrap();
        pod.container.stop(GRACE).unwrap();
        self.endpoints(rest, &[]);
        let object = pod.object.clone();
        pod.end(GRACE);
        self.cluster.delete_at_once(&object).unwrap();
    }

    /// Sets the label `derny.dev/mesh` of a pod.
    pub(crate) fn label(&self, pod: &RunningPod, mesh: &str) {
        let mut object = pod.object.clone();
        object["metadata"]["labels"]["derny.dev/mesh"] = mesh.into();
        self.cluster.apply(&[object]).unwrap();
    }

    /// Waits until it is.
    pub(crate) fn is_called_through_the_agent(&self, pod: &RunningPod) {
        let addresses = json!([pod.ip.to_string()]);
        let is_known = || self.agent.shown_pod(&pod.name).unwrap()["addresses"] == addresses;
        eventually("the pod's address is known", SOON, is_known).unwrap();
    }

    pub(crate) fn is_enrolled(&self, pod: &RunningPod) -> Value {
        self.agent.pod_stands(&pod.name, "enrolled", "").unwrap()
    }
}

/// Those of the DaemonSet.
fn capabilities() -> Vec<String> {
    let path = clients::workspace().join("deploy/kustomize/base/daemonset.yaml");
    let daemon_set: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
    let added = &container["securityContext"]["capabilities"]["add"];
    let added = added.as_array().unwrap().iter();
    added.map(|name| name.as_str().unwrap().to_lowercase()).collect()
}

/// A policy with these sections that balances in turn, so that everyone's part is known.
pub(crate) fn even(mut sections: Value) -> Value {
    sections["loadBalancer"] = json!({"algorithm": "roundRobin"});
    sections
}

/// What callers say whose calls may be made twice.
pub(crate) fn repeatable() -> Value {
    let on = [
        "connectFailure",
        "refusedStream",
        "resetBeforeRequest",
        "reset",
        "unavailable",
    ];
    even(json!({"retry": {"attempts": 2, "on": on}}))
}
