//! Backend + load → one endpoint. Pure: `now` and `rng` are arguments, nothing here waits.

mod load;
mod p2c;
mod round_robin;

use std::{net::SocketAddr, rc::Rc, time::Instant};

pub use load::{EndpointLoad, InFlight};
use round_robin::RoundRobin;

use crate::model::Algorithm;

/// Chooses among the endpoints of one service port, for one worker.
///
/// Each worker balances by itself over all endpoints: no state is shared between threads, and a sum of fair
/// choices is fair.
#[derive(Debug)]
pub enum Balancer {
    PeakEwma,
    LeastRequest,
    RoundRobin(RoundRobin),
}

impl Balancer {
    /// `endpoints` are those that later calls of [`Balancer::choose`] will be given.
    pub fn new(algorithm: &Algorithm, endpoints: &[Rc<EndpointLoad>], rng: &mut fastrand::Rng) -> Self {
        match algorithm {
            Algorithm::PeakEwma => Self::PeakEwma,
            Algorithm::Random | Algorithm::RingHash { .. } | Algorithm::Maglev { .. } => Self::LeastRequest,
            Algorithm::LeastRequest => Self::LeastRequest,
            Algorithm::RoundRobin => {
                Self::RoundRobin(RoundRobin::new(endpoints.iter().map(|e| e.weight()), rng))
            }
        }
    }

    /// The index of the endpoint for the next request; `None` when every endpoint is in `tried`.
    ///
    /// `tried` are addresses that failed this request already.
    pub fn choose(
        &mut self,
        endpoints: &[Rc<EndpointLoad>],
        tried: &[SocketAddr],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let usable = |index: usize| {
            endpoints
                .get(index)
                .is_some_and(|e| !tried.contains(&e.address()))
        };
        match self {
            Self::PeakEwma => p2c::choose(endpoints.len(), usable, |i| endpoints[i].latency_cost(now), rng),
            Self::LeastRequest => p2c::choose(endpoints.len(), usable, |i| endpoints[i].request_cost(), rng),
            Self::RoundRobin(turns) => turns.next(usable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(weights: &[u32]) -> Vec<Rc<EndpointLoad>> {
        (1u8..)
            .zip(weights)
            .map(|(i, w)| EndpointLoad::new(([10, 0, 0, i], 80).into(), *w))
            .collect()
    }

    /// How often each endpoint is chosen in `n` choices, nothing being in flight.
    fn spread(algorithm: &Algorithm, weights: &[u32], n: usize) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let endpoints = endpoints(weights);
        let mut balancer = Balancer::new(algorithm, &endpoints, &mut rng);
        let now = tokio::time::Instant::now().into_std();
        let mut counts = vec![0; weights.len()];
        for _ in 0..n {
            counts[balancer.choose(&endpoints, &[], now, &mut rng).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_exact() {
        assert_eq!(spread(&Algorithm::RoundRobin, &[1, 1, 1], 300), [100, 100, 100]);
        assert_eq!(spread(&Algorithm::RoundRobin, &[3, 1], 400), [300, 100]);
    }

    #[test]
    fn idle_endpoints_are_chosen_evenly_by_the_random_ones() {
        for algorithm in [Algorithm::PeakEwma, Algorithm::LeastRequest] {
            for count in spread(&algorithm, &[1, 1, 1], 3000) {
                assert!((900..1100).contains(&count), "{algorithm:?}: {count} of 1000");
            }
        }
    }

    #[test]
    fn an_endpoint_that_failed_this_request_is_not_chosen_again() {
        for algorithm in [
            Algorithm::PeakEwma,
            Algorithm::LeastRequest,
            Algorithm::RoundRobin,
        ] {
            let mut rng = fastrand::Rng::with_seed(1);
            let endpoints = endpoints(&[1, 1, 1]);
            let mut balancer = Balancer::new(&algorithm, &endpoints, &mut rng);
            let now = tokio::time::Instant::now().into_std();
            let mut tried = Vec::new();
            while let Some(i) = balancer.choose(&endpoints, &tried, now, &mut rng) {
                assert!(!tried.contains(&endpoints[i].address()));
                tried.push(endpoints[i].address());
            }
            assert_eq!(tried.len(), 3, "{algorithm:?} gave up before it had tried all");
        }
    }

    #[test]
    fn the_busy_endpoint_gets_less() {
        for algorithm in [Algorithm::PeakEwma, Algorithm::LeastRequest] {
            let mut rng = fastrand::Rng::with_seed(3);
            let endpoints = endpoints(&[1, 1]);
            let now = tokio::time::Instant::now().into_std();
            for e in &endpoints {
                e.observe(std::time::Duration::from_millis(1), now);
            }
            let _busy: Vec<_> = (0..5).map(|_| endpoints[0].begin()).collect();
            let mut balancer = Balancer::new(&algorithm, &endpoints, &mut rng);
            for _ in 0..100 {
                assert_eq!(balancer.choose(&endpoints, &[], now, &mut rng), Some(1));
            }
        }
    }
}
