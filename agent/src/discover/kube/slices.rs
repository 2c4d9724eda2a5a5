//! EndpointSlices of one service → the endpoints of its ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use smallvec::SmallVec;

use super::objects;
use crate::model::{Endpoint, EndpointState};

/// The slices of one service, by name.
#[derive(Debug, Default)]
pub(super) struct Slices(BTreeMap<Box<str>, Slice>);

/// What is kept of a slice.
#[derive(Debug, PartialEq)]
struct Slice {
    /// By name; empty for a port without one.
    ports: Vec<(Box<str>, u16)>,
    endpoints: Vec<Member>,
}

#[derive(Debug, PartialEq)]
struct Member {
    ip: IpAddr,
    state: EndpointState,
    zone: Option<Arc<str>>,
    /// The zones whose callers it is for; empty where nobody has said it.
    hints: SmallVec<[Arc<str>; 1]>,
}

/// Zones by name: there are few, and many endpoints in each.
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

    /// Who answers for the port of this name to callers in `own_zone`, by address in ascending order. An endpoint that
    /// moves from one slice to another stands in both for a moment: the better state counts.
    pub(super) fn endpoints(&self, port: Option<&str>, own_zone: Option<&str>) -> Vec<Endpoint> {
        let port = port.unwrap_or_default();
        let members = self.0.values().flat_map(|slice| {
            let numbers = slice.ports.iter().filter(|(name, _)| **name == *port);
            numbers.flat_map(|(_, number)| slice.endpoints.iter().map(move |member| (member, *number)))
        });
        let near = own_zone.filter(|zone| hints_hold(members.clone().map(|(member, _)| member), zone));
        let mut found = BTreeMap::<SocketAddr, Endpoint>::new();
        for (member, number) in members {
            let is_ready = member.state == EndpointState::Ready;
            if near.is_some_and(|zone| is_ready && !member.is_for(zone)) {
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
        }
        found.into_values().collect()
    }

    /// What gives these again when they are read.
    pub(super) fn to_objects(&self, namespace: &str) -> Vec<objects::EndpointSlice> {
        let slices = self.0.iter();
        slices
            .map(|(name, slice)| slice.to_object(namespace, name))
            .collect()
    }
}

impl Member {
    fn is_for(&self, zone: &str) -> bool {
        self.hints.iter().any(|hint| **hint == *zone)
    }
}

