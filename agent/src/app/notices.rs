//! What is said by Events: addresses that services of several namespaces claim, and what was refused to a namespace.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    discover::kube::{About, Notice},
    model::{Budget, Refused, ServiceName},
    snapshot::{Snapshot, Target},
};

/// Services of one namespace of which something is said, so that none keeps others from being told.
const OF_NAMESPACE: usize = 16;
/// What was refused is said for so long.
const RECENT: Duration = Duration::from_secs(600);

/// Each service that claims an address with a service of another namespace, once. The first of each namespace come before
/// the second of any, since only so many are told.
pub(super) fn contested(snapshot: &Snapshot) -> Vec<Notice> {
    let destinations = snapshot.destinations.values();
    let mut of: BTreeMap<ServiceName, (std::net::SocketAddr, BTreeSet<Arc<str>>)> = BTreeMap::new();
    for destination in destinations.filter(|destination| destination.target == Target::Contested) {
        for claimant in destination.claimants() {
            let namespaces = destination.claimants().map(|by| by.service.namespace.clone());
            let (first, all) = of
                .entry(claimant.service.clone())
                .or_insert_with(|| (destination.address, BTreeSet::new()));
            *first = (*first).min(destination.address);
            all.extend(namespaces);
        }
    }
    let mut said: HashMap<Arc<str>, usize> = HashMap::new();
    let mut notices = Vec::new();
    for (service, (first, mut others)) in of {
        let said = said.entry(service.namespace.clone()).or_default();
        *said += 1;
        if *said > OF_NAMESPACE {
            continue;
        }
        others.remove(&service.namespace);
        let others: Vec<&str> = others.iter().take(4).map(|name| &**name).collect();
        let note = format!(
            "an EndpointSlice of {} has an address of this service's endpoints ({first} is the first): calls to it from \
             other namespaces are left alone",
            others.join(", "),
        );
        let notice = Notice {
            about: About::Service(service),
            reason: "AddressContested",
            note,
        };
        notices.push((*said, notice));
    }
    notices.sort_by_key(|(nth, _)| *nth);
    notices.into_iter().map(|(_, notice)| notice).collect()
}

/// When something was refused last.
#[derive(Debug, Default)]
pub(super) struct Recently(HashMap<(Budget, Arc<str>), (u64, Instant)>);

impl Recently {
    /// Of `all` that was refused since the start, what was refused not long ago.
    pub(super) fn refused(&mut self, all: Vec<Refused>, now: Instant) -> Vec<Notice> {
        let mut notices = Vec::new();
        for Refused {
            budget,
            namespace,
            times,
        } in all
        {
            let (known, at) = self.0.entry((budget, namespace.clone())).or_insert((times, now));
            if *known != times {
                (*known, *at) = (times, now);
            }
            if now.saturating_duration_since(*at) < RECENT {
                notices.push(Notice {
                    about: About::Namespace(namespace),
                    reason: "ShareUsedUp",
                    note: format!(
                        "what the objects of this namespace ask of {} is beyond the namespace's share; derny status tells \
                         on which node",
                        budget.as_str()
                    ),
                });
            }
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{DestinationId, ServicePortName},
        snapshot::Destination,
    };

    #[test]
    fn each_claiming_service_is_told_of_the_others_and_no_namespace_fills_the_list() {
        let port = |namespace: &str, name: String| ServicePortName {
            service: ServiceName {
                namespace: namespace.into(),
                name: name.as_str().into(),
            },
            port: 80,
        };
        let claimed = |n: u16| {
            let own = [("bank", "bank".to_owned()), ("thief", format!("t-{n:02}"))];
            let own =
                own.map(|(namespace, name)| (namespace.into(), Target::Endpoint(port(namespace, name))));
            let destination = Destination {
                own: own.into(),
                ..Destination::new(([10, 0, 0, 1], n).into(), Target::Contested)
            };
            (DestinationId::new(n.into()).unwrap(), destination)
        };
        let snapshot = Snapshot {
            destinations: (1..=30).map(claimed).collect(),
            ..Snapshot::default()
        };
        let said = contested(&snapshot);
        let of = |namespace: &str| -> Vec<&Notice> {
            let is_of =
                |notice: &&Notice| matches!(&notice.about, About::Service(of) if *of.namespace == *namespace);
            said.iter().filter(is_of).collect()
        };
        assert_eq!((of("bank").len(), of("thief").len()), (1, OF_NAMESPACE));
        let of_bank =
            |notice: &Notice| matches!(&notice.about, About::Service(of) if *of.namespace == *"bank");
        assert!(said.iter().position(of_bank) < Some(2), "{said:?}");
        let note = &of("bank")[0].note;
        assert!(
            note.contains("of thief has") && note.contains("10.0.0.1:1 is the first"),
            "{note}"
        );
    }

    #[test]
    fn what_was_refused_is_said_for_a_while() {
        let (mut recently, now) = (Recently::default(), Instant::now());
        let refused = |times| {
            vec![Refused {
                budget: Budget::HashTables,
                namespace: "a".into(),
                times,
            }]
        };
        let said = recently.refused(refused(1), now);
        assert_eq!(said[0].about, About::Namespace("a".into()));
        assert!(said[0].note.contains("hash_tables"), "{}", said[0].note);
        assert_eq!(recently.refused(refused(1), now + RECENT), []);
        assert_eq!(recently.refused(refused(2), now + RECENT), said);
    }
}
