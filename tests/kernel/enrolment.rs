//! Pods come and go.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use derny::intercept::{MARK, Netns, Observer, Path};
use serde_json::json;

use crate::mesh::{APP, ID, Mesh, VIP, VIP6, address, app, dial, slot, word};

#[test]
fn every_program_passes_the_verifier_with_the_log_off_and_on() {
    // `Kernel::load` loads all of them.
    Mesh::new();
    Mesh::with(|options| options.log_level = 4);
}

#[test]
fn what_the_programs_say_reaches_the_agents_log() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .init();
    let mut mesh = Mesh::with(|options| options.log_level = 4);
    let pod = mesh.node.pod("client").unwrap();
    mesh.enrol(5, &pod, &[]);
    mesh.redirect(address(VIP));
    dial(&pod, address(VIP), json!({}));
    derny_tests::eventually("the line", Duration::from_secs(5), || {
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .any(|line| line.contains(&format!("redirected slot 5 destination {ID}")))
    })
    .unwrap();
}

#[test]
fn a_withdrawn_pod_is_left_alone_and_can_come_back() {
    let mut mesh = Mesh::new();
    let (client, server) = (mesh.node.pod("client").unwrap(), mesh.node.pod("server").unwrap());
    app(&server, server.ip().into(), APP);
    mesh.redirect(server.address(APP));
    for _ in 0..2 {
        mesh.enrol(1, &client, &[]);
        mesh.enrol(2, &server, &[APP]);
        assert!(
            dial(&client, server.address(APP), json!({}))
                .said
                .starts_with("outbound")
        );
        mesh.assert_counted(1, |counters| {
            (counters[Path::Redirected], counters[Path::SteeredOutbound]) = (1, 1)
        });
        mesh.kernel.withdraw(slot(1));
        mesh.kernel.withdraw(slot(1));
        // The client goes direct, and arrives as a stranger.
        assert!(
            dial(&client, server.address(APP), json!({}))
                .said
                .starts_with("inbound")
        );
        mesh.kernel.withdraw(slot(2));
        assert!(
            dial(&client, server.address(APP), json!({}))
                .said
                .starts_with("app")
        );
        assert_eq!(mesh.kernel.observer().unwrap().pods().unwrap(), []);
    }
    assert_eq!(mesh.counters(None)[Path::PassedNotEnrolled], 4);
}

#[test]
fn an_established_connection_outlives_its_pods_withdrawal() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    let mut enrolled = mesh.kernel.enrol(slot(1), &word(&pod, &[]), 1).unwrap();
    mesh.redirect(address(VIP));
    let listener = enrolled.listeners.remove(0).outbound.remove(0);
    listener.set_nonblocking(false).unwrap();
    // A redirected address by hand: slot 1, destination 0.
    let client = pod
        .inside(|| TcpStream::connect("127.192.16.0:32768").unwrap())
        .unwrap();
    let (accepted, _) = listener.accept().unwrap();
    mesh.kernel.withdraw(slot(1));
    (&accepted).write_all(b"still here").unwrap();
    drop(accepted);
    let mut said = String::new();
    (&client).read_to_string(&mut said).unwrap();
    assert_eq!(said, "still here");
}

#[test]
fn the_kernel_spreads_connections_over_the_workers() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    let enrolled = mesh.kernel.enrol(slot(0), &word(&pod, &[]), 2).unwrap();
    let listeners: Vec<_> = enrolled
        .listeners
        .iter()
        .map(|worker| (&worker.outbound[0], worker.outbound.len()))
        .collect();
    assert_eq!(listeners.len(), 2);
    let clients: Vec<_> = (0..64)
        .map(|_| {
            pod.inside(|| TcpStream::connect("127.192.0.0:32768").unwrap())
                .unwrap()
        })
        .collect();
    let accepted: Vec<usize> = listeners
        .iter()
        .map(|(listener, families)| {
            assert_eq!(*families, 2, "IPv4 and IPv6");
            std::iter::from_fn(|| listener.accept().ok()).count()
        })
        .collect();
    assert_eq!(accepted.iter().sum::<usize>(), clients.len());
    // 64 fair coins show one side fewer than 8 times once in 10^10.
    assert!(accepted.iter().all(|count| *count >= 8), "{accepted:?}");
}

