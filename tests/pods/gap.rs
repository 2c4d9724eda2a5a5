use std::process::Command;

use derny_tests::{
    clients,
    config::NAMESPACE,
    containers::{Container, Stream},
    eventually,
    load::unix_now,
};
use serde_json::Value;

use crate::{
    kubelet::{Kubelet, SOON},
    pod::{FIRST, name, replica, sandbox},
};

const PODS: usize = 20;
/// Pods of the second round are started by so many threads.
const STARTERS: usize = 4;

/// When what happened to a pod, in milliseconds since the epoch.
struct Started {
    name: String,
    asked: f64,
    sandbox: f64,
    container: f64,
    said: Container,
}

/// The entry point dials as soon as it runs, and asks once. Its answer says whether an engine stood between.
#[test]
fn the_first_connection_of_an_application_is_redirected() {
    let mut kubelet = Kubelet::opted_in();
    let servers = [1, 2].map(|number| kubelet.server(FIRST, number));
    kubelet.endpoints(&servers.each_ref(), &[]);
    let one_by_one: Vec<Started> = (0..PODS)
        .map(|number| start(&kubelet, &replica("one", FIRST, number)))
        .collect();
    report(&kubelet, "one after the other", &one_by_one);

    let objects: Vec<Value> = (0..PODS).map(|number| replica("many", FIRST, number)).collect();
    let at_once = std::thread::scope(|scope| {
        let kubelet = &kubelet;
        let starters = objects.chunks(PODS.div_ceil(STARTERS)).map(|part| {
            scope.spawn(move || {
                part.iter()
                    .map(|object| start(kubelet, object))
                    .collect::<Vec<_>>()
            })
        });
        let starters: Vec<_> = starters.collect();
        starters
            .into_iter()
            .flat_map(|starter| starter.join().unwrap())
            .collect::<Vec<_>>()
    });
    report(&kubelet, "four at a time", &at_once);
}

/// Kubelet and agent hear of the pod at the same time.
fn start(kubelet: &Kubelet, object: &Value) -> Started {
    kubelet.cluster.apply(std::slice::from_ref(object)).unwrap();
    let asked = unix_ms();
    let sandbox = sandbox(&kubelet.cluster, &kubelet.runtime, object, 0);
    let made = unix_ms();
    let container = sandbox.container("main", 0, &dial(kubelet)).unwrap();
    Started {
        name: name(object).to_owned(),
        asked,
        sandbox: made,
        container: unix_ms(),
        said: container,
    }
}

/// A program of a few milliseconds.
fn dial(kubelet: &Kubelet) -> Command {
    let target = kubelet.web.address().to_string();
    let request = "send:GET / HTTP/1.1\\r\\nhost: web\\r\\nconnection: close\\r\\n\\r\\n";
    clients::testc(["talk", &target, request, "end"]).unwrap()
}

fn report(kubelet: &Kubelet, how: &str, pods: &[Started]) {
    for pod in pods {
        is_redirected(kubelet, pod);
    }
    let enrolled = |pod: &Started| {
        let shown = kubelet.agent.shown_pod(&pod.name).unwrap();
        shown["enrolledAtMs"].as_f64().unwrap()
    };
    println!("{} pods, {how}: all first connections redirected", pods.len());
    let spread = |what: &str, time: &dyn Fn(&Started) -> f64| {
        let mut times: Vec<f64> = pods.iter().map(time).collect();
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        let (least, median, p90, most) = (at(0), at(50), at(90), at(100));
        println!("  {what}: median {median:.0} ms, p90 {p90:.0} ms, {least:.0} to {most:.0} ms");
    };
    spread("RunPodSandbox", &|pod| pod.sandbox - pod.asked);
    spread("CreateContainer and StartContainer", &|pod| {
        pod.container - pod.sandbox
    });
    spread("from enrolled to the return of RunPodSandbox", &|pod| {
        pod.sandbox - enrolled(pod)
    });
    spread("from enrolled to the return of StartContainer", &|pod| {
        pod.container - enrolled(pod)
    });
    let metrics = kubelet.agent.metrics().unwrap();
    let within: Vec<String> = metrics
        .matching("derny_enrolment_seconds_bucket", &[])
        .filter(|bucket| bucket.labels["le"].parse().is_ok_and(|le: f64| le <= 0.5))
        .map(|bucket| format!("{} s: {}", bucket.labels["le"], bucket.value))
        .collect();
    println!("  seen by the agent so far, within {}", within.join(", "));
}

fn is_redirected(kubelet: &Kubelet, pod: &Started) {
    let ended = || matches!(pod.said.exit_code(), Ok(Some(_)));
    eventually("the application has its answer", SOON, ended).unwrap();
    let answer = pod.said.said(Stream::Out);
    let error = pod.said.said(Stream::Error);
    assert!(answer.contains("200 OK"), "{}: {answer}{error}", pod.name);
    assert!(
        answer.contains("x-request-id"),
        "{} went past the engine: {answer}",
        pod.name
    );
    let source = format!("{NAMESPACE}/{}", pod.name);
    let own = |line: &Value| line["source"] == *source && line["direction"] == "outbound";
    kubelet.agent.access_line(&pod.name, own).unwrap();
}

fn unix_ms() -> f64 {
    unix_now() * 1000.0
}
