//! Connections that pods open: redirected, and what the application sees of it.

use std::net::{IpAddr, SocketAddr};

use derny::{
    intercept::{Enrolled, Path},
    model::AnsweredBy,
};
use serde_json::{Value, json};

use crate::mesh::{ID, Mesh, VIP, VIP6, address, dial, pair, slot, word};

/// Dials a redirected address: the outbound listener must get it with its id, and the application must see the
/// address that it dialled.
#[track_caller]
fn assert_redirected(dialled: &str, shown: &str, options: Value, source: &str) {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    mesh.enrol(5, &pod, &[]);
    mesh.redirect(address(VIP));
    mesh.redirect(address(VIP6));
    let seen = dial(&pod, address(dialled), options);
    assert_eq!(seen.said, format!("outbound {ID} from {source}"), "{seen:?}");
    assert_eq!(seen.peer, Some(address(shown)), "{seen:?}");
    if seen.all["peer"][0] == address(dialled).ip().to_string() {
        let own: [IpAddr; 3] = [
            pod.ip().into(),
            pod.ip().to_ipv6_mapped().into(),
            pod.ip6().into(),
        ];
        assert!(
            own.contains(&seen.local.unwrap().ip()),
            "not its own address: {seen:?}"
        );
    }
    mesh.assert_counted(5, |counters| {
        counters[Path::Redirected] = 1;
        counters[Path::SteeredOutbound] = 1;
    });
    let hits: u64 = mesh
        .kernel
        .observer()
        .unwrap()
        .destinations()
        .unwrap()
        .iter()
        .map(|it| it.hits)
        .sum();
    assert_eq!(hits, 1);
}

#[test]
fn an_ipv4_socket() {
    assert_redirected(VIP, VIP, json!({}), "127.0.0.1");
}

#[test]
fn an_ipv6_socket_that_dials_ipv4() {
    assert_redirected(
        "[::ffff:10.96.0.7]:80",
        "[::ffff:10.96.0.7]:80",
        json!({}),
        "127.0.0.1",
    );
}

#[test]
fn an_ipv6_socket() {
    assert_redirected(VIP6, VIP6, json!({}), "::1");
}

#[test]
fn a_v6only_socket() {
    assert_redirected(VIP6, VIP6, json!({"v6only": true}), "::1");
}

#[test]
fn a_bound_ipv4_source() {
    // The first pod of a node.
    assert_redirected(VIP, VIP, json!({"bind": ["10.0.0.2", 4444]}), "10.0.0.2");
}

#[test]
fn a_bound_ipv6_source() {
    assert_redirected(
        VIP6,
        VIP6,
        json!({"bind": ["fd00::2", 4444], "v6only": true}),
        "fd00::2",
    );
}

#[test]
fn a_connect_that_carries_data() {
    // Connects without the system call of that name.
    assert_redirected(VIP, VIP, json!({"fastopen": true}), "127.0.0.1");
}

#[test]
fn a_multipath_socket() {
    // The kernel connects its first subflow, which is another socket than the application's.
    assert_redirected(VIP, VIP, json!({"mptcp": true}), "127.0.0.1");
    assert_redirected(VIP6, VIP6, json!({"mptcp": true}), "::1");
}

#[test]
fn a_nonblocking_connect() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    mesh.enrol(5, &pod, &[]);
    mesh.redirect(address(VIP));
    let seen = dial(&pod, address(VIP), json!({"nonblocking": true}));
    assert_eq!(seen.all["in_progress"], true);
    assert_eq!(seen.said, format!("outbound {ID} from 127.0.0.1"));
    assert_eq!(seen.peer, Some(address(VIP)));
    mesh.assert_counted(5, |counters| {
        (counters[Path::Redirected], counters[Path::SteeredOutbound]) = (1, 1)
    });
}

#[test]
fn a_socket_connected_elsewhere_after_a_failure_shows_the_second_address() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    let enrolled = mesh.kernel.enrol(slot(5), &word(&pod, &[]), 1).unwrap();
    mesh.redirect(address(VIP));
    // Nobody listens any more, so the redirected connect is refused.
    drop(enrolled.listeners);
    let loopback: SocketAddr = address("127.0.0.1:8080");
    crate::mesh::app(&pod, loopback.ip(), loopback.port());
    let seen = dial(&pod, loopback, json!({"first": pair(address(VIP))}));
    assert_eq!(seen.said, "app here from 127.0.0.1", "{seen:?}");
    assert_eq!(seen.peer, Some(loopback));
    mesh.assert_counted(5, |counters| {
        (
            counters[Path::Redirected],
            counters[Path::NoListener],
            counters[Path::PassedUnknown],
        ) = (1, 1, 1);
    });
}

