//! What the agent asks of the API server, for whoever grants it.

/// One kind, or a part of it, and what is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// Empty for the core kinds.
    pub group: &'static str,
    /// As RBAC names it: `trafficpolicies/status` for a part.
    pub resource: &'static str,
    /// In alphabetical order.
    pub verbs: &'static [&'static str],
    /// In the agent's own namespace only.
    pub in_own_namespace: bool,
}

const fn everywhere(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Right {
    Right {
        group,
        resource,
        verbs,
        in_own_namespace: false,
    }
}

const WATCHED: &[&str] = &["list", "watch"];
/// Also read before a status is written, by the one agent that writes them.
const JUDGED: &[&str] = &["get", "list", "watch"];
const WRITTEN: &[&str] = &["patch"];
const GATEWAY: &str = "gateway.networking.k8s.io";

/// All of it. The manifests under `deploy/` grant this and nothing else; a test compares them, and another compares it
/// with what an agent asks.
pub const RIGHTS: [Right; 13] = [
    everywhere("", "namespaces", WATCHED),
    everywhere("", "nodes", WATCHED),
    everywhere("", "pods", WATCHED),
    everywhere("", "services", WATCHED),
    everywhere("discovery.k8s.io", "endpointslices", WATCHED),
    everywhere(GATEWAY, "grpcroutes", JUDGED),
    everywhere(GATEWAY, "httproutes", JUDGED),
    everywhere(GATEWAY, "grpcroutes/status", WRITTEN),
    everywhere(GATEWAY, "httproutes/status", WRITTEN),
    everywhere("derny.dev", "trafficpolicies", JUDGED),
    everywhere("derny.dev", "trafficpolicies/status", WRITTEN),
    // What concerns objects that have no conditions.
    everywhere("events.k8s.io", "events", &["create"]),
    // What the one that writes statuses holds.
    Right {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["create", "get", "update"],
        in_own_namespace: true,
    },
];
