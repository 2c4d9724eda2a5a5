//! A runtime on a thread of its own: tests are not asynchronous, their clients are.

use anyhow::{Context, Result};
use tokio::{runtime::Handle, sync::oneshot};

#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
}

impl Background {
    pub(crate) fn start() -> Result<Self> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime")?;
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(ended));
        Ok(Self { handle, _end: end })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `work` to its end, on any thread but the runtime's own.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }
}
