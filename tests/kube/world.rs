//! A client pod that the file names, servers behind a Service of the API, and an agent that takes both.

use std::time::Duration;

use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, Testd, Vip,
    kube::{Cluster, objects},
    upstream::HTTP_PORT,
};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Dropped in the order of its fields.
pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) cluster: Cluster,
    /// In the places of `servers`; `None` once killed.
    pub(crate) testds: Vec<Option<Testd>>,
    pub(crate) servers: Vec<Pod>,
    pub(crate) client: Pod,
    /// The Service `echo`: also where the node itself, as kube-proxy does, sends its connections to the servers.
    pub(crate) echo: Vip,
    pub(crate) node: Node,
}

impl World {
    /// With so many servers, all ready endpoints of the gRPC service `echo`.
    pub(crate) fn new(servers: usize, arguments: &[&str]) -> Self {
        Self::with(servers, arguments, &[])
    }

    /// With more objects, which are there before the agent.
    pub(crate) fn with(servers: usize, arguments: &[&str], objects: &[Value]) -> Self {
        let node = Node::new().unwrap();
        let client = node.pod("client").unwrap();
        let servers: Vec<Pod> = (1..=servers)
            .map(|n| node.pod(&format!("server-{n}")).unwrap())
            .collect();
        let testds = servers
            .iter()
            .map(|server| Some(Testd::start(server).unwrap()))
            .collect();
        let pods: Vec<&Pod> = servers.iter().collect();
        let echo = node.service("echo", 80, HTTP_PORT, &pods).unwrap();
        let cluster = Cluster::start(&node).unwrap();
        let ip = echo.ip().to_string();
        cluster
            .apply(&[objects::service("echo", &ip, "grpc"), echo_slice(&pods)])
            .unwrap();
        cluster.apply(objects).unwrap();
        let mut options = AgentOptions::new(Config::default().pod(&client, "client"));
        options.arguments = cluster.arguments();
        let state = node
            .host()
            .run_directory()
            .join("state.json")
            .display()
            .to_string();
        options.arguments.extend(["--state-file".to_owned(), state]);
        options
            .arguments
            .extend(arguments.iter().map(ToString::to_string));
        let agent = Agent::start(&node, options).unwrap();
        Self {
            agent,
            cluster,
            testds,
            servers,
            client,
            echo,
            node,
        }
    }

    pub(crate) fn apply(&self, objects: &[Value]) {
        self.cluster.apply(objects).unwrap();
    }

    /// Makes the servers of these places the ready endpoints of `echo`.
    pub(crate) fn endpoints(&self, places: &[usize]) {
        let pods: Vec<&Pod> = places.iter().map(|place| &self.servers[*place]).collect();
        self.apply(&[echo_slice(&pods)]);
    }

    pub(crate) fn target(&self) -> String {
        self.echo.address().to_string()
    }

    /// `derny services` of the port 80 of a service.
    pub(crate) fn shown(&self, service: &str) -> Value {
        let services = self.agent.cli_json(&["services"]).unwrap();
        let mut services = services.as_array().unwrap().iter();
        services
            .find(|shown| shown["name"] == service)
            .cloned()
            .unwrap_or_default()
    }

    /// Calls whose choice was left to the service's own address, since its endpoints had not come.
    pub(crate) fn sent_on_unknown(&self) -> usize {
        let lines = self.agent.access_log().unwrap();
        lines.iter().filter(|line| line["flags"] == "EU").count()
    }

    /// The sum of a metric.
    pub(crate) fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        self.agent.metrics().unwrap().sum(metric, labels)
    }
}

fn echo_slice(pods: &[&Pod]) -> Value {
    objects::slice("echo", "echo-1", ("grpc", HTTP_PORT), &objects::ready(pods))
}
