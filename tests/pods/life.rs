use derny_tests::load::{Call, Load, unix_now};

use crate::{
    kubelet::{Kubelet, SOON, repeatable},
    pod::{FIRST, RunningPod},
};

/// Two clients of one pod work all the while: one over a standing gRPC channel, one with a new connection each time.
/// Their calls may be made twice, so that not even the crash of a server is to be noticed.
#[test]
fn pods_come_are_relabelled_restarted_and_deleted_and_no_call_fails() {
    let mut kubelet = Kubelet::new("enabled", repeatable());
    let [first, mut second] = [1, 2].map(|number| kubelet.server(FIRST, number));
    kubelet.endpoints(&[&first, &second], &[]);
    let client = kubelet.client();
    kubelet.is_enrolled(&client);
    let standing = client.grpc("standing", &kubelet.echo.address().to_string());
    let anew = client.connections("anew", &kubelet.web.address().to_string());
    let reaches = |standing: &Load, server: &RunningPod, since: f64| {
        let name = server.name.clone();
        let wanted = move |call: &Call| call.by_derny() && call.endpoint == name;
        standing.wait_for(&server.name, 20, since, SOON, &wanted).unwrap();
        anew.wait_for(&server.name, 5, since, SOON, wanted).unwrap();
    };
    reaches(&standing, &first, 0.0);
    reaches(&standing, &second, 0.0);

    // Created.
    let third = kubelet.server(FIRST, 3);
    kubelet.endpoints(&[&first, &second, &third], &[]);
    reaches(&standing, &third, 0.0);

    // Relabelled: connections that stand are finished, and the next ones go direct.
    kubelet.label(&client, "disabled");
    let label = "label derny.dev/mesh: disabled";
    kubelet
        .agent
        .pod_stands(&client.name, "left alone", label)
        .unwrap();
    let out = unix_now();
    anew.wait_for("direct connections", 20, out, SOON, Call::directly)
        .unwrap();
    standing
        .wait_for("direct calls", 100, out, SOON, Call::directly)
        .unwrap();
    kubelet.label(&client, "enabled");
    kubelet.is_enrolled(&client);
    // A channel that has gone direct stays so.
    standing.end_unharmed().unwrap();
    let standing = client.grpc("standing again", &kubelet.echo.address().to_string());
    let back = unix_now();
    anew.wait_for("redirected connections", 20, back, SOON, Call::by_derny)
        .unwrap();

    // Crashed, and started again in the same sandbox, which stays enrolled.
    let enrolled = kubelet.is_enrolled(&second)["enrolledAtMs"].clone();
    second.crash();
    kubelet.endpoints(&[&first, &third], &[]);
    second.start_again(&kubelet.cluster);
    kubelet.probe(&second);
    kubelet.endpoints(&[&first, &second, &third], &[]);
    reaches(&standing, &second, unix_now());
    assert_eq!(kubelet.is_enrolled(&second)["enrolledAtMs"], enrolled);
    let new = client.grpc_calls("new", &kubelet.echo.address().to_string(), 30);
    let new = new.finish(SOON).unwrap();
    assert!(new.iter().all(Call::by_derny), "a new container of the client");

    // Deleted.
    kubelet.delete(first, &[&second, &third]);
    reaches(&standing, &second, unix_now());
    standing.end_unharmed().unwrap();
    anew.end_unharmed().unwrap();
    let pods = kubelet.agent.cli_json(&["pods"]).unwrap();
    assert_eq!(pods.as_array().unwrap().len(), 3, "{pods}");
}

#[test]
fn a_sandbox_that_is_made_anew_is_enrolled_anew() {
    let mut kubelet = Kubelet::opted_in();
    let server = kubelet.server(FIRST, 1);
    kubelet.endpoints(&[&server], &[]);
    let client = kubelet.client();
    let name = client.name.clone();
    let first = kubelet.is_enrolled(&client);
    let lost = client.lose_sandbox();
    let reason = "no process of it runs yet";
    kubelet.agent.pod_stands(&name, "waiting", reason).unwrap();
    let client = lost.start_again(&kubelet.cluster, &kubelet.runtime);
    let second = kubelet.is_enrolled(&client);
    assert_ne!(second["netnsCookie"], first["netnsCookie"]);
    let calls = client.grpc_calls("calls", &kubelet.echo.address().to_string(), 30);
    assert!(calls.finish(SOON).unwrap().iter().all(Call::by_derny));
}
