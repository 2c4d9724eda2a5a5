//! The section `pods`.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    protocol::{ProtocolHints, protocol},
    words,
};
use crate::{
    config::{
        error::{At, Faults},
        schema,
    },
    model::{InboundLimits, InboundPort, MAX_SLOTS, Pod, PodAddresses, PodName},
};

/// What a time limit of an inbound port may be.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

pub(super) fn check(pods: &[schema::Pod], faults: &mut Faults) -> Vec<Arc<Pod>> {
    let section = At::Section("pods");
    if pods.len() > usize::from(MAX_SLOTS) {
        let remedy = format!("keep at most {MAX_SLOTS}, the number of slots of a node");
        faults.add(section, pods.len(), "pods are too many", remedy);
    }
    let mut checked = BTreeMap::new();
    let mut namespaces: HashMap<&Path, usize> = HashMap::new();
    let mut addresses: HashMap<IpAddr, usize> = HashMap::new();
    for (index, pod) in pods.iter().enumerate() {
        let at = section.item(index);
        if let Some(first) = namespaces.insert(Path::new(&pod.netns), index) {
            let fault = format!("is the network namespace of pods[{first}] too");
            faults.add(
                at.field("netns"),
                &pod.netns,
                fault,
                "give each pod its own, or remove one",
            );
        }
        let Some(pod) = one(pod, at, faults) else { continue };
        if let PodAddresses::Given(given) = &pod.addresses {
            for address in given {
                if let Some(first) = addresses.insert(*address, index).filter(|first| *first != index) {
                    let fault = format!("is an address of pods[{first}] too");
                    faults.add(
                        at.field("addresses"),
                        address,
                        fault,
                        "give each address to one pod",
                    );
                }
            }
        }
        let name = pod.name.clone();
        if checked.insert(name.clone(), Arc::new(pod)).is_some() {
            faults.add(
                at.field("name"),
                name,
                "is there already",
                "rename or remove one of the two",
            );
        }
    }
    checked.into_values().collect()
}

fn one(pod: &schema::Pod, at: At<'_>, faults: &mut Faults) -> Option<Pod> {
    let name = words::label(&pod.name, at.field("name"), faults);
    let namespace = words::label(&pod.namespace, at.field("namespace"), faults);
    let workload = match &pod.workload {
        Some(workload) => words::label(workload, at.field("workload"), faults),
        None => name.clone(),
    };
    let absolute = Path::new(&pod.netns).is_absolute();
    if !absolute {
        let remedy = "write /run/netns/NAME or /proc/PID/ns/net";
        faults.add(at.field("netns"), &pod.netns, "is not an absolute path", remedy);
    }
    let inbound = inbound(&pod.inbound, at.field("inbound"), faults);
    let addresses = match &pod.addresses {
        None => PodAddresses::Interfaces,
        Some(given) => PodAddresses::Given(words::ips(given, at.field("addresses"), faults)),
    };
    let name = PodName {
        namespace: namespace?,
        name: name?,
    };
    absolute.then_some(Pod {
        name,
        workload: workload?,
        netns: pod.netns.as_str().into(),
        inbound,
        addresses,
        since: None,
        is_ending: false,
    })
}

fn inbound(ports: &[schema::Inbound], section: At<'_>, faults: &mut Faults) -> Vec<InboundPort> {
    let mut checked = BTreeMap::new();
    for (index, inbound) in ports.iter().enumerate() {
        let at = section.item(index);
        let declared = words::declared_protocol(inbound.protocol.as_deref(), at.field("protocol"), faults);
        let name = inbound.name.as_deref();
        let name = name.and_then(|name| words::port_name(name, at.field("name"), faults));
        let mut limit =
            |name, value: Option<u64>| words::number(value?, 1..=u32::MAX, at.field(name), faults);
        let (max_requests, max_connections) = (
            limit("maxRequests", inbound.max_requests),
            limit("maxConnections", inbound.max_connections),
        );
        let mut time = |name, text: &Option<String>| {
            words::within_or_none(text.as_deref()?, TIMEOUT, at.field(name), faults)
        };
        let limits = InboundLimits {
            max_requests,
            max_connections,
            request_timeout: time("requestTimeout", &inbound.request_timeout).flatten(),
            idle_timeout: time("idleTimeout", &inbound.idle_timeout).flatten(),
        };
        let Some(port) = words::port(inbound.port, at.field("port"), faults) else {
            continue;
        };
        let hints = ProtocolHints {
            declared,
            app_protocol: inbound.app_protocol.as_deref(),
            port_name: name,
        };
        if checked
            .insert(
                port,
                InboundPort {
                    port,
                    protocol: protocol(hints),
                    limits,
                },
            )
            .is_some()
        {
            faults.add(at.field("port"), port, "is there already", "name each port once");
        }
    }
    checked.into_values().collect()
}
