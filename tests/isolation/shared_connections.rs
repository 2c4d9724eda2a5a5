//! Callers of a pod share the engine's connections to its application. What one does with its streams is not the
//! others' matter.

use std::time::Duration;

use derny_tests::{
    Process, Wire, clients,
    observe::{now, pause_until},
    wire::http2::{get, preface, reset, streams},
};

use crate::strangers::{Called, SECONDS, said};

const MIB: usize = 1 << 20;
/// What Bob's answers of a MiB look like.
const WHOLE: &str = "200 1048576";

#[test]
fn cancelled_streams_end_nobody_elses_call() {
    let called = Called::new();
    let running = called.bob_begins("/delay/6s", &[]);
    called
        .world
        .agent
        .metric("derny_requests_active", &[], |n| n == 1.0)
        .unwrap();
    // Each round's answers come when their streams are gone.
    for _ in 0..15 {
        let begun: Vec<u8> = streams(100)
            .flat_map(|stream| get(stream, "/delay/100ms"))
            .collect();
        let mut mallory =
            Wire::say(&called.mallory, called.http(), [preface(65_535), begun].concat()).unwrap();
        called
            .world
            .agent
            .metric("derny_requests_active", &[], |n| n > 50.0)
            .unwrap();
        mallory
            .send(streams(100).flat_map(reset).collect::<Vec<u8>>())
            .unwrap();
        called
            .world
            .agent
            .metric("derny_requests_active", &[], |n| n == 1.0)
            .unwrap();
    }
    assert!(said(running).starts_with("200 "));
}

#[test]
fn a_caller_may_begin_and_cancel_fifty_calls_in_one_write() {
    let called = Called::new();
    let all = streams(50).flat_map(|stream| [get(stream, "/delay/1s"), reset(stream)].concat());
    let bytes = [preface(65_535), all.collect(), get(201, "/bytes/10")].concat();
    let mut mallory = Wire::say(&called.mallory, called.http(), bytes).unwrap();
    mallory
        .expect("0123456789".replace("0123456789", "\0"), SECONDS)
        .unwrap();
    assert!(mallory.lives(Duration::from_secs(1)), "the connection goes on");
    let lines = |n: f64| n >= 51.0;
    called
        .world
        .agent
        .metric("derny_requests_total", &[], lines)
        .unwrap();
}

/// Mallory asks for so many answers of a MiB and reads nothing of them.
fn unread(called: &Called, answers: u32, path: &str) -> Wire {
    let asked = streams(answers).flat_map(|stream| get(stream, path));
    Wire::say(
        &called.mallory,
        called.http(),
        [preface(0), asked.collect()].concat(),
    )
    .unwrap()
}

#[test]
fn answers_that_one_caller_does_not_read_stop_nobody_elses() {
    let called = Called::new();
    let running = called.bob_begins("/bytes/20000000", &["--limit-rate", "8M"]);
    called
        .world
        .agent
        .metric("derny_requests_active", &[], |n| n == 1.0)
        .unwrap();
    for answers in [5, 100] {
        let _mallory = unread(&called, answers, "/bytes/1048576");
        let all = f64::from(answers);
        called
            .world
            .agent
            .metric("derny_requests_active", &[], |n| n >= all)
            .unwrap();
        assert_eq!(called.bob("/bytes/1048576", &[]), WHOLE, "beside {answers}");
    }
    assert_eq!(said(running), "200 20000000");
}

#[test]
fn small_messages_that_one_caller_does_not_read_end_nobody_elses_call() {
    let called = Called::new();
    let running = called.bob_begins("/ticks/50/100ms", &[]);
    called
        .world
        .agent
        .metric("derny_requests_active", &[], |n| n == 1.0)
        .unwrap();
    // More small frames than h2 by itself lets wait on one connection.
    let _mallory = unread(&called, 10, "/ticks/600/1ms");
    assert!(said(running).starts_with("200 "));
}

#[test]
fn uploads_that_an_application_does_not_read_stop_nobody_elses() {
    let called = Called::new();
    let body = called.world.node.host().run_directory().join("body");
    std::fs::write(&body, vec![b'y'; 2 * MIB]).unwrap();
    let upload = format!("@{}", body.display());
    let flags = [
        "--http2-prior-knowledge",
        "--max-time",
        "60",
        "--data-binary",
        &upload,
    ];
    let stalled = || {
        let url = format!("http://{}/sum?rate=1000", called.http());
        called
            .mallory
            .spawn(clients::curl([&flags[..], &[&url]].concat()))
            .unwrap()
    };
    let _stalled: Vec<Process> = (0..6).map(|_| stalled()).collect();
    called
        .world
        .agent
        .metric("derny_requests_active", &[], |n| n == 6.0)
        .unwrap();
    for _ in 0..5 {
        assert!(
            called
                .bob("/sum", &["--data-binary", &upload])
                .starts_with("200 ")
        );
    }
}

#[test]
fn a_caller_that_does_not_read_costs_little() {
    const READERS: u64 = 100;
    let called = Called::new();
    let request = "GET /bytes/30000000 HTTP/1.1\r\nhost: x\r\n\r\n";
    let read = || Wire::say(&called.mallory, called.http(), request).unwrap();
    let warm: Vec<Wire> = (0..5).map(|_| read()).collect();
    let before = called.world.agent.resident().unwrap();
    let readers: Vec<Wire> = (0..READERS).map(|_| read()).collect();
    let all = (READERS + 5) as f64;
    called
        .world
        .agent
        .metric("derny_requests_active", &[], |n| n == all)
        .unwrap();
    let endpoints = "derny_upstream_connections_active";
    called.world.agent.metric(endpoints, &[], |n| n == all).unwrap();
    // Until the kernel's buffers are full, and until the allocator has given back the smaller buffers before them.
    let each: Vec<u64> = (0..25)
        .map(|_| {
            pause_until(now() + Duration::from_millis(200));
            called.world.agent.resident().unwrap().saturating_sub(before) / READERS
        })
        .collect();
    let (most, kept) = (*each.iter().max().unwrap(), *each.last().unwrap());
    println!(
        "{} KiB for each slow reader, {} at most",
        kept / 1024,
        most / 1024
    );
    assert!(
        kept < 320 * 1024 && most < 512 * 1024,
        "{each:?} bytes for each slow reader"
    );
    drop((warm, readers));
}
