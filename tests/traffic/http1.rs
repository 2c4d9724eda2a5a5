//! HTTP/1.1: connections, framing, headers, upgrades.

use std::collections::BTreeSet;

use derny_tests::{World, clients};

const GET: &str = r"send:GET /x HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn one_connection_carries_many_requests_to_all_endpoints() {
    let world = World::new(3).unwrap();
    let url = world.url("http", "/[1-9]").unwrap();
    let said = world
        .curl(&["--write-out", "%{num_connects}\n", &url])
        .unwrap()
        .success()
        .unwrap();
    let connects: u32 = said.lines().filter_map(|line| line.parse::<u32>().ok()).sum();
    assert_eq!(connects, 1, "{said}");
    for server in ["server-1", "server-2", "server-3"] {
        assert_eq!(said.matches(&format!("\"{server}\"")).count(), 3, "{said}");
    }

    // Pipelined: all sent before the first is answered, and answered in order.
    let mut steps = vec![
        r"send:GET /delay/50ms?1 HTTP/1.1\r\nhost: a\r\n\r\nGET /x?2 HTTP/1.1\r\nhost: a\r\n\r\n",
        GET,
    ];
    steps.extend(["expect:ms?1", "expect:/x?2", "expect:\"/x\"", "shut", "end"]);
    world.talk("http", &steps).unwrap();
}

#[test]
fn bodies_keep_their_framing() {
    let world = World::new(1).unwrap();
    let head = |path: &str, flags: &[&str]| {
        let url = world.url("http", path).unwrap();
        let flags = [flags, &["--dump-header", "-", "--output", "/dev/null", &url]].concat();
        world.curl(&flags).unwrap().success().unwrap().to_lowercase()
    };
    assert!(head("/bytes/10", &[]).contains("content-length: 10\r\n"));
    assert!(head("/bytes/10?chunked", &[]).contains("transfer-encoding: chunked\r\n"));
    let asked = head("/bytes/10", &["--head"]);
    assert!(
        asked.starts_with("http/1.1 200") && asked.contains("content-length: 10\r\n"),
        "{asked}"
    );
    let empty = head("/status/204", &[]);
    assert!(
        empty.starts_with("http/1.1 204") && !empty.contains("transfer-encoding"),
        "{empty}"
    );
    assert!(head("/status/304", &[]).starts_with("http/1.1 304"));

    let chunked = world
        .shell(&format!(
            "head -c 300000 /dev/zero | curl -s -T - {} | tr -d '\\0' | wc -c; \
             head -c 300000 /dev/zero | curl -s -T - {} | wc -c",
            world.url("http", "/echo").unwrap(),
            world.url("http", "/echo").unwrap()
        ))
        .unwrap();
    assert_eq!(chunked, "0\n300000");
}

#[test]
fn a_caller_that_expects_100_is_told_to_go_on() {
    let world = World::new(1).unwrap();
    let url = world.url("http", "/sum").unwrap();
    let flags = [
        "--verbose",
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "8",
        "-d",
        "hello",
        &url,
    ];
    let output = world.curl(&flags).unwrap();
    assert!(output.stderr.contains("< HTTP/1.1 100"), "{}", output.stderr);
    assert!(output.stdout.contains("\"length\":5"), "{output:?}");
}

#[test]
fn trailers_pass_in_both_directions() {
    let world = World::new(1).unwrap();
    let request = r"send:POST /echo HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntrailer: x-check\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-check: 42\r\n\r\n";
    let answer = world.talk(
        "http",
        &[
            request,
            "expect:hello",
            "expect:\\r\\n0\\r\\n",
            "expect:\\r\\n",
            "shut",
            "end",
        ],
    );
    assert!(answer.as_ref().unwrap().contains("x-check: 42"), "{answer:?}");
}

