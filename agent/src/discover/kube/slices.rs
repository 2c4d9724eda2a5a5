//! EndpointSlices of one service → the endpoints of its ports.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use smallvec::SmallVec;

use super::objects;
use crate::model::{Endpoint, EndpointState};

/// The cluster's own: they write what kube-proxy goes by.
const CONTROLLERS: [&str; 2] = [
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
];
const POD: &str = "Pod";

/// The slices of one service, by name.
#[derive(Debug, Default)]
pub(super) struct Slices(BTreeMap<Box<str>, Slice>);

/// What is kept of a slice.
#[derive(Debug, PartialEq)]
struct Slice {
    /// By name; empty for a port without one.
    ports: Vec<(Box<str>, u16)>,
    endpoints: Vec<Member>,
    /// Whether another than [`CONTROLLERS`] says that it is his.
    is_foreign: bool,
}

#[derive(Debug, PartialEq)]
struct Member {
    ip: IpAddr,
    state: EndpointState,
    zone: Option<Arc<str>>,
    /// The zones and the nodes whose callers it is for; empty where nobody has said it.
    zones: SmallVec<[Arc<str>; 1]>,
    nodes: SmallVec<[Arc<str>; 1]>,
    /// The pod's name, by which its addresses of both families belong together.
    pod: Option<Box<str>>,
}

/// Where callers are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place<'a> {
    pub(super) zone: Option<&'a str>,
    pub(super) node: Option<&'a str>,
}

/// Zones and nodes by name: there are few, and many endpoints in each.
#[derive(Debug, Default)]
pub(super) struct Zones(BTreeSet<Arc<str>>);

impl Zones {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }
}

impl Slices {
    /// Takes a slice in the place of the one of its name. True when that changes anything.
    pub(super) fn set(&mut self, object: &objects::EndpointSlice, zones: &mut Zones) -> bool {
        let slice = Slice::from_object(object, zones);
        let name = object.metadata.name.as_str();
        if self.0.get(name) == Some(&slice) {
            return false;
        }
        self.0.insert(name.into(), slice);
        true
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// Whether somebody else than the cluster's own controllers has written one of them: what he does not write, his own
    /// dataplane may know. Who says nothing of himself is nobody else.
    pub(super) fn are_foreign(&self) -> bool {
        self.0.values().any(|slice| slice.is_foreign)
    }

    /// Who answers for the port of this name to callers in `place`, by address in ascending order. An endpoint that
    /// moves from one slice to another stands in both for a moment: the better state counts.
    pub(super) fn endpoints(&self, port: Option<&str>, place: Place<'_>) -> Vec<Endpoint> {
        let port = port.unwrap_or_default();
        let members = self.0.values().flat_map(|slice| {
            let numbers = slice.ports.iter().filter(|(name, _)| **name == *port);
            numbers.flat_map(|(_, number)| slice.endpoints.iter().map(move |member| (member, *number)))
        });
        let near = Near::of(members.clone().map(|(member, _)| member), place);
        let mut found = BTreeMap::<SocketAddr, Endpoint>::new();
        let mut pods = HashMap::<&str, SocketAddr>::new();
        for (member, number) in members {
            let is_ready = member.state == EndpointState::Ready;
            if is_ready && !near.admits(member) {
                continue;
            }
            let address = SocketAddr::new(member.ip, number);
            let known = found.entry(address).or_insert_with(|| Endpoint {
                state: member.state,
                zone: member.zone.clone(),
                ..Endpoint::new(address)
            });
            if is_ready {
                known.state = EndpointState::Ready;
            }
            if let Some(pod) = &member.pod
                && address.is_ipv4()
            {
                pods.insert(pod, address);
            }
        }
        self.pair(&mut found, &pods, port);
        found.into_values().collect()
    }

    /// Makes one endpoint of a pod that answers in both families, known by its address of IPv4.
    fn pair(&self, found: &mut BTreeMap<SocketAddr, Endpoint>, pods: &HashMap<&str, SocketAddr>, port: &str) {
        if pods.is_empty() || found.keys().next_back().is_none_or(SocketAddr::is_ipv4) {
            return;
        }
        for slice in self.0.values() {
            for (_, number) in slice.ports.iter().filter(|(name, _)| **name == *port) {
                for member in slice.endpoints.iter().filter(|member| member.ip.is_ipv6()) {
                    let first = member.pod.as_deref().and_then(|pod| pods.get(pod));
                    let Some(first) = first else { continue };
                    let Some(of_v6) = found.remove(&SocketAddr::new(member.ip, *number)) else {
                        continue;
                    };
                    if let Some(one) = found.get_mut(first) {
                        one.other = Some(of_v6.address);
                        if of_v6.state == EndpointState::Ready {
                            one.state = EndpointState::Ready;
                        }
                    }
                }
            }
        }
    }

    /// What gives these again when they are read.
    pub(super) fn to_objects(&self, namespace: &str) -> Vec<objects::EndpointSlice> {
        let slices = self.0.iter();
        slices
            .map(|(name, slice)| slice.to_object(namespace, name))
            .collect()
    }
}

/// Whose hints hold (Kubernetes, "Topology Aware Routing", safeguards; KEP-3015): those of nodes or of zones, where each
/// ready endpoint has one and some are for the caller's. One without means that the controllers are not through, and a place
/// without any would have nobody.
enum Near<'a> {
    Node(&'a str),
    Zone(&'a str),
    Everybody,
}

impl<'a> Near<'a> {
    fn of<'m>(members: impl Iterator<Item = &'m Member> + Clone, place: Place<'a>) -> Self {
        let ready = members.filter(|member| member.state == EndpointState::Ready);
        let holds = |name: &str, hints: fn(&Member) -> &[Arc<str>]| {
            let mut some = false;
            ready.clone().all(|member| {
                some |= has(hints(member), name);
                !hints(member).is_empty()
            }) && some
        };
        let node = place.node.filter(|node| holds(node, |member| &member.nodes));
        let zone = place.zone.filter(|zone| holds(zone, |member| &member.zones));
        match (node, zone) {
            (Some(node), _) => Self::Node(node),
            (None, Some(zone)) => Self::Zone(zone),
            (None, None) => Self::Everybody,
        }
    }

    fn admits(&self, member: &Member) -> bool {
        match self {
            Self::Node(node) => has(&member.nodes, node),
            Self::Zone(zone) => has(&member.zones, zone),
            Self::Everybody => true,
        }
    }
}

fn has(hints: &[Arc<str>], name: &str) -> bool {
    hints.iter().any(|hint| **hint == *name)
}

impl Slice {
    fn from_object(object: &objects::EndpointSlice, zones: &mut Zones) -> Self {
        let mut endpoints = Vec::with_capacity(object.endpoints.len());
        for endpoint in &object.endpoints {
            let Some(state) = state(endpoint.conditions) else {
                continue;
            };
            // Names (`addressType: FQDN`) are not addresses, and are left out.
            if let Some(ip) = endpoint
                .addresses
                .first()
                .and_then(|text| text.parse::<IpAddr>().ok())
            {
                let hints = || endpoint.hints.iter();
                let for_zones = hints().flat_map(|hints| &hints.for_zones);
                let for_nodes = hints().flat_map(|hints| &hints.for_nodes);
                let target = endpoint.target_ref.as_ref();
                endpoints.push(Member {
                    ip: ip.to_canonical(),
                    state,
                    zone: endpoint.zone.as_deref().map(|zone| zones.get(zone)),
                    zones: for_zones.map(|hint| zones.get(&hint.name)).collect(),
                    nodes: for_nodes.map(|hint| zones.get(&hint.name)).collect(),
                    pod: target
                        .filter(|target| target.kind == POD)
                        .map(|target| target.name.as_str().into()),
                });
            }
        }
        let ports = object.ports.iter().flatten();
        let ports = ports.filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
        let ports = ports.filter_map(|port| {
            let number = u16::try_from(port.port?).ok().filter(|number| *number != 0)?;
            Some((port.name.as_deref().unwrap_or_default().into(), number))
        });
        let manager = object.metadata.labels.get(objects::MANAGED_BY);
        Self {
            ports: ports.collect(),
            endpoints,
            is_foreign: manager.is_some_and(|manager| !CONTROLLERS.contains(&manager.as_str())),
        }
    }

