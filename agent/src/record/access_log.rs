//! One line per request and per relayed connection. A worker writes lines into its own buffer; a thread of its
//! own writes buffers to the sink. When the sink is slow, lines are dropped and counted; requests do not wait.

use std::{
    cell::{Cell as Slot, RefCell},
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use tokio::time::Instant;

use super::{
    exchange::{Exchange, Line},
    hub::WorkerShard,
    json::Object,
    labels::Flag,
};

/// A worker hands its buffer on when it is this full, or at its next tick.
const BATCH_BYTES: usize = 32 * 1024;
/// Buffers waiting for the sink, of all workers: with [`BATCH_BYTES`], 8 MiB of lines.
const QUEUED_BATCHES: usize = 256;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    Off,
    Stdout,
    /// Appended to; opened anew on [`Writer::reopen`], for log rotation.
    File(PathBuf),
}

/// The process's end: the thread that writes.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: Option<SyncSender<Batch>>,
}

#[derive(Debug)]
enum Batch {
    Lines(Vec<u8>),
    Reopen,
    /// Answered when everything before it has been written.
    Flush(SyncSender<()>),
}

impl Writer {
    /// Opens the sink and starts the thread.
    pub fn start(sink: Sink) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match &sink {
            Sink::Off => return Ok(Self { queue: None }),
            Sink::Stdout => Box::new(io::stdout()),
            Sink::File(path) => Box::new(append(path)?),
        };
        let (queue, batches) = sync_channel(QUEUED_BATCHES);
        std::thread::Builder::new()
            .name("derny-log".into())
            .spawn(move || write_batches(&batches, out, &sink))?;
        Ok(Self { queue: Some(queue) })
    }

    /// Opens the file again, after it was renamed.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(Batch::Reopen);
        }
    }

    /// Waits until what was handed on has been written, at most `deadline`.
    pub fn flush(&self, deadline: Duration) {
        let (done, written) = sync_channel(1);
        if let Some(queue) = &self.queue
            && queue.send(Batch::Flush(done)).is_ok()
        {
            let _ = written.recv_timeout(deadline);
        }
    }

    pub(super) fn worker(&self, counters: Arc<WorkerShard>) -> AccessLog {
        AccessLog {
            queue: self.queue.clone(),
            buffer: RefCell::default(),
            lines: Slot::new(0),
            clock: WallClock::new(),
            counters,
        }
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_batches(batches: &Receiver<Batch>, mut out: Box<dyn Write + Send>, sink: &Sink) {
    for batch in batches {
        match batch {
            Batch::Lines(lines) => {
                if let Err(error) = out.write_all(&lines).and_then(|()| out.flush()) {
                    tracing::warn!(%error, "access log: lines lost");
                }
            }
            Batch::Reopen => {
                if let Sink::File(path) = sink {
                    match append(path) {
                        Ok(file) => out = Box::new(file),
                        Err(error) => {
                            tracing::error!(%error, path = %path.display(), "access log: not reopened")
                        }
                    }
                }
            }
            Batch::Flush(done) => drop(done.send(())),
        }
    }
}

/// A worker's end.
#[derive(Debug)]
pub(super) struct AccessLog {
    queue: Option<SyncSender<Batch>>,
    buffer: RefCell<Vec<u8>>,
    /// Lines in the buffer.
    lines: Slot<u64>,
    clock: WallClock,
    counters: Arc<WorkerShard>,
}

/// A relayed connection that has ended.
#[derive(Debug)]
pub struct Relayed<'a> {
    pub line: &'a Line,
    pub started: Instant,
    pub protocol: &'static str,
    pub endpoint: Option<SocketAddr>,
    pub server_name: Option<&'a str>,
    pub flag: Flag,
    pub received: u64,
    pub sent: u64,
}

impl AccessLog {
    pub(super) fn request(&self, x: &Exchange, took: Duration) {
        self.write(|o| {
            self.head(o, &x.line, x.started, x.endpoint);
            o.text("method", x.method.as_str().as_bytes());
            o.text("path", x.path.as_ref().map_or("/", |p| p.as_str()).as_bytes());
            header(o, "authority", x.authority.as_ref());
            o.text("protocol", x.spoken.as_str().as_bytes());
            o.number("code", x.outcome.code.into());
            if let Some(status) = x.outcome.grpc_status {
                o.number("grpc_status", status.into());
            }
            o.text("flags", x.outcome.flag.as_str().as_bytes());
            o.number("bytes_received", x.received);
            o.number("bytes_sent", x.sent);
            o.millis("duration_ms", micros(took));
            if let Some(first) = x.first_answer {
                o.millis("upstream_ms", micros(first));
            }
            o.number("attempts", x.attempts.into());
            header(o, "user_agent", x.user_agent.as_ref());
            header(o, "request_id", x.request_id.as_ref());
            if let Some(id) = x.traceparent.as_ref().and_then(|t| t.as_bytes().get(3..35)) {
                o.text("trace_id", id);
            }
        });
    }

