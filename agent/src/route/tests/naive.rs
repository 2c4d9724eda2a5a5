//! The table against a scan of all matches that applies the specification's order to those that match.

use std::cmp::Ordering;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::route::{Verdict, apply_request, explain};

/// Each path is its own list of elements.
fn elements(path: &str) -> Vec<&str> {
    path.split('/').skip(1).collect()
}

fn value_matches(value: Option<&str>, wanted: &ValueMatch) -> bool {
    match (value, wanted) {
        (None, _) => false,
        (Some(value), ValueMatch::Exact(text)) => value == &**text,
        (Some(value), ValueMatch::Regex(pattern)) => {
            let whole = |found: regex::Match<'_>| found.len() == value.len();
            regex::Regex::new(&format!("^({})$", pattern.text()))
                .unwrap()
                .find(value)
                .is_some_and(whole)
        }
    }
}

fn matches(head: &Parts, grpc: bool, wanted: &Match) -> bool {
    let path = head.uri.path();
    let call = path.get(1..).and_then(|path| path.rsplit_once('/'));
    let by_path = match &wanted.path {
        None => true,
        Some(PathMatch::Exact(exact)) => path == &**exact,
        Some(PathMatch::Prefix(prefix)) => prefix.is_empty() || elements(path).starts_with(&elements(prefix)),
        Some(PathMatch::Regex(pattern)) => value_matches(Some(path), &ValueMatch::Regex(pattern.clone())),
        Some(PathMatch::Grpc { service, method }) => call.is_some_and(|(of, name)| {
            service
                .as_ref()
                .is_none_or(|wanted| value_matches(Some(of), wanted))
                && method
                    .as_ref()
                    .is_none_or(|wanted| value_matches(Some(name), wanted))
        }),
    };
    let header = |name: &http::HeaderName| head.headers.get(name).map(|value| value.to_str().unwrap());
    let param = |name: &str| {
        let pairs = head.uri.query()?.split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    by_path
        && (!grpc || call.is_some() && head.headers.contains_key("content-type"))
        && wanted.method.as_ref().is_none_or(|method| *method == head.method)
        && wanted
            .headers
            .iter()
            .all(|(name, wanted)| value_matches(header(name), wanted))
        && wanted
            .query
            .iter()
            .all(|(name, wanted)| value_matches(param(name), wanted))
}

/// Characters of an exact value or, less, of a pattern.
fn characters(value: Option<&ValueMatch>) -> (u8, usize) {
    match value {
        None => (0, 0),
        Some(ValueMatch::Regex(pattern)) => (1, pattern.text().len()),
        Some(ValueMatch::Exact(text)) => (2, text.len()),
    }
}

/// Less is first: sentence by sentence.
fn by_specification(a: &Match, b: &Match) -> Ordering {
    let path = |wanted: &Match| match &wanted.path {
        None => (0, 0),
        Some(PathMatch::Prefix(prefix)) => (0, prefix.len()),
        Some(PathMatch::Regex(pattern)) => (1, pattern.text().len()),
        Some(PathMatch::Exact(path)) => (2, path.len()),
        Some(PathMatch::Grpc { .. }) => (3, 0),
    };
    let service = |wanted: &Match| match &wanted.path {
        Some(PathMatch::Grpc { service, .. }) => characters(service.as_ref()),
        _ => (0, 0),
    };
    let method = |wanted: &Match| match &wanted.path {
        Some(PathMatch::Grpc { method, .. }) => characters(method.as_ref()),
        _ => (0, 0),
    };
    path(b)
        .cmp(&path(a))
        .then(service(b).cmp(&service(a)))
        .then(method(b).cmp(&method(a)))
        .then(b.method.is_some().cmp(&a.method.is_some()))
        .then(b.headers.len().cmp(&a.headers.len()))
        .then(b.query.len().cmp(&a.query.len()))
}

/// Route and position of the rule.
fn scan(routes: &[Arc<Route>], head: &Parts) -> Option<(String, usize)> {
    let grpc = routes.iter().any(|route| route.kind == RouteKind::Grpc);
    let everything = [Match::default()];
    let mut best: Option<(&Match, &Route, usize)> = None;
    for route in routes
        .iter()
        .filter(|route| (route.kind == RouteKind::Grpc) == grpc)
    {
        for (position, rule) in route.rules.iter().enumerate() {
            let all = if rule.matches.is_empty() {
                &everything[..]
            } else {
                &rule.matches
            };
            for wanted in all.iter().filter(|wanted| matches(head, grpc, wanted)) {
                let name = |route: &Route| format!("{}/{}", route.namespace, route.name);
                let better = best.is_none_or(|(had, of, at)| {
                    by_specification(wanted, had)
                        .then(route.created.cmp(&of.created))
                        .then(name(route).cmp(&name(of)))
                        .then(position.cmp(&at))
                        .is_lt()
                });
                if better {
                    best = Some((wanted, route, position));
                }
            }
        }
    }
    best.map(|(_, route, position)| (format!("{}/{}", route.namespace, route.name), position))
}

const PATHS: [&str; 12] = [
    "/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a/b/c", "//", "/a//b", "/s.A/M", "/s.A/N", "/s.B/M",
];
const PREFIXES: [&str; 8] = ["", "", "", "/a", "/a/b", "/ab", "/a/b/c", "/s.A"];
const PATTERNS: [&str; 9] = [
    "/a.*",
    "/a/b.?",
    "/a/b",
    "(?i)/A/B",
    "/.*|/a",
    "/a/(b|c)/?.*",
    ".*",
    "/[ab]+",
    "/s\\.A/.*",
];
const VALUES: [&str; 6] = ["1", "2", "3", "4", "5", "11"];

fn value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        4 => select(&VALUES[..]).prop_map(|text| ValueMatch::Exact(text.into())),
        1 => select(&["1.*", "[2-4]"][..]).prop_map(|text| ValueMatch::Regex(Pattern::new(text).unwrap())),
    ]
}

