//! Every metric's name and help, in one place. `docs/metrics.md` lists the same.
//!
//! Counters get `_total` from the encoder, and units (`_seconds`, `_bytes`) are in the name as OpenMetrics asks.

/// Name and help of one metric.
pub(super) type Name = (&'static str, &'static str);

pub(super) const REQUESTS: Name = (
    "derny_requests",
    "Requests that ended, by HTTP status, gRPC status and response flag",
);
pub(super) const REQUEST_DURATION: Name = (
    "derny_request_duration_seconds",
    "From a request's headers to the end of its response",
);
pub(super) const REQUEST_BYTES: Name = ("derny_request_bytes", "Bytes of request bodies");
pub(super) const RESPONSE_BYTES: Name = ("derny_response_bytes", "Bytes of response bodies");
pub(super) const RETRIES: Name = ("derny_retries", "Attempts after the first");
pub(super) const CONNECTIONS: Name = ("derny_connections", "Connections accepted from pods or for pods");
pub(super) const CONNECTIONS_ACTIVE: Name =
    ("derny_connections_active", "Accepted connections that are open");
pub(super) const UPSTREAM_CONNECTIONS: Name =
    ("derny_upstream_connections", "Connections opened to endpoints");
pub(super) const UPSTREAM_CONNECTIONS_ACTIVE: Name = (
    "derny_upstream_connections_active",
    "Connections to endpoints that are open",
);
pub(super) const UPSTREAM_CONNECT_FAILURES: Name = (
    "derny_upstream_connect_failures",
    "Connections to endpoints that could not be opened",
);
pub(super) const TCP_RECEIVED_BYTES: Name = (
    "derny_tcp_received_bytes",
    "Bytes received from callers on relayed TCP connections",
);
pub(super) const TCP_SENT_BYTES: Name = (
    "derny_tcp_sent_bytes",
    "Bytes sent to callers on relayed TCP connections",
);
pub(super) const DETECT_TIMEOUTS: Name = (
    "derny_detect_timeouts",
    "Connections on undeclared ports that stayed silent and were relayed as TCP",
);
pub(super) const NOT_MIRRORED: Name = (
    "derny_requests_not_mirrored",
    "Copies of requests that could not be made or were not answered",
);
pub(super) const TIMEOUTS: Name = ("derny_timeouts", "Time limits of policies that passed, by limit");
pub(super) const REQUESTS_ACTIVE: Name = ("derny_requests_active", "Requests under way");
pub(super) const POOL_PENDING: Name = ("derny_pool_pending", "Requests that wait for a connection");
pub(super) const BREAKER_OPEN: Name = (
    "derny_breaker_open",
    "1 while the next of its kind would be refused, by bound",
);
pub(super) const BREAKER_OVERFLOW: Name = (
    "derny_breaker_overflow",
    "What was refused because a bound was reached",
);
pub(super) const EJECTIONS: Name = (
    "derny_ejections",
    "Endpoints put out of the rotation by outlier detection, by detector",
);
pub(super) const ENDPOINTS_EJECTED: Name = (
    "derny_endpoints_ejected",
    "Endpoints that outlier detection keeps out",
);
pub(super) const SERIES_OVERFLOW: Name = (
    "derny_series_overflow",
    "Connections counted under other/other because too many series exist",
);
pub(super) const OUTCOMES_OVERFLOW: Name = (
    "derny_outcomes_overflow",
    "Requests counted under other/other/other because too many outcomes of their kind exist",
);
pub(super) const ACCESS_LOG_LINES: Name = ("derny_access_log_lines", "Access log lines written");
pub(super) const ACCESS_LOG_DROPPED: Name = (
    "derny_access_log_dropped",
    "Access log lines that were not written, by reason",
);
pub(super) const LOG_LEFT_OUT: Name = (
    "derny_log_left_out",
    "Lines of the agent's own log that were not written, by reason",
);
pub(super) const WINDOW_DISPLACED: Name = (
    "derny_window_displaced",
    "Connections of scrapes, probes and commands that were ended because others needed their place",
);
pub(super) const ACCEPT_ERRORS: Name = ("derny_accept_errors", "Errors of accept(2)");
pub(super) const ACCEPT_LIMIT: Name = (
    "derny_accept_limit",
    "Connections refused because their pod's share is used up",
);
pub(super) const POD_CPU: Name = (
    "derny_pod_cpu_seconds",
    "CPU time that the workers spent on a pod's connections",
);
pub(super) const POD_MEMORY: Name = (
    "derny_pod_memory_bytes",
    "Memory set aside for what a pod's connections may hold",
);
pub(super) const POD_SHARE: Name = ("derny_pod_share", "What a pod holds of what is shared, by share");
pub(super) const POD_ASIDE: Name = (
    "derny_pod_aside",
    "1 while the kernel leaves a pod's connections alone, as its share is used up",
);
pub(super) const POD_SHARE_EXCEEDED: Name = (
    "derny_pod_share_exceeded",
    "What a pod was refused because its share is used up, by share",
);
pub(super) const POD_KERNEL: Name = (
    "derny_kernel_decisions",
    "What the kernel programs did with a pod's connections",
);
pub(super) const NODE_KERNEL: Name = (
    "derny_kernel_node_decisions",
    "What the kernel programs did with connections of no enrolled pod",
);
pub(super) const PODS: Name = ("derny_pods", "Pods in the configuration, by state");
pub(super) const PODS_HELD: Name = (
    "derny_pods_held",
    "Waiting pods of strict namespaces: what they dial is refused",
);
pub(super) const GROUP_LOSSES: Name = (
    "derny_pods_cgroup_losses",
    "Times the pods' control group was found to be gone or to be another one",
);
pub(super) const INBOUND_OVER_SHARE: Name = (
    "derny_inbound_over_share",
    "Pairs of address and port that were left alone because their pod had more than its share",
);
pub(super) const OTHER_PROGRAMS: Name = (
    "derny_kernel_other_programs",
    "Programs of others at the kernel's hooks that the agent uses, by when they run",
);
pub(super) const DESTINATIONS: Name = ("derny_destinations", "Addresses that the kernel redirects");
pub(super) const DESTINATIONS_CONTESTED: Name = (
    "derny_destinations_contested",
    "Addresses that services of several namespaces claim",
);
pub(super) const SNAPSHOT_VERSION: Name = ("derny_snapshot_version", "Version of the configuration in use");
pub(super) const SNAPSHOT_AGE: Name = (
    "derny_snapshot_age_seconds",
    "Since the configuration last changed",
);
pub(super) const HEARTBEAT_AGE: Name = (
    "derny_heartbeat_age_seconds",
    "Since the kernel was last told that the engine works",
);
pub(super) const CONFIG_REJECTED: Name = (
    "derny_config_rejected",
    "1 while the newest configuration is invalid and the one before is in use",
);
pub(super) const ENDPOINTS: Name = (
    "derny_endpoints",
    "Endpoints of a service port, by what discovery and health checks say of them",
);
pub(super) const HEALTH_CHECKS: Name = (
    "derny_health_checks",
    "Active health checks that ended, by result",
);
pub(super) const HEALTH_CHECKS_HELD_BACK: Name = (
    "derny_health_checks_held_back",
    "Health checks that waited because as many as allowed were under way",
);
pub(super) const BUDGET_REFUSALS: Name = (
    "derny_budget_refusals",
    "What was refused to a namespace because its objects or pods take their whole share, by budget",
);
pub(super) const DNS_LOOKUPS: Name = (
    "derny_dns_lookups",
    "Lookups of names in the configuration that ended, by result",
);
pub(super) const KUBE_REQUESTS: Name = (
    "derny_kube_requests",
    "Requests to the Kubernetes API server, by kind, verb and result",
);
pub(super) const KUBE_RELISTS: Name = (
    "derny_kube_relists",
    "Lists that were read again because the server no longer knew where the watch stood",
);
pub(super) const KUBE_WATCHES: Name = ("derny_kube_watches", "Open watches, by kind");
pub(super) const KUBE_REJECTED: Name = (
    "derny_kube_objects_rejected",
    "Routes and policies whose newest version is not in force",
);
pub(super) const KUBE_UP: Name = (
    "derny_kube_up",
    "1 while the API server answers; what is known of it stays in force otherwise",
);
pub(super) const KUBE_SILENCE: Name = (
    "derny_kube_silence_seconds",
    "Since the API server last said anything",
);
pub(super) const ENROLMENT: Name = (
    "derny_enrolment_seconds",
    "From a pod's first process, or from the change that brought it into the mesh, until its connections are redirected",
);
pub(super) const BUILD_INFO: Name = ("derny_build_info", "1, labelled with the version");
