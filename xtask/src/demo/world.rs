//! The node, its pods, servers and services.

use anyhow::{Context, Result};
use derny_tests::{Agent, AgentOptions, Config, Node, Pod, Testd, Vip, upstream::HTTP_PORT};

/// Two clients, three replicas of a gRPC service, two of a web service.
pub(crate) struct World {
    pub(crate) agent: Option<Agent>,
    pub(crate) clients: [Pod; 2],
    pub(crate) echo: Service,
    pub(crate) web: Service,
    pub(crate) node: Node,
}

/// A service and the pods behind it.
pub(crate) struct Service {
    pub(crate) vip: Vip,
    pub(crate) pods: Vec<Pod>,
    /// In the order of the pods; `None` while it is dead.
    pub(crate) servers: Vec<Option<Testd>>,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        let node = Node::new()?;
        let clients = [node.pod("client-1")?, node.pod("client-2")?];
        let echo = Service::new(&node, "echo", 3)?;
        let web = Service::new(&node, "web", 2)?;
        Ok(Self {
            agent: None,
            clients,
            echo,
            web,
            node,
        })
    }

    /// Starts Derny with all pods enrolled; requests to both services go round robin.
    pub(crate) fn start_derny(&mut self) -> Result<()> {
        self.agent = Some(Agent::start(&self.node, AgentOptions::new(self.config()?))?);
        Ok(())
    }

    /// The running agent.
    pub(crate) fn derny(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("Derny has not been started")
    }

    fn config(&self) -> Result<Config> {
        let mut config = Config::default();
        for client in &self.clients {
            config = config.pod(client, "client");
        }
        for pod in &self.echo.pods {
            config = config.pod_inbound(pod, "echo", HTTP_PORT, Some("grpc"));
        }
        for pod in &self.web.pods {
            config = config.pod_inbound(pod, "web", HTTP_PORT, Some("http"));
        }
        config = config
            .service(&self.echo.vip, Some("grpc"))
            .service(&self.web.vip, Some("http"))
            .algorithm("echo", "roundRobin")
            .algorithm("web", "roundRobin");
        // The endpoint that is killed is ejected; it is tried again after two seconds instead of thirty, so that
        // the demo can show its return.
        let ejection = serde_json::json!({"baseEjectionTime": "2s", "interval": "1s"});
        let policy = config.policy_of("echo")?;
        policy.more.insert("outlierDetection".to_owned(), ejection);
        // An echo may be done twice: a call whose connection is lost goes to another endpoint.
        let retry = serde_json::json!({"idempotent": true});
        policy.more.insert("retry".to_owned(), retry);
        Ok(config)
    }
}

impl Service {
    fn new(node: &Node, name: &str, replicas: usize) -> Result<Self> {
        let pods: Vec<Pod> = (1..=replicas)
            .map(|number| node.pod(&format!("{name}-{number}")))
            .collect::<Result<_>>()?;
        let servers = pods
            .iter()
            .map(|pod| Testd::start(pod).map(Some))
            .collect::<Result<_>>()?;
        let vip = node.service(name, 80, HTTP_PORT, &pods.iter().collect::<Vec<_>>())?;
        Ok(Self { vip, pods, servers })
    }

    /// What its clients dial.
    pub(crate) fn target(&self) -> String {
        self.vip.address().to_string()
    }

    /// `kill -9` of the last replica's server; returns that pod's name.
    pub(crate) fn kill_last(&mut self) -> Result<String> {
        let server = self
            .servers
            .last_mut()
            .and_then(Option::take)
            .context("no server to kill")?;
        server.kill9()?;
        Ok(self.pods.last().context("no pod")?.name().to_owned())
    }

    /// Starts again what [`Service::kill_last`] killed.
    pub(crate) fn revive_last(&mut self) -> Result<()> {
        let pod = self.pods.last().context("no pod")?;
        let server = Testd::start(pod)?;
        *self.servers.last_mut().context("no server")? = Some(server);
        Ok(())
    }
}
