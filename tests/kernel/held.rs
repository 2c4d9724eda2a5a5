//! Pods that are held: what they dial is refused.

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt as _};

use derny::{
    intercept::{MARK, Observer, Path},
    model::{GroupId, PodName},
};
use derny_tests::Pod;
use serde_json::{Value, json};

use crate::mesh::{APP, Mesh, Seen, address, app, dial, dialling, slot, word};

/// A client that may be held, and a server that answers it. Dropped in the order of its fields.
struct Pair {
    client: Pod,
    server: Pod,
    mesh: Mesh,
}

impl Pair {
    /// The client is held, and its namespace is not enrolled.
    fn held() -> Self {
        let mut this = Self::new();
        this.hold();
        this
    }

    fn new() -> Self {
        let mesh = Mesh::new();
        let (client, server) = (mesh.node.pod("client").unwrap(), mesh.node.pod("server").unwrap());
        app(&server, server.ip().into(), APP);
        app(&server, server.ip6().into(), APP);
        Self { client, server, mesh }
    }

    fn group(&self) -> GroupId {
        GroupId(fs::metadata(self.client.cgroup()).unwrap().ino())
    }

    fn name(&self) -> PodName {
        word(&self.client, &[]).name
    }

    fn hold(&mut self) {
        let (group, name) = (self.group(), self.name());
        self.mesh.kernel.hold(group, &name).unwrap();
    }

    fn release(&mut self) {
        let group = self.group();
        self.mesh.kernel.release(group).unwrap();
    }

    fn targets(&self) -> [SocketAddr; 2] {
        [self.server.address(APP), self.server.address6(APP)]
    }

    #[track_caller]
    fn passes(&self, pod: &Pod, options: &Value) {
        for target in self.targets() {
            let seen = dial(pod, target, options.clone());
            assert!(seen.said.starts_with("app here from"), "{target} {seen:?}");
        }
    }

    /// How often the client has been refused: by its own entry and by the node's counter.
    fn refused(&self) -> (Option<u64>, u64) {
        let held = self.mesh.kernel.observer().unwrap().held().unwrap();
        assert!(held.len() <= 1, "{held:?}");
        let hits = held.first().map(|held| held.hits);
        (hits, self.mesh.counters(None)[Path::RefusedStrict])
    }
}

#[track_caller]
fn is_refused(seen: &Seen) {
    assert_eq!(
        (seen.error.as_str(), seen.said.as_str()),
        ("[Errno 111] Connection refused", ""),
        "{seen:?}"
    );
}

#[test]
fn every_way_to_connect_is_refused_and_counted() {
    let pair = Pair::held();
    for target in pair.targets() {
        for options in [json!({}), json!({"fastopen": true}), json!({"bind": ["", 0]})] {
            is_refused(&dial(&pair.client, target, options));
        }
    }
    // Addresses of IPv4 that an IPv6 socket dials, and a socket that does not wait.
    let mapped = SocketAddr::new(pair.server.ip().to_ipv6_mapped().into(), APP);
    is_refused(&dial(&pair.client, mapped, json!({"family": 6})));
    let seen = dial(
        &pair.client,
        pair.server.address(APP),
        json!({"nonblocking": true}),
    );
    assert_eq!(seen.all["in_progress"], false, "{seen:?}");
    // Also what nobody would have answered.
    is_refused(&dial(&pair.client, address("192.0.2.1:9"), json!({})));
    assert_eq!(pair.refused(), (Some(9), 9));
    assert_eq!(pair.mesh.counters(None)[Path::PassedNotEnrolled], 0);

    // As an operator's command finds it, whether the agent answers or not.
    let found = Observer::find().unwrap();
    let labels = found.iter().flat_map(|agent| agent.held().unwrap());
    let ours = labels.filter(|held| held.group == pair.group());
    assert_eq!(ours.map(|held| held.label).collect::<Vec<_>>(), ["shop/client"]);
}

#[test]
fn containers_below_the_pods_control_group_are_held_with_it() {
    let pair = Pair::held();
    let group = pair.client.cgroup().join("container/init.scope/worker");
    let command = dialling(pair.server.address(APP), json!({}));
    let printed = pair.client.run_from(pair.mesh.node.host(), &group, command);
    is_refused(&Seen::of(&printed.unwrap().success().unwrap()));
    assert_eq!(pair.refused(), (Some(1), 1));
}

#[test]
fn what_stays_in_the_pod_and_what_is_not_tcp_is_not_refused() {
    let pair = Pair::held();
    for (listens, dials) in [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("127.0.0.1:8081", "0.0.0.0:8081"),
        ("[::1]:8082", "[::]:8082"),
    ] {
        let listens = address(listens);
        app(&pair.client, listens.ip(), listens.port());
        let seen = dial(&pair.client, address(dials), json!({}));
        assert!(seen.said.starts_with("app here from"), "{dials} {seen:?}");
    }
    for target in pair.targets() {
        let seen = dial(&pair.client, target, json!({"udp": true}));
        assert_eq!((seen.peer, seen.error.as_str()), (Some(target), ""), "{seen:?}");
    }
    // The agent's own sockets in the pod.
    pair.passes(&pair.client, &json!({"mark": MARK}));
    assert_eq!(pair.refused(), (Some(0), 0));
}

#[test]
fn nobody_else_is_refused() {
    let pair = Pair::held();
    let neighbour = pair.mesh.node.pod("neighbour").unwrap();
    pair.passes(&neighbour, &json!({}));
    assert_eq!(pair.refused(), (Some(0), 0));
    assert_eq!(pair.mesh.counters(None)[Path::PassedNotEnrolled], 2);
}

#[test]
fn an_enrolled_pod_is_redirected_held_or_not_and_there_is_no_gap() {
    let mut pair = Pair::held();
    let target = pair.server.address(APP);
    pair.mesh.redirect(target);
    let is_redirected = |pair: &Pair| {
        let seen = dial(&pair.client, target, json!({}));
        assert!(seen.said.starts_with("outbound"), "{seen:?}");
    };
    is_refused(&dial(&pair.client, target, json!({})));
    let _enrolled = pair.mesh.enrol(5, &pair.client, &[]);
    is_redirected(&pair);
    pair.release();
    pair.release();
    is_redirected(&pair);
    // Held before it is withdrawn, it never goes direct.
    pair.hold();
    is_redirected(&pair);
    pair.mesh.kernel.withdraw(slot(5));
    is_refused(&dial(&pair.client, target, json!({})));
    assert_eq!(pair.refused(), (Some(1), 2));
    // Told twice, it keeps its hits, and is released by one word.
    pair.hold();
    assert_eq!(pair.refused(), (Some(1), 2));
    pair.release();
    pair.passes(&pair.client, &json!({}));
}

#[test]
fn a_held_pod_stays_so_while_the_agent_is_silent_and_no_longer_than_its_programs() {
    let mut pair = Pair::held();
    pair.mesh.fall_silent();
    is_refused(&dial(&pair.client, pair.server.address(APP), json!({})));
    let Pair { client, server, mesh } = pair;
    let Mesh { kernel, node, .. } = mesh;
    drop(kernel);
    let seen = dial(&client, server.address(APP), json!({}));
    assert!(seen.said.starts_with("app here from"), "{seen:?}");
    drop(node);
}
