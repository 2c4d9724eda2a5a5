//! The request that decides whether an endpoint is back.

use super::*;

#[test]
fn after_an_ejection_one_request_tries_and_then_slow_start_begins() {
    for algorithm in &algorithms()[..4] {
        let name = algorithm.as_str();
        let settings = LoadBalancer {
            algorithm: algorithm.clone(),
            slow_start: Duration::from_secs(100),
            ..LoadBalancer::default()
        };
        let mut bench = Bench::new(settings, (0..4).map(|n| Endpoint::new(address(n))).collect());
        bench.now += Duration::from_secs(1000);
        bench.eject(0);
        bench.pass(Duration::from_secs(30));
        assert_ne!(
            bench.choose(None, &[address(1)]),
            Some(0),
            "{name}: a second try is no trial"
        );
        assert_eq!(bench.choose(None, &[]), Some(0), "{name}");
        let trial = bench.loads[0].try_begin().unwrap();
        assert!(trial.is_trial());
        assert_eq!(bench.spread(100)[0], 0.0, "{name}: one only");
        let event = trial.record(&bench.outliers, Verdict::Success, bench.now, &mut bench.rng);
        assert!(matches!(event.unwrap().kind, EventKind::Returned { .. }));
        drop(trial);
        let mut shares = Vec::new();
        for _ in 0..5 {
            shares.push(bench.spread(4000)[0] / 1000.0);
            bench.pass(Duration::from_secs(25));
        }
        assert!(shares[0] > 0.0 && shares[0] < 0.35, "{name}: {shares:?}");
        assert!((0.85..1.15).contains(&shares[4]), "{name}: {shares:?}");
        assert!(shares.is_sorted_by(|a, b| a < &(b + 0.1)), "{name}: {shares:?}");
    }
}

#[test]
fn who_comes_back_is_not_held_to_what_it_was_ejected_for() {
    let mut bench = Bench::of(Algorithm::PeakEwma, 3);
    let millisecond = Duration::from_millis(1);
    let answer_all = |bench: &Bench| {
        for load in &bench.loads {
            load.observe(millisecond, bench.now);
        }
    };
    answer_all(&bench);
    bench.eject(0);
    for _ in 0..20 {
        bench.loads[0].observe_failure(bench.now);
    }
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.choose(None, &[]), Some(0));
    let trial = bench.loads[0].begin();
    bench.loads[0].observe(millisecond, bench.now);
    trial.record(&bench.outliers, Verdict::Success, bench.now, &mut bench.rng);
    drop(trial);
    assert_eq!(
        bench.choose(None, &[]),
        Some(0),
        "it is asked before those that are known"
    );
    answer_all(&bench);
    let spread = bench.spread(3000);
    assert_share(spread[0], 3000, 1.0 / 3.0, 0.05, "as fast as the others");
}

#[test]
fn a_trial_whose_caller_goes_away_is_tried_again_by_the_next() {
    let mut bench = Bench::of(Algorithm::PeakEwma, 3);
    let old = bench.loads[0].begin();
    bench.eject(0);
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.choose(None, &[]), Some(0));
    let trial = bench.loads[0].begin();
    assert_eq!(
        old.record(&bench.outliers, Verdict::Success, bench.now, &mut bench.rng),
        None,
        "a request from before the ejection decides nothing"
    );
    assert_ne!(bench.choose(None, &[]), Some(0));
    drop(trial);
    assert_eq!(bench.choose(None, &[]), Some(0));
    // This one never begins. A second later another may.
    assert_ne!(bench.choose(None, &[]), Some(0));
    bench.loads[0].trial.take();
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.choose(None, &[]), Some(0));
    let trial = bench.loads[0].begin();
    let event = trial.record(&bench.outliers, Verdict::LocalError, bench.now, &mut bench.rng);
    assert!(matches!(event.unwrap().kind, EventKind::Ejected { times: 2, .. }));
}

#[test]
fn an_old_trial_does_not_decide_a_new_one() {
    let mut bench = Bench::of(Algorithm::PeakEwma, 3);
    bench.eject(0);
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.choose(None, &[]), Some(0));
    let slow = bench.loads[0].begin();
    bench.outliers.probe_passed(address(0), bench.now);
    bench.eject(0);
    bench.pass(Duration::from_secs(60));
    assert_eq!(
        slow.record(&bench.outliers, Verdict::Success, bench.now, &mut bench.rng),
        None
    );
    assert_eq!(bench.loads[0].host().standing(), Standing::Trial);
    assert_eq!(bench.choose(None, &[]), Some(0), "it still waits for its trial");
}

#[test]
fn a_keyed_trial_is_made_by_a_key_of_the_endpoint() {
    for algorithm in &algorithms()[4..] {
        let mut bench = Bench::of(algorithm.clone(), 3);
        let mut key_of = |n| {
            let mut keys = (0..1000u64).map(|key| hash_key(&key.to_le_bytes()));
            keys.find(|key| bench.choose(Some(*key), &[]) == Some(n)).unwrap()
        };
        let (key, other) = (key_of(0), key_of(1));
        bench.eject(0);
        bench.pass(Duration::from_secs(30));
        assert_eq!(bench.choose(Some(other), &[]), Some(1));
        assert_eq!(bench.choose(Some(key), &[]), Some(0));
        assert_ne!(bench.choose(Some(key), &[]), Some(0));
    }
}
