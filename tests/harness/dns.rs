//! A real name server beside the pods: dnsmasq in the node's network namespace.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::{
    Process, eventually,
    node::{GATEWAY, Node},
};

/// Where it answers.
pub const NAME_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(GATEWAY), 53);
/// The TTL of its answers.
pub const TTL: Duration = Duration::from_secs(1);

/// A running name server. Dropping it kills it.
#[derive(Debug)]
pub struct NameServer {
    process: Process,
    hosts: PathBuf,
}

impl NameServer {
    /// Starts it with these names, and returns when it answers.
    pub fn start(node: &Node, names: &[(&str, &[IpAddr])]) -> Result<Self> {
        let hosts = node.host().run_directory().join("hosts");
        write(&hosts, names)?;
        let mut command = Command::new("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--log-facility=-",
                "--conf-file=/dev/null",
                "--no-resolv",
            ])
            // Its own user could not read the run directory.
            .args(["--no-hosts", "--user=root", "--pid-file"])
            // Nobody else is asked: a name that is not known does not exist, and one without AAAA has none.
            .arg("--local=/example/")
            .arg(format!("--addn-hosts={}", hosts.display()))
            .arg(format!("--local-ttl={}", TTL.as_secs()))
            .args([
                format!("--listen-address={GATEWAY}"),
                "--bind-interfaces".to_owned(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = node.host().spawn(command).context("starting dnsmasq")?;
        let server = Self { process, hosts };
        node.host().netns().run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").context("binding")?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            eventually("dnsmasq answers", Duration::from_secs(10), || {
                // A question of no names is answered with an error.
                let asked = socket.send_to(&[0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], NAME_SERVER);
                asked.is_ok() && socket.recv(&mut [0; 512]).is_ok()
            })
        })??;
        Ok(server)
    }

    /// Answers with these names from now on, and no others.
    pub fn say(&mut self, names: &[(&str, &[IpAddr])]) -> Result<()> {
        write(&self.hosts, names)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// `kill -9`; returns when it is gone.
    pub fn kill9(mut self) -> Result<()> {
        self.process.kill9()?;
        Ok(())
    }
}

fn write(hosts: &PathBuf, names: &[(&str, &[IpAddr])]) -> Result<()> {
    let lines = names
        .iter()
        .flat_map(|(name, addresses)| addresses.iter().map(move |ip| format!("{ip} {name}\n")));
    fs::write(hosts, lines.collect::<String>()).with_context(|| format!("writing {}", hosts.display()))
}
