//! One question to the DNS, asked from the node's network namespace.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy},
    lookup::Lookup,
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RecordType},
    },
};

/// For one lookup with all its tries, at all servers.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Servers {
    /// Those of `/etc/resolv.conf`, as it reads when the question is asked.
    #[default]
    System,
    /// These, in this order.
    Given(Vec<SocketAddr>),
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// IPv4 before IPv6, each in the server's order, each once; at least one.
    pub(super) addresses: Vec<IpAddr>,
    /// The shortest of the records, aliases too.
    pub(super) ttl: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsFailure {
    #[error("the name does not exist (NXDOMAIN)")]
    NoSuchName,
    #[error("the name has no address that can be dialled")]
    NoAddress,
    #[error("no name server answered in time")]
    Timeout,
    #[error("the name server says {0}")]
    Refused(String),
    #[error("no name server could be asked: {0}")]
    Unreachable(String),
}

impl DnsFailure {
    /// The metric's label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoSuchName => "nxdomain",
            Self::NoAddress => "no_address",
            Self::Timeout => "timeout",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

impl Servers {
    /// Asks for A and AAAA records. `name` is absolute; `last` is what was answered before.
    ///
    /// # Errors
    /// Also when only one of the two questions fails and `last` has addresses of that family: half an answer would
    /// pass for a loss of endpoints. Without such the other half is an answer, because there are name servers that
    /// refuse a family for good.
    pub(super) async fn lookup(&self, name: &str, last: &[IpAddr]) -> Result<Answer, DnsFailure> {
        let mut name = Name::from_ascii(name).map_err(|e| DnsFailure::Unreachable(e.to_string()))?;
        name.set_fqdn(true);
        let resolver = self.resolver().map_err(failure)?;
        let both = async {
            tokio::join!(
                resolver.lookup(name.clone(), RecordType::A),
                resolver.lookup(name.clone(), RecordType::AAAA)
            )
        };
        let (v4, v6) = tokio::time::timeout(DEADLINE, both)
            .await
            .map_err(|_| DnsFailure::Timeout)?;
        answer([(v4, IpAddr::is_ipv4), (v6, IpAddr::is_ipv6)], last)
    }

    /// A resolver for one lookup. It keeps no cache: how long an answer stands is for [`super::Names`] to decide.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self {
            Self::System => TokioResolver::builder_tokio()?,
            Self::Given(servers) => {
                let servers = servers.iter().map(|server| {
                    let connections =
                        [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                            connection.port = server.port();
                            connection
                        });
                    NameServerConfig::new(server.ip(), true, connections.to_vec())
                });
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        builder.build()
    }
}

type OfFamily = fn(&IpAddr) -> bool;

fn answer(lookups: [(Result<Lookup, NetError>, OfFamily); 2], last: &[IpAddr]) -> Result<Answer, DnsFailure> {
    let mut addresses = Vec::new();
    let mut why = DnsFailure::NoAddress;
    let mut ttl = u32::MAX;
    for (lookup, of_family) in lookups {
        let lookup = match lookup.map_err(failure) {
            Ok(lookup) => lookup,
            // A name with addresses of one family only.
            Err(DnsFailure::NoAddress) => continue,
            Err(failure) if last.iter().any(of_family) => return Err(failure),
            Err(failure) => {
                why = failure;
                continue;
            }
        };
        for record in lookup.answers() {
            ttl = ttl.min(record.ttl);
            let Some(ip) = record.data.ip_addr() else { continue };
            let ip = ip.to_canonical();
            if dialable(ip) && !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
    if addresses.is_empty() {
        return Err(why);
    }
    let ttl = Duration::from_secs(ttl.into());
    Ok(Answer { addresses, ttl })
}

/// A filter's `0.0.0.0` must not lead a pod to itself, nor an answer into the range of redirected connections.
fn dialable(ip: IpAddr) -> bool {
    let redirected = matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 127 && v4.octets()[1] >= 192);
    !(ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) || redirected)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failure(error: NetError) -> DnsFailure {
    match &error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. })) => match *response_code {
            ResponseCode::NXDomain => DnsFailure::NoSuchName,
            _ => DnsFailure::NoAddress,
        },
        NetError::Dns(DnsError::ResponseCode(code)) => DnsFailure::Refused(code.to_string()),
        NetError::Timeout => DnsFailure::Timeout,
        other => DnsFailure::Unreachable(other.to_string()),
    }
}
