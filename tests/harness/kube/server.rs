//! The API server itself: the first that is to be had of a running one, `mk8s`, kube-apiserver with etcd, and a small
//! one in this process.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::runtime::Handle;

use super::small::Small;
use crate::{Node, Process, node::Host, observe::eventually};

const READY_DEADLINE: Duration = Duration::from_secs(15);
/// For clients and for peers.
const ETCD_PORTS: u16 = 2;
/// Starts that are tried: between the choice of a port and its use another process may take it.
const STARTS: usize = 4;
/// Lines of its log that are shown when none of them succeeds.
const LOG_LINES: usize = 20;

/// Where a server comes from.
#[derive(Clone, Debug)]
enum Source {
    /// One that runs already: its kubeconfig.
    Running(PathBuf),
    /// A small server with storage of its own: the program.
    Mk8s(PathBuf),
    /// The directory of `kube-apiserver` and `etcd`.
    Envtest(PathBuf),
    /// None is to be had.
    InProcess,
}

/// The one place that knows where servers are looked for.
fn find() -> Source {
    if let Some(kubeconfig) = std::env::var_os("DERNY_TEST_APISERVER") {
        return Source::Running(kubeconfig.into());
    }
    let mk8s = std::env::var_os("DERNY_MK8S").map_or(shared().join("bin/mk8s"), PathBuf::from);
    if mk8s.is_file() {
        return Source::Mk8s(mk8s);
    }
    match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(directory) => Source::Envtest(directory.into()),
        None => Source::InProcess,
    }
}

/// Where a machine may have a server and the definitions of the Gateway API: `DERNY_TEST_SHARED`, else a directory
/// beside the repository.
fn shared() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    std::env::var_os("DERNY_TEST_SHARED").map_or(beside, PathBuf::from)
}

/// The upstream definitions of HTTPRoute, GRPCRoute and ReferenceGrant, where this machine has them.
pub(super) fn gateway_definitions() -> Vec<PathBuf> {
    let Ok(directories) = std::fs::read_dir(shared().join("kube")) else {
        return Vec::new();
    };
    let directories = directories.filter_map(Result::ok).map(|entry| entry.path());
    let gateway = directories.filter(|path| path.to_string_lossy().contains("gateway-api"));
    let files = gateway.filter_map(|path| std::fs::read_dir(path).ok()).flatten();
    files
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect()
}

#[derive(Debug)]
pub(super) struct Server {
    host: Host,
    source: Source,
    directory: PathBuf,
    kubeconfig: PathBuf,
    port: u16,
    etcd_port: u16,
    processes: Vec<Process>,
    small: Option<Small>,
}

