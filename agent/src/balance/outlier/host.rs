//! What all workers know of one endpoint, in atomics.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{super::ticks, EjectReason};

/// How long a trial is kept for a request that was told to make it and has not begun. Between the two lies no wait,
/// so that only a worker that stands still reaches it.
const BETWEEN_CHOICE_AND_BEGIN: Duration = Duration::from_secs(1);

/// Whether an endpoint is left out.
///
/// ```text
///         a detector                    until
///   In ───────────────▶ Ejected ───────────────────▶ Trial
///   ▲                    ▲   │ active check passes     │
///   │                    └───┼─────── the trial fails ─┤
///   └────────────────────────┴──────── it succeeds ────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    In,
    /// Gets nothing until then.
    Ejected {
        until: Instant,
    },
    /// Half open: exactly one request may try.
    Trial,
}

/// The right to be the one request of [`Standing::Trial`]: the word that was written when it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial(u64);

/// The standing in one word: what it is in the low bits, since or until when (in ticks) in the others.
/// The time makes each word unique, so that compare-and-swap never takes an old trial for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In, since.
    In = 0,
    /// Out, until.
    Ejected = 1,
    /// Half open, nobody tries.
    Free = 2,
    /// Half open, somebody is about to try, until.
    Reserved = 3,
    /// Half open, somebody tries.
    Running = 4,
}

const KIND_BITS: u32 = 3;

fn word(kind: Kind, ticks: u64) -> u64 {
    ticks << KIND_BITS | kind as u64
}

fn read(word: u64) -> (Kind, u64) {
    let kind = match word & ((1 << KIND_BITS) - 1) {
        0 => Kind::In,
        1 => Kind::Ejected,
        2 => Kind::Free,
        3 => Kind::Reserved,
        _ => Kind::Running,
    };
    (kind, word >> KIND_BITS)
}

/// Answers of one kind within the current interval.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    good: AtomicU32,
    bad: AtomicU32,
}

impl Bucket {
    pub(super) fn count(&self, good: bool) {
        let counter = if good { &self.good } else { &self.bad };
        counter.fetch_add(1, Relaxed);
    }

    /// (good, bad) since the last call.
    pub(super) fn take(&self) -> (u32, u32) {
        (self.good.swap(0, Relaxed), self.bad.swap(0, Relaxed))
    }
}

/// What an endpoint is out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It could not be reached, or did not answer.
    Local,
    /// What it answered, if only in part.
    Answers,
}

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Streak(AtomicU32);

impl Streak {
    /// One more. `true` when that makes `threshold`, and the count begins anew; never when that is zero.
    pub(super) fn reaches(&self, threshold: u32) -> bool {
        if threshold == 0 || self.0.fetch_add(1, Relaxed) + 1 < threshold {
            return false;
        }
        self.0.store(0, Relaxed);
        true
    }

    fn has_begun(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    pub(super) fn end(&self) {
        // Most answers are good: do not write to a line that other workers read when there is nothing to clear.
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }
}

/// One worker's average latency in seconds, for others to see. Costs the worker a plain store.
#[derive(Debug)]
pub(crate) struct ShownLatency(AtomicU64);

impl ShownLatency {
    /// `None` stands for no answer yet.
    pub(crate) fn set(&self, seconds: Option<f64>) {
        self.0.store(seconds.unwrap_or(f64::NAN).to_bits(), Relaxed);
    }

