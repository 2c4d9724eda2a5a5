//! Bodies that break off. Whatever the cut, no endpoint sees a whole request that its caller did not end, and no caller
//! a whole response that its endpoint did not end.

use derny_tests::{Pod, World, clients, upstream::HTTP_PORT};
use serde_json::Value;

/// Steps that break an upload off, and the flag that says whose fault it was.
type Cut = (&'static [&'static str], &'static str);

/// Ways to break off a chunked body of HTTP/1.1.
const HTTP1_CUTS: [Cut; 5] = [
    (&["shut", "closed"], "DC"),
    (&["reset"], "DC"),
    (&["send:zz\\r\\n", "closed"], "DPE"),
    // In the middle of a chunk, and between the last chunk and the end of the trailers.
    (&["send:5\\r\\nhe", "shut", "closed"], "DC"),
    (&["send:0\\r\\n", "shut", "closed"], "DC"),
];

/// Ways to break off the first stream of a connection of HTTP/2.
const HTTP2_CUTS: [Cut; 4] = [
    // RST_STREAM with CANCEL.
    (
        &[
            "send:\\0\\0\\x04\\x03\\0\\0\\0\\0\\x01\\0\\0\\0\\x08",
            "shut",
            "closed",
        ],
        "DC",
    ),
    (&["shut", "closed"], "DC"),
    (&["reset"], "DC"),
    // A DATA frame on stream 0: the connection is in error.
    (&["send:\\0\\0\\0\\0\\0\\0\\0\\0\\0", "closed"], "DC"),
];

/// A POST of HTTP/1.1 with one chunk, which has reached the server.
fn http1_upload(path: &str) -> Vec<String> {
    let head = format!("send:POST {path} HTTP/1.1\\r\\nhost: a\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n");
    vec![head, "send:5\\r\\nhello\\r\\n".to_owned()]
}

/// The same over HTTP/2: preface, SETTINGS, HEADERS (`:method POST`, `:scheme http`, `:path`, `:authority a`), DATA.
fn http2_upload(path: &str) -> Vec<String> {
    let block = path.len() + 7;
    let headers = format!(
        "\\0\\0\\x{block:02x}\\x01\\x04\\0\\0\\0\\x01\\x83\\x86\\x04\\x{:02x}{path}\\x01\\x01a",
        path.len()
    );
    vec![
        "send:PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\x04\\0\\0\\0\\0\\0".to_owned(),
        format!("send:{headers}\\0\\0\\x05\\0\\0\\0\\0\\0\\x01hello"),
    ]
}

/// How many requests a server has seen whole, by the servers' own count.
fn whole(world: &World) -> u64 {
    let count = |server: &derny_tests::world::Server| {
        let url = format!("http://{}:{HTTP_PORT}/whole", server.pod.ip());
        let text = server
            .pod
            .run(clients::curl(["-s", &url]))
            .unwrap()
            .success()
            .unwrap();
        text.trim().parse::<u64>().unwrap()
    };
    world.servers.iter().map(count).sum()
}

/// `steps` as a conversation of `pod` with `target`.
fn talk(pod: &Pod, target: &str, steps: &[String]) {
    let words: Vec<&str> = steps.iter().map(String::as_str).collect();
    let command = clients::testc([&["talk", target][..], &words].concat()).unwrap();
    pod.run(command).unwrap().success().unwrap();
}

/// Each upload is broken off in each way; its line must have one attempt, and one of the flags.
fn nothing_is_completed(world: &World, pod: &Pod, target: &str, early: bool) {
    for (version, cuts) in [("h1", &HTTP1_CUTS[..]), ("h2", &HTTP2_CUTS)] {
        for (number, (cut, flag)) in cuts.iter().enumerate() {
            let path = if early { "/sum/early" } else { "/sum" };
            let path = format!("{path}?{version}-{number}-{}", target.replace([':', '.'], "-"));
            // An answer that has begun shows that the engine has the request. Without one, a reset may take back what it
            // has not read, and a stream may be gone before it was one: then there is no line.
            let begun = early.then(|| format!("expect:{}", if version == "h1" { "200 OK" } else { "\\x88" }));
            let has_line = early || version == "h1" && !cut.contains(&"reset");
            let cut = begun.into_iter().chain(cut.iter().map(|step| (*step).to_owned()));
            let upload = match version {
                "h1" => http1_upload(&path),
                _ => http2_upload(&path),
            };
            let steps: Vec<String> = upload.into_iter().chain(cut).collect();
            talk(pod, target, &steps);
            if !has_line {
                continue;
            }
            let line = world
                .agent
                .access_line(&path, |line| line["path"] == path.as_str())
                .unwrap();
            let flags = line["flags"].as_str().unwrap();
            assert!(line["attempts"].as_u64().unwrap() <= 1, "{line}");
            assert!(
                flags == *flag || early && flags == "DC",
                "{flag} expected: {line}"
            );
        }
    }
    assert_eq!(whole(world), 0, "whole requests at {target}");
}

