//! The snapshot's endpoints for the windows, and how a service is named there.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    admin::{Unanswered, proto},
    balance::Standing,
    health::Board,
    model::{Endpoint, EndpointState, ServicePort, ServicePortName},
    proxy::Registry,
    record::{Direction, Source},
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
            check: None,
            excluded_by: String::new(),
        }
    };
    let mut sorted: Vec<_> = port.endpoints.iter().collect();
    sorted.sort_by_key(|endpoint| endpoint.address);
    sorted.into_iter().map(endpoint).collect()
}

/// Adds what active checks find.
pub(super) fn add_checks(endpoints: &mut [proto::ServiceEndpoint], board: &Board) {
    let now = Instant::now().into_std();
    // A service may have thousands.
    let mut by_address: HashMap<String, Vec<&mut proto::ServiceEndpoint>> = HashMap::new();
    for shown in endpoints {
        by_address.entry(shown.address.clone()).or_default().push(shown);
    }
    for seen in board.all() {
        let shown = by_address.get_mut(&seen.endpoint.to_string());
        let shown = shown.into_iter().flatten();
        for shown in shown.filter(|shown| is_of(shown, &seen.port)) {
            shown.check = Some(proto::HealthCheckState {
                verdict: seen.state.verdict().as_str().to_owned(),
                since_ms: millis(now.saturating_duration_since(seen.state.since())),
                failure: seen.failure.as_ref().map(ToString::to_string).unwrap_or_default(),
            });
        }
    }
}

/// Says of a candidate what keeps the caller's requests away from it. It has at most one use: the caller's.
pub(super) fn name_what_excludes(candidate: &mut proto::ServiceEndpoint) {
    let used = candidate.uses.first();
    // In panic it takes requests in whatever state it is.
    let takes = used.is_some_and(|used| used.takes_requests);
    let full = used.is_some_and(|used| used.full);
    let failure = candidate.check.as_ref().map(|check| check.failure.as_str());
    candidate.excluded_by = match (candidate.state(), used) {
        _ if full => "it has as many requests as perEndpoint.maxRequests allows".to_owned(),
        _ if takes => String::new(),
        (proto::EndpointState::Terminating, _) => "it is going away".to_owned(),
        (proto::EndpointState::Unhealthy, _) => match failure {
            None | Some("") => "it is unhealthy".to_owned(),
            Some(failure) => format!("its health check fails: {failure}"),
        },
        (_, Some(used)) if used.standing() == proto::Standing::Ejected => {
            format!("it is ejected: {}", used.reason)
        }
        _ => String::new(),
    };
}

/// Adds how the workloads of this node that call these endpoints see them, those that `wanted` names.
pub(super) fn add_uses(
    endpoints: &mut [proto::ServiceEndpoint],
    snapshot: &Snapshot,
    registry: &Registry,
    wanted: impl Fn(&Source) -> bool,
) {
    let now = Instant::now();
    for guarded in registry.all() {
        let name = &guarded.key.destination;
        let Some(port) = snapshot
            .ports
            .get(name)
            .filter(|_| guarded.key.direction == Direction::Outbound && wanted(&guarded.key.source))
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
        let most = port.policy.circuit_breaking.max_requests_per_endpoint;
        let panic = good * 100 < usize::from(port.policy.load_balancer.panic_threshold) * able.len();
        let by_address: HashMap<String, &Endpoint> = port
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.address.to_string(), endpoint))
            .collect();
        for shown in endpoints.iter_mut().filter(|shown| is_of(shown, name)) {
            let Some(endpoint) = by_address.get(&shown.address) else {
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
                        Some(millis(until.saturating_duration_since(now.into_std())))
                    }
                    Standing::In | Standing::Trial => None,
                },
                times_ejected: host.times_ejected(),
                latency_ms: host.latency().map(|latency| latency.as_secs_f64() * 1000.0),
                in_flight: host.in_flight(),
                takes_requests: takes,
                ejected_since_ms: (host.out_since())
                    .map(|since| millis(now.into_std().saturating_duration_since(since))),
                full: most.is_some_and(|most| host.in_flight() >= most),
            });
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
