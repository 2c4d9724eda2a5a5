//! One test for each sentence on matching and precedence.

use http::Method;

use super::*;
use crate::route::{Explained, Verdict, explain};

#[test]
fn prefixes_match_full_path_elements() {
    let table = table(vec![prefix("/abc")]);
    for path in ["/abc", "/abc/", "/abc/def", "/abc//", "/abc?q"] {
        check(&table, &head(path), Some("0"));
    }
    for path in ["/abcd", "/ab", "/", "/ABC", "/x/abc", "//abc", "/%61bc"] {
        check(&table, &head(path), None);
    }
}

#[test]
fn an_exact_path_is_exact() {
    let table = table(vec![exact("/a/")]);
    check(&table, &head("/a/?x=1"), Some("0"));
    for path in ["/a", "/a/b", "/A/", "/a//"] {
        check(&table, &head(path), None);
    }
}

#[test]
fn a_regular_expression_matches_the_whole_path() {
    let table = table(vec![regex("/v[0-9]+|/x/[a-z]*"), regex("(?i)/CASE")]);
    for (path, expect) in [
        ("/v12", Some("0")),
        ("/x/", Some("0")),
        ("/case", Some("1")),
        ("/v12/", None),
        ("/a/v1", None),
        ("/x/a/b", None),
        ("/cases", None),
    ] {
        check(&table, &head(path), expect);
    }
}

#[test]
fn a_rule_without_matches_takes_every_request() {
    let table = Table::new(&[route(RouteKind::Http, "r", 0, vec![rule("all", Vec::new())])]);
    let mut options = head("*");
    options.method = Method::OPTIONS;
    let mut connect = head("other:443");
    connect.method = Method::CONNECT;
    for head in [head("/"), head("/a/b"), head("http://echo"), options, connect] {
        check(&table, &head, Some("all"));
        assert_eq!(table.choose(&head).unwrap().matched_prefix, Some(""));
    }
}

#[test]
fn no_routes_and_no_match_are_different() {
    assert!(Table::new(&[]).is_empty());
    assert!(Table::new(&[]).choose(&head("/")).is_none());
    let table = table(vec![exact("/a")]);
    assert!(!table.is_empty());
    check(&table, &head("/b"), None);
}

#[test]
fn any_one_of_the_matches_is_enough_and_all_conditions_of_a_match_are_needed() {
    let matches = vec![prefix("/foo").header("version", "v2"), prefix("/v2/foo")];
    let table = Table::new(&[route(RouteKind::Http, "r", 0, vec![rule("r", matches)])]);
    check(&table, &head("/v2/foo/x"), Some("r"));
    check(&table, &with_header(head("/foo"), "version", "v2"), Some("r"));
    check(&table, &head("/foo"), None);
    check(&table, &with_header(head("/foo"), "version", "v1"), None);
    check(&table, &with_header(head("/fo"), "version", "v2"), None);
}

#[test]
fn precedence_must_be_given_to_the_exact_path_then_the_longest_prefix() {
    let table = table(vec![
        prefix(""),
        prefix("/a").header("x", "1").param("q", "1").method(Method::GET),
        prefix("/a/b"),
        exact("/a/b"),
        regex("/a/.*"),
    ]);
    let head = |uri| with_header(head(uri), "x", "1");
    check(&table, &head("/a/b?q=1"), Some("3"));
    check(&table, &head("/a/b/c?q=1"), Some("4"));
    check(&table, &head("/a?q=1"), Some("1"));
    check(&table, &head("/b?q=1"), Some("0"));

    let table = super::table(vec![prefix("/a").method(Method::GET), prefix("/a/b")]);
    check(&table, &head("/a/b/c"), Some("1"));
}

#[test]
fn then_to_the_method_then_to_most_headers_then_to_most_query_params() {
    let table = table(vec![
        prefix("/a").param("p", "1").param("q", "1"),
        prefix("/a").header("x", "1"),
        prefix("/a").header("x", "1").header("y", "1"),
        prefix("/a").method(Method::PUT),
    ]);
    let both = |uri| with_header(with_header(head(uri), "x", "1"), "y", "1");
    let mut put = both("/a?p=1&q=1");
    put.method = Method::PUT;
    check(&table, &put, Some("3"));
    check(&table, &both("/a?p=1&q=1"), Some("2"));
    check(&table, &with_header(head("/a?p=1&q=1"), "x", "1"), Some("1"));
    check(&table, &head("/a?q=1&p=1"), Some("0"));
    check(&table, &head("/a?q=1"), None);
}

#[test]
fn then_to_the_oldest_route_then_by_name_then_to_the_first_rule() {
    let one = |name: &str, created| {
        let rules = vec![rule(name, vec![prefix("/a")]), rule("second", vec![prefix("/a")])];
        route(RouteKind::Http, name, created, rules)
    };
    check(&Table::new(&[one("a", 2), one("b", 1)]), &head("/a"), Some("b"));
    check(&Table::new(&[one("b", 1), one("a", 1)]), &head("/a"), Some("a"));

    // `{namespace}/{name}` is compared as one text.
    let of = |namespace: &str, name: &str| {
        let mut route = Route::clone(&one(name, 0));
        route.namespace = namespace.into();
        Arc::new(route)
    };
    check(
        &Table::new(&[of("a", "z"), of("a-b", "y")]),
        &head("/a"),
        Some("y"),
    );
}

