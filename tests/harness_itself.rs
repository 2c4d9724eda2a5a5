//! The harness itself: what tests and the demo take for granted of the node below them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use derny_tests::{Node, Pod, Process, Testd, clients, eventually, observe::now, upstream::HTTP_PORT};
use nix::sys::signal::Signal;

/// Answers every connection with its own name and the caller's address, for as long as the process lives.
fn name_server(pod: &Pod, port: u16) {
    let (v4, v6) = pod
        .inside(|| {
            (
                TcpListener::bind(("0.0.0.0", port)).unwrap(),
                TcpListener::bind((pod.ip6(), port)).unwrap(),
            )
        })
        .unwrap();
    for listener in [v4, v6] {
        let name = pod.name().to_owned();
        thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = write!(stream, "{name} {}", peer.ip());
            }
        });
    }
}

fn ask(from: &Pod, address: SocketAddr) -> std::io::Result<String> {
    from.inside(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}

#[test]
fn pods_reach_each_other_with_their_own_addresses() {
    let node = Node::new().unwrap();
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    name_server(&b, 8080);
    assert_eq!(ask(&a, b.address(8080)).unwrap(), format!("b {}", a.ip()));
    assert_eq!(ask(&a, b.address6(8080)).unwrap(), format!("b {}", a.ip6()));
}

#[test]
fn a_virtual_address_spreads_connections_and_keeps_the_source() {
    let node = Node::new().unwrap();
    let client = node.pod("client").unwrap();
    let servers: Vec<Pod> = (1..=3)
        .map(|n| node.pod(&format!("server-{n}")).unwrap())
        .collect();
    servers.iter().for_each(|pod| name_server(pod, 8080));
    let mut vip = node
        .service("echo", 80, 8080, &servers.iter().collect::<Vec<_>>())
        .unwrap();

    for (address, source) in [
        (vip.address(), client.ip().to_string()),
        (vip.address6(), client.ip6().to_string()),
    ] {
        let mut seen = [0; 3];
        for _ in 0..90 {
            let answer = ask(&client, address).unwrap();
            let (name, peer) = answer.split_once(' ').unwrap();
            assert_eq!(peer, source);
            seen[servers.iter().position(|pod| pod.name() == name).unwrap()] += 1;
        }
        // Three fair sides, 90 throws: fewer than 10 of one comes once in a hundred million runs.
        assert!(seen.iter().all(|count| *count >= 10), "{seen:?}");
    }

    vip.set_endpoints(&[&servers[2]]).unwrap();
    for _ in 0..10 {
        assert!(ask(&client, vip.address()).unwrap().starts_with("server-3 "));
    }
    vip.set_endpoints(&[]).unwrap();
    assert!(ask(&client, vip.address()).is_err());
}

#[test]
fn a_pod_reaches_itself_over_its_service() {
    let node = Node::new().unwrap();
    let pod = node.pod("alone").unwrap();
    name_server(&pod, 8080);
    let vip = node.service("alone", 80, 8080, &[&pod]).unwrap();
    assert!(ask(&pod, vip.address()).unwrap().starts_with("alone "));
    assert!(ask(&pod, vip.address6()).unwrap().starts_with("alone "));
}

#[test]
fn a_program_runs_in_its_pods_namespace_and_group() {
    let node = Node::new().unwrap();
    let pod = node.pod("a").unwrap();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "cat /proc/self/cgroup; ip -4 -o address show dev eth0; test -d /sys/fs/cgroup",
    ]);
    let said = pod.run(command).unwrap().success().unwrap();
    assert!(
        said.contains(&format!("0::/{}/kubepods/a", node.prefix())),
        "{said}"
    );
    assert!(said.contains(&format!("{}/32", pod.ip())), "{said}");
}

#[test]
fn a_program_that_hangs_is_killed_at_its_deadline() {
    let node = Node::new().unwrap();
    let pod = node.pod("a").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo begun; exec sleep 1000"]);
    let error = pod.run_within(command, Duration::from_millis(200)).unwrap_err();
    assert!(format!("{error:#}").contains("begun"), "{error:#}");
}

