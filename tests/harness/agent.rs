//! The agent under test: `derny run` in a node's network namespace.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::{
    config::{self, Config},
    http_get::http_get,
    node::{Host, Node},
    observe::{Metrics, eventually_some},
    process::{Output, Process, capture, cpu_time},
};

/// Where the agent answers `/metrics`, `/livez` and `/readyz` in the node's network namespace.
pub const HTTP_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15020);

/// Where it answers `/livez` and `/readyz` alone.
pub const PROBE_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15021);

const READY_DEADLINE: Duration = Duration::from_secs(15);
/// How long what has happened may take to show in the log and the metrics.
const SEEN_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub config: Config,
    pub workers: u32,
    /// The agent's own control group; `None` puts it outside the pods'.
    pub cgroup: Option<PathBuf>,
    /// More arguments of `derny run`.
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A program with arguments that becomes the agent, such as `setpriv`; empty for none.
    pub under: Vec<String>,
    /// The agent's program, where that is not the one built beside this.
    pub program: Option<PathBuf>,
}

impl AgentOptions {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            workers: 1,
            cgroup: None,
            arguments: Vec::new(),
            // Tests stop agents, and machines under test are slow: those of the watchdog say otherwise.
            environment: vec![("DERNY_HANG_TIMEOUT".to_owned(), "0s".to_owned())],
            under: Vec::new(),
            program: None,
        }
    }
}

/// Root with these capabilities and no other, as container runtimes make it: what the agent is put under.
pub fn only(capabilities: &[String]) -> Vec<String> {
    let bounding = capabilities
        .iter()
        .map(|name| format!(",+{name}"))
        .collect::<String>();
    [
        "setpriv",
        &format!("--bounding-set=-all{bounding}"),
        "--inh-caps=-all",
        "--ambient-caps=-all",
    ]
    .map(str::to_owned)
    .into()
}

/// A running agent. Dropping it kills it; its files stay with the node.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    options: AgentOptions,
    /// `None` between [`Agent::kill9`] and [`Agent::start_again`].
    process: Option<Process>,
}

impl Agent {
    /// Starts it and waits until it says that it is ready.
    pub fn start(node: &Node, options: AgentOptions) -> Result<Self> {
        let mut agent = Self {
            host: node.host().clone(),
            options,
            process: None,
        };
        agent.options.config.write(&agent.config_path())?;
        agent.start_again()?;
        Ok(agent)
    }

