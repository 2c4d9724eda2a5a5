//! Cost of a choice by number of rules: `cargo bench -p derny --bench route`.
//!
//! Ten rules, spread over the table, are asked for in turn: what the search costs. And all of ten thousand: what it
//! costs when nothing that it touches is in the processor's cache, the requests included. Times are the best of five
//! rounds.

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
/// Rules that are asked for.
const ASKED: usize = 10;
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
        fault: None,
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

/// The time of one choice.
fn choice(table: &Table, requests: &[&Parts]) -> Duration {
    let round = |choices: usize| {
        let time = timed(|| {
            for i in 0..choices {
                let chosen = table.choose(black_box(requests[i % requests.len()]));
                black_box(chosen.map(|chosen| chosen.rule.position));
            }
        });
        time / u32::try_from(choices).unwrap_or(u32::MAX)
    };
    // Where cost grows with the rules, so many choices would take minutes.
    let choices = match round(ASKED) {
        slow if slow > Duration::from_micros(100) => 2 * ASKED,
        _ => CHOICES,
    };
    let rounds = (0..ROUNDS).map(|_| round(choices));
    rounds.min().unwrap_or_default()
}

fn main() {
    println!("| rules told apart by | 10 | 1,000 | 10,000 | all of 10,000 | building 10,000 |");
    println!("|---|---|---|---|---|---|");
    for case in &CASES {
        print!("| {} |", case.name);
        for count in [10, 1_000, 10_000] {
            let routes = routes(case, count);
            let requests: Vec<Parts> = (0..count).map(case.request).collect();
            let mut table = Table::default();
            let build = timed(|| table = Table::new(black_box(&routes)));
            let asked: Vec<&Parts> = requests.iter().step_by(count / ASKED).collect();
            let time = choice(&table, &asked);
            print!(" {} ns |", time.as_nanos());
            // Nor is a minute spent on what the other columns say already.
            if count == 10_000 && time < Duration::from_micros(100) {
                right(&table, &requests);
                // In an order that no prefetcher foresees.
                let all: Vec<&Parts> = (0..count).map(|i| &requests[i * 7919 % count]).collect();
                print!(" {} ns |", choice(&table, &all).as_nanos());
            } else if count == 10_000 {
                print!(" – |");
            }
            if count == 10_000 {
                println!(" {} ms |", build.as_millis());
            }
        }
    }
}

/// Every rule is found by its own request.
fn right(table: &Table, requests: &[Parts]) {
    for (i, head) in requests.iter().enumerate() {
        let chosen = table.choose(head).expect("every request has a rule");
        assert_eq!(*chosen.rule.route, format!("bench/r{}", i / RULES));
        assert_eq!(chosen.rule.position, i % RULES);
    }
}
