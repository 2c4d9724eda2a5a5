//! The load: h2load on one core, saturating or at a steady thousand requests per second.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use derny_tests::pod::Pod;

/// The proxy's core, and everybody else's.
pub(crate) const PROXY: &str = "0";
pub(crate) const WORLD: &str = "1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Grpc,
}

pub(crate) const PROTOCOLS: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::Grpc];

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1, 32",
            Self::Http2 => "HTTP/2, 16×4",
            Self::Grpc => "gRPC unary, 16×4",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Http1 => &["--h1", "-c", "32"],
            Self::Http2 => &["-c", "16", "-m", "4"],
            Self::Grpc => &[
                "-c",
                "16",
                "-m",
                "4",
                "-H",
                "content-type: application/grpc",
                "-H",
                "te: trailers",
            ],
        }
    }

    fn connections(self) -> u32 {
        match self {
            Self::Http1 => 32,
            Self::Http2 | Self::Grpc => 16,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pace {
    Saturated,
    /// A thousand requests per second, as most services see at most.
    Paced,
}

impl Pace {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::Paced => "at 1,000/s",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    pub(crate) pace: Pace,
    /// `address:port` that the client calls.
    pub(crate) target: String,
}

impl Load {
    /// Opens connections and fills caches on the way, so that the measured run meets a warm proxy.
    pub(crate) fn warm_up(&self, client: &Pod) -> Result<()> {
        self.h2load(client, Pace::Saturated, 2_000).map(drop)
    }

    /// Runs the load; how many requests succeeded.
    pub(crate) fn run(&self, client: &Pod) -> Result<f64> {
        let requests = match self.pace {
            Pace::Saturated => 60_000,
            Pace::Paced => 4_000,
        };
        self.h2load(client, self.pace, requests)
    }

    fn h2load(&self, client: &Pod, pace: Pace, requests: u32) -> Result<f64> {
        let mut command = Command::new("taskset");
        command
            .args(["-c", WORLD, "h2load", "-t", "1"])
            .args(self.protocol.arguments());
        command.args(["-n", &requests.to_string()]);
        if pace == Pace::Paced {
            // Of each client; rounded up, so that the sum is a little over a thousand.
            command.args([
                "--rps",
                &(1_000_u32.div_ceil(self.protocol.connections())).to_string(),
            ]);
        }
        let path = match self.protocol {
            Protocol::Http1 | Protocol::Http2 => "/bytes/128",
            Protocol::Grpc => {
                // An empty message: the five bytes of a frame that has none.
                let body = std::env::temp_dir().join(format!("derny-bench-{}", std::process::id()));
                std::fs::write(&body, [0; 5]).context("writing the request body")?;
                command.arg("-d").arg(&body);
                "/derny.test.v1.Echo/Unary"
            }
        };
        command.arg(format!("http://{}{path}", self.target));
        let output = client.run(command)?.success()?;
        let line = output
            .lines()
            .find(|line| line.starts_with("requests:"))
            .context("h2load's summary")?;
        // requests: 100 total, 100 started, 100 done, 100 succeeded, 0 failed, 0 errored, 0 timeout
        let succeeded = line.split(", ").find_map(|part| part.strip_suffix(" succeeded"));
        let succeeded: u32 = succeeded
            .context("no number of successes")?
            .parse()
            .context("successes")?;
        ensure!(succeeded == requests, "{}: {line}", self.target);
        Ok(f64::from(succeeded))
    }
}

/// Binds a process and its threads to a core.
pub(crate) fn pin(pid: u32, core: &str) -> Result<()> {
    let mut taskset = Command::new("taskset");
    taskset.args(["-a", "-c", "-p", core, &pid.to_string()]);
    succeeds(taskset, "util-linux")
}

/// Lets everybody else on its core go before a process and its threads.
pub(crate) fn go_last(pid: u32) -> Result<()> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    let mut renice = Command::new("renice");
    renice.args(["-n", "19", "-p"]).args(&threads);
    succeeds(renice, "bsdutils")
}

fn succeeds(mut command: Command, package: &str) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} (package {package})"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
