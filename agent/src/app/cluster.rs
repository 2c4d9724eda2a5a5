//! The Kubernetes API server as a source, with what it is told from elsewhere.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use tokio::sync::watch;

use crate::{
    discover::kube::{self, Cluster, Inputs, KubeDemand, KubeSource, Options, Use},
    model::{PatternShare, Refusals, ServiceName},
    options::KubernetesArgs,
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
