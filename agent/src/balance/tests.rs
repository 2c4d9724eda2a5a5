//! The balancer as its caller sees it.

mod shares;
mod trials;
mod zones;

use std::{collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration, time::Instant};

use super::*;
use crate::model::{Algorithm, Endpoint, EndpointState, HashKey, LoadBalancer, OutlierDetection, ZoneAware};

pub(super) fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(super) fn address(n: usize) -> SocketAddr {
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    ([10, 0, high, low], 80).into()
}

pub(super) fn algorithms() -> [Algorithm; 6] {
    let key = HashKey::SourceAddress;
    [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::RingHash {
            key: key.clone(),
            min_ring_size: 1024,
        },
        Algorithm::Maglev {
            key,
            table_size: 65_537,
        },
    ]
}

/// A balancer with a clock, and what it shares with others.
struct Bench {
    outliers: Outliers,
    settings: LoadBalancer,
    endpoints: Vec<Endpoint>,
    loads: Vec<Rc<EndpointLoad>>,
    balancer: Balancer,
    now: Instant,
    rng: fastrand::Rng,
}

impl Bench {
    fn new(settings: LoadBalancer, endpoints: Vec<Endpoint>) -> Self {
        let now = start();
        let mut rng = fastrand::Rng::with_seed(7);
        let outliers = Outliers::new(Some(OutlierDetection {
            max_ejection_percent: 100,
            ..OutlierDetection::default()
        }));
        let loads: Vec<_> = endpoints
            .iter()
            .map(|e| EndpointLoad::new(e, outliers.host(e.address), None, now))
            .collect();
        Self {
            balancer: Balancer::new(&settings, loads.clone(), Some(&"a".into()), &(), &mut rng),
            outliers,
            settings,
            endpoints,
            loads,
            now,
            rng,
        }
    }

    fn of(algorithm: Algorithm, n: usize) -> Self {
        let settings = LoadBalancer {
            algorithm,
            ..LoadBalancer::default()
        };
        Self::new(settings, (0..n).map(|n| Endpoint::new(address(n))).collect())
    }

    fn choose(&mut self, key: Option<u64>, tried: &[SocketAddr]) -> Option<usize> {
        let chosen = self.balancer.choose(key, tried, self.now, &mut self.rng)?;
        self.loads.iter().position(|load| Rc::ptr_eq(load, &chosen))
    }

    /// How often each endpoint is chosen in `n` choices by random keys, nothing being in flight.
    fn spread(&mut self, n: usize) -> Vec<f64> {
        let mut counts = vec![0.0; self.loads.len()];
        for _ in 0..n {
            let key = self.rng.u64(..);
            if let Some(i) = self.choose(Some(key), &[]) {
                counts[i] += 1.0;
            }
        }
        counts
    }

    fn set(&mut self, n: usize, state: EndpointState) {
        self.endpoints[n].state = state;
        self.loads[n].follow(&self.endpoints[n], None, self.now);
        self.balancer.follow(
            &self.settings,
            self.loads.clone(),
            Some(&"a".into()),
            &(),
            &mut self.rng,
        );
    }

    fn eject(&mut self, n: usize) {
        let host = self.loads[n].host().clone();
        for _ in 0..5 {
            self.outliers
                .record(&host, Verdict::LocalError, self.now, &mut self.rng);
        }
        assert!(!host.is_in());
    }

    fn pass(&mut self, duration: Duration) {
        self.now += duration;
        self.outliers.sweep(self.now, &mut self.rng);
    }
}

/// Six standard deviations of a fair draw, and `slack` of the share for a table's own unevenness.
fn assert_share(count: f64, n: usize, share: f64, slack: f64, what: &str) {
    let n = n as f64;
    let bound = 6.0 * (n * share * (1.0 - share)).sqrt() + slack * n * share;
    assert!(
        (count - n * share).abs() <= bound,
        "{what}: {count} where {} were due, give or take {bound}",
        n * share
    );
}

#[test]
fn idle_endpoints_get_their_weights_by_every_algorithm() {
    for weights in [vec![1, 1, 1], vec![3, 1], vec![5, 2, 2, 1]] {
        for algorithm in algorithms() {
            let name = format!("{} {weights:?}", algorithm.as_str());
            let settings = LoadBalancer {
                algorithm,
                ..LoadBalancer::default()
            };
            let weighted = |(n, weight): (usize, &u32)| Endpoint {
                weight: *weight,
                ..Endpoint::new(address(n))
            };
            let mut bench = Bench::new(settings, weights.iter().enumerate().map(weighted).collect());
            let total: u32 = weights.iter().sum();
            for (count, weight) in bench.spread(20_000).into_iter().zip(&weights) {
                assert_share(count, 20_000, f64::from(*weight) / f64::from(total), 0.1, &name);
            }
        }
    }
}

