use super::*;

#[test]
fn a_pod_that_the_file_names_too_is_the_files() {
    let mut kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let both = kubelet.node.pod("both").unwrap();
    let uid = kubelet.apply(&objects::pod("both", NODE_NAME, ""));
    let _running = kubelet.run(&both, &uid);
    assert_eq!(kubelet.stands("both", "enrolled", "")["workload"], "both");
    let rows = |kubelet: &Kubelet| {
        let pods = kubelet.agent.cli_json(&["pods"]).unwrap();
        let rows = pods.as_array().unwrap().iter();
        rows.filter(|row| row["name"] == "both")
            .cloned()
            .collect::<Vec<_>>()
    };
    let is = |kubelet: &Kubelet, workload: &str, note: &str| {
        eventually(&format!("it is {workload}, {note}"), SOON, || {
            let rows = rows(kubelet);
            let said = |row: &Value| row["note"].as_str().unwrap_or_default().to_owned();
            rows.len() == 1
                && rows[0]["state"] == "enrolled"
                && rows[0]["workload"] == workload
                && said(&rows[0]) == note
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", rows(kubelet)));
        assert!(kubelet.is_redirected(&both));
    };
    let named = Config::default().pod(&both, "of-the-file");
    kubelet.agent.reload(named).unwrap();
    is(
        &kubelet,
        "of-the-file",
        "as the file says; what the API says of it does not count",
    );
    // What the API says next changes nothing.
    kubelet.apply(&objects::pod("both", NODE_NAME, "disabled"));
    is(
        &kubelet,
        "of-the-file",
        "as the file says; what the API says of it does not count",
    );
    kubelet.apply(&objects::pod("both", NODE_NAME, "enabled"));
    kubelet.agent.reload(Config::default()).unwrap();
    is(&kubelet, "both", "");
}
