//! What the kernel programs have to say, when they are asked to.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::InterceptError;

/// How long the thread may take to notice that it should end.
const POLL_MS: u8 = 200;

/// A thread that passes the programs' records on to the agent's log. Ends when dropped.
pub(super) struct KernelLog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KernelLog {
    pub(super) fn start(programs: &mut Ebpf) -> Result<Self, InterceptError> {
        let unreadable = |reason: String| InterceptError::Log { reason };
        let mut records = EbpfLogger::init_with_logger(programs, ToTracing)
            .map_err(|error| unreadable(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                // Interrupted or timed out: look again.
                let _ = poll(
                    &mut [PollFd::new(records.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::from(POLL_MS),
                );
                records.flush();
            }
        };
        let thread = thread::Builder::new()
            .name("derny-bpf-log".into())
            .spawn(run)
            .map_err(|error: io::Error| unreadable(error.to_string()))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// aya-log speaks to the `log` crate; the agent's log is `tracing`'s.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (program, text) = (record.target(), record.args());
        match record.level() {
            Level::Error => tracing::error!(target: "derny::kernel", program, "{text}"),
            Level::Warn => tracing::warn!(target: "derny::kernel", program, "{text}"),
            Level::Info => tracing::info!(target: "derny::kernel", program, "{text}"),
            Level::Debug => tracing::debug!(target: "derny::kernel", program, "{text}"),
            Level::Trace => tracing::trace!(target: "derny::kernel", program, "{text}"),
        }
    }

    fn flush(&self) {}
}