fn http_path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        select(&PATHS[..]).prop_map(|path| PathMatch::Exact(path.into())),
        select(&PREFIXES[..]).prop_map(|path| PathMatch::Prefix(path.into())),
        select(&PATTERNS[..]).prop_map(|text| PathMatch::Regex(Pattern::new(text).unwrap())),
    ]
}

fn grpc_name(names: &'static [&'static str]) -> impl Strategy<Value = Option<ValueMatch>> {
    option::of(prop_oneof![
        3 => select(names).prop_map(|text| ValueMatch::Exact(text.into())),
        1 => select(&["s.*", "[M-N]", ".*"][..]).prop_map(|text| ValueMatch::Regex(Pattern::new(text).unwrap())),
    ])
}

fn grpc_path() -> impl Strategy<Value = PathMatch> {
    (grpc_name(&["s.A", "s.B"]), grpc_name(&["M", "N"]))
        .prop_map(|(service, method)| PathMatch::Grpc { service, method })
}

fn wanted(kind: RouteKind) -> impl Strategy<Value = Match> {
    let path = match kind {
        RouteKind::Http => http_path().boxed(),
        RouteKind::Grpc => grpc_path().boxed(),
    };
    let names = |name: &str| http::HeaderName::from_bytes(name.as_bytes()).unwrap();
    let header = |name| option::of(value()).prop_map(move |value| value.map(|value| (names(name), value)));
    let query = option::of(value()).prop_map(|value| value.map(|value| ("q".into(), value)));
    (
        option::weighted(0.9, path),
        option::weighted(0.2, select(vec![Method::GET, Method::POST])),
        header("x"),
        header("y"),
        query,
    )
        .prop_map(move |(path, method, x, y, query)| Match {
            path,
            method: method.filter(|_| kind == RouteKind::Http),
            headers: x.into_iter().chain(y).collect(),
            query: query.into_iter().filter(|_| kind == RouteKind::Http).collect(),
        })
}

