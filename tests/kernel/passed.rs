//! Connections that are left alone.

use derny::{
    intercept::{MARK, Path},
    model::{AnsweredBy, DestinationId},
};
use derny_tests::Pod;
use serde_json::{Value, json};

use crate::mesh::{APP, Mesh, VIP, VIP6, address, app, dial};

/// A client, and a server whose address is redirected. Dropped in the order of its fields.
struct Pair {
    client: Pod,
    server: Pod,
    mesh: Mesh,
}

impl Pair {
    /// The client is enrolled in slot 5.
    fn new() -> Self {
        let mut this = Self::not_enrolled();
        this.mesh.enrol(5, &this.client, &[]);
        this
    }

    /// And the server in slot 6, with its port.
    fn both_enrolled() -> Self {
        let mut this = Self::new();
        this.mesh.enrol(6, &this.server, &[APP]);
        this
    }

    fn not_enrolled() -> Self {
        let mut mesh = Mesh::new();
        let (client, server) = (mesh.node.pod("client").unwrap(), mesh.node.pod("server").unwrap());
        app(&server, server.ip().into(), APP);
        mesh.redirect(server.address(APP));
        Self { client, server, mesh }
    }

    /// The client's connection, with these options of `dial.py`, reaches the application as it was dialled.
    #[track_caller]
    fn passes(&self, options: Value) {
        let seen = dial(&self.client, self.server.address(APP), options);
        assert_eq!(seen.said, format!("app here from {}", self.client.ip()));
    }

    #[track_caller]
    fn is_redirected(&self) {
        let seen = dial(&self.client, self.server.address(APP), json!({}));
        assert!(seen.said.starts_with("outbound"), "{seen:?}");
    }
}

#[test]
fn a_connected_udp_socket() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    mesh.enrol(5, &pod, &[]);
    mesh.redirect(address(VIP));
    let seen = dial(&pod, address(VIP), json!({"udp": true}));
    // From the pod's own address: a redirected one would leave from the loopback's.
    assert_eq!(
        (seen.peer, &seen.all["local"][0]),
        (Some(address(VIP)), &json!(pod.ip().to_string()))
    );
    mesh.assert_counted(5, |_| {});
}

#[test]
fn a_destination_that_is_left_to_the_node() {
    let mut pair = Pair::new();
    let target = pair.server.address(APP);
    pair.mesh.answered_by(target, AnsweredBy::Node);
    pair.passes(json!({}));
    let destinations = pair.mesh.kernel.observer().unwrap().destinations().unwrap();
    assert_eq!(destinations[0].answered_by, AnsweredBy::Node);
    pair.mesh
        .assert_counted(5, |counters| counters[Path::PassedLeftToNode] = 1);
    pair.mesh.redirect(target);
    pair.is_redirected();
}

#[test]
fn a_pod_that_is_not_enrolled() {
    let pair = Pair::not_enrolled();
    pair.passes(json!({}));
    assert_eq!(pair.mesh.counters(None)[Path::PassedNotEnrolled], 1);
    let destinations = pair.mesh.kernel.observer().unwrap().destinations().unwrap();
    assert_eq!(destinations[0].hits, 0);
}

#[test]
fn a_socket_with_the_agents_mark() {
    let pair = Pair::new();
    pair.passes(json!({"mark": MARK}));
    pair.mesh.assert_counted(5, |_| {});
    // The same without the mark is redirected.
    pair.is_redirected();
}

#[test]
fn an_application_on_the_pods_loopback() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    mesh.enrol(5, &pod, &[APP]);
    let loopback = address("127.0.0.1:8080");
    app(&pod, loopback.ip(), loopback.port());
    let seen = dial(&pod, loopback, json!({}));
    assert_eq!(
        (seen.said.as_str(), seen.peer),
        ("app here from 127.0.0.1", Some(loopback))
    );
    mesh.assert_counted(5, |counters| counters[Path::PassedUnknown] = 1);
}

#[test]
fn everything_while_the_agent_is_silent() {
    let mut pair = Pair::both_enrolled();
    pair.mesh.fall_silent();
    pair.passes(json!({}));
    pair.mesh
        .assert_counted(5, |counters| counters[Path::PassedStale] = 1);
    pair.mesh
        .assert_counted(6, |counters| counters[Path::SkippedStale] = 1);

    pair.mesh.revive();
    pair.is_redirected();
    pair.mesh.assert_counted(5, |counters| {
        (
            counters[Path::PassedStale],
            counters[Path::Redirected],
            counters[Path::SteeredOutbound],
        ) = (1, 1, 1);
    });
}

#[test]
fn everything_before_the_first_sign_of_life() {
    let mut mesh = Mesh::without_a_beat();
    let pod = mesh.node.pod("client").unwrap();
    app(&pod, pod.ip().into(), APP);
    mesh.enrol(5, &pod, &[]);
    mesh.redirect(pod.address(APP));
    assert_eq!(mesh.kernel.observer().unwrap().heartbeat_age().unwrap(), None);
    assert_eq!(
        dial(&pod, pod.address(APP), json!({})).said,
        format!("app here from {}", pod.ip())
    );
    mesh.assert_counted(5, |counters| counters[Path::PassedStale] = 1);
}

#[test]
fn everything_once_the_agents_programs_are_gone() {
    let pair = Pair::both_enrolled();
    pair.is_redirected();
    let Pair { client, server, mesh } = pair;
    let Mesh { kernel, node, .. } = mesh;
    drop(kernel);
    assert_eq!(
        dial(&client, server.address(APP), json!({})).said,
        format!("app here from {}", client.ip())
    );
    drop(node);
}

#[test]
fn a_destination_that_is_no_more() {
    let mut pair = Pair::new();
    let address = pair.server.address(APP);
    pair.mesh.kernel.stop_redirecting(address).unwrap();
    pair.mesh.kernel.stop_redirecting(address).unwrap();
    pair.passes(json!({}));
    pair.mesh
        .assert_counted(5, |counters| counters[Path::PassedUnknown] = 1);
}

#[test]
fn a_socket_bound_to_a_device() {
    let pair = Pair::new();
    pair.passes(json!({"device": "eth0"}));
    pair.mesh
        .assert_counted(5, |counters| counters[Path::PassedBoundDevice] = 1);
}

#[test]
fn ipv6_where_the_pod_has_no_ipv6_loopback() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    pod.netns().sysctl(&[("ipv6/conf/lo/disable_ipv6", "1")]).unwrap();
    app(&pod, pod.ip().into(), APP);
    mesh.enrol(5, &pod, &[]);
    mesh.redirect(address(VIP6));
    let seen = dial(&pod, address(VIP6), json!({}));
    assert_eq!(seen.said, "", "nobody has that address: {seen:?}");
    mesh.assert_counted(5, |counters| counters[Path::PassedNoIpv6] = 1);
    // IPv4 goes on.
    mesh.redirect(address(VIP));
    assert!(dial(&pod, address(VIP), json!({})).said.starts_with("outbound"));
}

#[test]
fn a_destination_beyond_the_tables_capacity() {
    let mut mesh = Mesh::with(|options| options.max_destinations = 1);
    mesh.redirect(address(VIP));
    let error = mesh
        .kernel
        .serve(
            address(VIP6),
            DestinationId::new(1).unwrap(),
            "",
            AnsweredBy::Agent,
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("DERNY_DESTS is full at 1 entries; {VIP6} is left alone")
    );
    // The one that is there can be changed.
    mesh.redirect(address(VIP));
}
