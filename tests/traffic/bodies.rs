//! Large bodies, and readers that do not keep up.

use std::{fs, process::Stdio, time::Duration};

use derny_tests::{
    Pod, World, clients,
    observe::{now, pause_until},
};

const MIB: u64 = 1 << 20;

#[test]
fn a_hundred_megabytes_arrive_as_sent() {
    let world = World::new(1).unwrap();
    let file = world.node.host().run_directory().join("body");
    let file = file.display();
    let sent = world
        .shell(&format!(
            "head -c 100000000 /dev/urandom > {file}; sha256sum < {file}"
        ))
        .unwrap();
    let expected = world
        .curl(&[&world.url("http", "/bytes/100000000/sha256").unwrap()])
        .unwrap()
        .stdout;
    for (service, flag) in [
        ("http", "--http1.1"),
        ("http", "--http2-prior-knowledge"),
        ("http2", "--http1.1"),
    ] {
        let down = format!(
            "curl -sS {flag} {} | sha256sum",
            world.url(service, "/bytes/100000000").unwrap()
        );
        assert!(
            world.shell(&down).unwrap().starts_with(&expected),
            "{service} {flag}"
        );
        let both = format!(
            "curl -sS {flag} -T {file} {} | sha256sum",
            world.url(service, "/echo").unwrap()
        );
        assert_eq!(world.shell(&both).unwrap(), sent, "{service} {flag}");
    }
}

#[test]
fn a_hundred_megabytes_in_messages_arrive_as_sent() {
    let world = World::new(1).unwrap();
    let target = world.target("grpc").unwrap();
    let arguments = [
        "tonic",
        &target,
        "--calls",
        "1",
        "--messages",
        "100",
        "--payload",
        "1000000",
    ];
    world
        .client
        .run(clients::testc(arguments).unwrap())
        .unwrap()
        .success()
        .unwrap();
}

#[test]
fn a_reader_that_stalls_stops_the_sender_and_costs_no_memory() {
    let world = World::new(1).unwrap();
    let readers = [
        ("http", "--http1.1", "/bytes/100000000000"),
        ("http", "--http2-prior-knowledge", "/bytes/100000000000"),
        ("http2", "--http1.1", "/bytes/100000000000"),
    ];
    let (grown, moved) = under(&world, &readers, &["--limit-rate", "1k", "--output", "/dev/null"]);
    assert!(grown < 32 * MIB, "the agent grew by {} MiB", grown / MIB);
    assert!(moved < 64 * MIB, "the server sent {} MiB", moved / MIB);
}

#[test]
fn a_server_that_stalls_stops_the_caller_and_costs_no_memory() {
    let world = World::new(1).unwrap();
    let writers = [
        ("http", "--http1.1", "/sum?rate=1000"),
        ("http", "--http2-prior-knowledge", "/sum?rate=1000"),
        ("http2", "--http1.1", "/sum?rate=1000"),
    ];
    let (grown, moved) = under(&world, &writers, &["--upload-file", "/dev/zero"]);
    assert!(grown < 32 * MIB, "the agent grew by {} MiB", grown / MIB);
    assert!(moved < 64 * MIB, "the server got {} MiB", moved / MIB);
}

/// How much the agent's memory grew at most, and how many bytes the server's pod moved, while these callers
/// worked for three seconds.
fn under(world: &World, callers: &[(&str, &str, &str)], flags: &[&str]) -> (u64, u64) {
    // What every connection costs is in use before.
    world.get("http", "/x", &[]).unwrap();
    let before = (world.agent.resident().unwrap(), moved(&world.servers[0].pod));
    let callers: Vec<_> = callers
        .iter()
        .map(|(service, flag, path)| {
            let mut command = std::process::Command::new("curl");
            command
                .args(["--silent", flag])
                .args(flags)
                .arg(world.url(service, path).unwrap());
            world.client.spawn(command_without_output(command)).unwrap()
        })
        .collect();
    let end = now() + Duration::from_secs(3);
    let mut highest = 0;
    while now() < end {
        highest = highest.max(world.agent.resident().unwrap());
        pause_until(now() + Duration::from_millis(20));
    }
    for mut caller in callers {
        assert_eq!(caller.exited().unwrap(), None, "all of them are still at it");
    }
    (
        highest.saturating_sub(before.0),
        moved(&world.servers[0].pod) - before.1,
    )
}

fn command_without_output(mut command: std::process::Command) -> std::process::Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Bytes received and sent by a pod's interface so far.
fn moved(pod: &Pod) -> u64 {
    let table = pod
        .inside(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap())
        .unwrap();
    let line = table
        .lines()
        .find(|line| line.trim_start().starts_with("eth0:"))
        .unwrap();
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap())
        .collect();
    fields[0] + fields[8]
}
