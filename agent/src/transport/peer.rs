//! Whether a connection's peer is still there.
//!
//! A silent connection is asked by the kernel's keepalive probes. One with bytes on their way is not, and the kernel
//! alone would go on sending them for a quarter of an hour. TCP_USER_TIMEOUT bounds that, but counts a reader that
//! takes its time (a closed window, which answers every probe) for dead as well. So it is set only while the peer
//! acknowledges nothing at all.

use std::{
    ffi::c_int,
    io,
    os::fd::{BorrowedFd, RawFd},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::Instant};

use super::{Pulse, timer::Timer};

/// Probes that are not answered before a silent peer is given up.
const PROBES: u32 = 2;
/// Looks at a connection until a dead peer must have been given up.
const LOOKS: u32 = 5;
const LEAST: Duration = Duration::from_secs(1);

/// Lets the kernel find out within `limit` that the peer of a silent connection has gone.
pub fn keep_alive(stream: &TcpStream, limit: Duration) {
    let every = (limit / LOOKS).max(LEAST);
    let silence = limit.saturating_sub(every * PROBES).max(LEAST);
    let keepalive = TcpKeepalive::new()
        .with_time(silence)
        .with_interval(every)
        .with_retries(PROBES);
    // A connection without probes is still a connection.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Looks once whether the peer still answers, for who has a reason to doubt it.
pub fn look_at(pulse: &Pulse) {
    if let Some(sending) = pulse.descriptor().and_then(|it| Sending::of(it).ok()) {
        pulse.set_unanswered(sending.is_unanswered());
    }
}

/// Looks after connections of one task, for as long as something is on its way to their peers. Polled together with
/// them; costs a comparison while nothing was written.
#[derive(Debug)]
pub struct Peers<const N: usize> {
    peers: [Peer; N],
    every: Duration,
    timer: Timer,
    armed: bool,
}

impl<const N: usize> Peers<N> {
    /// Each connection with how long its peer may acknowledge nothing; `None`: for as long as the kernel lets it.
    pub fn new(of: [(Arc<Pulse>, Option<Duration>); N]) -> Self {
        let peers = of.map(|(pulse, limit)| Peer::new(pulse, limit));
        let limits = peers.iter().filter_map(|peer| peer.limit);
        let every = (limits.min().unwrap_or(Duration::MAX) / LOOKS).max(LEAST);
        Self {
            peers,
            every,
            timer: Timer::default(),
            armed: false,
        }
    }

    /// Never ready: a peer that has gone shows as an error of its connection.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        loop {
            if !self.armed {
                if !self.peers.iter().any(Peer::wants_a_look) {
                    return;
                }
                self.timer.set(Instant::now() + self.every);
                self.armed = true;
            }
            if self.timer.poll(cx).is_pending() {
                return;
            }
            self.armed = false;
            self.peers.iter_mut().for_each(Peer::look);
        }
    }

    /// For connections that nobody polls together with this, until all are closed.
    pub async fn watch(mut self) {
        while self.peers.iter().any(|peer| peer.pulse.descriptor().is_some()) {
            tokio::time::sleep(self.every).await;
            for peer in self.peers.iter_mut().filter(|peer| peer.wants_a_look()) {
                peer.look();
            }
        }
    }

    /// A future that is never ready, to be polled beside the connections.
    pub fn beside(mut self) -> impl Future<Output = ()> + Unpin {
        std::future::poll_fn(move |cx| {
            self.poll(cx);
            Poll::Pending
        })
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pulse: Arc<Pulse>,
    pub(super) limit: Option<Duration>,
    /// Everything written up to here has been acknowledged.
    settled: u64,
    bounded: bool,
}

impl Peer {
    pub(super) fn new(pulse: Arc<Pulse>, limit: Option<Duration>) -> Self {
        Self {
            pulse,
            limit,
            settled: 0,
            bounded: false,
        }
    }

    pub(super) fn wants_a_look(&self) -> bool {
        self.limit.is_some() && self.settled != self.pulse.written() && self.pulse.descriptor().is_some()
    }

    /// Bounds how long the peer may be silent while it owes an acknowledgement.
    pub(super) fn look(&mut self) {
        let (Some(limit), Some(descriptor)) = (self.limit, self.pulse.descriptor()) else {
            return;
        };
        let written = self.pulse.written();
        // A connection that cannot be looked at is broken, which its owner is told.
        let Ok(sending) = Sending::of(descriptor) else {
            return;
        };
        if sending.unacknowledged == 0 {
            self.settled = written;
        }
        let bound = sending.is_unanswered();
        self.pulse.set_unanswered(bound);
        if bound != self.bounded && bound_silence(descriptor, bound.then_some(limit)).is_ok() {
            self.bounded = bound;
        }
    }
}

/// The sending direction of a connection, as the kernel sees it.
#[derive(Clone, Copy, Debug)]
struct Sending {
    /// Bytes, sent or not.
    unacknowledged: u64,
    /// The same bytes were sent again, so many times, and nothing was acknowledged since.
    retransmits: u8,
    /// Questions whether a closed window has opened that were not answered.
    probes: u8,
}

impl Sending {
    fn of(descriptor: RawFd) -> io::Result<Self> {
        let mut unacknowledged: c_int = 0;
        // SAFETY: TIOCOUTQ, which is SIOCOUTQ (tcp(7)), writes one int to the address it is given.
        if unsafe { libc::ioctl(descriptor, libc::TIOCOUTQ, &raw mut unacknowledged) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let unacknowledged = u64::try_from(unacknowledged).unwrap_or(0);
        if unacknowledged == 0 {
            return Ok(Self {
                unacknowledged,
                retransmits: 0,
                probes: 0,
            });
        }
        // SAFETY: all zeroes are a value of this structure of numbers.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
        // SAFETY: the kernel writes at most `length` bytes to `info`.
        let result = unsafe {
            libc::getsockopt(
                descriptor,
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            unacknowledged,
            retransmits: info.tcpi_retransmits,
            probes: info.tcpi_probes,
        })
    }

    /// One probe may just be on its way.
    fn is_unanswered(self) -> bool {
        self.unacknowledged > 0 && (self.retransmits > 0 || self.probes > 1)
    }
}

/// TCP_USER_TIMEOUT; `None` leaves it to the kernel's own limits.
fn bound_silence(descriptor: RawFd, limit: Option<Duration>) -> io::Result<()> {
    // SAFETY: the descriptor is open: whoever closes it says so in the pulse first, on this thread.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    SockRef::from(&descriptor).set_tcp_user_timeout(Some(limit.unwrap_or_default()))
}
