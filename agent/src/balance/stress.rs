//! The atomics under real threads.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::{
    tests::{address, start},
    *,
};
use crate::model::{CircuitBreaking, Endpoint, OutlierDetection, RetryBudget};

const THREADS: usize = 4;

/// Runs `work` on several threads that begin together.
fn together(work: impl Fn(u64) + Sync) {
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for n in 0..THREADS {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(n as u64);
            });
        }
    });
}

#[test]
fn a_breaker_never_lets_more_in_than_its_bound_and_loses_no_permit() {
    let settings = CircuitBreaking {
        max_requests: Some(3),
        ..CircuitBreaking::default()
    };
    let breaker = Arc::new(Breaker::new(&settings, RetryBudget::default()));
    let (inside, let_in) = (AtomicU32::new(0), AtomicU32::new(0));
    together(|_| {
        for _ in 0..50_000 {
            if let Some(_permit) = breaker.request() {
                assert!(inside.fetch_add(1, SeqCst) < 3);
                let_in.fetch_add(1, SeqCst);
                inside.fetch_sub(1, SeqCst);
            }
        }
    });
    let requests = breaker.levels().requests;
    assert_eq!(requests.now, 0);
    assert_eq!(
        requests.refused + u64::from(let_in.into_inner()),
        50_000 * THREADS as u64
    );
}

#[test]
fn an_endpoint_never_has_more_requests_than_its_bound() {
    let outliers = Outliers::new(None);
    let inside = AtomicU32::new(0);
    together(|_| {
        let load = EndpointLoad::new(
            &Endpoint::new(address(1)),
            outliers.host(address(1)),
            Some(2),
            start(),
        );
        for _ in 0..50_000 {
            if let Some(_in_flight) = load.try_begin() {
                assert!(inside.fetch_add(1, SeqCst) < 2);
                inside.fetch_sub(1, SeqCst);
            }
        }
    });
    assert_eq!(outliers.host(address(1)).in_flight(), 0);
}

/// Endpoints are ejected, tried and brought back by all threads at once. Of each ejection there is one event, and of
/// each half-open endpoint one trial.
#[test]
fn each_ejection_has_one_event_and_each_trial_one_owner() {
    let settings = OutlierDetection {
        max_ejection_percent: 50,
        base_ejection_time: Duration::from_millis(1),
        max_ejection_time: Duration::from_millis(2),
        ..OutlierDetection::default()
    };
    let outliers = Outliers::new(Some(settings.clone()));
    outliers.follow(Some(&settings), (0..6).map(address));
    let begin = start();
    let (ejected, returned) = (AtomicU32::new(0), AtomicU32::new(0));
    let trying: Vec<AtomicU32> = (0..6).map(|_| AtomicU32::new(0)).collect();
    let count = |event: Option<Event>| {
        match event.map(|e| e.kind) {
            // A failed trial puts out what was out already.
            Some(EventKind::Ejected {
                reason: EjectReason::Trial,
                ..
            })
            | None => return,
            Some(EventKind::Ejected { .. }) => &ejected,
            Some(EventKind::Returned { .. }) => &returned,
        }
        .fetch_add(1, SeqCst);
    };
    together(|n| {
        let mut rng = fastrand::Rng::with_seed(n);
        let loads: Vec<_> = (0..6)
            .map(|n| EndpointLoad::new(&Endpoint::new(address(n)), outliers.host(address(n)), None, begin))
            .collect();
        let mut balancer = Balancer::new(&crate::model::LoadBalancer::default(), loads, None, &(), &mut rng);
        for step in 0..30_000u64 {
            let now = begin + Duration::from_micros(step * 10);
            if n == 0 && step % 10 == 0 {
                outliers
                    .sweep(now, &mut rng)
                    .into_iter()
                    .for_each(|e| count(Some(e)));
            }
            let endpoint = balancer
                .choose(None, &[], now, &mut rng)
                .expect("panic mode finds one");
            let request = endpoint.begin();
            let which = (0..6)
                .find(|n| address(*n) == endpoint.address())
                .expect("one of six");
            let trial = request.is_trial();
            if trial {
                assert_eq!(trying[which].fetch_add(1, SeqCst), 0, "two trials at a time");
                thread::yield_now();
                trying[which].fetch_sub(1, SeqCst);
            }
            if rng.u8(..) < 5 {
                // Without an outcome.
                continue;
            }
            let verdict = if rng.u8(..) < 150 {
                Verdict::LocalError
            } else {
                Verdict::Success
            };
            count(request.record(&outliers, verdict, now, &mut rng));
        }
    });
    let out = (0..6).filter(|n| !outliers.host(address(*n)).is_in()).count();
    let (ejected, returned) = (ejected.into_inner() as usize, returned.into_inner() as usize);
    assert_eq!(ejected - returned, out, "{ejected} ejected, {returned} returned");
    assert!(
        out <= 3 && returned > 10,
        "{ejected} ejected, {returned} returned"
    );
    assert!((0..6).all(|n| outliers.host(address(n)).in_flight() == 0));
}
