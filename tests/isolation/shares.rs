use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, Process, Testd, Vip, clients, eventually,
    observe::{now, pause_until},
    upstream::{HTTP_PORT, TCP_PORT},
};

const SOON: Duration = Duration::from_secs(20);

/// Two pods that call a server, which is a third.
struct Shared {
    agent: Agent,
    _testd: Testd,
    server: Pod,
    victim: Pod,
    greedy: Pod,
    http: Vip,
    tcp: Vip,
    node: Node,
}

impl Shared {
    fn with(arguments: &[&str], change: impl FnOnce(Config, &Pod) -> Config) -> Self {
        let node = Node::new().unwrap();
        let [server, victim, greedy] = ["server", "victim", "greedy"].map(|name| node.pod(name).unwrap());
        let testd = Testd::start(&server).unwrap();
        let http = node.service("http", 80, HTTP_PORT, &[&server]).unwrap();
        let tcp = node.service("tcp", 80, TCP_PORT, &[&server]).unwrap();
        let config = Config::default()
            .pod(&victim, "victim")
            .pod(&greedy, "greedy")
            .service(&http, Some("http"))
            .service(&tcp, Some("tcp"));
        let mut options = AgentOptions::new(change(config, &server));
        options.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let agent = Agent::start(&node, options).unwrap();
        Self {
            agent,
            _testd: testd,
            server,
            victim,
            greedy,
            http,
            tcp,
            node,
        }
    }

    fn new(arguments: &[&str]) -> Self {
        Self::with(arguments, |config, _| config)
    }

    /// Status and `x-request-id` of a call: only the agent adds that, so it is empty for a direct one.
    fn call(&self, from: &Pod, to: &str) -> (String, bool) {
        let url = format!("http://{to}/headers");
        let output = from
            .run(clients::curl(["-m", "5", "-w", "\n%{http_code}", &url]))
            .unwrap();
        let text = output.stdout;
        let status = text.lines().last().unwrap_or_default().to_owned();
        (status, text.contains("x-request-id"))
    }

    fn succeeds(&self, from: &Pod) {
        for _ in 0..20 {
            let (status, by_derny) = self.call(from, &self.http.address().to_string());
            assert_eq!((status.as_str(), by_derny), ("200", true), "{}", self.agent.log());
        }
    }

    fn exceeded(&self, pod: &str, share: &str) -> f64 {
        let metrics = self.agent.metrics().unwrap();
        metrics.sum(
            "derny_pod_share_exceeded_total",
            &[("pod", pod), ("share", share)],
        )
    }
}

/// A flood that has begun; it ends when this is dropped.
fn flood(pod: &Pod, kind: &str, target: &str, connections: usize, more: &[&str]) -> Process {
    let mut command = clients::python("flood.py").unwrap();
    command.args(["--kind", kind, "--target", target]);
    command
        .args(["--connections", &connections.to_string()])
        .args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = pod.spawn(command).unwrap();
    let mut line = String::new();
    let stdout = process.child().stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    process
}

#[test]
fn idle_connections_of_one_pod_leave_places_for_others() {
    let shared = Shared::new(&["--max-connections", "200"]);
    let target = shared.http.address().to_string();
    let _flood = flood(&shared.greedy, "idle", &target, 400, &[]);
    shared.succeeds(&shared.victim);
    assert!(shared.exceeded("greedy", "connections") > 100.0);
    assert_eq!(shared.exceeded("victim", "connections"), 0.0);
}

#[test]
fn a_stranger_cannot_take_all_places_of_a_pods_port() {
    let shared = Shared::with(&["--max-connections", "200"], |config, server| {
        config.pod_inbound(server, "server", HTTP_PORT, Some("http"))
    });
    let [stranger, other] = ["stranger", "other"].map(|name| shared.node.pod(name).unwrap());
    let target = shared.server.address(HTTP_PORT).to_string();
    let _flood = flood(&stranger, "idle", &target, 400, &[]);
    for _ in 0..20 {
        let (status, by_derny) = shared.call(&other, &target);
        assert_eq!((status.as_str(), by_derny), ("200", true));
    }
    assert!(shared.exceeded("server", "connections") > 100.0);
}

/// As large as a policy may have them.
fn wide_windows(mut config: Config, _: &Pod) -> Config {
    config = config.algorithm("http", "roundRobin");
    let policy = config.policy_of("http").unwrap();
    let pool = serde_json::json!({"windowSize": 16_777_216});
    policy.more.insert("connectionPool".to_owned(), pool);
    config
}

#[test]
fn what_a_pod_sends_is_held_within_its_share_of_memory() {
    let budget = 96;
    let shared = Shared::with(&["--memory-budget", &format!("{budget}Mi")], wide_windows);
    let before = shared.agent.resident().unwrap();
    let target = shared.http.address().to_string();
    let _flood = flood(&shared.greedy, "uploads", &target, 300, &["--insist"]);
    let until = now() + Duration::from_secs(5);
    let mut most = 0;
    while now() < until {
        shared.succeeds(&shared.victim);
        most = most.max(shared.agent.resident().unwrap());
    }
    let grown = (most.saturating_sub(before)) >> 20;
    assert!(grown < budget, "{grown} MiB for a budget of {budget} MiB");
    assert!(shared.exceeded("greedy", "memory") + shared.exceeded("greedy", "streams") > 0.0);
    let metrics = shared.agent.metrics().unwrap();
    assert!(metrics.sum("derny_pod_memory_bytes", &[("pod", "greedy")]) <= f64::from(96 << 19));
}

