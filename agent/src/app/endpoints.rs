//! The snapshot's endpoints for the windows, and how a service is named there.

use std::sync::Arc;

use crate::{
    admin::{Unanswered, proto},
    model::{EndpointState, ServicePort},
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
