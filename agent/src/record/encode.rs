//! What a scrape of `/metrics` gets.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    cells::{BOUNDS, Cell, DurationsSum},
    engine, guarded,
    hub::{Hub, WorkerShard},
    kernel,
    labels::{OTHER, Outcome, ScopeKey, Spoken, TimeLimit, status_label},
    names,
    sample::{NodeSample, Rejected},
    scope::{ScopeShard, SpokenShard},
    series::{Labels, Summed, count, describe, gauge, seconds, traffic},
    shares,
};

/// OpenMetrics text of everything that the workers counted and of `node`.
pub fn encode(hub: &Hub, node: NodeSample) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        workers: hub.workers(),
        node,
    }));
    let mut text = String::with_capacity(16 * 1024);
    // Writing into a string does not fail; an encoder's own error leaves what was written so far.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Scrape {
    workers: Vec<Arc<WorkerShard>>,
    node: NodeSample,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut scopes: BTreeMap<ScopeKey, Vec<Arc<ScopeShard>>> = BTreeMap::new();
        for worker in &self.workers {
            for shard in worker.scopes() {
                scopes.entry(shard.key.clone()).or_default().push(shard);
            }
        }
        let scopes: Vec<Scope> = scopes
            .into_iter()
            .map(|(key, shards)| Scope::new(key, shards))
            .collect();
        self.requests(&scopes, &mut encoder)?;
        self.connections(&scopes, &mut encoder)?;
        self.timeouts(&scopes, &mut encoder)?;
        guarded::encode(&self.node.guards, &mut encoder)?;
        shares::encode(&self.node.accounts, &mut encoder)?;
        engine::encode(&self.workers, &self.node, &mut encoder)?;
        self.discovery(&mut encoder)?;
        self.node(&mut encoder)
    }
}

/// One scope, with the shards of all workers.
struct Scope {
    key: ScopeKey,
    port: String,
    shards: Vec<Arc<ScopeShard>>,
}

impl Scope {
    fn new(key: ScopeKey, shards: Vec<Arc<ScopeShard>>) -> Self {
        Self {
            port: key.destination.port.to_string(),
            key,
            shards,
        }
    }

    fn labels(&self) -> Labels<'_> {
        traffic(&self.key, &self.port)
    }

    fn sum(&self, cell: impl Fn(&ScopeShard) -> &Cell) -> u64 {
        self.shards.iter().map(|s| cell(s).get()).sum()
    }

    /// By outcome; `None` for those that are not told apart.
    fn outcomes(&self, spoken: Spoken) -> Vec<(Option<Outcome>, u64)> {
        let mut sum: Vec<(Option<Outcome>, u64)> = Vec::new();
        let mut add = |outcome, n| match sum.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, total)) => *total += n,
            None => sum.push((outcome, n)),
        };
        for shard in &self.shards {
            let outcomes = &shard.spoken[spoken.index()].outcomes;
            outcomes.iter().for_each(|(outcome, n)| add(Some(outcome), n));
            match outcomes.beyond() {
                0 => {}
                n => add(None, n),
            }
        }
        sum
    }
}

impl Scrape {
    fn requests(&self, scopes: &[Scope], encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut requests = describe(encoder, names::REQUESTS, MetricType::Counter)?;
        each_spoken(scopes, |scope, spoken| {
            for (outcome, n) in scope.outcomes(spoken) {
                let code = outcome.map_or_else(|| OTHER.to_owned(), |o| status_label(o.code));
                let grpc = outcome.map_or_else(
                    || OTHER.to_owned(),
                    |o| o.grpc_status.map(status_label).unwrap_or_default(),
                );
                let mut labels = scope.labels();
                labels.extend([
                    ("protocol", spoken.as_str()),
                    ("code", &code),
                    ("grpc_status", &grpc),
                    ("flag", outcome.map_or(OTHER, |o| o.flag.as_str())),
                ]);
                count(&mut requests, &labels, n)?;
            }
            Ok(())
        })?;

        let mut durations = describe(encoder, names::REQUEST_DURATION, MetricType::Histogram)?;
        each_spoken(scopes, |scope, spoken| {
            let mut sum = DurationsSum::default();
            scope
                .shards
                .iter()
                .for_each(|s| s.spoken[spoken.index()].duration.add_to(&mut sum));
            let total: u64 = sum.buckets.iter().sum();
            if total == 0 {
                return Ok(());
            }
            let mut labels = scope.labels();
            labels.push(("protocol", spoken.as_str()));
            let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(sum.buckets).collect();
            let seconds = Duration::from_micros(sum.sum_micros).as_secs_f64();
            durations
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(seconds, total, &buckets, None)
        })?;

        let bytes: [Summed<SpokenShard>; 2] = [
            (names::REQUEST_BYTES, |s| &s.received),
            (names::RESPONSE_BYTES, |s| &s.sent),
        ];
        for (name, cell) in bytes {
            let mut metric = describe(encoder, name, MetricType::Counter)?;
            each_spoken(scopes, |scope, spoken| {
                let n = scope.sum(|s| cell(&s.spoken[spoken.index()]));
                let mut labels = scope.labels();
                labels.push(("protocol", spoken.as_str()));
                if n == 0 {
                    Ok(())
                } else {
                    count(&mut metric, &labels, n)
                }
            })?;
        }
        Ok(())
    }

