use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use derny_tests::{
    clients,
    config::NAMESPACE,
    containers::{Container, Runtime, Sandbox, SandboxOptions},
    kube::{Cluster, objects},
    load::Load,
    upstream::HTTP_PORT,
};
use serde_json::{Value, json};

use crate::kubelet::NODE_NAME;

/// What the template hash of a Deployment's first version is.
pub(crate) const FIRST: &str = "5d9c7";

/// A pod that runs, with its sandbox and its container.
pub(crate) struct RunningPod {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) container: Container,
    pub(crate) object: Value,
    sandbox: Sandbox,
    command: Command,
    /// Containers that were started in the place of ones that ended.
    attempt: u32,
}

/// A pod as a Deployment's controller writes it: replica `number` of the version `hash` of `workload`.
pub(crate) fn replica(workload: &str, hash: &str, number: usize) -> Value {
    let mut pod = objects::pod(&format!("{workload}-{hash}-{number}"), NODE_NAME, "");
    pod["metadata"]["labels"] = json!({"app": workload, "pod-template-hash": hash});
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{workload}-{hash}"),
        "uid": "00000000-0000-4000-8000-000000000001", "controller": true, "blockOwnerDeletion": true,
    }]);
    pod
}

impl RunningPod {
    /// Makes a pod's sandbox, of which it has had so many before, and its container, as fast as the runtime can.
    pub(crate) fn start(
        cluster: &Cluster,
        runtime: &Runtime,
        (object, before): (Value, u32),
        command: Command,
    ) -> Self {
        let sandbox = sandbox(cluster, runtime, &object, before);
        let container = sandbox.container("main", 0, &command).unwrap();
        let pod = Self {
            name: name(&object).to_owned(),
            ip: sandbox.ip().unwrap(),
            container,
            sandbox,
            command,
            attempt: 0,
            object,
        };
        pod.write_status(cluster);
        pod
    }

    /// As a kubelet writes it when the containers are ready.
    fn write_status(&self, cluster: &Cluster) {
        let mut status = json!({
            "phase": "Running", "podIP": self.ip, "podIPs": [{"ip": self.ip}], "qosClass": "BestEffort",
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        status["containerStatuses"] = json!([{
            "name": "main", "image": "main", "imageID": "main", "ready": true, "restartCount": self.attempt,
        }]);
        let mut object = json!({"apiVersion": "v1", "kind": "Pod", "status": status});
        object["metadata"] = json!({"name": self.name, "namespace": NAMESPACE});
        cluster.apply_status(&object).unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.ip, HTTP_PORT))
    }

    /// Calls by a client in a container of its own beside the first.
    pub(crate) fn load(&self, name: &str, script: &str, arguments: &[&str]) -> Load {
        let mut command = clients::python(script).unwrap();
        command.args(arguments);
        Load::in_container(&self.sandbox.container(name, 0, &command).unwrap()).unwrap()
    }

    /// So many calls of the service at `target` over one gRPC channel.
    pub(crate) fn grpc_calls(&self, name: &str, target: &str, calls: u32) -> Load {
        let calls = calls.to_string();
        let arguments = ["--target", target, "--calls", &calls, "--threads", "2"];
        self.load(name, "grpc_load.py", &arguments)
    }

    /// Calls over one gRPC channel, 200 a second.
    pub(crate) fn grpc(&self, name: &str, target: &str) -> Load {
        let arguments = ["--target", target, "--rate", "200", "--threads", "2"];
        self.load(name, "grpc_load.py", &arguments)
    }

    /// A new HTTP connection every 20 ms.
    pub(crate) fn connections(&self, name: &str, target: &str) -> Load {
        self.load(name, "connect_probe.py", &["--target", target, "--timeout", "2"])
    }

    /// The application crashes; the sandbox stays.
    pub(crate) fn crash(&self) {
        self.container.kill9().unwrap();
    }

    /// Starts the application again, in a new container of the same sandbox.
    pub(crate) fn start_again(&mut self, cluster: &Cluster) {
        self.attempt += 1;
        let container = self.sandbox.container("main", self.attempt, &self.command);
        let old = std::mem::replace(&mut self.container, container.unwrap());
        old.remove().unwrap();
        self.write_status(cluster);
    }

    /// The sandbox is lost, as when a node has started again.
    pub(crate) fn lose_sandbox(self) -> Lost {
        self.sandbox.remove().unwrap();
        Lost {
            object: self.object,
            command: self.command,
        }
    }

    /// SIGTERM, then SIGKILL to what has not ended after `grace`; then the sandbox goes.
    pub(crate) fn end(self, grace: Duration) {
        self.container.stop(grace).unwrap();
        self.sandbox.remove().unwrap();
    }
}

/// A pod without a sandbox.
pub(crate) struct Lost {
    object: Value,
    command: Command,
}

impl Lost {
    /// Makes a second sandbox, and starts the application in it.
    pub(crate) fn start_again(self, cluster: &Cluster, runtime: &Runtime) -> RunningPod {
        RunningPod::start(cluster, runtime, (self.object, 1), self.command)
    }
}

/// Makes the sandbox of a pod that the API server has.
pub(crate) fn sandbox(cluster: &Cluster, runtime: &Runtime, object: &Value, attempt: u32) -> Sandbox {
    let got = cluster.get(object).unwrap();
    let options = SandboxOptions {
        name: name(object),
        namespace: NAMESPACE,
        uid: got["metadata"]["uid"].as_str().unwrap(),
        attempt,
    };
    runtime.sandbox(&options).unwrap()
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}
