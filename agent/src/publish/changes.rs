//! What the kernel must be told when one view follows another. Pure.

use std::{net::SocketAddr, sync::Arc};

use imbl::ordmap::DiffItem;

use crate::{
    model::{AnsweredBy, DestinationId, Ending, Pod, PodName, Slot},
    snapshot::{Destination, Snapshot},
};

/// Changes of the kernel's tables, in two halves: the workers are shown the new view between them. So nothing is
/// redirected to a destination before the workers know it, and nothing that the workers no longer know is still
/// redirected.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Pods that have become strict, are so no more, or are in another control group.
    pub(super) strict: Vec<PodName>,
    pub(super) stop_redirecting: Vec<SocketAddr>,
    pub(super) withdraw: Vec<(Slot, Ending)>,
    // --- here the workers get the view ---
    /// With who answers connections to it.
    pub(super) redirect: Vec<(SocketAddr, DestinationId, String, AnsweredBy)>,
    pub(super) enrol: Vec<(Slot, Arc<Pod>)>,
    /// Pods that stay enrolled as they are: their addresses have changed, or they have begun to end.
    pub(super) follow: Vec<(Slot, Arc<Pod>)>,
}

impl Changes {
    pub(super) fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let mut changes = Self::default();
        for item in old.destinations.diff(&new.destinations) {
            match item {
                DiffItem::Add(id, new) => changes.redirect(*id, new),
                DiffItem::Update {
                    old: (_, old),
                    new: (id, new),
                } => {
                    changes.redirect(*id, new);
                    if old.is_redirected && !new.is_redirected {
                        changes.stop_redirecting.push(new.address);
                    }
                }
                DiffItem::Remove(_, old) if old.is_redirected => {
                    changes.stop_redirecting.push(old.address);
                }
                DiffItem::Remove(..) => {}
            }
        }
        for item in old.strict.diff(&new.strict) {
            changes.strict.push(match item {
                DiffItem::Add(name, _) | DiffItem::Remove(name, _) => name.clone(),
                DiffItem::Update { new: (name, _), .. } => name.clone(),
            });
        }
        for item in old.pods.diff(&new.pods) {
            match item {
                DiffItem::Add(slot, pod) => changes.enrol.push((*slot, pod.clone())),
                DiffItem::Update {
                    old: (_, old),
                    new: (slot, new),
                } if new.is_enrolled_as(old) => changes.follow.push((*slot, new.clone())),
                // A pod that changed, or another one in the same slot: its listeners are opened anew.
                DiffItem::Update {
                    old: (_, old),
                    new: (slot, pod),
                } => {
                    let same = old.name == pod.name && old.netns == pod.netns;
                    let ending = if same { Ending::Replaced } else { Ending::Drained };
                    changes.withdraw.push((*slot, ending));
                    changes.enrol.push((*slot, pod.clone()));
                }
                // Nothing of it runs any more.
                DiffItem::Remove(slot, old) if old.is_ending => changes.withdraw.push((*slot, Ending::Gone)),
                DiffItem::Remove(slot, _) => changes.withdraw.push((*slot, Ending::Drained)),
            }
        }
        changes
    }

    fn redirect(&mut self, id: DestinationId, destination: &Destination) {
        if destination.is_redirected {
            let label = destination.claimed_by();
            self.redirect
                .push((destination.address, id, label, destination.answered_by));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{PodAddresses, PodName, ServiceName, ServicePortName},
        snapshot::Target,
    };

    fn view(destinations: &[(u32, Target)], pods: &[(u16, &str)]) -> Snapshot {
        let destinations = destinations.iter().map(|(id, target)| {
            let address = ([10, 0, 0, 1], u16::try_from(*id).unwrap()).into();
            (
                DestinationId::new(*id).unwrap(),
                Destination::new(address, target.clone()),
            )
        });
        let pods = pods.iter().map(|(slot, name)| {
            let pod = Pod {
                name: PodName {
                    namespace: "default".into(),
                    name: (*name).into(),
                },
                workload: "w".into(),
                netns: "/n".into(),
                addresses: PodAddresses::default(),
                since: None,
                inbound: vec![],
                is_ending: false,
            };
            (Slot::new(*slot).unwrap(), Arc::new(pod))
        });
        Snapshot {
            destinations: destinations.collect(),
            pods: pods.collect(),
            ..Snapshot::default()
        }
    }

    fn service(name: &str) -> Target {
        let service = ServiceName {
            namespace: "default".into(),
            name: name.into(),
        };
        Target::Service(ServicePortName { service, port: 80 })
    }

    #[test]
    fn a_destination_is_redirected_while_somebody_serves_it() {
        let check = |old: &[(u32, Target)], new: &[(u32, Target)], stop: &[u16], redirect: &[&str]| {
            let changes = Changes::between(&view(old, &[]), &view(new, &[]));
            let stopped: Vec<_> = changes.stop_redirecting.iter().map(SocketAddr::port).collect();
            let redirected: Vec<_> = changes
                .redirect
                .iter()
                .map(|(_, _, label, _)| label.as_str())
                .collect();
            assert_eq!(
                (stopped.as_slice(), redirected.as_slice()),
                (stop, redirect),
                "{old:?} → {new:?}"
            );
        };
        check(&[], &[(1, service("a"))], &[], &["default/a:80"]);
        check(&[(1, service("a"))], &[(1, service("a"))], &[], &[]);
        check(&[(1, service("a"))], &[(1, service("b"))], &[], &["default/b:80"]);
        check(&[(1, service("a"))], &[(1, Target::Gone)], &[1], &[]);
        check(&[(1, Target::Gone)], &[], &[], &[]);
        check(&[(1, Target::Gone)], &[(1, service("a"))], &[], &["default/a:80"]);
        check(&[(1, service("a"))], &[], &[1], &[]);
    }

    #[test]
    fn who_answers_for_a_destination_goes_to_the_kernel() {
        let alive = view(&[(1, service("a"))], &[]);
        let mut dead = alive.clone();
        let id = DestinationId::new(1).unwrap();
        dead.destinations[&id].answered_by = AnsweredBy::Nobody;
        let changed = |old: &Snapshot, new: &Snapshot| {
            let changes = Changes::between(old, new);
            let told: Vec<AnsweredBy> = changes.redirect.iter().map(|it| it.3).collect();
            (told, changes.stop_redirecting.len())
        };
        assert_eq!(
            changed(&Snapshot::default(), &dead),
            (vec![AnsweredBy::Nobody], 0)
        );
        assert_eq!(changed(&alive, &dead), (vec![AnsweredBy::Nobody], 0));
        assert_eq!(changed(&dead, &alive), (vec![AnsweredBy::Agent], 0));
        assert_eq!(changed(&dead, &Snapshot::default()), (vec![], 1));
    }

    #[test]
    fn a_pod_whose_addresses_change_or_that_ends_is_not_enrolled_anew() {
        let old = view(&[], &[(3, "a")]);
        let slot = Slot::new(3).unwrap();
        let was = || Pod::clone(&old.pods[&slot]);
        let moved = Pod {
            addresses: PodAddresses::Given(vec![[10, 0, 0, 1].into()]),
            ..was()
        };
        let ending = Pod {
            is_ending: true,
            ..was()
        };
        for pod in [moved, ending] {
            let mut new = old.clone();
            new.pods.insert(slot, Arc::new(pod));
            let changes = Changes::between(&old, &new);
            let counts = (changes.withdraw.len(), changes.enrol.len(), changes.follow.len());
            assert_eq!(counts, (0, 0, 1));
        }
    }

    #[test]
    fn a_pod_that_was_ending_is_gone_when_it_goes() {
        let mut old = view(&[], &[(3, "a"), (4, "b")]);
        let slot = Slot::new(3).unwrap();
        let ending = Pod {
            is_ending: true,
            ..Pod::clone(&old.pods[&slot])
        };
        old.pods.insert(slot, Arc::new(ending));
        let changes = Changes::between(&old, &view(&[], &[]));
        let endings: Vec<_> = changes.withdraw.iter().map(|(_, ending)| *ending).collect();
        assert_eq!(endings, [Ending::Gone, Ending::Drained]);
    }

    #[test]
    fn another_pod_in_a_slot_is_withdrawn_and_enrolled() {
        let changes = Changes::between(&view(&[], &[(3, "a"), (4, "b")]), &view(&[], &[(3, "c")]));
        let slots: Vec<_> = changes.withdraw.iter().map(|(slot, _)| slot.get()).collect();
        assert_eq!((slots.as_slice(), changes.enrol.len()), (&[3, 4][..], 1));
    }
}
