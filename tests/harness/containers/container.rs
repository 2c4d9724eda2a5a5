use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    cri::{
        Cri,
        v1::{
            ContainerState, ContainerStatus, ContainerStatusRequest, ExecSyncRequest, RemoveContainerRequest,
            StopContainerRequest,
        },
    },
    programs,
};
use crate::observe::eventually;

/// The runtime notices the end of a process within this.
const NOTICED: Duration = Duration::from_secs(20);
/// A program that is run in a container may take so long.
const EXEC: Duration = Duration::from_secs(30);

/// A container that was started. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Container {
    cri: Arc<Cri>,
    id: String,
    log: PathBuf,
}

impl Container {
    pub(super) fn new(cri: Arc<Cri>, id: String, log: PathBuf) -> Self {
        Self { cri, id, log }
    }

    /// SIGTERM, and SIGKILL after `grace`; returns when it has ended.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        let request = StopContainerRequest {
            container_id: self.id.clone(),
            timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
        };
        self.cri.call("stopping a container", |mut cri| async move {
            cri.stop_container(request).await
        })?;
        Ok(())
    }

    /// `kill -9` of its first process, as when it crashes; returns when the runtime knows.
    pub fn kill9(&self) -> Result<()> {
        let pid = Pid::from_raw(self.pid()?);
        kill(pid, Signal::SIGKILL).context("killing a container")?;
        eventually("the container has ended", NOTICED, || {
            matches!(self.exit_code(), Ok(Some(_)))
        })
    }

    /// Its first process, by the machine's number.
    pub fn pid(&self) -> Result<i32> {
        let (_, info) = self.status()?;
        let info: serde_json::Value = serde_json::from_str(&info).context("what containerd knows")?;
        let pid = info["pid"].as_i64().filter(|pid| *pid > 0);
        Ok(i32::try_from(pid.context("a container without a process")?)?)
    }

    /// `None` while it runs.
    pub fn exit_code(&self) -> Result<Option<i32>> {
        let (status, _) = self.status()?;
        match status.state() {
            ContainerState::ContainerExited => Ok(Some(status.exit_code)),
            ContainerState::ContainerUnknown => bail!("containerd does not know how the container is"),
            _ => Ok(None),
        }
    }

    fn status(&self) -> Result<(ContainerStatus, String)> {
        let request = ContainerStatusRequest {
            container_id: self.id.clone(),
            verbose: true,
        };
        let mut answer = self.cri.call("asking for a container", |mut cri| async move {
            cri.container_status(request).await
        })?;
        let status = answer.status.context("a container without a status")?;
        Ok((status, answer.info.remove("info").unwrap_or_default()))
    }

    /// Takes it away when it has ended.
    pub fn remove(self) -> Result<()> {
        let request = RemoveContainerRequest {
            container_id: self.id,
        };
        self.cri.call("removing a container", |mut cri| async move {
            cri.remove_container(request).await
        })?;
        Ok(())
    }

    /// Runs a program beside the first process; what it printed. It must succeed.
    pub fn exec(&self, command: &Command) -> Result<String> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: programs::words(command),
            timeout: i64::try_from(EXEC.as_secs())?,
        };
        let answer = self
            .cri
            .call("running a program in a container", |mut cri| async move {
                cri.exec_sync(request).await
            })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if answer.exit_code != 0 {
            let said = [text(&answer.stdout), text(&answer.stderr)].concat();
            bail!("{command:?} ended with {}: {said}", answer.exit_code);
        }
        Ok(text(&answer.stdout))
    }

    /// Where the runtime writes what the container says.
    pub(super) fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has said so far.
    pub fn said(&self, stream: Stream) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines = log.lines().map(said).filter(|(of, _)| *of == stream);
        lines.flat_map(|(_, line)| [line, "\n"]).collect()
    }
}

/// Where a container says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Error,
}

/// What was said in a line of a container's log: `TIME STREAM F TEXT`.
/// <https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>
pub(super) fn said(line: &str) -> (Stream, &str) {
    let mut fields = line.splitn(4, ' ').skip(1);
    let stream = match fields.next() {
        Some("stderr") => Stream::Error,
        _ => Stream::Out,
    };
    (stream, fields.nth(1).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_what_was_said() {
        assert_eq!(
            said("2026-01-01T00:00:00.1Z stdout F a line"),
            (Stream::Out, "a line")
        );
        assert_eq!(said("2026-01-01T00:00:00.1Z stderr F "), (Stream::Error, ""));
    }
}
