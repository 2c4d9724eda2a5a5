//! One question to the DNS, asked from the node's network namespace.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
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
use tokio::time::{Instant, sleep_until, timeout_at};

/// For one lookup with all its tries, at all servers.
const DEADLINE: Duration = Duration::from_secs(10);
/// Once one family has been answered, the other may take so much longer: there are name servers that never answer one.
const OTHER_FAMILY: Duration = Duration::from_secs(2);

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
    /// Why one of the two families was not answered. Its addresses are those of before.
    pub(super) half: Option<DnsFailure>,
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
    /// The two fail apart. A family whose question fails keeps what `last` has of it: half an answer would pass for a loss
    /// of endpoints. There are name servers that refuse a family for good, and the other goes on without it.
    ///
    /// # Errors
    /// When neither family has an address, or the only answer is that there is none.
    pub(super) async fn lookup(&self, name: &str, last: &[IpAddr]) -> Result<Answer, DnsFailure> {
        let mut name = Name::from_ascii(name).map_err(|e| DnsFailure::Unreachable(e.to_string()))?;
        name.set_fqdn(true);
        let end = Instant::now() + DEADLINE;
        let mut v4 = pin!(self.family(&name, RecordType::A));
        let mut v6 = pin!(self.family(&name, RecordType::AAAA));
        let late = |_| Err(DnsFailure::Timeout);
        let rest = |first: &Result<Lookup, DnsFailure>| match first {
            Ok(_) => end.min(Instant::now() + OTHER_FAMILY),
            Err(_) => end,
        };
        let (v4, v6) = tokio::select! {
            v4 = &mut v4 => {
                let rest = rest(&v4);
                (v4, timeout_at(rest, v6).await.unwrap_or_else(late))
            }
            v6 = &mut v6 => {
                let rest = rest(&v6);
                (timeout_at(rest, v4).await.unwrap_or_else(late), v6)
            }
            () = sleep_until(end) => return Err(DnsFailure::Timeout),
        };
        answer([(v4, IpAddr::is_ipv4), (v6, IpAddr::is_ipv6)], last)
    }

    /// The records of one family. A server that does not know EDNS is asked again without (RFC 6891 section 7).
    async fn family(&self, name: &Name, of: RecordType) -> Result<Lookup, DnsFailure> {
        let resolver = self.resolver(Edns::On).map_err(failure)?;
        match resolver.lookup(name.clone(), of).await {
            Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::FormErr | ResponseCode::NotImp))) => {
                let resolver = self.resolver(Edns::Off).map_err(failure)?;
                resolver.lookup(name.clone(), of).await.map_err(failure)
            }
            answered => answered.map_err(failure),
        }
    }

    /// A resolver for one lookup. It keeps no cache: how long an answer stands is for [`super::Names`] to decide.
    fn resolver(&self, edns: Edns) -> Result<TokioResolver, NetError> {
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
        options.edns0 = edns == Edns::On;
        options.use_hosts_file = ResolveHosts::Never;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        builder.build()
    }
}

/// Whether a question says that it knows longer answers (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edns {
    On,
    Off,
}

type OfFamily = fn(&IpAddr) -> bool;

fn answer(
    lookups: [(Result<Lookup, DnsFailure>, OfFamily); 2],
    last: &[IpAddr],
) -> Result<Answer, DnsFailure> {
    let mut addresses = Vec::new();
    let (mut answered, mut half) = (false, None);
    let mut ttl = u32::MAX;
    for (lookup, of_family) in lookups {
        let lookup = match lookup {
            Ok(lookup) => lookup,
            // A name with addresses of one family only.
            Err(DnsFailure::NoAddress) => continue,
            Err(failure) => {
                addresses.extend(last.iter().copied().filter(of_family));
                half = Some(failure);
                continue;
            }
        };
        for record in lookup.answers() {
            ttl = ttl.min(record.ttl);
            let Some(ip) = record.data.ip_addr() else { continue };
            let ip = ip.to_canonical();
            if dialable(ip) {
                answered = true;
                if !addresses.contains(&ip) {
                    addresses.push(ip);
                }
            }
        }
    }
    if !answered {
        return Err(half.unwrap_or(DnsFailure::NoAddress));
    }
    let ttl = Duration::from_secs(ttl.into());
    Ok(Answer { addresses, ttl, half })
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