#[test]
fn memory_comes_back_after_a_flood() {
    const MIB: u64 = 1 << 20;
    let shared = Shared::new(&[]);
    shared.succeeds(&shared.victim);
    let before = shared.agent.resident().unwrap();
    let grown = || shared.agent.resident().unwrap().saturating_sub(before);
    let mut h2load = Command::new("h2load");
    h2load.args(["--h1", "-c", "512", "-t", "1", "-D", "3600"]);
    h2load.arg(shared.http.url("/bytes/128")).stdout(Stdio::null());
    let flood = shared.greedy.spawn(h2load).unwrap();
    let soon = Duration::from_secs(30);
    eventually("the flood takes memory", soon, || grown() > 20 * MIB).unwrap();
    drop(flood);
    eventually("it is given back", soon, || grown() < 10 * MIB).unwrap();
}

#[test]
fn a_pod_that_can_have_no_more_connections_goes_directly() {
    let shared = Shared::new(&["--pod-connections", "8", "--stale-after", "500ms"]);
    let target = shared.http.address().to_string();
    let mut flood = flood(&shared.greedy, "idle", &target, 40, &["--insist"]);
    eventually("the greedy pod's calls go directly", SOON, || {
        shared.call(&shared.greedy, &target) == ("200".to_owned(), false)
    })
    .unwrap();
    shared.succeeds(&shared.victim);
    let aside = shared
        .agent
        .metrics()
        .unwrap()
        .sum("derny_pod_aside", &[("pod", "greedy")]);
    assert_eq!(aside, 1.0);
    let status = shared.agent.cli(&["status"]).unwrap().stdout;
    assert!(status.contains("demo/greedy"), "{status}");
    flood.kill9().unwrap();
    eventually("the pod is served again", SOON, || {
        shared.call(&shared.greedy, &target) == ("200".to_owned(), true)
    })
    .unwrap();
}

#[test]
fn an_agent_without_descriptors_steps_aside_and_comes_back() {
    let shared = Shared::new(&[]);
    let target = shared.http.address().to_string();
    let pid = shared.agent.id().unwrap();
    let limit = |files: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={files}:")]);
        assert!(prlimit.status().unwrap().success());
    };
    shared.succeeds(&shared.victim);
    limit("10");
    eventually("calls go directly", SOON, || {
        shared.call(&shared.victim, &target) == ("200".to_owned(), false)
    })
    .unwrap();
    assert!(shared.agent.log().contains("cannot accept connections"));
    limit("1000");
    eventually("calls pass the agent again", SOON, || {
        shared.call(&shared.victim, &target) == ("200".to_owned(), true)
    })
    .unwrap();
}

/// CPU seconds that pods were billed, and what the agent's process used meanwhile.
fn billed(shared: &Shared, work: impl FnOnce()) -> (f64, f64, f64) {
    let of = |pod: &str| {
        let metrics = shared.agent.metrics().unwrap();
        metrics.sum("derny_pod_cpu_seconds_total", &[("pod", pod)])
    };
    let before = (of("greedy"), of("victim"), shared.agent.cpu().unwrap());
    work();
    // A worker bills ten times a second.
    pause_until(now() + Duration::from_millis(300));
    let used = (shared.agent.cpu().unwrap() - before.2).as_secs_f64();
    (of("greedy") - before.0, of("victim") - before.1, used)
}

#[test]
fn cpu_is_billed_to_the_pod_that_used_it() {
    let shared = Shared::new(&[]);
    let url = format!("http://{}/bytes/128", shared.http.address());
    let (greedy, victim, used) = billed(&shared, || {
        let mut h2load = Command::new("h2load");
        h2load.args(["--h1", "-c", "32", "-n", "40000", &url]);
        shared.greedy.run(h2load).unwrap().success().unwrap();
    });
    assert!(
        greedy > 0.9 * used && greedy <= 1.02 * used,
        "{greedy} of {used} s"
    );
    assert!(victim < 0.01 * used, "{victim} of {used} s");
}

#[test]
fn a_flood_does_not_keep_others_waiting() {
    for (kind, connections) in [
        ("ping", 4),
        ("settings", 4),
        ("window-update", 4),
        ("heads", 8),
        ("tcp", 8),
    ] {
        let shared = Shared::new(&[]);
        let target = match kind {
            "tcp" => shared.tcp.address(),
            _ => shared.http.address(),
        };
        let _flood = flood(&shared.greedy, kind, &target.to_string(), connections, &[]);
        let begun = now();
        shared.succeeds(&shared.victim);
        let each = (now() - begun) / 20;
        assert!(
            each < Duration::from_millis(500),
            "{each:?} beside a flood of {kind}"
        );
    }
}