#[test]
fn an_endpoint_that_failed_this_request_is_not_chosen_again() {
    for algorithm in algorithms() {
        let name = algorithm.as_str();
        let mut bench = Bench::of(algorithm, 5);
        for key in 0..50 {
            let mut tried = Vec::new();
            while let Some(i) = bench.choose(Some(key), &tried) {
                assert!(!tried.contains(&address(i)), "{name}");
                tried.push(address(i));
            }
            assert_eq!(tried.len(), 5, "{name} gave up before it had tried all");
        }
    }
}

#[test]
fn the_busy_endpoint_gets_less() {
    for algorithm in [Algorithm::PeakEwma, Algorithm::LeastRequest] {
        let mut bench = Bench::of(algorithm, 2);
        for load in &bench.loads {
            load.observe(Duration::from_millis(1), bench.now);
        }
        let _busy: Vec<_> = (0..5).map(|_| bench.loads[0].begin()).collect();
        for _ in 0..100 {
            assert_eq!(bench.choose(None, &[]), Some(1));
        }
    }
}

#[test]
fn the_slow_endpoint_gets_less_by_peak_ewma_and_recovers() {
    let mut bench = Bench::of(Algorithm::PeakEwma, 10);
    let mut phase = |latency: Duration| {
        let mut of_first = 0;
        for _ in 0..20_000 {
            bench.now += Duration::from_millis(10);
            let i = bench.choose(None, &[]).unwrap();
            of_first += usize::from(i == 0);
            let took = if i == 0 {
                latency
            } else {
                Duration::from_millis(10)
            };
            bench.loads[i].observe(took, bench.now);
        }
        of_first
    };
    let slow = phase(Duration::from_millis(500));
    // It is looked at again every 10 s.
    assert!((1..200).contains(&slow), "{slow} of 20,000 to the slow one");
    phase(Duration::from_millis(10));
    let equal = phase(Duration::from_millis(10));
    assert!(
        (1_600..2_400).contains(&equal),
        "{equal} of 20,000 when it is as fast as the others"
    );
}

#[test]
fn the_same_key_goes_to_the_same_endpoint_from_every_worker() {
    for algorithm in &algorithms()[4..] {
        let mut one = Bench::of(algorithm.clone(), 10);
        let mut other = Bench::of(algorithm.clone(), 10);
        other.loads.reverse();
        other.balancer = Balancer::new(&other.settings, other.loads.clone(), None, &(), &mut other.rng);
        for key in 0..1000 {
            let key = hash_key(format!("user-{key}").as_bytes());
            let i = one.choose(Some(key), &[]).unwrap();
            assert_eq!(
                other.choose(Some(key), &[]),
                Some(9 - i),
                "{}",
                algorithm.as_str()
            );
        }
        assert!(one.spread(1000).iter().all(|n| *n > 0.0));
    }
}

#[test]
fn a_request_without_a_key_goes_anywhere() {
    for algorithm in &algorithms()[4..] {
        let mut bench = Bench::of(algorithm.clone(), 4);
        let mut counts = [0.0; 4];
        for _ in 0..4000 {
            counts[bench.choose(None, &[]).unwrap()] += 1.0;
        }
        for count in counts {
            assert_share(count, 4000, 0.25, 0.0, algorithm.as_str());
        }
    }
}

#[test]
fn an_ejection_moves_only_the_keys_of_the_ejected_and_spreads_them() {
    for algorithm in &algorithms()[4..] {
        let mut bench = Bench::of(algorithm.clone(), 10);
        let keys: Vec<u64> = (0..10_000u64).map(|key| hash_key(&key.to_le_bytes())).collect();
        let before: Vec<_> = keys
            .iter()
            .map(|key| bench.choose(Some(*key), &[]).unwrap())
            .collect();
        bench.eject(3);
        let mut heirs: HashMap<usize, usize> = HashMap::new();
        for (key, before) in keys.iter().zip(&before) {
            let after = bench.choose(Some(*key), &[]).unwrap();
            if *before == 3 {
                *heirs.entry(after).or_default() += 1;
            } else {
                assert_eq!(after, *before, "{}", algorithm.as_str());
            }
        }
        assert!(
            heirs.len() == 9 && !heirs.contains_key(&3),
            "{}: {heirs:?}",
            algorithm.as_str()
        );
        bench.outliers.probe_passed(address(3), bench.now);
        for (key, before) in keys.iter().zip(&before) {
            assert_eq!(bench.choose(Some(*key), &[]), Some(*before), "all come back");
        }
    }
}

