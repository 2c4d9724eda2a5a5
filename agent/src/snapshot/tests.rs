use std::time::Duration;

use super::*;
use crate::model::{Endpoint, Endpoints, PodAddresses, Policy};

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn name(service: &str) -> ServiceName {
    ServiceName {
        namespace: "default".into(),
        name: service.into(),
    }
}

fn service(service: &str, addresses: &[&str], endpoints: &[&str]) -> Arc<Service> {
    Arc::new(Service {
        name: name(service),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ports: vec![Arc::new(ServicePort {
            name: ServicePortName {
                service: name(service),
                port: 80,
            },
            protocol: Protocol::Http,
            endpoints: endpoints
                .iter()
                .map(|a| Endpoint::new(a.parse().unwrap()))
                .collect(),
            policy: Policy::default().into(),
            routes: vec![],
        })],
    })
}

fn pod(pod: &str) -> Arc<Pod> {
    Arc::new(Pod {
        name: PodName {
            namespace: "default".into(),
            name: pod.into(),
        },
        workload: pod.into(),
        netns: "/run/netns/x".into(),
        addresses: PodAddresses::default(),
        since: None,
        inbound: vec![],
        is_ending: false,
    })
}

/// `address → service, endpoint-of or gone`, as text.
fn destinations(reducer: &Reducer) -> Vec<String> {
    let mut lines: Vec<_> = (reducer.view().destinations.iter())
        .map(|(_, d)| match &d.target {
            Target::Service(port) => format!("{} service {port}", d.address),
            Target::Endpoint(port) => format!("{} endpoint of {port}", d.address),
            Target::Gone => format!("{} gone", d.address),
            Target::Contested => format!("{} contested by {}", d.address, d.claimed_by()),
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_service_brings_its_virtual_addresses_and_its_endpoints() {
    let mut reducer = Reducer::default();
    reducer.apply(
        vec![Update::Service(service("a", &["10.96.0.1"], &["10.0.0.1:8080"]))],
        now(),
    );
    assert_eq!(
        destinations(&reducer),
        [
            "10.0.0.1:8080 endpoint of default/a:80",
            "10.96.0.1:80 service default/a:80"
        ]
    );
}

#[test]
fn an_endpoint_of_two_services_belongs_to_the_first_by_name_in_either_order() {
    let (a, b) = (
        service("a", &[], &["10.0.0.1:80"]),
        service("b", &[], &["10.0.0.1:80"]),
    );
    for order in [[&a, &b], [&b, &a]] {
        let mut reducer = Reducer::default();
        for s in order {
            reducer.apply(vec![Update::Service(s.clone())], now());
        }
        assert_eq!(destinations(&reducer), ["10.0.0.1:80 endpoint of default/a:80"]);
        reducer.apply(vec![Update::ServiceGone(name("a"))], now());
        assert_eq!(destinations(&reducer), ["10.0.0.1:80 endpoint of default/b:80"]);
    }
}

#[test]
fn an_address_that_two_namespaces_claim_is_redirected_for_their_pods_alone() {
    let mut reducer = Reducer::default();
    let evil = ServiceName {
        namespace: "evil".into(),
        name: "a".into(),
    };
    let mut claim = (*service("a", &[], &["10.0.0.1:80", "10.0.0.2:80"])).clone();
    claim.ports = claim
        .ports
        .iter()
        .map(|port| {
            let mut port = (**port).clone();
            port.name.service = evil.clone();
            Arc::new(port)
        })
        .collect();
    claim.name = evil;
    let own = service("b", &["10.0.0.2"], &["10.0.0.1:80"]);
    reducer.apply(vec![Update::Service(claim.into()), Update::Service(own)], now());
    let shown = [
        "10.0.0.1:80 contested by default/b:80 and evil/a:80",
        "10.0.0.2:80 service default/b:80",
    ];
    assert_eq!(destinations(&reducer), shown);
    let redirected = |reducer: &Reducer| {
        let view = reducer.view();
        let contested = view.destinations.values().find(|d| d.target == Target::Contested);
        contested.unwrap().is_redirected
    };
    assert!(!redirected(&reducer));
    reducer.apply(vec![Update::Pod(pod("p")), Update::Pod(pod("q"))], now());
    reducer.apply(
        vec![Update::Pod(pod("p")), Update::PodGone(pod("p").name.clone())],
        now(),
    );
    assert!(redirected(&reducer));
    assert_eq!(destinations(&reducer), shown);
    let view = reducer.view();
    let contested = view
        .destinations
        .values()
        .find(|d| d.target == Target::Contested)
        .unwrap();
    let of = |namespace: &str| contested.target_of(namespace).port().map(ToString::to_string);
    assert_eq!(of("default").as_deref(), Some("default/b:80"));
    assert_eq!(of("evil").as_deref(), Some("evil/a:80"));
    assert_eq!(of("third"), None);
    reducer.apply(vec![Update::PodGone(pod("q").name.clone())], now());
    assert!(!redirected(&reducer));
}

#[test]
fn a_destination_that_goes_is_remembered_a_while_and_then_forgotten() {
    let (mut reducer, start) = (Reducer::default(), now());
    reducer.apply(vec![Update::Service(service("a", &["10.96.0.1"], &[]))], start);
    let id = *reducer.view().destinations.keys().next().unwrap();
    reducer.apply(vec![Update::ServiceGone(name("a"))], start);
    assert_eq!(destinations(&reducer), ["10.96.0.1:80 gone"]);
    assert!(!reducer.expire(start + Duration::from_secs(59)));
    // It comes back in time: same id, and the old death is forgotten.
    reducer.apply(
        vec![Update::Service(service("a", &["10.96.0.1"], &[]))],
        start + Duration::from_secs(59),
    );
    assert!(!reducer.expire(start + Duration::from_secs(90)));
    assert_eq!(
        reducer.view().destinations.keys().copied().collect::<Vec<_>>(),
        [id]
    );
    reducer.apply(
        vec![Update::ServiceGone(name("a"))],
        start + Duration::from_secs(100),
    );
    assert!(reducer.expire(start + Duration::from_secs(160)));
    assert!(destinations(&reducer).is_empty());
}

#[test]
fn an_unchanged_port_keeps_its_allocation() {
    let mut reducer = Reducer::default();
    reducer.apply(vec![Update::Service(service("a", &[], &["10.0.0.1:80"]))], now());
    let before = reducer.view().ports.values().next().unwrap().clone();
    reducer.apply(
        vec![Update::Service(service("a", &["10.96.0.1"], &["10.0.0.1:80"]))],
        now(),
    );
    assert!(Arc::ptr_eq(
        &before,
        reducer.view().ports.values().next().unwrap()
    ));
}

#[test]
fn slots_are_given_back_and_a_full_node_says_so() {
    let mut reducer = Reducer::default();
    let all = (0..=crate::model::MAX_SLOTS)
        .map(|i| Update::Pod(pod(&format!("p{i}"))))
        .collect();
    let refused = reducer.apply(all, now());
    assert_eq!(refused, [Refused::NoSlot(pod("p1024").name.clone())]);
    reducer.apply(vec![Update::PodGone(pod("p3").name.clone())], now());
    assert_eq!(reducer.apply(vec![Update::Pod(pod("late"))], now()), []);
    assert_eq!(
        reducer
            .view()
            .pods
            .get(&Slot::new(3).unwrap())
            .unwrap()
            .name
            .name
            .as_ref(),
        "late"
    );
}

#[test]
fn the_kernel_is_told_of_a_virtual_address_for_which_the_agent_knows_nobody() {
    let of = |protocol, endpoints: Endpoints| {
        let mut service = Service::clone(&service("a", &["10.96.0.1"], &[]));
        let port = ServicePort {
            protocol,
            endpoints,
            ..ServicePort::clone(&service.ports[0])
        };
        service.ports = vec![Arc::new(port)];
        Update::Service(Arc::new(service))
    };
    let mut reducer = Reducer::default();
    let mut check = |update, expect| {
        reducer.apply(vec![update], now());
        let view = reducer.view();
        let mut all = view.destinations.values();
        let address = all.find(|it| it.address.to_string() == "10.96.0.1:80").unwrap();
        assert_eq!(address.answered_by, expect);
    };
    let somebody = || vec![Endpoint::new("10.0.0.1:80".parse().unwrap())];
    check(of(Protocol::Tcp, vec![].into()), AnsweredBy::Nobody);
    check(of(Protocol::Tcp, somebody().into()), AnsweredBy::Agent);
    check(of(Protocol::Tcp, vec![].into()), AnsweredBy::Nobody);
    check(
        of(Protocol::Tcp, Endpoints::Unknown { instead: None }),
        AnsweredBy::Agent,
    );
    let left = || Endpoints::LeftToNode {
        instead: Endpoint::new("10.96.0.1:80".parse().unwrap()),
        why: "",
    };
    check(of(Protocol::Tcp, left()), AnsweredBy::Node);
    check(of(Protocol::Http, left()), AnsweredBy::Agent);
    // An answer of HTTP says more.
    check(of(Protocol::Http, vec![].into()), AnsweredBy::Agent);
    check(of(Protocol::Detect, vec![].into()), AnsweredBy::Agent);
    check(of(Protocol::Tcp, vec![].into()), AnsweredBy::Nobody);
    check(Update::ServiceGone(name("a")), AnsweredBy::Agent);
}
