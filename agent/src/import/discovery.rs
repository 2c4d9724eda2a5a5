//! Who answers for a cluster.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::{
    NoteKind,
    names::{Named, kubernetes},
    reading::Node,
};

/// A cluster's endpoints, or the name that has them.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// Perhaps none, of a port that is known.
    Static { endpoints: Vec<Endpoint>, port: u64 },
    Dns {
        host: String,
        port: u64,
        /// `LOGICAL_DNS`
        logical: bool,
        /// The Kubernetes service that the host is.
        service: Option<Named>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    /// The file's form.
    pub(super) written: Value,
}

impl Found {
    pub(super) fn port(&self) -> u64 {
        match self {
            Self::Static { port, .. } | Self::Dns { port, .. } => *port,
        }
    }

    pub(super) fn kubernetes(&self) -> Option<&Named> {
        match self {
            Self::Static { .. } => None,
            Self::Dns { service, .. } => service.as_ref(),
        }
    }
}

/// Reads `type` and `load_assignment`.
pub(super) fn read(cluster: &Node<'_>, namespace: &str) -> Option<Found> {
    let kind = cluster.get("type");
    let word = kind.as_ref().and_then(|kind| kind.word());
    let custom = cluster.get("cluster_type").is_some();
    let dns = match word.as_deref() {
        None | Some("STATIC") if !custom => None,
        Some("STRICT_DNS") => Some(false),
        Some("LOGICAL_DNS") => Some(true),
        _ => {
            cluster.note(
                NoteKind::NoEquivalent,
                "endpoints come from Kubernetes, from DNS or from the file; name the cluster's service in Kubernetes",
            );
            return None;
        }
    };
    // A TTL is always respected, within minTtl and maxTtl.
    for field in ["respect_dns_ttl", "dns_failure_refresh_rate"] {
        cluster.pass_over(field);
    }
    if let Some(rate) = cluster.get("dns_refresh_rate") {
        rate.note(
            NoteKind::Differs,
            "a name is asked for again when its TTL ends: dns.maxTtl bounds it",
        );
    }
    let family = cluster.get("dns_lookup_family");
    let hosts = hosts(cluster);
    let all_addresses = hosts.iter().all(|host| host.host.parse::<IpAddr>().is_ok());
    let found = match dns {
        Some(logical) if !all_addresses => by_name(&hosts, logical, namespace),
        _ => fixed(&hosts),
    };
    if let (Some(family), Some(Found::Dns { service: None, .. })) = (family, &found)
        && matches!(family.word().as_deref(), Some("V4_ONLY" | "V6_ONLY"))
    {
        family.note(NoteKind::Differs, "addresses of both families are endpoints");
    }
    if found.is_none() {
        cluster.note(NoteKind::Missing, "it has no endpoint that could be carried over");
    }
    found
}

/// An endpoint as it is written, with its weight and zone.
struct Host<'a> {
    node: Node<'a>,
    host: &'a str,
    port: u64,
    weight: Option<u64>,
    terminating: bool,
    zone: Option<&'a str>,
}

fn hosts<'a>(cluster: &Node<'a>) -> Vec<Host<'a>> {
    let Some(assignment) = cluster.get("load_assignment") else {
        return Vec::new();
    };
    assignment.pass_over("cluster_name");
    let mut hosts = Vec::new();
    for group in assignment.list("endpoints") {
        if let Some(priority) = group.get("priority")
            && priority.number().is_some_and(|number| number > 0)
        {
            group.note(
                NoteKind::NoEquivalent,
                "there are no priorities: an HTTPRoute's weights or another service can take over",
            );
            continue;
        }
        let zone = group.at(&["locality", "zone"]).and_then(|zone| zone.text());
        for entry in group.list("lb_endpoints") {
            let Some(address) = entry.at(&["endpoint", "address", "socket_address"]) else {
                continue;
            };
            address.pass_over("protocol");
            let (Some(host), Some(port)) = (
                address.get("address").and_then(|host| host.text()),
                address.get("port_value").and_then(|port| port.number()),
            ) else {
                continue;
            };
            let status = entry.get("health_status").and_then(|status| status.word());
            hosts.push(Host {
                host,
                port,
                weight: entry
                    .get("load_balancing_weight")
                    .and_then(|weight| weight.number()),
                terminating: matches!(status.as_deref(), Some("DRAINING" | "UNHEALTHY")),
                zone,
                node: entry,
            });
        }
    }
    hosts
}

/// What is behind the sidecar itself, and is reached without one here.
const OWN_APPLICATION: &str = "the pod's own application: here the services that its callers dial have the policies, and \
     their pods as endpoints";

fn fixed(hosts: &[Host<'_>]) -> Option<Found> {
    let mut endpoints = Vec::<Endpoint>::new();
    let mut first = None;
    for host in hosts {
        let Ok(ip) = host.host.parse::<IpAddr>() else {
            host.node.note(NoteKind::NoEquivalent, "not an address");
            continue;
        };
        let Ok(port) = u16::try_from(host.port) else {
            host.node.note(NoteKind::NoEquivalent, "not a port");
            continue;
        };
        first.get_or_insert(host.port);
        if ip.is_loopback() || ip.is_unspecified() {
            host.node.note(NoteKind::Missing, OWN_APPLICATION);
            continue;
        }
        let address = SocketAddr::new(ip, port);
        if endpoints.iter().any(|known| known.address == address) {
            host.node
                .note(NoteKind::Differs, "an address is an endpoint once");
            continue;
        }
        let mut written = json!({"address": address.to_string()});
        if let Some(weight) = host.weight {
            written["weight"] = json!(weight);
        }
        if host.terminating {
            written["state"] = json!("terminating");
        }
        if let Some(zone) = host.zone {
            written["zone"] = json!(zone);
        }
        endpoints.push(Endpoint { address, written });
    }
    first.map(|port| Found::Static { endpoints, port })
}

fn by_name(hosts: &[Host<'_>], logical: bool, namespace: &str) -> Option<Found> {
    let (first, rest) = hosts.split_first()?;
    if first.host == "localhost" {
        first.node.note(NoteKind::Missing, OWN_APPLICATION);
        return Some(Found::Static {
            endpoints: Vec::new(),
            port: first.port,
        });
    }
    for host in rest {
        host.node.note(
            NoteKind::NoEquivalent,
            "a service has its endpoints from one name",
        );
    }
    Some(Found::Dns {
        host: first.host.to_owned(),
        port: first.port,
        logical,
        service: kubernetes(first.host, namespace),
    })
}