impl Server {
    pub(super) fn start(node: &Node, runtime: &Handle) -> Result<Self> {
        let source = find();
        let directory = node.host().run_directory().join("apiserver");
        std::fs::create_dir_all(&directory).context("creating the API server's directory")?;
        let kubeconfig = match &source {
            Source::Running(kubeconfig) => kubeconfig.clone(),
            Source::Mk8s(_) | Source::Envtest(_) | Source::InProcess => directory.join("kubeconfig"),
        };
        let port = free_ports(1)?;
        let small = matches!(source, Source::InProcess).then(|| Small::new(runtime, port));
        let mut server = Self {
            host: node.host().clone(),
            source,
            kubeconfig,
            port,
            etcd_port: free_ports(ETCD_PORTS)?,
            directory,
            processes: Vec::new(),
            small,
        };
        for _ in 1..STARTS {
            if server.start_again().is_ok() {
                return Ok(server);
            }
            let _ = server.kill9();
            let _ = std::fs::remove_dir_all(&server.directory);
            std::fs::create_dir_all(&server.directory).context("creating the API server's directory")?;
            if server.small.is_none() {
                (server.port, server.etcd_port) = (free_ports(1)?, free_ports(ETCD_PORTS)?);
            }
        }
        server.start_again()?;
        Ok(server)
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(super) fn start_again(&mut self) -> Result<()> {
        match self.source.clone() {
            Source::Running(_) => return Ok(()),
            Source::Mk8s(program) => {
                let mut command = Command::new(program);
                command.arg("-dir").arg(&self.directory);
                command.args(["-port", &self.port.to_string()]);
                command.args(["-etcd-port", &self.etcd_port.to_string()]);
                self.spawn(command)?;
            }
            Source::Envtest(assets) => self.envtest(&assets)?,
            Source::InProcess => {
                if let Some(small) = &mut self.small {
                    std::fs::write(&self.kubeconfig, small.kubeconfig()).context("writing the kubeconfig")?;
                    small.start()?;
                }
            }
        }
        let kubeconfig = self.kubeconfig.clone();
        eventually("the API server is ready", READY_DEADLINE, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return false };
            runtime.block_on(async {
                let Ok(client) = super::client(&kubeconfig).await else {
                    return false;
                };
                let request = http::Request::get("/readyz").body(Vec::new());
                let Ok(request) = request else { return false };
                let answer = tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await;
                matches!(answer, Ok(Ok(text)) if text == "ok")
            })
        })
        .with_context(|| format!("its log ends with:\n{}", self.last_lines()))
    }

    /// Of what the server's processes said.
    fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// As envtest starts them: without authentication beyond one token, everything allowed.
    fn envtest(&mut self, assets: &Path) -> Result<()> {
        let etcd_url = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer_url = format!("http://127.0.0.1:{}", self.etcd_port + 1);
        let mut etcd = Command::new(assets.join("etcd"));
        etcd.arg("--data-dir").arg(self.directory.join("etcd"));
        etcd.args([
            "--listen-client-urls",
            &etcd_url,
            "--advertise-client-urls",
            &etcd_url,
        ]);
        etcd.args(["--listen-peer-urls", &peer_url, "--unsafe-no-fsync"]);
        self.spawn(etcd)?;
        let key = self.directory.join("sa.key");
        if !key.exists() {
            let made = Command::new("openssl")
                .args(["genrsa", "-out"])
                .arg(&key)
                .stderr(Stdio::null())
                .status();
            anyhow::ensure!(made.context("openssl")?.success(), "openssl genrsa failed");
        }
        let tokens = self.directory.join("tokens.csv");
        std::fs::write(&tokens, "test,admin,admin,system:masters\n").context("writing tokens")?;
        let mut server = Command::new(assets.join("kube-apiserver"));
        server.args(["--etcd-servers", &etcd_url, "--bind-address", "127.0.0.1"]);
        server.args(["--secure-port", &self.port.to_string()]);
        server.arg("--cert-dir").arg(self.directory.join("certs"));
        server.arg("--token-auth-file").arg(&tokens);
        server.args([
            "--service-account-issuer",
            "https://localhost",
            "--authorization-mode",
            "AlwaysAllow",
        ]);
        server.arg("--service-account-key-file").arg(&key);
        server.arg("--service-account-signing-key-file").arg(&key);
        server.args([
            "--service-cluster-ip-range",
            "10.96.0.0/16",
            "--disable-admission-plugins",
            "ServiceAccount",
        ]);
        self.spawn(server)?;
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: t, cluster: {{server: \"https://127.0.0.1:{}\", \
             insecure-skip-tls-verify: true}}}}]\nusers: [{{name: a, user: {{token: test}}}}]\n\
             contexts: [{{name: t, context: {{cluster: t, user: a}}}}]\ncurrent-context: t\n",
            self.port
        );
        std::fs::write(&self.kubeconfig, kubeconfig).context("writing the kubeconfig")
    }

    fn spawn(&mut self, mut command: Command) -> Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .context("opening the API server's log")?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cloning the log")?)
            .stderr(log);
        self.processes.push(self.host.spawn_beside(command)?);
        Ok(())
    }

    /// Whether objects are held to the schemas of their kinds.
    pub(super) fn validates(&self) -> bool {
        self.small.is_none()
    }

    pub(super) fn kill9(&mut self) -> Result<()> {
        if let Some(small) = &mut self.small {
            small.stop();
            return Ok(());
        }
        anyhow::ensure!(
            !self.processes.is_empty(),
            "the API server is not this test's own"
        );
        for mut process in self.processes.drain(..).rev() {
            process.kill9()?;
        }
        Ok(())
    }
}

/// The first of `count` ports in a row that nobody has. Below those that the kernel gives out, since one that connects
/// meanwhile would take it.
fn free_ports(count: u16) -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const RANGE: u16 = 20_000;
    // Test programs that follow one another begin elsewhere.
    let start = u16::try_from(std::process::id() % u32::from(RANGE)).unwrap_or_default();
    for _ in 0..RANGE / count {
        let next = start.wrapping_add(NEXT.fetch_add(count, Ordering::Relaxed));
        let first = FIRST + next % RANGE;
        let listeners: std::io::Result<Vec<_>> = (first..first + count)
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect();
        if listeners.is_ok() {
            return Ok(first);
        }
    }
    anyhow::bail!("no free port from {FIRST} to {}", FIRST + RANGE)
}
