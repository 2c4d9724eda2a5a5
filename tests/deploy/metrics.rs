use std::{collections::BTreeSet, fs};

use derny_tests::clients::workspace;

use crate::rendered::deploy;

/// Names of metrics in a text, without the ends that a histogram's series have.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("derny_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

#[test]
fn dashboards_and_alerts_name_documented_metrics_only() {
    let documented = names(&fs::read_to_string(workspace().join("docs/metrics.md")).unwrap());
    for file in ["dashboards/derny.json", "alerts/derny.yaml"] {
        let used = names(&fs::read_to_string(deploy().join(file)).unwrap());
        assert!(used.len() > 5, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&documented).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}

/// A dashboard without these fields is not loaded.
#[test]
fn the_dashboard_is_one() {
    let text = fs::read_to_string(deploy().join("dashboards/derny.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(dashboard["uid"], "derny");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are given once");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(
            targets
                .iter()
                .all(|target| !target["expr"].as_str().unwrap().is_empty()),
            "{panel}"
        );
    }
}
