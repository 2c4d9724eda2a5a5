//! What one worker knows of one endpoint: weight, requests in flight, latency.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    latency::{Latency, Seen},
    outlier::{Event, Host, Outliers, ShownLatency, Trial, Verdict},
    silence::is_silence,
};
use crate::model::{Endpoint, EndpointState};

/// The least part of its share that an endpoint gets in slow start, so that it gets anything at all.
/// (Envoy, `min_weight_percent`.)
const LEAST_SHARE: f64 = 0.1;

/// Load and latency of an endpoint, as seen by one worker. Survives changes of its service.
#[derive(Debug)]
pub struct EndpointLoad {
    host: Arc<Host>,
    /// The host's, or that in its other family.
    address: SocketAddr,
    weight: Cell<u32>,
    zone: RefCell<Option<Arc<str>>>,
    state: Cell<EndpointState>,
    /// When this worker first saw it ready: the begin of its slow start.
    since: Cell<Instant>,
    /// Requests at it from all workers; `None`: no bound.
    max_requests: Cell<Option<u32>>,
    in_flight: Cell<u32>,
    latency: Cell<Latency>,
    /// Requests that it was chosen for, each counted for its weight. Only differences mean something.
    pub(super) turns: Cell<f64>,
    /// When the newest answer to this worker began.
    answered: Cell<Option<Instant>>,
    shown: Arc<ShownLatency>,
    /// A trial that [`super::Balancer::choose`] took, until the request begins.
    pub(super) trial: Cell<Option<Trial>>,
}

