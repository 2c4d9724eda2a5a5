//! The command line of `derny run`.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::{BoundArgs, ShareArgs, connections::ConnectionArgs, within};
use crate::config;

/// All that the agent is told at its start. What may change while it runs is in the configuration file.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Configuration file; read again when it changes and on SIGHUP
    #[arg(
        long,
        value_name = "FILE",
        env = "DERNY_CONFIG",
        required_unless_present = "kubernetes"
    )]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub shares: ShareArgs,

    /// The lowest cgroup (v2) that holds all pods [default: the kubelet's kubepods]
    #[arg(long, value_name = "PATH", env = "DERNY_CGROUP")]
    pub cgroup: Option<PathBuf>,

    /// Where to answer /metrics, and /livez and /readyz
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "DERNY_HTTP_ADDRESS",
        default_value = "0.0.0.0:15090"
    )]
    pub http_address: SocketAddr,

    /// DNS servers for names in the configuration, in order [default: those of /etc/resolv.conf]
    #[arg(
        long = "dns-server",
        value_name = "IP[:PORT]",
        env = "DERNY_DNS_SERVERS",
        value_delimiter = ',',
        value_parser = dns_server
    )]
    pub dns_servers: Vec<SocketAddr>,

    /// The zone of this node; goes before the file's `node.zone`
    #[arg(long, value_name = "ZONE", env = "DERNY_ZONE", value_parser = config::zone)]
    pub zone: Option<String>,

    /// Health checks that are under way at a time, 1 to 65536
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_PROBES",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub max_probes: u32,

    /// Of these, health checks of the services of one namespace, 1 to 65536
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_NAMESPACE_PROBES",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub max_namespace_probes: u32,

    /// Bytes that tables of ringHash and maglev may take for the services of one namespace
    #[arg(
        long,
        value_name = "BYTES",
        env = "DERNY_MAX_HASH_TABLE_BYTES",
        default_value_t = 33_554_432
    )]
    pub max_hash_table_bytes: usize,

    /// Pairs of address and port that are steered to the engine for one pod, 1 to 1024
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_INBOUND",
        default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    pub max_inbound: u32,

    /// How long to wait at the start for another agent on the same control groups to end, 0s to 10m
    #[arg(long, value_name = "DURATION", env = "DERNY_WAIT_FOR_OTHER", default_value = "30s", value_parser = wait_for_other)]
    pub wait_for_other: Duration,

    /// Worker threads [default: one for each core that this process may use]
    #[arg(long, value_name = "N", env = "DERNY_WORKERS")]
    pub workers: Option<NonZeroUsize>,

    /// Where access lines go: stdout, off or a file
    #[arg(
        long,
        value_name = "stdout|off|PATH",
        env = "DERNY_ACCESS_LOG",
        default_value = "stdout"
    )]
    pub access_log: AccessLog,

    /// How old the heartbeat may be before the kernel leaves connections alone, 100ms to 1m
    #[arg(long, value_name = "DURATION", env = "DERNY_STALE_AFTER", default_value = "1s", value_parser = stale_after)]
    pub stale_after: Duration,

    /// The process ends itself when it, or a worker, has hung for so long, 1s to 1m; 0s for never
    #[arg(long, value_name = "DURATION", env = "DERNY_HANG_TIMEOUT", default_value = "3s", value_parser = hang_timeout)]
    pub hang_timeout: Duration,

    /// How long what is in flight may take when a pod leaves the mesh or the agent ends, 0s to 1h
    #[arg(long, value_name = "DURATION", env = "DERNY_DRAIN_TIMEOUT", default_value = "10s", value_parser = drain_timeout)]
    pub drain_timeout: Duration,

    /// The agent's own log: a level, or levels by part (info,derny::pool=debug)
    #[arg(long, value_name = "FILTER", env = "DERNY_LOG", default_value = "info")]
    pub log: String,

    #[command(flatten)]
    pub connections: ConnectionArgs,

    /// What the kernel programs log; `debug` costs every connection a line
    #[arg(long, value_enum, env = "DERNY_KERNEL_LOG", default_value_t)]
    pub kernel_log: KernelLog,

    #[command(flatten)]
    pub bounds: BoundArgs,

    /// The global flag of the same name.
    #[arg(skip)]
    pub admin_socket: PathBuf,
}

