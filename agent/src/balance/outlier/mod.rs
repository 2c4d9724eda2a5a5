//! Which endpoints are left out for a while because they fail, per (source workload, service port).
//!
//! The workers count in atomics and take the lock only when somebody is ejected or comes back.

mod event;
mod host;
mod rates;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::Release},
    },
    time::{Duration, Instant},
};

pub use event::{EjectReason, Event, EventKind, ReturnedBy, Verdict};
use host::Origin;
pub(super) use host::ShownLatency;
pub use host::{Host, Standing, Trial};

use super::ticks::ticks;
use crate::model::OutlierDetection;

/// Outlier detection of one service port for the pods of one workload, shared by all workers.
#[derive(Debug)]
pub struct Outliers {
    epoch: Arc<AtomicU64>,
    limits: Limits,
    /// Ticks of the next work for [`Outliers::sweep`].
    due: AtomicU64,
    inner: Mutex<Inner>,
}

/// The settings that every request needs.
#[derive(Debug, Default)]
struct Limits {
    consecutive_5xx: AtomicU32,
    consecutive_gateway_errors: AtomicU32,
    consecutive_local_errors: AtomicU32,
    split_local_origin: AtomicBool,
    /// Whether an interval detector wants answers counted.
    rates: AtomicBool,
}

impl Limits {
    fn set(&self, settings: Option<&OutlierDetection>) {
        let of = |pick: fn(&OutlierDetection) -> u32| settings.map_or(0, pick);
        self.consecutive_5xx.store(of(|s| s.consecutive_5xx), Relaxed);
        self.consecutive_gateway_errors
            .store(of(|s| s.consecutive_gateway_errors), Relaxed);
        self.consecutive_local_errors
            .store(of(|s| s.consecutive_local_errors), Relaxed);
        self.split_local_origin
            .store(settings.is_some_and(|s| s.split_local_origin), Relaxed);
        let rates = settings.is_some_and(|s| s.success_rate.is_some() || s.failure_percentage.is_some());
        self.rates.store(rates, Relaxed);
    }
}

#[derive(Debug)]
struct Inner {
    settings: Option<OutlierDetection>,
    hosts: HashMap<SocketAddr, Arc<Host>>,
    /// `None` until the first sweep.
    next_interval: Option<Instant>,
}

