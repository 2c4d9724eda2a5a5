//! How relayed connections end: as their other side ended, whatever they carry, whoever opened them.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    thread::{self, JoinHandle},
    time::Duration,
};

use derny_tests::{
    AgentOptions, Pod, Process, World, clients, eventually,
    observe::eventually_some,
    upstream::{HTTP_PORT, TCP_PORT, TestdOptions},
};
use nix::sys::signal::Signal;
use socket2::SockRef;

const SOON: Duration = Duration::from_secs(10);

/// A kind of relayed connection: how it is opened, and how its line names it.
#[derive(Clone, Copy, Debug)]
struct Kind {
    service: &'static str,
    port: u16,
    protocol: &'static str,
}

const KINDS: [Kind; 4] = [
    kind("tcp", TCP_PORT, "tcp"),
    kind("any-tcp", TCP_PORT, "tcp"),
    kind("tls", HTTP_PORT, "tcp"),
    kind("http", HTTP_PORT, "upgraded"),
];

const fn kind(service: &'static str, port: u16, protocol: &'static str) -> Kind {
    Kind {
        service,
        port,
        protocol,
    }
}

impl Kind {
    /// Steps after which the server has said "ready".
    fn opening(self) -> Vec<&'static str> {
        match self.protocol {
            "upgraded" => vec![
                "send:GET /up HTTP/1.1\\r\\nhost: a\\r\\nconnection: upgrade\\r\\nupgrade: x\\r\\n\\r\\n",
                "expect:101 ",
                "send:\\x01hello",
                "expect:ready",
            ],
            _ => vec!["send:\\x01hello", "expect:ready"],
        }
    }
}

/// A node with one server pod whose port is the test's.
struct Site {
    world: World,
    stranger: Pod,
}

impl Site {
    fn new(change: impl FnOnce(&mut AgentOptions)) -> Self {
        let mut world = World::with(1, &TestdOptions::default(), change).unwrap();
        world.kill_server(0).unwrap();
        let stranger = world.node.pod("stranger").unwrap();
        let server = &world.servers[0].pod;
        let mut config = world
            .config()
            .pod_inbound(server, "server", TCP_PORT, Some("tcp"));
        let mut http = config.pods.last().unwrap().inbound[0].clone();
        (http.port, http.protocol) = (HTTP_PORT, Some("http".to_owned()));
        config.pods.last_mut().unwrap().inbound.push(http);
        world.reload(config).unwrap();
        let enrolled = [("state", "enrolled")];
        world.agent.metric("derny_pods", &enrolled, |n| n == 2.0).unwrap();
        Self { world, stranger }
    }

    /// The next connection to the server, when its caller has said hello: it is told "ready", and `then` goes on with it.
    fn serve<T: Send + 'static>(
        &self,
        port: u16,
        then: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let listener = listen(&self.world.servers[0].pod, port);
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"hello") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                heard.push(byte[0]);
                if heard.ends_with(b"\r\n\r\n") {
                    let switch =
                        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
                    stream.write_all(switch).unwrap();
                }
            }
            stream.write_all(b"ready").unwrap();
            then(stream)
        })
    }

    /// A conversation that is under way, of a pod of the mesh or of the stranger with the server.
    fn talk(&self, way: Way, kind: Kind, steps: &[&str]) -> Process {
        let (pod, target) = match way {
            Way::Outbound => (
                &self.world.client,
                self.world.vip(kind.service).unwrap().address(),
            ),
            Way::Outbound6 => (
                &self.world.client,
                self.world.vip(kind.service).unwrap().address6(),
            ),
            Way::Inbound => (&self.stranger, self.world.servers[0].pod.address(kind.port)),
            Way::Inbound6 => (&self.stranger, self.world.servers[0].pod.address6(kind.port)),
        };
        begin(pod, target, &[&kind.opening()[..], steps].concat())
    }

    /// What the line of the only connection so far says went wrong.
    fn flag(&self, kind: Kind, number: usize) -> String {
        let mut flags = Vec::new();
        eventually("the line is written", SOON, || {
            let log = self.world.agent.access_log().unwrap();
            let of_kind = log.iter().filter(|line| line["protocol"] == kind.protocol);
            flags = of_kind
                .map(|line| line["flags"].as_str().unwrap().to_owned())
                .collect();
            flags.len() > number
        })
        .unwrap();
        flags[number].clone()
    }
}

fn begin(pod: &Pod, target: SocketAddr, steps: &[&str]) -> Process {
    let mut command = clients::testc([&["talk", &target.to_string()][..], steps].concat()).unwrap();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    pod.spawn(command).unwrap()
}