#[test]
fn what_cannot_be_enrolled_says_why_and_changes_nothing() {
    let mut mesh = Mesh::new();
    let (a, b) = (mesh.node.pod("a").unwrap(), mesh.node.pod("b").unwrap());
    mesh.enrol(1, &a, &[APP]);
    let mut enrol = |number, pod| mesh.kernel.enrol(slot(number), &pod, 1).unwrap_err().to_string();
    assert_eq!(enrol(1, word(&b, &[])), "slot 1 of shop/b is taken by shop/a");

    let mut same = word(&b, &[]);
    same.netns = a.netns_path().into();
    let path = a.netns_path().display();
    assert_eq!(
        enrol(2, same),
        format!("shop/b and shop/a name the same network namespace {path}")
    );

    let mut host = word(&b, &[]);
    host.netns = "/proc/self/ns/net".into();
    assert!(enrol(2, host).contains("/proc/self/ns/net of shop/b is the agent's own network namespace"));

    let mut file = word(&b, &[]);
    file.netns = "/proc/self/ns/uts".into();
    assert_eq!(
        enrol(2, file),
        "network namespace /proc/self/ns/uts of shop/b: not a network namespace"
    );

    let mut none = word(&b, &[]);
    none.netns = "/run/netns/derny-none".into();
    assert!(enrol(2, none).contains("No such file"));

    b.netns().ip_batch("address flush dev eth0\n").unwrap();
    assert_eq!(
        enrol(2, word(&b, &[APP])),
        "shop/b has ports to steer and no address yet"
    );
    let again = format!(
        "address add {}/32 dev eth0\nroute add 10.0.0.1 dev eth0 scope link\n",
        b.ip()
    );
    b.netns()
        .ip_batch(&format!("{again}route add default via 10.0.0.1 dev eth0\n"))
        .unwrap();

    b.netns().ip_batch("link set lo down\n").unwrap();
    assert_eq!(enrol(2, word(&b, &[])), "the loopback of shop/b is down");
    b.netns().ip_batch("link set lo up\n").unwrap();

    let nobody = mesh
        .kernel
        .enrol(slot(2), &word(&b, &[]), 0)
        .unwrap_err()
        .to_string();
    assert_eq!(nobody, "no listener in shop/b: no worker to accept");

    let observer = mesh.kernel.observer().unwrap();
    assert_eq!(observer.pods().unwrap().len(), 1);
    // Nothing was left behind that would stand in the way, and the first pod is as it was.
    mesh.enrol(2, &b, &[APP]);
    assert_eq!(
        dial(&b, a.address(APP), json!({})).said,
        format!("inbound {} from {}", a.address(APP), b.ip())
    );
    assert_eq!(
        dial(&a, b.address(APP), json!({})).said,
        format!("inbound {} from {}", b.address(APP), a.ip())
    );
}

#[test]
fn a_namespace_that_goes_is_noticed() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    mesh.enrol(1, &pod, &[]);
    assert!(!mesh.kernel.netns_gone(slot(1)));
    assert!(!mesh.kernel.netns_gone(slot(2)), "an empty slot");
    drop(pod);
    assert!(mesh.kernel.netns_gone(slot(1)));
    // Another namespace under the same name is another pod.
    let _again = mesh.node.pod("client").unwrap();
    assert!(mesh.kernel.netns_gone(slot(1)));
}

#[test]
fn the_maps_tell_an_operator_what_is_redirected() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    let enrolled = mesh.enrol(9, &pod, &[]);
    assert_eq!(
        BTreeSet::from_iter(enrolled.addresses.own.clone()),
        BTreeSet::from([pod.ip().into(), pod.ip6().into()])
    );
    mesh.redirect(address(VIP));
    mesh.redirect(address(VIP6));
    dial(&pod, address(VIP), json!({}));
    // A new description of the same address keeps its hits.
    mesh.redirect(address(VIP));

    let cookie = enrolled.netns.cookie();
    // As another process finds it: among the agents of this machine, by the maps alone.
    let found = Observer::find().unwrap();
    let ours = found
        .iter()
        .find(|it| it.pods().unwrap().iter().any(|pod| pod.netns_cookie == cookie))
        .unwrap();
    let pods = ours.pods().unwrap();
    assert_eq!((pods[0].slot, pods[0].label.as_str()), (slot(9), "shop/client"));
    let destinations = ours.destinations().unwrap();
    let shown: Vec<_> = destinations
        .iter()
        .map(|it| (it.address, it.id.get(), it.hits, it.label.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (address(VIP), ID, 1, "shop/cart:80"),
            (address(VIP6), ID, 0, "shop/cart:80")
        ]
    );
    assert!(ours.heartbeat_age().unwrap().unwrap() < Duration::from_secs(1));
}

