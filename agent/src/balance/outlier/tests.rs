mod rates;

use super::*;
use crate::model::{FailurePercentage, SuccessRate};

const BAD: Verdict = Verdict::Failure5xx { gateway: false };
const GATEWAY: Verdict = Verdict::Failure5xx { gateway: true };

/// Outliers with a clock.
struct Bench {
    outliers: Outliers,
    now: Instant,
    rng: fastrand::Rng,
}

impl Bench {
    fn new(n: u8, settings: OutlierDetection) -> Self {
        let this = Self {
            outliers: Outliers::new(Some(settings.clone())),
            now: tokio::time::Instant::now().into_std(),
            rng: fastrand::Rng::with_seed(1),
        };
        this.outliers.follow(Some(&settings), (0..n).map(address));
        this
    }

    fn host(&self, n: u8) -> Arc<Host> {
        self.outliers.host(address(n))
    }

    fn record(&mut self, n: u8, verdict: Verdict) -> Option<Event> {
        self.outliers
            .record(&self.host(n), verdict, self.now, &mut self.rng)
    }

    /// `times` of the same; the last event.
    fn records(&mut self, n: u8, verdict: Verdict, times: usize) -> Option<Event> {
        (0..times).filter_map(|_| self.record(n, verdict)).last()
    }

    /// Time goes on in steps of 100 ms, with a sweep after each, as the agent does.
    fn pass(&mut self, duration: Duration) -> Vec<Event> {
        let end = self.now + duration;
        let mut events = Vec::new();
        while self.now < end {
            self.now += Duration::from_millis(100);
            events.extend(self.outliers.sweep(self.now, &mut self.rng));
        }
        events
    }

    fn out(&self, n: u8) -> Option<Duration> {
        match self.host(n).standing() {
            Standing::Ejected { until } => Some(until - self.now),
            _ => None,
        }
    }
}

fn address(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 80).into()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn five_failures_in_a_row_eject_and_a_success_begins_the_count_anew() {
    let mut bench = Bench::new(3, OutlierDetection::default());
    assert_eq!(bench.records(0, BAD, 4), None);
    assert_eq!(bench.record(0, Verdict::Success), None);
    assert_eq!(bench.records(0, BAD, 4), None);
    let until = bench.now + seconds(30);
    let kind = EventKind::Ejected {
        reason: EjectReason::Consecutive5xx,
        until,
        times: 1,
    };
    assert_eq!(
        bench.record(0, BAD),
        Some(Event {
            address: address(0),
            kind
        })
    );
    assert_eq!(bench.host(0).standing(), Standing::Ejected { until });
    assert_eq!(bench.host(0).reason(), Some(EjectReason::Consecutive5xx));
    assert_eq!(bench.host(1).standing(), Standing::In);
}

#[test]
fn every_detector_counts_what_its_name_says() {
    let settings = |gateway, local, split_local_origin| OutlierDetection {
        consecutive_5xx: 5,
        consecutive_gateway_errors: gateway,
        consecutive_local_errors: local,
        split_local_origin,
        ..OutlierDetection::default()
    };
    let local = Verdict::LocalError;
    let cases = [
        (
            "a gateway error is a 5xx",
            settings(0, 0, false),
            vec![GATEWAY; 5],
            Some(EjectReason::Consecutive5xx),
        ),
        (
            "gateway",
            settings(3, 0, false),
            vec![GATEWAY; 3],
            Some(EjectReason::ConsecutiveGatewayErrors),
        ),
        (
            "a 500 ends a row of gateway errors",
            settings(3, 0, false),
            vec![GATEWAY, GATEWAY, BAD, GATEWAY],
            None,
        ),
        (
            "a local error is a 5xx",
            settings(0, 0, false),
            vec![local; 5],
            Some(EjectReason::Consecutive5xx),
        ),
        (
            "and a gateway error",
            settings(2, 0, false),
            vec![local; 2],
            Some(EjectReason::ConsecutiveGatewayErrors),
        ),
        ("unless split", settings(2, 0, true), vec![local; 20], None),
        (
            "local",
            settings(2, 4, true),
            vec![local; 4],
            Some(EjectReason::ConsecutiveLocalErrors),
        ),
        (
            "any answer ends a row of local errors",
            settings(0, 4, true),
            vec![local, local, local, BAD, local],
            None,
        ),
        (
            "split, a local error does not end a row of 5xx",
            settings(0, 9, true),
            vec![BAD, BAD, BAD, local, BAD, BAD],
            Some(EjectReason::Consecutive5xx),
        ),
    ];
    for (name, settings, verdicts, expected) in cases {
        let mut bench = Bench::new(3, settings);
        let events: Vec<Event> = verdicts.into_iter().filter_map(|v| bench.record(0, v)).collect();
        assert_eq!(
            events.len(),
            usize::from(expected.is_some()),
            "{name}: {events:?}"
        );
        assert_eq!(bench.host(0).reason(), expected, "{name}");
    }
}

