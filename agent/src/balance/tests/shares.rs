//! Latency, noise and shares: callers that send at a steady pace, and endpoints that answer after a time.

use std::cell::Cell;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(10);

/// How long an endpoint takes, in milliseconds; `None`: the connection is refused.
type Takes<'a> = dyn Fn(usize, Duration, &mut fastrand::Rng) -> Option<f64> + 'a;

/// A request that was sent.
struct Sent {
    endpoint: usize,
    at: Duration,
    took: f64,
}

/// Callers that each send so many requests a second for so long, at random moments.
struct Load {
    algorithm: Algorithm,
    endpoints: usize,
    callers: usize,
    rate: f64,
    lasts: Duration,
    seed: u64,
}

impl Load {
    fn of(endpoints: usize, callers: usize, rate: f64) -> Self {
        Self {
            algorithm: Algorithm::PeakEwma,
            endpoints,
            callers,
            rate,
            lasts: 120 * SECOND,
            seed: 1,
        }
    }

    fn run(&self, takes: &Takes) -> Vec<Sent> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let settings = LoadBalancer {
            algorithm: self.algorithm.clone(),
            ..LoadBalancer::default()
        };
        let begin = start();
        let outliers = Outliers::new(None);
        let mut callers: Vec<Balancer> = (0..self.callers)
            .map(|_| {
                let load = |n| {
                    let host = outliers.host(address(n));
                    EndpointLoad::new(&Endpoint::new(address(n)), host, None, begin)
                };
                let loads: Vec<_> = (0..self.endpoints).map(load).collect();
                Balancer::new(&settings, loads, None, &(), &mut rng)
            })
            .collect();
        let mut sent = Vec::new();
        let mut running: Vec<(Duration, Duration, bool, InFlight)> = Vec::new();
        let mut at = Duration::ZERO;
        while at < self.lasts {
            let (ended, rest) = running.drain(..).partition(|(until, ..)| *until <= at);
            running = rest;
            let mut ended: Vec<_> = ended;
            ended.sort_by_key(|(until, ..)| *until);
            for (until, took, answered, in_flight) in ended {
                let endpoint = in_flight.endpoint();
                match answered {
                    true => endpoint.observe(took, begin + until),
                    false => endpoint.observe_failure(begin + until),
                }
            }
            let caller = rng.usize(..self.callers);
            let mut tried = Vec::new();
            loop {
                let chosen = callers[caller]
                    .choose(None, &tried, begin + at, &mut rng)
                    .unwrap();
                let n = (0..self.endpoints)
                    .find(|n| address(*n) == chosen.address())
                    .unwrap();
                let took = takes(n, at, &mut rng);
                let lasts = Duration::from_secs_f64(took.unwrap_or(0.1) / 1000.0);
                running.push((at + lasts, lasts, took.is_some(), chosen.begin()));
                sent.push(Sent {
                    endpoint: n,
                    at,
                    took: took.unwrap_or_default(),
                });
                if took.is_some() || tried.len() + 1 == self.endpoints {
                    break;
                }
                tried.push(chosen.address());
            }
            // A Poisson process.
            at += Duration::from_secs_f64(-rng.f64().max(1e-9).ln() / (self.rate * self.callers as f64));
        }
        sent
    }
}

/// The smallest and the largest share of any endpoint in any window from `from` on, over an equal one.
fn extremes(sent: &[Sent], endpoints: usize, from: Duration) -> (f64, f64) {
    let (mut least, mut most) = (f64::MAX, 0f64);
    let mut begin = from;
    while begin + WINDOW <= sent.last().unwrap().at {
        let mut counts = vec![0f64; endpoints];
        for request in sent.iter().filter(|it| (begin..begin + WINDOW).contains(&it.at)) {
            counts[request.endpoint] += 1.0;
        }
        let fair = counts.iter().sum::<f64>() / endpoints as f64;
        for count in counts {
            (least, most) = (least.min(count / fair), most.max(count / fair));
        }
        begin += SECOND;
    }
    (least, most)
}

/// The share of `endpoint` from `from` until `until`, over an equal one.
fn share(sent: &[Sent], endpoints: usize, endpoint: usize, from: Duration, until: Duration) -> f64 {
    let all = sent.iter().filter(|it| (from..until).contains(&it.at));
    let own = all.clone().filter(|it| it.endpoint == endpoint).count();
    own as f64 * endpoints as f64 / all.count() as f64
}

fn p99(sent: &[Sent]) -> f64 {
    let mut took: Vec<f64> = sent.iter().map(|it| it.took).collect();
    took.sort_by(f64::total_cmp);
    took[took.len() * 99 / 100]
}

/// Around `median` milliseconds, a few times as much now and then.
fn noisy(median: f64, rng: &mut fastrand::Rng) -> f64 {
    let normal = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    median * (0.6 * normal).exp()
}

