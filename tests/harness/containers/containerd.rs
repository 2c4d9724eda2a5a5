//! Debian's containerd as a child of the test, which leaves nothing behind.
//!
//! containerd, its shims and runc mount file systems, and write to places that no configuration moves. They therefore
//! have a mount namespace of their own, in which these places are below the test's directory: with the last of their
//! processes everything is gone, also after `kill -9`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::{Process, observe::eventually, process::capture};

const STARTED: Duration = Duration::from_secs(30);
const ENDED: Duration = Duration::from_secs(30);

/// `$1` is the directory. `/run/containerd/s` has the shims' sockets, `/var/lib/cni` what plugins were told; a tmpfs
/// for the images, since `/run` may be mounted `noexec`.
const START: &str = r#"
set -e
mkdir -p "$1/root" "$1/shims" "$1/cni" /run/containerd/s /var/lib/cni
mount -t tmpfs -o mode=0711 derny "$1/root"
mount --bind "$1/shims" /run/containerd/s
mount --bind "$1/cni" /var/lib/cni
exec containerd --config "$1/config.toml"
"#;

/// Where a machine may have the plugins of the Container Network Interface: Debian's place, then upstream's.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// The directory of the network plugins `bridge`, `host-local` and `loopback`, where this machine has them.
pub fn plugins() -> Option<PathBuf> {
    let mut directories = PLUGINS.iter().map(PathBuf::from);
    directories.find(|directory| directory.join("bridge").is_file())
}

/// What of containerd is wanted.
#[derive(Clone, Debug)]
pub enum Kind {
    /// For `ctr`.
    Plain,
    /// With the Container Runtime Interface: the pods' addresses, such as `10.1.0.0/16`, and the image of their first
    /// process.
    Kubernetes { subnet: String, pause: String },
}

/// A running containerd. Dropping it ends the daemon; containers that run are their owner's to end.
#[derive(Debug)]
pub struct Containerd {
    directory: PathBuf,
    process: Process,
}

impl Containerd {
    /// With everything below `directory`; `spawn` starts it where it is to run.
    pub fn start(
        directory: &Path,
        kind: &Kind,
        spawn: impl FnOnce(Command) -> Result<Process>,
    ) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let text = match kind {
            Kind::Plain => plain(directory),
            Kind::Kubernetes { subnet, pause } => {
                network(directory, subnet)?;
                kubernetes(directory, pause)?
            }
        };
        fs::write(directory.join("config.toml"), text).context("writing containerd's configuration")?;
        let log = File::create(directory.join("log")).context("containerd's log")?;
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "slave",
                "sh",
                "-c",
                START,
                "containerd",
            ])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("containerd's log")?)
            .stderr(log);
        let containerd = Self {
            directory: directory.to_owned(),
            process: spawn(command)?,
        };
        let answers = || containerd.ctr(&["version"]).is_ok();
        eventually("containerd answers", STARTED, answers).with_context(|| containerd.log())?;
        Ok(containerd)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Its client up to the client's own arguments. `ctr run` looks into the container's files itself, and therefore
    /// needs containerd's mounts.
    pub fn client(&self) -> Vec<String> {
        let mounts = format!("--mount=/proc/{}/ns/mnt", self.process.id());
        let socket = self.socket().display().to_string();
        ["nsenter", &mounts, "ctr", "--address", &socket]
            .map(str::to_owned)
            .into()
    }

    /// What `ctr` says, which must succeed.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("env");
        command.args(self.client()).args(arguments);
        capture(&mut command);
        let output = Process::spawn(command)?.output(STARTED)?;
        output.success().with_context(|| format!("ctr {arguments:?}"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.signal(Signal::SIGTERM);
        let _ = self.process.wait(ENDED);
    }
}

/// The part that both kinds have.
fn places(directory: &Path) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let (root, state, socket) = (at("root"), at("state"), at("socket"));
    format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\n[grpc]\naddress = {socket:?}\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n"
    )
}

fn plain(directory: &Path) -> String {
    format!(
        "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n{}",
        places(directory)
    )
}

/// `restrict_oom_score_adj`: a test's machine may lack `CAP_SYS_RESOURCE`. The control groups are made in the cgroupfs
/// driver's layout.
fn kubernetes(directory: &Path, pause: &str) -> Result<String> {
    let plugins = plugins()
        .with_context(|| format!("no network plugins in {PLUGINS:?}; `cargo xtask setup` installs them"))?;
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    Ok(format!(
        "{places}[{cri}]\nsandbox_image = {pause:?}\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
         netns_mounts_under_state_dir = true\nstream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
         [{cri}.containerd]\nsnapshotter = \"native\"\n\
         [{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [{cri}.containerd.runtimes.runc.options]\nRoot = {runc:?}\nSystemdCgroup = false\n\
         [{cri}.cni]\nbin_dir = {plugins:?}\nconf_dir = {networks:?}\n",
        places = places(directory),
        runc = directory.join("runc"),
        networks = directory.join("networks"),
    ))
}

/// Pods on a bridge of the node; containerd adds the loopback by itself.
fn network(directory: &Path, subnet: &str) -> Result<()> {
    let networks = directory.join("networks");
    fs::create_dir_all(&networks).with_context(|| format!("creating {}", networks.display()))?;
    let list = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "derny",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": directory.join("addresses"),
                "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    let text = serde_json::to_string_pretty(&list).context("the network's configuration")?;
    fs::write(networks.join("10-derny.conflist"), text).context("writing the network's configuration")
}
