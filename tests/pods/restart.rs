use derny_tests::load::{Call, unix_now};

use crate::{
    kubelet::{Kubelet, SOON},
    pod::FIRST,
};

/// After so many seconds without an agent no new connection may fail.
const FAIL_OPEN: f64 = 1.5;

#[test]
fn an_agent_that_was_killed_enrols_everything_again_and_touches_no_pod() {
    let mut kubelet = Kubelet::opted_in();
    let servers = [1, 2].map(|number| kubelet.server(FIRST, number));
    kubelet.endpoints(&servers.each_ref(), &[]);
    let client = kubelet.client();
    let all = [&servers[0], &servers[1], &client];
    let pids = || all.map(|pod| pod.container.pid().unwrap());
    let before = pids();
    kubelet.is_enrolled(&client);
    let anew = client.connections("anew", &kubelet.web.address().to_string());
    anew.wait_for("redirected connections", 20, 0.0, SOON, Call::by_derny)
        .unwrap();

    // Before it has ended, some connections meet listeners that are closed already.
    let gone = unix_now();
    kubelet.agent.kill9().unwrap();
    anew.wait_for("direct connections", 50, gone, SOON, Call::directly)
        .unwrap();
    kubelet.agent.start_again().unwrap();
    for pod in all {
        kubelet.is_enrolled(pod);
    }
    let back = unix_now();
    anew.wait_for("redirected connections again", 20, back, SOON, Call::by_derny)
        .unwrap();
    let calls = anew.end().unwrap();
    let harmed = calls.iter().filter(|call| !call.ok);
    let late: Vec<_> = harmed
        .filter(|call| call.ended() > gone + FAIL_OPEN || call.ended() < gone)
        .collect();
    assert!(late.is_empty(), "killed at {gone}: {late:?}");
    assert!(calls.iter().filter(|call| call.begun > back).all(Call::by_derny));
    assert_eq!(pids(), before);
}
