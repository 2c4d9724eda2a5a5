//! A client, servers, services of every protocol and an agent, ready made: what most end-to-end tests begin with.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    Agent, AgentOptions, Config, Node, Output, Pod, Testd, Vip, clients,
    upstream::{GREET_PORT, HTTP_PORT, TCP_PORT, TestdOptions},
};

/// Name, the servers' port and declared protocol of each service; all servers stand behind all of them, in turn.
/// A service's own port is 80.
pub const SERVICES: [(&str, u16, Option<&str>); 9] = [
    ("http", HTTP_PORT, Some("http")),
    ("http2", HTTP_PORT, Some("http2")),
    ("grpc", HTTP_PORT, Some("grpc")),
    ("any-http", HTTP_PORT, None),
    ("tls", HTTP_PORT, Some("tls")),
    ("tcp", TCP_PORT, Some("tcp")),
    ("any-tcp", TCP_PORT, None),
    ("greet", GREET_PORT, Some("tcp")),
    ("any-greet", GREET_PORT, None),
];

/// A program of the client's pod may take so long.
const PROGRAM: Duration = Duration::from_secs(120);

/// Dropped in the order of its fields.
#[derive(Debug)]
pub struct World {
    pub agent: Agent,
    pub servers: Vec<Server>,
    pub client: Pod,
    vips: Vec<Vip>,
    pub node: Node,
}

/// A pod and the server in it; `None` while that is dead.
#[derive(Debug)]
pub struct Server {
    pub testd: Option<Testd>,
    pub pod: Pod,
}

impl World {
    /// With so many servers, named `server-1` and so on.
    pub fn new(servers: usize) -> Result<Self> {
        Self::with(servers, &TestdOptions::default(), |_| {})
    }

    /// `change` sees the agent's options, with all services in the configuration, before its start. The client is
    /// enrolled as the workload `client`; the servers are not.
    pub fn with(
        servers: usize,
        testd: &TestdOptions,
        change: impl FnOnce(&mut AgentOptions),
    ) -> Result<Self> {
        let node = Node::new()?;
        let client = node.pod("client")?;
        let servers: Vec<Server> = (1..=servers)
            .map(|number| {
                let pod = node.pod(&format!("server-{number}"))?;
                let testd = Some(Testd::start_with(&pod, testd)?);
                Ok(Server { testd, pod })
            })
            .collect::<Result<_>>()?;
        let pods: Vec<&Pod> = servers.iter().map(|server| &server.pod).collect();
        let mut vips = Vec::new();
        let mut config = Config::default().pod(&client, "client");
        for (name, port, protocol) in SERVICES {
            let vip = node.service(name, 80, port, &pods)?;
            config = config.service(&vip, protocol).algorithm(name, "roundRobin");
            vips.push(vip);
        }
        let mut options = AgentOptions::new(config);
        change(&mut options);
        let agent = Agent::start(&node, options)?;
        Ok(Self {
            agent,
            servers,
            client,
            vips,
            node,
        })
    }

    pub fn vip(&self, service: &str) -> Result<&Vip> {
        let vip = self.vips.iter().find(|vip| vip.name() == service);
        vip.with_context(|| format!("no service {service}"))
    }

    /// `IP:PORT` of a service.
    pub fn target(&self, service: &str) -> Result<String> {
        Ok(self.vip(service)?.address().to_string())
    }

    pub fn url(&self, service: &str, path: &str) -> Result<String> {
        Ok(self.vip(service)?.url(path))
    }

    /// What curl says in the client's pod, whatever its exit code.
    pub fn curl(&self, arguments: &[&str]) -> Result<Output> {
        self.client.run_within(clients::curl(arguments), PROGRAM)
    }

    /// The answer of `service` to a GET, which must be JSON, with curl's `flags`.
    pub fn get(&self, service: &str, path: &str, flags: &[&str]) -> Result<Value> {
        let url = self.url(service, path)?;
        let text = self.curl(&[flags, &[&url]].concat())?.success()?;
        serde_json::from_str(&text).with_context(|| format!("{url} answered {text:?}"))
    }

    /// A shell script in the client's pod, which must succeed; its output without the last end of line.
    pub fn shell(&self, script: &str) -> Result<String> {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &format!("set -euo pipefail; {script}")]);
        let text = self.client.run_within(command, PROGRAM)?.success()?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// A conversation of `derny-testc talk` with a service, which must go as the steps say; all that was received.
    pub fn talk(&self, service: &str, steps: &[&str]) -> Result<String> {
        let target = self.target(service)?;
        let command = clients::testc([&["talk", &target][..], steps].concat())?;
        self.client.run_within(command, PROGRAM)?.success()
    }

    /// Requests and connections to `service` by its servers, as the access log has them so far.
    pub fn calls(&self, service: &str) -> Result<Vec<usize>> {
        let log = self.agent.access_log()?;
        let of_service = format!("{}/{service}:80", crate::config::NAMESPACE);
        let lines = log.iter().filter(|line| line["service"] == of_service.as_str());
        let endpoints: Vec<&str> = lines.filter_map(|line| line["endpoint"].as_str()).collect();
        let count = |server: &Server| {
            let prefix = format!("{}:", server.pod.ip());
            endpoints
                .iter()
                .filter(|endpoint| endpoint.starts_with(&prefix))
                .count()
        };
        Ok(self.servers.iter().map(count).collect())
    }

    /// Starts a server again, otherwise than before.
    pub fn start_server(&mut self, place: usize, options: &TestdOptions) -> Result<()> {
        let server = &mut self.servers[place];
        server.testd = Some(Testd::start_with(&server.pod, options)?);
        Ok(())
    }

    /// `kill -9` of a server, by its place.
    pub fn kill_server(&mut self, place: usize) -> Result<()> {
        let testd = self.servers[place].testd.take().context("it is dead already")?;
        testd.kill9()
    }

    /// Puts another configuration in place, and returns when it is in force.
    pub fn reload(&mut self, config: Config) -> Result<()> {
        let version =
            |agent: &Agent| Ok::<_, anyhow::Error>(agent.metrics()?.sum("derny_snapshot_version", &[]));
        let before = version(&self.agent)?;
        self.agent.reload(config)?;
        self.agent
            .metric("derny_snapshot_version", &[], |version| version > before)?;
        Ok(())
    }

    /// The file that is in force, to be changed and given to [`World::reload`].
    pub fn config(&self) -> Config {
        self.agent.config().clone()
    }
}

impl Config {
    /// The only port of a service.
    pub fn port_of(&mut self, service: &str) -> Result<&mut crate::config::PortEntry> {
        let entry = self.services.iter_mut().find(|entry| entry.name == service);
        entry
            .and_then(|entry| entry.ports.first_mut())
            .with_context(|| format!("no service {service}"))
    }

    /// The policy of a service that has one.
    pub fn policy_of(&mut self, service: &str) -> Result<&mut crate::config::PolicyEntry> {
        let mut policies = self.policies.iter_mut();
        let policy = policies.find(|policy| policy.target_refs.iter().any(|target| target.name == service));
        policy.with_context(|| format!("no policy for {service}"))
    }

    /// Another algorithm for a service that has a policy.
    pub fn set_algorithm(&mut self, service: &str, algorithm: &str) -> Result<()> {
        let balancer = self.policy_of(service)?.load_balancer.as_mut();
        algorithm.clone_into(&mut balancer.context("no algorithm")?.algorithm);
        Ok(())
    }
}