#[test]
fn it_comes_back_when_its_one_trial_succeeds() {
    let mut bench = Bench::new(3, OutlierDetection::default());
    bench.records(0, BAD, 5);
    let epoch = bench.outliers.epoch();
    bench.pass(seconds(30) - Duration::from_millis(100));
    assert!(bench.out(0).is_some());
    assert_eq!(bench.outliers.epoch(), epoch);
    bench.pass(Duration::from_millis(100));
    assert_eq!(bench.host(0).standing(), Standing::Trial);
    assert!(bench.outliers.epoch() > epoch, "the workers must hear of it");
    let trial = bench.host(0).take_trial(bench.now);
    assert!(trial.is_some());
    assert_eq!(bench.host(0).take_trial(bench.now), None, "one only");
    let event = bench.record(0, Verdict::Success).unwrap();
    assert_eq!(
        event.kind,
        EventKind::Returned {
            how: ReturnedBy::Trial
        }
    );
    assert_eq!(bench.host(0).standing(), Standing::In);
    assert_eq!(
        bench.host(0).returned(),
        Some(bench.now),
        "slow start begins here"
    );
    assert_eq!(bench.records(0, BAD, 4), None, "old failures are forgotten");
}

#[test]
fn each_failed_trial_makes_the_next_ejection_longer_up_to_the_maximum() {
    let mut bench = Bench::new(
        3,
        OutlierDetection {
            max_ejection_time: seconds(100),
            ..OutlierDetection::default()
        },
    );
    bench.records(0, BAD, 5);
    let mut times = vec![bench.out(0).unwrap().as_secs()];
    for _ in 0..5 {
        bench.pass(bench.out(0).unwrap());
        assert!(bench.host(0).take_trial(bench.now).is_some());
        let event = bench.record(0, Verdict::LocalError).unwrap();
        assert!(matches!(
            event.kind,
            EventKind::Ejected {
                reason: EjectReason::Trial,
                ..
            }
        ));
        times.push(bench.out(0).unwrap().as_secs());
    }
    assert_eq!(times, [30, 60, 90, 100, 100, 100]);
    assert_eq!(bench.host(0).times_ejected(), 4);
}

#[test]
fn quiet_intervals_forget_ejections_one_by_one() {
    let mut bench = Bench::new(3, OutlierDetection::default());
    bench.records(0, BAD, 5);
    for _ in 0..2 {
        bench.pass(bench.out(0).unwrap());
        bench.host(0).take_trial(bench.now);
        bench.record(0, BAD);
    }
    bench.pass(bench.out(0).unwrap());
    bench.host(0).take_trial(bench.now);
    bench.record(0, Verdict::Success);
    assert_eq!(bench.host(0).times_ejected(), 3);
    let mut seen = vec![3];
    for _ in 0..60 {
        bench.pass(seconds(1));
        let times = bench.host(0).times_ejected();
        if seen.last() != Some(&times) {
            seen.push(times);
        }
    }
    assert_eq!(seen, [3, 2, 1, 0]);
    bench.records(0, BAD, 5);
    assert_eq!(bench.out(0), Some(seconds(30)));
}

#[test]
fn no_more_are_ejected_than_the_bound_allows_but_always_one_of_two() {
    for (hosts, percent, allowed) in [
        (3, 50, 1),
        (4, 50, 2),
        (10, 10, 1),
        (10, 0, 1),
        (2, 10, 1),
        (1, 50, 0),
        (1, 100, 1),
        (5, 100, 5),
    ] {
        let mut bench = Bench::new(
            hosts,
            OutlierDetection {
                max_ejection_percent: percent,
                ..OutlierDetection::default()
            },
        );
        for _ in 0..3 {
            for n in 0..hosts {
                bench.records(n, BAD, 5);
            }
        }
        let out = (0..hosts).filter(|n| bench.out(*n).is_some()).count();
        assert_eq!(out, allowed, "{percent} % of {hosts}");
    }
}

