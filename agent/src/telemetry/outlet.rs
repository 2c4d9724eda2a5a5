//! Lines on their way to stderr. Whoever logs never waits for who reads them.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait; further lines are dropped and counted.
const QUEUED_BYTES: usize = 1 << 20;
/// What a waiting line takes beside its text. An upper bound.
const LINE_BYTES: usize = 64;

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it has been written.
    Flush(SyncSender<()>),
}

/// What whoever logs writes to; one for the process.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    /// Unbounded as such: the bytes in it are bounded.
    messages: Sender<Message>,
    numbers: Arc<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    queued: AtomicUsize,
    dropped: AtomicU64,
}

impl Outlet {
    pub(super) fn new() -> (Self, Lines) {
        let (messages, receiver) = channel();
        let numbers = Arc::<Numbers>::default();
        let lines = Lines {
            messages: receiver,
            numbers: numbers.clone(),
        };
        (Self { messages, numbers }, lines)
    }

    pub(super) fn flush(&self, deadline: Duration) {
        let (done, written) = sync_channel(1);
        if self.messages.send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(deadline);
        }
    }

    /// Lines that nobody took in time.
    pub(super) fn dropped(&self) -> u64 {
        self.numbers.dropped.load(Relaxed)
    }
}

/// A whole line at a time, as `tracing_subscriber` writes them.
impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let weight = line.len() + LINE_BYTES;
        let queued = self.numbers.queued.fetch_add(weight, Relaxed);
        if queued + weight > QUEUED_BYTES || self.messages.send(Message::Line(line.to_vec())).is_err() {
            self.numbers.queued.fetch_sub(weight, Relaxed);
            self.numbers.dropped.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The end of the thread that writes.
#[derive(Debug)]
pub(super) struct Lines {
    messages: Receiver<Message>,
    numbers: Arc<Numbers>,
}

impl Lines {
    /// Until the process ends. Says how many lines were dropped when lines can be written again.
    pub(super) fn write_to(&self, mut out: impl Write) {
        let mut told = 0;
        for message in &self.messages {
            match message {
                Message::Line(line) => {
                    // To whom should it be said that nobody can be told?
                    let _ = out.write_all(&line).and_then(|()| out.flush());
                    self.numbers.queued.fetch_sub(line.len() + LINE_BYTES, Relaxed);
                }
                Message::Flush(done) => drop(done.send(())),
            }
            let dropped = self.numbers.dropped.load(Relaxed);
            if dropped > told && self.numbers.queued.load(Relaxed) == 0 {
                tracing::warn!(
                    lines = dropped - told,
                    "lines of this log were dropped: nobody took them in time"
                );
                told = dropped;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_dropped_is_counted() {
        let (outlet, lines) = Outlet::new();
        let line = [b'x'; 1000];
        for _ in 0..2000 {
            outlet.clone().write_all(&line).unwrap();
        }
        let kept = QUEUED_BYTES / (1000 + LINE_BYTES);
        assert_eq!(outlet.dropped(), 2000 - kept as u64);
        // The thread ends with the last outlet.
        drop(outlet);
        let mut written = Vec::new();
        lines.write_to(&mut written);
        assert_eq!(written.len(), kept * 1000);
    }

    #[test]
    fn a_flush_waits_for_lines_and_no_longer_than_it_may() {
        let (outlet, lines) = Outlet::new();
        outlet.clone().write_all(b"last words\n").unwrap();
        outlet.flush(Duration::from_millis(10));
        let (mut read, write) = io::pipe().unwrap();
        std::thread::spawn(move || lines.write_to(write));
        outlet.flush(Duration::from_secs(10));
        let mut words = [0; 11];
        io::Read::read_exact(&mut read, &mut words).unwrap();
        assert_eq!(&words, b"last words\n");
    }
}
