use std::{
    collections::HashMap, fs, net::Ipv4Addr, path::PathBuf, process::Command, sync::Arc, time::Duration,
};

use anyhow::{Context, Result};

use super::{
    container::Container,
    containerd::{Containerd, Kind},
    cri::{
        Cri,
        v1::{
            ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig,
            LinuxContainerSecurityContext, LinuxPodSandboxConfig, NamespaceMode, NamespaceOption,
            PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusRequest, RemovePodSandboxRequest,
            RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
        },
    },
    images::{self, APPLICATION, PAUSE},
    programs,
};
use crate::{Node, observe::eventually};

/// The containers' addresses; the node's own pods have others.
const SUBNET: &str = "10.1.0.0/16";
/// The network plugin takes a bridge that is there, and gives it its address with the first pod. The plugin's own would
/// take the lowest hardware address of its ports, and change it when a new pod's is lower.
const BRIDGE: &str = "link add cni0 address 02:de:72:6e:79:02 type bridge\n";

const READY: Duration = Duration::from_secs(20);

/// containerd on a node. What it runs ends with the node.
#[derive(Debug)]
pub struct Runtime {
    containerd: Containerd,
    cri: Arc<Cri>,
    /// `/derny-…/kubepods`, below each hierarchy's root.
    kubepods: String,
    logs: PathBuf,
}

/// What a kubelet knows of a pod when it makes its sandbox.
#[derive(Clone, Debug)]
pub struct SandboxOptions<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub uid: &'a str,
    /// Counts the sandboxes of a pod from 0.
    pub attempt: u32,
}

impl Runtime {
    /// Returns when sandboxes can be made. Takes a second.
    pub fn start(node: &Node) -> Result<Self> {
        let host = node.host();
        let directory = host.run_directory().join("containerd");
        let kind = Kind::Kubernetes {
            subnet: SUBNET.to_owned(),
            pause: PAUSE.to_owned(),
        };
        host.netns().ip_batch(BRIDGE)?;
        let containerd = Containerd::start(&directory, &kind, |command| host.spawn(command))?;
        images::import(&containerd, &directory)?;
        let cri = Cri::connect(&containerd.socket())?;
        let ready = eventually("runtime, network and images are ready", READY, || {
            let has = |image| cri.has_image(image).unwrap_or(false);
            cri.is_ready().unwrap_or(false) && has(PAUSE) && has(APPLICATION)
        });
        ready.with_context(|| containerd.log())?;
        // Two pods of a bridge answer each other past the node, which must see both ways of what it translates.
        node.masquerade_translated(SUBNET)?;
        Ok(Self {
            containerd,
            cri: Arc::new(cri),
            kubepods: format!("/{}/kubepods", node.prefix()),
            logs: host.run_directory().join("pods"),
        })
    }

    /// Makes the sandbox of a pod: its network, its control group and the first process in it.
    pub fn sandbox(&self, pod: &SandboxOptions<'_>) -> Result<Sandbox> {
        let SandboxOptions {
            name,
            namespace,
            uid,
            attempt,
        } = *pod;
        let logs = self.logs.join(format!("{namespace}_{name}_{uid}"));
        fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.to_owned(),
                namespace: namespace.to_owned(),
                attempt,
            }),
            hostname: name.to_owned(),
            log_directory: logs.display().to_string(),
            labels: HashMap::from([
                ("io.kubernetes.pod.name".to_owned(), name.to_owned()),
                ("io.kubernetes.pod.namespace".to_owned(), namespace.to_owned()),
                ("io.kubernetes.pod.uid".to_owned(), uid.to_owned()),
            ]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/besteffort/pod{uid}", self.kubepods),
            }),
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let made = self.cri.call("making a sandbox", |mut cri| async move {
            cri.run_pod_sandbox(request).await
        });
        let id = made.with_context(|| self.containerd.log())?.pod_sandbox_id;
        Ok(Sandbox {
            cri: Arc::clone(&self.cri),
            config,
            id,
            logs,
        })
    }
}

/// A pod as the runtime knows it. Dropping it changes nothing: see [`Sandbox::remove`].
#[derive(Debug)]
pub struct Sandbox {
    cri: Arc<Cri>,
    config: PodSandboxConfig,
    id: String,
    logs: PathBuf,
}

impl Sandbox {
    /// The address that the network plugin gave it.
    pub fn ip(&self) -> Result<Ipv4Addr> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
        };
        let answer = self.cri.call("asking for a sandbox", |mut cri| async move {
            cri.pod_sandbox_status(request).await
        })?;
        let network = answer.status.and_then(|status| status.network);
        let ip = network.context("a sandbox without a network")?.ip;
        ip.parse().with_context(|| format!("a sandbox's address {ip:?}"))
    }

    /// Makes and starts a container that runs `command`. `attempt` counts from 0 and tells containers of one name apart.
    pub fn container(&self, name: &str, attempt: u32, command: &Command) -> Result<Container> {
        let log_path = format!("{name}-{attempt}.log");
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt,
            }),
            image: Some(ImageSpec {
                image: APPLICATION.to_owned(),
            }),
            command: programs::words(command),
            args: Vec::new(),
            envs: programs::environment(command),
            mounts: programs::mounts()?,
            labels: HashMap::from([("io.kubernetes.container.name".to_owned(), name.to_owned())]),
            log_path: log_path.clone(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                    }),
                }),
            }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let created = self.cri.call("creating a container", |mut cri| async move {
            cri.create_container(request).await
        })?;
        let container_id = created.container_id;
        let request = StartContainerRequest {
            container_id: container_id.clone(),
        };
        self.cri.call("starting a container", |mut cri| async move {
            cri.start_container(request).await
        })?;
        Ok(Container::new(
            Arc::clone(&self.cri),
            container_id,
            self.logs.join(log_path),
        ))
    }

    /// Kills what runs in it, and takes it and its network away.
    pub fn remove(self) -> Result<()> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.cri.call("stopping a sandbox", |mut cri| async move {
            cri.stop_pod_sandbox(request).await
        })?;
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: self.id,
        };
        self.cri.call("removing a sandbox", |mut cri| async move {
            cri.remove_pod_sandbox(request).await
        })?;
        Ok(())
    }
}
