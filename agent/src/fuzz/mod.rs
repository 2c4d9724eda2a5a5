//! What reads bytes that others choose, as functions of bytes: for `tests/fuzz`. Each panics when something is not as it
//! must be, and does nothing else.

mod kube;
mod parsers;
mod written;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 13] = [
    target("detect", parsers::detect),
    target("duration", parsers::duration),
    target("grpc_timeout", parsers::grpc_timeout),
    target("pushback", parsers::pushback),
    target("config_file", parsers::config_file),
    target("route_object", parsers::route_object),
    target("policy_object", parsers::policy_object),
    target("envoy_bootstrap", parsers::envoy_bootstrap),
    target("kube_objects", kube::objects),
    target("kube_inbound", kube::inbound),
    target("cgroup_names", kube::cgroup_names),
    target("access_line", written::access_line),
    target("metrics_page", written::metrics_page),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}
