//! What watching the agent may cost: flags of `derny run` for its windows, metrics and logs.

use std::net::SocketAddr;

use clap::Args;

/// Bounds of the windows, the metrics and the logs.
#[derive(Clone, Debug, Args)]
pub struct BoundArgs {
    /// Where to answer /livez and /readyz as well: kept apart, so that no scrape takes a probe's place
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "DERNY_PROBE_ADDRESS",
        default_value = "127.0.0.1:15091"
    )]
    pub probe_address: SocketAddr,

    /// Connections at a time at each address, 1 to 4096
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_HTTP_CONNECTIONS",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pub http_connections: u32,

    /// Those of one caller: an IPv4 address or an IPv6 /64
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_HTTP_CONNECTIONS_PER_PEER",
        default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pub http_connections_per_peer: u32,

    /// (Caller, service port) that a worker counts apart, 16 to 1000000
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_SERIES",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(16..=1_000_000)
    )]
    pub max_series: u32,

    /// Those of one workload
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_SERIES_PER_WORKLOAD",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_series_per_workload: u32,

    /// (HTTP status, gRPC status, flag) that a worker counts apart for each of them, 1 to 1024
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_OUTCOMES",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    pub max_outcomes: u32,

    /// Those of one workload
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_OUTCOMES_PER_WORKLOAD",
        default_value_t = 4_096,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_outcomes_per_workload: u32,

    /// Bytes of access lines that wait for a slow sink, 65536 to 1073741824
    #[arg(
        long,
        value_name = "BYTES",
        env = "DERNY_ACCESS_LOG_QUEUE",
        default_value_t = 8 << 20,
        value_parser = clap::value_parser!(u32).range(1 << 16..=1 << 30)
    )]
    pub access_log_queue: u32,

    /// Bytes of one value of an access line; longer ones are cut, 64 to 65536
    #[arg(
        long,
        value_name = "BYTES",
        env = "DERNY_ACCESS_LOG_FIELD",
        default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(64..=65_536)
    )]
    pub access_log_field: u32,

    /// Lines a minute of the agent's own log with one message about one pod; 0 for all
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_LOG_LIMIT",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub log_limit: u32,
}
