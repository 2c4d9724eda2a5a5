//! One Envoy for all rows: a listener, a route and a cluster each.

use std::{fs, net::TcpStream, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use derny_tests::{Node, Pod, Process, clients, eventually};
use serde_json::{Value, json};

/// What one row needs of Envoy.
#[derive(Debug)]
pub(crate) struct Sidecar {
    /// Port at 127.0.0.1 in Envoy's pod.
    pub(crate) listener: u16,
    /// `IP:PORT` of the endpoints.
    pub(crate) endpoints: Vec<(String, u16)>,
    pub(crate) route: Value,
    pub(crate) cluster: Value,
    /// Bytes of a request that are kept for a retry.
    pub(crate) body_buffer: u32,
}

/// Starts it in `pod`. Returns when all listeners are open, which is when all first health checks have ended.
pub(crate) fn start(node: &Node, pod: &Pod, sidecars: &[Sidecar]) -> Result<Process> {
    let directory = node.host().run_directory();
    let (config, log) = (directory.join("envoy.json"), directory.join("envoy.log"));
    fs::write(&config, bootstrap(sidecars).to_string()).context("writing Envoy's bootstrap")?;
    let mut command = Command::new(clients::envoy()?);
    command
        .args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ])
        .arg("-c")
        .arg(&config)
        .arg("--log-path")
        .arg(&log);
    let mut process = pod.spawn(command)?;
    let said = || fs::read_to_string(&log).unwrap_or_default();
    for sidecar in sidecars {
        let mut ended = None;
        eventually("Envoy listens", Duration::from_secs(20), || {
            ended = process.exited().ok().flatten();
            let connected = pod.inside(|| TcpStream::connect(("127.0.0.1", sidecar.listener)));
            ended.is_some() || matches!(connected, Ok(Ok(_)))
        })
        .with_context(said)?;
        if let Some(status) = ended {
            bail!("Envoy ended with {status}:\n{}", said());
        }
    }
    Ok(process)
}

fn bootstrap(sidecars: &[Sidecar]) -> Value {
    let listeners: Vec<Value> = sidecars.iter().map(listener).collect();
    let clusters: Vec<Value> = sidecars.iter().map(cluster).collect();
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

fn listener(sidecar: &Sidecar) -> Value {
    let mut route = sidecar.route.clone();
    route["cluster"] = json!(name(sidecar));
    json!({
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": sidecar.listener}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name(sidecar), "codec_type": "AUTO",
                // Else a broken-off answer of HTTP/1.1 reaches the caller a second later.
                "delayed_close_timeout": "0.05s",
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
                    "request_body_buffer_limit": sidecar.body_buffer, "routes": [
                    {"match": {"prefix": "/"}, "route": route},
                ]}]},
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
            }}]}],
    })
}

fn cluster(sidecar: &Sidecar) -> Value {
    let endpoints: Vec<Value> = sidecar
        .endpoints
        .iter()
        .map(|(address, port)| {
            json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}})
        })
        .collect();
    let mut cluster = sidecar.cluster.clone();
    cluster["name"] = json!(name(sidecar));
    cluster["load_assignment"] =
        json!({"cluster_name": name(sidecar), "endpoints": [{"lb_endpoints": endpoints}]});
    // As a sidecar does: the version that the caller speaks goes on to the endpoint.
    let mut protocol = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
    });
    if cluster.pointer("/health_checks/0/grpc_health_check").is_some() {
        // Envoy checks by gRPC only where all requests go by HTTP/2.
        protocol = json!({
            "@type": protocol["@type"],
            "explicit_http_config": {"http2_protocol_options": {}},
        });
    }
    cluster["typed_extension_protocol_options"] =
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol});
    cluster
}

fn name(sidecar: &Sidecar) -> String {
    format!("row-{}", sidecar.listener)
}
