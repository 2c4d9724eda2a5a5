//! Clients at work in the background, and what they report.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::{Pod, Process, clients, eventually};

/// How long a client may take to end after it was told to.
const END: Duration = Duration::from_secs(5);

/// One call or one new connection, as `grpc_load.py` and `connect_probe.py` report it.
#[derive(Clone, Debug, Deserialize)]
pub struct Call {
    /// Seconds since the Unix epoch.
    #[serde(rename = "t")]
    pub begun: f64,
    /// Milliseconds.
    #[serde(rename = "ms")]
    pub took: f64,
    pub ok: bool,
    /// Status of a gRPC call.
    #[serde(default)]
    pub code: String,
    /// What a connection failed of.
    #[serde(default)]
    pub error: String,
    pub endpoint: String,
    /// Address and port from which the call came to the endpoint, as far as the client reports it.
    #[serde(default)]
    peer: String,
    /// What the engine added on the way to the endpoint; empty when no engine stood between.
    request_id: String,
}

impl Call {
    pub fn ended(&self) -> f64 {
        self.begun + self.took / 1000.0
    }

    /// Whom the endpoint saw.
    pub fn peer_ip(&self) -> Option<std::net::IpAddr> {
        self.peer
            .parse::<std::net::SocketAddr>()
            .ok()
            .map(|peer| peer.ip())
    }

    pub fn by_derny(&self) -> bool {
        self.ok && !self.request_id.is_empty()
    }

    pub fn directly(&self) -> bool {
        self.ok && self.request_id.is_empty()
    }
}

/// The clock of [`Call::begun`].
pub fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// What makes the calls.
pub(crate) trait Client: std::fmt::Debug + Send {
    fn terminate(&mut self) -> Result<()>;
    /// Waits for its end, at most for `deadline`; whether it succeeded.
    fn wait(&mut self, deadline: Duration) -> Result<bool>;
}

impl Client for Process {
    fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    fn wait(&mut self, deadline: Duration) -> Result<bool> {
        Ok(Process::wait(self, deadline)?.success())
    }
}

/// A client that works until it is told to end.
#[derive(Debug)]
pub struct Load {
    client: Box<dyn Client>,
    calls: Arc<Mutex<Vec<Call>>>,
    reader: Option<JoinHandle<Result<()>>>,
}

impl Load {
    /// Unary calls over one gRPC channel that lives as long as the client, four at a time.
    pub fn grpc(pod: &Pod, target: &str) -> Result<Self> {
        Self::start(pod, "grpc_load.py", &["--target", target, "--rate", "1000"])
    }

    /// So many unary calls over one gRPC channel.
    pub fn grpc_calls(pod: &Pod, target: &str, calls: u32) -> Result<Self> {
        Self::start(
            pod,
            "grpc_load.py",
            &["--target", target, "--calls", &calls.to_string()],
        )
    }

    /// Unary calls as `grpc_load.py` makes them with these arguments.
    pub fn grpc_with(pod: &Pod, target: &str, arguments: &[&str]) -> Result<Self> {
        Self::start(pod, "grpc_load.py", &[&["--target", target], arguments].concat())
    }

    /// Requests over standing HTTP/1.1 connections, GET and POST in turn, as `http_load.py` makes them with these
    /// arguments.
    pub fn http(pod: &Pod, target: &str, arguments: &[&str]) -> Result<Self> {
        Self::start(pod, "http_load.py", &[&["--target", target], arguments].concat())
    }

    /// A new HTTP connection every 20 ms, given up after 0.4 s.
    pub fn connections(pod: &Pod, target: &str) -> Result<Self> {
        Self::start(pod, "connect_probe.py", &["--target", target])
    }

    fn start(pod: &Pod, script: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = clients::python(script)?;
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = pod.spawn(command)?;
        let stdout = process.child().stdout.take().context("stdout is piped")?;
        Ok(Self::of(process, BufReader::new(stdout).lines()))
    }

    /// Of a client that says `lines`, which end when it does.
    pub(crate) fn of(
        client: impl Client + 'static,
        lines: impl Iterator<Item = std::io::Result<String>> + Send + 'static,
    ) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&calls);
        let reader = thread::spawn(move || {
            for line in lines {
                let line = line.context("reading what a client says")?;
                // The summary adds nothing to the calls themselves.
                if !line.starts_with("{\"summary\"") {
                    let call =
                        serde_json::from_str(&line).with_context(|| format!("client said {line:?}"))?;
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push(call);
                }
            }
            Ok(())
        });
        Self {
            client: Box::new(client),
            calls,
            reader: Some(reader),
        }
    }

    /// How many calls have ended, and how many of those failed.
    pub fn counts(&self) -> (usize, usize) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        (calls.len(), calls.iter().filter(|call| !call.ok).count())
    }

    /// Waits until `wanted` has held for `count` calls of those that began after `since`.
    pub fn wait_for(
        &self,
        what: &str,
        count: usize,
        since: f64,
        deadline: Duration,
        wanted: impl Fn(&Call) -> bool,
    ) -> Result<()> {
        eventually(what, deadline, || {
            let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls
                .iter()
                .rev()
                .filter(|call| call.begun >= since && wanted(call))
                .count()
                >= count
        })
    }

    /// [`Load::end`] for a load of which no call may have failed.
    pub fn end_unharmed(self) -> Result<Vec<Call>> {
        self.end_with_all(|call| call.ok)
    }

    /// [`Load::end`] for a load whose calls must all be `good`.
    pub fn end_with_all(self, good: impl Fn(&Call) -> bool) -> Result<Vec<Call>> {
        let calls = self.end()?;
        let failed: Vec<_> = calls.iter().filter(|call| !good(call)).collect();
        let first = &failed[..failed.len().min(10)];
        anyhow::ensure!(
            failed.is_empty(),
            "{} of {} failed: {first:?}",
            failed.len(),
            calls.len()
        );
        Ok(calls)
    }

    /// Tells it to end, and returns all its calls.
    pub fn end(mut self) -> Result<Vec<Call>> {
        self.client.terminate()?;
        self.finish(END)
    }

    /// Waits until it has made all its calls.
    pub fn finish(mut self, deadline: Duration) -> Result<Vec<Call>> {
        let succeeded = self.client.wait(deadline)?;
        let reader = self.reader.take().context("the reader runs")?;
        reader
            .join()
            .map_err(|_| anyhow!("the reader of a client's calls panicked"))??;
        anyhow::ensure!(succeeded, "a client failed");
        Ok(std::mem::take(
            &mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}
