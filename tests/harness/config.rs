//! The agent's configuration file, as a user writes it. Serialised, not checked: tests write wrong ones too.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{pod::Pod, vip::Vip};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<serde_json::Value>,
    pub pods: Vec<PodEntry>,
    pub services: Vec<ServiceEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyEntry>,
    /// As they stand in the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PodEntry {
    pub name: String,
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    pub netns: String,
    /// Its interfaces' without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inbound: Vec<InboundEntry>,
}

#[derive(Clone, Debug, Serialize)]
pub struct InboundEntry {
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Every other field, as it stands in the file.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ServiceEntry {
    pub name: String,
    pub namespace: String,
    pub addresses: Vec<String>,
    pub ports: Vec<PortEntry>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PortEntry {
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointEntry>,
    /// In the place of endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct EndpointEntry {
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyEntry {
    pub target_refs: Vec<TargetRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_timeout: Option<String>,
    /// Every other field, as it stands in the file.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Serialize)]
pub struct TargetRef {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct LoadBalancer {
    pub algorithm: String,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionPool {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
}

/// The namespace of everything that the builders below make.
pub const NAMESPACE: &str = "demo";

impl Config {
    /// Enrols `pod` as a replica of `workload`.
    pub fn pod(mut self, pod: &Pod, workload: &str) -> Self {
        self.pods.push(PodEntry {
            name: pod.name().to_owned(),
            namespace: NAMESPACE.to_owned(),
            workload: Some(workload.to_owned()),
            netns: pod.netns_path().display().to_string(),
            addresses: None,
            inbound: Vec::new(),
        });
        self
    }

    /// Like [`Config::pod`], with a port on which calls to the pod pass the engine. `None` leaves the protocol to
    /// detection.
    pub fn pod_inbound(self, pod: &Pod, workload: &str, port: u16, protocol: Option<&str>) -> Self {
        let mut config = self.pod(pod, workload);
        if let Some(entry) = config.pods.last_mut() {
            entry.inbound.push(InboundEntry {
                port,
                protocol: protocol.map(str::to_owned),
                more: serde_json::Map::new(),
            });
        }
        config
    }

    /// A service under its IPv4 and IPv6 virtual addresses. `None` leaves the protocol to detection.
    pub fn service(mut self, vip: &Vip, protocol: Option<&str>) -> Self {
        self.services.push(ServiceEntry {
            name: vip.name().to_owned(),
            namespace: NAMESPACE.to_owned(),
            addresses: vec![vip.ip().to_string(), vip.ip6().to_string()],
            ports: vec![PortEntry {
                port: vip.port(),
                name: None,
                protocol: protocol.map(str::to_owned),
                endpoints: vip.endpoints().iter().map(EndpointEntry::from).collect(),
                dns: None,
            }],
        });
        self
    }

    /// The load-balancing algorithm of a service.
    pub fn algorithm(mut self, service: &str, algorithm: &str) -> Self {
        self.policies.push(PolicyEntry {
            target_refs: vec![TargetRef {
                kind: "Service".to_owned(),
                name: service.to_owned(),
                namespace: NAMESPACE.to_owned(),
            }],
            load_balancer: Some(LoadBalancer {
                algorithm: algorithm.to_owned(),
            }),
            connection_pool: None,
            detect_timeout: None,
            more: serde_json::Map::new(),
            health_check: None,
        });
        self
    }

    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(self).context("writing the configuration as YAML")
    }

    /// Puts the file in place whole, as an editor or a Kubernetes volume does: a reader sees the old or the new one.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, &self.to_yaml()?)
    }
}

/// Writes beside `path` and renames over it.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text).with_context(|| format!("writing {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("renaming over {}", path.display()))
}

impl From<&SocketAddr> for EndpointEntry {
    fn from(address: &SocketAddr) -> Self {
        Self {
            address: address.to_string(),
            ..Self::default()
        }
    }
}
