//! `envoy.config.cluster.v3.Cluster` → a port of a service, and how it is called.

use serde_json::{Map, Value, json};

use super::{
    NoteKind, balancing,
    discovery::{self, Found},
    fields::put,
    health,
    names::{Named, Names},
    reading::Node,
    resilience,
};

/// Of `HttpProtocolOptions` in `typed_extension_protocol_options`.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster, carried over.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Where it stands in the document.
    pub(super) at: String,
    /// Envoy's name.
    pub(super) name: String,
    pub(super) service: Named,
    pub(super) port: u64,
    /// Derny's word for what it speaks.
    pub(super) protocol: &'static str,
    pub(super) found: Found,
    /// `TrafficPolicy.spec` without `targetRefs`.
    pub(super) policy: Map<String, Value>,
}

impl Cluster {
    pub(super) fn is_tls(&self) -> bool {
        self.protocol == "tls"
    }
}

/// Reads a cluster; `None` for one that cannot be carried over, which is noted.
pub(super) fn read(cluster: &Node<'_>, names: &mut Names, namespace: &str) -> Option<Cluster> {
    let name = cluster
        .get("name")
        .and_then(|name| name.text())
        .unwrap_or("service");
    cluster.pass_over("alt_stat_name");
    let found = discovery::read(cluster, namespace)?;
    let port = found.port();
    let service = match found.kubernetes() {
        Some(named) => names.share(named.clone()),
        None => names.take(cluster_host(name), namespace),
    };
    let mut policy = Map::new();
    balancing::read(cluster, &mut policy);
    let mut protocol = pool(cluster, &mut policy);
    if begins_tls(cluster) {
        protocol = "tls";
    }
    resilience::outliers(cluster.get("outlier_detection"), &mut policy);
    resilience::breakers(cluster.get("circuit_breakers"), &mut policy);
    health::read(cluster, protocol, &mut policy);
    Some(Cluster {
        at: cluster.path().to_owned(),
        name: name.to_owned(),
        service,
        port,
        protocol,
        found,
        policy,
    })
}

/// Whether Envoy speaks TLS to the endpoints. It is then for the application to, and a connection in TLS is what is seen.
fn begins_tls(cluster: &Node<'_>) -> bool {
    let Some(socket) = cluster.get("transport_socket") else {
        return false;
    };
    let name = socket
        .get("name")
        .and_then(|name| name.text())
        .unwrap_or_default();
    if name.ends_with("raw_buffer") {
        socket.seen();
        return false;
    }
    socket.no_equivalent();
    name.ends_with("tls")
}

/// Some control planes put direction, port, subset and host into the name: `outbound|80||user.shop.svc.cluster.local`.
fn cluster_host(name: &str) -> &str {
    match name.rsplit_once('|') {
        Some((_, host)) if !host.is_empty() => host.split('.').next().unwrap_or(host),
        _ => name,
    }
}

/// Connections and what they speak.
fn pool(cluster: &Node<'_>, policy: &mut Map<String, Value>) -> &'static str {
    let mut pool = Map::new();
    let timeout = cluster
        .get("connect_timeout")
        .and_then(|timeout| timeout.duration());
    // Envoy's default.
    put(
        &mut pool,
        "connectTimeout",
        timeout.or_else(|| Some("5s".to_owned())),
    );
    let requests = cluster
        .get("max_requests_per_connection")
        .and_then(|most| most.number());
    put(&mut pool, "maxRequestsPerConnection", requests);
    let keepalive = cluster.at(&["upstream_connection_options", "tcp_keepalive"]);
    if let Some(seconds) = keepalive
        .and_then(|k| k.get("keepalive_time"))
        .and_then(|time| time.number())
    {
        put(&mut pool, "tcpKeepalive", Some(format!("{seconds}s")));
    }
    let mut protocol = "http";
    cluster.get("http_protocol_options");
    if let Some(options) = cluster.get("http2_protocol_options") {
        protocol = "http2";
        http2(&options, &mut pool);
    }
    if let Some(common) = cluster.get("common_http_protocol_options") {
        common_options(&common, &mut pool);
    }
    let typed = cluster.get("typed_extension_protocol_options");
    if let Some(options) = typed.and_then(|typed| typed.get(HTTP_OPTIONS)) {
        options.pass_over("@type");
        if let Some(common) = options.get("common_http_protocol_options") {
            common_options(&common, &mut pool);
        }
        if let Some(explicit) = options.get("explicit_http_config") {
            if let Some(http1) = explicit.get("http_protocol_options") {
                http1.remark(
                    NoteKind::Differs,
                    "requests go on in the version that they came in: HTTP/2 is not made HTTP/1.1",
                );
            }
            if let Some(options) = explicit.get("http2_protocol_options") {
                protocol = "http2";
                http2(&options, &mut pool);
            }
        }
        // As the caller speaks, which is what `http` says.
        if let Some(same) = options.get("use_downstream_protocol_config") {
            same.get("http_protocol_options");
            if let Some(options) = same.get("http2_protocol_options") {
                http2(&options, &mut pool);
            }
        }
    }
    // Envoy's default, which is also the most that is allowed here.
    pool.entry("idleTimeout").or_insert_with(|| json!("1h"));
    policy.insert("connectionPool".to_owned(), Value::Object(pool));
    protocol
}

/// `envoy.config.core.v3.HttpProtocolOptions`
fn common_options(common: &Node<'_>, pool: &mut Map<String, Value>) {
    let duration = |name| common.get(name).and_then(|time| time.duration());
    if let Some(idle) = common.get("idle_timeout")
        && idle.length().is_some_and(|time| time.is_zero())
    {
        idle.note(
            NoteKind::Differs,
            "an idle connection is closed after 1h at the latest",
        );
    } else {
        put(pool, "idleTimeout", duration("idle_timeout"));
    }
    put(pool, "maxConnectionLifetime", duration("max_connection_duration"));
    let requests = common
        .get("max_requests_per_connection")
        .and_then(|most| most.number());
    put(pool, "maxRequestsPerConnection", requests);
}

/// `envoy.config.core.v3.Http2ProtocolOptions`
fn http2(options: &Node<'_>, pool: &mut Map<String, Value>) {
    let window = options
        .get("initial_stream_window_size")
        .and_then(|size| size.number());
    put(pool, "windowSize", window);
    if let Some(window) = options.get("initial_connection_window_size") {
        window.note(
            NoteKind::Differs,
            "a connection's window is four times a stream's",
        );
    }
    if let Some(keepalive) = options.get("connection_keepalive") {
        put(
            pool,
            "http2Keepalive",
            keepalive.get("interval").and_then(|interval| interval.duration()),
        );
        if let Some(timeout) = keepalive.get("timeout") {
            timeout.note(
                NoteKind::Differs,
                "an answer to a PING may take as long as the interval",
            );
        }
    }
}