#[test]
fn repeated_headers_are_a_list_and_host_is_the_authority() {
    let list = table(vec![
        prefix("").header("x", "1,2"),
        prefix("").header("cookie", "a=1; b=2"),
    ]);
    check(
        &list,
        &with_header(with_header(head("/"), "x", "1"), "x", "2"),
        Some("0"),
    );
    let cookies = with_header(with_header(head("/"), "cookie", "a=1"), "cookie", "b=2");
    check(&list, &cookies, Some("1"));
    check(&list, &with_header(head("/"), "x", "1"), None);

    let host = table(vec![prefix("").header("host", "shop.example:81")]);
    check(&host, &head("http://shop.example:81/"), Some("0"));
    check(
        &host,
        &with_header(head("/"), "host", "shop.example:81"),
        Some("0"),
    );
    check(&host, &with_header(head("/"), "host", "shop.example"), None);
}

#[test]
fn the_first_value_of_a_query_param_counts_and_is_decoded() {
    let table = table(vec![prefix("").param("q", "a b"), prefix("").param("e", "")]);
    for (uri, expect) in [
        ("/?q=a%20b", Some("0")),
        ("/?%71=a+b&q=c", Some("0")),
        ("/?q=c&q=a+b", None),
        ("/?e", Some("1")),
        ("/?e=", Some("1")),
        ("/?q=%ff", None),
        ("/?q=%", None),
        ("/", None),
    ] {
        check(&table, &head(uri), expect);
    }
}

#[test]
fn header_values_that_are_no_text_match_no_pattern() {
    let wanted = Match {
        headers: vec![(
            http::HeaderName::from_static("x"),
            ValueMatch::Regex(Pattern::new(".*").unwrap()),
        )],
        ..Match::default()
    };
    let table = table(vec![wanted]);
    let mut request = head("/");
    request
        .headers
        .insert("x", http::HeaderValue::from_bytes(b"\xff").unwrap());
    check(&table, &request, None);
    check(&table, &with_header(head("/"), "x", "any"), Some("0"));
}

fn grpc_table(matches: Vec<Match>) -> Table {
    Table::new(&[route(RouteKind::Grpc, "g", 0, rules(matches))])
}

#[test]
fn grpc_precedence_is_by_characters_of_service_then_of_method_then_by_headers() {
    let table = grpc_table(vec![
        Match::default(),
        grpc(None, Some("Get")),
        grpc(Some("a.Shop"), None),
        grpc(Some("a.Shop"), Some("Get")),
        grpc(Some("a.Shop"), None).header("x", "1"),
    ]);
    check(&table, &call("/a.Shop/Get"), Some("3"));
    check(&table, &call("/a.Shop/Put"), Some("2"));
    check(&table, &with_header(call("/a.Shop/Put"), "x", "1"), Some("4"));
    check(&table, &call("/a.Other/Get"), Some("1"));
    check(&table, &call("/a.Other/Put"), Some("0"));
}

#[test]
fn grpc_names_may_be_patterns() {
    let pattern = |text: &str| Some(ValueMatch::Regex(Pattern::new(text).unwrap()));
    let table = grpc_table(vec![
        of_path(PathMatch::Grpc {
            service: pattern("a\\..*"),
            method: None,
        }),
        of_path(PathMatch::Grpc {
            service: Some(ValueMatch::Exact("a.Shop".into())),
            method: pattern("Get.*"),
        }),
    ]);
    check(&table, &call("/a.Shop/GetAll"), Some("1"));
    check(&table, &call("/a.Shop/Put"), Some("0"));
    check(&table, &call("/ab.Shop/Put"), None);
}

#[test]
fn a_grpc_route_without_matches_takes_every_grpc_request_and_no_other() {
    let table = Table::new(&[route(RouteKind::Grpc, "g", 0, vec![rule("all", Vec::new())])]);
    check(&table, &call("/a.Shop/Get"), Some("all"));
    check(&table, &head("/a.Shop/Get"), None);
    let web = with_header(head("/a.Shop/Get"), "content-type", "application/grpc-web");
    check(&table, &web, None);
}

#[test]
fn of_two_route_types_only_the_more_specific_is_applied() {
    let http = route(
        RouteKind::Http,
        "h",
        0,
        vec![rule("h", vec![exact("/a.Shop/Get")])],
    );
    let grpc = route(
        RouteKind::Grpc,
        "g",
        9,
        vec![rule("g", vec![grpc(Some("b"), None)])],
    );
    let table = Table::new(&[http.clone(), grpc]);
    check(&table, &call("/a.Shop/Get"), None);
    assert_eq!(table.ignored(), [Arc::from("demo/h")]);
    assert!(Table::new(&[http]).ignored().is_empty());
}

#[test]
fn an_explanation_names_every_match_and_why_not() {
    let table = table(vec![
        prefix("/a").header("x", "1").method(Method::PUT).param("q", "1"),
        exact("/b"),
        prefix(""),
        prefix("/a"),
    ]);
    let explained = explain(&table, &head("/a/b"));
    let told: Vec<_> = explained
        .iter()
        .map(
            |Explained {
                 wants, verdict, rule, ..
             }| (*rule, wants.as_str(), verdict.clone()),
        )
        .collect();
    let no = |faults: &[&str]| Verdict::No(faults.iter().map(|fault| fault.to_string()).collect());
    assert_eq!(
        told,
        [
            (1, "path = /b", no(&["path is /a/b"])),
            (
                0,
                "path prefix /a, method PUT, header x = 1, query q = 1",
                no(&[
                    "method is GET",
                    "header x is not there",
                    "query parameter q is not there"
                ])
            ),
            (3, "path prefix /a", Verdict::Chosen),
            (2, "path prefix /", Verdict::Outranked),
        ]
    );
    assert_eq!(&*explained[0].route, "demo/r");
}