fn went_well(talk: Process) {
    talk.output(Duration::from_secs(30)).unwrap().success().unwrap();
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Outbound,
    Outbound6,
    Inbound,
    Inbound6,
}

/// How a stream ends, when it is read to its end.
fn end(stream: &mut TcpStream) -> &'static str {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return "fin",
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return "reset",
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until a stream whose other end has been read is broken.
fn breaks(stream: &TcpStream) -> &'static str {
    let broken = || SockRef::from(stream).take_error().unwrap().is_some();
    match eventually("it breaks", SOON, broken) {
        Ok(()) => "reset",
        Err(_) => "open",
    }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Each kind in each way, with its own site: the lines are told apart by their order.
fn each(check: impl Fn(&Site, Way, Kind)) {
    let site = Site::new(|_| {});
    for kind in KINDS {
        for way in [Way::Outbound, Way::Outbound6] {
            check(&site, way, kind);
        }
    }
    // What is called is a port of the pod, and two of the services stand for one.
    for kind in [KINDS[0], KINDS[3]] {
        for way in [Way::Inbound, Way::Inbound6] {
            check(&site, way, kind);
        }
    }
}

/// The flags of what `check` did, in order.
fn flags(site: &Site, protocol: &str) -> Vec<String> {
    let log = site.world.agent.access_log().unwrap();
    let lines = log.iter().filter(|line| line["protocol"] == protocol);
    lines
        .map(|line| line["flags"].as_str().unwrap().to_owned())
        .collect()
}

fn last_flag(site: &Site, kind: Kind, before: usize) -> String {
    eventually("the line is written", SOON, || {
        flags(site, kind.protocol).len() > before
    })
    .unwrap();
    site.flag(kind, before)
}

#[test]
fn a_callers_reset_is_a_reset_at_the_endpoint() {
    each(|site, way, kind| {
        let before = flags(site, kind.protocol).len();
        let server = site.serve(kind.port, |mut stream| end(&mut stream));
        went_well(site.talk(way, kind, &["reset"]));
        assert_eq!(server.join().unwrap(), "reset", "{way:?} {kind:?}");
        assert_eq!(last_flag(site, kind, before), "DC", "{way:?} {kind:?}");
    });
}

#[test]
fn an_endpoints_reset_is_a_reset_at_the_caller() {
    each(|site, way, kind| {
        let before = flags(site, kind.protocol).len();
        let server = site.serve(kind.port, |mut stream| {
            stream.read_exact(&mut [0; 3]).unwrap();
            // What was said before it arrives.
            stream.write_all(b"last words").unwrap();
            reset(stream);
        });
        let steps = ["send:now", "expect:last words", "broken"];
        went_well(site.talk(way, kind, &steps));
        server.join().unwrap();
        assert_eq!(last_flag(site, kind, before), "UC", "{way:?} {kind:?}");
    });
}

#[test]
fn a_fin_is_a_fin_and_the_other_direction_goes_on() {
    each(|site, way, kind| {
        let before = flags(site, kind.protocol).len();
        let server = site.serve(kind.port, |mut stream| {
            let ended = end(&mut stream);
            stream.write_all(b"still here").unwrap();
            ended
        });
        went_well(site.talk(way, kind, &["shut", "expect:still here", "end"]));
        assert_eq!(server.join().unwrap(), "fin", "{way:?} {kind:?}");
        assert_eq!(last_flag(site, kind, before), "-", "{way:?} {kind:?}");

        let server = site.serve(kind.port, |mut stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_exact(&mut [0; 10]).unwrap();
            end(&mut stream)
        });
        went_well(site.talk(way, kind, &["end", "send:still here", "shut"]));
        assert_eq!(server.join().unwrap(), "fin", "{way:?} {kind:?}");
        assert_eq!(last_flag(site, kind, before + 1), "-", "{way:?} {kind:?}");
    });
}

#[test]
fn a_reset_after_a_fin_is_passed_on_though_nobody_reads() {
    each(|site, way, kind| {
        let server = site.serve(kind.port, |mut stream| {
            assert_eq!(end(&mut stream), "fin");
            stream.write_all(b"heard").unwrap();
            breaks(&stream)
        });
        went_well(site.talk(way, kind, &["shut", "expect:heard", "reset"]));
        assert_eq!(server.join().unwrap(), "reset", "{way:?} {kind:?}");

        let server = site.serve(kind.port, |stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            (&stream).read_exact(&mut [0; 5]).unwrap();
            reset(stream);
        });
        // Its read direction has ended; what it writes then tells.
        let steps = ["end", "send:heard", "refused"];
        went_well(site.talk(way, kind, &steps));
        server.join().unwrap();
    });
}

