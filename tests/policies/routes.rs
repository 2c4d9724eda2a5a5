//! Routes on a service.

use derny_tests::World;
use serde_json::{Value, json};

use super::status;

/// A world in which `http` has these rules.
fn routed(rules: Value) -> World {
    World::with(1, &Default::default(), |options| {
        options.config.routes.push(json!({
            "kind": "HTTPRoute", "name": "split", "namespace": "demo",
            "parentRefs": [{"kind": "Service", "name": "http", "namespace": "demo", "port": 80}],
            "rules": rules,
        }));
    })
    .unwrap()
}

#[test]
fn a_rule_is_chosen_by_path_and_header_and_what_matches_none_is_refused() {
    let world = routed(json!([
        {"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}],
         "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-rule", "value": "api"}]}}],
         "backendRefs": [{"name": "any-http", "namespace": "demo", "port": 80}]},
        {"matches": [{"headers": [{"name": "x-canary", "value": "yes"}]}],
         "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/canary"}}}],
         "backendRefs": [{"name": "http", "namespace": "demo", "port": 80}]},
    ]));
    let api = world.get("http", "/api/x", &[]).unwrap();
    assert_eq!(api["headers"]["x-rule"], "api", "{api}");
    let canary = world.get("http", "/other", &["-H", "x-canary: yes"]).unwrap();
    assert_eq!(canary["path"], "/canary");
    assert_eq!(status(&world, "http", "/other"), "404");
    let line = world
        .agent
        .access_line("no route", |line| line["flags"] == "NR")
        .unwrap();
    assert_eq!(line["code"], 404);
    let line = world
        .agent
        .access_line("the api", |line| line["path"] == "/api/x")
        .unwrap();
    assert_eq!(line["route"], "demo/split", "{line}");
}

#[test]
fn a_redirect_answers_without_an_endpoint() {
    let world = routed(json!([{
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "example.com", "statusCode": 301}}],
    }]));
    let url = world.url("http", "/x").unwrap();
    let arguments = [
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{redirect_url}",
        &url,
    ];
    let said = world.curl(&arguments).unwrap().success().unwrap();
    assert!(said.starts_with("301 http://example.com"), "{said}");
}

#[test]
fn a_mirror_sees_the_request_and_the_caller_does_not_see_the_mirror() {
    let world = routed(json!([{
        "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "any-http", "namespace": "demo", "port": 80}}}],
        "backendRefs": [{"name": "http", "namespace": "demo", "port": 80}],
    }]));
    for i in 0..5 {
        assert_eq!(status(&world, "http", &format!("/{i}")), "200");
    }
    let none = |sum: f64| sum == 0.0;
    world
        .agent
        .metric("derny_requests_not_mirrored_total", &[], none)
        .unwrap();
}