#[test]
fn jitter_is_added_up_to_its_bound() {
    let mut lengths = Vec::new();
    let mut bench = Bench::new(
        200,
        OutlierDetection {
            ejection_jitter: seconds(10),
            max_ejection_percent: 100,
            ..OutlierDetection::default()
        },
    );
    for n in 0..200 {
        bench.records(n, BAD, 5);
        lengths.push(bench.out(n).unwrap());
    }
    assert!(lengths.iter().all(|l| (seconds(30)..=seconds(40)).contains(l)));
    assert!(
        lengths
            .iter()
            .max()
            .unwrap()
            .saturating_sub(*lengths.iter().min().unwrap())
            > seconds(9)
    );
}

#[test]
fn an_active_check_that_passes_brings_back_who_could_not_be_reached() {
    let probed = ReturnedBy::Probe;
    let check = |unejects: bool, failures: &[Verdict], back: bool| {
        let settings = OutlierDetection {
            health_check_unejects: unejects,
            ..OutlierDetection::default()
        };
        let mut bench = Bench::new(3, settings);
        assert_eq!(bench.outliers.probe_passed(address(0), bench.now), None);
        // A row that was broken leaves nothing behind.
        bench.record(0, BAD);
        bench.record(0, Verdict::Success);
        for verdict in failures {
            bench.record(0, *verdict);
        }
        let event = bench.outliers.probe_passed(address(0), bench.now);
        let how = event.map(|event| event.kind);
        assert_eq!(
            how,
            back.then_some(EventKind::Returned { how: probed }),
            "{unejects} {failures:?}"
        );
        assert_eq!(bench.host(0).standing() == Standing::In, back);
        let nobody = bench.outliers.probe_passed(address(9), bench.now);
        assert_eq!(nobody, None, "nobody's address");
    };
    let (local, answer) = (Verdict::LocalError, BAD);
    check(false, &[local; 5], true);
    check(false, &[answer; 5], false);
    check(false, &[local, local, answer, local, local], false);
    check(true, &[answer; 5], true);
}

#[test]
fn whose_trial_could_not_reach_it_is_back_by_an_active_check() {
    let mut bench = Bench::new(3, OutlierDetection::default());
    bench.records(0, BAD, 5);
    bench.pass(seconds(30));
    bench.record(0, Verdict::LocalError);
    assert_ne!(bench.host(0).standing(), Standing::In);
    assert!(bench.outliers.probe_passed(address(0), bench.now).is_some());
}

#[test]
fn what_is_known_of_those_that_stay_survives_changes() {
    let mut bench = Bench::new(3, OutlierDetection::default());
    bench.records(0, BAD, 5);
    bench.records(1, BAD, 4);
    let before = bench.host(0);
    let longer = OutlierDetection {
        base_ejection_time: seconds(60),
        ..OutlierDetection::default()
    };
    bench
        .outliers
        .follow(Some(&longer), [0, 1, 7].into_iter().map(address));
    assert!(Arc::ptr_eq(&before, &bench.host(0)));
    assert_eq!(bench.out(0), Some(seconds(30)));
    bench.pass(seconds(60));
    bench.record(0, Verdict::Success);
    assert!(bench.record(1, BAD).is_some(), "the row of failures went on");
    let epoch = bench.outliers.epoch();
    bench.outliers.follow(None, [0, 1, 7].into_iter().map(address));
    assert_eq!(
        bench.host(1).standing(),
        Standing::In,
        "without detection nobody is out"
    );
    assert!(bench.outliers.epoch() > epoch);
    assert_eq!(bench.records(1, BAD, 50), None);
}

#[test]
fn an_endpoint_that_is_gone_is_not_ejected() {
    let mut bench = Bench::new(3, OutlierDetection::default());
    let gone = bench.host(0);
    let settings = OutlierDetection::default();
    bench
        .outliers
        .follow(Some(&settings), [1, 2].into_iter().map(address));
    for _ in 0..20 {
        let event = bench.outliers.record(&gone, BAD, bench.now, &mut bench.rng);
        assert_eq!(event, None);
    }
    assert_eq!(gone.standing(), Standing::In);
}
