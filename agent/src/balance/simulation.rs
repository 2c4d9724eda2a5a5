//! A seeded simulation: workers, endpoints that fail, hang and recover, and what must hold after every step.

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration, time::Instant};

use super::{
    tests::{address, algorithms, start},
    *,
};
use crate::model::{CircuitBreaking, Endpoint, LoadBalancer, OutlierDetection, RetryBudget};

const ENDPOINTS: usize = 7;
const WORKERS: usize = 3;
const MAX_REQUESTS: u32 = 40;
const MAX_AT_ONE: u32 = 8;
const MAX_EJECTED_PERCENT: u8 = 40;
const STEP: Duration = Duration::from_millis(20);

/// How an endpoint behaves at the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    Fails,
    Refuses,
    Hangs,
}

struct Request {
    took: Duration,
    ends: Instant,
    verdict: Option<Verdict>,
    in_flight: InFlight,
    _permit: Permit,
}

struct Worker {
    balancer: Balancer,
    loads: Vec<Rc<EndpointLoad>>,
    requests: Vec<Request>,
}

struct World {
    now: Instant,
    rng: fastrand::Rng,
    moods: [Mood; ENDPOINTS],
    /// Nobody's mood changes any more.
    calm: bool,
    outliers: Outliers,
    breaker: Arc<Breaker>,
    workers: Vec<Worker>,
    ejections: usize,
    returns: usize,
    refused: usize,
    trials: usize,
}

impl World {
    fn new(settings: &LoadBalancer, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = start();
        let detection = OutlierDetection {
            consecutive_5xx: 3,
            base_ejection_time: Duration::from_secs(2),
            max_ejection_time: Duration::from_secs(6),
            ejection_jitter: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            max_ejection_percent: MAX_EJECTED_PERCENT,
            ..OutlierDetection::default()
        };
        let outliers = Outliers::new(Some(detection.clone()));
        outliers.follow(Some(&detection), (0..ENDPOINTS).map(address));
        let breaking = CircuitBreaking {
            max_requests: Some(MAX_REQUESTS),
            ..CircuitBreaking::default()
        };
        let load = |n| {
            let host = outliers.host(address(n));
            EndpointLoad::new(&Endpoint::new(address(n)), host, Some(MAX_AT_ONE), now)
        };
        let workers = (0..WORKERS)
            .map(|_| {
                let loads: Vec<_> = (0..ENDPOINTS).map(load).collect();
                Worker {
                    balancer: Balancer::new(settings, loads.clone(), None, &(), &mut rng),
                    loads,
                    requests: Vec::new(),
                }
            })
            .collect();
        Self {
            now,
            rng,
            moods: [Mood::Good; ENDPOINTS],
            calm: false,
            breaker: Arc::new(Breaker::new(&breaking, RetryBudget::default())),
            workers,
            outliers,
            ejections: 0,
            returns: 0,
            refused: 0,
            trials: 0,
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        if !self.calm && self.rng.u8(..) < 8 {
            let which = self.rng.usize(..ENDPOINTS);
            self.moods[which] =
                [Mood::Good, Mood::Good, Mood::Fails, Mood::Refuses, Mood::Hangs][self.rng.usize(..5)];
        }
        let events = self.outliers.sweep(self.now, &mut self.rng);
        assert!(events.is_empty(), "no interval detector is on: {events:?}");
        for worker in 0..WORKERS {
            self.end_requests(worker);
            for _ in 0..self.rng.usize(..4) {
                self.request(worker);
            }
            self.check();
        }
    }

    fn request(&mut self, worker: usize) {
        let Some(permit) = self.breaker.request() else {
            assert_eq!(self.in_flight(), MAX_REQUESTS, "refused below the bound");
            self.refused += 1;
            return;
        };
        let key = self.rng.bool().then(|| self.rng.u64(..));
        let trials_before: Vec<bool> = self.trials_running();
        let Worker {
            balancer,
            loads,
            requests,
        } = &mut self.workers[worker];
        let Some(endpoint) = balancer.choose(key, &[], self.now, &mut self.rng) else {
            let open = loads.iter().filter(|l| l.host().is_in() && !l.is_full()).count();
            assert_eq!(open, 0, "nobody was chosen though some could");
            return;
        };
        let Some(in_flight) = endpoint.try_begin() else {
            panic!("{} was chosen and is full", endpoint.address());
        };
        let which = loads.iter().position(|l| Rc::ptr_eq(l, &endpoint)).unwrap();
        if in_flight.is_trial() {
            self.trials += 1;
            assert!(!trials_before[which], "a second trial of {which}");
            assert_eq!(endpoint.host().standing(), Standing::Trial);
        } else {
            assert!(
                endpoint.host().is_in() || balancer.candidates(self.now)[which].panic,
                "{which} is out and got a request that is no trial"
            );
        }
        let (took, verdict) = match self.moods[which] {
            Mood::Good => (self.rng.u64(1..200), Some(Verdict::Success)),
            Mood::Fails => (self.rng.u64(1..20), Some(Verdict::Failure5xx { gateway: false })),
            Mood::Refuses => (0, Some(Verdict::LocalError)),
            // The per-try timeout, or the caller's patience, of which nobody learns anything.
            Mood::Hangs => (1000, self.rng.bool().then_some(Verdict::LocalError)),
        };
        let took = Duration::from_millis(took);
        requests.push(Request {
            took,
            ends: self.now + took,
            verdict,
            in_flight,
            _permit: permit,
        });
    }

    fn end_requests(&mut self, worker: usize) {
        let (ended, running) = (self.workers[worker].requests.drain(..)).partition(|r| r.ends <= self.now);
        self.workers[worker].requests = running;
        let ended: Vec<Request> = ended;
        for request in ended {
            let Some(verdict) = request.verdict else { continue };
            let endpoint = request.in_flight.endpoint();
            match verdict {
                Verdict::Success => endpoint.observe(request.took, self.now),
                _ => endpoint.observe_failure(self.now),
            }
            let before = self.out();
            let event = (request.in_flight).record(&self.outliers, verdict, self.now, &mut self.rng);
            let after = self.out();
            match event.map(|e| e.kind) {
                Some(EventKind::Ejected {
                    reason: EjectReason::Trial,
                    ..
                }) => assert_eq!(before, after),
                Some(EventKind::Ejected { .. }) => {
                    self.ejections += 1;
                    assert_eq!(before + 1, after);
                }
                Some(EventKind::Returned { .. }) => {
                    self.returns += 1;
                    assert_eq!(before, after + 1);
                }
                None => assert_eq!(before, after),
            }
        }
    }

    /// What must hold at all times.
    fn check(&self) {
        let in_flight = self.in_flight();
        assert!(in_flight <= MAX_REQUESTS);
        assert_eq!(self.breaker.levels().requests.now, in_flight, "a permit leaked");
        assert!(self.out() * 100 <= usize::from(MAX_EJECTED_PERCENT) * ENDPOINTS);
        let mut at: HashMap<usize, u32> = HashMap::new();
        for worker in &self.workers {
            for (n, load) in worker.loads.iter().enumerate() {
                let mine = worker
                    .requests
                    .iter()
                    .filter(|r| Rc::ptr_eq(r.in_flight.endpoint(), load))
                    .count();
                assert_eq!(load.in_flight() as usize, mine);
                *at.entry(n).or_default() += load.in_flight();
            }
        }
        for n in 0..ENDPOINTS {
            let host = self.outliers.host(address(n));
            assert_eq!(host.in_flight(), at[&n]);
            assert!(host.in_flight() <= MAX_AT_ONE);
            let trials = self
                .running()
                .filter(|r| r.in_flight.is_trial() && r.in_flight.endpoint().address() == address(n));
            assert!(trials.count() <= 1, "two trials of {n}");
        }
    }

    fn running(&self) -> impl Iterator<Item = &Request> {
        self.workers.iter().flat_map(|w| &w.requests)
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.running().count()).unwrap()
    }

