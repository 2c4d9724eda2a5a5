//! What the windows show, put together when somebody looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};

use crate::{
    admin::{Unanswered, View, proto},
    discover::{
        DnsBoard, SourceState,
        kube::{KubeBoard, PodBoard},
    },
    health::Board,
    intercept::{InterceptError, Observer, SlotCounters},
    live::Live,
    model::{EndpointState, Endpoints, GroupId, PodName, Refusals, ServicePort, ServicePortName},
    proxy::{Progress, Registry},
    publish::Published,
    ready::Ready,
    record::{self, Hub, NodeSample, OwnLog, Rejected, Writer},
    share::{self, Ledger},
    snapshot::Target,
    telemetry,
};

use super::{
    cluster,
    displaced::AllDisplaced,
    endpoints, explain, guarded, liveness,
    millis::{millis, unix_ms},
    order::OrderBoard,
    pods, policy_words, shares,
};

/// Everything that is asked for what is shown.
pub struct Windows {
    pub config_path: PathBuf,
    pub published: Published,
    /// `None` without a file.
    pub source: Option<watch::Receiver<SourceState>>,
    /// `None` without a cluster.
    pub kube: Option<KubeBoard>,
    /// `None` when the pods are the file's alone.
    pub pods: Option<PodBoard>,
    pub health: Board,
    pub dns: DnsBoard,
    pub hub: Hub,
    pub ledger: Ledger,
    pub observer: Observer,
    pub registry: Registry,
    pub refusals: Refusals,
    pub order: OrderBoard,
    pub progress: Vec<Progress>,
    pub writer: Writer,
    pub displaced: AllDisplaced,
    pub live: Live,
    pub ready: Ready,
    pub stale_after: Duration,
    pub started_at: SystemTime,
}

impl Windows {
    fn slowest_worker(&self) -> Duration {
        liveness::slowest(&self.progress, Instant::now())
    }

    fn kernel(&self) -> Result<explain::Kernel, InterceptError> {
        Ok(explain::Kernel {
            pods: self.observer.pods()?,
            destinations: self.observer.destinations()?,
            held: self.observer.held()?,
            heartbeat_age: self.observer.heartbeat_age()?,
            stale_after: self.observer.stale_after()?,
        })
    }

    fn heartbeat_age(&self) -> Option<Duration> {
        self.observer.heartbeat_age().ok().flatten()
    }

    fn pod_counts(&self) -> pods::Counts {
        pods::counts(&self.published.pods.borrow().clone(), self.pods.as_ref())
    }

    /// Pods whose connections the kernel refuses.
    fn held(&self) -> BTreeSet<PodName> {
        let held = self.observer.held().unwrap_or_default();
        let held: BTreeSet<GroupId> = held.into_iter().map(|held| held.group).collect();
        let snapshot = self.published.snapshot.borrow().clone();
        let strict = snapshot.strict.iter().filter(|(_, group)| held.contains(group));
        strict.map(|(pod, _)| pod.clone()).collect()
    }

    fn destinations(&self) -> usize {
        // Cloned: a worker that comes for the next snapshot waits for whoever holds this one borrowed.
        let snapshot = self.published.snapshot.borrow().clone();
        snapshot
            .destinations
            .values()
            .filter(|destination| destination.is_redirected)
            .count()
    }

    /// Addresses that services of several namespaces claim.
    fn contested(&self) -> Vec<proto::ContestedAddress> {
        let snapshot = self.published.snapshot.borrow();
        let destinations = snapshot.destinations.values();
        let contested = destinations.filter(|destination| destination.target == Target::Contested);
        contested
            .map(|destination| proto::ContestedAddress {
                address: destination.address.to_string(),
                services: destination.claimants().map(ToString::to_string).collect(),
                redirected: destination.is_redirected,
            })
            .collect()
    }

    /// How many endpoints each service port has in each state.
    fn endpoint_states(&self) -> Vec<(ServicePortName, &'static str, u64)> {
        let snapshot = self.published.snapshot.borrow().clone();
        let of_port = |port: &ServicePort| {
            EndpointState::ALL.map(|state| {
                let count = port.endpoints.iter().filter(|e| e.state == state).count();
                (port.name.clone(), state.as_str(), count as u64)
            })
        };
        let known = snapshot.ports.values().filter(|port| port.endpoints.is_known());
        known.flat_map(|port| of_port(port)).collect()
    }

