//! One node with Derny and Envoy on it, the endpoints of all rows, and a caller for each proxy.

use std::{
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use derny_tests::{
    Agent, AgentOptions, Config, Node, Pod, Process,
    calls::{Caller, Protocol},
    config::{EndpointEntry, NAMESPACE, PolicyEntry, PortEntry, ServiceEntry, TargetRef},
};

use crate::{
    envoy::{self, Sidecar},
    measure::{FirstPort, Measured, measure},
    row::Row,
    script::Endpoint,
    upstream::{Open, Site, Upstreams},
};

/// Pods that endpoints live in.
const PODS: usize = 4;
/// Pods that drop every packet.
const BLACKHOLES: usize = 2;
/// Ports of the endpoints of the first row behind Derny and behind Envoy; others follow.
const PORTS: [u16; 2] = [20_000, 30_000];
/// Port of Envoy's first listener.
const LISTENERS: u16 = 10_000;

/// Dropped in the order of its fields.
#[derive(Debug)]
pub(crate) struct Both {
    callers: [Caller; 2],
    _agent: Agent,
    _envoy: Process,
    /// By row, for each proxy.
    sites: Vec<[Behind; 2]>,
    upstreams: Upstreams,
    pods: Vec<Pod>,
    _blackholes: Vec<Pod>,
    _client: [Pod; 2],
    _node: Node,
}

/// The endpoints of a row behind one proxy.
#[derive(Debug)]
struct Behind {
    site: Arc<Site>,
    port: u16,
    /// What the caller dials.
    target: String,
    open: Mutex<Vec<Option<Open>>>,
}

impl Both {
    pub(crate) fn start(rows: &[Row]) -> Result<Self> {
        let node = Node::new()?;
        let clients = [node.pod("caller")?, node.pod("envoy")?];
        let pods: Vec<Pod> = (1..=PODS)
            .map(|number| node.pod(&format!("endpoint-{number}")))
            .collect::<Result<_>>()?;
        let blackholes: Vec<Pod> = (1..=BLACKHOLES)
            .map(|number| blackhole(&node, number))
            .collect::<Result<_>>()?;

        let upstreams = Upstreams::start()?;
        let mut config = Config::default().pod(&clients[0], "caller");
        let mut sidecars = Vec::new();
        let mut sites = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let number = u16::try_from(place)?;
            let ip = format!("10.97.{}.{}", place / 250, place % 250 + 1);
            let listener = LISTENERS + number;
            let targets = [format!("{ip}:80"), format!("127.0.0.1:{listener}")];
            let ports = PORTS.map(|first| first + number);
            let addresses = |port: u16| -> Vec<(String, u16)> {
                let endpoints = row.script.endpoints.iter().enumerate();
                endpoints
                    .map(|(place, endpoint)| match endpoint {
                        Endpoint::Blackhole => (blackholes[place].ip().to_string(), port),
                        _ => (pods[place].ip().to_string(), port),
                    })
                    .collect()
            };
            add_service(&mut config, row, place, ip, &addresses(ports[0]));
            sidecars.push(Sidecar {
                listener,
                endpoints: addresses(ports[1]),
                route: row.policy.envoy_route(),
                cluster: row.policy.envoy_cluster(),
                body_buffer: row.policy.body_buffer,
            });
            let mut targets = targets.into_iter();
            let mut behind = |port: u16| -> Result<Behind> {
                let site = Site::new(&row.script);
                let open = row
                    .script
                    .endpoints
                    .iter()
                    .enumerate()
                    .map(|(endpoint, what)| match what {
                        Endpoint::Answers(_) => {
                            upstreams.listen(&pods[endpoint], port, &site, endpoint).map(Some)
                        }
                        Endpoint::Refuses | Endpoint::Blackhole => Ok(None),
                    });
                let open = Mutex::new(open.collect::<Result<_>>()?);
                let target = targets.next().context("two targets")?;
                Ok(Behind {
                    site,
                    port,
                    target,
                    open,
                })
            };
            sites.push([behind(ports[0])?, behind(ports[1])?]);
        }
        let envoy = envoy::start(&node, &clients[1], &sidecars)?;
        let agent = Agent::start(&node, AgentOptions::new(config))?;
        Ok(Self {
            callers: [Caller::start(&clients[0])?, Caller::start(&clients[1])?],
            _agent: agent,
            _envoy: envoy,
            sites,
            upstreams,
            pods,
            _blackholes: blackholes,
            _client: clients,
            _node: node,
        })
    }

    /// Row `place` behind Derny (0) or Envoy (1).
    pub(crate) fn measure(&self, row: &Row, place: usize, side: usize) -> Result<Measured> {
        let behind = &self.sites[place][side];
        let mut port = Port { both: self, behind };
        measure(row, &self.callers[side], &behind.target, &behind.site, &mut port)
    }
}

/// A pod that drops every packet.
fn blackhole(node: &Node, number: usize) -> Result<Pod> {
    let pod = node.pod(&format!("blackhole-{number}"))?;
    let mut nft = Command::new("nft");
    nft.arg(
        "add table inet blackhole; \
         add chain inet blackhole input { type filter hook input priority 0; policy drop; }",
    );
    pod.run(nft)?.success().context("dropping all packets")?;
    Ok(pod)
}

/// The first endpoint's port.
struct Port<'a> {
    both: &'a Both,
    behind: &'a Behind,
}

impl FirstPort for Port<'_> {
    fn open(&mut self) -> Result<()> {
        let Behind { site, port, .. } = self.behind;
        let open = self.both.upstreams.listen(&self.both.pods[0], *port, site, 0)?;
        self.set(Some(open));
        Ok(())
    }

    fn close(&mut self) {
        self.set(None);
    }
}

impl Port<'_> {
    fn set(&self, open: Option<Open>) {
        let mut all = self.behind.open.lock().unwrap_or_else(PoisonError::into_inner);
        all[0] = open;
    }
}

fn add_service(config: &mut Config, row: &Row, place: usize, ip: String, endpoints: &[(String, u16)]) {
    let name = format!("row-{place}");
    let protocol = match row.call.protocol {
        Protocol::Http1 | Protocol::Http2 => "http",
        Protocol::Grpc => "grpc",
    };
    config.services.push(ServiceEntry {
        name: name.clone(),
        namespace: NAMESPACE.to_owned(),
        addresses: vec![ip],
        ports: vec![PortEntry {
            port: 80,
            name: None,
            protocol: Some(protocol.to_owned()),
            endpoints: endpoints
                .iter()
                .map(|(ip, port)| EndpointEntry {
                    address: format!("{ip}:{port}"),
                    ..EndpointEntry::default()
                })
                .collect(),
            dns: None,
        }],
    });
    config.policies.push(PolicyEntry {
        target_refs: vec![TargetRef {
            kind: "Service".to_owned(),
            name,
            namespace: NAMESPACE.to_owned(),
        }],
        load_balancer: None,
        connection_pool: None,
        detect_timeout: None,
        more: row.policy.derny(),
        health_check: None,
    });
}