    fn connections(&self, scopes: &[Scope], encoder: &mut DescriptorEncoder) -> fmt::Result {
        let counters: [Summed<ScopeShard>; 8] = [
            (names::RETRIES, |s| &s.retries),
            (names::CONNECTIONS, |s| &s.connections),
            (names::UPSTREAM_CONNECTIONS, |s| &s.upstream_connections),
            (names::UPSTREAM_CONNECT_FAILURES, |s| &s.upstream_failures),
            (names::TCP_RECEIVED_BYTES, |s| &s.tcp_received),
            (names::TCP_SENT_BYTES, |s| &s.tcp_sent),
            (names::DETECT_TIMEOUTS, |s| &s.detect_timeouts),
            (names::NOT_MIRRORED, |s| &s.not_mirrored),
        ];
        for (name, cell) in counters {
            let mut metric = describe(encoder, name, MetricType::Counter)?;
            for scope in scopes {
                count(&mut metric, &scope.labels(), scope.sum(cell))?;
            }
        }
        let gauges: [Summed<ScopeShard>; 2] = [
            (names::CONNECTIONS_ACTIVE, |s| &s.connections_active),
            (names::UPSTREAM_CONNECTIONS_ACTIVE, |s| &s.upstream_active),
        ];
        for (name, cell) in gauges {
            let mut metric = describe(encoder, name, MetricType::Gauge)?;
            for scope in scopes {
                gauge(&mut metric, &scope.labels(), scope.sum(cell))?;
            }
        }
        Ok(())
    }

    fn timeouts(&self, scopes: &[Scope], encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut metric = describe(encoder, names::TIMEOUTS, MetricType::Counter)?;
        for scope in scopes {
            for limit in TimeLimit::ALL {
                let mut labels = scope.labels();
                labels.push(("limit", limit.as_str()));
                let n = scope.sum(|s| &s.timeouts[limit as usize]);
                count(&mut metric, &labels, n)?;
            }
        }
        Ok(())
    }

    /// What discovery and health checks say.
    fn discovery(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let node = &self.node;
        let mut metric = describe(encoder, names::ENDPOINTS, MetricType::Gauge)?;
        for (name, state, n) in &node.endpoints {
            let port = name.port.to_string();
            let labels = [
                ("namespace", &*name.service.namespace),
                ("service", &*name.service.name),
                ("port", port.as_str()),
                ("state", *state),
            ];
            gauge(&mut metric, &labels, *n)?;
        }
        let by_result = [
            (names::HEALTH_CHECKS, &node.health),
            (names::DNS_LOOKUPS, &node.dns_lookups),
        ];
        for (name, counts) in by_result {
            let mut metric = describe(encoder, name, MetricType::Counter)?;
            for (result, n) in counts {
                count(&mut metric, &[("result", *result)], *n)?;
            }
        }
        guarded::refused(&node.refused, encoder)?;
        let mut metric = describe(encoder, names::HEALTH_CHECKS_HELD_BACK, MetricType::Counter)?;
        count(&mut metric, &[], node.probes_held_back)?;
        match &node.kube {
            Some(kube) => kube.encode(encoder),
            None => Ok(()),
        }
    }

    fn node(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let node = &self.node;
        kernel::encode(node, encoder)?;
        let mut metric = describe(encoder, names::PODS, MetricType::Gauge)?;
        gauge(&mut metric, &[("state", "enrolled")], node.pods_enrolled)?;
        gauge(&mut metric, &[("state", "waiting")], node.pods_waiting)?;
        gauge(&mut metric, &[("state", "left_alone")], node.pods_left_alone)?;
        if let Some(times) = &node.enrolments {
            let mut metric = describe(encoder, names::ENROLMENT, MetricType::Histogram)?;
            let total = times.buckets.iter().map(|(_, n)| n).sum();
            metric.encode_histogram::<NoLabelSet>(times.sum, total, &times.buckets, None)?;
        }
        let rejected = u64::from(node.config_rejected == Rejected::Yes);
        for (name, value) in [
            (names::PODS_HELD, node.pods_held),
            (names::DESTINATIONS, node.destinations),
            (names::DESTINATIONS_CONTESTED, node.destinations_contested),
            (names::SNAPSHOT_VERSION, node.snapshot_version),
            (names::CONFIG_REJECTED, rejected),
        ] {
            gauge(&mut describe(encoder, name, MetricType::Gauge)?, &[], value)?;
        }
        seconds(encoder, names::SNAPSHOT_AGE, Some(node.snapshot_age))?;
        seconds(encoder, names::HEARTBEAT_AGE, node.heartbeat_age)?;
        let mut metric = describe(encoder, names::BUILD_INFO, MetricType::Gauge)?;
        gauge(&mut metric, &[("version", env!("CARGO_PKG_VERSION"))], 1)
    }
}

fn each_spoken(scopes: &[Scope], mut f: impl FnMut(&Scope, Spoken) -> fmt::Result) -> fmt::Result {
    scopes
        .iter()
        .try_for_each(|scope| Spoken::ALL.into_iter().try_for_each(|spoken| f(scope, spoken)))
}