    fn out(&self) -> usize {
        (0..ENDPOINTS)
            .filter(|n| !self.outliers.host(address(*n)).is_in())
            .count()
    }

    fn trials_running(&self) -> Vec<bool> {
        let trial = |n| {
            self.running()
                .any(|r| r.in_flight.is_trial() && r.in_flight.endpoint().address() == address(n))
        };
        (0..ENDPOINTS).map(trial).collect()
    }
}

#[test]
fn nothing_is_lost_and_no_bound_is_broken_whatever_happens() {
    for algorithm in algorithms() {
        for (seed, panic_threshold) in [(1, 50), (2, 50), (3, 70), (4, 0)] {
            let settings = LoadBalancer {
                algorithm: algorithm.clone(),
                panic_threshold,
                slow_start: Duration::from_secs(seed % 3),
                ..LoadBalancer::default()
            };
            let mut world = World::new(&settings, seed);
            for _ in 0..10_000 {
                world.step();
            }
            let name = algorithm.as_str();
            let World {
                ejections,
                returns,
                refused,
                trials,
                ..
            } = world;
            // Otherwise nothing was shown.
            assert!(
                ejections > 1 && returns > 1 && refused > 1 && trials >= returns,
                "{name} {seed}: {ejections} ejections, {returns} returns, {trials} trials, {refused} refused"
            );
            // When all are well again, all come back, as long as there is traffic.
            (world.moods, world.calm) = ([Mood::Good; ENDPOINTS], true);
            for _ in 0..2_000 {
                world.step();
            }
            assert_eq!(world.out(), 0, "{name} {seed}");
            for worker in &mut world.workers {
                worker.requests.clear();
            }
            world.check();
        }
    }
}
