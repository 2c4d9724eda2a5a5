//! The proxies: each starts, says where to call it, and what CPU it has used.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};
use derny_tests::{
    agent::{Agent, AgentOptions},
    config::Config,
    node::Node,
    observe::eventually,
    pod::Pod,
    process::{Process, cpu_time},
    upstream::HTTP_PORT,
    vip::Vip,
};

use crate::{own_path, traffic};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Relay,
    Derny,
    Envoy,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Derny => "derny",
            Self::Envoy => "envoy",
        }
    }
}

/// Where the relay and Envoy listen, in the client's network namespace.
const PORT: u16 = 9900;

pub(crate) enum Running {
    Process(Process),
    Derny(Box<Agent>, String),
}

impl Running {
    pub(crate) fn start(kind: Kind, node: &Node, client: &Pod, pods: &[Pod], vip: &Vip) -> Result<Self> {
        let running = match kind {
            Kind::Relay => {
                let mut command = Command::new(own_path()?);
                command.arg("relay").arg(PORT.to_string());
                command.args(pods.iter().map(|pod| pod.address(HTTP_PORT).to_string()));
                Self::Process(client.spawn(command)?)
            }
            Kind::Envoy => {
                let config = node.host().run_directory().join("envoy.json");
                let log = node.host().run_directory().join("envoy-access.log");
                fs::write(
                    &config,
                    envoy_config(pods, &log.display().to_string()).to_string(),
                )?;
                let mut command = Command::new(envoy().context("envoy is gone")?);
                command
                    .args(["--concurrency", "1", "--log-level", "error", "-c"])
                    .arg(&config);
                Self::Process(client.spawn(command)?)
            }
            Kind::Derny => {
                let config = Config::default().pod(client, "bench").service(vip, Some("http"));
                let agent = Agent::start(node, AgentOptions::new(config))?;
                Self::Derny(Box::new(agent), vip.address().to_string())
            }
        };
        traffic::pin(running.pid()?, traffic::PROXY)?;
        if let Self::Process(_) = &running {
            eventually("the proxy listens", Duration::from_secs(10), || {
                let connected = client.inside(|| std::net::TcpStream::connect(("127.0.0.1", PORT)));
                matches!(connected, Ok(Ok(_)))
            })?;
        }
        Ok(running)
    }

    fn pid(&self) -> Result<u32> {
        match self {
            Self::Process(process) => Ok(process.id()),
            Self::Derny(agent, _) => agent.id(),
        }
    }

    pub(crate) fn target(&self) -> String {
        match self {
            Self::Process(_) => format!("127.0.0.1:{PORT}"),
            Self::Derny(_, target) => target.clone(),
        }
    }

    /// CPU time of all threads since the start.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_time(self.pid()?)
    }
}

/// Envoy's executable, as `cargo xtask bench` names it.
pub(crate) fn envoy() -> Option<PathBuf> {
    std::env::var_os("ENVOY_BIN")
        .map(PathBuf::from)
        .filter(|path| path.exists())
}

/// What a sidecar has on: JSON access log, two retries, outlier detection, circuit breakers, health checks.
fn envoy_config(pods: &[Pod], access_log: &str) -> serde_json::Value {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|pod| {
            serde_json::json!({"endpoint": {"address": {"socket_address":
                {"address": pod.ip().to_string(), "port_value": HTTP_PORT}}}})
        })
        .collect();
    let cluster = |name: &str, protocol: serde_json::Value| {
        serde_json::json!({
            "name": name, "type": "STATIC", "connect_timeout": "1s", "lb_policy": "LEAST_REQUEST",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
            "outlier_detection": {"consecutive_5xx": 5, "base_ejection_time": "30s"},
            "circuit_breakers": {"thresholds": [{"max_connections": 1024, "max_pending_requests": 1024,
                "max_requests": 1024, "max_retries": 3}]},
            "health_checks": [{"timeout": "1s", "interval": "5s", "unhealthy_threshold": 3,
                "healthy_threshold": 2, "tcp_health_check": {}}],
        })
    };
    let route = |matches: serde_json::Value, cluster: &str| {
        serde_json::json!({"match": matches, "route": {"cluster": cluster, "timeout": "15s",
            "retry_policy": {"retry_on": "connect-failure,refused-stream,unavailable,cancelled,503", "num_retries": 2}}})
    };
    serde_json::json!({
        "static_resources": {
            "listeners": [{
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": PORT}},
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "bench", "codec_type": "AUTO",
                        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                            "path": access_log,
                            "log_format": {"json_format": {
                                "time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%",
                                "authority": "%REQ(:AUTHORITY)%", "protocol": "%PROTOCOL%",
                                "code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%",
                                "bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%",
                                "duration_ms": "%DURATION%", "endpoint": "%UPSTREAM_HOST%",
                                "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%"}}}}],
                        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                            route(serde_json::json!({"prefix": "/"}), "bench"),
                        ]}]},
                        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                    }}]}],
            }],
            // As a sidecar does: the version that the caller speaks goes on to the endpoint.
            "clusters": [cluster("bench", serde_json::json!({
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}))],
        }
    })
}
