use derny_tests::{Config, Pod, config::NAMESPACE, eventually, kube::objects, process::Output};
use serde_json::{Value, json};

use crate::{
    kubelet::{Driver, Kubelet, NODE_NAME, Running, state_file},
    world::SOON,
};

/// Pods that the file names as well.
mod both;

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
        // It does not wait for the kubelet to report the address.
        assert_eq!(shown["addresses"], json!([]), "{shown}");
        kubelet.reports("early", &early.ip().to_string());
        eventually("its address is known", SOON, || {
            kubelet.shown("early")["addresses"] == json!([early.ip().to_string()])
        })
        .unwrap();
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
