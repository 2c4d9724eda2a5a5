//! A process that the harness started: wait with a deadline, signal; killed when dropped.

use std::{
    fs,
    io::Read,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// CPU time of all threads of a process since its start (proc(5), `schedstat`).
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos: u64 = stat
            .split_whitespace()
            .next()
            .context("an empty schedstat")?
            .parse()?;
        total += nanos;
    }
    Ok(Duration::from_nanos(total))
}

/// What a program that ran to its end said.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its standard output, or an error with everything that it said when it failed.
    pub fn success(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!("{}\n{}{}", self.status, self.stdout, self.stderr)
    }
}

/// A running program. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Process {
    program: String,
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    pub fn spawn(mut command: Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        // Ctrl-C at the terminal is for the harness, which then ends its processes.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("starting {program}"))?;
        let pidfd = open_pidfd(child.id()).with_context(|| format!("pidfd of {program}"))?;
        Ok(Self {
            program,
            child,
            pidfd,
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The pipes, when the command asked for them.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// `None` while it runs.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("asking for {}", self.program))
    }

    /// Sends a signal; to a process that has ended, nothing.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(i32::try_from(self.id()).context("process id")?);
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.program))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.child
            .wait()
            .with_context(|| format!("waiting for {}", self.program))
    }

    /// Waits for its end; an error when it still runs after `deadline` (and it goes on running).
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let milliseconds = i32::try_from(deadline.as_millis()).unwrap_or(i32::MAX);
        let mut poll = libc::pollfd {
            fd: self.pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, and that is what the count says.
        let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        if ready == 0 {
            bail!("{} still runs after {deadline:?}", self.program);
        }
        self.child
            .wait()
            .with_context(|| format!("waiting for {}", self.program))
    }

    /// Everything it says up to its end, which must come within `deadline`. Its output must be piped.
    pub fn output(mut self, deadline: Duration) -> Result<Output> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        thread::scope(|scope| {
            let stdout = scope.spawn(|| read_all(stdout));
            let stderr = scope.spawn(|| read_all(stderr));
            let status = match self.wait(deadline) {
                Ok(status) => Ok(status),
                // The readers end only when the pipes do.
                Err(error) => self.kill9().and(Err(error)),
            };
            let text = |reader: thread::ScopedJoinHandle<'_, String>| reader.join().unwrap_or_default();
            let (stdout, stderr) = (text(stdout), text(stderr));
            let status = status.with_context(|| format!("it said:\n{stdout}{stderr}"))?;
            Ok(Output {
                status,
                stdout,
                stderr,
            })
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pipes both outputs, for [`Process::output`].
pub(crate) fn capture(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn open_pidfd(pid: u32) -> Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid)?;
    // SAFETY: takes two numbers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(Errno::last().into());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

/// Whether it was ended by this signal.
pub fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal as i32)
}

/// Hangs the thread of this name of a process, as a debugger does, until the process is killed.
pub(crate) fn stop_thread(process: u32, name: &str) -> Result<()> {
    let tasks = format!("/proc/{process}/task");
    let mut found = None;
    for task in fs::read_dir(&tasks).context(tasks)? {
        let task = task?;
        if fs::read_to_string(task.path().join("comm"))?.trim_end() == name {
            found = Some(task.file_name().to_string_lossy().parse::<libc::pid_t>()?);
        }
    }
    let task = found.with_context(|| format!("process {process} has no thread {name}"))?;
    let (tell, told) = std::sync::mpsc::channel();
    // Whoever traces is the one to be told of the end, without which the process is not gone for anybody.
    thread::spawn(move || {
        let seized = [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT]
            .iter()
            .all(|request| {
                // SAFETY: neither request reads or writes memory of this process.
                unsafe { libc::ptrace(*request, task, 0, 0) == 0 }
            });
        let _ = tell.send(seized.then_some(()).ok_or_else(std::io::Error::last_os_error));
        let mut status = 0;
        // SAFETY: the pointer is to a value that lives until the call has returned.
        while seized && unsafe { libc::waitpid(task, &raw mut status, libc::__WALL) } == task {
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                return;
            }
        }
    });
    told.recv()?.with_context(|| format!("stopping thread {name}"))
}
