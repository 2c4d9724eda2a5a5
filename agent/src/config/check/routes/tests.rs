//! Faults by path, and what good routes become.

mod filters;

use std::time::Duration;

use crate::{
    config::{Checked, from_yaml},
    model::{Filter, PathChange, PathMatch, RouteKind, Service, ServicePort, Share, ValueMatch},
};

const SERVICES: &str = "
services:
  - {name: echo, namespace: demo, ports: [{port: 80}, {port: 81, name: grpc}, {port: 6379, protocol: tcp}]}
  - {name: v2, namespace: demo, ports: [{port: 80}]}
  - {name: other, namespace: away, ports: [{port: 80}]}
routes:
";

fn good(routes: &str) -> Checked {
    let yaml = format!("{SERVICES}{routes}");
    from_yaml(yaml.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// `expect` are the lines of the error, all of them.
#[track_caller]
fn check(routes: &str, expect: &[&str]) {
    let yaml = format!("{SERVICES}{routes}");
    let error = from_yaml(yaml.as_bytes()).expect_err(&yaml);
    assert_eq!(error.problems(), expect, "{yaml}");
}

/// An HTTPRoute on `echo:80` with these rules.
fn http(rules: &str) -> String {
    let parent = "parentRefs: [{kind: Service, name: echo, port: 80}]";
    format!("  - {{kind: HTTPRoute, name: r, namespace: demo, {parent}, rules: {rules}}}")
}

fn grpc(rules: &str) -> String {
    http(rules).replace("HTTPRoute", "GRPCRoute")
}

fn service<'c>(checked: &'c Checked, name: &str) -> &'c Service {
    checked
        .services
        .iter()
        .find(|service| &*service.name.name == name)
        .unwrap()
}

fn port(checked: &Checked, port: u16) -> &ServicePort {
    let ports = &service(checked, "echo").ports;
    ports.iter().find(|had| had.name.port == port).unwrap()
}

