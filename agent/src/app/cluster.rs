//! The Kubernetes API server as a source, with what it is told from elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    admin::proto,
    discover::kube::{self, Cluster, InForce, Inputs, KubeBoard, KubeDemand, KubeSource, Options, Use},
    model::{PatternShare, Refusals, ServiceName},
    options::KubernetesArgs,
    record::KubeSample,
};

/// Takes back what agents have said in the statuses of a cluster's objects, and gives how many objects these were.
pub fn clear_statuses(kubeconfig: Option<&Path>) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let cluster = Cluster::connect(kubeconfig).await?;
        Ok(kube::clear_statuses(&cluster).await?)
    })
}

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
        silence_ms: board
            .silence(Instant::now())
            .map(|silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)),
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

type Services = watch::Receiver<Arc<BTreeSet<ServiceName>>>;

/// `taken` are the services that a file gives, when there is one; `declared` those that pods say they dial; `zone` is the
/// node's, when a flag or the file says it.
pub(super) fn source(
    cluster: Cluster,
    args: &KubernetesArgs,
    demand: KubeDemand,
    taken: Option<Services>,
    declared: Option<watch::Receiver<Arc<BTreeSet<Use>>>>,
    zone: Option<Arc<str>>,
    refusals: Refusals,
) -> KubeSource {
    let options = Options {
        endpoints_idle: args.endpoints_idle,
        state_file: args.state_file.clone(),
        node_name: args.node_name.clone(),
        zone,
        patterns: PatternShare {
            count: args.max_route_patterns,
            bytes: args.max_route_pattern_bytes,
        },
        max_watched: args.max_watched_services,
        refusals,
    };
    let mut taken = taken.unwrap_or_else(|| watch::Sender::new(Arc::default()).subscribe());
    // What a file gives from the start is looked at first.
    taken.mark_changed();
    let inputs = Inputs {
        demand,
        taken,
        declared: declared.unwrap_or_else(|| watch::Sender::new(Arc::default()).subscribe()),
    };
    KubeSource::new(cluster, options, inputs)
}
