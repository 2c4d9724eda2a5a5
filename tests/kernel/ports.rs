//! Where the agent's listeners stand in a pod.

use std::{collections::BTreeSet, net::TcpListener};

use crate::mesh::{Mesh, slot, word};

/// The listeners' ports in a pod with this range of ephemeral ports.
fn ports_beside(range: &str, declared: &[u16], bound: Option<u16>) -> BTreeSet<u16> {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("pod").unwrap();
    pod.netns()
        .sysctl(&[("ipv4/ip_local_port_range", range)])
        .unwrap();
    let application = bound.map(|port| pod.inside(|| TcpListener::bind(("::", port)).unwrap()).unwrap());
    let enrolled = mesh.kernel.enrol(slot(0), &word(&pod, declared), 2).unwrap();
    let workers = enrolled.listeners.iter();
    let listeners = workers.flat_map(|worker| worker.outbound.iter().chain(&worker.inbound));
    let addresses: BTreeSet<_> = listeners.map(|listener| listener.local_addr().unwrap()).collect();
    assert_eq!(addresses.len(), 4, "one of each kind: {addresses:?}");
    drop(application);
    // Whoever asks the kernel for a port, or binds its own localhost, does not meet them.
    pod.inside(|| {
        for address in &addresses {
            let own = TcpListener::bind(("127.0.0.1", address.port()));
            assert!(own.is_ok(), "{address}: {own:?}");
        }
    })
    .unwrap();
    addresses.iter().map(|address| address.port()).collect()
}

#[test]
fn listeners_stand_beside_the_ports_of_the_pod() {
    for (range, declared, bound) in [
        ("32768 60999", &[65_535, 65_533][..], Some(65_534)),
        ("40000 40099", &[], None),
        ("1024 65535", &[1023], Some(1022)),
    ] {
        let (first, last) = range.split_once(' ').unwrap();
        let ephemeral = first.parse().unwrap()..=last.parse::<u16>().unwrap();
        let ports = ports_beside(range, declared, bound);
        for port in &ports {
            assert!(
                !ephemeral.contains(port) && !declared.contains(port) && Some(*port) != bound,
                "{ports:?} with {range}"
            );
        }
    }
}
