use std::{sync::Mutex, time::Duration};

use derny_tests::{Pod, config::NAMESPACE, eventually, kube::objects, process::Output};
use serde_json::{Value, json};

use crate::{
    kubelet::{Driver, Kubelet, NODE_NAME, Running, state_file},
    world::SOON,
};

/// Bound of the slowest enrolment but one in a hundred, on a machine that builds beside the tests.
const ENROLLED_WITHIN: Duration = Duration::from_millis(500);

#[test]
fn a_pod_is_enrolled_whoever_tells_of_it_first() {
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let kubelet = Kubelet::enabled(driver);
        // The API first.
        let uid = kubelet.apply(&objects::pod("early", NODE_NAME, ""));
        kubelet.stands("early", "waiting", "no process of it runs yet");
        let early = kubelet.node.pod("early").unwrap();
        let running = kubelet.run(&early, &uid);
        let shown = kubelet.stands("early", "enrolled", "");
        assert_eq!(shown["workload"], "early");
        assert_eq!(shown["addresses"][0], early.ip().to_string(), "{shown}");
        assert!(kubelet.is_redirected(&early));
        let line = kubelet
            .agent
            .access_line("the call", |line| line["service"] == "demo/echo:80")
            .unwrap();
        assert!(line.to_string().contains("early"), "{line}");
        let gap = shown["enrolledAtMs"].as_u64().unwrap() - running.begun;
        println!("{driver:?}: enrolled {gap} ms after the runtime began to start its first process");

        // The sandbox first: the pod comes to this node when it runs already.
        let uid = kubelet.apply(&objects::pod("late", "", ""));
        let late = kubelet.node.pod("late").unwrap();
        let _running_late = kubelet.run(&late, &uid);
        assert_eq!(kubelet.shown("late"), Value::Null);
        kubelet.apply(&objects::pod("late", NODE_NAME, ""));
        kubelet.stands("late", "enrolled", "");

        // The end of the processes is the end of the enrolment; the API may say so later.
        drop(running);
        kubelet.stands("early", "waiting", "no process of it runs yet");
        kubelet
            .cluster
            .delete_at_once(&objects::pod("early", NODE_NAME, ""))
            .unwrap();
        eventually("the pod is forgotten", SOON, || {
            kubelet.shown("early") == Value::Null
        })
        .unwrap();
    }
}

#[test]
fn labels_decide_and_count_at_once() {
    let kubelet = Kubelet::new(Driver::Cgroupfs, &objects::namespace(NAMESPACE, ""));
    let uid = kubelet.apply(&objects::pod("a", NODE_NAME, ""));
    let pod = kubelet.node.pod("a").unwrap();
    let _running = kubelet.run(&pod, &uid);
    kubelet.stands("a", "left alone", "no label derny.dev/mesh");
    assert!(!kubelet.is_redirected(&pod));

    kubelet
        .cluster
        .apply(&[objects::namespace(NAMESPACE, "enabled")])
        .unwrap();
    kubelet.stands("a", "enrolled", "");
    assert!(kubelet.is_redirected(&pod));
    kubelet.apply(&objects::pod("a", NODE_NAME, "disabled"));
    kubelet.stands("a", "left alone", "label derny.dev/mesh: disabled");
    kubelet
        .cluster
        .apply(&[objects::namespace(NAMESPACE, "")])
        .unwrap();
    kubelet.apply(&objects::pod("a", NODE_NAME, "enabled"));
    kubelet.stands("a", "enrolled", "");

    let mut annotated = objects::pod("a", NODE_NAME, "enabled");
    annotated["metadata"]["annotations"] = json!({"derny.dev/inbound": "8080=h3"});
    kubelet.apply(&annotated);
    let fault = || {
        kubelet.shown("a")["note"]
            .as_str()
            .unwrap_or_default()
            .contains("`h3` is no protocol")
    };
    eventually("the fault is said", SOON, fault).unwrap();
    assert_eq!(kubelet.shown("a")["state"], "enrolled");

    let mut others = objects::pod("host", NODE_NAME, "enabled");
    others["spec"]["hostNetwork"] = true.into();
    kubelet.apply(&others);
    kubelet.stands("host", "left alone", "hostNetwork");
    let mut others = objects::pod("sandboxed", NODE_NAME, "enabled");
    others["spec"]["runtimeClassName"] = "gvisor".into();
    kubelet.apply(&others);
    kubelet.stands("sandboxed", "left alone", "runtimeClassName gvisor");
    let table: Output = kubelet.agent.cli(&["pods"]).unwrap();
    println!("{}", table.success().unwrap());
    let left_alone = kubelet
        .agent
        .metric("derny_pods", &[("state", "left_alone")], |n| n == 2.0);
    left_alone.unwrap();
}

