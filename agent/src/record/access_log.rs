//! One line per request and per relayed connection. A worker writes lines into its own buffer; the log's thread
//! writes buffers to the sink. When the sink is slow, lines are dropped and counted; requests do not wait.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    hub::WorkerShard,
    json::{Members, Object},
    labels::{Flag, ScopeKey},
    line::{Line, PodLines},
    log_queue::{Batch, Part, Queue},
    wall_clock::WallClock,
};
use crate::model::PodName;

/// A worker hands its buffer on when it is this full, or at its next tick.
const BATCH_BYTES: usize = 32 * 1024;

/// A worker's end.
#[derive(Debug)]
pub(super) struct AccessLog {
    /// `None` when there is no access log.
    queue: Option<Queue>,
    /// Longer values are cut.
    field_bytes: usize,
    buffer: RefCell<Vec<u8>>,
    /// Pods with lines in the buffer.
    in_buffer: RefCell<Vec<Rc<PodLines>>>,
    pods: RefCell<HashMap<PodName, Rc<PodLines>>>,
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
    pub(super) fn new(queue: Option<Queue>, field_bytes: usize, counters: Arc<WorkerShard>) -> Self {
        Self {
            queue,
            field_bytes,
            buffer: RefCell::default(),
            in_buffer: RefCell::default(),
            pods: RefCell::default(),
            clock: WallClock::new(),
            counters,
        }
    }

    pub(super) fn connection(&self, x: &Relayed<'_>) {
        self.write(&x.line.lines, |o| {
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

    /// What every line begins with.
    pub(super) fn head(
        &self,
        o: &mut Object<'_>,
        line: &Line,
        started: Instant,
        endpoint: Option<SocketAddr>,
    ) {
        o.ascii("time", &self.clock.at(started).text());
        o.members(&line.known);
        if let Some(endpoint) = endpoint {
            o.address("endpoint", endpoint);
        }
    }

    /// What all lines of one connection have in common.
    pub(super) fn known(&self, caller: &str, key: &ScopeKey) -> Members {
        Members::render(self.field_bytes, |o| {
            o.text("direction", key.direction.as_str().as_bytes());
            o.text("source", caller.as_bytes());
            o.text("source_namespace", key.source.namespace.as_bytes());
            o.text("source_workload", key.source.workload.as_bytes());
            o.plain("service", &key.destination);
        })
    }

    pub(super) fn write(&self, pod: &Rc<PodLines>, members: impl FnOnce(&mut Object<'_>)) {
        let Some(queue) = &self.queue else { return };
        if !queue.has_room(&pod.share, pod.bytes.get()) {
            self.counters.access_dropped.add(1);
            return;
        }
        let mut buffer = self.buffer.borrow_mut();
        let before = buffer.len();
        let mut object = Object::begin(&mut buffer, self.field_bytes);
        members(&mut object);
        object.end();
        buffer.push(b'\n');
        if pod.lines.get() == 0 {
            self.in_buffer.borrow_mut().push(pod.clone());
        }
        pod.lines.set(pod.lines.get() + 1);
        pod.bytes.set(pod.bytes.get() + buffer.len() - before);
        if buffer.len() >= BATCH_BYTES {
            drop(buffer);
            self.hand_on();
        }
    }

    /// Whose lines count against whose share of the queue.
    pub(super) fn pod(&self, name: &PodName) -> Rc<PodLines> {
        let mut pods = self.pods.borrow_mut();
        if let Some(lines) = pods.get(name) {
            return lines.clone();
        }
        // Those of pods that have no connection any more.
        pods.retain(|_, lines| Rc::strong_count(lines) > 1);
        let lines = Rc::new(PodLines {
            share: self
                .queue
                .as_ref()
                .map_or_else(Arc::default, |queue| queue.share(name)),
            bytes: Cell::new(0),
            lines: Cell::new(0),
        });
        pods.insert(name.clone(), lines.clone());
        lines
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
        // What waits is not much larger than its lines, by which pods are held to their shares.
        let bytes = if buffer.len() * 2 > buffer.capacity() {
            let next = Vec::with_capacity(buffer.capacity());
            std::mem::replace(&mut *buffer, next)
        } else {
            let bytes = buffer.as_slice().to_vec();
            buffer.clear();
            bytes
        };
        let part = |pod: Rc<PodLines>| {
            pod.lines.set(0);
            Part {
                share: pod.share.clone(),
                bytes: pod.bytes.replace(0),
            }
        };
        let parts = self.in_buffer.borrow_mut().drain(..).map(part).collect();
        queue.push(Batch { bytes, parts });
    }
}

/// The lines of a worker's last moments are handed on as well.
impl Drop for AccessLog {
    fn drop(&mut self) {
        self.hand_on();
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