impl Outliers {
    pub fn new(settings: Option<OutlierDetection>) -> Self {
        let limits = Limits::default();
        limits.set(settings.as_ref());
        Self {
            epoch: Arc::default(),
            limits,
            due: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                settings,
                hosts: HashMap::new(),
                next_interval: None,
            }),
        }
    }

    /// Takes over a policy and the addresses of the service. What is known of addresses that stay is kept.
    ///
    /// One place calls this, with the newest snapshot: a worker that is a step behind would forget what it does not
    /// see yet.
    pub fn follow(&self, settings: Option<&OutlierDetection>, addresses: impl Iterator<Item = SocketAddr>) {
        let mut inner = self.lock();
        let mut before = std::mem::take(&mut inner.hosts);
        for address in addresses {
            let host = (before.remove(&address)).unwrap_or_else(|| Host::new(address, self.epoch.clone()));
            inner.hosts.insert(address, host);
        }
        if settings.is_none() {
            for host in inner.hosts.values().filter(|h| !h.is_in()) {
                host.set_in(None);
                self.changed();
            }
        }
        if inner.settings.as_ref() != settings {
            self.limits.set(settings);
            inner.settings = settings.cloned();
            inner.next_interval = None;
            self.due.store(0, Relaxed);
        }
    }

    /// What all workers know of `address`. An address that the service does not have (yet) is taken in.
    pub fn host(&self, address: SocketAddr) -> Arc<Host> {
        let mut inner = self.lock();
        (inner.hosts.entry(address))
            .or_insert_with(|| Host::new(address, self.epoch.clone()))
            .clone()
    }

    /// How many endpoints are out.
    pub fn out(&self) -> usize {
        self.lock().hosts.values().filter(|h| !h.is_in()).count()
    }

    /// Moves when anybody's standing changes.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// How a request to `host` ended. Takes no lock unless the host's standing changes.
    ///
    /// While the host is half open this is taken for the outcome of the trial; [`super::InFlight::record`] knows
    /// better whether it is.
    pub fn record(
        &self,
        host: &Host,
        verdict: Verdict,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Event> {
        match host.standing() {
            Standing::In => self.count(host, verdict, now, rng),
            Standing::Ejected { .. } => None,
            Standing::Trial => self.decide(host, verdict, None, now, rng),
        }
    }

    /// As [`Outliers::record`]; `trial` is the right with which the request began.
    pub(super) fn judge(
        &self,
        host: &Host,
        verdict: Verdict,
        trial: Option<Trial>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Event> {
        match (trial, host.is_in()) {
            (Some(trial), false) => self.decide(host, verdict, Some(trial), now, rng),
            (_, true) => self.count(host, verdict, now, rng),
            // It began before the host was ejected, or in panic: it says nothing that is not known.
            (None, false) => None,
        }
    }

    /// Looks at success rates and at ejections that expire. To be called by one thread, every 100 ms; costs one
    /// load when nothing is due.
    pub fn sweep(&self, now: Instant, rng: &mut fastrand::Rng) -> Vec<Event> {
        if ticks(now) < self.due.load(Relaxed) {
            return Vec::new();
        }
        let mut events = Vec::new();
        let mut inner = self.lock();
        let Some(interval) = inner.settings.as_ref().map(|s| s.interval) else {
            self.due.store(u64::MAX, Relaxed);
            return events;
        };
        for host in inner.hosts.values() {
            if matches!(host.standing(), Standing::Ejected { until } if until <= now) {
                host.set_trial(now);
                self.changed();
            }
        }
        match inner.next_interval {
            Some(next) if now < next => {}
            Some(_) => {
                forget_old_ejections(&inner, interval, now);
                let found =
                    (inner.settings.as_ref()).map(|settings| rates::outliers(settings, inner.hosts.values()));
                for (address, reason) in found.unwrap_or_default() {
                    if let Some(host) = inner.hosts.get(&address) {
                        events.extend(self.eject(&inner, host, reason, now, rng));
                    }
                }
                inner.next_interval = Some(now + interval);
            }
            None => inner.next_interval = Some(now + interval),
        }
        let expiry = inner.hosts.values().filter_map(|h| match h.standing() {
            Standing::Ejected { until } => Some(until),
            _ => None,
        });
        let due = expiry.chain(inner.next_interval).min();
        self.due.store(due.map_or(u64::MAX, ticks), Relaxed);
        events
    }

    /// An active check of `address` passed: an endpoint that could not be reached is back at once. One that is out for
    /// its answers is so only where the policy says it, since the check does not ask what requests ask.
    pub fn probe_passed(&self, address: SocketAddr, now: Instant) -> Option<Event> {
        let inner = self.lock();
        let unejects = inner.settings.as_ref()?.health_check_unejects;
        let counts = |host: &&Arc<Host>| !host.is_in() && (unejects || host.origin() == Origin::Local);
        let host = inner.hosts.get(&address).filter(counts)?;
        Some(self.restore(host, ReturnedBy::Probe, now))
    }

    /// What every request does to an endpoint that is in.
    fn count(&self, host: &Host, verdict: Verdict, now: Instant, rng: &mut fastrand::Rng) -> Option<Event> {
        let limits = &self.limits;
        let split = limits.split_local_origin.load(Relaxed);
        if limits.rates.load(Relaxed) {
            if split {
                host.reached.count(verdict != Verdict::LocalError);
            }
            if verdict != Verdict::LocalError || !split {
                host.answers.count(verdict == Verdict::Success);
            }
        }
        let failed = |gateway: bool, origin: Origin| {
            host.failed(origin);
            let gateway_outlier = if gateway {
                host.gateway
                    .reaches(limits.consecutive_gateway_errors.load(Relaxed))
            } else {
                host.gateway.end();
                false
            };
            let outlier = host.all_5xx.reaches(limits.consecutive_5xx.load(Relaxed));
            match (outlier, gateway_outlier) {
                (_, true) => Some(EjectReason::ConsecutiveGatewayErrors),
                (true, false) => Some(EjectReason::Consecutive5xx),
                (false, false) => None,
            }
        };
        let reason = match verdict {
            Verdict::Success => {
                for streak in [&host.all_5xx, &host.gateway, &host.local] {
                    streak.end();
                }
                None
            }
            Verdict::Failure5xx { gateway } => {
                host.local.end();
                failed(gateway, Origin::Answers)
            }
            Verdict::LocalError if split => host
                .local
                .reaches(limits.consecutive_local_errors.load(Relaxed))
                .then_some(EjectReason::ConsecutiveLocalErrors),
            // As the 503 or 504 that the caller gets for it.
            Verdict::LocalError => failed(true, Origin::Local),
        };
        let inner = self.lock_if(reason.is_some())?;
        self.eject(&inner, inner.hosts.get(&host.address())?, reason?, now, rng)
    }

    /// The trial of a half-open endpoint has an outcome.
    fn decide(
        &self,
        host: &Host,
        verdict: Verdict,
        trial: Option<Trial>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Event> {
        let inner = self.lock();
        let settings = inner.settings.as_ref()?;
        let host = inner.hosts.get(&host.address())?;
        let decides = match trial {
            Some(trial) => host.waits_for(trial),
            None => host.standing() == Standing::Trial,
        };
        if !decides {
            return None;
        }
        Some(match verdict {
            Verdict::Success => self.restore(host, ReturnedBy::Trial, now),
            Verdict::LocalError => {
                self.put_out(settings, host, (EjectReason::Trial, Origin::Local), now, rng)
            }
            Verdict::Failure5xx { .. } => {
                self.put_out(settings, host, (EjectReason::Trial, Origin::Answers), now, rng)
            }
        })
    }

    /// Ejects `host` if it is in and the bound allows one more.
    fn eject(
        &self,
        inner: &Inner,
        host: &Host,
        reason: EjectReason,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Event> {
        let settings = inner.settings.as_ref()?;
        let all = inner.hosts.len();
        let out = inner.hosts.values().filter(|h| !h.is_in()).count();
        let within = (out + 1) * 100 <= usize::from(settings.max_ejection_percent) * all;
        let only_one = out == 0 && all >= 2;
        let origin = match reason {
            EjectReason::Consecutive5xx | EjectReason::ConsecutiveGatewayErrors => host.origin(),
            EjectReason::ConsecutiveLocalErrors => Origin::Local,
            EjectReason::SuccessRate | EjectReason::FailurePercentage | EjectReason::Trial => Origin::Answers,
        };
        (host.is_in() && (within || only_one))
            .then(|| self.put_out(settings, host, (reason, origin), now, rng))
    }

    fn put_out(
        &self,
        settings: &OutlierDetection,
        host: &Host,
        (reason, origin): (EjectReason, Origin),
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Event {
        let (times, time) = ejection(settings, host.times_ejected());
        let jitter = settings.ejection_jitter.mul_f64(rng.f64());
        let until = now + time + jitter;
        host.set_ejected((reason, origin), times, now, until);
        self.due.fetch_min(ticks(until), Relaxed);
        self.changed();
        Event {
            address: host.address(),
            kind: EventKind::Ejected { reason, until, times },
        }
    }

    fn restore(&self, host: &Host, how: ReturnedBy, now: Instant) -> Event {
        host.set_in(Some(now));
        self.changed();
        Event {
            address: host.address(),
            kind: EventKind::Returned { how },
        }
    }

    fn changed(&self) {
        // Who sees the new epoch sees the new standing.
        self.epoch.fetch_add(1, Release);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that panics runs under the lock; if it did, every word in there is still complete.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_if(&self, needed: bool) -> Option<MutexGuard<'_, Inner>> {
        needed.then(|| self.lock())
    }
}

/// The number of the next ejection in a row and how long it takes, without jitter. The number stops where the time
/// no longer grows, so that an endpoint that failed all night is not kept out all day.
fn ejection(settings: &OutlierDetection, before: u32) -> (u32, Duration) {
    let base = settings.base_ejection_time;
    let max = settings.max_ejection_time.max(base);
    let times = if base.saturating_mul(before) < max {
        before.saturating_add(1)
    } else {
        before.max(1)
    };
    (times, base.saturating_mul(times).min(max))
}

/// One ejection less in a row for each endpoint that was in for all of the interval.
fn forget_old_ejections(inner: &Inner, interval: Duration, now: Instant) {
    for host in inner.hosts.values().filter(|h| h.is_in()) {
        let quiet = (host.returned()).is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if quiet {
            host.set_times(host.times_ejected().saturating_sub(1));
        }
    }
}
