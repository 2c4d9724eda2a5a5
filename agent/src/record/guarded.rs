//! What policies do with a caller's requests: bounds that are reached, endpoints that are put out.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

use super::{
    labels::{Direction, ScopeKey},
    names,
    series::{count, describe, gauge, traffic},
};

/// One bound of a circuit breaker as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSample {
    /// As the policy's field, without its `max`.
    pub bound: &'static str,
    /// `None` where nobody can say.
    pub open: Option<bool>,
    /// Since the start.
    pub refused: u64,
}

/// What is known of a (caller, service port), or of an inbound port, beside what its requests counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSample {
    pub key: ScopeKey,
    /// Requests under way.
    pub requests: u64,
    /// Requests that wait for a connection.
    pub pending: u64,
    pub bounds: Vec<BoundSample>,
    /// (detector, ejections since the start).
    pub ejections: Vec<(&'static str, u64)>,
    /// Endpoints that are out now.
    pub ejected: u64,
}

impl GuardSample {
    /// Pods of one workload count together; a bound is open when one of them has reached it.
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.pending += other.pending;
        self.ejected += other.ejected;
        for (own, more) in self.bounds.iter_mut().zip(&other.bounds) {
            own.refused += more.refused;
            own.open = own.open.max(more.open);
        }
        for (own, more) in self.ejections.iter_mut().zip(&other.ejections) {
            own.1 += more.1;
        }
    }
}

/// What was refused to namespaces: (budget, namespace, times).
pub(super) fn refused(
    refused: &[(&'static str, Arc<str>, u64)],
    encoder: &mut DescriptorEncoder,
) -> fmt::Result {
    let mut metric = describe(encoder, names::BUDGET_REFUSALS, MetricType::Counter)?;
    for (budget, namespace, n) in refused {
        count(
            &mut metric,
            &[("budget", *budget), ("namespace", &**namespace)],
            *n,
        )?;
    }
    Ok(())
}

pub(super) fn encode(samples: &[GuardSample], encoder: &mut DescriptorEncoder) -> fmt::Result {
    let mut by_scope: BTreeMap<&ScopeKey, GuardSample> = BTreeMap::new();
    for sample in samples {
        by_scope
            .entry(&sample.key)
            .and_modify(|sum| sum.add(sample))
            .or_insert_with(|| sample.clone());
    }
    let scopes: Vec<(String, GuardSample)> = (by_scope.into_values())
        .map(|sum| (sum.key.destination.port.to_string(), sum))
        .collect();
    let outbound = || {
        scopes
            .iter()
            .filter(|(_, s)| s.key.direction == Direction::Outbound)
    };

    let mut metric = describe(encoder, names::REQUESTS_ACTIVE, MetricType::Gauge)?;
    for (port, sample) in &scopes {
        gauge(&mut metric, &traffic(&sample.key, port), sample.requests)?;
    }
    let mut metric = describe(encoder, names::POOL_PENDING, MetricType::Gauge)?;
    for (port, sample) in outbound() {
        gauge(&mut metric, &traffic(&sample.key, port), sample.pending)?;
    }
    let mut metric = describe(encoder, names::BREAKER_OPEN, MetricType::Gauge)?;
    for (port, sample) in &scopes {
        for bound in &sample.bounds {
            let Some(open) = bound.open else { continue };
            let mut labels = traffic(&sample.key, port);
            labels.push(("bound", bound.bound));
            gauge(&mut metric, &labels, open.into())?;
        }
    }
    let mut metric = describe(encoder, names::BREAKER_OVERFLOW, MetricType::Counter)?;
    for (port, sample) in &scopes {
        for bound in &sample.bounds {
            let mut labels = traffic(&sample.key, port);
            labels.push(("bound", bound.bound));
            count(&mut metric, &labels, bound.refused)?;
        }
    }
    let mut metric = describe(encoder, names::EJECTIONS, MetricType::Counter)?;
    for (port, sample) in outbound() {
        for (reason, n) in &sample.ejections {
            let mut labels = traffic(&sample.key, port);
            labels.push(("reason", reason));
            count(&mut metric, &labels, *n)?;
        }
    }
    let mut metric = describe(encoder, names::ENDPOINTS_EJECTED, MetricType::Gauge)?;
    for (port, sample) in outbound() {
        gauge(&mut metric, &traffic(&sample.key, port), sample.ejected)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{ServiceName, ServicePortName},
        record::{Hub, NodeSample, Source, encode},
    };

    fn sample(direction: Direction, open: bool, refused: u64) -> GuardSample {
        GuardSample {
            key: ScopeKey {
                direction,
                source: Source {
                    namespace: "demo".into(),
                    workload: "web".into(),
                },
                destination: ServicePortName {
                    service: ServiceName {
                        namespace: "demo".into(),
                        name: "echo".into(),
                    },
                    port: 80,
                },
            },
            requests: 2,
            pending: 1,
            bounds: vec![BoundSample {
                bound: "requests",
                open: Some(open),
                refused,
            }],
            ejections: vec![("consecutive5xx", 3)],
            ejected: 1,
        }
    }

    #[track_caller]
    fn check(samples: Vec<GuardSample>, lines: &[&str]) {
        let node = NodeSample {
            guards: samples,
            ..NodeSample::default()
        };
        let text = encode(&Hub::default(), node);
        for line in lines {
            let found = text.lines().filter(|l| l.replace(TRAFFIC, "..") == *line).count();
            assert_eq!(found, 1, "{line} in\n{text}");
        }
    }

    const TRAFFIC: &str = "source_namespace=\"demo\",source_workload=\"web\",destination_namespace=\"demo\",\
        destination_service=\"echo\",destination_port=\"80\"";

    #[test]
    fn a_caller_sees_its_bounds_and_its_ejections() {
        check(
            vec![sample(Direction::Outbound, true, 7)],
            &[
                "derny_requests_active{direction=\"outbound\",..} 2",
                "derny_pool_pending{direction=\"outbound\",..} 1",
                "derny_breaker_open{direction=\"outbound\",..,bound=\"requests\"} 1",
                "derny_breaker_overflow_total{direction=\"outbound\",..,bound=\"requests\"} 7",
                "derny_ejections_total{direction=\"outbound\",..,reason=\"consecutive5xx\"} 3",
                "derny_endpoints_ejected{direction=\"outbound\",..} 1",
            ],
        );
    }

    #[test]
    fn pods_of_one_workload_count_together() {
        check(
            vec![
                sample(Direction::Inbound, false, 7),
                sample(Direction::Inbound, true, 2),
            ],
            &[
                "derny_requests_active{direction=\"inbound\",..} 4",
                "derny_breaker_open{direction=\"inbound\",..,bound=\"requests\"} 1",
                "derny_breaker_overflow_total{direction=\"inbound\",..,bound=\"requests\"} 9",
            ],
        );
    }
}