    fn accounts(&self) -> Vec<share::Sample> {
        self.ledger.samples(Instant::now().into_std())
    }

    fn config_rejected(&self) -> Rejected {
        match &self.source {
            Some(source) if source.borrow().last_error.is_some() => Rejected::Yes,
            _ => Rejected::No,
        }
    }

    fn snapshot_age(&self) -> Duration {
        self.published.changed_at.borrow().elapsed()
    }
}

impl View for Windows {
    fn status(&self) -> proto::Status {
        let pods = self.pod_counts();
        let accounts = self.accounts();
        let snapshot = self.published.snapshot.borrow().clone();
        let source = self.source.as_ref().map(|source| source.borrow().clone());
        proto::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at_ms: unix_ms(self.started_at),
            workers: count(self.progress.len()),
            slowest_worker_ms: millis(self.slowest_worker()),
            config_path: self.config_path.display().to_string(),
            config_loaded_at_ms: source
                .as_ref()
                .map(|source| unix_ms(source.loaded_at))
                .unwrap_or_default(),
            config_error: source
                .and_then(|source| source.last_error)
                .map(|e| proto::ConfigError {
                    at_ms: unix_ms(e.at),
                    message: e.message,
                }),
            snapshot_version: snapshot.version,
            snapshot_age_ms: millis(self.snapshot_age()),
            heartbeat_age_ms: self.heartbeat_age().map(millis),
            pods_enrolled: whole(pods.enrolled),
            pods_waiting: whole(pods.waiting),
            pods_left_alone: whole(pods.left_alone),
            pods_held: count(self.held().len()),
            services: count(snapshot.ports.len()),
            destinations: count(self.destinations()),
            not_ready: self.not_ready(),
            zone: snapshot.zone.as_deref().unwrap_or_default().to_owned(),
            kubernetes: self.kube.as_ref().map(cluster::status),
            other_programs: self.order.all(),
            heaviest: shares::heaviest(&accounts),
            pods_aside: shares::aside(&accounts),
            cannot_accept: self
                .progress
                .iter()
                .any(|p| p.cannot_accept_for(Instant::now()).is_some()),
            contested: self.contested(),
            refused: (self.refusals.all().into_iter())
                .map(|refused| proto::RefusedBudget {
                    budget: refused.budget.as_str().to_owned(),
                    namespace: refused.namespace.to_string(),
                    times: refused.times,
                })
                .collect(),
        }
    }

    fn pods(&self) -> Vec<proto::Pod> {
        let placed = self.published.pods.borrow().clone();
        let mut pods = pods::list(&placed, self.pods.as_ref(), &self.hub, &self.held());
        shares::add_costs(&mut pods, &self.accounts());
        pods
    }

    fn services(&self) -> Vec<proto::Service> {
        let snapshot = self.published.snapshot.borrow().clone();
        let mut addresses: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for destination in snapshot.destinations.values() {
            for target in destination.targets() {
                if let Target::Service(name) = target {
                    addresses
                        .entry(name.clone())
                        .or_default()
                        .push(destination.address.ip().to_string());
                }
            }
        }
        let port = |port: &ServicePort| proto::Service {
            namespace: port.name.service.namespace.to_string(),
            name: port.name.service.name.to_string(),
            port: port.name.port.into(),
            protocol: port.protocol.to_string(),
            algorithm: port.policy.load_balancer.algorithm.as_str().to_owned(),
            addresses: addresses.get(&port.name).cloned().unwrap_or_default(),
            endpoints: (port.endpoints.iter())
                .map(|e| proto::Endpoint {
                    address: e.address.to_string(),
                    weight: e.weight,
                })
                .collect(),
            routes: count(port.routes.len()),
            policy: policy_words::changed(&port.policy),
            note: match &port.endpoints {
                Endpoints::Known(_) => String::new(),
                Endpoints::Unknown { .. } => {
                    "not asked for: no pod of this node has used it lately".to_owned()
                }
                Endpoints::LeftToNode { why, .. } => (*why).to_owned(),
            },
        };
        let left_alone = self.kube.iter().flat_map(cluster::left_alone);
        snapshot
            .ports
            .values()
            .map(|p| port(p))
            .chain(left_alone)
            .collect()
    }

    fn endpoints(&self, service: &str) -> Result<Vec<proto::ServiceEndpoint>, Unanswered> {
        let snapshot = self.published.snapshot.borrow().clone();
        let ports = endpoints::ports(&snapshot, service)?;
        let mut all: Vec<_> = ports.iter().flat_map(|port| endpoints::of(port)).collect();
        endpoints::add_uses(&mut all, &snapshot, &self.registry, |_| true);
        endpoints::add_checks(&mut all, &self.health);
        Ok(all)
    }

    fn explain(&self, request: &proto::ExplainRequest) -> Result<proto::Explanation, Unanswered> {
        let snapshot = self.published.snapshot.borrow().clone();
        let pods = self.published.pods.borrow().clone();
        let kernel = self.kernel().map_err(|error| error.to_string());
        let mut answer = explain::explain(&snapshot, &pods, kernel, request)?;
        // Another workload's ejections say nothing of this request.
        let caller = pods
            .iter()
            .map(|status| &status.pod)
            .find(|pod| *pod.name.namespace == *request.namespace && *pod.name.name == *request.pod);
        for backend in &mut answer.backends {
            let candidates = &mut backend.candidates;
            endpoints::add_uses(candidates, &snapshot, &self.registry, |source| {
                caller.is_some_and(|pod| {
                    source.namespace == pod.name.namespace && source.workload == pod.workload
                })
            });
            endpoints::add_checks(candidates, &self.health);
            candidates.iter_mut().for_each(endpoints::name_what_excludes);
        }
        Ok(answer)
    }

    fn metrics(&self) -> String {
        let pods = self.pod_counts();
        let names = pods::names(&self.published.pods.borrow().clone());
        // Each look at a channel ends with its line: two at once can lock out the publisher, and it the second.
        let snapshot_version = self.published.snapshot.borrow().version;
        let unwritten = telemetry::unwritten();
        let mut sample = NodeSample {
            pods_enrolled: pods.enrolled,
            pods_waiting: pods.waiting,
            pods_left_alone: pods.left_alone,
            pods_held: self.held().len() as u64,
            other_programs: self.order.counts(),
            enrolments: (self.pods.as_ref()).map(|_| pods::histogram(&self.published.enrolments)),
            inbound_over_share: self.published.over_share.load(Relaxed),
            group_losses: self.published.group_losses.load(Relaxed),
            destinations: self.destinations() as u64,
            destinations_contested: self.contested().len() as u64,
            snapshot_version,
            snapshot_age: self.snapshot_age(),
            heartbeat_age: self.heartbeat_age(),
            config_rejected: self.config_rejected(),
            kube: self.kube.as_ref().map(cluster::sample),
            health: self.health.numbers().results,
            probes_held_back: self.health.numbers().held_back,
            dns_lookups: self.dns.lookups(),
            endpoints: self.endpoint_states(),
            guards: guarded::samples(&self.registry),
            access_log: self.writer.sample(),
            own_log: OwnLog {
                dropped: unwritten.dropped,
                suppressed: unwritten.suppressed,
            },
            displaced: self.displaced.counts(),
            refused: (self.refusals.all().into_iter())
                .map(|refused| (refused.budget.as_str(), refused.namespace, refused.times))
                .collect(),
            accounts: self.accounts(),
            ..NodeSample::default()
        };
        for counters in self.observer.counters().unwrap_or_default() {
            match counters.slot.and_then(|slot| names.get(&slot)) {
                Some((namespace, pod)) => {
                    let of_pod = decisions(&counters).map(|(d, n)| (namespace.clone(), pod.clone(), d, n));
                    sample.pod_decisions.extend(of_pod);
                }
                None => sample
                    .node_decisions
                    .extend(decisions(&counters).filter(|(_, n)| *n > 0)),
            }
        }
        record::encode(&self.hub, sample)
    }

    fn not_ready(&self) -> Vec<String> {
        self.ready.pending()
    }

    fn live(&self) -> Result<(), String> {
        liveness::check(&self.live, &self.progress, self.stale_after)
    }
}

fn decisions(counters: &SlotCounters) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    counters.iter().map(|(path, count)| (path.as_str(), count))
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn whole(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
