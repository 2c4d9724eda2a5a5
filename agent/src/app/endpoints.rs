//! The snapshot's endpoints for the windows, and how a service is named there.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    admin::{Unanswered, proto},
    balance::Standing,
    model::{Endpoint, EndpointState, ServicePort, ServicePortName},
    proxy::Registry,
    record::Direction,
    snapshot::Snapshot,
};

/// What discovery and health checks say of a port's endpoints. What its callers have seen is not here.
pub(super) fn of(port: &ServicePort) -> Vec<proto::ServiceEndpoint> {
    let endpoint = |endpoint: &crate::model::Endpoint| {
        let state = match endpoint.state {
            EndpointState::Ready => proto::EndpointState::Ready,
            EndpointState::Terminating => proto::EndpointState::Terminating,
            EndpointState::Unhealthy => proto::EndpointState::Unhealthy,
        };
        proto::ServiceEndpoint {
            namespace: port.name.service.namespace.to_string(),
            service: port.name.service.name.to_string(),
            port: port.name.port.into(),
            address: endpoint.address.to_string(),
            weight: endpoint.weight,
            zone: endpoint.zone.as_deref().unwrap_or_default().to_owned(),
            state: state.into(),
            uses: Vec::new(),
        }
    };
    let mut sorted: Vec<_> = port.endpoints.iter().collect();
    sorted.sort_by_key(|endpoint| endpoint.address);
    sorted.into_iter().map(endpoint).collect()
}

/// Adds how the workloads of this node that call these endpoints see them.
pub(super) fn add_uses(endpoints: &mut [proto::ServiceEndpoint], snapshot: &Snapshot, registry: &Registry) {
    let now = Instant::now();
    for guarded in registry.all() {
        let name = &guarded.key.destination;
        let Some(port) = snapshot
            .ports
            .get(name)
            .filter(|_| guarded.key.direction == Direction::Outbound)
        else {
            continue;
        };
        let host = |address| guarded.guards.outliers.host(address);
        let usable =
            |e: &Endpoint| e.state == EndpointState::Ready && host(e.address).standing() == Standing::In;
        let able: Vec<&Endpoint> = port
            .endpoints
            .iter()
            .filter(|e| e.state != EndpointState::Terminating)
            .collect();
        let good = able.iter().filter(|e| usable(e)).count();
        let panic = good * 100 < usize::from(port.policy.load_balancer.panic_threshold) * able.len();
        for shown in endpoints.iter_mut().filter(|shown| is_of(shown, name)) {
            let Some(endpoint) = port
                .endpoints
                .iter()
                .find(|e| e.address.to_string() == shown.address)
            else {
                continue;
            };
            let host = host(endpoint.address);
            let standing = host.standing();
            let tried = endpoint.state == EndpointState::Ready && standing == Standing::Trial;
            let takes = endpoint.state != EndpointState::Terminating && (panic || usable(endpoint) || tried);
            shown.uses.push(proto::EndpointUse {
                namespace: guarded.key.source.namespace.to_string(),
                workload: guarded.key.source.workload.to_string(),
                standing: match standing {
                    Standing::In => proto::Standing::In,
                    Standing::Ejected { .. } => proto::Standing::Ejected,
                    Standing::Trial => proto::Standing::Trial,
                }
                .into(),
                reason: host
                    .reason()
                    .map(|reason| reason.as_str().to_owned())
                    .unwrap_or_default(),
                returns_in_ms: match standing {
                    Standing::Ejected { until } => {
                        let left = until.saturating_duration_since(now.into_std());
                        Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
                    }
                    Standing::In | Standing::Trial => None,
                },
                times_ejected: host.times_ejected(),
                // Each worker has its own average; none of them is the truth.
                latency_ms: None,
                in_flight: host.in_flight(),
                takes_requests: takes,
            });
        }
    }
}

fn is_of(shown: &proto::ServiceEndpoint, name: &ServicePortName) -> bool {
    shown.service == *name.service.name
        && shown.namespace == *name.service.namespace
        && shown.port == u32::from(name.port)
}

/// The ports that `[namespace/]name[:port]` means; all when it is empty.
pub(super) fn ports(snapshot: &Snapshot, text: &str) -> Result<Vec<Arc<ServicePort>>, Unanswered> {
    let (namespace, rest) = match text.split_once('/') {
        Some((namespace, rest)) => (Some(namespace), rest),
        None => (None, text),
    };
    let (name, number) = match rest.split_once(':') {
        None => (rest, None),
        Some((name, number)) => {
            let invalid = |_| Unanswered::Invalid(format!("{text}: {number} is not a port"));
            (name, Some(number.parse::<u16>().map_err(invalid)?))
        }
    };
    let found: Vec<_> = snapshot
        .ports
        .values()
        .filter(|port| {
            let service = &port.name.service;
            text.is_empty()
                || (&*service.name == name
                    && namespace.is_none_or(|namespace| &*service.namespace == namespace)
                    && number.is_none_or(|number| port.name.port == number))
        })
        .cloned()
        .collect();
    if found.is_empty() && !text.is_empty() {
        let what = format!("no service {text}: `derny services` lists those that there are");
        return Err(Unanswered::NotFound(what));
    }
    Ok(found)
}
