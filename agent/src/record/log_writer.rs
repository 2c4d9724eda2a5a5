//! The thread that writes access lines. It alone waits for the sink, and while it waits it still opens the sink anew.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    access_log::AccessLog,
    hub::WorkerShard,
    log_queue::{Batch, Level, Message, Queue},
};

/// How long the thread waits for a sink that takes nothing before it looks whether it should open it anew.
const PATIENCE_MS: u16 = 50;
/// What a pipe that poll(2) calls writable takes without waiting: PIPE_BUF of pipe(7).
const PIPE_BUF: usize = 4096;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    Off,
    Stdout,
    /// Appended to; opened anew on [`Writer::reopen`], for log rotation.
    File(PathBuf),
}

/// What the access log may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes of lines that wait for the sink, of all pods.
    pub queue: usize,
    /// Bytes of one value of a line; longer ones are cut.
    pub field: usize,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self {
            queue: 8 << 20,
            field: 1024,
        }
    }
}

/// What has become of the lines that were handed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSample {
    pub written: u64,
    /// The sink refused them.
    pub lost: u64,
}

/// The process's end.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: Option<Queue>,
    bounds: LogBounds,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    reopen: AtomicBool,
    written: AtomicU64,
    lost: AtomicU64,
}

impl Writer {
    /// Opens the sink and starts the thread, which holds `alive` until it ends.
    pub fn start(sink: Sink, bounds: LogBounds, alive: impl Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let off = Self {
            queue: None,
            bounds,
            shared: shared.clone(),
        };
        let (outlet, path) = match sink {
            Sink::Off => return Ok(off),
            Sink::Stdout => (Outlet::stdout()?, None),
            Sink::File(path) => (Outlet::append(&path)?, Some(path)),
        };
        let (queue, messages) = Queue::new(bounds.queue);
        let mut writing = Writing {
            outlet,
            path,
            level: queue.level(),
            shared,
        };
        std::thread::Builder::new()
            .name("derny-log".into())
            .spawn(move || {
                let _alive = alive;
                writing.run(&messages);
            })?;
        Ok(Self {
            queue: Some(queue),
            ..off
        })
    }

    /// Opens the file again, after it was renamed. Does not wait.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue
            && !self.shared.reopen.swap(true, Relaxed)
        {
            queue.send(Message::Wake);
        }
    }

    /// Waits until what was handed on has been written, at most `deadline`.
    pub fn flush(&self, deadline: Duration) {
        let (done, written) = sync_channel(1);
        if let Some(queue) = &self.queue {
            queue.send(Message::Flush(done));
            let _ = written.recv_timeout(deadline);
        }
    }

    pub fn sample(&self) -> LogSample {
        LogSample {
            written: self.shared.written.load(Relaxed),
            lost: self.shared.lost.load(Relaxed),
        }
    }

    pub(super) fn worker(&self, counters: Arc<WorkerShard>) -> AccessLog {
        AccessLog::new(self.queue.clone(), self.bounds.field, counters)
    }
}

/// The thread's state.
struct Writing {
    outlet: Outlet,
    /// `None` for what cannot be opened anew.
    path: Option<PathBuf>,
    level: Arc<Level>,
    shared: Arc<Shared>,
}

