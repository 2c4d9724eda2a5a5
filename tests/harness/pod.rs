//! A pod: network namespace, addresses, control group.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::{
    cgroup,
    netns::Netns,
    node::Host,
    process::{Output, Process, capture},
};

/// How long [`Pod::run`] waits for a program's end.
const RUN_DEADLINE: Duration = Duration::from_secs(60);

/// Made by [`crate::Node::pod`]. Dropping it kills what runs in it and takes it off the node.
#[derive(Debug)]
pub struct Pod {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) ip6: Ipv6Addr,
    pub(crate) netns: Netns,
    pub(crate) cgroup: PathBuf,
    pub(crate) log: PathBuf,
}

impl Pod {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    pub fn ip6(&self) -> Ipv6Addr {
        self.ip6
    }

    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), port)
    }

    pub fn address6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.ip6), port)
    }

    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The file that the agent's configuration names.
    pub fn netns_path(&self) -> &Path {
        self.netns.path()
    }

    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Where its servers write what they have to say.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Starts a program in the pod: its control group and network namespace are set before the first instruction.
    pub fn spawn(&self, mut command: Command) -> Result<Process> {
        cgroup::enter(&self.cgroup, &mut command)?;
        self.netns.enter(&mut command)?;
        Process::spawn(command)
    }

    /// Like [`Pod::spawn`], as a container runtime does it: the process is a daemon's of the `host` first, then enters
    /// a control group of choice, which is made when missing, and then the pod's network.
    pub fn spawn_from(&self, host: &Host, cgroup: &Path, mut command: Command) -> Result<Process> {
        cgroup::create(cgroup)?;
        host.netns().enter(&mut command)?;
        cgroup::enter(cgroup, &mut command)?;
        self.netns.enter(&mut command)?;
        Process::spawn(command)
    }

    /// Runs a program to its end, at most a minute, started as by [`Pod::spawn_from`].
    pub fn run_from(&self, host: &Host, cgroup: &Path, mut command: Command) -> Result<Output> {
        capture(&mut command);
        self.spawn_from(host, cgroup, command)?.output(RUN_DEADLINE)
    }

    /// Runs a program to its end, at most a minute.
    pub fn run(&self, command: Command) -> Result<Output> {
        self.run_within(command, RUN_DEADLINE)
    }

    pub fn run_within(&self, mut command: Command, deadline: Duration) -> Result<Output> {
        capture(&mut command);
        self.spawn(command)?.output(deadline)
    }

    /// Runs `work` on a thread of this process inside the pod's network namespace, and in no pod's control group:
    /// for servers and for looking. A client whose connections are to be redirected must be a process of the pod.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.netns.run(work)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        cgroup::remove(&self.cgroup);
    }
}
