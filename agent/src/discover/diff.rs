//! Two configurations → what changed between them.

use std::{collections::BTreeMap, sync::Arc};

use crate::{config::Checked, model::Update};

/// What turns `old` into `new`, nothing when they say the same.
///
/// The order is good also for a reader that applies one update after the other:
/// 0. the node's zone, of which nothing else depends;
/// 1. pods that are gone: their slots are free for new ones, and nothing of theirs is redirected any more while
///    services change;
/// 2. services that are new or different;
/// 3. services that are gone, after those: an address that moves from one service to another always has an owner,
///    so that no connection slips past the mesh;
/// 4. pods that are new or different, last: what they dial is known by then.
pub fn diff(old: &Checked, new: &Checked) -> Vec<Update> {
    let (pods_gone, pods) = changes(&old.pods, &new.pods, |pod| &pod.name);
    let (services_gone, services) = changes(&old.services, &new.services, |service| &service.name);
    let mut updates = Vec::new();
    updates.extend((old.zone != new.zone).then(|| Update::Zone(new.zone.clone())));
    updates.extend(pods_gone.into_iter().cloned().map(Update::PodGone));
    updates.extend(services.into_iter().cloned().map(Update::Service));
    updates.extend(services_gone.into_iter().cloned().map(Update::ServiceGone));
    updates.extend(pods.into_iter().cloned().map(Update::Pod));
    updates
}

/// Names that only `old` has, and items of `new` that are new or different.
fn changes<'a, T: PartialEq, K: Ord>(
    old: &'a [Arc<T>],
    new: &'a [Arc<T>],
    name: impl Fn(&'a T) -> &'a K,
) -> (Vec<&'a K>, Vec<&'a Arc<T>>) {
    let before: BTreeMap<&K, &Arc<T>> = old.iter().map(|item| (name(item), item)).collect();
    let after: BTreeMap<&K, &Arc<T>> = new.iter().map(|item| (name(item), item)).collect();
    let gone = before
        .keys()
        .filter(|key| !after.contains_key(*key))
        .copied()
        .collect();
    let set = after
        .iter()
        .filter(|(key, item)| before.get(*key) != Some(*item))
        .map(|(_, item)| *item);
    (gone, set.collect())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;
    use crate::model::{
        Pod, PodAddresses, PodName, Protocol, Service, ServiceName, ServicePort, ServicePortName,
    };

    fn pod(name: u8, version: u8) -> Arc<Pod> {
        Arc::new(Pod {
            name: PodName {
                namespace: "demo".into(),
                name: format!("p{name}").into(),
            },
            workload: "w".into(),
            netns: format!("/run/netns/{name}-{version}").into(),
            addresses: PodAddresses::default(),
            since: None,
            inbound: Vec::new(),
            is_ending: false,
        })
    }

    /// `version` is an endpoint's weight: the smallest change that there is.
    fn service(name: u8, version: u8) -> Arc<Service> {
        let name = ServiceName {
            namespace: "demo".into(),
            name: format!("s{name}").into(),
        };
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
        let endpoint = crate::model::Endpoint {
            weight: u32::from(version),
            ..crate::model::Endpoint::new(address)
        };
        let port = ServicePort {
            name: ServicePortName {
                service: name.clone(),
                port: 80,
            },
            protocol: Protocol::Http,
            endpoints: vec![endpoint].into(),
            policy: Arc::default(),
            routes: Vec::new(),
        };
        Arc::new(Service {
            name,
            addresses: Vec::new(),
            ports: vec![Arc::new(port)],
        })
    }

    fn apply(to: &Checked, updates: Vec<Update>) -> Checked {
        let mut pods: BTreeMap<_, _> = to.pods.iter().map(|p| (p.name.clone(), p.clone())).collect();
        let mut services: BTreeMap<_, _> = to.services.iter().map(|s| (s.name.clone(), s.clone())).collect();
        let mut zone = to.zone.clone();
        for update in updates {
            // A removal of what is not there would be an update for nothing.
            match update {
                Update::Pod(pod) => assert_ne!(pods.insert(pod.name.clone(), pod.clone()), Some(pod)),
                Update::PodGone(name) => assert!(pods.remove(&name).is_some()),
                Update::Service(s) => assert_ne!(services.insert(s.name.clone(), s.clone()), Some(s)),
                Update::ServiceGone(name) => assert!(services.remove(&name).is_some()),
                Update::Zone(other) => {
                    assert_ne!(zone, other);
                    zone = other;
                }
                Update::Strict(..) => panic!("a file says nothing of strict namespaces"),
                Update::Health { .. } => panic!("a file says nothing of health"),
            }
        }
        Checked {
            zone,
            pods: pods.into_values().collect(),
            services: services.into_values().collect(),
            ..Checked::default()
        }
    }

    fn any_checked() -> impl Strategy<Value = Checked> {
        let names = || btree_map(0u8..8, 1u8..4, 0..8);
        let zone = proptest::option::of(prop_oneof![Just("a"), Just("b")]);
        (names(), names(), zone).prop_map(|(pods, services, zone)| Checked {
            zone: zone.map(Into::into),
            pods: pods
                .into_iter()
                .map(|(name, version)| pod(name, version))
                .collect(),
            services: services
                .into_iter()
                .map(|(name, version)| service(name, version))
                .collect(),
            ..Checked::default()
        })
    }

    proptest! {
        #[test]
        fn applied_to_the_old_it_gives_the_new(old in any_checked(), new in any_checked()) {
            prop_assert_eq!(apply(&old, diff(&old, &new)), new);
        }

        #[test]
        fn the_same_is_no_change(one in any_checked()) {
            prop_assert_eq!(diff(&one, &one), []);
        }
    }

    #[test]
    fn comes_in_the_promised_order() {
        let old = Checked {
            zone: Some("a".into()),
            pods: vec![pod(0, 1), pod(1, 1)],
            services: vec![service(0, 1), service(1, 1)],
            ..Checked::default()
        };
        let new = Checked {
            pods: vec![pod(1, 2), pod(2, 1)],
            services: vec![service(1, 2), service(2, 1)],
            ..Checked::default()
        };
        let expect = [
            Update::Zone(None),
            Update::PodGone(pod(0, 1).name.clone()),
            Update::Service(service(1, 2)),
            Update::Service(service(2, 1)),
            Update::ServiceGone(service(0, 1).name.clone()),
            Update::Pod(pod(1, 2)),
            Update::Pod(pod(2, 1)),
        ];
        assert_eq!(diff(&old, &new), expect);
    }
}
