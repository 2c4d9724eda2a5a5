//! Virtual addresses of services, by destination NAT in the node: what kube-proxy does in its nftables mode.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use anyhow::{Context, Result};

use crate::{
    netns::Netns,
    pod::Pod,
    process::{Process, capture},
};

/// The rules into which services are entered. A pod that reaches itself over a virtual address is masqueraded, or it
/// would see its own address as the peer's and drop the packet.
const TABLE: &str = "
table inet services {
  map v4 { type ipv4_addr . inet_service : verdict; }
  map v6 { type ipv6_addr . inet_service : verdict; }
  set self4 { type ipv4_addr . ipv4_addr; }
  set self6 { type ipv6_addr . ipv6_addr; }
  chain dispatch {
    ip daddr . tcp dport vmap @v4
    ip6 daddr . tcp dport vmap @v6
  }
  chain prerouting { type nat hook prerouting priority dstnat; jump dispatch; }
  chain output { type nat hook output priority -100; jump dispatch; }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr . ip daddr @self4 masquerade
    ip6 saddr . ip6 daddr @self6 masquerade
  }
}
";

#[derive(Debug)]
pub(crate) struct Services {
    netns: Arc<Netns>,
    /// Last part of the next virtual address.
    next: AtomicU8,
}

impl Services {
    pub(crate) fn new(netns: Arc<Netns>) -> Result<Self> {
        nft(&netns, TABLE)?;
        Ok(Self {
            netns,
            next: AtomicU8::new(10),
        })
    }

    /// Translates connections between addresses of `subnet` in both directions: for pods that answer each other past
    /// the node, as kube-proxy's `--masquerade-all` does.
    #[cfg(feature = "servers")]
    pub(crate) fn masquerade_translated(&self, subnet: &str) -> Result<()> {
        let rule = format!("ip saddr {subnet} ip daddr {subnet} ct status dnat masquerade");
        nft(
            &self.netns,
            &format!("add rule inet services postrouting {rule}\n"),
        )
    }

    pub(crate) fn add(&self, name: &str, port: u16, target_port: u16, endpoints: &[&Pod]) -> Result<Vip> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let vip = Vip {
            netns: Arc::clone(&self.netns),
            name: name.to_owned(),
            ip: Ipv4Addr::new(10, 96, 0, number),
            ip6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(number)),
            port,
            target_port,
            number,
            endpoints: addresses(endpoints),
        };
        let (ip, ip6) = (vip.ip, vip.ip6);
        nft(
            &vip.netns,
            &format!(
                "add chain inet services s{number}v4\nadd chain inet services s{number}v6\n\
                 add element inet services v4 {{ {ip} . {port} : goto s{number}v4 }}\n\
                 add element inet services v6 {{ {ip6} . {port} : goto s{number}v6 }}\n{}",
                vip.rules()
            ),
        )?;
        Ok(vip)
    }
}

/// A service's virtual addresses and the endpoints behind them. It stands until its node goes.
#[derive(Clone, Debug)]
pub struct Vip {
    netns: Arc<Netns>,
    name: String,
    ip: Ipv4Addr,
    ip6: Ipv6Addr,
    port: u16,
    target_port: u16,
    number: u8,
    endpoints: Vec<(Ipv4Addr, Option<Ipv6Addr>)>,
}

impl Vip {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    pub fn ip6(&self) -> Ipv6Addr {
        self.ip6
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a client dials.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), self.port)
    }

    pub fn address6(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.ip6), self.port)
    }

    /// `http://<ip>:<port><path>`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Who answers, in IPv4.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.endpoints
            .iter()
            .map(|(ip, _)| SocketAddr::new(IpAddr::V4(*ip), self.target_port))
            .collect()
    }

    /// From now on new connections go to these; none refuses them. Connections that stand keep their endpoint.
    pub fn set_endpoints(&mut self, endpoints: &[&Pod]) -> Result<()> {
        self.endpoints = addresses(endpoints);
        nft(&self.netns, &self.rules())
    }

    /// [`Vip::set_endpoints`] for pods that have an IPv4 address only.
    pub fn set_addresses(&mut self, addresses: &[Ipv4Addr]) -> Result<()> {
        self.endpoints = addresses.iter().map(|ip| (*ip, None)).collect();
        nft(&self.netns, &self.rules())
    }

    /// The translation in both families, as one transaction. Without endpoints there is no rule, and the node answers
    /// that it has no route to the address.
    fn rules(&self) -> String {
        let number = self.number;
        let mut text =
            format!("flush chain inet services s{number}v4\nflush chain inet services s{number}v6\n");
        let port = self.target_port;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (ip, ip6) in &self.endpoints {
            v4.push(format!("{} : {ip} . {port}", v4.len()));
            // Writing to a String does not fail.
            let _ = writeln!(text, "add element inet services self4 {{ {ip} . {ip} }}");
            if let Some(ip6) = ip6 {
                v6.push(format!("{} : {ip6} . {port}", v6.len()));
                let _ = writeln!(text, "add element inet services self6 {{ {ip6} . {ip6} }}");
            }
        }
        for (family, suffix, map) in [("ip", "v4", v4), ("ip6", "v6", v6)] {
            if map.is_empty() {
                continue;
            }
            let (count, map) = (map.len(), map.join(", "));
            let _ = writeln!(
                text,
                "add rule inet services s{number}{suffix} meta l4proto tcp \
                 dnat {family} to numgen random mod {count} map {{ {map} }}"
            );
        }
        text
    }
}

fn addresses(pods: &[&Pod]) -> Vec<(Ipv4Addr, Option<Ipv6Addr>)> {
    pods.iter().map(|pod| (pod.ip(), Some(pod.ip6()))).collect()
}

fn nft(netns: &Netns, rules: &str) -> Result<()> {
    use std::{io::Write as _, process::Stdio};
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    netns.enter(&mut command)?;
    capture(&mut command);
    command.stdin(Stdio::piped());
    let mut process = Process::spawn(command)?;
    if let Some(mut stdin) = process.child().stdin.take() {
        stdin.write_all(rules.as_bytes()).context("writing to nft")?;
    }
    let output = process.output(std::time::Duration::from_secs(10))?;
    output
        .success()
        .with_context(|| format!("nft -f - with\n{rules}"))?;
    Ok(())
}