#[test]
fn a_reset_is_passed_on_while_the_other_side_takes_nothing() {
    let site = Site::new(|_| {});
    for kind in [KINDS[0], KINDS[3]] {
        let (filled, is_filled) = std::sync::mpsc::channel();
        let server = site.serve(kind.port, move |stream| {
            stream.set_nonblocking(true).unwrap();
            // Until nobody on the way has room.
            let mut full = derny_tests::observe::now();
            while full.elapsed() < Duration::from_millis(500) {
                match (&stream).write(&[7; 65_536]) {
                    Ok(_) => full = derny_tests::observe::now(),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            filled.send(()).unwrap();
            breaks(&stream)
        });
        let mut talk = site.talk(Way::Outbound, kind, &["hold", "reset"]);
        is_filled.recv_timeout(SOON).unwrap();
        drop(talk.child().stdin.take());
        talk.wait(SOON).unwrap();
        assert_eq!(server.join().unwrap(), "reset", "{kind:?}");
    }
}

#[test]
fn a_connection_for_which_there_is_no_endpoint_is_reset() {
    let site = Site::new(|_| {});
    // Nobody listens.
    for kind in KINDS.iter().filter(|kind| kind.protocol == "tcp") {
        for target in [
            site.world.vip(kind.service).unwrap().address(),
            site.world.vip(kind.service).unwrap().address6(),
        ] {
            went_well(begin(&site.world.client, target, &["broken"]));
        }
    }
    for target in [
        site.world.servers[0].pod.address(TCP_PORT),
        site.world.servers[0].pod.address6(TCP_PORT),
    ] {
        went_well(begin(&site.stranger, target, &["broken"]));
    }
}

#[test]
fn a_caller_that_ends_without_a_word_hears_what_the_server_says() {
    let site = Site::new(|_| {});
    for service in ["tcp", "any-tcp", "tls"] {
        let kind = KINDS.into_iter().find(|kind| kind.service == service).unwrap();
        let listener = listen(&site.world.servers[0].pod, kind.port);
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(end(&mut stream), "fin");
            stream.write_all(b"a file").unwrap();
        });
        let target = site.world.vip(service).unwrap().address();
        went_well(begin(
            &site.world.client,
            target,
            &["shut", "expect:a file", "end"],
        ));
        server.join().unwrap();
    }
}

/// What was cut off was not complete, and must not look like it.
fn cut_off_by(cut: impl Fn(&mut World), flag: Option<&str>) {
    let outbound = KINDS.map(|kind| (Way::Outbound, kind));
    let inbound = [KINDS[0], KINDS[3]].map(|kind| (Way::Inbound, kind));
    for (way, kind) in outbound.into_iter().chain(inbound) {
        let mut site = Site::new(|options| {
            options.arguments = ["--drain-timeout", "1s"].map(str::to_owned).into();
        });
        let server = site.serve(kind.port, |mut stream| end(&mut stream));
        let mut talk = site.talk(way, kind, &["broken"]);
        let open = |n: f64| n >= 1.0;
        let relayed = site.world.agent.metric("derny_tcp_sent_bytes_total", &[], open);
        relayed.unwrap_or_else(|error| panic!("{way:?} {kind:?} {error} {}", site.world.agent.log()));
        cut(&mut site.world);
        assert!(talk.wait(SOON).unwrap().success(), "{way:?} {kind:?}");
        assert_eq!(server.join().unwrap(), "reset", "{way:?} {kind:?}");
        if let Some(flag) = flag {
            assert_eq!(last_flag(&site, kind, 0), flag, "{way:?} {kind:?}");
        }
    }
}

#[test]
fn what_is_cut_off_by_a_withdrawal_is_reset() {
    cut_off_by(
        |world| {
            let mut config = world.config();
            config.pods.clear();
            world.reload(config).unwrap();
        },
        Some("LR"),
    );
}

#[test]
fn what_is_cut_off_by_the_end_of_the_agent_is_reset() {
    cut_off_by(
        |world| {
            world.agent.signal(Signal::SIGTERM).unwrap();
            world.agent.ended(SOON).unwrap();
        },
        Some("LR"),
    );
    cut_off_by(|world| world.agent.kill9().unwrap(), None);
}

/// A process that another test starts just now may hold the last listener for a moment, between its fork and its exec.
fn listen(pod: &Pod, port: u16) -> TcpListener {
    let bind = || pod.inside(|| TcpListener::bind(("::", port)).ok()).unwrap();
    eventually_some("the port is free", SOON, bind).unwrap()
}
