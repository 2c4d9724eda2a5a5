//! Calls by `derny-testc calls`, a process of a pod, and how they ended.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{Pod, Process, clients};

/// Longer than a call may take.
const DEADLINE: Duration = Duration::from_secs(40);

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http1,
    Http2,
    Grpc,
}

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Given by [`Caller::begin`].
    pub id: u64,
    /// `IP:PORT`.
    pub target: String,
    pub protocol: Protocol,
    /// gRPC is always POST.
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// Of an HTTP request; a gRPC request is one empty message.
    pub body_bytes: usize,
}

/// How it ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    pub id: u64,
    /// 0: no headers came.
    pub status: u16,
    /// In headers or in trailers.
    pub grpc_status: Option<u16>,
    /// The proxy says that it refused because a bound was reached.
    pub overloaded: bool,
    /// Milliseconds until the body had ended.
    pub took_ms: f64,
    /// Why there was no whole answer.
    pub error: Option<String>,
}

/// Answers that somebody waits for, by the call's id.
type Waiting = Arc<Mutex<HashMap<u64, Sender<Answer>>>>;

/// A caller in a pod, to be used by any number of threads. Dropping it ends the process.
#[derive(Debug)]
pub struct Caller {
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
    _process: Process,
}

impl Caller {
    pub fn start(pod: &Pod) -> Result<Self> {
        let mut command = clients::testc(["calls"])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = pod.spawn(command)?;
        let stdin = process.child().stdin.take().context("stdin is piped")?;
        let stdout = process.child().stdout.take().context("stdout is piped")?;
        let waiting = Waiting::default();
        let answers = Arc::clone(&waiting);
        // Ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str::<Answer>(&line) else {
                    continue;
                };
                let sender = lock(&answers).remove(&answer.id);
                // Whoever began the call may have given up.
                let _ = sender.map(|sender| sender.send(answer));
            }
        });
        Ok(Self {
            stdin: Mutex::new(stdin),
            waiting,
            next: AtomicU64::new(0),
            _process: process,
        })
    }

    /// Begins a call.
    pub fn begin(&self, call: &Call) -> Result<Begun> {
        let id = self.next.fetch_add(1, Relaxed);
        let (sender, receiver) = channel();
        lock(&self.waiting).insert(id, sender);
        let line = serde_json::to_string(&Call { id, ..call.clone() })? + "\n";
        let written = lock(&self.stdin).write_all(line.as_bytes());
        written.context("telling derny-testc")?;
        Ok(Begun(receiver))
    }

    /// A call to its end.
    pub fn call(&self, call: &Call) -> Result<Answer> {
        self.begin(call)?.end()
    }
}

/// A call under way.
#[derive(Debug)]
pub struct Begun(Receiver<Answer>);

impl Begun {
    pub fn end(self) -> Result<Answer> {
        self.0.recv_timeout(DEADLINE).context("no answer of derny-testc")
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
