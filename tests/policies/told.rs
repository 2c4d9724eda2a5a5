//! What the command line tells of endpoints and of requests.

use derny_tests::upstream::TestdOptions;
use serde_json::{Value, json};

use super::{status, world};

/// The one of `endpoints` at this server.
fn at<'e>(endpoints: &'e Value, ip: &str) -> &'e Value {
    let mut all = endpoints.as_array().unwrap().iter();
    all.find(|one| one["address"].as_str().unwrap().starts_with(&format!("{ip}:")))
        .unwrap()
}

#[test]
fn an_ejected_endpoint_is_named_with_the_reason_and_the_others_with_their_latency() {
    let mut world = world(2, &json!({"retry": {"attempts": 0}}));
    world.kill_server(0).unwrap();
    let failing = TestdOptions {
        arguments: vec!["--status".to_owned(), "500".to_owned()],
        ..TestdOptions::default()
    };
    world.start_server(0, &failing).unwrap();
    for _ in 0..20 {
        status(&world, "http", "/");
    }
    let ips: Vec<String> = world.servers.iter().map(|s| s.pod.ip().to_string()).collect();

    let endpoints = world.agent.cli_json(&["endpoints", "demo/http"]).unwrap();
    let used = &at(&endpoints, &ips[0])["uses"][0];
    assert_eq!(used["standing"], "ejected", "{used}");
    assert_eq!(used["reason"], "consecutive5xx", "{used}");
    let (since, left) = (&used["ejectedSinceMs"], &used["returnsInMs"]);
    let (since, left) = (since.as_u64().unwrap(), left.as_u64().unwrap());
    // The base ejection time, within what the two numbers lose by rounding.
    assert!((29_995..=30_005).contains(&(since + left)), "{used}");
    let used = &at(&endpoints, &ips[1])["uses"][0];
    assert_eq!(
        (&used["standing"], &used["inFlight"]),
        (&json!("in"), &json!(0)),
        "{used}"
    );
    let latency = used["latencyMs"].as_f64().unwrap();
    assert!(latency > 0.0 && latency < 1000.0, "{used}");

    let url = world.url("http", "/a?b=c").unwrap();
    let arguments = [
        "explain",
        "--from",
        "demo/client",
        "--header",
        "connection: close",
        &url,
    ];
    let told = world.agent.cli_json(&arguments).unwrap();
    let backend = &told["backends"][0];
    assert_eq!(
        at(&backend["candidates"], &ips[0])["excludedBy"],
        "it is ejected: consecutive5xx",
        "{told}"
    );
    assert_eq!(at(&backend["candidates"], &ips[1])["excludedBy"], "", "{told}");
    assert_eq!(backend["request"]["path"], "/a?b=c", "{told}");
    assert_eq!(backend["request"]["removed"], json!(["connection"]), "{told}");
    let forwarded = json!({"name": "x-forwarded-for", "value": world.client.ip().to_string()});
    assert!(
        backend["request"]["set"].as_array().unwrap().contains(&forwarded),
        "{told}"
    );
}
