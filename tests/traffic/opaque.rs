//! Bytes that are not HTTP.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use derny_tests::{
    Process, World, clients, eventually,
    upstream::{HTTP_PORT, TCP_PORT},
};

const REDIS_PORT: u16 = 6379;

#[test]
fn redis_works_over_a_declared_and_an_undeclared_port() {
    let mut world = World::new(1).unwrap();
    let pod = &world.servers[0].pod;
    let mut command = Command::new("redis-server");
    command
        .args([
            "--port",
            &REDIS_PORT.to_string(),
            "--save",
            "",
            "--protected-mode",
            "no",
        ])
        .stdout(Stdio::null());
    let _redis = pod.spawn(command).unwrap();
    let declared = world.node.service("redis", 6379, REDIS_PORT, &[pod]).unwrap();
    let undeclared = world.node.service("any-redis", 6379, REDIS_PORT, &[pod]).unwrap();
    let config = world
        .config()
        .service(&declared, Some("tcp"))
        .service(&undeclared, None);
    world.reload(config).unwrap();

    for vip in [&declared, &undeclared] {
        let ip = vip.ip();
        let ready = || {
            world
                .shell(&format!("redis-cli -h {ip} ping"))
                .is_ok_and(|said| said == "PONG")
        };
        eventually("redis answers", Duration::from_secs(5), ready).unwrap();
        let said = world
            .shell(&format!(
                "redis-cli -h {ip} set key value; redis-cli -h {ip} get key; \
                 redis-benchmark -q -h {ip} -c 10 -n 5000 -P 4 -t set,get,lpush"
            ))
            .unwrap();
        assert!(
            said.starts_with("OK\nvalue\n") && said.matches("requests per second").count() == 3,
            "{said}"
        );
        let closed = |sum: f64| sum == 0.0;
        let labels = [("destination_service", vip.name())];
        world
            .agent
            .metric("derny_connections_active", &labels, closed)
            .unwrap();
        world
            .agent
            .metric("derny_upstream_connections_active", &labels, closed)
            .unwrap();
        world
            .agent
            .metric("derny_tcp_sent_bytes_total", &labels, |sum| sum > 50_000.0)
            .unwrap();
    }
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    let world = World::new(1).unwrap();
    for service in ["greet", "any-greet"] {
        let steps = ["expect:8.0-server-1", "send:query", "expect:query", "shut", "end"];
        world.talk(service, &steps).unwrap();
        let named = format!("demo/{service}:80");
        let line = world
            .agent
            .access_line(service, |line| line["service"] == named.as_str())
            .unwrap();
        assert_eq!(
            (&line["protocol"], &line["flags"]),
            (&"tcp".into(), &"-".into()),
            "{line}"
        );
        assert_eq!(
            (&line["bytes_received"], &line["bytes_sent"]),
            (&5.into(), &83.into()),
            "{line}"
        );
    }
    assert_eq!(
        world
            .agent
            .metrics()
            .unwrap()
            .sum("derny_detect_timeouts_total", &[]),
        0.0
    );
}

#[test]
fn a_caller_may_end_its_side_first() {
    let world = World::new(1).unwrap();
    for service in ["tcp", "any-tcp"] {
        let answer = world
            .talk(service, &[r"send:\x01\x02not http\n", "shut", "end"])
            .unwrap();
        assert_eq!(answer, "\u{1}\u{2}not http\n", "{service}");
    }
}

#[test]
fn a_server_may_end_its_side_first() {
    let mut world = World::new(1).unwrap();
    world.kill_server(0).unwrap();
    let listener = world.servers[0]
        .pod
        .inside(|| TcpListener::bind(("0.0.0.0", TCP_PORT)).unwrap())
        .unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        rest
    });
    world
        .talk("tcp", &["expect:bye", "end", "send:still here", "shut"])
        .unwrap();
    assert_eq!(server.join().unwrap(), "still here");
}

#[test]
fn tls_passes_through_and_its_name_is_logged() {
    let mut world = World::new(1).unwrap();
    world.kill_server(0).unwrap();
    let _server = tls_server(&world);
    for (service, name) in [("tls", "declared.test"), ("any-http", "detected.test")] {
        let ip = world.vip(service).unwrap().ip();
        let (resolve, url) = (format!("{name}:80:{ip}"), format!("https://{name}:80/"));
        let get = || world.curl(&["--insecure", "--resolve", &resolve, &url]).unwrap();
        eventually("the TLS server answers", Duration::from_secs(5), || {
            get().status.success()
        })
        .unwrap();
        assert!(get().stdout.contains("TLSv1.3"), "{:?}", get());
        let line = world
            .agent
            // Those before were too early for the server.
            .access_line(name, |line| line["server_name"] == name && line["flags"] != "UF")
            .unwrap();
        assert_eq!(
            (&line["protocol"], &line["flags"]),
            (&"tls".into(), &"-".into()),
            "{line}"
        );
    }
}

/// `openssl s_server` with a page that says what was negotiated.
fn tls_server(world: &World) -> Process {
    let directory = world.node.host().run_directory().display().to_string();
    let mut command = Command::new("sh");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).args([
        "-c",
        &format!(
            "cd {directory} && openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout key -out cert && \
             exec openssl s_server -accept {HTTP_PORT} -key key -cert cert -www"
        ),
    ]);
    world.servers[0].pod.spawn(command).unwrap()
}

#[test]
fn silence_on_an_undeclared_port_becomes_tcp_and_is_counted() {
    let mut world = World::new(1).unwrap();
    let mut config = world.config();
    config.policy_of("any-tcp").unwrap().detect_timeout = Some("300ms".to_owned());
    world.reload(config).unwrap();

    let target = world.target("any-tcp").unwrap();
    let mut talk =
        clients::testc(["talk", &target, "hold", "send:late", "expect:late", "shut", "end"]).unwrap();
    talk.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut talk = world.client.spawn(talk).unwrap();
    world
        .agent
        .metric("derny_detect_timeouts_total", &[], |sum| sum == 1.0)
        .unwrap();
    drop(talk.child().stdin.take());
    assert_eq!(
        talk.output(Duration::from_secs(5)).unwrap().success().unwrap(),
        "late"
    );
}
