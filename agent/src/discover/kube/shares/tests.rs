use proptest::prelude::*;
use serde_json::json;

use super::*;

const SHARE: usize = 10;

fn shares() -> Shares {
    Shares::new(PatternShare {
        count: SHARE,
        bytes: usize::MAX,
    })
}

/// A route of `demo` that is so old, and has so many patterns.
fn route(kind: RouteKind, name: &str, created: u8, patterns: usize) -> RawRoute {
    let pattern = |n: usize| json!({"path": {"type": "RegularExpression", "value": format!("/{n}")}});
    let matches: Vec<Value> = match kind {
        RouteKind::Http => (0..patterns).map(pattern).collect(),
        RouteKind::Grpc => (0..patterns)
            .map(|n| json!({"method": {"type": "RegularExpression", "service": format!("s{n}")}}))
            .collect(),
    };
    let metadata = json!({
        "namespace": "demo", "name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
    });
    RawRoute {
        kind,
        metadata: serde_json::from_value(metadata).unwrap(),
        spec: json!({
            "parentRefs": [{"group": "", "kind": "Service", "name": "echo"}],
            "rules": [{"matches": matches}],
        }),
    }
}

/// `name`, and `-name` of one that is refused, for what is told.
fn words(told: Vec<Told>) -> Vec<String> {
    let word = |(_, event): Told| match event {
        Event::Applied(judged) => {
            let name = &judged.route.metadata.name;
            match judged.read {
                Ok(_) => name.clone(),
                Err(fault) if fault.reach == Reach::OverShare => format!("-{name}"),
                Err(fault) => format!("{name}: {}", fault.message),
            }
        }
        Event::Gone(judged) => format!("{} gone", judged.route.metadata.name),
        other => format!("{other:?}"),
    };
    told.into_iter().map(word).collect()
}

#[test]
fn the_older_routes_go_first_whatever_was_told_first() {
    use RouteKind::{Grpc, Http};
    let mut shares = shares();
    let mut apply = |kind, name: &str, created, patterns, expect: &[&str]| {
        let told = shares.take(kind, Event::Applied(route(kind, name, created, patterns)));
        assert_eq!(words(told), expect);
    };
    apply(Http, "young", 9, 8, &["young"]);
    apply(Http, "old", 1, 5, &["old", "-young"]);
    apply(Grpc, "middle", 5, 5, &["middle"]);
    apply(Http, "none", 9, 0, &["none"]);
    // A version that is too large is not in force, nor is the one before; there is room for others then.
    apply(Http, "old", 1, 11, &["-old"]);
    apply(Grpc, "middle", 5, 2, &["middle", "young"]);
    let gone = route(Http, "young", 9, 8);
    assert_eq!(words(shares.take(Http, Event::Gone(gone))), ["young gone"]);
    let gone = route(Grpc, "middle", 5, 2);
    assert_eq!(words(shares.take(Grpc, Event::Gone(gone))), ["middle gone"]);
    let old = route(Http, "old", 1, 10);
    assert_eq!(words(shares.take(Http, Event::Applied(old))), ["old"]);
}

#[test]
fn a_route_with_a_fault_keeps_the_place_of_its_last_good_version() {
    let mut shares = shares();
    let take =
        |shares: &mut Shares, route: RawRoute| words(shares.take(RouteKind::Http, Event::Applied(route)));
    assert_eq!(take(&mut shares, route(RouteKind::Http, "a", 1, 6)), ["a"]);
    let mut bad = route(RouteKind::Http, "a", 1, 1);
    bad.spec["rules"][0]["matches"][0]["path"]["value"] = "(".into();
    assert!(take(&mut shares, bad)[0].starts_with("a: "));
    assert_eq!(take(&mut shares, route(RouteKind::Http, "b", 2, 6)), ["-b"]);
}

#[test]
fn what_a_list_no_longer_has_leaves_its_place() {
    let mut shares = shares();
    let http = RouteKind::Http;
    for (name, created) in [("a", 1), ("b", 2)] {
        shares.take(http, Event::Applied(route(http, name, created, 8)));
    }
    shares.take(http, Event::Listing);
    assert_eq!(
        words(shares.take(http, Event::Applied(route(http, "b", 2, 8)))),
        ["-b"]
    );
    assert_eq!(words(shares.take(http, Event::Listed)), ["Listed", "b"]);
    assert_eq!(shares.held().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is in force depends on the routes that there are, and not on how they came.
    #[test]
    fn what_is_in_force_fits_and_goes_by_age(
        steps in prop::collection::vec((0u8..6, prop::option::of(0usize..13)), 1..30),
    ) {
        let http = RouteKind::Http;
        let mut shares = shares();
        let (mut there, mut in_force) = (BTreeMap::new(), BTreeMap::new());
        for (n, patterns) in steps {
            // Names against the order of age.
            let name = format!("r{}", 9 - n);
            let event = match patterns {
                Some(patterns) => {
                    there.insert(n, patterns);
                    Event::Applied(route(http, &name, n, patterns))
                }
                None => {
                    there.remove(&n);
                    Event::Gone(route(http, &name, n, 0))
                }
            };
            for (_, event) in shares.take(http, event) {
                match event {
                    Event::Applied(Judged { route, read }) => {
                        in_force.insert(route.metadata.name.clone(), read.is_ok());
                    }
                    Event::Gone(Judged { route, .. }) => drop(in_force.remove(&route.metadata.name)),
                    _ => {}
                }
            }
            let mut left = SHARE;
            for (n, patterns) in &there {
                let fits = *patterns <= left;
                prop_assert_eq!(in_force[&format!("r{}", 9 - n)], fits, "{:?}", &there);
                left -= if fits { *patterns } else { 0 };
            }
        }
    }
}

/// A consumer's route is on a service of another namespace.
#[test]
fn patterns_count_in_the_namespace_of_the_route() {
    let mut shares = shares();
    let mut consumer = route(RouteKind::Http, "consumer", 1, SHARE);
    consumer.metadata.namespace = "web".to_owned();
    consumer.spec["parentRefs"][0]["namespace"] = json!("demo");
    let producer = route(RouteKind::Http, "producer", 2, SHARE);
    for (route, name) in [(consumer, "consumer"), (producer, "producer")] {
        let told = shares.take(RouteKind::Http, Event::Applied(route));
        assert_eq!(words(told), [name]);
    }
}

/// The last good version stays in force, and takes what it took.
#[test]
fn a_version_with_a_fault_in_a_rule_frees_no_patterns() {
    let mut shares = shares();
    let mut apply = |route, expect: &[&str]| {
        let told = shares.take(RouteKind::Http, Event::Applied(route));
        assert_eq!(words(told), expect);
    };
    apply(route(RouteKind::Http, "a", 1, SHARE), &["a"]);
    let mut partly = route(RouteKind::Http, "a", 1, 1);
    partly.spec["rules"] = json!([{}, {"filters": [{"type": "ExtensionRef"}]}]);
    apply(partly, &["a"]);
    apply(route(RouteKind::Http, "b", 2, 1), &["-b"]);
    // Whole again: there is room.
    apply(route(RouteKind::Http, "a", 1, 1), &["a", "b"]);
}
