//! Whoever asks, logs or answers a lot takes nothing from the pods, the probes and the other pods' lines.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::Duration,
};

use derny_tests::{World, agent::HTTP_ADDRESS, clients, eventually, upstream::TestdOptions};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

fn world(arguments: &[&str]) -> World {
    World::with(1, &TestdOptions::default(), |options| {
        options.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    })
    .unwrap()
}

fn load(world: &World, requests: usize, path: &str) {
    let mut command = std::process::Command::new("h2load");
    let url = world.url("http2", path).unwrap();
    command.args(["-n", &requests.to_string(), "-c", "2", "-m", "8", &url]);
    world.client.run(command).unwrap().success().unwrap();
}

#[test]
fn an_endpoint_that_invents_statuses_makes_few_series() {
    let world = world(&[]);
    for codes in ["[600-699]", "[400-599]"] {
        let url = world.url("http", &format!("/status/{codes}")).unwrap();
        world.curl(&["-o", "/dev/null", &url]).unwrap();
    }
    let of = |code| [("destination_service", "http"), ("code", code)];
    let metrics = world.agent.metrics().unwrap();
    let apart = metrics
        .matching("derny_requests_total", &[("destination_service", "http")])
        .count();
    assert_eq!(apart, 65, "64 outcomes, and one for the others");
    let standard = metrics.sum("derny_requests_total", &of("450"));
    let others = metrics.sum("derny_requests_total", &of("other"));
    let beyond = metrics.sum("derny_outcomes_overflow_total", &[]);
    // The first hundred are one outcome, and 63 of the second two hundred are told apart.
    assert_eq!((standard, others, beyond), (1.0, 237.0, 137.0));
}

#[test]
fn scrapes_that_nobody_reads_end_neither_probes_nor_the_agent() {
    let world = world(&[]);
    let before = world.agent.resident().unwrap();
    let ask = || {
        let mut stream = TcpStream::connect(HTTP_ADDRESS).unwrap();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
        stream
    };
    let unread: Vec<TcpStream> = world
        .node
        .host()
        .netns()
        .run(|| (0..200).map(|_| ask()).collect())
        .unwrap();
    for path in ["/livez", "/readyz"] {
        assert_eq!(world.agent.probe(path).unwrap().0, 200, "{path}");
    }
    world
        .agent
        .metric("derny_window_displaced_total", &[("window", "http")], |n| n > 0.0)
        .unwrap();
    let grown = world.agent.resident().unwrap().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    drop(unread);
}

#[test]
fn connections_that_ask_nothing_end_no_probe_and_no_scrape() {
    let world = world(&["--http-connections", "16", "--http-connections-per-peer", "16"]);
    let open = || TcpStream::connect(HTTP_ADDRESS).unwrap();
    let silent: Vec<TcpStream> = world
        .node
        .host()
        .netns()
        .run(|| (0..64).map(|_| open()).collect())
        .unwrap();
    assert_eq!(world.agent.probe("/livez").unwrap().0, 200);
    assert_eq!(world.agent.get("/metrics").unwrap().0, 200);
    drop(silent);
    assert_eq!(world.agent.probe("/metrics").unwrap().0, 404);
}

/// Dials addresses of the pod's own slot that stand for no destination: the agent says a line of each.
fn dial_made_up_addresses(world: &World, times: u32) {
    let script = format!(
        "import socket\nfor n in range({times}):\n s = socket.socket(); s.settimeout(5)\n \
         try: s.connect(('127.192.3.3', 40000 + n % 20000))\n except OSError: pass\n s.close()"
    );
    let mut python = std::process::Command::new("python3");
    python.args(["-c", &script]);
    world
        .client
        .run_within(python, Duration::from_secs(120))
        .unwrap()
        .success()
        .unwrap();
}

#[test]
fn a_log_that_nobody_reads_stops_no_request() {
    let (_unread, write) = std::io::pipe().unwrap();
    let pipe = format!("/proc/{}/fd/{}", std::process::id(), write.as_raw_fd());
    let world = World::with(1, &TestdOptions::default(), |options| {
        options.arguments = ["--log-limit", "0"].map(str::to_owned).into();
        let script = format!("exec \"$@\" 2>{pipe}");
        options.under = ["sh", "-c", &script, "sh"].map(str::to_owned).into();
    })
    .unwrap();
    dial_made_up_addresses(&world, 8000);
    let dropped = [("reason", "sink")];
    world
        .agent
        .metric("derny_log_left_out_total", &dropped, |n| n > 0.0)
        .unwrap();
    load(&world, 2000, "/x");
    assert_eq!(world.agent.probe("/livez").unwrap().0, 200);
}

#[test]
fn made_up_addresses_make_few_lines() {
    let world = world(&["--log-limit", "10"]);
    dial_made_up_addresses(&world, 500);
    let left_out = [("reason", "repeated")];
    world
        .agent
        .metric("derny_log_left_out_total", &left_out, |n| n >= 480.0)
        .unwrap();
    let log = world.agent.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("no known destination"))
        .count();
    assert!((1..=20).contains(&lines), "{lines} lines");
}