#[test]
fn a_new_pod_leaves_the_gateway_as_the_others_know_it() {
    let node = Node::new().unwrap();
    let bridge = || {
        let mut command = Command::new("ip");
        command.args(["-o", "link", "show", "br0"]).stdout(Stdio::piped());
        let process = node.host().spawn(command).unwrap();
        let said = process.output(Duration::from_secs(5)).unwrap().success().unwrap();
        said.split("link/ether ").nth(1).unwrap().to_owned()
    };
    // One without an address of its own takes that of its first port.
    let known = bridge();
    let _pod = node.pod("a").unwrap();
    assert_eq!(bridge(), known);
}

#[test]
fn nothing_is_left_behind() {
    let node = Node::new().unwrap();
    let prefix = node.prefix();
    let pod = node.pod("a").unwrap();
    let mut command = Command::new("sleep");
    command.arg("1000");
    let mut process = pod.spawn(command).unwrap();
    assert!(stands(&prefix));
    let kubepods = node.host().kubepods();
    drop(node);
    assert!(!stands(&prefix));
    assert!(!kubepods.exists());
    assert!(
        process.wait(Duration::from_secs(1)).is_ok(),
        "the node's end is the end of its processes"
    );
}

#[test]
fn a_server_that_is_told_to_end_answers_what_it_has() {
    let node = Node::new().unwrap();
    let (client, server) = (node.pod("client").unwrap(), node.pod("server").unwrap());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let mut testd = Testd::start(&server).unwrap();
        let url = format!("http://{}/ticks/10/50ms", server.address(HTTP_PORT));
        let mut command = clients::curl(["--no-buffer", version, &url]);
        command.stdout(Stdio::piped());
        let mut caller = client.spawn(command).unwrap();
        let mut lines = BufReader::new(caller.child().stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "0");
        testd.process().signal(Signal::SIGTERM).unwrap();
        assert_eq!(lines.last().unwrap().unwrap(), "9", "{version}");
        assert!(
            caller.wait(Duration::from_secs(5)).unwrap().success(),
            "{version}"
        );
        assert!(testd.process().wait(Duration::from_secs(5)).unwrap().success());
    }
}

/// No test of its own: what the two below run as another process.
#[test]
#[ignore = "waits for its end"]
fn a_node_that_stays() {
    let node = Node::new().unwrap();
    let _pod = node.pod("a").unwrap();
    println!("\nnode {}", node.prefix());
    let _ = std::io::stdin().read(&mut [0]);
}

/// Runs `a_node_that_stays` until its node stands, and returns the node's prefix.
fn another_process() -> (Process, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_node_that_stays", "--ignored", "--nocapture"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::spawn(command).unwrap();
    let stdout = BufReader::new(process.child().stdout.take().unwrap());
    let mut lines = stdout.lines().map(|line| line.unwrap());
    let prefix = lines
        .find_map(|line| line.strip_prefix("node ").map(str::to_owned))
        .unwrap();
    assert!(Path::new("/run/netns").join(format!("{prefix}-a")).exists());
    (process, prefix)
}

fn stands(prefix: &str) -> bool {
    let left = std::fs::read_dir("/run/netns").unwrap().flatten();
    left.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .any(|name| name.starts_with(prefix))
        || Path::new("/run").join(prefix).exists()
}

#[test]
fn ctrl_c_removes_everything() {
    let (mut process, prefix) = another_process();
    process.signal(Signal::SIGINT).unwrap();
    assert_eq!(process.wait(Duration::from_secs(10)).unwrap().code(), Some(130));
    assert!(!stands(&prefix));
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next() {
    let (mut killed, prefix) = another_process();
    killed.kill9().unwrap();
    // Unless another test's process was quicker.
    let (_next, _) = another_process();
    eventually("the dead node is gone", Duration::from_secs(10), || {
        !stands(&prefix)
    })
    .unwrap();
}

#[test]
fn a_pod_takes_little_time() {
    let node = Node::new().unwrap();
    let begun = now();
    let pods: Vec<Pod> = (0..10).map(|n| node.pod(&format!("pod-{n}")).unwrap()).collect();
    let each = begun.elapsed() / 10;
    assert!(each < Duration::from_millis(300), "{each:?}");
    println!("{each:?} a pod");
    drop(pods);
}
