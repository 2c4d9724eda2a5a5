//! One pod can never hurt, see, bill or be another: each attack of `docs/threat-model.md`, tried on a real node.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

/// A node on which pods are started as a kubelet and a runtime do.
#[path = "../kube/kubelet.rs"]
#[allow(dead_code, reason = "the target kube uses all of it")]
mod kubelet;

/// A pod with inbound ports, called by pods that Derny does not know.
mod strangers;

/// A node whose pods are enrolled and withdrawn.
mod enrolling;
/// Slots, network namespaces and withdrawal: no socket serves a pod from another's namespace.
mod identity;
/// The same under traffic, for pods that come and go by the thousand.
mod churn;
/// A pod's addresses are what the API server says, and only they are steered.
mod addresses;
/// What a pod or an object says of itself does not make it another.
mod claims;
/// Objects of a tenant that cost more than its share.
mod budgets;
/// Connections, descriptors, bytes and CPU by pod.
mod shares;
/// Callers that share a connection to an endpoint do not share a fate.
mod shared_connections;
/// What does not make progress ends.
mod deadlines;
/// What is left of pods and of peers that have gone.
mod leftovers;
/// Ports and tuples of addresses that the agent's sockets leave to the applications.
mod tuples;
/// Admin and metrics endpoints, the agent's log and the access log under attack.
mod observability;

/// Whether an Event in each of these namespaces says so, and, where the API server has none, whether the agent has written
/// as many.
fn are_told(kubelet: &kubelet::Kubelet, namespaces: &[&str], reason: &str) -> bool {
    let told = |namespace: &&str| kubelet.cluster.is_told(namespace, reason).unwrap();
    let told: Option<Vec<bool>> = namespaces.iter().map(told).collect();
    let written = || {
        let events = [("resource", "events"), ("verb", "create")];
        let metrics = kubelet.agent.metrics().unwrap();
        metrics.sum("derny_kube_requests_total", &events) >= namespaces.len() as f64
    };
    told.map_or_else(written, |told| told.iter().all(|told| *told))
}
