//! Taking connections off a listener. Whoever knocks is taken or refused at once: nobody is left in the backlog.

use std::{
    cell::RefCell,
    fs::File,
    io,
    os::fd::AsFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    record::Recorder,
    share::{self, Holding, Local, Share},
    transport::keep_alive,
};

/// Pause after an error of the system such as EMFILE.
const PAUSE: Duration = Duration::from_millis(20);
/// What an accepted connection costs before it is known what it speaks: its task, its socket's state and the first
/// bytes. In bytes.
const COST: u64 = 16 * 1024;

/// Takes one worker's connections.
#[derive(Debug)]
pub struct Acceptor {
    /// A silent caller that has gone is found out within this.
    dead_peer: Option<Duration>,
    recorder: Rc<Recorder>,
    ability: Ability,
    /// Let go of when there is no other descriptor, to take and refuse what waits.
    spare: RefCell<Option<File>>,
}

/// What a connection takes up of its pod's share for as long as it is open.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] [Holding; 3]);

/// Whether a worker can accept at all. Cloned, it is the same.
#[derive(Clone, Debug)]
pub struct Ability {
    start: Instant,
    /// Milliseconds from the start when it first could not; 0 when it can.
    not_since: Arc<AtomicU64>,
}

impl Ability {
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            not_since: Arc::default(),
        }
    }

    fn lost(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let _ = self
            .not_since
            .compare_exchange(0, millis.max(1), Relaxed, Relaxed);
    }

    /// For how long the worker has not been able to accept.
    pub fn lost_for(&self, now: Instant) -> Option<Duration> {
        match self.not_since.load(Relaxed) {
            0 => None,
            since => Some(now.saturating_duration_since(self.start + Duration::from_millis(since))),
        }
    }
}

impl Acceptor {
    pub fn new(ability: Ability, dead_peer: Option<Duration>, recorder: Rc<Recorder>) -> Self {
        Self {
            dead_peer,
            recorder,
            ability,
            spare: RefCell::new(spare().ok()),
        }
    }

    /// The next connection, with its place in the share of `pod`. One for which the pod has no place is refused and
    /// counted.
    pub async fn accept(&self, listener: &TcpListener, pod: &Rc<Local>) -> (TcpStream, Place) {
        loop {
            share::breathe().await;
            match listener.accept().await {
                Ok((stream, _)) => match Place::of(pod) {
                    Some(place) => {
                        pod.connected();
                        // Small messages go out at once; a caller that has gone already shows at the first read.
                        let _ = stream.set_nodelay(true);
                        if let Some(limit) = self.dead_peer {
                            keep_alive(&stream, limit);
                        }
                        return (stream, place);
                    }
                    None => {
                        pod.refused();
                        self.recorder.counters.accept_limited();
                        refuse(&stream);
                    }
                },
                Err(error) => {
                    self.recorder.counters.accept_error();
                    if !of_one_connection(&error) {
                        self.ability.lost();
                        self.refuse_with_spare(listener).await;
                    }
                }
            }
        }
    }

    /// There is no descriptor for what waits at `listener`: refuses it, so that its callers need not wait for nothing.
    async fn refuse_with_spare(&self, listener: &TcpListener) {
        let has_spare = self.spare.borrow_mut().take().is_some();
        if has_spare {
            // A connection that cannot be taken now is met again.
            if let Ok(Ok((stream, _))) = tokio::time::timeout(PAUSE, listener.accept()).await {
                refuse(&stream);
            }
            *self.spare.borrow_mut() = spare().ok();
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Finds out whether there are descriptors again. Asked from time to time: no connection comes to find it out by,
    /// once the kernel has been told to leave them alone.
    pub fn try_again(&self) {
        if self.ability.not_since.load(Relaxed) == 0 {
            return;
        }
        if self.spare.borrow().is_none() {
            *self.spare.borrow_mut() = spare().ok();
        }
        if self.spare.borrow().is_some() && spare().is_ok() {
            self.ability.not_since.store(0, Relaxed);
        }
    }
}

impl Place {
    fn of(pod: &Rc<Local>) -> Option<Self> {
        Some(Self([
            pod.take(Share::Connections, 1)?,
            pod.take(Share::Descriptors, 1)?,
            pod.take(Share::Memory, COST)?,
        ]))
    }
}

fn spare() -> io::Result<File> {
    File::open("/dev/null")
}

/// To the caller it is as if nobody were there. A FIN would say that there was nothing to tell.
pub fn refuse(stream: &impl AsFd) {
    // A connection that is closed otherwise is closed all the same.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Errors that say something of the connection that was about to be accepted (accept(2), "Error handling"), so
/// that the next can be taken at once.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