/// Puts another thing in the access log's place, and has the agent open it.
fn replace_access_log(world: &mut World, make: impl FnOnce(&Path)) {
    let path = world.agent.access_log_path();
    fs::rename(&path, path.with_extension("old")).unwrap();
    make(&path);
    world.agent.signal(Signal::SIGHUP).unwrap();
}

/// A named pipe that has a reader who does not read.
fn pipe_at(path: &Path) -> fs::File {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut options = fs::File::options();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .unwrap()
}

fn open_by_agent(world: &World, path: &Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{}/fd", world.agent.id().unwrap())).unwrap();
    fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .any(|to| to == path)
}

/// All that comes out of a pipe until it has been as `enough` says.
fn drained(pipe: &mut fs::File, enough: impl Fn(&str) -> bool) -> String {
    let mut bytes = Vec::new();
    let whole = || {
        let _ = pipe.read_to_end(&mut bytes);
        enough(&String::from_utf8_lossy(&bytes))
    };
    eventually("the lines are there", SOON, whole).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn lines_of(text: &str, pod: &str) -> usize {
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["source"] == pod).count()
}

#[test]
fn a_pod_that_floods_a_slow_log_drops_its_own_lines_alone() {
    let mut world = world(&["--access-log-queue", "262144"]);
    let config = world.config().pod(&world.servers[0].pod, "quiet");
    world.reload(config).unwrap();
    world
        .agent
        .metric("derny_pods", &[("state", "enrolled")], |pods| pods == 2.0)
        .unwrap();
    let mut pipe = None;
    replace_access_log(&mut world, |path| pipe = Some(pipe_at(path)));
    let path = world.agent.access_log_path();
    eventually("the pipe is open", SOON, || open_by_agent(&world, &path)).unwrap();

    load(&world, 5000, "/flood");
    let of_flood = [("reason", "share")];
    world
        .agent
        .metric("derny_access_log_dropped_total", &of_flood, |n| n > 1000.0)
        .unwrap();
    let url = world.url("http", "/quiet?n=[1-50]").unwrap();
    let quiet = clients::curl(["-o", "/dev/null", &url]);
    world.servers[0].pod.run(quiet).unwrap().success().unwrap();

    let mut pipe = pipe.unwrap();
    let text = drained(&mut pipe, |text| {
        text.matches("/quiet").count() == 50 && text.ends_with('\n')
    });
    assert_eq!(lines_of(&text, "demo/server-1"), 50);
    assert!(lines_of(&text, "demo/client") > 50);
}

#[test]
fn a_stuck_log_is_opened_anew_and_holds_up_no_end() {
    let mut world = world(&[]);
    let mut pipe = None;
    replace_access_log(&mut world, |path| pipe = Some(pipe_at(path)));
    let path = world.agent.access_log_path();
    eventually("the pipe is open", SOON, || open_by_agent(&world, &path)).unwrap();
    load(&world, 2000, "/stuck");
    fs::rename(&path, path.with_extension("pipe")).unwrap();
    world.agent.signal(Signal::SIGHUP).unwrap();
    world.get("http", "/after", &[]).unwrap();
    world
        .agent
        .access_line("the new file", |line| line["path"] == "/after")
        .unwrap();

    replace_access_log(&mut world, |path| pipe = Some(pipe_at(path)));
    eventually("the pipe is open", SOON, || open_by_agent(&world, &path)).unwrap();
    load(&world, 2000, "/stuck");
    world.agent.terminate(Duration::from_secs(20)).unwrap();
}

#[test]
fn lines_that_a_full_disk_takes_are_counted_as_lost() {
    let mut world = world(&[]);
    world.get("http", "/before", &[]).unwrap();
    world
        .agent
        .metric("derny_access_log_lines_total", &[], |n| n == 1.0)
        .unwrap();
    replace_access_log(&mut world, |path| {
        std::os::unix::fs::symlink("/dev/full", path).unwrap()
    });
    eventually("it is open", SOON, || {
        open_by_agent(&world, Path::new("/dev/full"))
    })
    .unwrap();
    for _ in 0..5 {
        world.get("http", "/lost", &[]).unwrap();
    }
    let lost = [("reason", "sink")];
    world
        .agent
        .metric("derny_access_log_dropped_total", &lost, |n| n == 5.0)
        .unwrap();
    let written = world
        .agent
        .metrics()
        .unwrap()
        .sum("derny_access_log_lines_total", &[]);
    assert_eq!(written, 1.0);
}

#[test]
fn long_values_are_cut() {
    let world = world(&["--access-log-field", "100"]);
    let path = format!("/{}", "x".repeat(3999));
    world.get("http", &path, &["-A", &"y".repeat(1100)]).unwrap();
    let line = world
        .agent
        .access_line("the request", |line| line["cut_bytes"] == 4900)
        .unwrap();
    assert_eq!(
        line["path"].as_str().unwrap().len(),
        103,
        "100 bytes and a mark: {line}"
    );
    assert!(line["user_agent"].as_str().unwrap().ends_with('…'), "{line}");
}
