//! The server under the agent: `derny-testd`, one per pod.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{agent::binary, pod::Pod, process::Process};

/// Ports of every server, unless the options say otherwise.
pub const HTTP_PORT: u16 = 8080;
pub const TCP_PORT: u16 = 9000;
pub const GREET_PORT: u16 = 3306;

#[derive(Clone, Debug, Default)]
pub struct TestdOptions {
    /// SETTINGS_MAX_CONCURRENT_STREAMS; `None` leaves the server's default.
    pub max_concurrent_streams: Option<u32>,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// A running server, named after its pod. Dropping it kills it.
#[derive(Debug)]
pub struct Testd {
    process: Process,
}

impl Testd {
    /// Returns when all its ports listen.
    pub fn start(pod: &Pod) -> Result<Self> {
        Self::start_with(pod, &TestdOptions::default())
    }

    pub fn start_with(pod: &Pod, options: &TestdOptions) -> Result<Self> {
        let log = File::options().create(true).append(true).open(pod.log_path());
        let mut command = Command::new(binary("DERNY_TESTD_BIN", "derny-testd")?);
        command
            .args(["--name", pod.name()])
            .args(["--http", &HTTP_PORT.to_string()])
            .args(["--tcp", &TCP_PORT.to_string()])
            .args(["--greet", &GREET_PORT.to_string()])
            .args(&options.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.with_context(|| format!("opening {}", pod.log_path().display()))?);
        if let Some(streams) = options.max_concurrent_streams {
            command.args(["--max-concurrent-streams", &streams.to_string()]);
        }
        let mut process = pod.spawn(command)?;
        let stdout = process.child().stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("reading what derny-testd says")?;
        if !line.starts_with("listening") {
            let said = fs::read_to_string(pod.log_path()).unwrap_or_default();
            bail!("derny-testd in {} did not start: {said}", pod.name());
        }
        Ok(Self { process })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`; returns when it is gone.
    pub fn kill9(mut self) -> Result<()> {
        self.process.kill9()?;
        Ok(())
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
