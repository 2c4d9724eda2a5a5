//! A node whose pods are enrolled and withdrawn, and a client that keeps its connection.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, Process, Testd, Vip, eventually, holdings::Namespace,
    upstream::HTTP_PORT,
};

/// Generous: other tests may run beside this one.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A client of a pod with one connection that it keeps.
pub(crate) struct Kept {
    stdin: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    _process: Process,
}

impl Kept {
    pub(crate) fn connect(pod: &Pod, target: &str) -> Self {
        let mut command = Command::new("python3");
        command
            .args(["-c", include_str!("kept.py"), target])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = pod.spawn(command).unwrap();
        let stdin = process.child().stdin.take().unwrap();
        let said = BufReader::new(process.child().stdout.take().unwrap()).lines();
        let mut kept = Self {
            stdin,
            said,
            _process: process,
        };
        assert_eq!(kept.hears(), "connected");
        kept
    }

    pub(crate) fn asks(&mut self, path: &str) {
        writeln!(self.stdin, "{path}").unwrap();
    }

    pub(crate) fn hears(&mut self) -> String {
        self.said.next().unwrap().unwrap()
    }

    /// Status and whom the server saw.
    pub(crate) fn get(&mut self, path: &str) -> String {
        self.asks(path);
        self.hears()
    }
}

/// Pods, a server and an agent whose configuration says which of the pods are enrolled.
pub(crate) struct Mesh {
    pub(crate) agent: Agent,
    pub(crate) pods: Vec<Pod>,
    vip: Vip,
    pub(crate) server: Pod,
    _testd: Testd,
    _node: Node,
}

impl Mesh {
    /// With no pod enrolled.
    pub(crate) fn new(pods: usize, drain_timeout: &str) -> Self {
        let node = Node::new().unwrap();
        let server = node.pod("server").unwrap();
        let testd = Testd::start(&server).unwrap();
        let vip = node.service("http", 80, HTTP_PORT, &[&server]).unwrap();
        let pods = (0..pods).map(|number| node.pod(&format!("pod-{number}")).unwrap());
        let pods = pods.collect();
        let mut options = AgentOptions::new(Config::default().service(&vip, Some("http")));
        options.arguments = ["--drain-timeout", drain_timeout].map(str::to_owned).into();
        Self {
            agent: Agent::start(&node, options).unwrap(),
            pods,
            vip,
            server,
            _testd: testd,
            _node: node,
        }
    }

    /// Enrols these pods and no others, and returns when that is in force.
    pub(crate) fn enrol(&mut self, which: impl IntoIterator<Item = usize>) {
        let version = |agent: &Agent| agent.metrics().unwrap().sum("derny_snapshot_version", &[]);
        let before = version(&self.agent);
        let mut config = Config::default().service(&self.vip, Some("http"));
        let mut count = 0;
        for pod in which {
            let (pod, workload) = (&self.pods[pod], format!("workload-{pod}"));
            config = config.pod_inbound(pod, &workload, HTTP_PORT, Some("http"));
            count += 1;
        }
        self.agent.reload(config).unwrap();
        eventually("the configuration is in force", SOON, || {
            version(&self.agent) > before && self.enrolled() == count
        })
        .unwrap();
    }

    pub(crate) fn enrolled(&self) -> usize {
        let pods = self.agent.cli_json(&["pods"]).unwrap();
        let pods = pods.as_array().unwrap().iter();
        pods.filter(|pod| pod["state"] == "enrolled").count()
    }

    pub(crate) fn target(&self) -> String {
        self.vip.address().to_string()
    }

    pub(crate) fn holds_nothing_of(&self, netns: Namespace, within: Duration) {
        let last = std::cell::RefCell::default();
        let held = eventually("nothing is held", within, || {
            let holdings = self.agent.holdings().unwrap();
            let nothing = holdings.of(netns) == 0;
            *last.borrow_mut() = holdings;
            nothing
        });
        if let Err(error) = held {
            let mut last = last.into_inner();
            last.sockets.retain(|socket| socket.netns_cookie == netns.cookie);
            last.namespaces.retain(|inode| *inode == netns.inode);
            panic!("{error}: {last:#?}");
        }
    }
}
