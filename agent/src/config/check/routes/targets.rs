//! References to services and ports.

use std::collections::HashMap;

use crate::{
    config::{
        check::{
            protocol::{ProtocolHints, protocol},
            words,
        },
        error::{At, Faults},
        schema::{self, route::Ref},
    },
    model::{Protocol, ServiceName, ServicePortName},
};

/// The services of the file, by namespace and name. Taken from the text and not from the checked services, so that
/// a fault in a service is not told a second time as a missing target.
///
/// `None`: the services come and go by themselves, and a reference to one that is not there is no fault of the route.
pub(super) struct Targets<'a>(Option<HashMap<(&'a str, &'a str), &'a schema::Service>>);

impl<'a> Targets<'a> {
    pub(super) fn new(services: &'a [schema::Service]) -> Self {
        let named = services
            .iter()
            .map(|service| ((&*service.namespace, &*service.name), service));
        Self(Some(named.collect()))
    }

    pub(super) fn unseen() -> Self {
        Self(None)
    }

    /// Whether a fault in one rule leaves the others in force: where the services come and go by themselves, and nobody
    /// is there to be told of it at once.
    pub(super) fn are_unseen(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a backend or mirror is of another kind than a Service, which leaves the rest of its rule in force.
    pub(super) fn is_foreign(&self, to: &Ref, at: At<'_>, faults: &mut Faults) -> bool {
        if !self.are_unseen() || is_service(to) {
            return false;
        }
        let fault = "is no Service, and gets no requests";
        faults.add_foreign(at, kind_of(to), fault, "name a Service");
        true
    }

    /// The ports that a parent names. All that carry HTTP, when it names none.
    pub(super) fn parent(
        &self,
        parent: &Ref,
        namespace: &str,
        at: At<'_>,
        faults: &mut Faults,
    ) -> Vec<ServicePortName> {
        let Some((service, Some(found))) = self.service(parent, namespace, at, faults) else {
            return Vec::new();
        };
        let Some(number) = parent.port else {
            let named =
                |port: &&schema::Port| parent.section_name.is_none() || port.name == parent.section_name;
            let ports = found.ports.iter().filter(|port| is_http(port)).filter(named);
            let numbers = ports.filter_map(|port| u16::try_from(port.port).ok());
            return numbers
                .map(|port| ServicePortName {
                    service: service.clone(),
                    port,
                })
                .collect();
        };
        let Some((name, port)) = port(&service, found, number, at, faults) else {
            return Vec::new();
        };
        if !is_http(port) {
            let remedy = "give the port protocol http, http2, grpc or detect, or remove the parent";
            faults.add(
                at.field("port"),
                number,
                "carries opaque bytes, which cannot be routed",
                remedy,
            );
        }
        vec![name]
    }

    /// Where a backend or mirror sends its requests.
    pub(super) fn backend(
        &self,
        backend: &Ref,
        namespace: &str,
        at: At<'_>,
        faults: &mut Faults,
    ) -> Option<ServicePortName> {
        let (service, found) = self.service(backend, namespace, at, faults)?;
        let Some(number) = backend.port else {
            let choice = found
                .map(choice)
                .unwrap_or_else(|| "one of the service's".to_owned());
            let remedy = format!("add `port`, {choice}");
            faults.add(at, service, "is named without a port", remedy);
            return None;
        };
        match found {
            Some(found) => port(&service, found, number, at, faults).map(|(name, _)| name),
            None => {
                let port = words::port(number, at.field("port"), faults)?;
                Some(ServicePortName { service, port })
            }
        }
    }

    fn service(
        &self,
        to: &Ref,
        namespace: &str,
        at: At<'_>,
        faults: &mut Faults,
    ) -> Option<(ServiceName, Option<&'a schema::Service>)> {
        if !matches!(&*to.group, "" | "core") {
            faults.add(
                at.field("group"),
                &to.group,
                "is not known",
                "leave it out; a Service has none",
            );
            return None;
        }
        if to.kind != "Service" {
            faults.add(at.field("kind"), &to.kind, "is not known", "use Service");
            return None;
        }
        let namespace = to.namespace.as_deref().unwrap_or(namespace);
        let name = ServiceName {
            namespace: namespace.into(),
            name: (*to.name).into(),
        };
        let Some(services) = &self.0 else {
            return Some((name, None));
        };
        let Some(found) = services.get(&(namespace, &*to.name)) else {
            let remedy = "add the service, or correct name and namespace (without one it is the route's)";
            faults.add(at, name, "does not exist", remedy);
            return None;
        };
        Some((name, Some(*found)))
    }
}

fn port<'s>(
    service: &ServiceName,
    found: &'s schema::Service,
    number: u64,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<(ServicePortName, &'s schema::Port)> {
    let number = words::port(number, at.field("port"), faults)?;
    let Some(port) = found.ports.iter().find(|port| port.port == u64::from(number)) else {
        let fault = format!("is not a port of {service}");
        faults.add(at.field("port"), number, fault, choice(found));
        return None;
    };
    let name = ServicePortName {
        service: service.clone(),
        port: number,
    };
    Some((name, port))
}

/// What can be chosen, as a remedy.
fn choice(service: &schema::Service) -> String {
    let ports: Vec<String> = service.ports.iter().map(|port| port.port.to_string()).collect();
    match ports.is_empty() {
        true => "add the port to the service".to_owned(),
        false => format!("use one of {}", ports.join(", ")),
    }
}

fn is_service(to: &Ref) -> bool {
    matches!(&*to.group, "" | "core") && to.kind == "Service"
}

/// `Kind.group`, as kubectl has it.
pub(super) fn kind_of(to: &Ref) -> String {
    match &*to.group {
        "" => to.kind.clone(),
        group => format!("{}.{group}", to.kind),
    }
}

fn is_http(port: &schema::Port) -> bool {
    // A word that is not known is the service's fault, and told there.
    let declared = port.protocol.as_deref();
    let declared = declared.and_then(|text| Protocol::ALL.into_iter().find(|p| p.as_str() == text));
    let protocol = protocol(ProtocolHints {
        declared,
        app_protocol: port.app_protocol.as_deref(),
        port_name: port.name.as_deref(),
    });
    !matches!(protocol, Protocol::Tcp | Protocol::Tls)
}