#[test]
fn two_pods_with_the_same_loopback_tuple_are_told_apart() {
    let mut mesh = Mesh::new();
    let (a, b) = (mesh.node.pod("a").unwrap(), mesh.node.pod("b").unwrap());
    let ports = [(1, &a), (2, &b)].map(|(number, pod)| {
        let mut enrolled = mesh.kernel.enrol(slot(number), &word(pod, &[]), 1).unwrap();
        let port = v6_port(&enrolled);
        mesh.serve(&mut enrolled);
        port
    });
    assert_eq!(ports[0], ports[1], "the same in each pod");
    mesh.redirect(address(VIP6));
    let other = address("[fd96::8]:80");
    mesh.kernel
        .serve(
            other,
            derny::model::DestinationId::new(8).unwrap(),
            "shop/other:80",
            AnsweredBy::Agent,
        )
        .unwrap();
    // Often enough that the same of the ports is drawn for both.
    for source in 4444..4524 {
        let bound = json!({"bind": ["::1", source], "v6only": true});
        assert_eq!(
            dial(&a, address(VIP6), bound.clone()).said,
            format!("outbound {ID} from ::1")
        );
        assert_eq!(dial(&b, other, bound).said, "outbound 8 from ::1");
    }
}

/// Of the outbound listener on `[::1]`.
fn v6_port(enrolled: &Enrolled) -> u16 {
    let outbound = &enrolled.listeners[0].outbound;
    outbound[1].local_addr().unwrap().port()
}

#[test]
fn a_destination_that_nobody_answers_for_is_refused() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    mesh.enrol(5, &pod, &[]);
    let all = [VIP, VIP6].map(address);
    for address in all {
        mesh.answered_by(address, AnsweredBy::Nobody);
    }
    let refused = |mesh: &Mesh, count: u64| {
        for address in all {
            let seen = dial(&pod, address, json!({}));
            assert!(seen.error.contains("refused"), "{seen:?}");
            let seen = dial(&pod, address, json!({"nonblocking": true}));
            assert_eq!(seen.all["in_progress"], false, "{seen:?}");
        }
        assert_eq!(mesh.counters(Some(5))[Path::RefusedDead], count);
    };
    refused(&mesh, 4);
    for address in all {
        mesh.redirect(address);
        assert!(dial(&pod, address, json!({})).said.starts_with("outbound"));
        mesh.answered_by(address, AnsweredBy::Nobody);
    }
    refused(&mesh, 8);
    // An agent that hangs refuses nothing.
    mesh.fall_silent();
    dial(&pod, all[0], json!({}));
    let counters = mesh.counters(Some(5));
    assert_eq!((counters[Path::RefusedDead], counters[Path::PassedStale]), (8, 1));
}

#[test]
fn another_pods_redirected_address_cannot_be_dialled_by_hand() {
    let mut mesh = Mesh::new();
    let (a, b) = (mesh.node.pod("a").unwrap(), mesh.node.pod("b").unwrap());
    mesh.enrol(1, &a, &[]);
    mesh.enrol(2, &b, &[]);
    mesh.redirect(address(VIP));
    // Slot 2, destination 98765: what pod b's connections to the VIP become.
    let forged = address("127.192.32.3:33229");
    assert_eq!(
        dial(&b, forged, json!({})).said,
        format!("outbound {ID} from 127.0.0.1")
    );
    let seen = dial(&a, forged, json!({}));
    assert_eq!(seen.said, "", "{seen:?}");
    assert_ne!(seen.error, "");
}

#[test]
fn the_outbound_listener_itself_is_nobodys_destination() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    let mut enrolled = mesh.kernel.enrol(slot(5), &word(&pod, &[]), 1).unwrap();
    let outbound = &enrolled.listeners[0].outbound;
    let listening: Vec<SocketAddr> = outbound.iter().map(|it| it.local_addr().unwrap()).collect();
    mesh.serve(&mut enrolled);
    for listening in listening {
        assert!(
            dial(&pod, listening, json!({}))
                .said
                .starts_with("outbound nothing"),
            "{listening}"
        );
    }
}