fn any_route() -> impl Strategy<Value = Arc<Route>> {
    prop_oneof![5 => Just(RouteKind::Http), 1 => Just(RouteKind::Grpc)].prop_flat_map(|kind| {
        let rules = vec(vec(wanted(kind), 0..4), 1..8);
        ("[ab]{1,2}", "[ab-]{1,2}", 0..2_u64, rules).prop_map(move |(namespace, name, created, rules)| {
            Arc::new(Route {
                kind,
                namespace: namespace.into(),
                name: name.into(),
                created,
                rules: rules.into_iter().map(|matches| rule("r", matches)).collect(),
            })
        })
    })
}

/// Of different names, as they are in a namespace.
fn routes() -> impl Strategy<Value = Vec<Arc<Route>>> {
    vec(any_route(), 1..10).prop_map(|mut routes| {
        routes.sort_by_key(|route| (route.namespace.clone(), route.name.clone()));
        routes.dedup_by_key(|route| (route.namespace.clone(), route.name.clone()));
        routes
    })
}

fn request() -> impl Strategy<Value = Parts> {
    let value = || option::of(select(&VALUES[..]));
    (
        select(&PATHS[..]),
        any::<bool>(),
        any::<bool>(),
        value(),
        value(),
        value(),
    )
        .prop_map(|(path, post, grpc, x, y, query)| {
            let query = query
                .map(|value| format!("?p=1&q={value}&q=0"))
                .unwrap_or_default();
            let mut head = head(&format!("http://echo{path}{query}"));
            if post {
                head.method = Method::POST;
            }
            for (name, value) in [
                ("x", x),
                ("y", y),
                ("content-type", grpc.then_some("application/grpc")),
            ] {
                if let Some(value) = value {
                    head = with_header(head, name, value);
                }
            }
            head
        })
}

/// A target as hostile as a URI can be, with headers to match.
fn wild_request() -> impl Strategy<Value = Parts> {
    let text = "[/a-c.*%?&=+:@#\\[\\]\\PC]{0,40}";
    (text, vec(any::<u8>(), 0..20), any::<bool>()).prop_map(|(target, value, grpc)| {
        let uri = target
            .parse::<http::Uri>()
            .or_else(|_| format!("/{target}").parse())
            .unwrap_or_default();
        let mut head = head("/");
        head.uri = uri;
        if grpc {
            head = with_header(head, "content-type", "application/grpc");
        }
        if let Ok(value) = http::HeaderValue::from_bytes(&value) {
            head.headers.append("x", value.clone());
            head.headers.append("host", value);
        }
        head
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_table_answers_as_a_scan_of_all_rules(routes in routes(), requests in vec(request(), 1..12)) {
        let table = Table::new(&routes);
        for head in &requests {
            let found = table.choose(head).map(|chosen| (chosen.rule.route.to_string(), chosen.rule.position));
            prop_assert_eq!(&found, &scan(&routes, head), "{:?}", head);

            let explained = explain(&table, head);
            let chosen = explained.iter().filter(|one| one.verdict == Verdict::Chosen);
            let chosen: Vec<_> = chosen.map(|one| (one.route.to_string(), one.rule)).collect();
            prop_assert_eq!(chosen, found.into_iter().collect::<Vec<_>>());
            let first = explained.iter().position(|one| one.verdict == Verdict::Chosen);
            let outranked = explained.iter().position(|one| one.verdict == Verdict::Outranked);
            prop_assert!(outranked.is_none_or(|at| first.is_some_and(|first| first < at)));
        }
    }

    #[test]
    fn no_request_makes_it_panic(routes in routes(), head in wild_request(), filters in super::changes::filters()) {
        let table = Table::new(&routes);
        let prefix = table.choose(&head).and_then(|chosen| chosen.matched_prefix);
        explain(&table, &head);
        let mut changed = head.clone();
        let _either = apply_request(&filters, prefix, &mut changed);
    }
}

#[test]
fn deep_paths_cost_no_stack() {
    let deep = "/a".repeat(100_000);
    let table = table(vec![
        prefix(&deep),
        regex(&format!("{}/[0-9]+", "/b".repeat(2000))),
    ]);
    assert!(chosen(&table, &head("/a/a/a")).is_none());
    check(&table, &head(&format!("{}/7", "/b".repeat(2000))), Some("1"));
    drop(table);
}
