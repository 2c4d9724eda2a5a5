//! Which endpoint gets a request.

use serde_json::{Map, Value};

use super::{fields::put, reading::Node};

pub(super) fn read(cluster: &Node<'_>, policy: &mut Map<String, Value>) {
    let mut balancer = Map::new();
    match cluster.get("load_balancing_policy") {
        Some(extension) => by_extension(&extension, &mut balancer),
        None => by_enum(cluster, &mut balancer),
    }
    if let Some(common) = cluster.get("common_lb_config") {
        common_config(&common, &mut balancer);
    }
    // Zones count only when this is said, as in Envoy, where it needs the local cluster's name.
    policy.insert("loadBalancer".to_owned(), Value::Object(balancer));
}

/// `lb_policy` and the configuration beside it.
fn by_enum(cluster: &Node<'_>, balancer: &mut Map<String, Value>) {
    let policy = cluster.get("lb_policy");
    let word = policy.as_ref().and_then(|policy| policy.word());
    let algorithm = match word.as_deref() {
        None | Some("ROUND_ROBIN") => "roundRobin",
        Some("LEAST_REQUEST") => "leastRequest",
        Some("RANDOM") => "random",
        Some("RING_HASH") => "ringHash",
        Some("MAGLEV") => "maglev",
        Some(_) => {
            if let Some(policy) = policy {
                policy.no_equivalent();
            }
            return;
        }
    };
    put(balancer, "algorithm", Some(algorithm));
    let field = match algorithm {
        "roundRobin" => "round_robin_lb_config",
        "leastRequest" => "least_request_lb_config",
        "ringHash" => "ring_hash_lb_config",
        "maglev" => "maglev_lb_config",
        _ => return,
    };
    if let Some(config) = cluster.get(field) {
        of_algorithm(&config, algorithm, balancer);
    }
}

/// `load_balancing_policy`: the first that is known counts, as in Envoy.
fn by_extension(extension: &Node<'_>, balancer: &mut Map<String, Value>) {
    let known = |config: &Node<'_>| {
        Some(match config.kind()? {
            "RoundRobin" => "roundRobin",
            "LeastRequest" => "leastRequest",
            "Random" => "random",
            "RingHash" => "ringHash",
            "Maglev" => "maglev",
            "PeakEwma" => "peakEwma",
            _ => return None,
        })
    };
    for policy in extension.list("policies") {
        let extension = policy.get("typed_extension_config");
        let config = extension
            .as_ref()
            .and_then(|extension| extension.get("typed_config"));
        if let (Some(extension), Some(config)) = (extension, config)
            && let Some(algorithm) = known(&config)
        {
            extension.pass_over("name");
            put(balancer, "algorithm", Some(algorithm));
            of_algorithm(&config, algorithm, balancer);
            return;
        }
        policy.no_equivalent();
    }
}

/// The fields have the same names beside `lb_policy` and in the extensions.
fn of_algorithm(config: &Node<'_>, algorithm: &str, balancer: &mut Map<String, Value>) {
    let number = |name| config.get(name).and_then(|number| number.number());
    match algorithm {
        "ringHash" => put(balancer, "minRingSize", number("minimum_ring_size")),
        "maglev" => put(balancer, "tableSize", number("table_size")),
        "leastRequest" if number("choice_count").is_some_and(|choices| choices != 2) => {
            if let Some(choices) = config.get("choice_count") {
                choices.note(super::NoteKind::Differs, "of two at random");
            }
        }
        _ => {}
    }
    if let Some(slow) = config.get("slow_start_config") {
        put(
            balancer,
            "slowStart",
            slow.get("slow_start_window").and_then(|window| window.duration()),
        );
    }
}

/// `Cluster.CommonLbConfig`
fn common_config(common: &Node<'_>, balancer: &mut Map<String, Value>) {
    if let Some(threshold) = common
        .at(&["healthy_panic_threshold", "value"])
        .and_then(|v| v.decimal())
    {
        let percent = threshold.clamp(0.0, 100.0).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        put(balancer, "panicThreshold", Some(percent as u64));
    }
    if let Some(zones) = common.get("zone_aware_lb_config") {
        let mut aware = Map::new();
        let size = zones.get("min_cluster_size").and_then(|size| size.number());
        put(&mut aware, "minEndpoints", size);
        if let Some(share) = zones.get("routing_enabled")
            && share.get("value").and_then(|percent| percent.decimal()) != Some(100.0)
        {
            share.note(super::NoteKind::Differs, "zones count for all requests");
        }
        balancer.insert("zoneAware".to_owned(), Value::Object(aware));
    }
    // Endpoints come and go here one by one, and requests do not wait for it.
    for field in [
        "update_merge_window",
        "close_connections_on_host_set_change",
        "ignore_new_hosts_until_first_hc",
    ] {
        common.pass_over(field);
    }
}
