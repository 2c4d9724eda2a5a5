//! Weights, filters, redirects and mirrors.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    model::{HeaderChange, PathChange, Redirect, Share},
    route::{Outcome, apply_request, apply_response, mirrors},
};

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

fn pair(key: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (name(key), HeaderValue::from_static(value))
}

fn change() -> HeaderChange {
    HeaderChange {
        set: vec![pair("set", "new")],
        add: vec![pair("my-header", "bar,baz")],
        remove: vec![name("gone")],
    }
}

fn lines<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

/// The head that a rule for `/foo` with these filters makes of `head`.
#[track_caller]
fn changed(filters: Vec<Filter>, mut head: Parts) -> Parts {
    let table = filtering(filters);
    let chosen = table.choose(&head).expect("under /foo");
    let outcome = apply_request(&chosen.rule.filters, chosen.matched_prefix, &mut head).unwrap();
    assert!(matches!(outcome, Outcome::Go { .. }));
    head
}

/// The `Location` that a redirect in a rule for `/foo` gives.
#[track_caller]
fn location(redirect: Redirect, mut head: Parts) -> String {
    let table = filtering(vec![Filter::Redirect(redirect)]);
    let chosen = table.choose(&head).expect("under /foo");
    match apply_request(&chosen.rule.filters, chosen.matched_prefix, &mut head) {
        Ok(Outcome::Answer(response)) => response.headers()["location"].to_str().unwrap().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn rewrite(path: Option<PathChange>, hostname: Option<&'static str>) -> Filter {
    Filter::UrlRewrite {
        hostname: hostname.map(HeaderValue::from_static),
        path,
    }
}

#[test]
fn set_overwrites_add_appends_and_remove_removes() {
    let mut head = head("/foo");
    for (key, value) in [
        ("set", "a"),
        ("set", "b"),
        ("my-header", "foo"),
        ("gone", "1"),
        ("gone", "2"),
    ] {
        head = with_header(head, key, value);
    }
    let mut response = head.headers.clone();
    let head = changed(vec![Filter::RequestHeaders(change())], head);
    apply_response(&[Filter::RequestHeaders(change())], None, &mut response);
    assert_eq!(
        lines(&response, "set"),
        ["a", "b"],
        "a request's filter leaves the response alone"
    );
    apply_response(&[Filter::ResponseHeaders(change())], None, &mut response);
    for headers in [&head.headers, &response] {
        assert_eq!(lines(headers, "set"), ["new"]);
        assert_eq!(lines(headers, "my-header"), ["foo", "bar,baz"]);
        assert!(!headers.contains_key("gone"));
    }
}

/// The table in the description of `replacePrefixMatch`, and the cases around it.
#[test]
fn a_prefix_is_replaced_by_elements() {
    for (path, matched, new, expect) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar?q=1", "/foo", "/", "/bar?q=1"),
        ("/bar", "", "/xyz", "/xyz/bar"),
        ("/", "", "/xyz", "/xyz/"),
        ("/foobar", "/foo", "/xyz", "/foobar"),
    ] {
        let mut head = head(path);
        let filter = rewrite(Some(PathChange::Prefix(new.into())), None);
        apply_request(&[filter], Some(matched), &mut head).unwrap();
        assert_eq!(head.uri, expect, "{path}: {matched} → {new}");
    }
}

#[test]
fn a_full_path_is_replaced_and_the_query_stays() {
    let full = |text: &str| Some(PathChange::Full(text.into()));
    assert_eq!(
        changed(vec![rewrite(full("/x"), None)], head("/foo/a?b=c")).uri,
        "/x?b=c"
    );
    assert_eq!(changed(vec![rewrite(full(""), None)], head("/foo")).uri, "/");
    let absolute = changed(vec![rewrite(full("/x"), None)], head("http://echo/foo"));
    assert_eq!(absolute.uri, "http://echo/x");

    let mut options = head("*");
    apply_request(&[rewrite(full("/x"), None)], Some(""), &mut options).unwrap();
    assert_eq!(options.uri, "*", "the asterisk of OPTIONS is no path");
}

#[test]
fn a_hostname_replaces_host_and_authority() {
    let hostname = || vec![rewrite(None, Some("other.example"))];
    let http1 = changed(hostname(), with_header(head("/foo"), "host", "echo:81"));
    assert_eq!(lines(&http1.headers, "host"), ["other.example"]);
    assert_eq!(http1.uri, "/foo");

    let http2 = changed(hostname(), head("http://echo:81/foo?q"));
    assert_eq!(http2.uri, "http://other.example/foo?q");
    assert!(!http2.headers.contains_key("host"));

    let both = changed(hostname(), with_header(head("http://echo/foo"), "host", "echo"));
    assert_eq!(both.uri, "http://other.example/foo");
    assert_eq!(lines(&both.headers, "host"), ["other.example"]);
}

#[test]
fn filters_apply_in_the_order_given() {
    let set = |value| {
        Filter::RequestHeaders(HeaderChange {
            set: vec![pair("x", value)],
            ..HeaderChange::default()
        })
    };
    let head = changed(vec![set("1"), rewrite(None, Some("h")), set("2")], head("/foo"));
    assert_eq!(lines(&head.headers, "x"), ["2"]);
    assert_eq!(lines(&head.headers, "host"), ["h"]);
}

fn redirect() -> Redirect {
    Redirect {
        scheme: None,
        hostname: None,
        port: None,
        path: None,
        status: StatusCode::FOUND,
    }
}

#[test]
fn what_a_redirect_leaves_out_is_as_in_the_request() {
    let http1 = || with_header(head("/foo/a?b=c"), "host", "echo.demo:8080");
    assert_eq!(location(redirect(), http1()), "http://echo.demo:8080/foo/a?b=c");
    assert_eq!(
        location(redirect(), head("http://echo:8080/foo")),
        "http://echo:8080/foo"
    );
    let hostname = Redirect {
        hostname: Some("other".into()),
        ..redirect()
    };
    assert_eq!(location(hostname, http1()), "http://other:8080/foo/a?b=c");
    let prefix = Redirect {
        path: Some(PathChange::Prefix("/bar".into())),
        ..redirect()
    };
    assert_eq!(location(prefix, http1()), "http://echo.demo:8080/bar/a?b=c");
    let full = Redirect {
        path: Some(PathChange::Full("/bar".into())),
        ..redirect()
    };
    assert_eq!(location(full, http1()), "http://echo.demo:8080/bar?b=c");
}

#[test]
fn the_redirect_port_is_the_schemes_own_or_the_one_called() {
    for (scheme, port, called, expect) in [
        (Some("https"), None, "echo:8080", "https://echo/foo"),
        (Some("http"), None, "echo:8080", "http://echo/foo"),
        (Some("https"), Some(443), "echo", "https://echo/foo"),
        (Some("https"), Some(80), "echo", "https://echo:80/foo"),
        (Some("https"), Some(8443), "echo:8080", "https://echo:8443/foo"),
        (None, Some(80), "echo:8080", "http://echo/foo"),
        (None, Some(443), "echo", "http://echo:443/foo"),
        (None, None, "echo:80", "http://echo/foo"),
        (None, None, "[fd00::1]:81", "http://[fd00::1]:81/foo"),
    ] {
        let to = Redirect {
            scheme: scheme.map(Into::into),
            port,
            ..redirect()
        };
        assert_eq!(location(to, with_header(head("/foo"), "host", called)), expect);
    }
}

#[test]
fn a_redirect_without_a_host_names_none() {
    assert_eq!(location(redirect(), head("/foo")), "/foo");
    let to = Redirect {
        path: Some(PathChange::Prefix("".into())),
        ..redirect()
    };
    assert_eq!(location(to, head("/foo//evil.example/x")), "/.//evil.example/x");
}

#[test]
fn a_redirect_has_its_status() {
    for status in [301, 302, 303, 307, 308] {
        let to = Redirect {
            status: StatusCode::from_u16(status).unwrap(),
            ..redirect()
        };
        match apply_request(&[Filter::Redirect(to)], None, &mut head("/foo")) {
            Ok(Outcome::Answer(response)) => assert_eq!(response.status(), status),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_share_of_the_requests_is_mirrored() {
    let mirror = |name: &str, numerator, denominator| Filter::Mirror {
        target: target(name),
        share: Share {
            numerator,
            denominator,
        },
    };
    let filters = [
        mirror("all", 1, 1),
        mirror("none", 0, 100),
        mirror("some", 3, 1000),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut counts = [0; 3];
    for _ in 0..100_000 {
        for target in mirrors(&filters, &mut rng) {
            let names = ["all", "none", "some"];
            let at = names.iter().position(|name| **name == *target.service.name);
            counts[at.unwrap()] += 1;
        }
    }
    assert_eq!(counts[..2], [100_000, 0]);
    assert!((200..400).contains(&counts[2]), "{counts:?}");
}

#[test]
fn nothing_is_sent_to_backends_without_weight() {
    for backends in [
        vec![],
        vec![backend("a", 0)],
        vec![backend("a", 0), backend("b", 0)],
    ] {
        let rule = Rule {
            backends,
            ..rule("r", Vec::new())
        };
        let table = Table::new(&[route(RouteKind::Http, "r", 0, vec![rule])]);
        let chosen = table.choose(&head("/")).unwrap();
        assert!(chosen.rule.backend(&mut fastrand::Rng::with_seed(1)).is_none());
    }
}

proptest! {
    /// Within five standard deviations of what the weights say. Chance goes beyond that once in some hundred runs of this
    /// test, but not twice for the same backend.
    #[test]
    fn backends_get_their_share(weights in vec(0..1_000_000_u32, 1..16), seed: u64) {
        const DRAWS: u32 = 20_000;
        let names: Vec<String> = (0..weights.len()).map(|i| i.to_string()).collect();
        let backends = names.iter().zip(&weights).map(|(name, weight)| backend(name, *weight)).collect();
        let table = Table::new(&[route(RouteKind::Http, "r", 0, vec![Rule { backends, ..rule("r", Vec::new()) }])]);
        let rule = table.choose(&head("/")).unwrap().rule;
        let mut rng = fastrand::Rng::with_seed(seed);
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        // Who got another share than its weight says, of so many draws.
        let mut wronged = |draws: u32| {
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..draws {
                if let Some(backend) = rule.backend(&mut rng) {
                    counts[backend.target.service.name.parse::<usize>().unwrap()] += 1;
                }
            }
            let wronged = |place: &usize| {
                let (count, weight) = (counts[*place], weights[*place]);
                let share = if total == 0.0 { 0.0 } else { f64::from(weight) / total };
                let expect = share * f64::from(draws);
                let allowed = 5.0 * (expect * (1.0 - share)).sqrt() + 1.0;
                assert!(weight > 0 || count == 0);
                (f64::from(count) - expect).abs() > allowed
            };
            (0..weights.len()).filter(wronged).collect::<Vec<_>>()
        };
        let suspects = wronged(DRAWS);
        if !suspects.is_empty() {
            let confirmed = wronged(10 * DRAWS);
            prop_assert!(!suspects.iter().any(|place| confirmed.contains(place)), "{suspects:?} of {weights:?}");
        }
    }
}

/// Any filters that a checked route can have.
pub(super) fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let path = || {
        let text = select(&["", "/", "/x", "/x/", "/x/y"][..]);
        option::of((any::<bool>(), text).prop_map(|(full, text)| match full {
            true => PathChange::Full(text.into()),
            false => PathChange::Prefix(text.into()),
        }))
    };
    let host = || option::of(select(&["h", "h.example"][..]));
    let filter = prop_oneof![
        Just(Filter::RequestHeaders(change())),
        (path(), host()).prop_map(|(path, host)| rewrite(path, host)),
        (path(), host(), option::of(1..u16::MAX)).prop_map(|(path, host, port)| {
            Filter::Redirect(Redirect {
                path,
                hostname: host.map(Into::into),
                port,
                ..redirect()
            })
        }),
    ];
    vec(filter, 0..4)
}
