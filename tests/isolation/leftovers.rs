//! Nothing outlives both of its peers, or its pod, in whatever state it is.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use derny_tests::{Agent, AgentOptions, Config, Node, Pod, Process, eventually};
use serde_json::json;

use crate::enrolling::SOON;

const TCP: u16 = 7000;
const HTTP: u16 = 7001;

/// Opens connections in every state to `HOST` by `NAME=ADDRESS` of services, says "open", and then how each ends.
const STATES: &str = r#"
import os, socket, sys, threading
ips = dict(word.split("=") for word in sys.argv[1:])
UPGRADE = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
def opened(service, first=b"", expect=b"", shut=False):
    s = socket.create_connection((ips[service], 80), 10)
    s.sendall(first)
    got = b""
    while expect not in got:
        got += s.recv(100)
    if shut:
        s.shutdown(socket.SHUT_WR)
    s.settimeout(None)
    return s
def end(name, s):
    try:
        while s.recv(100):
            pass
        how = "fin"
    except OSError as error:
        how = "reset" if error.errno == 104 else str(error)
    # In one piece.
    os.write(1, f"{name} {how}\n".encode())
all = {
    "tcp": opened("tcp", b"\1", b"k"),
    "tcp-half": opened("tcp", b"\1", b"k", True),
    "tls": opened("tls", b"\1", b"k"),
    "any": opened("any", b"\1", b"k"),
    "any-half": opened("any", b"\1", b"k", True),
    "up": opened("http", UPGRADE + b"\1", b"k"),
    "up-half": opened("http", UPGRADE + b"\1", b"k", True),
    "any-silent": opened("any"),
    "http-silent": opened("http"),
    "http-head": opened("http", b"GET / HTTP/1.1\r\n"),
    "connecting": opened("lost", b"\1"),
}
print("open", flush=True)
for name, s in all.items():
    threading.Thread(target=end, args=(name, s)).start()
"#;

/// Of [`STATES`], those that are relayed to a server.
const RELAYED: [&str; 8] = [
    "tcp",
    "tcp-half",
    "tls",
    "any",
    "any-half",
    "up",
    "up-half",
    "any-silent",
];

struct Site {
    agent: Agent,
    client: Option<Pod>,
    stranger: Pod,
    server: Option<Pod>,
    /// How connections end that the server keeps.
    ends: Receiver<&'static str>,
    targets: Vec<String>,
    _lost: Pod,
    _node: Node,
}

impl Site {
    fn new(arguments: &str, policy: Option<serde_json::Value>) -> Self {
        let node = Node::new().unwrap();
        let [client, stranger, server, lost] =
            ["client", "stranger", "server", "lost"].map(|name| node.pod(name).unwrap());
        let (tell, ends) = channel();
        for port in [TCP, HTTP] {
            let listener = server
                .inside(|| TcpListener::bind(("::", port)).unwrap())
                .unwrap();
            let tell = tell.clone();
            thread::spawn(move || keep(&listener, &tell));
        }
        lost.netns().ip_batch("link set eth0 down").unwrap();
        let services = [
            ("tcp", TCP, Some("tcp"), &server),
            ("tls", TCP, Some("tls"), &server),
            ("any", TCP, None, &server),
            ("http", HTTP, Some("http"), &server),
            ("lost", TCP, Some("tcp"), &lost),
        ];
        let mut config =
            Config::default()
                .pod(&client, "client")
                .pod_inbound(&server, "server", TCP, Some("tcp"));
        let mut http = config.pods[1].inbound[0].clone();
        (http.port, http.protocol) = (HTTP, Some("http".to_owned()));
        config.pods[1].inbound.push(http);
        let mut targets = Vec::new();
        for (name, port, protocol, pod) in services {
            let vip = node.service(name, 80, port, &[pod]).unwrap();
            config = config.service(&vip, protocol).algorithm(name, "roundRobin");
            if let Some(policy) = &policy {
                let entry = config.policy_of(name).unwrap();
                entry.more.insert("connectionPool".to_owned(), policy.clone());
            }
            targets.push(format!("{name}={}", vip.ip()));
        }
        let mut options = AgentOptions::new(config);
        options.arguments = arguments.split_whitespace().map(str::to_owned).collect();
        Self {
            agent: Agent::start(&node, options).unwrap(),
            client: Some(client),
            stranger,
            server: Some(server),
            ends,
            targets,
            _lost: lost,
            _node: node,
        }
    }