#[test]
fn a_full_http_route_is_read() {
    let checked = good(
        r#"
  - kind: HTTPRoute
    name: split
    namespace: demo
    parentRefs: [{group: "", kind: Service, name: echo, namespace: demo, port: 80}]
    rules:
      - name: canary
        matches:
          - path: {type: PathPrefix, value: /v2/}
            method: GET
            headers:
              - {name: X-Canary, value: "yes"}
              - {name: x-canary, value: ignored}
            queryParams: [{type: RegularExpression, name: q, value: "[0-9]+"}]
        filters:
          - type: RequestHeaderModifier
            requestHeaderModifier: {set: [{name: a, value: b}], add: [], remove: [c]}
          - type: URLRewrite
            urlRewrite: {hostname: h.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
          - type: RequestMirror
            requestMirror: {backendRef: {name: other, namespace: away, port: 80}, percent: 5}
          - type: RequestMirror
            requestMirror: {backendRef: {name: v2, port: 80}, fraction: {numerator: 1, denominator: 1000}}
        backendRefs:
          - {name: echo, port: 80, weight: 9}
          - {name: other, namespace: away, port: 80}
        timeouts: {request: 10s, backendRequest: 2s}
        retry: {codes: [500, 503], attempts: 3, backoff: 100ms, idempotent: true}
      - backendRefs: [{name: v2, port: 80, weight: 0}]
"#,
    );
    let [route] = port(&checked, 80).routes.as_slice() else {
        panic!("{:?}", port(&checked, 80).routes)
    };
    assert_eq!(
        (route.kind, &*route.namespace, &*route.name),
        (RouteKind::Http, "demo", "split")
    );
    let [canary, rest] = route.rules.as_slice() else {
        panic!("{:?}", route.rules)
    };
    let wanted = &canary.matches[0];
    assert_eq!(wanted.path, Some(PathMatch::Prefix("/v2".into())));
    assert_eq!(wanted.headers.len(), 1, "the first of two equal names counts");
    assert_eq!(wanted.headers[0].1, ValueMatch::Exact("yes".into()));
    assert!(matches!(&wanted.query[0].1, ValueMatch::Regex(pattern) if pattern.text() == "[0-9]+"));
    let [Filter::RequestHeaders(_), rewrite, first, second] = canary.filters.as_slice() else {
        panic!("{:?}", canary.filters)
    };
    assert!(
        matches!(rewrite, Filter::UrlRewrite { path: Some(PathChange::Prefix(new)), .. } if &**new == "/")
    );
    let share = |filter: &Filter| match filter {
        Filter::Mirror { target, share } => (target.to_string(), *share),
        other => panic!("{other:?}"),
    };
    let part = |numerator, denominator| Share {
        numerator,
        denominator,
    };
    assert_eq!(share(first), ("away/other:80".into(), part(5, 100)));
    assert_eq!(share(second), ("demo/v2:80".into(), part(1, 1000)));
    let backends: Vec<_> = canary
        .backends
        .iter()
        .map(|b| (b.target.to_string(), b.weight))
        .collect();
    assert_eq!(
        backends,
        [("demo/echo:80".into(), 9), ("away/other:80".into(), 1)]
    );
    assert_eq!(canary.timeouts.request, Some(Duration::from_secs(10)));
    assert_eq!(canary.retry.as_ref().unwrap().attempts, Some(3));
    assert!(canary.retry.as_ref().unwrap().idempotent);
    assert_eq!(rest.backends[0].weight, 0);
    assert!(rest.matches.is_empty() && rest.retry.is_none());
}

#[test]
fn a_parent_without_a_port_is_every_port_that_carries_http() {
    let parent = "parentRefs: [{name: echo}], rules: [{backendRefs: [{name: v2, port: 80}]}]";
    let checked = good(&format!(
        "  - {{kind: GRPCRoute, name: r, namespace: demo, {parent}}}"
    ));
    let routes: Vec<_> = service(&checked, "echo")
        .ports
        .iter()
        .map(|p| (p.name.port, p.routes.len()))
        .collect();
    assert_eq!(routes, [(80, 1), (81, 1), (6379, 0)]);
    assert!(service(&checked, "v2").ports[0].routes.is_empty());
}

#[test]
fn a_grpc_method_is_read_with_a_protobuf_name() {
    let checked = good(&grpc(
        "[{matches: [{method: {service: .a.Shop}}, {method: {method: Get}}]}]",
    ));
    let matches = &port(&checked, 80).routes[0].rules[0].matches;
    let exact = |text: &str| Some(ValueMatch::Exact(text.into()));
    assert_eq!(
        [&matches[0].path, &matches[1].path],
        [
            &Some(PathMatch::Grpc {
                service: exact("a.Shop"),
                method: None
            }),
            &Some(PathMatch::Grpc {
                service: None,
                method: exact("Get")
            }),
        ]
    );
}

#[test]
fn all_faults_of_a_route_are_told_at_once() {
    check(
        r#"
  - kind: TCPRoute
    name: t
    parentRefs: []
    rules: []
  - kind: HTTPRoute
    name: R
    namespace: demo
    parentRefs: [{name: gone}, {name: echo, port: 82}, {name: echo, port: 6379}, {kind: Gateway, name: echo}]
    rules:
      - matches:
          - {path: {type: Glob, value: /}, method: FETCH}
          - {path: {value: a}, headers: [{name: ":path", value: x}, {name: y, type: RegularExpression, value: "("}]}
        backendRefs: [{name: none, port: 80}, {name: v2}, {name: v2, port: 80, weight: 1000001}]
        timeouts: {request: 1s, backendRequest: 2s}
        retry: {codes: [200], attempts: 101, backoff: 0s}
"#,
        &[
            "routes[0].kind: `TCPRoute` is not known: use one of HTTPRoute, GRPCRoute",
            "routes[1].name: `R` is not a DNS label: use 1 to 63 of a-z, 0-9 and -, with no - at either end",
            "routes[1].rules[0].backendRefs[0]: `demo/none` does not exist: add the service, or correct name and \
             namespace (without one it is the route's)",
            "routes[1].rules[0].backendRefs[1]: `demo/v2` is named without a port: add `port`, use one of 80",
            "routes[1].rules[0].backendRefs[2].weight: `1000001` is not a weight: use 0 to 1000000",
            "routes[1].rules[0].matches[0].path.type: `Glob` is not known: use one of Exact, PathPrefix, \
             RegularExpression",
            "routes[1].rules[0].matches[0].method: `FETCH` is not known: use one of GET, HEAD, POST, PUT, DELETE, \
             CONNECT, OPTIONS, TRACE, PATCH",
            "routes[1].rules[0].matches[1].path.value: `a` is not an absolute path: begin it with /",
            "routes[1].rules[0].matches[1].headers[0].name: `:path` is not a header name: use letters, digits and \
             -; the path and the method have fields of their own",
            "routes[1].rules[0].matches[1].headers[1].value: `(` is not a regular expression (unclosed group): use \
             RE2 syntax, without look-around and back-references",
            "routes[1].rules[0].timeouts.backendRequest: `2s` is longer than the request's: make it at most \
             timeouts.request",
            "routes[1].rules[0].retry.codes[0]: `200` is not the status of an error: use 400 to 599",
            "routes[1].rules[0].retry.attempts: `101` is out of range: use 0 to 100",
            "routes[1].rules[0].retry.backoff: `0s` is out of range: use 1ms to 1h",
            "routes[1].parentRefs[0]: `demo/gone` does not exist: add the service, or correct name and namespace \
             (without one it is the route's)",
            "routes[1].parentRefs[1].port: `82` is not a port of demo/echo: use one of 80, 81, 6379",
            "routes[1].parentRefs[2].port: `6379` carries opaque bytes, which cannot be routed: give the port \
             protocol http, http2, grpc or detect, or remove the parent",
            "routes[1].parentRefs[3].kind: `Gateway` is not known: use Service",
        ],
    );
}

#[test]
fn a_grpc_route_has_only_what_it_has() {
    check(
        &grpc(
            "[{matches: [{path: {value: /a}, queryParams: [{name: q, value: v}]}, {method: GET}, {method: {}}, \
             {method: {service: a/b}}], timeouts: {}, retry: {}, \
             filters: [{type: URLRewrite, urlRewrite: {hostname: h}}]}]",
        ),
        &[
            "routes[0].rules[0].filters[0].type: `URLRewrite` has no place in a GRPCRoute: use an HTTPRoute",
            "routes[0].rules[0].matches[0].path: `/a` has no place in a GRPCRoute: match by method.service and \
             method.method",
            "routes[0].rules[0].matches[0].queryParams: `q` has no place in a GRPCRoute: match by headers",
            "routes[0].rules[0].matches[1].method: `GET` is not a gRPC method: write it as {service: a.b.Service, \
             method: Method}",
            "routes[0].rules[0].matches[2].method: `{}` names neither service nor method: give service, method or \
             both; leave method out to match every call",
            "routes[0].rules[0].matches[3].method.service: `a/b` is not a name of gRPC: use letters, digits and _, \
             for a service also dots, or type RegularExpression",
            "routes[0].rules[0].timeouts: `timeouts` has no place in a GRPCRoute: use timeouts of the service's \
             policy",
            "routes[0].rules[0].retry: `retry` has no place in a GRPCRoute: use retry of the service's policy, and here `idempotent` alone",
        ],
    );
    check(
        &http("[{matches: [{method: {service: a}}]}]"),
        &[
            "routes[0].rules[0].matches[0].method: `{service, method}` is not an HTTP method: use one of GET, HEAD, \
           POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH, or a GRPCRoute",
        ],
    );
}

#[test]
fn one_kind_of_route_for_a_port_and_each_route_once() {
    let second = grpc("[{}]").replace("name: r", "name: g");
    check(
        &format!("{}\n{second}\n{}", http("[{}]"), http("[{}]")),
        &[
            "routes[1].parentRefs[0]: `demo/echo:80` has the HTTPRoute demo/r already, and one kind counts alone: \
             use one kind of route for each port; an HTTPRoute can match gRPC calls by path",
            "routes[2].name: `demo/r` is there already: rename or remove one of the two",
        ],
    );
    let twice = "parentRefs: [{name: echo}, {name: echo, port: 80}], rules: [{}]";
    check(
        &format!("  - {{kind: HTTPRoute, name: r, namespace: demo, {twice}}}"),
        &[
            "routes[0].parentRefs[1]: `demo/echo:80` is a parent already: name each port once, or the service once \
           without a port",
        ],
    );
    check(
        "  - {kind: HTTPRoute, name: r, parentRefs: [], rules: []}",
        &[
            "routes[0].rules: `[]` has no rule: add a rule, or remove the route",
            "routes[0].parentRefs: `[]` names no parent: name at least one service, or remove the route",
        ],
    );
}

#[test]
fn shapes_are_told_by_path() {
    check(
        &http("[{matches: [{method: {servce: a}}]}]"),
        &[
            "routes[0].rules[0].matches[0].method.servce: unknown field `servce`, expected one of `type`, `service`, \
           `method`",
        ],
    );
    check(
        &http("[{matches: [{method: 1}]}]"),
        &[
            "routes[0].rules[0].matches[0].method: invalid type: integer `1`, expected GET or another method in an \
           HTTPRoute, or service and method in a GRPCRoute",
        ],
    );
}

#[test]
fn paths_that_a_server_may_read_otherwise_are_refused() {
    for path in [
        "//a", "/a/../b", "/a/./b", "/a/..", "/a/.", "/a%2fb", "/a b", "/a?b", "/a#b", "/%zz", "/é",
    ] {
        let yaml = format!(
            "{SERVICES}{}",
            http(&format!("[{{matches: [{{path: {{value: '{path}'}}}}]}}]"))
        );
        let error = from_yaml(yaml.as_bytes()).expect_err(path);
        let problems = error.problems();
        let [problem] = problems.as_slice() else {
            panic!("{problems:?}")
        };
        assert!(
            problem.starts_with("routes[0].rules[0].matches[0].path.value: `"),
            "{problem}"
        );
    }
}

#[test]
fn a_pattern_that_needs_too_much_memory_is_refused() {
    check(
        &http("[{matches: [{path: {type: RegularExpression, value: '/(a{1000}){1000}'}}]}]"),
        &[
            "routes[0].rules[0].matches[0].path.value: `/(a{1000}){1000}` needs more than 262144 bytes when compiled: \
           write a simpler expression, or several matches",
        ],
    );
}
