use super::*;

#[test]
fn subsets_are_named_wherever_they_are_chosen() {
    let (file, notes) = imported_as(example!("subsets"));
    let rules = &file["routes"][0]["rules"];
    assert_eq!(
        rules[0]["matches"][0]["headers"],
        json!([{"name": "x-version", "value": "pre-release"}])
    );
    assert_eq!(rules[1]["backendRefs"][0]["weight"], 90);
    assert_eq!(file["services"][0]["ports"][0]["endpoints"][0]["weight"], 3);
    assert_eq!(
        policy(&file, "odds")["loadBalancer"],
        json!({"algorithm": "leastRequest"})
    );
    assert_eq!(
        notes,
        "no equivalent listeners[0].hosts[0].routes[0].route.metadata_match\n\
         no equivalent listeners[0].hosts[0].routes[1].route.weighted_clusters.clusters[0].metadata_match\n\
         differs clusters[0].least_request_lb_config.choice_count\n\
         no equivalent clusters[0].lb_subset_config\n\
         no equivalent clusters[0].endpoints[0].lb_endpoints[0].metadata\n\
         no equivalent clusters[0].endpoints[0].lb_endpoints[1].metadata\n\
         kubernetes: no equivalent clusters[0]\n\
         kubernetes: missing listeners[0].hosts[0]\n"
    );
}

#[test]
fn localities_are_zones_without_priorities() {
    let (file, notes) = imported_as(example!("localities"));
    assert_eq!(
        file["services"][0]["ports"][0]["endpoints"],
        json!([{"address": "10.0.1.1:8000", "zone": "a"}, {"address": "10.0.2.1:8000", "zone": "b"}])
    );
    let policy = policy(&file, "backend");
    assert_eq!(
        policy["loadBalancer"],
        json!({"algorithm": "roundRobin", "panicThreshold": 30, "zoneAware": {"minEndpoints": 4}})
    );
    assert_eq!(policy["healthCheck"]["port"], 8001);
    assert_eq!(
        notes,
        "missing listeners[0].hosts[0]\n\
         no equivalent clusters[0].health_checks[0].no_traffic_interval\n\
         no equivalent clusters[0].endpoints[0].locality.region\n\
         no equivalent clusters[0].endpoints[0].load_balancing_weight\n\
         no equivalent clusters[0].endpoints[1].locality.region\n\
         no equivalent clusters[0].endpoints[1].load_balancing_weight\n\
         no equivalent clusters[0].endpoints[2]\n"
    );
}

#[test]
fn health_checks_outliers_and_breakers_are_policies() {
    let (file, notes) = imported_as(example!("health-checks"));
    let web = policy(&file, "web");
    assert_eq!(
        web["healthCheck"],
        json!({
            "http": {"path": "/healthz", "host": "web.internal", "expectedStatuses": ["200-299"]},
            "interval": "1m", "timeout": "1s", "unhealthyThreshold": 3, "healthyThreshold": 3, "jitter": 0,
        })
    );
    assert_eq!(
        web["outlierDetection"],
        json!({
            "consecutive5xx": 10, "consecutiveGatewayErrors": 5, "interval": "10s", "baseEjectionTime": "30s",
            "maxEjectionPercent": 20, "successRate": {"minimumHosts": 5, "requestVolume": 100, "stdevFactor": 1.9},
        })
    );
    // Nothing is retried, so nothing bounds it.
    assert_eq!(
        web["circuitBreaking"],
        json!({"maxConnections": 1000, "maxPendingRequests": 500, "maxRequests": 1000})
    );
    let calls = policy(&file, "calls");
    assert_eq!(calls["healthCheck"]["grpc"], json!({"service": "calls.v1.Calls"}));
    assert_eq!(calls["connectionPool"]["http2Keepalive"], "30s");
    assert_eq!(calls["circuitBreaking"], json!({"maxRequests": 200}));
    assert_eq!(
        file["services"][0]["ports"][0]["endpoints"][0]["state"],
        "terminating"
    );
    let store = policy(&file, "store");
    assert_eq!(store["healthCheck"]["tcp"], json!({}));
    assert_eq!(store["loadBalancer"], json!({"algorithm": "random"}));
    assert_eq!(file["services"][1]["ports"][0]["protocol"], "tcp");
    assert_eq!(
        notes,
        "missing listeners[0].cluster\n\
         differs clusters[0].http_protocol_options\n\
         no equivalent clusters[0].health_checks[0].interval_jitter\n\
         no equivalent clusters[0].health_checks[0].http_health_check.codec_client_type\n\
         no equivalent clusters[0].circuit_breakers.thresholds[1]\n\
         differs clusters[1].http2_protocol_options.connection_keepalive.timeout\n\
         no equivalent clusters[1].health_checks[0].grpc_health_check.authority\n\
         no equivalent clusters[1].health_checks[1]\n\
         no equivalent clusters[2].health_checks[0].tcp_health_check.send\n\
         no equivalent clusters[2].health_checks[0].tcp_health_check.receive\n\
         kubernetes: no equivalent clusters[2]\n"
    );
}
