//! Looks after an accepted connection: one coarse timer, set only while there is something to wait for, so that a
//! connection under traffic costs a comparison and an idle one nothing.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{Pulse, peer::Peer, timer::Timer};

/// How long what may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request's head, from its first byte to its last.
    pub head: Duration,
    /// A connection without a request. `None`: no bound.
    pub idle: Option<Duration>,
    /// What has been written must move on within this. `None`: no bound.
    pub write: Option<Duration>,
    /// A peer that acknowledges nothing has gone after this. `None`: the kernel decides.
    pub dead_peer: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Some(Duration::from_secs(3600)),
            write: Some(Duration::from_secs(300)),
            dead_peer: Some(Duration::from_secs(15)),
        }
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// A request is under way: its own deadlines count.
    Serving,
    /// A head has begun and is not whole.
    Head,
    Idle,
}

/// What a connection does, and for which time: the same thing in another generation has begun anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    pub doing: Doing,
    pub generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    HeadTooLong,
    IdleTooLong,
    /// The peer has taken nothing for so long. Told again and again while that is so.
    Unread(Duration),
}

/// How often a peer is looked at that does not read.
const UNREAD_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Vigil {
    peer: Peer,
    limits: Limits,
    /// How often a peer is looked at that owes an acknowledgement.
    peer_every: Option<Duration>,
    since: Instant,
    seen: Option<Situation>,
    /// Bytes written when they last moved, and when that was seen.
    moved: (u64, Instant),
    timer: Timer,
    /// How far off the timer was set, and what for; `None` when it is not set.
    armed: Option<(Duration, Reason)>,
}

/// Why there is something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reason {
    doing: Doing,
    /// The peer owes an acknowledgement.
    of_peer: bool,
    /// The kernel takes no more bytes.
    unread: bool,
}

impl Vigil {
    pub fn new(pulse: Arc<Pulse>, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            peer: Peer::new(pulse, limits.dead_peer),
            limits,
            peer_every: limits.dead_peer.map(|limit| limit / 5),
            since: now,
            seen: None,
            moved: (0, now),
            timer: Timer::default(),
            armed: None,
        }
    }

    /// Polled whenever the connection is.
    pub fn poll(&mut self, situation: Situation, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let reason = Reason {
                doing: situation.doing,
                of_peer: self.peer.wants_a_look(),
                unread: self.peer.pulse.blocked(),
            };
            // Under traffic there is the same reason again and again.
            if self.armed.is_none_or(|(_, armed)| armed != reason) {
                let Some(wanted) = self.next_look(reason) else {
                    // A timer that still runs finds nothing to do.
                    return Poll::Pending;
                };
                match self.armed {
                    Some((before, _)) if before <= wanted => self.armed = Some((before, reason)),
                    _ => self.arm(situation, wanted, reason),
                }
            }
            ready!(self.timer.poll(cx));
            self.armed = None;
            let now = Instant::now();
            if self.peer.wants_a_look() {
                self.peer.look();
            }
            if let Some(event) = self.look(situation, now) {
                return Poll::Ready(event);
            }
        }
    }

    /// When to look next, from now; `None` when there is nothing to look for.
    fn next_look(&self, reason: Reason) -> Option<Duration> {
        let of_state = match reason.doing {
            Doing::Serving => None,
            Doing::Head => Some(self.limits.head),
            Doing::Idle => self.limits.idle,
        };
        let of_peer = self.peer_every.filter(|_| reason.of_peer);
        let unread = reason.unread.then_some(UNREAD_EVERY);
        [of_state, of_peer, unread].into_iter().flatten().min()
    }

    fn arm(&mut self, situation: Situation, wanted: Duration, reason: Reason) {
        let now = Instant::now();
        if self.seen != Some(situation) {
            self.seen = Some(situation);
            self.since = now;
        }
        // What has waited for a while is looked at when its time is over.
        let of_state = match situation.doing {
            Doing::Serving => None,
            Doing::Head => Some(self.limits.head),
            Doing::Idle => self.limits.idle,
        };
        let at = match of_state {
            Some(limit) => (now + wanted).min(self.since + limit),
            None => now + wanted,
        };
        self.timer.set(at);
        self.armed = Some((wanted, reason));
    }

    fn look(&mut self, situation: Situation, now: Instant) -> Option<Event> {
        let written = self.peer.pulse.written();
        if written != self.moved.0 || !self.peer.pulse.blocked() {
            self.moved = (written, now);
        }
        if self.peer.pulse.blocked() {
            return Some(Event::Unread(now - self.moved.1));
        }
        if self.seen != Some(situation) {
            self.seen = Some(situation);
            self.since = now;
            return None;
        }
        let waited = now - self.since;
        match situation.doing {
            Doing::Head if waited >= self.limits.head => Some(Event::HeadTooLong),
            Doing::Idle if self.limits.idle.is_some_and(|idle| waited >= idle) => Some(Event::IdleTooLong),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn vigil() -> (Vigil, Arc<Pulse>) {
        let pulse = Arc::new(Pulse::of_nothing());
        (Vigil::new(pulse.clone(), Limits::default()), pulse)
    }

    fn doing(doing: Doing, generation: u64) -> Situation {
        Situation { doing, generation }
    }

    /// What happens within `time` while the connection does this, and when.
    async fn event(vigil: &mut Vigil, situation: Situation, time: Duration) -> Option<(Event, Duration)> {
        let start = Instant::now();
        let event = tokio::time::timeout(time, poll_fn(|cx| vigil.poll(situation, cx))).await;
        event.ok().map(|event| (event, start.elapsed()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_may_take_so_long() {
        let (mut vigil, _) = vigil();
        let head = doing(Doing::Head, 0);
        assert_eq!(event(&mut vigil, head, 20 * SECOND).await, None);
        let rest = event(&mut vigil, head, 60 * SECOND).await;
        assert_eq!(rest, Some((Event::HeadTooLong, 10 * SECOND)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_after_a_long_rest_has_its_whole_time() {
        let (mut vigil, _) = vigil();
        assert_eq!(
            event(&mut vigil, doing(Doing::Idle, 1), 3000 * SECOND).await,
            None
        );
        let head = event(&mut vigil, doing(Doing::Head, 1), 60 * SECOND).await;
        assert_eq!(head, Some((Event::HeadTooLong, 30 * SECOND)));
    }

    #[tokio::test(start_paused = true)]
    async fn rests_between_requests_do_not_add_up() {
        let (mut vigil, _) = vigil();
        for generation in 1..5 {
            let idle = event(&mut vigil, doing(Doing::Idle, generation), 3000 * SECOND).await;
            assert_eq!(idle, None, "{generation}");
            let serving = event(&mut vigil, doing(Doing::Serving, generation + 1), 9000 * SECOND).await;
            assert_eq!(serving, None, "a long poll");
        }
        let idle = event(&mut vigil, doing(Doing::Idle, 9), 9000 * SECOND).await;
        assert_eq!(idle.map(|(event, _)| event), Some(Event::IdleTooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_told_of_until_it_does() {
        let (mut vigil, pulse) = vigil();
        let serving = doing(Doing::Serving, 1);
        pulse.wrote(9);
        pulse.wrote(0);
        let mut unread = Duration::ZERO;
        for _ in 0..5 {
            let (event, _) = event(&mut vigil, serving, 10 * SECOND).await.unwrap();
            let Event::Unread(time) = event else {
                panic!("{event:?}")
            };
            unread = time;
        }
        assert_eq!(unread, 4 * SECOND, "since it was seen first");
        pulse.wrote(1);
        assert_eq!(event(&mut vigil, serving, 100 * SECOND).await, None);
    }
}