#[test]
fn ejected_unhealthy_and_terminating_endpoints_get_nothing() {
    for algorithm in algorithms() {
        let name = algorithm.as_str();
        let mut bench = Bench::of(algorithm, 8);
        bench.eject(0);
        bench.set(1, EndpointState::Unhealthy);
        bench.set(2, EndpointState::Terminating);
        let counts = bench.spread(2000);
        assert_eq!(counts[..3], [0.0; 3], "{name}");
        assert!(counts[3..].iter().all(|n| *n > 100.0), "{name}: {counts:?}");
        bench.set(1, EndpointState::Ready);
        bench.outliers.probe_passed(address(0), bench.now);
        let counts = bench.spread(2000);
        assert!(counts[0] > 100.0 && counts[1] > 100.0, "{name}: {counts:?}");
    }
}

#[test]
fn in_panic_all_are_used_but_not_those_that_go_away() {
    for algorithm in algorithms() {
        let name = algorithm.as_str();
        let mut bench = Bench::of(algorithm, 5);
        bench.set(4, EndpointState::Terminating);
        bench.eject(0);
        bench.set(1, EndpointState::Unhealthy);
        // Two of four: exactly the threshold is no panic.
        assert_eq!(bench.spread(500)[..2], [0.0; 2], "{name}");
        assert!(!bench.balancer.candidates(bench.now)[0].panic);
        bench.eject(2);
        let counts = bench.spread(2000);
        assert!(counts[..4].iter().all(|n| *n > 100.0), "{name}: {counts:?}");
        assert_eq!(counts[4], 0.0, "{name}");
        let candidates = bench.balancer.candidates(bench.now);
        assert!(candidates[0].panic && candidates[0].takes && !candidates[4].takes);
        for n in 0..4 {
            bench.set(n, EndpointState::Terminating);
        }
        assert!(
            bench.spread(2000).iter().all(|n| *n > 100.0),
            "{name}: all go away, so all are used"
        );
    }
}

#[test]
fn without_a_panic_threshold_nobody_usable_means_nobody() {
    let settings = LoadBalancer {
        panic_threshold: 0,
        ..LoadBalancer::default()
    };
    let mut bench = Bench::new(settings, (0..2).map(|n| Endpoint::new(address(n))).collect());
    bench.eject(0);
    bench.set(1, EndpointState::Unhealthy);
    assert_eq!(bench.choose(None, &[]), None);
    assert_eq!(Bench::of(Algorithm::PeakEwma, 0).choose(None, &[]), None);
}

#[test]
fn a_full_endpoint_is_passed_over_and_when_all_are_full_there_is_none() {
    for algorithm in algorithms() {
        let mut bench = Bench::of(algorithm, 3);
        for (load, endpoint) in bench.loads.iter().zip(&bench.endpoints) {
            load.follow(endpoint, Some(2), bench.now);
        }
        let mut held = Vec::new();
        for key in 0..6 {
            let i = bench.choose(Some(key), &[]).unwrap();
            held.push(bench.loads[i].try_begin().unwrap());
        }
        assert_eq!(bench.choose(Some(0), &[]), None);
        held.pop();
        assert!(bench.choose(Some(0), &[]).is_some());
    }
}

#[test]
fn what_is_known_survives_a_change_of_the_endpoints() {
    let mut bench = Bench::of(Algorithm::PeakEwma, 3);
    bench.loads[0].observe(Duration::from_secs(1), bench.now);
    let _request = bench.loads[1].begin();
    bench.eject(2);
    bench.endpoints.push(Endpoint::new(address(9)));
    let new = EndpointLoad::new(
        &bench.endpoints[3],
        bench.outliers.host(address(9)),
        None,
        bench.now,
    );
    bench.loads.push(new);
    bench.balancer.follow(
        &bench.settings,
        bench.loads.clone(),
        Some(&"a".into()),
        &(),
        &mut bench.rng,
    );
    let candidates = bench.balancer.candidates(bench.now);
    assert_eq!(candidates[0].latency, Some(Duration::from_secs(1)));
    assert_eq!(candidates[1].in_flight, 1);
    assert_eq!(candidates[2].reason, Some(EjectReason::Consecutive5xx));
    assert!(!candidates[2].takes && candidates[3].takes);
}
