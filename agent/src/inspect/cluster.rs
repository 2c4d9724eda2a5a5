//! The conversation with the API server, as it is shown.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::millis::millis;
use crate::{
    admin::proto,
    discover::kube::{InForce, KubeBoard},
    record::KubeSample,
};

/// What `derny status` says of the cluster.
pub(super) fn status(board: &KubeBoard) -> proto::Kubernetes {
    let rejected = board.faults().into_iter().map(|fault| proto::RejectedObject {
        resource: fault.resource.to_owned(),
        object: fault.object,
        message: fault.message,
        last_good_in_force: fault.in_force == InForce::LastGood,
        in_force_in_part: fault.in_force == InForce::Part,
    });
    let watched = board
        .watches()
        .into_iter()
        .filter(|(resource, _)| *resource == "endpointslices");
    proto::Kubernetes {
        up: board.is_up(),
        silence_ms: board.silence(Instant::now()).map(millis),
        watched_services: watched.map(|(_, n)| u32::try_from(n).unwrap_or(u32::MAX)).sum(),
        rejected: rejected.collect(),
        troubles: board
            .troubles()
            .into_iter()
            .map(|(message, requests)| proto::ApiTrouble { requests, message })
            .collect(),
    }
}

/// Services that are not in the snapshot, for `derny services`.
pub(super) fn left_alone(board: &KubeBoard) -> Vec<proto::Service> {
    let services = board.left_alone().into_iter();
    services
        .map(|(name, note)| proto::Service {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            note,
            ..proto::Service::default()
        })
        .collect()
}

/// For the metrics.
pub(super) fn sample(board: &KubeBoard) -> KubeSample {
    let requests = board.requests().into_iter();
    let mut rejected = BTreeMap::new();
    for fault in board.faults() {
        *rejected.entry(fault.resource).or_default() += 1;
    }
    KubeSample {
        up: board.is_up(),
        silence: board.silence(Instant::now()),
        requests: requests
            .map(|r| ([r.resource, r.verb, r.result], r.count))
            .collect(),
        watches: board.watches(),
        relists: board.relists(),
        rejected: rejected.into_iter().collect(),
    }
}