#[test]
fn an_upload_that_breaks_off_is_whole_to_no_endpoint() {
    let world = World::new(3).unwrap();
    for service in ["http", "http2", "any-http"] {
        let target = world.target(service).unwrap();
        nothing_is_completed(&world, &world.client, &target, false);
        nothing_is_completed(&world, &world.client, &target, true);
    }
    blames_no_endpoint(&world);
}

#[test]
fn an_upload_from_outside_that_breaks_off_is_whole_to_no_pod() {
    let mut world = World::new(1).unwrap();
    let stranger = world.node.pod("stranger").unwrap();
    let server = &world.servers[0].pod;
    let config = world
        .config()
        .pod_inbound(server, "server", HTTP_PORT, Some("http"));
    let target = server.address(HTTP_PORT).to_string();
    world.reload(config).unwrap();
    let enrolled = [("state", "enrolled")];
    world.agent.metric("derny_pods", &enrolled, |n| n == 2.0).unwrap();
    nothing_is_completed(&world, &stranger, &target, false);
    nothing_is_completed(&world, &stranger, &target, true);
}

/// A caller's mistakes eject nobody.
fn blames_no_endpoint(world: &World) {
    let metrics = world.agent.metrics().unwrap();
    assert_eq!(metrics.sum("derny_ejections_total", &[]), 0.0);
    let endpoints: Value = world.agent.cli_json(&["endpoints"]).unwrap();
    assert!(!endpoints.to_string().contains("\"ejected\""), "{endpoints}");
}

#[test]
fn an_answer_that_breaks_off_is_whole_to_no_caller() {
    let world = World::new(1).unwrap();
    for service in ["http", "http2", "any-http"] {
        for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
            for path in ["/truncate/2000", "/truncate/2000?chunked"] {
                let url = world.url(service, path).unwrap();
                let output = world.curl(&["-s", "-o", "/dev/null", version, &url]).unwrap();
                assert!(
                    !output.status.success(),
                    "{service} {version} {path} looked whole"
                );
            }
        }
    }
}

#[test]
fn a_pods_own_answers_and_failures_are_not_asked_for_again() {
    let mut world = World::new(1).unwrap();
    let stranger = world.node.pod("stranger").unwrap();
    let server = &world.servers[0].pod;
    let mut config = world
        .config()
        .pod_inbound(server, "server", HTTP_PORT, Some("http"));
    let port = config.pods.last_mut().unwrap().inbound.last_mut().unwrap();
    port.more.insert("requestTimeout".to_owned(), "700ms".into());
    let target = server.address(HTTP_PORT);
    world.reload(config).unwrap();
    let enrolled = [("state", "enrolled")];
    world.agent.metric("derny_pods", &enrolled, |n| n == 2.0).unwrap();
    for (path, code) in [("/status/503", 503), ("/reset", 503), ("/delay/60s", 504)] {
        for method in ["POST", "GET"] {
            let path = format!("{path}?{method}");
            let url = format!("http://{target}{path}");
            stranger
                .run(clients::curl(["-s", "-X", method, "-o", "/dev/null", &url]))
                .unwrap();
            let line = world
                .agent
                .access_line(&path, |line| line["path"] == path.as_str())
                .unwrap();
            assert_eq!(
                (&line["attempts"], &line["code"]),
                (&1.into(), &code.into()),
                "{line}"
            );
        }
    }
}
