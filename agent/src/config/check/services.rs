//! The section `services`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{
    dns,
    policies::Attached,
    protocol::{ProtocolHints, protocol},
    words,
};
use crate::{
    config::{
        error::{At, Faults},
        schema,
    },
    model::{Dns, Endpoint, EndpointState, Service, ServiceName, ServicePort, ServicePortName},
};

pub(super) struct Services {
    /// By name in ascending order, each once.
    pub(super) services: Vec<Arc<Service>>,
    pub(super) dns: BTreeMap<ServicePortName, Dns>,
}

pub(super) fn check(services: &[schema::Service], attached: &Attached, faults: &mut Faults) -> Services {
    let section = At::Section("services");
    let mut checked = BTreeMap::new();
    let mut owners = HashMap::new();
    let mut dns = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        let at = section.item(index);
        let Some(service) = one(service, attached, &mut dns, at, faults) else {
            continue;
        };
        own_addresses(&service, &mut owners, at, faults);
        let name = service.name.clone();
        if checked.insert(name.clone(), Arc::new(service)).is_some() {
            faults.add(
                at.field("name"),
                name,
                "is there already",
                "rename or remove one of the two",
            );
        }
    }
    Services {
        services: checked.into_values().collect(),
        dns,
    }
}

fn one(
    service: &schema::Service,
    attached: &Attached,
    dns: &mut BTreeMap<ServicePortName, Dns>,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Service> {
    let name = words::label(&service.name, at.field("name"), faults);
    let namespace = words::label(&service.namespace, at.field("namespace"), faults);
    let addresses = words::ips(&service.addresses, at.field("addresses"), faults);
    // Ports are looked at even when the name is wrong, for their own faults.
    let full_name = ServiceName {
        namespace: namespace.clone().unwrap_or_default(),
        name: name.clone().unwrap_or_default(),
    };
    let ports = ports(
        &service.ports,
        &full_name,
        attached,
        dns,
        at.field("ports"),
        faults,
    );
    (name.is_some() && namespace.is_some()).then_some(Service {
        name: full_name,
        addresses,
        ports,
    })
}

fn ports(
    ports: &[schema::Port],
    service: &ServiceName,
    attached: &Attached,
    dns: &mut BTreeMap<ServicePortName, Dns>,
    section: At<'_>,
    faults: &mut Faults,
) -> Vec<Arc<ServicePort>> {
    let mut checked = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = section.item(index);
        let declared = words::declared_protocol(port.protocol.as_deref(), at.field("protocol"), faults);
        let name = port.name.as_deref();
        let name = name.and_then(|name| words::port_name(name, at.field("name"), faults));
        if let Some(name) = name
            && !names.insert(name)
        {
            faults.add(
                at.field("name"),
                name,
                "is there already",
                "give each port its own name",
            );
        }
        let endpoints = endpoints(&port.endpoints, at.field("endpoints"), faults);
        let source = port
            .dns
            .as_ref()
            .and_then(|source| resolved(source, &endpoints, at.field("dns"), faults));
        let Some(number) = words::port(port.port, at.field("port"), faults) else {
            continue;
        };
        let hints = ProtocolHints {
            declared,
            app_protocol: port.app_protocol.as_deref(),
            port_name: name,
        };
        let name = ServicePortName {
            service: service.clone(),
            port: number,
        };
        let policy = attached.of(&name);
        if let Some(source) = source {
            dns.insert(name.clone(), source);
        }
        let port = ServicePort {
            name,
            protocol: protocol(hints),
            endpoints: endpoints.into(),
            policy,
            routes: Vec::new(),
        };
        if checked.insert(number, Arc::new(port)).is_some() {
            faults.add(
                at.field("port"),
                number,
                "is there already",
                "name each port once",
            );
        }
    }
    checked.into_values().collect()
}

/// The third state is not anybody's to declare: a health check finds it.
const DECLARED_STATES: [EndpointState; 2] = [EndpointState::Ready, EndpointState::Terminating];

fn resolved(source: &schema::Dns, endpoints: &[Endpoint], at: At<'_>, faults: &mut Faults) -> Option<Dns> {
    if !endpoints.is_empty() {
        faults.add(
            at,
            &source.name,
            "stands beside `endpoints`",
            "use one of the two",
        );
    }
    dns::check(source, at, faults)
}

fn endpoints(endpoints: &[schema::Endpoint], section: At<'_>, faults: &mut Faults) -> Vec<Endpoint> {
    let mut checked = Vec::with_capacity(endpoints.len());
    let mut seen = BTreeSet::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let at = section.item(index);
        let address = words::socket_address(&endpoint.address, at.field("address"), faults);
        let weight = words::weight(endpoint.weight, at.field("weight"), faults);
        let state = endpoint
            .state
            .as_deref()
            .and_then(|text| words::word(text, DECLARED_STATES, |s| s.as_str(), at.field("state"), faults));
        let zone = endpoint.zone.as_deref();
        let zone = zone.and_then(|zone| words::zone(zone, at.field("zone"), faults));
        let (Some(address), Some(weight)) = (address, weight) else {
            continue;
        };
        if !seen.insert(address) {
            let remedy = "name each endpoint once; a larger share is a larger `weight`";
            faults.add(at.field("address"), address, "is there already", remedy);
        }
        checked.push(Endpoint {
            address,
            weight,
            state: state.unwrap_or_default(),
            zone,
            other: None,
        });
    }
    checked
}

/// A virtual address and port lead to one service. (An endpoint may serve several: see
/// [`Checked::shared_endpoints`](crate::config::Checked::shared_endpoints).)
fn own_addresses(
    service: &Service,
    owners: &mut HashMap<(IpAddr, u16), ServiceName>,
    at: At<'_>,
    faults: &mut Faults,
) {
    for ip in &service.addresses {
        for port in &service.ports {
            let number = port.name.port;
            let earlier = owners
                .entry((*ip, number))
                .or_insert_with(|| service.name.clone());
            if *earlier != service.name {
                let address = std::net::SocketAddr::new(*ip, number);
                let fault = format!("belongs to the service {earlier} already");
                faults.add(
                    at.field("addresses"),
                    address,
                    fault,
                    "give each service its own address or port",
                );
            }
        }
    }
}
