//! The snapshot's endpoints for the windows, and how a service is named there.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use super::millis::millis;
use crate::{
    admin::{Unanswered, proto},
    balance::{Outliers, Rotation, Standing},
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
        let most = port.policy.circuit_breaking.max_requests_per_endpoint;
        let rotation = rotation(port, &guarded.guards.outliers);
        let by_address: HashMap<String, (usize, &Endpoint)> = (port.endpoints.iter().enumerate())
            .map(|(index, endpoint)| (endpoint.address.to_string(), (index, endpoint)))
            .collect();
        for shown in endpoints.iter_mut().filter(|shown| is_of(shown, name)) {
            let Some((index, endpoint)) = by_address.get(&shown.address) else {
                continue;
            };
            let host = host(endpoint.address);
            let (standing, takes) = rotation[*index];
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

/// Of each endpoint, in the port's order: how the caller's detector holds it, and whether it gets requests.
fn rotation(port: &ServicePort, outliers: &Outliers) -> Vec<(Standing, bool)> {
    let standings: Vec<_> = (port.endpoints.iter())
        .map(|endpoint| (endpoint.state, outliers.host(endpoint.address).standing()))
        .collect();
    let panic_threshold = port.policy.load_balancer.panic_threshold;
    let rotation = Rotation::new(standings.iter().copied(), panic_threshold);
    (standings.into_iter().enumerate())
        .map(|(index, (_, standing))| {
            let takes = rotation.takes[index] || rotation.trials.contains(&index);
            (standing, takes)
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        balance::{Balancer, EndpointLoad, Verdict},
        model::{Algorithm, OutlierDetection, Policy, Protocol, ServiceName},
    };

    const STATES: [EndpointState; 3] = [
        EndpointState::Ready,
        EndpointState::Unhealthy,
        EndpointState::Terminating,
    ];

    fn port(states: &[EndpointState], algorithm: Algorithm, panic_threshold: u8) -> ServicePort {
        let mut policy = Policy::default();
        policy.load_balancer.algorithm = algorithm;
        policy.load_balancer.panic_threshold = panic_threshold;
        policy.outlier_detection = Some(OutlierDetection {
            max_ejection_percent: 100,
            ..OutlierDetection::default()
        });
        let endpoint = |(n, state): (u8, &EndpointState)| Endpoint {
            state: *state,
            ..Endpoint::new(([10, 0, 0, n], 80).into())
        };
        ServicePort {
            name: ServicePortName {
                service: ServiceName {
                    namespace: "demo".into(),
                    name: "echo".into(),
                },
                port: 80,
            },
            protocol: Protocol::Http,
            endpoints: (0..).zip(states).map(endpoint).collect::<Vec<_>>().into(),
            policy: policy.into(),
            routes: Vec::new(),
        }
    }

    proptest! {
        /// Whatever the states and standings: those who are shown to get requests are those whom the balancer chooses.
        #[test]
        fn whom_the_balancer_chooses_is_shown_to_get_requests(
            endpoints in proptest::collection::vec((0usize..3, any::<bool>()), 1..6),
            algorithm in prop_oneof![
                Just(Algorithm::Random),
                Just(Algorithm::RoundRobin),
                Just(Algorithm::LeastRequest),
                Just(Algorithm::PeakEwma),
            ],
            panic_threshold in 0u8..=100,
            seed in any::<u64>(),
        ) {
            let states: Vec<_> = endpoints.iter().map(|(state, _)| STATES[*state]).collect();
            let port = port(&states, algorithm, panic_threshold);
            let (now, mut rng) = (Instant::now().into_std(), fastrand::Rng::with_seed(seed));
            let outliers = Outliers::new(port.policy.outlier_detection.clone());
            let addresses = || port.endpoints.iter().map(|endpoint| endpoint.address);
            outliers.follow(port.policy.outlier_detection.as_ref(), addresses());
            for (address, (_, is_bad)) in addresses().zip(&endpoints) {
                for _ in 0..5 * u8::from(*is_bad) {
                    let failure = Verdict::Failure5xx { gateway: false };
                    outliers.record(&outliers.host(address), failure, now, &mut rng);
                }
            }
            let loads = (port.endpoints.iter())
                .map(|endpoint| EndpointLoad::new(endpoint, outliers.host(endpoint.address), None, now))
                .collect();
            let mut balancer = Balancer::new(&port.policy.load_balancer, loads, None, &(), &mut rng);

            let shown: BTreeSet<_> = (addresses().zip(rotation(&port, &outliers)))
                .filter_map(|(address, (_, takes))| takes.then_some(address))
                .collect();
            let chosen: BTreeSet<_> = (0..300)
                .filter_map(|_| balancer.choose(None, &[], now, &mut rng))
                .map(|chosen| chosen.address())
                .collect();
            prop_assert_eq!(shown, chosen);
        }
    }
}