#[test]
fn a_request_whose_end_is_in_doubt_is_refused_and_the_connection_closed() {
    let world = World::new(1).unwrap();
    refused(&world, "two lengths", r"content-length: 5\r\ncontent-length: 6");
    refused(&world, "an unknown coding", r"transfer-encoding: gzip");
    refused(&world, "no number", r"content-length: five");
}

/// RFC 9112 section 6.1: such a request may be refused, or taken by its chunks alone; in either case the connection
/// ends after it. The engine takes the second way: the endpoint sees chunks and no length.
#[test]
fn a_request_with_a_length_and_chunks_is_taken_by_its_chunks_and_the_connection_closed() {
    let world = World::new(1).unwrap();
    for (what, framing) in [
        ("length first", r"content-length: 5\r\ntransfer-encoding: chunked"),
        ("chunks first", r"transfer-encoding: chunked\r\ncontent-length: 5"),
    ] {
        let answer = ambiguous(&world, framing);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer:?}");
        assert!(!body.contains("content-length"), "{what}: {answer:?}");
        nothing_smuggled(&world, what);
    }
}

/// A request with this head is answered with 400, and what follows it does not pass for a second one.
fn refused(world: &World, what: &str, head: &str) {
    let answer = ambiguous(world, head);
    assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer:?}");
    nothing_smuggled(world, what);
}

/// What is answered to a request with this head, which has another one in what may be its body. Ends with the
/// connection.
fn ambiguous(world: &World, head: &str) -> String {
    let request = format!(
        r"send:POST /x HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
    );
    world.talk("http", &[&request, "closed"]).unwrap()
}

fn nothing_smuggled(world: &World, what: &str) {
    let log = world.agent.access_log().unwrap();
    assert!(
        log.iter().all(|line| line["path"] != "/smuggled"),
        "{what}: {log:?}"
    );
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let world = World::new(1).unwrap();
    let many = [
        r"send:GET /x HTTP/1.1\r\nhost: a\r\nx-large: ",
        "repeat:70000:y",
        "closed",
    ];
    let answer = world.talk("http", &many).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
}

#[test]
fn headers_of_the_hop_stay_behind_and_the_engines_own_are_added() {
    let world = World::new(1).unwrap();
    let flags = [
        "-H",
        "connection: keep-alive, x-hop",
        "-H",
        "x-hop: 1",
        "-H",
        "keep-alive: 5",
        "-H",
        "x-end: 2",
    ];
    let seen = world.get("http", "/x", &flags).unwrap();
    let headers = seen["headers"].as_object().unwrap();
    assert_eq!(headers["x-end"], "2");
    for gone in ["x-hop", "keep-alive", "connection"] {
        assert!(!headers.contains_key(gone), "{gone}: {headers:?}");
    }
    assert_eq!(headers["x-forwarded-for"], world.client.ip().to_string());
    assert_eq!(
        headers["x-request-id"].as_str().unwrap().as_bytes()[14],
        b'7',
        "UUIDv7: {headers:?}"
    );
    let peer = seen["peer"].as_str().unwrap().to_owned();
    assert!(peer.starts_with(&format!("{}:", world.client.ip())), "{peer}");

    let flags = ["-H", "x-request-id: mine", "-H", "x-forwarded-for: 192.0.2.1"];
    let seen = world.get("http", "/x", &flags).unwrap();
    assert_eq!(seen["headers"]["x-request-id"], "mine");
    assert_eq!(
        seen["headers"]["x-forwarded-for"],
        format!("192.0.2.1, {}", world.client.ip())
    );
}

#[test]
fn credentials_for_a_proxy_that_is_a_service_pass() {
    let world = World::new(1).unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let flags = ["-H", "proxy-authorization: Basic eDp5", version];
        let seen = world.get("http", "/x", &flags).unwrap();
        assert_eq!(seen["headers"]["proxy-authorization"], "Basic eDp5", "{seen}");
        let url = world.url("http", "/status/407").unwrap();
        let challenge = world
            .curl(&["-s", "-D", "-", version, &url])
            .unwrap()
            .success()
            .unwrap();
        assert!(
            challenge.to_lowercase().contains("proxy-authenticate: basic"),
            "{challenge}"
        );
    }
}