#[test]
fn a_namespace_is_entered_by_one_thread_for_a_moment() {
    let mesh = Mesh::new();
    let pod = mesh.node.pod("client").unwrap();
    let netns = Netns::open(pod.netns_path()).unwrap();
    let here = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let home = here();
    let inside = netns.enter(here).unwrap();
    assert_ne!(inside, home);
    assert_eq!(here(), home);
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| netns.enter(|| panic!("inside"))));
    assert!(panicked.is_err());
    assert_eq!(here(), home, "also after a panic");
    let socket = netns.tcp_socket(address(VIP)).unwrap();
    assert_eq!(socket.mark().unwrap(), MARK);
    let Err(error) = Netns::open("/dev/null".as_ref()) else {
        panic!("opened")
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
}

#[test]
fn an_address_that_two_pods_have_is_steered_in_each() {
    let mut mesh = Mesh::new();
    let pods = ["a", "b"].map(|name| mesh.node.pod(name).unwrap());
    let caller = mesh.node.pod("caller").unwrap();
    for (number, pod) in (1..).zip(&pods) {
        pod.netns()
            .ip_batch("address add 10.0.2.1/32 dev eth0\n")
            .unwrap();
        mesh.enrol(number, pod, &[APP]);
    }
    for (number, pod) in (1..).zip(&pods) {
        let host = mesh.node.host().netns();
        let route = format!("route replace 10.0.2.1/32 via {}\n", pod.ip());
        host.ip_batch(&route).unwrap();
        let to = address(&format!("10.0.2.1:{APP}"));
        assert_eq!(
            dial(&caller, to, json!({})).said,
            format!("inbound {to} from {}", caller.ip())
        );
        mesh.assert_counted(number, |counters| counters[Path::SteeredInbound] = 1);
    }
}

#[test]
fn what_a_pod_has_steered_follows_its_addresses_within_its_share() {
    let mut mesh = Mesh::with(|options| options.max_inbound = 3);
    let pod = mesh.node.pod("a").unwrap();
    let mut it = word(&pod, &[APP, APP + 1]);
    let given = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|it| it.parse().unwrap());
        derny::model::PodAddresses::Given(addresses.collect())
    };
    it.addresses = given(&[]);
    let enrolled = mesh.kernel.enrol(slot(1), &it, 1).unwrap();
    assert_eq!(
        (enrolled.addresses.own, enrolled.addresses.over_share),
        (vec![], 0)
    );
    let mut follow = |addresses: &[&str]| {
        it.addresses = given(addresses);
        let followed = mesh.kernel.follow_addresses(slot(1), &it).unwrap();
        followed.map(|now| (now.own.len(), now.over_share))
    };
    assert_eq!(follow(&["10.0.0.9"]), Some((1, 0)));
    assert_eq!(follow(&["10.0.0.9"]), None);
    assert_eq!(follow(&["10.0.0.9", "10.0.0.8"]), Some((2, 1)));
    assert_eq!(follow(&["10.0.0.8"]), Some((1, 0)));
    assert_eq!(follow(&[]), Some((0, 0)));
}

#[test]
fn a_change_of_a_pods_interfaces_is_heard_of() {
    let mut mesh = Mesh::new();
    let pod = mesh.node.pod("a").unwrap();
    let it = word(&pod, &[APP]);
    mesh.enrol(1, &pod, &[APP]);
    assert_eq!(mesh.kernel.follow_addresses(slot(1), &it).unwrap(), None);
    pod.netns()
        .ip_batch("address add 10.9.9.9/32 dev eth0\n")
        .unwrap();
    let now = mesh.kernel.follow_addresses(slot(1), &it).unwrap().unwrap();
    assert!(now.own.contains(&address("10.9.9.9:0").ip()), "{now:?}");
    pod.netns()
        .ip_batch("address del 10.9.9.9/32 dev eth0\n")
        .unwrap();
    let now = mesh.kernel.follow_addresses(slot(1), &it).unwrap().unwrap();
    assert_eq!(now.own.len(), 2);
}

#[test]
fn another_pods_redirected_address_reaches_nobody() {
    let mut mesh = Mesh::new();
    let (a, b) = (mesh.node.pod("a").unwrap(), mesh.node.pod("b").unwrap());
    mesh.enrol(1, &a, &[]);
    mesh.enrol(2, &b, &[]);
    // By hand: slot 1, destination 0.
    let dialled = |pod: &derny_tests::Pod| pod.inside(|| TcpStream::connect("127.192.16.0:32768").is_ok());
    assert!(dialled(&a).unwrap());
    assert!(!dialled(&b).unwrap());
    mesh.assert_counted(1, |counters| counters[Path::SteeredOutbound] = 1);
    mesh.assert_counted(2, |counters| counters[Path::NoListener] = 1);
}
