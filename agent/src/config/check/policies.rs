//! The section `policies`: what is attached to which port.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use super::words;
use crate::{
    config::{
        error::{At, Faults},
        schema,
    },
    model::{Algorithm, ConnectionPool, LoadBalancer, Policy, ServiceName, ServicePortName},
};

const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const DETECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// From HTTP/2's own default (RFC 9113, 6.9.2) to what one stalled stream may hold of the node's memory.
const WINDOW_SIZE: RangeInclusive<u32> = 65_536..=16_777_216;

/// Which policy rules a port. One of the port's own replaces the service's as a whole.
#[derive(Debug, Default)]
pub(super) struct Attached {
    services: HashMap<ServiceName, Arc<Policy>>,
    ports: HashMap<ServicePortName, Arc<Policy>>,
}

impl Attached {
    pub(super) fn of(&self, port: &ServicePortName) -> Policy {
        let policy = self.ports.get(port).or_else(|| self.services.get(&port.service));
        policy.map(|policy| Policy::clone(policy)).unwrap_or_default()
    }
}

/// What a reference can point at, in the order of the file. Taken from the text and not from the checked
/// services, so that a fault in a service is not told a second time as a missing target.
type Targets<'a> = BTreeMap<(&'a str, &'a str), &'a schema::Service>;

pub(super) fn check(
    policies: &[schema::TrafficPolicy],
    services: &[schema::Service],
    faults: &mut Faults,
) -> Attached {
    let targets: Targets<'_> = services
        .iter()
        .map(|service| ((&*service.namespace, &*service.name), service))
        .collect();
    let section = At::Section("policies");
    let mut attached = Attached::default();
    for (index, spec) in policies.iter().enumerate() {
        let at = section.item(index);
        let policy = Arc::new(policy(spec, at, faults));
        let refs = at.field("targetRefs");
        if spec.target_refs.is_empty() {
            faults.add(
                refs,
                "[]",
                "names no target",
                "name at least one service, or remove the policy",
            );
        }
        for (index, target) in spec.target_refs.iter().enumerate() {
            attach(target, &policy, &targets, &mut attached, refs.item(index), faults);
        }
    }
    attached
}

fn attach(
    target: &schema::TargetRef,
    policy: &Arc<Policy>,
    targets: &Targets<'_>,
    attached: &mut Attached,
    at: At<'_>,
    faults: &mut Faults,
) {
    if target.kind != "Service" {
        faults.add(
            at.field("kind"),
            &target.kind,
            "cannot have a policy",
            "use Service",
        );
        return;
    }
    let service = ServiceName {
        namespace: target.namespace.as_str().into(),
        name: target.name.as_str().into(),
    };
    let Some(found) = targets.get(&(&*target.namespace, &*target.name)) else {
        let remedy = "add the service, or correct name and namespace (without one it is `default`)";
        faults.add(at, service, "does not exist", remedy);
        return;
    };
    let twice = |faults: &mut Faults, name: String| {
        faults.add(
            at,
            name,
            "has a policy already",
            "keep one policy for each service and for each port",
        );
    };
    let Some(section) = &target.section_name else {
        if attached
            .services
            .insert(service.clone(), policy.clone())
            .is_some()
        {
            twice(faults, service.to_string());
        }
        return;
    };
    let Some(port) = port_of(found, section) else {
        let ports: Vec<String> = found.ports.iter().map(port_words).collect();
        let remedy = match ports.is_empty() {
            true => "add the port to the service".to_owned(),
            false => format!("use one of {}", ports.join(", ")),
        };
        faults.add(
            at.field("sectionName"),
            section,
            format!("is not a port of {service}"),
            remedy,
        );
        return;
    };
    let name = ServicePortName { service, port };
    if attached.ports.insert(name.clone(), policy.clone()).is_some() {
        twice(faults, name.to_string());
    }
}

/// A port by its name or its number; `None` also for a number that is none, which the service's check reports.
fn port_of(service: &schema::Service, section: &str) -> Option<u16> {
    let named = |port: &&schema::Port| port.name.as_deref() == Some(section);
    let numbered = |port: &&schema::Port| section.parse() == Ok(port.port);
    let port = service
        .ports
        .iter()
        .find(named)
        .or_else(|| service.ports.iter().find(numbered))?;
    u16::try_from(port.port).ok()
}

fn port_words(port: &schema::Port) -> String {
    match &port.name {
        Some(name) => format!("{name} ({})", port.port),
        None => port.port.to_string(),
    }
}

const ALGORITHMS: [Algorithm; 3] = [
    Algorithm::PeakEwma,
    Algorithm::LeastRequest,
    Algorithm::RoundRobin,
];

/// What is not said, or wrongly said, is as by default; a fault keeps the whole from being used.
fn policy(spec: &schema::TrafficPolicy, at: At<'_>, faults: &mut Faults) -> Policy {
    let default = Policy::default();
    let load_balancer = at.field("loadBalancer");
    let algorithm = spec.load_balancer.algorithm.as_deref().and_then(|text| {
        words::word(
            text,
            ALGORITHMS,
            Algorithm::as_str,
            load_balancer.field("algorithm"),
            faults,
        )
    });
    let pool = at.field("connectionPool");
    let mut duration = |text: &Option<String>, range, at: At<'_>| {
        text.as_deref()
            .and_then(|text| words::within(text, range, at, faults))
    };
    let connect_timeout = duration(
        &spec.connection_pool.connect_timeout,
        CONNECT_TIMEOUT,
        pool.field("connectTimeout"),
    );
    let idle_timeout = duration(
        &spec.connection_pool.idle_timeout,
        IDLE_TIMEOUT,
        pool.field("idleTimeout"),
    );
    let detect_timeout = duration(&spec.detect_timeout, DETECT_TIMEOUT, at.field("detectTimeout"));
    let window_size = spec
        .connection_pool
        .window_size
        .and_then(|bytes| window(bytes, pool.field("windowSize"), faults));
    let pool = default.connection_pool;
    Policy {
        load_balancer: LoadBalancer {
            algorithm: algorithm.unwrap_or(default.load_balancer.algorithm),
            ..default.load_balancer
        },
        connection_pool: ConnectionPool {
            connect_timeout: connect_timeout.unwrap_or(pool.connect_timeout),
            idle_timeout: idle_timeout.unwrap_or(pool.idle_timeout),
            window_size: window_size.unwrap_or(pool.window_size),
            ..pool
        },
        detect_timeout: detect_timeout.unwrap_or(default.detect_timeout),
        ..default
    }
}

fn window(bytes: u64, at: At<'_>, faults: &mut Faults) -> Option<u32> {
    let window = u32::try_from(bytes)
        .ok()
        .filter(|bytes| WINDOW_SIZE.contains(bytes));
    if window.is_none() {
        let remedy = format!("use {} to {} bytes", WINDOW_SIZE.start(), WINDOW_SIZE.end());
        faults.add(at, bytes, "is out of range", remedy);
    }
    window
}