/// What the agent is told of a cluster.
#[derive(Clone, Debug, Args)]
pub struct KubernetesArgs {
    /// Take services, routes and policies from the Kubernetes API server
    #[arg(long = "kubernetes", id = "kubernetes", env = "DERNY_KUBERNETES")]
    pub enabled: bool,

    /// How to reach the API server [default: the pod's service account, else KUBECONFIG]
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    pub kubeconfig: Option<PathBuf>,

    /// This node's name in the cluster: for its pods, which are taken from the API then, and its zone
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// Where to keep what is known of the cluster, for a start while the API server is away
    #[arg(long, value_name = "FILE", env = "DERNY_STATE_FILE")]
    pub state_file: Option<PathBuf>,

    /// The endpoints of a service that no pod has used for so long are not watched, 3s to 24h
    #[arg(long, value_name = "DURATION", env = "DERNY_ENDPOINTS_IDLE", default_value = "10m", value_parser = endpoints_idle)]
    pub endpoints_idle: Duration,

    /// How long a request waits for the endpoints of a service that is new to this node, 0s to 1m
    #[arg(long, value_name = "DURATION", env = "DERNY_ENDPOINTS_WAIT", default_value = "1s", value_parser = endpoints_wait)]
    pub endpoints_wait: Duration,

    /// Regular expressions that the routes of one namespace may have
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_ROUTE_PATTERNS",
        default_value_t = 512
    )]
    pub max_route_patterns: usize,

    /// Bytes that the regular expressions of one namespace's routes may take when compiled
    #[arg(
        long,
        value_name = "BYTES",
        env = "DERNY_MAX_ROUTE_PATTERN_BYTES",
        default_value_t = 16_777_216
    )]
    pub max_route_pattern_bytes: usize,

    /// Services whose endpoints are watched for the pods, or the routes and policies, of one namespace
    #[arg(
        long,
        value_name = "N",
        env = "DERNY_MAX_WATCHED_SERVICES",
        default_value_t = 256
    )]
    pub max_watched_services: usize,
}

impl RunArgs {
    /// How many workers to start, at least one.
    pub fn worker_count(&self) -> NonZeroUsize {
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.workers.unwrap_or_else(cores)
    }
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Stdout,
    Off,
    File(PathBuf),
}

impl FromStr for AccessLog {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "stdout" => Self::Stdout,
            "off" => Self::Off,
            path => Self::File(Path::new(path).to_owned()),
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KernelLog {
    #[default]
    Off,
    Debug,
}

fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>();
    let without = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    with_port
        .or_else(|_| without())
        .map_err(|_| "not an address: write it as 10.0.0.53, 10.0.0.53:53 or [fd00::53]:53".to_owned())
}

fn wait_for_other(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO..=Duration::from_secs(600), "0s to 10m")
}

/// Below a second a machine that is slow for a moment would pass for a hang.
fn hang_timeout(text: &str) -> Result<Duration, String> {
    let parsed = within(text, Duration::ZERO..=Duration::from_secs(60), "1s to 1m, or 0s")?;
    match parsed.is_zero() || parsed >= Duration::from_secs(1) {
        true => Ok(parsed),
        false => Err("a duration of 1s to 1m, or 0s, is wanted".to_owned()),
    }
}

/// Below a tenth of a second a busy machine's scheduling would pass for a dead agent.
fn stale_after(text: &str) -> Result<Duration, String> {
    within(
        text,
        Duration::from_millis(100)..=Duration::from_secs(60),
        "100ms to 1m",
    )
}

