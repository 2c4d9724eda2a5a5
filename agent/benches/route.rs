//! Cost of a choice by number of rules: `cargo bench -p derny --bench route`.
//!
//! Each table is asked for its rules in turn, so that the memory that a choice touches is not warm from the last
//! one. Times are the best of five rounds.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use derny::{
    model::{Match, PathMatch, Pattern, Route, RouteKind, Rule, RuleTimeouts, ValueMatch},
    route::Table,
};
use http::{HeaderName, Request, request::Parts};

const CHOICES: usize = 200_000;
const ROUNDS: usize = 5;
/// Rules of one route; the Gateway API allows 16.
const RULES: usize = 16;

/// A way to tell rules apart: the match of rule `i`, and a request for it.
struct Case {
    name: &'static str,
    kind: RouteKind,
    wanted: fn(usize) -> Match,
    request: fn(usize) -> Parts,
}

const CASES: [Case; 6] = [
    Case {
        name: "exact path",
        kind: RouteKind::Http,
        wanted: |i| of_path(PathMatch::Exact(format!("/api/v1/thing{i}").into())),
        request: |i| get(&format!("/api/v1/thing{i}")),
    },
    Case {
        name: "path prefix",
        kind: RouteKind::Http,
        wanted: |i| of_path(PathMatch::Prefix(format!("/api/v1/thing{i}").into())),
        request: |i| get(&format!("/api/v1/thing{i}/more/and/more?q=1")),
    },
    Case {
        name: "regular expression",
        kind: RouteKind::Http,
        wanted: |i| of_path(PathMatch::Regex(pattern(&format!("/api/v1/thing{i}/[0-9]+")))),
        request: |i| get(&format!("/api/v1/thing{i}/42")),
    },
    Case {
        name: "regular expression, no literal start",
        kind: RouteKind::Http,
        wanted: |i| of_path(PathMatch::Regex(pattern(&format!(".*/thing{i}")))),
        request: |i| get(&format!("/api/v1/thing{i}")),
    },
    Case {
        name: "header only",
        kind: RouteKind::Http,
        wanted: |i| Match {
            headers: vec![(TENANT, ValueMatch::Exact(format!("tenant{i}").into()))],
            ..Match::default()
        },
        request: |i| with(get("/api"), TENANT, &format!("tenant{i}")),
    },
    Case {
        name: "gRPC service and method",
        kind: RouteKind::Grpc,
        wanted: |i| {
            of_path(PathMatch::Grpc {
                service: Some(ValueMatch::Exact(format!("shop.v1.Service{i}").into())),
                method: Some(ValueMatch::Exact("Get".into())),
            })
        },
        request: |i| {
            let head = get(&format!("/shop.v1.Service{i}/Get"));
            with(head, http::header::CONTENT_TYPE, "application/grpc")
        },
    },
];

const TENANT: HeaderName = HeaderName::from_static("x-tenant");

fn of_path(path: PathMatch) -> Match {
    Match {
        path: Some(path),
        ..Match::default()
    }
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a good pattern")
}

fn get(path: &str) -> Parts {
    let request = Request::get(format!("http://echo{path}")).header("user-agent", "bench");
    request.body(()).expect("a good request").into_parts().0
}

fn with(mut head: Parts, name: HeaderName, value: &str) -> Parts {
    head.headers.insert(name, value.parse().expect("a good value"));
    head
}

/// `count` rules in routes of [`RULES`], and a catch-all as most services have one.
fn routes(case: &Case, count: usize) -> Vec<Arc<Route>> {
    let rule = |matches| Rule {
        name: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: RuleTimeouts::default(),
        retry: None,
    };
    let rules: Vec<Rule> = (0..count).map(|i| rule(vec![(case.wanted)(i)])).collect();
    let all = rules
        .chunks(RULES)
        .map(<[Rule]>::to_vec)
        .chain([vec![rule(Vec::new())]]);
    let named = all.enumerate().map(|(i, rules)| {
        Arc::new(Route {
            kind: case.kind,
            namespace: "bench".into(),
            name: format!("r{i}").into(),
            created: 0,
            rules,
        })
    });
    named.collect()
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

/// Of the rules in a scattered order.
fn choice(table: &Table, requests: &[Parts], choices: usize) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        timed(|| {
            for i in 0..choices {
                let head = &requests[i.wrapping_mul(7919) % requests.len()];
                let chosen = table.choose(black_box(head));
                black_box(chosen.map(|chosen| chosen.rule.position));
            }
        })
    });
    let best = rounds.min().unwrap_or_default();
    best / u32::try_from(choices).unwrap_or(u32::MAX)
}

fn main() {
    println!("| rules told apart by | 10 | 1,000 | 10,000 | building 10,000 |");
    println!("|---|---|---|---|---|");
    for case in &CASES {
        print!("| {} |", case.name);
        let mut build = Duration::ZERO;
        for count in [10, 1_000, 10_000] {
            let routes = routes(case, count);
            let requests: Vec<Parts> = (0..count).map(case.request).collect();
            let mut table = Table::default();
            build = timed(|| table = Table::new(black_box(&routes)));
            for (i, head) in requests.iter().enumerate() {
                let chosen = table.choose(head).expect("every request has a rule");
                let route = chosen.rule.route.trim_start_matches("bench/r");
                assert_eq!(route, (i / RULES).to_string(), "rule {i}");
                assert_eq!(chosen.rule.position, i % RULES);
            }
            // Where cost grows with the rules, so many would take minutes.
            let slow = choice(&table, &requests, 20) > Duration::from_micros(10);
            let choices = if slow { 200 } else { CHOICES };
            print!(" {} ns |", choice(&table, &requests, choices).as_nanos());
        }
        println!(" {} ms |", build.as_millis());
    }
}