#[test]
fn an_agent_that_starts_again_enrols_what_runs() {
    let mut kubelet = Kubelet::enabled(Driver::Systemd);
    let saved = state_file(&kubelet.node).with_added_extension("pods");
    let pods: Vec<(Pod, Running)> = ["a", "b"]
        .map(|name| {
            let uid = kubelet.apply(&objects::pod(name, NODE_NAME, ""));
            let pod = kubelet.node.pod(name).unwrap();
            let running = kubelet.run(&pod, &uid);
            (pod, running)
        })
        .into();
    for (pod, _) in &pods {
        kubelet.stands(pod.name(), "enrolled", "");
    }
    kubelet.agent.kill9().unwrap();
    kubelet.agent.start_again().unwrap();
    for (pod, running) in &pods {
        kubelet.stands(pod.name(), "enrolled", "");
        assert!(running.group.is_dir());
    }
    // What ran before the agent says nothing about how fast it is.
    let timed = kubelet
        .agent
        .metrics()
        .unwrap()
        .sum("derny_enrolment_seconds_count", &[]);
    assert_eq!(timed, 0.0);

    // The same while the API server is away.
    let is_saved = || {
        let text = std::fs::read_to_string(&saved).unwrap_or_default();
        text.contains("\"a\"") && text.contains("\"b\"")
    };
    eventually("the pods are saved", SOON, is_saved).unwrap();
    kubelet.cluster.kill9().unwrap();
    kubelet.agent.kill9().unwrap();
    kubelet.agent.start_again().unwrap();
    for (pod, _) in &pods {
        kubelet.stands(pod.name(), "enrolled", "");
    }
}

/// Each pod's time is taken from before its first process was begun until its connections are redirected.
#[test]
fn a_hundred_pods_at_once_are_each_enrolled_at_once() {
    const PODS: usize = 100;
    const STARTERS: usize = 4;
    let kubelet = Kubelet::enabled(Driver::Cgroupfs);
    let names: Vec<String> = (0..PODS).map(|n| format!("p{n}")).collect();
    let objects: Vec<Value> = names
        .iter()
        .map(|name| objects::pod(name, NODE_NAME, ""))
        .collect();
    kubelet.cluster.apply(&objects).unwrap();
    let pods: Vec<(Pod, String)> = names
        .iter()
        .zip(&objects)
        .map(|(name, object)| {
            let uid = kubelet.cluster.get(object).unwrap()["metadata"]["uid"]
                .as_str()
                .unwrap()
                .to_owned();
            (kubelet.node.pod(name).unwrap(), uid)
        })
        .collect();
    let waiting = |n: f64| n == PODS as f64;
    kubelet
        .agent
        .metric("derny_pods", &[("state", "waiting")], waiting)
        .unwrap();

    let running = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for part in pods.chunks(PODS.div_ceil(STARTERS)) {
            let (kubelet, running) = (&kubelet, &running);
            scope.spawn(move || {
                for (pod, uid) in part {
                    let begun = kubelet.run(pod, uid);
                    running.lock().unwrap().push((pod.name().to_owned(), begun));
                }
            });
        }
    });
    kubelet
        .agent
        .metric("derny_pods", &[("state", "enrolled")], waiting)
        .unwrap();
    let shown = kubelet.agent.cli_json(&["pods"]).unwrap();
    let enrolled_at = |name: &str| {
        let mut shown = shown.as_array().unwrap().iter();
        shown.find(|pod| pod["name"] == name).unwrap()["enrolledAtMs"]
            .as_u64()
            .unwrap()
    };
    let running = running.into_inner().unwrap();
    let mut gaps: Vec<u64> = running
        .iter()
        .map(|(name, running)| enrolled_at(name).saturating_sub(running.begun))
        .collect();
    gaps.sort_unstable();
    let first = running.iter().map(|(_, running)| running.begun).min().unwrap();
    let last = running.iter().map(|(_, running)| running.begun).max().unwrap();
    println!(
        "{PODS} pods begun within {} ms; from before the first process to enrolled: p50 {} ms, p99 {} ms, max {} ms",
        last - first,
        gaps[PODS / 2],
        gaps[PODS * 99 / 100 - 1],
        gaps[PODS - 1]
    );
    let metrics = kubelet.agent.metrics().unwrap();
    for sample in metrics.matching("derny_enrolment_seconds_bucket", &[]) {
        println!(
            "seen by the agent, within {} s: {}",
            sample.labels["le"], sample.value
        );
    }
    assert_eq!(metrics.sum("derny_enrolment_seconds_count", &[]), PODS as f64);
    assert!(
        Duration::from_millis(gaps[PODS * 99 / 100 - 1]) < ENROLLED_WITHIN,
        "{gaps:?}"
    );
}