fn endpoints_idle(text: &str) -> Result<Duration, String> {
    within(
        text,
        Duration::from_secs(3)..=Duration::from_secs(24 * 3600),
        "3s to 24h",
    )
}

fn drain_timeout(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO..=Duration::from_secs(3600), "0s to 1h")
}

fn endpoints_wait(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO..=Duration::from_secs(60), "0s to 1m")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Only {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(args: &str) -> Result<RunArgs, clap::Error> {
        let args = ["derny", "--config", "/c"]
            .into_iter()
            .chain(args.split_whitespace());
        Only::try_parse_from(args).map(|only| only.run)
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let args = parse("").unwrap();
        assert_eq!(args.http_address, SocketAddr::from(([0, 0, 0, 0], 15090)));
        assert_eq!(args.access_log, AccessLog::Stdout);
        assert_eq!(args.stale_after, Duration::from_secs(1));
        assert_eq!(args.hang_timeout, Duration::from_secs(3));
        assert_eq!(args.drain_timeout, Duration::from_secs(10));
        assert_eq!((args.log.as_str(), args.kernel_log), ("info", KernelLog::Off));
        assert!(args.dns_servers.is_empty());
        assert_eq!((args.cgroup, args.workers, args.zone), (None, None, None));
        assert_eq!((args.max_probes, args.max_namespace_probes), (64, 16));
        assert_eq!(args.max_hash_table_bytes, 32 << 20);
        let kubernetes = args.kubernetes;
        assert!(!kubernetes.enabled && kubernetes.kubeconfig.is_none() && kubernetes.state_file.is_none());
        assert_eq!(kubernetes.endpoints_idle, Duration::from_secs(600));
        assert_eq!(kubernetes.endpoints_wait, Duration::from_secs(1));
        assert_eq!(kubernetes.max_route_patterns, 512);
        assert_eq!(kubernetes.max_route_pattern_bytes, 16 << 20);
        assert_eq!(kubernetes.max_watched_services, 256);
    }

    #[test]
    fn a_file_or_a_cluster_is_needed() {
        let parse = |args: &str| Only::try_parse_from(args.split_whitespace()).map(|only| only.run.config);
        parse("derny").unwrap_err();
        parse("derny --kubeconfig /k").unwrap_err();
        assert!(parse("derny --kubernetes --kubeconfig /k").unwrap().is_none());
        assert!(parse("derny --kubernetes --config /c").unwrap().is_some());
    }

    #[test]
    fn values_are_checked_before_anything_is_opened() {
        let args = parse("--access-log off --stale-after 250ms --workers 3 --kernel-log debug").unwrap();
        assert_eq!(args.access_log, AccessLog::Off);
        assert_eq!(args.stale_after, Duration::from_millis(250));
        assert_eq!(args.worker_count().get(), 3);
        assert_eq!(args.kernel_log, KernelLog::Debug);
        assert_eq!(
            parse("--access-log /a").unwrap().access_log,
            AccessLog::File("/a".into())
        );
        let servers = parse("--dns-server 10.0.0.53 --dns-server [fd00::53]:5353")
            .unwrap()
            .dns_servers;
        assert_eq!(
            servers,
            [
                "10.0.0.53:53".parse().unwrap(),
                "[fd00::53]:5353".parse().unwrap()
            ]
        );
        let args = parse("--zone europe-west1-b --max-probes 8").unwrap();
        assert_eq!(
            (args.zone.as_deref(), args.max_probes),
            (Some("europe-west1-b"), 8)
        );
        for bad in [
            "--dns-server dns.example",
            "--endpoints-wait 2m",
            "--endpoints-idle 2s",
            "--stale-after 1",
            "--stale-after 99ms",
            "--stale-after 2m",
            "--workers 0",
            "--zone -b",
            "--max-probes 0",
            "--http-address :80",
        ] {
            parse(bad).expect_err(bad);
        }
    }
}
