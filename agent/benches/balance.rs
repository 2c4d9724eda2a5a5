//! Nanoseconds per choice of an endpoint, its begin and its end: `cargo bench --bench balance`.

use std::{hint::black_box, rc::Rc, time::Duration};

use derny::{
    balance::{Balancer, EndpointLoad, Outliers, hash_key},
    model::{Algorithm, Endpoint, HashKey, LoadBalancer},
};

const CHOICES: u32 = 1_000_000;

fn main() {
    let key = HashKey::SourceAddress;
    let algorithms = [
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
    ];
    println!(
        "{:<14}{:>10}{:>14}{:>12}",
        "algorithm", "endpoints", "make (µs)", "choose (ns)"
    );
    for algorithm in algorithms {
        for n in [3u16, 100, 1000] {
            let (made, chosen) = measure(&algorithm, n);
            let nanos = chosen.as_secs_f64() * 1e9 / f64::from(CHOICES);
            println!(
                "{:<14}{n:>10}{:>14}{nanos:>12.1}",
                algorithm.as_str(),
                made.as_micros()
            );
        }
    }
}

/// How long it takes to make a balancer, and to choose a million times.
fn measure(algorithm: &Algorithm, n: u16) -> (Duration, Duration) {
    let mut rng = fastrand::Rng::with_seed(1);
    let outliers = Outliers::new(None);
    let now = tokio::time::Instant::now();
    let load = |i: u16| {
        let [high, low] = i.to_be_bytes();
        let endpoint = Endpoint::new(([10, 0, high, low], 80).into());
        EndpointLoad::new(&endpoint, outliers.host(endpoint.address), None, now.into_std())
    };
    let loads: Vec<Rc<EndpointLoad>> = (0..n).map(load).collect();
    let settings = LoadBalancer {
        algorithm: algorithm.clone(),
        ..LoadBalancer::default()
    };
    let begin = tokio::time::Instant::now();
    let mut balancer = Balancer::new(&settings, loads, None, &(), &mut rng);
    let made = begin.elapsed();
    let begin = tokio::time::Instant::now();
    for i in 0..CHOICES {
        let key = hash_key(&i.to_le_bytes());
        let chosen = balancer.choose(Some(key), &[], now.into_std(), &mut rng);
        if let Some(endpoint) = black_box(chosen) {
            endpoint.observe(Duration::from_millis(1), now.into_std());
            drop(endpoint.begin());
        }
    }
    (made, begin.elapsed())
}
