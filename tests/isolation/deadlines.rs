//! What makes no progress by its peer's fault ends; what only takes its time lives on.

use std::{process::Stdio, time::Duration};

use derny_tests::{
    AgentOptions, Pod, Process, Wire, clients,
    observe::{eventually_some, now, pause_until},
    wire::http2::{WINDOW_UPDATE, frame, get, preface, streams, unfinished},
};
use serde_json::json;

use crate::strangers::{Called, SECONDS, said};

const SECOND: Duration = Duration::from_secs(1);

fn limits(options: &mut AgentOptions) {
    let short = "--head-timeout 2s --connection-idle-timeout 4s --write-timeout 6s --dead-peer-timeout 5s";
    options.arguments.extend(short.split(' ').map(str::to_owned));
}

fn timed_out(called: &Called, limit: &str, times: f64) {
    let labels = [("limit", limit)];
    let metric = called
        .world
        .agent
        .metric("derny_timeouts_total", &labels, |n| n >= times);
    metric.unwrap();
}

#[test]
fn an_unfinished_head_ends_however_slowly_it_comes() {
    let called = Called::with(limits);
    let poll = called.bob_begins("/delay/8s", &[]);
    let heads: [&[u8]; 5] = [
        b"G",
        b"GET /x HTTP/1.1\r\nhost: x\r\n",
        b"PRI * HTTP/2.0\r\n",
        &[preface(65_535), unfinished(1)].concat(),
        &[preface(65_535), get(1, "/bytes/9"), vec![0, 0]].concat(),
    ];
    for head in heads {
        let mut wire = Wire::say(&called.mallory, called.http(), head).unwrap();
        let took = wire.ended(SECONDS).unwrap();
        assert!(
            took > SECOND && took < 8 * SECOND,
            "{took:?}: {:?}",
            String::from_utf8_lossy(head)
        );
    }
    // After an answer, and one byte at a time.
    let request = "GET /bytes/9 HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut slow = Wire::say(&called.mallory, called.http(), request).unwrap();
    slow.expect("200 OK", SECONDS).unwrap();
    let end = now() + 10 * SECOND;
    let sent = request.bytes().cycle().take_while(|byte| {
        pause_until(now() + SECOND / 4);
        now() < end && slow.send([*byte]).is_ok()
    });
    assert!(sent.count() < 30, "it was let go on");
    timed_out(&called, "head", 4.0);
    assert!(said(poll).starts_with("200 "), "a long poll takes its time");
}

/// How the frame begins.
fn goaway() -> [u8; 5] {
    [0, 0, 8, 7, 0]
}

#[test]
fn an_idle_connection_ends_and_a_long_poll_does_not() {
    let called = Called::with(limits);
    let poll = called.bob_begins("/delay/9s", &[]);
    let mut http1 = Wire::say(
        &called.mallory,
        called.http(),
        "GET /bytes/9 HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .unwrap();
    let mut http2 = Wire::say(
        &called.mallory,
        called.http(),
        [preface(65_535), get(1, "/bytes/9")].concat(),
    )
    .unwrap();
    http2
        .expect(goaway(), SECONDS)
        .expect("a caller that calls just then is told to call elsewhere");
    for wire in [&mut http1, &mut http2] {
        wire.ended(SECONDS).unwrap();
    }
    timed_out(&called, "connection", 2.0);
    assert!(said(poll).starts_with("200 "));
}

#[test]
fn by_default_an_idle_caller_is_kept() {
    let called = Called::new();
    let mut idle = Wire::say(
        &called.mallory,
        called.http(),
        [preface(65_535), get(1, "/bytes/9")].concat(),
    )
    .unwrap();
    let mut quiet = Wire::connect(&called.mallory, called.tcp()).unwrap();
    assert!(idle.lives(20 * SECOND), "an idle channel");
    assert!(quiet.lives(SECOND), "an idle connection of opaque TCP");
    quiet.send("still there").unwrap();
    quiet.expect("still there", SECONDS).unwrap();
}

/// A policy for what the client of the mesh calls.
fn with_timeouts(timeouts: &serde_json::Value) -> Called {
    let mut called = Called::new();
    let mut config = called.world.config();
    let policy = config.policy_of("http").unwrap();
    policy.more.insert("timeouts".to_owned(), timeouts.clone());
    called.world.reload(config).unwrap();
    called
}

/// A program in the client's pod that says this to a service and reads nothing, until its input ends.
fn hold(called: &Called, service: &str, steps: &[&str]) -> Process {
    let target = called.world.target(service).unwrap();
    let mut command = clients::testc([&["talk", &target][..], steps].concat()).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    called.world.client.spawn(command).unwrap()
}

/// The step of a conversation that sends these bytes.
fn send(bytes: impl AsRef<[u8]>) -> String {
    let escaped = bytes.as_ref().iter().map(|byte| format!("\\x{byte:02x}"));
    format!("send:{}", escaped.collect::<String>())
}

fn ends_with(timeouts: &serde_json::Value, flag: &str) {
    let called = with_timeouts(timeouts);
    let path = "/bytes/90000000";
    let http1 = send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
    let _http1 = hold(&called, "http", &[&http1, "hold"]);
    let http2 = send([preface(0), get(1, path)].concat());
    let _http2 = hold(&called, "http", &[&http2, "hold"]);
    for protocol in ["http1", "http2"] {
        let line = |line: &serde_json::Value| line["path"] == path && line["protocol"] == protocol;
        let line = called.world.agent.access_line(protocol, line).unwrap();
        assert_eq!(line["flags"], flag, "{line}");
    }
}

#[test]
fn an_answer_that_nobody_reads_ends_with_the_requests_timeout() {
    ends_with(&json!({"request": "3s"}), "UT");
}

#[test]
fn an_answer_that_nobody_reads_ends_with_the_idle_timeout() {
    ends_with(&json!({"idle": "2s"}), "SI");
}

#[test]
fn a_slow_reader_is_no_silent_one() {
    let called = with_timeouts(&json!({"idle": "2s"}));
    let url = called.world.url("http", "/bytes/12000000").unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let arguments = [
            "--limit-rate",
            "2M",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            version,
            &url,
        ];
        assert_eq!(
            called.world.curl(&arguments).unwrap().success().unwrap(),
            "12000000"
        );
    }
}

