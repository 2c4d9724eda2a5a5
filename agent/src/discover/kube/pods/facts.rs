//! What the agent keeps of a pod object. Pure.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{inbound, interceptor::interceptor, objects, workload::workload};
use crate::{
    discover::node::PodUid,
    model::{InboundPort, PodName, ServiceName},
};

/// Opt in or out, on a pod or its namespace.
pub(super) const LABEL: &str = "derny.dev/mesh";
/// On a namespace beside [`LABEL`]: what its pods dial is refused until they are enrolled.
pub(super) const STRICT: &str = "derny.dev/strict";
/// Services that the pod dials, by commas: `name` in its own namespace, or `namespace/name`.
pub(super) const SERVICES: &str = "derny.dev/services";
/// A static pod's mirror in the API has a UID of its own; its control group is named by this.
pub(super) const STATIC_UID: &str = "kubernetes.io/config.hash";
/// The kubelet puts the same hash here, on a mirror pod and on no other.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
/// Runtimes whose containers are not in the network namespace that the node sees, or do not use its kernel's sockets.
const SANDBOXED: [&str; 4] = ["gvisor", "runsc", "kata", "firecracker"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mesh {
    Enabled,
    Disabled,
}

impl Mesh {
    /// Of a label that is there.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        match value {
            "enabled" => Ok(Self::Enabled),
            "disabled" => Ok(Self::Disabled),
            other => Err(format!(
                "label {LABEL}: `{other}` is neither enabled nor disabled"
            )),
        }
    }
}

/// What the agent keeps of a namespace that has the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamespaceFacts {
    /// `None`: its label says nothing that is understood.
    pub(super) mesh: Option<Mesh>,
    pub(super) strict: bool,
    /// What is wrong with its labels, for an operator of its pods.
    pub(super) fault: Option<String>,
}

impl NamespaceFacts {
    /// `None` without the label.
    pub(super) fn of(namespace: &objects::Namespace) -> Option<Self> {
        let labels = &namespace.metadata.labels;
        let mesh = Mesh::parse(labels.get(LABEL)?);
        let strict = match labels.get(STRICT).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(format!("label {STRICT}: `{other}` is neither true nor false")),
        };
        let faults = [mesh.as_ref().err(), strict.as_ref().err()];
        let faults: Vec<String> = faults
            .into_iter()
            .flatten()
            .map(|fault| format!("its namespace's {fault}"))
            .collect();
        Some(Self {
            strict: strict.unwrap_or(false),
            mesh: mesh.ok(),
            fault: (!faults.is_empty()).then(|| faults.join("; ")),
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    pub(super) name: PodName,
    /// By which its control group is named.
    pub(super) uid: PodUid,
    /// Whether `uid` is a hash that a mirror pod claims, and not the UID that the API server gave the object.
    pub(super) is_mirror: bool,
    pub(super) workload: Arc<str>,
    pub(super) inbound: Vec<InboundPort>,
    /// As its kubelet reports them; none before that.
    pub(super) addresses: Vec<IpAddr>,
    /// Services that it says it dials.
    pub(super) services: BTreeSet<ServiceName>,
    /// Its own label.
    pub(super) mesh: Option<Mesh>,
    pub(super) host_network: bool,
    /// The name of a runtime class whose pods cannot be enrolled.
    pub(super) sandboxed: Option<String>,
    /// What of another mesh redirects its connections, for an operator.
    pub(super) interceptor: Option<String>,
    pub(super) finished: bool,
    /// It is being deleted.
    pub(super) is_ending: bool,
    /// What is wrong with its labels and annotations, for an operator.
    pub(super) faults: Vec<String>,
}

impl Facts {
    pub(super) fn of(pod: &objects::Pod) -> Self {
        let meta = &pod.metadata;
        let (inbound, mut faults) = inbound::inbound(pod);
        let mesh = match meta.labels.get(LABEL).map(|value| Mesh::parse(value)) {
            Some(Err(fault)) => {
                faults.push(fault);
                None
            }
            Some(Ok(mesh)) => Some(mesh),
            None => None,
        };
        let services = services(meta, &mut faults);
        let static_uid = static_uid(meta, &mut faults);
        let class = pod.spec.runtime_class_name.as_deref();
        let is_sandboxed = |class: &&str| {
            let class = class.to_ascii_lowercase();
            SANDBOXED
                .iter()
                .any(|runtime| class.split('-').next() == Some(*runtime))
        };
        Self {
            name: name(meta),
            uid: PodUid::new(static_uid.unwrap_or(&meta.uid)),
            is_mirror: static_uid.is_some(),
            workload: workload(pod).into(),
            inbound,
            addresses: addresses(&pod.status),
            services,
            mesh,
            host_network: pod.spec.host_network,
            sandboxed: class.filter(is_sandboxed).map(str::to_owned),
            interceptor: interceptor(pod),
            is_ending: meta.deletion_timestamp.is_some(),
            finished: matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")),
            faults,
        }
    }
}

/// The hash by which the control group of a mirror pod is named. Anybody can write annotations: they count on an object
/// that is written as the kubelet writes mirrors, and never for a UID that the API server gives.
fn static_uid<'m>(meta: &'m objects::Meta, faults: &mut Vec<String>) -> Option<&'m str> {
    let hash = meta.annotations.get(STATIC_UID)?;
    let is_mirror = meta.annotations.get(MIRROR) == Some(hash)
        && meta
            .owner_references
            .iter()
            .any(|owner| owner.controller && owner.kind == "Node");
    let fault = match (is_mirror, is_api_uid(hash)) {
        (true, false) => return Some(hash),
        (true, true) => "has the form of a UID of the API server's",
        (false, _) => "counts on the mirror of a static pod only",
    };
    faults.push(format!("{STATIC_UID}: {fault}, and is ignored"));
    None
}

/// RFC 4122, as the API server writes it. The kubelet's hashes have no dashes.
fn is_api_uid(text: &str) -> bool {
    let mut groups = text.split('-').map(str::len);
    [8, 4, 4, 4, 12]
        .into_iter()
        .all(|length| groups.next() == Some(length))
        && groups.next().is_none()
}

pub(super) fn name(meta: &objects::Meta) -> PodName {
    PodName {
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
    }
}

/// What is no address is none of the pod's.
fn addresses(status: &objects::PodStatus) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for reported in &status.pod_ips {
        if let Ok(ip) = reported.ip.parse::<IpAddr>()
            && !addresses.contains(&ip.to_canonical())
        {
            addresses.push(ip.to_canonical());
        }
    }
    addresses
}

fn services(meta: &objects::Meta, faults: &mut Vec<String>) -> BTreeSet<ServiceName> {
    let text = meta.annotations.get(SERVICES).map_or("", String::as_str);
    let mut services = BTreeSet::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (namespace, name) = word.split_once('/').unwrap_or((&meta.namespace, word));
        let is_name = |text: &str| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !text.is_empty() && text.bytes().all(inner)
        };
        if is_name(namespace) && is_name(name) {
            services.insert(ServiceName {
                namespace: namespace.into(),
                name: name.into(),
            });
        } else {
            faults.push(format!("{SERVICES}: `{word}` is not NAME or NAMESPACE/NAME"));
        }
    }
    services
}
