//! `envoy.config.listener.v3.Listener` → what is routed, and who dialled it.

use std::net::IpAddr;

use super::{
    NoteKind,
    read_route::{self, Inherited},
    reading::Node,
    route::Route,
    share,
};

/// A listener, carried over.
#[derive(Debug)]
pub(super) struct Listener<'a> {
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u64,
    /// Callers dial something else, and their connections are led here.
    pub(super) captures: bool,
    pub(super) hosts: Vec<VirtualHost<'a>>,
    /// Clusters whose connections are relayed as they are.
    pub(super) relayed: Vec<Node<'a>>,
}

#[derive(Debug)]
pub(super) struct VirtualHost<'a> {
    pub(super) node: Node<'a>,
    pub(super) name: &'a str,
    pub(super) domains: Vec<&'a str>,
    pub(super) routes: Vec<Route<'a>>,
}

/// Listener filters for what the kernel and protocol detection do here.
const CAPTURE: [&str; 3] = ["tls_inspector", "http_inspector", "original_dst"];

pub(super) fn read<'a>(listener: &Node<'a>) -> Listener<'a> {
    let truth = |name| listener.get(name).and_then(|field| field.truth());
    let mut captures = truth("use_original_dst") == Some(true) || truth("transparent") == Some(true);
    // What was captured by whom; here the kernel does it.
    for field in [
        "name",
        "stat_prefix",
        "listener_filters_timeout",
        "traffic_direction",
        "use_original_dst",
        "bind_to_port",
        "transparent",
        "reuse_port",
        "enable_reuse_port",
    ] {
        listener.pass_over(field);
    }
    for filter in listener.list("listener_filters") {
        let name = filter.get("name").and_then(|name| name.text());
        if name.is_some_and(|name| CAPTURE.iter().any(|known| name.ends_with(known))) {
            captures |= name.is_some_and(|name| name.ends_with("original_dst"));
            filter.seen();
        } else {
            filter.no_equivalent();
        }
    }
    let address = listener.at(&["address", "socket_address"]);
    let ip = address
        .as_ref()
        .and_then(|address| address.get("address")?.text()?.parse().ok());
    let port = address
        .as_ref()
        .and_then(|address| address.get("port_value")?.number());
    if let Some(address) = address {
        address.pass_over("protocol");
    }
    let mut read = Listener {
        ip,
        port: port.unwrap_or(80),
        captures,
        hosts: Vec::new(),
        relayed: Vec::new(),
    };
    let chains = listener.list("filter_chains");
    for chain in chains.into_iter().chain(listener.get("default_filter_chain")) {
        chain.pass_over("name");
        for filter in chain.list("filters") {
            filter.pass_over("name");
            let Some(config) = filter.get("typed_config") else {
                continue;
            };
            match config.kind() {
                Some("HttpConnectionManager") => connection_manager(&config, &mut read),
                Some("TcpProxy") => {
                    config.pass_over("stat_prefix");
                    read.relayed.extend(config.get("cluster"));
                }
                _ => filter.no_equivalent(),
            }
        }
    }
    read
}

/// `HttpConnectionManager`
fn connection_manager<'a>(manager: &Node<'a>, listener: &mut Listener<'a>) {
    // Versions are told apart by what the caller sends; a request has an id and its forwarding headers.
    for field in [
        "stat_prefix",
        "codec_type",
        "generate_request_id",
        "use_remote_address",
    ] {
        manager.pass_over(field);
    }
    // What is switched off, or says no more than that it is there, is as here.
    for field in ["skip_xff_append", "normalize_path", "merge_slashes"] {
        if let Some(field) = manager.get(field)
            && field.truth() != Some(false)
        {
            field.no_equivalent();
        }
    }
    for field in [
        "http_protocol_options",
        "http2_protocol_options",
        "common_http_protocol_options",
    ] {
        manager.get(field);
    }
    for upgrade in manager.list("upgrade_configs") {
        let kind = upgrade.get("upgrade_type").and_then(|kind| kind.word());
        if kind.as_deref() == Some("WEBSOCKET") {
            upgrade.seen();
        } else {
            upgrade.note(NoteKind::NoEquivalent, "of upgrades, WebSockets are joined");
        }
    }
    for filter in manager.list("http_filters") {
        let config = filter.get("typed_config");
        let router = config.as_ref().and_then(Node::kind) == Some("Router")
            || filter.get("name").and_then(|name| name.text()) == Some("envoy.filters.http.router");
        if router {
            filter.pass_over("name");
            for field in ["@type", "dynamic_stats", "start_child_span"] {
                if let Some(config) = &config {
                    config.pass_over(field);
                }
            }
        } else {
            filter.no_equivalent();
        }
    }
    let idle = manager.get("stream_idle_timeout");
    let Some(config) = manager.get("route_config") else {
        return;
    };
    for field in ["name", "validate_clusters"] {
        config.pass_over(field);
    }
    let above = Inherited::of(idle).with(&config);
    for host in config.list("virtual_hosts") {
        listener.hosts.push(virtual_host(&host, &above));
    }
}

fn virtual_host<'a>(host: &Node<'a>, above: &Inherited<'a>) -> VirtualHost<'a> {
    let above = above.with(host);
    let routes = host.list("routes");
    let routes = routes.iter().filter_map(|route| read_route::read(route, &above));
    VirtualHost {
        name: host.get("name").and_then(|name| name.text()).unwrap_or("service"),
        domains: host.list("domains").iter().filter_map(Node::text).collect(),
        routes: share::fold(routes.collect()),
        node: host.clone(),
    }
}

impl VirtualHost<'_> {
    /// The hosts that callers name, without `*`.
    pub(super) fn named_domains(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().copied().filter(|domain| *domain != "*")
    }

    pub(super) fn missing(&self, said: String) {
        self.node.remark(NoteKind::Missing, said);
    }
}