#[test]
fn what_is_written_must_be_read_some_time() {
    let called = Called::with(limits);
    let asked = streams(4).flat_map(|stream| get(stream, "/bytes/90000000"));
    let window = frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
    let bytes = [preface(1 << 30), window, asked.collect()].concat();
    let _unread = Wire::say(&called.mallory, called.http(), bytes).unwrap();
    timed_out(&called, "write", 1.0);
    called
        .world
        .agent
        .metric("derny_connections_active", &[], |n| n == 0.0)
        .unwrap();
}

/// The pod's host is gone: nothing comes from it any more, not even a reset.
fn vanish(pod: &Pod) {
    pod.netns().ip_batch("link set eth0 down\n").unwrap();
}

#[test]
fn a_caller_whose_host_has_gone_is_found_out() {
    let called = Called::with(|options| {
        options
            .arguments
            .extend(["--dead-peer-timeout".to_owned(), "5s".to_owned()]);
    });
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let to = called.http();
    let to6 = called.world.servers[0].pod.address6(to.port());
    let ticks = [preface(65_535), get(1, "/ticks/9999/50ms")].concat();
    let mut wires = [
        Wire::say(&called.mallory, to, request("/bytes/9")).unwrap(),
        Wire::say(&called.mallory, to6, request("/ticks/9999/50ms")).unwrap(),
        Wire::say(&called.mallory, to, ticks).unwrap(),
        Wire::say(&called.mallory, called.tcp(), "echo").unwrap(),
    ];
    wires[3].expect("echo", SECONDS).unwrap();
    called
        .world
        .agent
        .metric("derny_connections_active", &[], |n| n == 4.0)
        .unwrap();
    vanish(&called.mallory);
    let begun = now();
    while called
        .world
        .agent
        .metrics()
        .unwrap()
        .sum("derny_connections_active", &[])
        > 0.0
    {
        assert!(begun.elapsed() < 15 * SECOND, "still there");
        pause_until(now() + SECOND / 5);
    }
    println!("found out after {:?}", begun.elapsed());
}

#[test]
fn an_endpoint_whose_host_has_gone_is_found_out() {
    let called = Called::new();
    let mut relayed = hold(&called, "tcp", &["send:echo", "expect:echo", "hold", "send:more"]);
    called
        .world
        .agent
        .metric("derny_tcp_sent_bytes_total", &[], |n| n == 4.0)
        .unwrap();
    vanish(&called.world.servers[0].pod);
    // More is on its way when the endpoint is no longer there.
    drop(relayed.child().stdin.take());
    let relayed = |line: &&serde_json::Value| line["protocol"] == "tcp";
    let line = eventually_some("the line of the connection", 25 * SECOND, || {
        let log = called.world.agent.access_log().unwrap();
        log.iter().find(relayed).cloned()
    });
    assert_eq!(line.as_ref().unwrap()["flags"], "UC", "{line:?}");
}

#[test]
fn a_reader_that_takes_its_time_has_not_gone() {
    let called = Called::with(|options| {
        options
            .arguments
            .extend(["--dead-peer-timeout".to_owned(), "5s".to_owned()]);
    });
    let request = "GET /bytes/30000000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut reader = Wire::say(&called.mallory, called.http(), request).unwrap();
    pause_until(now() + 14 * SECOND);
    let all = reader.rest(SECONDS).unwrap();
    assert!(all > 30_000_000, "{all}");
}
