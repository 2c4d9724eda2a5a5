//! Relayed connections of every kind, and a server that is the test's own.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    thread::{self, JoinHandle},
    time::Duration,
};

use derny_tests::{
    AgentOptions, Pod, Process, World, clients, eventually,
    observe::eventually_some,
    upstream::{HTTP_PORT, TCP_PORT, TestdOptions},
};
use socket2::SockRef;

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A kind of relayed connection: how it is opened, and how its line names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) service: &'static str,
    pub(crate) port: u16,
    pub(crate) protocol: &'static str,
}

pub(crate) const KINDS: [Kind; 4] = [
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
    pub(crate) fn opening(self) -> Vec<&'static str> {
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
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) stranger: Pod,
}

impl Site {
    pub(crate) fn new(change: impl FnOnce(&mut AgentOptions)) -> Self {
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
    pub(crate) fn serve<T: Send + 'static>(
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
    pub(crate) fn talk(&self, way: Way, kind: Kind, steps: &[&str]) -> Process {
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
}

pub(crate) fn begin(pod: &Pod, target: SocketAddr, steps: &[&str]) -> Process {
    let mut command = clients::testc([&["talk", &target.to_string()][..], steps].concat()).unwrap();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    pod.spawn(command).unwrap()
}

pub(crate) fn went_well(talk: Process) {
    talk.output(Duration::from_secs(30)).unwrap().success().unwrap();
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Outbound,
    Outbound6,
    Inbound,
    Inbound6,
}

/// How a stream ends, when it is read to its end.
pub(crate) fn end(stream: &mut TcpStream) -> &'static str {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return "fin",
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return "reset";
            }
        }
    }
}

/// Waits until a stream whose other end has been read is broken.
pub(crate) fn breaks(stream: &TcpStream) -> &'static str {
    let broken = || SockRef::from(stream).take_error().unwrap().is_some();
    match eventually("it breaks", SOON, broken) {
        Ok(()) => "reset",
        Err(_) => "open",
    }
}

pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Each kind in each way, with its own site: the lines are told apart by their order.
pub(crate) fn each(check: impl Fn(&Site, Way, Kind)) {
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
pub(crate) fn flags(site: &Site, protocol: &str) -> Vec<String> {
    let log = site.world.agent.access_log().unwrap();
    let lines = log.iter().filter(|line| line["protocol"] == protocol);
    lines
        .map(|line| line["flags"].as_str().unwrap().to_owned())
        .collect()
}

/// The next flag after so many.
pub(crate) fn last_flag(site: &Site, kind: Kind, before: usize) -> String {
    eventually("the line is written", SOON, || {
        flags(site, kind.protocol).len() > before
    })
    .unwrap();
    flags(site, kind.protocol)[before].clone()
}

/// A process that another test starts just now may hold the last listener for a moment, between its fork and its exec.
pub(crate) fn listen(pod: &Pod, port: u16) -> TcpListener {
    let bind = || pod.inside(|| TcpListener::bind(("::", port)).ok()).unwrap();
    eventually_some("the port is free", SOON, bind).unwrap()
}
