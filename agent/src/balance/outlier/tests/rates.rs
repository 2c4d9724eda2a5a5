//! Detectors that compare the endpoints once in an interval.

use super::*;

/// 1,000 answers of each, so many of them good.
fn interval(bench: &mut Bench, good: &[usize]) -> Vec<Event> {
    bench.pass(Duration::from_millis(100));
    for (n, good) in (0..).zip(good) {
        // Mixed, so that no row of failures ejects.
        for i in 0..1000 {
            let is_good = (i + 1) * good / 1000 > i * good / 1000;
            bench.record(n, if is_good { Verdict::Success } else { BAD });
        }
    }
    bench.pass(seconds(10))
}

fn reasons(events: &[Event]) -> Vec<(SocketAddr, EjectReason)> {
    let reason = |e: &Event| match e.kind {
        EventKind::Ejected { reason, .. } => (e.address, reason),
        EventKind::Returned { .. } => panic!("{e:?}"),
    };
    events.iter().map(reason).collect()
}

#[test]
fn a_success_rate_far_below_the_mean_ejects() {
    let settings = OutlierDetection {
        consecutive_5xx: 0,
        success_rate: Some(SuccessRate::default()),
        ..OutlierDetection::default()
    };
    // Mean 90, deviation 20 (of the population): the threshold is 52.
    let mut bench = Bench::new(5, settings.clone());
    let events = interval(&mut bench, &[1000, 1000, 1000, 1000, 500]);
    assert_eq!(reasons(&events), [(address(4), EjectReason::SuccessRate)]);
    // All equally bad: nobody is an outlier.
    assert!(interval(&mut Bench::new(5, settings.clone()), &[300; 5]).is_empty());
    // Four are too few to compare.
    assert!(interval(&mut Bench::new(4, settings.clone()), &[1000, 1000, 1000, 0]).is_empty());
    // So is one with too few answers.
    let mut bench = Bench::new(5, settings);
    bench.pass(Duration::from_millis(100));
    for _ in 0..99 {
        bench.record(4, BAD);
    }
    assert!(interval(&mut bench, &[1000; 4]).is_empty());
}

#[test]
fn a_failure_percentage_above_the_threshold_ejects_the_worst_first() {
    let settings = OutlierDetection {
        consecutive_5xx: 0,
        failure_percentage: Some(FailurePercentage::default()),
        max_ejection_percent: 20,
        ..OutlierDetection::default()
    };
    let mut bench = Bench::new(5, settings.clone());
    let events = interval(&mut bench, &[140, 1000, 100, 1000, 1000]);
    assert_eq!(
        reasons(&events),
        [(address(2), EjectReason::FailurePercentage)],
        "one of five may be out"
    );
    let mut bench = Bench::new(5, settings);
    let events = interval(&mut bench, &[150, 151, 1000, 1000, 1000]);
    assert_eq!(
        reasons(&events),
        [(address(0), EjectReason::FailurePercentage)],
        "85 % is enough"
    );
}

#[test]
fn answers_of_an_interval_are_not_counted_twice() {
    let mut bench = Bench::new(
        5,
        OutlierDetection {
            consecutive_5xx: 0,
            failure_percentage: Some(FailurePercentage::default()),
            ..OutlierDetection::default()
        },
    );
    assert!(interval(&mut bench, &[400; 5]).is_empty());
    // 40 good and 10 bad over both intervals, but 50 bad ones in this.
    bench.records(0, BAD, 49);
    assert!(bench.pass(seconds(10)).is_empty(), "49 are too few");
    bench.records(0, BAD, 50);
    assert!(
        bench.pass(seconds(10)).is_empty(),
        "one host is too few to compare"
    );
}
