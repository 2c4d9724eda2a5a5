//! How often a name is asked, and what of that is told. Without a server.

use super::*;

fn answered(last: u8, ttl: u64) -> Result<Answer, DnsFailure> {
    Ok(Answer {
        addresses: ips(&[last]),
        ttl: Duration::from_secs(ttl),
        half: None,
    })
}

#[test]
fn a_ttl_is_kept_within_its_bounds() {
    let mut rng = fastrand::Rng::with_seed(1);
    for (ttl, wait) in [(0, 1), (1, 1), (30, 30), (300, 300), (u64::from(u32::MAX), 300)] {
        let step = Course::default().step(&answered(1, ttl), BOUNDS, &mut rng);
        assert_eq!(step.wait, Duration::from_secs(wait), "{ttl}");
    }
}

#[test]
fn a_family_that_failed_is_asked_for_again_before_the_others_answer_ends() {
    let mut rng = fastrand::Rng::with_seed(1);
    let half = |ttl| {
        answered(1, ttl).map(|answer| Answer {
            half: Some(DnsFailure::Timeout),
            ..answer
        })
    };
    for (ttl, wait) in [(0, 1), (20, 20), (300, 30)] {
        let step = Course::default().step(&half(ttl), BOUNDS, &mut rng);
        assert_eq!(step.wait, Duration::from_secs(wait), "{ttl}");
        assert_eq!(step.word, Some(Word::Half(DnsFailure::Timeout)));
    }
}

#[test]
fn each_kind_of_failure_is_logged_once() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut course = Course::default();
    let failing = |failure: DnsFailure| Some(Word::Failing(failure));
    let refused = |code: &str| DnsFailure::Refused(code.to_owned());
    for (result, tell, word) in [
        (Err(DnsFailure::Timeout), Tell::News, failing(DnsFailure::Timeout)),
        (Err(DnsFailure::Timeout), Tell::Nothing, None),
        (answered(1, 5), Tell::News, Some(Word::Recovered)),
        (answered(1, 5), Tell::Nothing, None),
        (
            Err(refused("SERVFAIL")),
            Tell::Nothing,
            failing(refused("SERVFAIL")),
        ),
        (Err(refused("REFUSED")), Tell::Nothing, None),
        (
            Err(DnsFailure::NoSuchName),
            Tell::Nothing,
            failing(DnsFailure::NoSuchName),
        ),
        (answered(1, 5), Tell::Nothing, Some(Word::Recovered)),
        (answered(2, 5), Tell::News, None),
    ] {
        let step = course.step(&result, BOUNDS, &mut rng);
        assert_eq!((step.tell, step.word), (tell, word), "{result:?}");
    }
}

#[test]
fn tries_of_a_failing_name_get_rarer_up_to_a_bound() {
    let mut rng = fastrand::Rng::with_seed(1);
    for (failures, most) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (40, 30), (u32::MAX, 30)] {
        let most = Duration::from_secs(most);
        for _ in 0..100 {
            let wait = backoff(failures, BOUNDS, &mut rng);
            assert!(wait >= most / 2 && wait <= most, "{failures}: {wait:?}");
        }
    }
}
