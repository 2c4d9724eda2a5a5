//! Pods that come and go by the thousand, under traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use derny_tests::{holdings::Namespace, load::Load, observe::now};

use crate::enrolling::{Mesh, SOON};

/// How long a withdrawn pod's sockets may last in the test below: listeners linger for a second, then comes the drain.
const GRACE: Duration = Duration::from_secs(8);
const PODS: usize = 8;
const ENROLMENTS: usize = 2000;

#[test]
fn every_socket_lies_in_the_namespace_of_the_pod_that_it_serves() {
    let mut mesh = Mesh::new(PODS, "500ms");
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let namespaces: Vec<Namespace> = mesh.pods.iter().map(|pod| pod.namespace().unwrap()).collect();
    let by_ip: BTreeMap<String, u64> = (mesh.pods.iter().zip(&namespaces))
        .flat_map(|(pod, netns)| {
            [
                (pod.ip().to_string(), netns.cookie),
                (pod.ip6().to_string(), netns.cookie),
            ]
        })
        .collect();
    let arguments = ["--connections", "2", "--per-connection", "3", "--pause", "10-60"];
    let loads: Vec<Load> = (mesh.pods.iter())
        .map(|pod| Load::http(pod, &mesh.target(), &arguments).unwrap())
        .collect();
    let node = mesh.agent.holdings().unwrap().cookies();
    assert_eq!(node.len(), 1, "the node's own: {node:?}");
    let (mut enrolled, mut enrolments) = (BTreeSet::new(), 0);
    let mut last_seen: BTreeMap<u64, Instant> = BTreeMap::new();
    while enrolments < ENROLMENTS {
        let wanted: BTreeSet<usize> = (0..PODS).filter(|_| random.next().is_multiple_of(2)).collect();
        if wanted == enrolled {
            continue;
        }
        enrolments += wanted.difference(&enrolled).count();
        enrolled.clone_from(&wanted);
        mesh.enrol(wanted);
        last_seen.extend(enrolled.iter().map(|pod| (namespaces[*pod].cookie, now())));
        let looked = now();
        for socket in mesh.agent.holdings().unwrap().sockets {
            if node.contains(&socket.netns_cookie) {
                continue;
            }
            let known = last_seen.get(&socket.netns_cookie);
            assert!(
                known.is_some_and(|seen| looked < *seen + GRACE),
                "after {enrolments} enrolments, of a pod that is none: {socket:?}"
            );
            // A dialled or steered socket has the address of the pod in whose namespace it lies.
            let Some(local) = socket.local else {
                // Of another family: how a namespace is asked what it has, for a moment.
                continue;
            };
            let ip = local.ip().to_canonical();
            let owner = by_ip.get(&ip.to_string());
            assert!(
                ip.is_loopback() || owner == Some(&socket.netns_cookie),
                "{socket:?}"
            );
        }
    }
    mesh.enrol([]);
    for netns in &namespaces {
        mesh.holds_nothing_of(*netns, SOON);
    }
    let mut through = 0;
    for (load, pod) in loads.into_iter().zip(&mesh.pods) {
        let calls = load.end().unwrap();
        let answered = calls.iter().filter(|call| call.ok);
        let wrong = answered
            .clone()
            .find(|call| call.peer_ip() != Some(pod.ip().into()));
        assert!(wrong.is_none(), "a call of {} came from {wrong:?}", pod.ip());
        let failed = calls.len() - answered.count();
        assert!(failed * 50 < calls.len(), "{failed} of {} failed", calls.len());
        through += calls.iter().filter(|call| call.by_derny()).count();
    }
    assert!(through > 100, "only {through} calls passed the agent");
}

/// xorshift64: which pods, in a way that a seed repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 20
    }
}