    pub(super) fn connection(&self, x: &Relayed<'_>) {
        self.write(|o| {
            self.head(o, x.line, x.started, x.endpoint);
            o.text("protocol", x.protocol.as_bytes());
            if let Some(name) = x.server_name {
                o.text("server_name", name.as_bytes());
            }
            o.text("flags", x.flag.as_str().as_bytes());
            o.number("bytes_received", x.received);
            o.number("bytes_sent", x.sent);
            o.millis("duration_ms", micros(x.started.elapsed()));
        });
    }

    fn head(&self, o: &mut Object<'_>, line: &Line, started: Instant, endpoint: Option<SocketAddr>) {
        let key = line.scope.key();
        o.plain("time", self.clock.at(started));
        o.text("direction", key.direction.as_str().as_bytes());
        o.text("source", line.caller.as_bytes());
        o.text("source_namespace", key.source.namespace.as_bytes());
        o.text("source_workload", key.source.workload.as_bytes());
        o.plain("service", &key.destination);
        if let Some(endpoint) = endpoint {
            o.plain("endpoint", endpoint);
        }
    }

    fn write(&self, members: impl FnOnce(&mut Object<'_>)) {
        if self.queue.is_none() {
            return;
        }
        let mut buffer = self.buffer.borrow_mut();
        let mut object = Object::begin(&mut buffer);
        members(&mut object);
        object.end();
        buffer.push(b'\n');
        self.lines.set(self.lines.get() + 1);
        if buffer.len() >= BATCH_BYTES {
            drop(buffer);
            self.hand_on();
        }
    }

    /// Wall time now, in milliseconds since the epoch.
    pub(super) fn unix_millis(&self) -> u64 {
        u64::try_from(self.clock.at(Instant::now()).0.as_millis()).unwrap_or(0)
    }

    /// Gives the lines so far to the writer.
    pub(super) fn hand_on(&self) {
        self.clock.adjust();
        let Some(queue) = &self.queue else { return };
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            return;
        }
        let capacity = buffer.capacity();
        let batch = std::mem::replace(&mut *buffer, Vec::with_capacity(capacity));
        let lines = self.lines.replace(0);
        match queue.try_send(Batch::Lines(batch)) {
            Ok(()) => self.counters.access_lines.add(lines),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.access_dropped.add(lines)
            }
        }
    }
}

/// The lines of a worker's last moments are handed on as well.
impl Drop for AccessLog {
    fn drop(&mut self) {
        self.hand_on();
    }
}

fn header(o: &mut Object<'_>, name: &str, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        o.text(name, value.as_bytes());
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Wall time from the monotonic clock, so that a request reads one clock. Corrected at every tick.
#[derive(Debug)]
struct WallClock {
    anchor: Slot<(Instant, Duration)>,
}

impl WallClock {
    fn new() -> Self {
        let this = Self {
            anchor: Slot::new((Instant::now(), Duration::ZERO)),
        };
        this.adjust();
        this
    }

    fn adjust(&self) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.anchor.set((Instant::now(), since_epoch));
    }

    fn at(&self, instant: Instant) -> Rfc3339 {
        let (anchor, wall) = self.anchor.get();
        let since = match instant.checked_duration_since(anchor) {
            Some(after) => wall + after,
            None => wall.saturating_sub(anchor.duration_since(instant)),
        };
        Rfc3339(since)
    }
}

/// A time since the epoch as RFC 3339 in UTC with microseconds.
struct Rfc3339(Duration);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (h, m, s, us) = (rest / 3600, rest / 60 % 60, rest % 60, self.0.subsec_micros());
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{us:06}Z")
    }
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`, for days after the epoch).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + u64::from(month <= 2),
        month,
        doy - (153 * mp + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let check = |seconds: u64, micros: u32, expect: &str| {
            assert_eq!(Rfc3339(Duration::new(seconds, micros * 1000)).to_string(), expect);
        };
        check(0, 0, "1970-01-01T00:00:00.000000Z");
        check(951_782_400, 1, "2000-02-29T00:00:00.000001Z");
        check(1_709_210_096, 999_999, "2024-02-29T12:34:56.999999Z");
        check(4_102_444_799, 0, "2099-12-31T23:59:59.000000Z");
    }
}