/// Whether the hints say who is for a zone: each ready endpoint has one, and some are for that zone. One without means
/// that the controllers are not through, and a zone without any would have nobody. (Kubernetes, "Topology Aware
/// Routing", safeguards.)
fn hints_hold<'a>(members: impl Iterator<Item = &'a Member>, zone: &str) -> bool {
    let mut some = false;
    for member in members.filter(|member| member.state == EndpointState::Ready) {
        if member.hints.is_empty() {
            return false;
        }
        some |= member.is_for(zone);
    }
    some
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
                let hints = endpoint.hints.iter().flat_map(|hints| &hints.for_zones);
                endpoints.push(Member {
                    ip: ip.to_canonical(),
                    state,
                    zone: endpoint.zone.as_deref().map(|zone| zones.get(zone)),
                    hints: hints.map(|hint| zones.get(&hint.name)).collect(),
                });
            }
        }
        let ports = object.ports.iter().flatten();
        let ports = ports.filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
        let ports = ports.filter_map(|port| {
            let number = u16::try_from(port.port?).ok().filter(|number| *number != 0)?;
            Some((port.name.as_deref().unwrap_or_default().into(), number))
        });
        Self {
            ports: ports.collect(),
            endpoints,
        }
    }

    fn to_object(&self, namespace: &str, name: &str) -> objects::EndpointSlice {
        let endpoints = self.endpoints.iter().map(|member| {
            let ready = member.state == EndpointState::Ready;
            let for_zones = member.hints.iter().map(|hint| objects::ForZone {
                name: hint.to_string(),
            });
            objects::SliceEndpoint {
                addresses: vec![member.ip.to_string()],
                conditions: objects::Conditions {
                    ready: Some(ready),
                    serving: Some(true),
                    terminating: Some(!ready),
                },
                zone: member.zone.as_deref().map(str::to_owned),
                hints: (!member.hints.is_empty()).then(|| objects::Hints {
                    for_zones: for_zones.collect(),
                }),
            }
        });
        let ports = self.ports.iter().map(|(name, number)| objects::SlicePort {
            name: Some(name.to_string()),
            port: Some((*number).into()),
            protocol: None,
        });
        objects::EndpointSlice {
            metadata: objects::Meta {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
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
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, ports: Value, endpoints: Value) -> objects::EndpointSlice {
        let object = json!({"metadata": {"name": name}, "ports": ports, "endpoints": endpoints});
        serde_json::from_value(object).unwrap()
    }

    fn words(slices: &Slices, port: Option<&str>) -> Vec<String> {
        let endpoints = slices.endpoints(port, None).into_iter();
        endpoints
            .map(|e| match e.zone {
                Some(zone) => format!("{} {} {zone}", e.address, e.state.as_str()),
                None => format!("{} {}", e.address, e.state.as_str()),
            })
            .collect()
    }

    fn conditions(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Value {
        json!({"ready": ready, "serving": serving, "terminating": terminating})
    }

    #[test]
    fn conditions_make_states() {
        let (yes, no) = (Some(true), Some(false));
        let cases = [
            (conditions(None, None, None), "ready"),
            (conditions(yes, yes, no), "ready"),
            // publishNotReadyAddresses
            (conditions(yes, no, yes), "ready"),
            (conditions(no, yes, yes), "terminating"),
            (conditions(no, no, yes), "-"),
            (conditions(no, no, no), "-"),
            (conditions(no, None, None), "-"),
        ];
        for (conditions, expect) in cases {
            let of = serde_json::from_value(conditions.clone()).unwrap();
            assert_eq!(
                state(of).map_or("-", EndpointState::as_str),
                expect,
                "{conditions}"
            );
        }
    }

    #[test]
    fn ports_are_found_by_name_and_slices_are_merged() {
        let ready = conditions(Some(true), None, None);
        let going = conditions(Some(false), Some(true), Some(true));
        let (mut slices, mut zones) = (Slices::default(), Zones::default());
        let ports = json!([{"name": "main", "port": 8080}, {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "any"}]);
        let one = slice(
            "one",
            ports,
            json!([
                {"addresses": ["10.0.0.2"], "conditions": ready, "zone": "a"},
                {"addresses": ["10.0.0.1"], "conditions": going, "zone": "b"},
                {"addresses": ["db.example"], "conditions": ready},
            ]),
        );
        assert!(slices.set(&one, &mut zones));
        assert!(!slices.set(&one, &mut zones), "the same is no change");
        // Another revision of the pods: another number for the same name; and one that has moved.
        let two = json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}]);
        slices.set(
            &slice("two", json!([{"name": "main", "port": 8080}]), two),
            &mut zones,
        );
        slices.set(
            &slice(
                "three",
                json!([{"name": "main", "port": 9090}]),
                json!([{"addresses": ["10.0.0.9"]}]),
            ),
            &mut zones,
        );
        let main = [
            "10.0.0.1:8080 ready b",
            "10.0.0.2:8080 ready a",
            "10.0.0.9:9090 ready",
            "[fd00::1]:8080 ready",
        ];
        assert_eq!(words(&slices, Some("main")), main);
        for none in [Some("udp"), Some("any"), None] {
            assert_eq!(words(&slices, none), [""; 0]);
        }
        let mut again = Slices::default();
        for object in slices.to_objects("demo") {
            again.set(&object, &mut zones);
        }
        assert_eq!(words(&again, Some("main")), main);
        assert!(slices.remove("two") && !slices.remove("two"));
        assert_eq!(words(&slices, Some("main"))[0], "10.0.0.1:8080 terminating b");
    }

    #[test]
    fn hints_keep_callers_in_their_zone_when_all_have_them() {
        let near = |hints: [Value; 3], zone: Option<&str>| {
            let ready = json!({"ready": true});
            let going = json!({"ready": false, "serving": true, "terminating": true});
            let endpoint = |n: usize, conditions: &Value| json!({"addresses": [format!("10.0.0.{n}")], "conditions": conditions, "hints": hints[n - 1]});
            let endpoints = json!([endpoint(1, &ready), endpoint(2, &ready), endpoint(3, &going)]);
            let mut slices = Slices::default();
            let object = slice("s", json!([{"port": 80}]), endpoints);
            slices.set(&object, &mut Zones::default());
            let mut again = Slices::default();
            again.set(&slices.to_objects("demo")[0], &mut Zones::default());
            let last = |of: &Slices| {
                let endpoints = of.endpoints(None, zone).into_iter();
                endpoints
                    .map(|e| e.address.ip().to_string().pop().unwrap())
                    .collect::<String>()
            };
            assert_eq!(last(&slices), last(&again), "as saved");
            last(&slices)
        };
        let of = |zones: &[&str]| json!({"forZones": zones.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
        let (a, b, both, none) = (of(&["a"]), of(&["b"]), of(&["a", "b"]), json!(null));
        let cases = [
            ([a.clone(), b.clone(), none.clone()], Some("a"), "13"),
            ([a.clone(), b.clone(), none.clone()], Some("b"), "23"),
            ([a.clone(), both, none.clone()], Some("a"), "123"),
            // Nobody is for that zone; the node has no zone; one has no hint.
            ([a.clone(), b.clone(), none.clone()], Some("c"), "123"),
            ([a.clone(), b.clone(), none.clone()], None, "123"),
            ([a.clone(), none.clone(), none], Some("a"), "123"),
            // Who is going away gets nothing new in any case.
            ([b.clone(), b, a], Some("a"), "123"),
        ];
        for (hints, zone, expect) in cases {
            assert_eq!(near(hints.clone(), zone), expect, "{hints:?} {zone:?}");
        }
    }

    #[test]
    fn the_only_port_may_be_without_a_name() {
        for name in [json!(null), json!("")] {
            let mut slices = Slices::default();
            slices.set(
                &slice(
                    "s",
                    json!([{"name": name, "port": 1}]),
                    json!([{"addresses": ["10.0.0.1"]}]),
                ),
                &mut Zones::default(),
            );
            assert_eq!(words(&slices, None), ["10.0.0.1:1 ready"]);
        }
    }
}