    fn get(&self) -> Option<f64> {
        let seconds = f64::from_bits(self.0.load(Relaxed));
        seconds.is_finite().then_some(seconds)
    }
}

/// One endpoint of one (source workload, service port), shared by the workers.
///
/// All loads and stores are relaxed: each word is complete in itself, and what is decided from it bears a moment's
/// delay. Ejecting and returning is serialized by the lock of [`super::Outliers`].
#[derive(Debug)]
pub struct Host {
    address: SocketAddr,
    /// The count of changes in the whole group; see [`super::Outliers::epoch`].
    epoch: Arc<AtomicU64>,
    standing: AtomicU64,
    /// Ejections in a row, 0 after a quiet time.
    times: AtomicU32,
    reason: AtomicU8,
    /// Whether an answer is among the failures in a row, or was among those that it is out for.
    answered: AtomicBool,
    /// When it was last ejected, in ticks.
    ejected: AtomicU64,
    in_flight: AtomicU32,
    /// The average of each worker; only windows look.
    latencies: Mutex<Vec<Weak<ShownLatency>>>,
    pub(super) all_5xx: Streak,
    pub(super) gateway: Streak,
    pub(super) local: Streak,
    /// Answers of the endpoint; with them local errors, unless they are split.
    pub(super) answers: Bucket,
    /// Whether it could be reached, when that is split from what it answered.
    pub(super) reached: Bucket,
}

impl Host {
    pub(super) fn new(address: SocketAddr, epoch: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            address,
            epoch,
            standing: AtomicU64::new(word(Kind::In, 0)),
            times: AtomicU32::new(0),
            reason: AtomicU8::new(0),
            answered: AtomicBool::new(false),
            ejected: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            latencies: Mutex::default(),
            all_5xx: Streak::default(),
            gateway: Streak::default(),
            local: Streak::default(),
            answers: Bucket::default(),
            reached: Bucket::default(),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn standing(&self) -> Standing {
        match read(self.standing.load(Relaxed)) {
            (Kind::In, _) => Standing::In,
            (Kind::Ejected, until) => {
                ticks::instant(until).map_or(Standing::Trial, |until| Standing::Ejected { until })
            }
            (Kind::Free | Kind::Reserved | Kind::Running, _) => Standing::Trial,
        }
    }

    pub(crate) fn is_in(&self) -> bool {
        read(self.standing.load(Relaxed)).0 == Kind::In
    }

    /// Ejections in a row; one is forgotten with each quiet interval.
    pub fn times_ejected(&self) -> u32 {
        self.times.load(Relaxed)
    }

    /// Why it is out; `None` when it is in.
    pub fn reason(&self) -> Option<EjectReason> {
        (!self.is_in())
            .then(|| EjectReason::from_index(self.reason.load(Relaxed)))
            .flatten()
    }

    /// What it is out for, or would be.
    pub(super) fn origin(&self) -> Origin {
        match self.answered.load(Relaxed) {
            true => Origin::Answers,
            false => Origin::Local,
        }
    }

    /// One more failure in a row, before it is counted. The first of a row says what the row is.
    pub(super) fn failed(&self, origin: Origin) {
        match origin {
            Origin::Answers => self.answered.store(true, Relaxed),
            Origin::Local
                if [&self.all_5xx, &self.gateway]
                    .iter()
                    .any(|streak| streak.has_begun()) => {}
            Origin::Local => self.answered.store(false, Relaxed),
        }
    }

    /// Since when it is out; `None` when it is in.
    pub fn out_since(&self) -> Option<Instant> {
        (!self.is_in())
            .then(|| ticks::instant(self.ejected.load(Relaxed)))
            .flatten()
    }

    /// The mean of the workers' averages as of the last answer of each; `None` before the first.
    pub fn latency(&self) -> Option<Duration> {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.retain(|latency| latency.strong_count() > 0);
        let known = latencies.iter().filter_map(|latency| latency.upgrade()?.get());
        let (sum, n) = known.fold((0.0, 0.0), |(sum, n), seconds| (sum + seconds, n + 1.0));
        (n > 0.0).then(|| Duration::from_secs_f64(sum / n))
    }

    /// Where one more worker shows its average.
    pub(crate) fn shown_latency(&self) -> Arc<ShownLatency> {
        let shown = Arc::new(ShownLatency(AtomicU64::new(f64::NAN.to_bits())));
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.push(Arc::downgrade(&shown));
        shown
    }

    /// Requests of all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// When it last came back from an ejection.
    pub fn returned(&self) -> Option<Instant> {
        match read(self.standing.load(Relaxed)) {
            (Kind::In, since) => ticks::instant(since),
            _ => None,
        }
    }

    pub(crate) fn epoch(&self) -> &Arc<AtomicU64> {
        &self.epoch
    }

    pub(crate) fn enter(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// `false` when `max` are in flight already.
    pub(crate) fn enter_below(&self, max: u32) -> bool {
        (self.in_flight)
            .fetch_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1))
            .is_ok()
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// The right to try, for the first who asks. It lapses when no request begins with it.
    pub fn take_trial(&self, now: Instant) -> Option<Trial> {
        let seen = self.standing.load(Relaxed);
        let now_ticks = ticks::ticks(now);
        match read(seen) {
            (Kind::Free, _) => {}
            (Kind::Reserved, until) if until <= now_ticks => {}
            _ => return None,
        }
        let taken = word(Kind::Reserved, ticks::ticks(now + BETWEEN_CHOICE_AND_BEGIN));
        self.swap(seen, taken).then_some(Trial(taken))
    }

    /// The request of a trial begins; `None` when the right has lapsed.
    pub(crate) fn start_trial(&self, reserved: Trial) -> Option<Trial> {
        let running = word(Kind::Running, read(reserved.0).1);
        self.swap(reserved.0, running).then_some(Trial(running))
    }

    /// The trial ended without an outcome.
    pub(crate) fn give_back_trial(&self, running: Trial) {
        let free = word(Kind::Free, read(running.0).1);
        self.swap(running.0, free);
    }

    /// Whether `running` is the trial that this host waits for.
    pub(super) fn waits_for(&self, running: Trial) -> bool {
        self.standing.load(Relaxed) == running.0
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        (self.standing)
            .compare_exchange(from, to, Relaxed, Relaxed)
            .is_ok()
    }

    // What follows is called under the lock only.

    pub(super) fn set_ejected(
        &self,
        (reason, origin): (EjectReason, Origin),
        times: u32,
        now: Instant,
        until: Instant,
    ) {
        self.answered.store(origin == Origin::Answers, Relaxed);
        self.ejected.store(ticks::ticks(now), Relaxed);
        self.times.store(times, Relaxed);
        self.reason.store(reason as u8, Relaxed);
        self.set(Kind::Ejected, until);
    }

    pub(super) fn set_trial(&self, now: Instant) {
        self.set(Kind::Free, now);
    }

    /// `now`: slow start begins. `None`: the host was never out.
    pub(super) fn set_in(&self, now: Option<Instant>) {
        for streak in [&self.all_5xx, &self.gateway, &self.local] {
            streak.end();
        }
        for bucket in [&self.answers, &self.reached] {
            bucket.take();
        }
        match now {
            Some(now) => self.set(Kind::In, now),
            None => self.standing.store(word(Kind::In, 0), Relaxed),
        }
    }

    pub(super) fn set_times(&self, times: u32) {
        self.times.store(times, Relaxed);
    }

    fn set(&self, kind: Kind, at: Instant) {
        self.standing.store(word(kind, ticks::ticks(at)), Relaxed);
    }
}