/// Twenty requests a second for each of few endpoints, or two hundred: nobody gets a fifth more or less than another.
#[test]
fn equal_endpoints_have_equal_shares() {
    let steady: &Takes = &|_, _, _| Some(2.0);
    let memoryless: &Takes = &|_, _, rng| Some(0.1 - 5.0 * rng.f64().max(1e-9).ln());
    let noise: &Takes = &|_, _, rng| Some(noisy(5.0, rng));
    // Every twentieth takes a hundred times as long.
    let tail: &Takes = &|_, _, rng| Some(noisy(5.0, rng) * if rng.u8(..20) == 0 { 100.0 } else { 1.0 });
    for (endpoints, callers, rate) in [
        (2, 1, 20.0),
        (3, 1, 20.0),
        (2, 5, 20.0),
        (3, 1, 1000.0),
        (10, 1, 50.0),
        (10, 5, 100.0),
        (100, 1, 1000.0),
    ] {
        for (name, takes) in [
            ("steady", steady),
            ("noise", noise),
            ("memoryless", memoryless),
            ("tail", tail),
        ] {
            let load = Load::of(endpoints, callers, rate);
            let (least, most) = extremes(&load.run(takes), endpoints, Duration::ZERO);
            println!("{endpoints} endpoints, {callers} callers of {rate}/s, {name}: {least:.2} to {most:.2}");
            assert!(
                least > 0.8 && most < 1.2,
                "{endpoints} endpoints, {callers} callers of {rate}/s, {name}: {least:.2} to {most:.2}"
            );
        }
    }
}

/// One answer of a second, one refused connection, one cold start: nobody is out for it.
#[test]
fn a_mishap_exiles_nobody() {
    let mishaps: [(&str, &Takes); 3] = [
        ("slow", &|n, at, rng| {
            let once = n == 0 && (30 * SECOND..30 * SECOND + 60 * MS).contains(&at);
            Some(if once { 1000.0 } else { noisy(5.0, rng) })
        }),
        ("refused", &|n, at, rng| {
            let once = n == 0 && (30 * SECOND..30 * SECOND + 100 * MS).contains(&at);
            (!once).then(|| noisy(5.0, rng))
        }),
        ("cold", &|n, at, rng| {
            let cold = n == 0 && at < 200 * MS;
            Some(if cold { 1000.0 } else { noisy(5.0, rng) })
        }),
    ];
    for endpoints in [2, 3] {
        for (name, takes) in mishaps {
            let load = Load::of(endpoints, 1, 20.0);
            let sent = load.run(takes);
            let (least, most) = extremes(&sent, endpoints, 2 * SECOND);
            println!("{endpoints} endpoints, {name}: {least:.2} to {most:.2}");
            assert!(
                least > 0.7 && most < 1.3,
                "{endpoints}, {name}: {least:.2} to {most:.2}"
            );
        }
    }
}

/// Ten times as slow for a minute: it loses its load, its latency is nobody's p99, and it comes back soon.
#[test]
fn a_slow_endpoint_loses_its_load_and_comes_back() {
    for (endpoints, callers, rate) in [
        (2, 1, 20.0),
        (3, 1, 20.0),
        (3, 5, 50.0),
        (10, 1, 200.0),
        (100, 1, 2000.0),
    ] {
        let load = Load::of(endpoints, callers, rate);
        let slow = 30 * SECOND..90 * SECOND;
        let sent = load.run(&|n, at, rng| {
            let factor = if n == 0 && slow.contains(&at) { 10.0 } else { 1.0 };
            Some(factor * noisy(20.0, rng))
        });
        let during = share(&sent, endpoints, 0, 35 * SECOND, 90 * SECOND);
        let after = share(&sent, endpoints, 0, 105 * SECOND, 120 * SECOND);
        let meanwhile: Vec<Sent> = (sent.into_iter())
            .filter(|it| (35 * SECOND..90 * SECOND).contains(&it.at))
            .collect();
        let p99 = p99(&meanwhile);
        println!(
            "{endpoints} endpoints, {callers} callers of {rate}/s: {during:.3} then {after:.2}, p99 {p99:.0} ms"
        );
        assert!(during < 0.1, "{endpoints} endpoints: {during}");
        assert!((0.8..1.2).contains(&after), "{endpoints} endpoints: {after}");
        assert!(p99 < 120.0, "{endpoints} endpoints: {p99}");
    }
}

/// One stream that stands at an endpoint does not keep other requests from it.
#[test]
fn a_long_stream_keeps_no_requests_away() {
    let load = Load::of(2, 1, 20.0);
    let begun = Cell::new(false);
    let sent = load.run(&|n, at, rng| {
        let stream = n == 0 && at > 30 * SECOND && !begun.replace(true);
        Some(if stream { 60_000.0 } else { noisy(5.0, rng) })
    });
    let (least, most) = extremes(&sent, 2, Duration::ZERO);
    assert!(least > 0.8 && most < 1.2, "{least:.2} to {most:.2}");
}

/// An endpoint that takes requests and does not answer for long gets two at a time.
#[test]
fn an_endpoint_that_does_not_answer_gets_two_requests_at_a_time() {
    for endpoints in [2, 3, 10] {
        let load = Load::of(endpoints, 1, 100.0);
        let sent = load.run(&|n, _, rng| Some(if n == 0 { 15_000.0 } else { noisy(5.0, rng) }));
        let hung = sent.iter().filter(|it| it.endpoint == 0).count();
        assert!(hung <= 30, "{hung} of {} requests", sent.len());
    }
}
