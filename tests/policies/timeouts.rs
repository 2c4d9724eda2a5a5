//! Deadlines.

use std::{process::Stdio, time::Duration};

use derny_tests::{World, clients};
use serde_json::json;

use super::{line, outcome, status, world};

/// The counter of this limit is there, and the others' are zero.
fn timed_out(world: &World, limit: &str, times: f64) {
    let metrics = world.agent.metrics().unwrap();
    let of = |labels: &[(&str, &str)]| metrics.sum("derny_timeouts_total", labels);
    assert_eq!(of(&[("destination_service", "http"), ("limit", limit)]), times);
    assert_eq!(of(&[]), times);
}

#[test]
fn a_request_ends_with_its_timeout() {
    let world = world(1, &json!({"timeouts": {"request": "300ms"}}));
    assert_eq!(status(&world, "http", "/delay/5s"), "504");
    let line = line(&world.agent, "/delay/5s");
    assert_eq!(outcome(&line), (1, "UT"));
    let took = line["duration_ms"].as_f64().unwrap();
    assert!((300.0..1000.0).contains(&took), "{line}");
    timed_out(&world, "request", 1.0);
}

#[test]
fn a_try_ends_with_its_own_time_and_another_follows() {
    let policy = json!({"timeouts": {"perTry": "200ms"}, "retry": {"attempts": 1, "on": ["reset"]}});
    let world = world(2, &policy);
    assert_eq!(status(&world, "http", "/delay/5s"), "504");
    assert_eq!(outcome(&line(&world.agent, "/delay/5s")), (2, "URX"));
    timed_out(&world, "perTry", 2.0);
}

#[test]
fn a_body_may_take_longer_than_the_headers() {
    // The default bounds the headers only: 40 ticks of 100 ms go on as long as they move.
    let world = world(1, &json!({"timeouts": {"idle": "1s"}}));
    let url = world.url("http", "/bytes/30000000").unwrap();
    let arguments = [
        "-s",
        "--limit-rate",
        "10M",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        &url,
    ];
    assert_eq!(world.curl(&arguments).unwrap().success().unwrap(), "30000000");
}

#[test]
fn an_upload_takes_the_time_that_it_takes() {
    let world = world(1, &json!({}));
    // Longer than the default of 15 s, which runs from the end of the request.
    let slow = |service: &str, version: &str| {
        let url = world.url(service, "/sum").unwrap();
        let flags = [
            "-s",
            "--limit-rate",
            "1000",
            "--max-time",
            "50",
            "--expect100-timeout",
            "0",
            version,
            "-d",
        ];
        let body = "x".repeat(17_000);
        let mut command = clients::curl([&flags[..], &[&body, &url]].concat());
        command.stdout(Stdio::piped());
        world.client.spawn(command).unwrap()
    };
    let uploads = [("http", "--http1.1"), ("http2", "--http2-prior-knowledge")].map(|(s, v)| slow(s, v));
    for upload in uploads {
        let said = upload.output(Duration::from_secs(60)).unwrap().success().unwrap();
        assert!(said.contains("17000"), "{said}");
    }
}

#[test]
fn a_caller_that_stops_within_its_request_is_told_so_and_nobody_is_blamed() {
    let world = world(2, &json!({"timeouts": {"idle": "300ms", "perTry": "100ms"}}));
    let stops = r"send:POST /sum HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf";
    for _ in 0..10 {
        let said = world.talk("http", &[stops, "expect:idle timeout"]).unwrap();
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    }
    let line = line(&world.agent, "/sum");
    assert_eq!(outcome(&line), (1, "SI"));
    timed_out(&world, "idle", 10.0);
    let metrics = world.agent.metrics().unwrap();
    assert_eq!(metrics.sum("derny_ejections_total", &[]), 0.0);
}
