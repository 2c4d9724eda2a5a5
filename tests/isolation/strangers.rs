//! A pod with inbound ports, called by pods that Derny does not know.

use std::time::Duration;

use derny_tests::{
    AgentOptions, Pod, Process, World, clients,
    upstream::{HTTP_PORT, TCP_PORT, TestdOptions},
};

/// Every wait of these tests ends within this.
pub(crate) const SECONDS: Duration = Duration::from_secs(30);

pub(crate) struct Called {
    pub(crate) world: World,
    /// Called at [`HTTP_PORT`] and, as opaque TCP, at [`TCP_PORT`].
    pub(crate) mallory: Pod,
    pub(crate) bob: Pod,
}

impl Called {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut AgentOptions)) -> Self {
        let mut world = World::with(1, &TestdOptions::default(), change).unwrap();
        let (mallory, bob) = (world.node.pod("mallory").unwrap(), world.node.pod("bob").unwrap());
        let server = &world.servers[0].pod;
        let mut config = world
            .config()
            .pod_inbound(server, "server", HTTP_PORT, Some("http"));
        let mut opaque = config.pods.last().unwrap().inbound[0].clone();
        (opaque.port, opaque.protocol) = (TCP_PORT, Some("tcp".to_owned()));
        config.pods.last_mut().unwrap().inbound.push(opaque);
        world.reload(config).unwrap();
        let enrolled = [("state", "enrolled")];
        world.agent.metric("derny_pods", &enrolled, |n| n == 2.0).unwrap();
        Self { world, mallory, bob }
    }

    pub(crate) fn http(&self) -> std::net::SocketAddr {
        self.world.servers[0].pod.address(HTTP_PORT)
    }

    pub(crate) fn tcp(&self) -> std::net::SocketAddr {
        self.world.servers[0].pod.address(TCP_PORT)
    }

    /// Bob's request over HTTP/2, which goes on while the test does.
    pub(crate) fn bob_begins(&self, path: &str, flags: &[&str]) -> Process {
        let url = format!("http://{}{path}", self.http());
        let of_curl = [
            "--http2-prior-knowledge",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download}",
        ];
        let mut command = clients::curl([&of_curl[..], flags, &[&url]].concat());
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        self.bob.spawn(command).unwrap()
    }

    /// The same, to its end: status and bytes.
    pub(crate) fn bob(&self, path: &str, flags: &[&str]) -> String {
        said(self.bob_begins(path, flags))
    }
}

pub(crate) fn said(curl: Process) -> String {
    curl.output(SECONDS).unwrap().success().unwrap()
}