#[test]
fn a_request_without_a_host_gets_the_address_that_was_dialled() {
    let world = World::new(1).unwrap();
    for service in ["http", "http2", "any-http"] {
        let said = world
            .talk(service, &[r"send:GET /x HTTP/1.0\r\n\r\n", "end"])
            .unwrap();
        let host = match service {
            "http2" => format!("\"authority\":\"{}\"", world.vip(service).unwrap().ip()),
            _ => format!("\"host\":\"{}\"", world.vip(service).unwrap().ip()),
        };
        assert!(said.contains(&host), "{service}: {said}");
    }
}

#[test]
fn a_caller_that_waits_for_100_gets_it_and_the_endpoint_is_not_asked() {
    let world = World::new(1).unwrap();
    for (service, version) in [
        ("http", "--http1.1"),
        ("http2", "--http2-prior-knowledge"),
        ("http2", "--http1.1"),
    ] {
        let flags = [
            "-d",
            "body",
            "-H",
            "expect: 100-continue",
            "--expect100-timeout",
            "30",
            version,
        ];
        let seen = world
            .get(service, "/x", &[&flags[..], &["--max-time", "10"]].concat())
            .unwrap();
        assert!(seen["headers"]["expect"].is_null(), "{service} {version}: {seen}");
    }
}

#[test]
fn http_1_0_is_served() {
    let world = World::new(1).unwrap();
    let answer = world
        .talk("http", &[r"send:GET /bytes/5?chunked HTTP/1.0\r\n\r\n", "end"])
        .unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer:?}");
    assert!(
        !answer.to_lowercase().contains("chunked"),
        "1.0 knows no chunks: {answer:?}"
    );
    let kept = r"send:GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    world
        .talk(
            "http",
            &[kept, "expect:\"/x\"", kept, "expect:\"/x\"", "shut", "end"],
        )
        .unwrap();
}

#[test]
fn a_websocket_is_upgraded_relayed_and_closed() {
    let world = World::new(1).unwrap();
    let mut client = clients::python("websocket_echo.py").unwrap();
    client.args(["--url", &format!("ws://{}/ws", world.target("http").unwrap())]);
    assert_eq!(world.client.run(client).unwrap().success().unwrap(), "100\n");
    let upgraded = |line: &serde_json::Value| line["protocol"] == "upgraded";
    let line = world.agent.access_line("the websocket", upgraded).unwrap();
    assert_eq!(line["flags"], "-", "{line}");
    let request = world
        .agent
        .access_line("its request", |line| line["path"] == "/ws")
        .unwrap();
    assert_eq!(
        (&request["code"], &request["flags"]),
        (&101.into(), &"-".into()),
        "{request}"
    );
    all_closed(&world);
}

#[test]
fn connect_makes_a_tunnel() {
    let world = World::new(1).unwrap();
    let steps = [
        r"send:CONNECT b.test:443 HTTP/1.1\r\nhost: b.test:443\r\n\r\n",
        r"expect:\r\n\r\n",
        "send:through",
        "expect:through",
        "shut",
        "end",
    ];
    let answer = world.talk("http", &steps).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    all_closed(&world);
}

#[test]
fn many_pods_connections_to_one_endpoint_are_reused() {
    let world = World::new(1).unwrap();
    let peers: BTreeSet<String> = (0..20)
        .map(|_| {
            world.get("http", "/x", &[]).unwrap()["peer"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        peers.len(),
        1,
        "twenty connections of callers, one to the endpoint: {peers:?}"
    );
}

/// No connection of a caller is open any more.
fn all_closed(world: &World) {
    let none = |sum: f64| sum == 0.0;
    world.agent.metric("derny_connections_active", &[], none).unwrap();
}