impl EndpointLoad {
    /// `host` is the endpoint's in the service port's [`Outliers`]; `max_requests` is
    /// `circuitBreaker.perEndpoint.maxRequests`.
    pub fn new(endpoint: &Endpoint, host: Arc<Host>, max_requests: Option<u32>, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            shown: host.shown_latency(),
            host,
            address: endpoint.address,
            weight: Cell::new(endpoint.weight.max(1)),
            zone: RefCell::new(endpoint.zone.clone()),
            state: Cell::new(endpoint.state),
            since: Cell::new(now),
            max_requests: Cell::new(max_requests),
            in_flight: Cell::new(0),
            latency: Cell::default(),
            turns: Cell::default(),
            answered: Cell::default(),
            trial: Cell::default(),
        })
    }

    /// Takes over what discovery or the policy now says. [`super::Balancer::follow`] must be called after it.
    pub fn follow(&self, endpoint: &Endpoint, max_requests: Option<u32>, now: Instant) {
        let was = self.state.replace(endpoint.state);
        if was != EndpointState::Ready && endpoint.state == EndpointState::Ready {
            self.since.set(now);
        }
        self.weight.set(endpoint.weight.max(1));
        self.zone.replace(endpoint.zone.clone());
        self.max_requests.set(max_requests);
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn weight(&self) -> u32 {
        self.weight.get()
    }

    pub fn zone(&self) -> Option<Arc<str>> {
        self.zone.borrow().clone()
    }

    pub fn state(&self) -> EndpointState {
        self.state.get()
    }

    /// What all workers know of it.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Requests of this worker.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Whether its own bound is reached, by the requests of all workers.
    pub fn is_full(&self) -> bool {
        (self.max_requests.get()).is_some_and(|max| self.host.in_flight() >= max)
    }

    /// What it usually takes to answer, in seconds; `None` before the first answer.
    pub fn latency(&self) -> Option<f64> {
        self.latency.get().usual()
    }

    /// Counts a request as in flight until the guard is dropped, whatever the endpoint's bound.
    pub fn begin(self: &Rc<Self>) -> InFlight {
        self.host.enter();
        self.entered()
    }

    /// [`EndpointLoad::begin`], unless the endpoint's own bound is reached: another worker may have taken the last
    /// place since this one chose.
    pub fn try_begin(self: &Rc<Self>) -> Option<InFlight> {
        match self.max_requests.get() {
            Some(max) => self.host.enter_below(max).then(|| self.entered()),
            None => Some(self.begin()),
        }
    }

    fn entered(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        let trial = self
            .trial
            .take()
            .and_then(|reserved| self.host.start_trial(reserved));
        InFlight {
            load: self.clone(),
            trial: Cell::new(trial),
        }
    }

    /// An answer took `took`, ending at `now`.
    pub fn observe(&self, took: Duration, now: Instant) {
        self.learn(self.latency.get().after_answer(took, now));
    }

    /// A failure (5xx or local) at `now`. It never makes the endpoint look faster.
    pub fn observe_failure(&self, now: Instant) {
        self.learn(self.latency.get().after_failure(now));
    }

    /// An answer begins, whatever it is.
    pub fn answered(&self, now: Instant) {
        self.answered.set(Some(now));
    }

    /// A request that it had since `started` is given up without an answer. Whether it was silent meanwhile, beside
    /// endpoints that take `others` seconds: then it has failed.
    pub fn given_up(&self, started: Instant, now: Instant, others: Option<f64>) -> bool {
        let waited = now.saturating_duration_since(started);
        let answers = self.answered.get().is_some_and(|at| at > started);
        let silent = !answers && is_silence(waited, others);
        if silent {
            self.observe_failure(now);
        }
        silent
    }

    fn learn(&self, latency: Latency) {
        self.latency.set(latency);
        self.shown.set(latency.usual());
    }

    /// Forgets the latencies of before it last came back from an ejection. It was out for them, and would be out for as
    /// long again.
    pub(super) fn begin_anew(&self) {
        if let (Some(returned), Some(learned)) = (self.host.returned(), self.latency.get().learned())
            && learned <= returned
        {
            self.latency.set(Latency::default());
        }
    }

    /// The part of its share that slow start leaves it now, above 0, up to 1.
    pub(super) fn ramp(&self, window: Duration, now: Instant) -> f64 {
        if window.is_zero() {
            return 1.0;
        }
        let since = match self.host.returned() {
            Some(returned) => returned.max(self.since.get()),
            None => self.since.get(),
        };
        let age = now.saturating_duration_since(since);
        if age >= window {
            return 1.0;
        }
        (age.as_secs_f64() / window.as_secs_f64()).max(LEAST_SHARE)
    }

    /// What a choice is made by.
    pub(super) fn seen(&self, now: Instant) -> Seen {
        self.latency.get().seen(now)
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct InFlight {
    load: Rc<EndpointLoad>,
    /// Set while this request is its endpoint's one trial.
    trial: Cell<Option<Trial>>,
}

impl InFlight {
    pub fn endpoint(&self) -> &Rc<EndpointLoad> {
        &self.load
    }

    /// Whether this request decides if its endpoint comes back.
    pub fn is_trial(&self) -> bool {
        self.trial.get().is_some()
    }

    /// How the request ended; to be called once. Prefer this to [`Outliers::record`]: it knows whether this request
    /// was the trial of an ejected endpoint, or an old one whose outcome says nothing about it any more.
    pub fn record(
        &self,
        outliers: &Outliers,
        verdict: Verdict,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Event> {
        outliers.judge(&self.load.host, verdict, self.trial.take(), now, rng)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(trial) = self.trial.take() {
            // Nobody learned anything (the caller went away): another request may try.
            self.load.host.give_back_trial(trial);
        }
        self.load.host.leave();
        self.load
            .in_flight
            .set(self.load.in_flight.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(max: Option<u32>) -> (Rc<EndpointLoad>, Instant) {
        let now = tokio::time::Instant::now().into_std();
        let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into());
        let host = Outliers::new(None).host(endpoint.address);
        (EndpointLoad::new(&endpoint, host, max, now), now)
    }

    #[test]
    fn who_is_silent_until_callers_give_up_has_failed() {
        let (load, start) = load(None);
        let later = start + Duration::from_millis(300);
        load.observe(Duration::from_millis(5), start);
        let before = load.latency();
        assert!(!load.given_up(start, start + Duration::from_millis(3), Some(0.005)));
        assert_eq!(load.latency(), before, "a caller in a hurry says nothing");
        assert!(load.given_up(start, later, Some(0.005)));
        assert!(load.latency() > before);
        load.answered(later);
        assert!(!load.given_up(start, later, Some(0.005)), "it answers somebody");
    }

    #[test]
    fn its_own_bound_counts_the_requests_of_all_workers() {
        let (one, now) = load(Some(2));
        let other = EndpointLoad::new(&Endpoint::new(one.address()), one.host().clone(), Some(2), now);
        let (first, second) = (one.try_begin(), other.try_begin());
        assert!(first.is_some() && second.is_some());
        assert!(one.is_full() && other.is_full());
        assert!(one.try_begin().is_none() && other.try_begin().is_none());
        assert_eq!(
            (one.in_flight(), other.in_flight(), one.host().in_flight()),
            (1, 1, 2)
        );
        drop(first);
        assert!(other.try_begin().is_some());
    }

    #[test]
    fn what_is_shown_is_the_mean_of_the_workers_that_know() {
        let (one, now) = load(None);
        let worker = || EndpointLoad::new(&Endpoint::new(one.address()), one.host().clone(), None, now);
        let (other, idle) = (worker(), worker());
        assert_eq!(one.host().latency(), None);
        one.observe(Duration::from_millis(10), now);
        other.observe(Duration::from_millis(30), now);
        assert_eq!(one.host().latency(), Some(Duration::from_millis(20)));
        drop((other, idle));
        assert_eq!(one.host().latency(), Some(Duration::from_millis(10)));
    }

    #[test]
    fn slow_start_grows_from_a_tenth_and_begins_anew_with_each_return() {
        let (load, start) = load(None);
        let window = Duration::from_secs(100);
        let at = |seconds| load.ramp(window, start + Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(5), at(50), at(100), at(500)],
            [0.1, 0.1, 0.5, 1.0, 1.0]
        );
        assert_eq!(load.ramp(Duration::ZERO, start), 1.0);
        let unhealthy = Endpoint {
            state: EndpointState::Unhealthy,
            ..Endpoint::new(load.address())
        };
        load.follow(&unhealthy, None, start + Duration::from_secs(200));
        load.follow(
            &Endpoint::new(load.address()),
            None,
            start + Duration::from_secs(300),
        );
        assert_eq!([at(300), at(350), at(400)], [0.1, 0.5, 1.0]);
    }
}