impl Writing {
    fn run(&mut self, messages: &Receiver<Message>) {
        for message in messages {
            self.reopen_if_asked();
            match message {
                Message::Lines(batch) => {
                    self.write(&batch);
                    self.level.left(&batch);
                }
                Message::Wake => {}
                Message::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn write(&mut self, batch: &Batch) {
        let bytes = &batch.bytes;
        let mut at = 0;
        while at < bytes.len() {
            if self.reopen_if_asked() {
                // A line that the old file has a part of goes to the new one whole.
                at = line_start(bytes, at);
            }
            match self.outlet.write_some(&bytes[at..]) {
                Ok(n) => {
                    self.shared.written.fetch_add(lines(&bytes[at..at + n]), Relaxed);
                    at += n;
                }
                Err(error) => {
                    let lost = lines(&bytes[at..]);
                    self.shared.lost.fetch_add(lost, Relaxed);
                    self.outlet.broken_line |= at != line_start(bytes, at);
                    tracing::warn!(%error, lines = lost, "access log: lines lost");
                    return;
                }
            }
        }
    }

    /// Whether there is a new file.
    fn reopen_if_asked(&mut self) -> bool {
        if !self.shared.reopen.swap(false, Relaxed) {
            return false;
        }
        let Some(path) = &self.path else { return false };
        match Outlet::append(path) {
            Ok(outlet) => {
                self.outlet = outlet;
                true
            }
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "access log: not reopened");
                false
            }
        }
    }
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn line_start(bytes: &[u8], at: usize) -> usize {
    memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |end| end + 1)
}

/// Something to write to.
struct Outlet {
    file: File,
    /// A regular file never says that it would have to wait.
    regular: bool,
    /// Its last line is not whole: a write failed in the middle of it.
    broken_line: bool,
}

impl Outlet {
    fn new(file: File) -> io::Result<Self> {
        let regular = file.metadata()?.file_type().is_file();
        Ok(Self {
            file,
            regular,
            broken_line: false,
        })
    }

    fn stdout() -> io::Result<Self> {
        Self::new(io::stdout().as_fd().try_clone_to_owned()?.into())
    }

    /// Does not wait for the reader of a named pipe: without one it fails.
    fn append(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        Self::new(file)
    }

    /// How much was written: nothing when the sink takes nothing at the moment.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.regular && !writable(self.file.as_fd()) {
            return Ok(0);
        }
        if self.broken_line {
            self.file.write_all(b"\n")?;
            self.broken_line = false;
        }
        let most = if self.regular {
            bytes.len()
        } else {
            bytes.len().min(PIPE_BUF)
        };
        match self.file.write(&bytes[..most]) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => Ok(n),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}

fn writable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    // An error or a hang-up is for the write to find.
    poll(&mut fds, PollTimeout::from(PATIENCE_MS)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, time::Duration};

    use nix::{sys::stat::Mode, unistd::mkfifo};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        model::PodName,
        record::log_queue::{Part, Share},
    };

    const SOON: Duration = Duration::from_secs(10);

    fn batch(text: &str, share: &Arc<Share>) -> Batch {
        Batch {
            bytes: text.into(),
            parts: vec![Part {
                share: share.clone(),
                bytes: text.len(),
            }],
        }
    }

    fn start(path: &Path) -> (Writer, Arc<Share>) {
        let writer = Writer::start(Sink::File(path.to_owned()), LogBounds::default(), ()).unwrap();
        let share = writer.queue.as_ref().unwrap().share(&PodName {
            namespace: "demo".into(),
            name: "web".into(),
        });
        (writer, share)
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_lost_and_not_written() {
        let (writer, share) = start(Path::new("/dev/full"));
        writer.queue.as_ref().unwrap().push(batch("a\nb\n", &share));
        writer.flush(SOON);
        assert_eq!(writer.sample(), LogSample { written: 0, lost: 2 });
        assert!(
            writer
                .queue
                .as_ref()
                .unwrap()
                .has_room(&share, LogBounds::default().queue - 1)
        );
    }

    #[test]
    fn a_stuck_pipe_keeps_nobody_from_opening_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        // Kept open so that there is a reader, and not read.
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let (writer, share) = start(&path);
        let queue = writer.queue.as_ref().unwrap();
        let line = "x".repeat(999) + "\n";
        queue.push(batch(&line.repeat(200), &share));
        let begun = Instant::now();
        let stuck = || writer.sample().written > 0;
        while !stuck() {
            assert!(begun.elapsed() < SOON);
            std::thread::yield_now();
        }
        let begun = Instant::now();
        writer.flush(Duration::from_millis(10));
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the end of the process does not wait"
        );

        fs::rename(&path, directory.path().join("old")).unwrap();
        writer.reopen();
        writer.flush(SOON);
        let mut piped = Vec::new();
        let _ = reader.read_to_end(&mut piped);
        let new = fs::read_to_string(&path).unwrap();
        assert!(new.lines().all(|l| l.len() == 999), "each line is whole");
        assert_eq!(lines(&piped) + lines(new.as_bytes()), 200);
        assert_eq!(
            writer.sample(),
            LogSample {
                written: 200,
                lost: 0
            }
        );
    }
}