    fn to_object(&self, namespace: &str, name: &str) -> objects::EndpointSlice {
        let endpoints = self.endpoints.iter().map(|member| {
            let ready = member.state == EndpointState::Ready;
            let hints = |names: &[Arc<str>]| {
                let hints = names.iter().map(|name| objects::Hint {
                    name: name.to_string(),
                });
                hints.collect::<Vec<_>>()
            };
            let hinted = !member.zones.is_empty() || !member.nodes.is_empty();
            objects::SliceEndpoint {
                addresses: vec![member.ip.to_string()],
                conditions: objects::Conditions {
                    ready: Some(ready),
                    serving: Some(true),
                    terminating: Some(!ready),
                },
                zone: member.zone.as_deref().map(str::to_owned),
                hints: hinted.then(|| objects::Hints {
                    for_zones: hints(&member.zones),
                    for_nodes: hints(&member.nodes),
                }),
                target_ref: member.pod.as_deref().map(|pod| objects::Target {
                    kind: POD.to_owned(),
                    name: pod.to_owned(),
                }),
            }
        });
        let ports = self.ports.iter().map(|(name, number)| objects::SlicePort {
            name: Some(name.to_string()),
            port: Some((*number).into()),
            protocol: None,
        });
        let foreign = self
            .is_foreign
            .then(|| (objects::MANAGED_BY.to_owned(), "another".to_owned()));
        objects::EndpointSlice {
            metadata: objects::Meta {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                labels: foreign.into_iter().collect(),
                ..objects::Meta::default()
            },
            endpoints: endpoints.collect(),
            ports: Some(ports.collect()),
        }
    }
}

/// `None`: it is not to be used at all. A service with `publishNotReadyAddresses` has all its endpoints ready.
fn state(of: objects::Conditions) -> Option<EndpointState> {
    let ready = of.ready.unwrap_or(true);
    let terminating = of.terminating.unwrap_or(false);
    let serving = of.serving.unwrap_or(ready);
    match (ready, terminating && serving) {
        (true, _) => Some(EndpointState::Ready),
        (false, true) => Some(EndpointState::Terminating),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests;
