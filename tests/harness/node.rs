//! The machine: a network namespace with a bridge that routes between its pods, and a control group above them.
//!
//! A pod has a /32 address and its only route leads to the bridge, so all traffic between pods is routed by the node,
//! as on GKE; the node's connection tracking therefore sees both directions and can translate virtual addresses.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Context, Result, ensure};

use crate::{
    cgroup,
    cleanup::{self, NodeId},
    netns::{self, Netns},
    pod::Pod,
    process::Process,
    vip::{Services, Vip},
};

/// The bridge's addresses, first of 10.0.0.0/16 and fd00::/64; pods follow.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// A bridge that was not given one takes the lowest of its ports', and when a new pod's is lower, what the others know
/// of their gateway is wrong until they ask again, up to a quarter of a minute later.
const BRIDGE: &str = "02:de:72:6e:79:01";

#[derive(Debug)]
pub struct Node {
    id: NodeId,
    host: Host,
    services: Services,
    /// Last part of the next pod's addresses.
    next_pod: AtomicU16,
}

impl Node {
    /// A node without pods. Takes some 30 ms.
    pub fn new() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a node needs root: network namespaces and control groups"
        );
        let id = NodeId::register()?;
        // From here on a failure leaves through `remove`, which finds everything by its name.
        let built = Self::build(&id);
        if built.is_err() {
            id.remove();
        }
        built
    }

    fn build(id: &NodeId) -> Result<Self> {
        let run_directory = id.run_directory();
        fs::create_dir_all(&run_directory)
            .with_context(|| format!("creating {}", run_directory.display()))?;
        let cgroup = id.cgroup()?;
        cgroup::create(&cgroup.join("kubepods"))?;
        cgroup::create(&cgroup.join("system"))?;
        let netns = Netns::create(format!("{}-node", id.prefix()))?;
        netns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // In and out by the same bridge is how pods are meant to talk here.
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("bridge/bridge-nf-call-iptables", "0"),
            ("bridge/bridge-nf-call-ip6tables", "0"),
        ])?;
        netns.ip_batch(&format!(
            "link add br0 address {BRIDGE} type bridge mcast_snooping 0\n\
             link set br0 up\n\
             address add {GATEWAY}/16 dev br0\n\
             address add {GATEWAY6}/64 dev br0 nodad\n"
        ))?;
        let netns = Arc::new(netns);
        let services = Services::new(Arc::clone(&netns))?;
        let host = Host {
            netns,
            cgroup,
            run_directory,
        };
        Ok(Self {
            id: id.clone(),
            host,
            services,
            next_pod: AtomicU16::new(2),
        })
    }

    /// `derny-<id>`: what everything of this node is called.
    pub fn prefix(&self) -> String {
        self.id.prefix()
    }

    /// What runs beside the pods.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A new pod named `name`, which must be free. Takes some 30 ms.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let number = self.next_pod.fetch_add(1, Ordering::Relaxed);
        let [high, low] = number.to_be_bytes();
        let ip = Ipv4Addr::new(10, 0, high, low);
        let ip6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number);
        let cgroup = self.host.kubepods().join(name);
        cgroup::create(&cgroup)?;
        let netns = Netns::create(format!("{}-{name}", self.prefix()))?;
        netns.sysctl(&[
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/default/accept_redirects", "0"),
            ("ipv6/conf/default/accept_redirects", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
        ])?;
        self.host.netns.ip_batch(&format!(
            "link add veth{number} type veth peer name eth0 netns {}\n\
             link set veth{number} master br0 up\n",
            netns.name()
        ))?;
        netns.ip_batch(&format!(
            "address add {ip}/32 dev eth0\n\
             address add {ip6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {GATEWAY} dev eth0 scope link\n\
             route add default via {GATEWAY} dev eth0 src {ip}\n\
             route add {GATEWAY6} dev eth0\n\
             route add default via {GATEWAY6} dev eth0 src {ip6}\n"
        ))?;
        let log = self.host.run_directory.join(format!("{name}.log"));
        Ok(Pod {
            name: name.to_owned(),
            ip,
            ip6,
            netns,
            cgroup,
            log,
        })
    }

    /// A virtual address for `name` whose `port` is spread at random, per connection, over `target_port` of
    /// `endpoints`.
    pub fn service(&self, name: &str, port: u16, target_port: u16, endpoints: &[&Pod]) -> Result<Vip> {
        self.services.add(name, port, target_port, endpoints)
    }

    /// Makes virtual addresses work between pods of a subnet that answer each other past the node.
    #[cfg(feature = "servers")]
    pub(crate) fn masquerade_translated(&self, subnet: &str) -> Result<()> {
        self.services.masquerade_translated(subnet)
    }

    /// Lets the node outlive this process: Ctrl-C and a later run leave it alone, and [`remove_kept`] takes it down.
    /// The values themselves (node, pods, processes) must be forgotten by the caller, since dropping still removes.
    pub fn keep(&self) -> Result<()> {
        fs::write(self.host.run_directory.join(cleanup::KEPT), "").context("marking the node as kept")?;
        self.id.keep();
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.id.remove();
    }
}

/// The node without its pods: where daemons of the host run. It does not keep the node alive.
#[derive(Clone, Debug)]
pub struct Host {
    netns: Arc<Netns>,
    cgroup: PathBuf,
    run_directory: PathBuf,
}

impl Host {
    /// The node's own network namespace, where the agent runs.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The lowest control group that holds all pods.
    pub fn kubepods(&self) -> PathBuf {
        self.cgroup.join("kubepods")
    }

    /// Where sockets, configuration and logs of this node go.
    pub fn run_directory(&self) -> &Path {
        &self.run_directory
    }

    /// Starts a program in the node's network namespace and outside the pods' control group, as a daemon of the host.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.spawn_in(&self.cgroup.join("system"), command)
    }

    /// Starts a program that goes with the node, in the machine's own network.
    pub fn spawn_beside(&self, mut command: Command) -> Result<Process> {
        cgroup::enter(&self.cgroup.join("system"), &mut command)?;
        Process::spawn(command)
    }

    /// Like [`Host::spawn`], in a control group of choice below the node's, which is made when missing.
    pub fn spawn_in(&self, cgroup: &Path, mut command: Command) -> Result<Process> {
        cgroup::create(cgroup)?;
        cgroup::enter(cgroup, &mut command)?;
        self.netns.enter(&mut command)?;
        Process::spawn(command)
    }
}

/// Nodes of this machine that were kept, by their prefixes.
pub fn kept() -> Vec<String> {
    let run = fs::read_dir("/run").into_iter().flatten().flatten();
    run.filter(|entry| entry.path().join(cleanup::KEPT).exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Takes a node down that was kept, by its prefix.
pub fn remove_kept(prefix: &str) {
    cleanup::remove_by_name(prefix);
}

/// Sees to it that `command` runs in a pod of a kept node, or as a daemon of the host when `pod` is `node`.
pub fn enter_kept(prefix: &str, pod: &str, command: &mut Command) -> Result<()> {
    let group = if pod == "node" {
        Path::new("system").to_owned()
    } else {
        Path::new("kubepods").join(pod)
    };
    let netns = Path::new(netns::DIRECTORY).join(format!("{prefix}-{pod}"));
    ensure!(netns.exists(), "{prefix} has no pod {pod}");
    cgroup::enter(&cgroup::root()?.join(prefix).join(group), command)?;
    netns::enter(&netns, command)
}