    /// Starts it once more on the same files, after [`Agent::kill9`] or [`Agent::terminate`].
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .with_context(|| format!("opening {}", self.log_path().display()))?;
        let mut command = self.program()?;
        command
            .arg("run")
            .arg("--config")
            .arg(self.config_path())
            .arg("--cgroup")
            .arg(self.host.kubepods())
            .arg("--admin-socket")
            .arg(self.socket_path())
            .args(["--http-address", &HTTP_ADDRESS.to_string()])
            .args(["--probe-address", &PROBE_ADDRESS.to_string()])
            .args(["--workers", &self.options.workers.to_string()])
            .arg("--access-log")
            .arg(self.access_log_path())
            .args(&self.options.arguments)
            .envs(self.options.environment.iter().map(|(key, value)| (key, value)))
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().context("cloning the log")?)
            .stderr(log);
        let mut process = match &self.options.cgroup {
            Some(cgroup) => self.host.spawn_in(cgroup, command),
            None => self.host.spawn(command),
        }?;
        let ready = eventually_some("the agent is ready", READY_DEADLINE, || match process.exited() {
            Ok(Some(status)) => Some(Err(status)),
            _ => matches!(self.get("/readyz"), Ok((200, _))).then_some(Ok(())),
        });
        match ready {
            Ok(Ok(())) => {
                self.process = Some(process);
                Ok(())
            }
            Ok(Err(status)) => bail!("the agent ended at once with {status}:\n{}", self.log()),
            Err(error) => Err(error).with_context(|| format!("the agent said:\n{}", self.log())),
        }
    }

    /// The agent's, under what the options put it.
    fn program(&self) -> Result<Command> {
        let derny = self.options.program.clone().map_or_else(derny, Ok)?;
        Ok(match self.options.under.split_first() {
            None => Command::new(derny),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(derny);
                command
            }
        })
    }

    pub fn id(&self) -> Result<u32> {
        Ok(self.running()?.id())
    }

    /// `kill -9`; returns when it is gone.
    pub fn kill9(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.kill9()?;
        Ok(())
    }

    /// SIGTERM, and its exit status when that comes within `deadline`.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.signal(Signal::SIGTERM)?;
        process.wait(deadline)
    }

    /// Hangs it as a debugger does.
    pub fn stop(&mut self) -> Result<()> {
        self.process
            .as_mut()
            .context("the agent does not run")?
            .signal(Signal::SIGSTOP)
    }

    /// Hangs one thread of it, until the calling thread ends.
    pub fn stop_thread(&self, name: &str) -> Result<()> {
        crate::process::stop_thread(self.id()?, name)
    }

    /// Lets it go on after [`Agent::stop`].
    pub fn cont(&mut self) -> Result<()> {
        self.process
            .as_mut()
            .context("the agent does not run")?
            .signal(Signal::SIGCONT)
    }

    /// Puts another configuration in place and sends SIGHUP. Does not wait: what changes is for the caller to see.
    pub fn reload(&mut self, config: Config) -> Result<()> {
        self.options.config = config;
        let text = self.options.config.to_yaml()?;
        self.reload_text(&text)
    }

    /// Like [`Agent::reload`], with any text.
    pub fn reload_text(&mut self, text: &str) -> Result<()> {
        config::write_whole(&self.config_path(), text)?;
        self.process
            .as_mut()
            .context("the agent does not run")?
            .signal(Signal::SIGHUP)
    }

    /// What it was last told.
    pub fn config(&self) -> &Config {
        &self.options.config
    }

    pub fn metrics(&self) -> Result<Metrics> {
        let (status, page) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics answered {status}: {page}");
        Metrics::parse(&page)
    }

    /// Status and body of a GET on the agent's HTTP address.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http_get(&self.host, HTTP_ADDRESS, path)
    }

    /// Status and body of a GET on the address of probes.
    pub fn probe(&self, path: &str) -> Result<(u16, String)> {
        http_get(&self.host, PROBE_ADDRESS, path)
    }

    /// All complete lines of the access log so far.
    pub fn access_log(&self) -> Result<Vec<serde_json::Value>> {
        let text = match fs::read_to_string(self.access_log_path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.context("reading the access log")?,
        };
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("access line {line:?}")))
            .collect()
    }

    /// Waits for a line of the access log that is as `wanted` says.
    pub fn access_line(
        &self,
        what: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<serde_json::Value> {
        eventually_some(&format!("an access line of {what}"), SEEN_DEADLINE, || {
            self.access_log().ok()?.into_iter().find(&wanted)
        })
    }

    /// Waits until the sum of `name` over all series with `labels` is as `wanted` says, and returns it.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let mut last = None;
        let found = eventually_some(&format!("{name}{labels:?} as wanted"), SEEN_DEADLINE, || {
            let sum = self.metrics().ok()?.sum(name, labels);
            last = Some(sum);
            wanted(sum).then_some(sum)
        });
        found.with_context(|| format!("it was {last:?} last"))
    }

    /// Resident memory in bytes (proc(5), `VmRSS`).
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?)).context("reading status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .context("no VmRSS")?;
        Ok(kib * 1024)
    }

    /// CPU time of all its threads since its start.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_time(self.id()?)
    }

    /// Sends a signal, for the caller to see what comes of it.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process
            .as_mut()
            .context("the agent does not run")?
            .signal(signal)
    }

    /// Waits for the end of an agent that was told to end.
    pub fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let status = self
            .process
            .as_mut()
            .context("the agent does not run")?
            .wait(deadline)?;
        self.process = None;
        Ok(status)
    }

    /// Runs `derny --admin-socket … <arguments>` in the node.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(derny()?);
        command
            .arg("--admin-socket")
            .arg(self.socket_path())
            .args(arguments);
        capture(&mut command);
        self.host.spawn(command)?.output(Duration::from_secs(10))
    }

    /// [`Agent::cli`] with `-o json`, which must succeed.
    pub fn cli_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        let text = self.cli(&arguments)?.success()?;
        serde_json::from_str(&text).with_context(|| format!("derny {arguments:?} said {text:?}"))
    }

    /// Requests that are under way at an endpoint.
    pub fn in_flight(&self, address: &str) -> Result<u64> {
        let endpoints = self.cli_json(&["endpoints"])?;
        let uses = (endpoints.as_array().into_iter().flatten())
            .filter(|endpoint| endpoint["address"] == address)
            .filter_map(|endpoint| endpoint["uses"].as_array())
            .flatten();
        Ok(uses.filter_map(|one| one["inFlight"].as_u64()).sum())
    }

    /// What it wrote to its output and error streams.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn config_path(&self) -> PathBuf {
        self.host.run_directory().join("derny.yaml")
    }

    pub fn socket_path(&self) -> PathBuf {
        self.host.run_directory().join("admin.sock")
    }

    pub fn access_log_path(&self) -> PathBuf {
        self.host.run_directory().join("access.log")
    }

    fn log_path(&self) -> PathBuf {
        self.host.run_directory().join("agent.log")
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the agent does not run")
    }
}

/// `derny config check` on a file.
pub fn config_check(path: &Path) -> Result<Output> {
    let mut command = Command::new(derny()?);
    command.args(["config", "check"]).arg(path);
    capture(&mut command);
    Process::spawn(command)?.output(Duration::from_secs(10))
}

/// The agent's binary: `DERNY_BIN`, else the one built beside this program.
pub fn derny() -> Result<PathBuf> {
    binary("DERNY_BIN", "derny")
}

/// A program of this workspace: what the variable says, else beside the running one (tests run from `deps/`).
pub(crate) fn binary(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let running = std::env::current_exe().context("finding the running program")?;
    running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no {name} beside {}: build it with `cargo xtask build`",
                running.display()
            )
        })
}