    /// The client's connections, and what it says of their ends.
    fn client(&self) -> (Process, impl Iterator<Item = String> + use<>) {
        let mut python = Command::new("python3");
        python
            .args(["-c", STATES])
            .args(&self.targets)
            .stdout(Stdio::piped());
        let mut process = self.client.as_ref().unwrap().spawn(python).unwrap();
        let mut said = BufReader::new(process.child().stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "open");
        (process, said.map_while(Result::ok))
    }

    /// Connections of a stranger to the server, which is called through the agent.
    fn calls(&self) -> Vec<TcpStream> {
        let server = self.server.as_ref().unwrap();
        let (tcp, http) = (server.address(TCP), server.address6(HTTP));
        let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n\x01";
        let open = |to, say: &str, half: bool| {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(say.as_bytes()).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut heard = Vec::new();
            while !say.ends_with("\x01") || !heard.contains(&b'k') {
                let mut bytes = [0; 256];
                let count = match say.ends_with("\x01") {
                    true => stream.read(&mut bytes).unwrap(),
                    false => break,
                };
                heard.extend_from_slice(&bytes[..count]);
            }
            if half {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            stream
        };
        self.stranger
            .inside(|| {
                vec![
                    open(tcp, "\x01", false),
                    open(tcp, "\x01", true),
                    open(http, upgrade, false),
                    open(http, upgrade, true),
                    open(http, "GET / HTTP/1.1\r\n", false),
                ]
            })
            .unwrap()
    }
}

/// A server that says "k" to the first byte that is no HTTP and ends nothing by itself.
fn keep(listener: &TcpListener, ends: &Sender<&'static str>) {
    for stream in listener.incoming() {
        let (mut stream, ends) = (stream.unwrap(), ends.clone());
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            loop {
                let count = match stream.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(_) => return ends.send("reset"),
                };
                if bytes[..count].starts_with(b"GET") {
                    let switch =
                        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
                    let _ = stream.write_all(switch);
                }
                if bytes[..count].contains(&1) {
                    let _ = stream.write_all(b"k");
                }
            }
            // The caller has ended its side: whether it breaks now does not show by reading.
            let socket = socket2::SockRef::from(&stream);
            while socket.take_error().ok().flatten().is_none() {
                thread::park_timeout(Duration::from_millis(20));
            }
            ends.send("reset")
        });
    }
}

fn nothing_is_left(end: impl FnOnce(&mut Site)) {
    let mut site = Site::new("--drain-timeout 2s", None);
    let client = site.client.as_ref().unwrap().namespace().unwrap();
    let server = site.server.as_ref().unwrap().namespace().unwrap();
    let (_client, _calls) = (site.client(), site.calls());
    let held = |site: &Site| {
        let holdings = site.agent.holdings().unwrap();
        (holdings.of(client), holdings.of(server))
    };
    let (of_client, of_server) = held(&site);
    assert!(of_client > 16 && of_server > 9, "{of_client} {of_server}");
    end(&mut site);
    let ended = eventually("nothing is held", SOON, || held(&site) == (0, 0));
    assert!(ended.is_ok(), "{:?}", held(&site));
}

#[test]
fn nothing_is_left_of_a_pod_that_was_withdrawn() {
    nothing_is_left(|site| {
        let mut config = site.agent.config().clone();
        config.pods.clear();
        site.agent.reload(config).unwrap();
    });
}

#[test]
fn nothing_is_left_of_a_pod_whose_network_has_gone() {
    nothing_is_left(|site| drop((site.client.take(), site.server.take())));
}

#[test]
fn a_machine_that_has_gone_ends_what_was_relayed() {
    let keepalive = json!({"tcpKeepalive": "3s"});
    let site = Site::new("--dead-peer-timeout 5s", Some(keepalive));
    let (_process, said) = site.client();
    let _calls = site.calls();
    site.stranger.netns().ip_batch("link set eth0 down").unwrap();
    // Four of the stranger's were relayed.
    for _ in 0..4 {
        assert_eq!(
            site.ends.recv_timeout(SOON).unwrap(),
            "reset",
            "at the application"
        );
    }
    let server = site.server.as_ref().unwrap();
    server.netns().ip_batch("link set eth0 down").unwrap();
    let (told, ended) = channel();
    thread::spawn(move || said.for_each(|line| drop(told.send(line))));
    let mut left: Vec<&str> = RELAYED.into();
    while !left.is_empty() {
        let line = ended
            .recv_timeout(SOON)
            .unwrap_or_else(|_| panic!("{left:?} go on"));
        let (name, how) = line.split_once(' ').unwrap();
        if left.contains(&name) {
            assert_eq!(how, "reset", "{name}");
            left.retain(|it| *it != name);
        }
    }
}
