//! The section `policies`: what is attached to which port.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::policy;
use crate::{
    config::{
        error::{At, Faults},
        schema,
        traffic_policy::TrafficPolicy,
    },
    model::{Policy, ServiceName, ServicePortName},
};

/// Which policy rules a port. One of the port's own replaces the service's as a whole.
#[derive(Debug, Default)]
pub(super) struct Attached {
    services: HashMap<ServiceName, Arc<Policy>>,
    ports: HashMap<ServicePortName, Arc<Policy>>,
}

impl Attached {
    pub(super) fn of(&self, port: &ServicePortName) -> Arc<Policy> {
        let policy = self.ports.get(port).or_else(|| self.services.get(&port.service));
        policy.cloned().unwrap_or_default()
    }
}

/// What a reference can point at, in the order of the file. Taken from the text and not from the checked
/// services, so that a fault in a service is not told a second time as a missing target.
type Targets<'a> = BTreeMap<(&'a str, &'a str), &'a schema::Service>;

pub(super) fn check(
    policies: &[TrafficPolicy],
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
        let policy = Arc::new(policy::check(spec, at, faults));
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
    let Some(service) = service(target, "default", at, faults) else {
        return;
    };
    let Some(found) = targets.get(&(&*service.namespace, &*service.name)) else {
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

/// The service that a target names; in `namespace` when it names none.
pub(in crate::config) fn service(
    target: &schema::TargetRef,
    namespace: &str,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<ServiceName> {
    let mut no_policy = |field, value: &str, remedy| {
        faults.add(at.field(field), value, "cannot have a policy", remedy);
        None
    };
    if target.kind != "Service" {
        return no_policy("kind", &target.kind, "use Service");
    }
    if !matches!(&*target.group, "" | "core") {
        return no_policy("group", &target.group, "leave it out; a Service has none");
    }
    Some(ServiceName {
        namespace: target.namespace.as_deref().unwrap_or(namespace).into(),
        name: target.name.as_str().into(),
    })
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
