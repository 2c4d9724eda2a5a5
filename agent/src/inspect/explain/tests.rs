use super::*;
use crate::{
    config::{self, Checked},
    model::{AnsweredBy, DestinationId, Slot, Update},
    snapshot::Reducer,
};

/// Which rule a request meets, and what becomes of it.
mod routed;

const CONFIG: &str = "
pods: [{name: client, namespace: demo, netns: /n}]
services:
- {name: echo, namespace: demo, addresses: [10.96.0.1], ports: [{port: 80, protocol: http, endpoints: [
    {address: '10.0.0.2:8080', weight: 2, zone: a}, {address: '10.0.0.1:8080', state: terminating}]},
    {port: 6379, protocol: tcp}]}
- {name: pet, namespace: demo, ports: [{port: 8080, endpoints: [{address: '10.0.0.9:8080'}]}]}
";

fn snapshot() -> (Snapshot, Checked) {
    let checked = config::from_yaml(CONFIG.as_bytes()).unwrap();
    let updates = checked.services.iter().cloned().map(Update::Service).collect();
    let mut reducer = Reducer::default();
    assert!(
        reducer
            .apply(updates, tokio::time::Instant::now().into_std())
            .is_empty()
    );
    ((*reducer.view()).clone(), checked)
}

fn slot() -> Slot {
    Slot::new(3).unwrap()
}

fn ask(url: &str, kernel: Result<Kernel, String>) -> Result<proto::Explanation, Unanswered> {
    let (mut snapshot, checked) = snapshot();
    snapshot.strict.insert(checked.pods[0].name.clone(), GroupId(42));
    let pods = [PodStatus {
        pod: checked.pods[0].clone(),
        slot: slot(),
        state: PodState::Waiting {
            reason: "no such file".to_owned(),
        },
    }];
    let request = proto::ExplainRequest {
        namespace: "demo".to_owned(),
        pod: "client".to_owned(),
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: vec![],
    };
    explain(&snapshot, &pods, kernel, &request)
}

fn kernel(age_ms: u64) -> Kernel {
    Kernel {
        pods: vec![ObservedPod {
            slot: slot(),
            netns_cookie: 4097,
            label: "demo/client".to_owned(),
        }],
        destinations: vec![ObservedDestination {
            address: "10.96.0.1:80".parse().unwrap(),
            id: DestinationId::new(1).unwrap(),
            answered_by: AnsweredBy::Agent,
            hits: 12,
            label: "demo/echo:80".to_owned(),
        }],
        held: vec![],
        heartbeat_age: Some(Duration::from_millis(age_ms)),
        stale_after: Duration::from_secs(1),
    }
}

#[test]
fn a_name_an_address_and_an_endpoint_find_their_way() {
    let outcomes = [
        (
            "http://echo/",
            "10.96.0.1:80",
            "demo/echo:80",
            "goes to the service's own endpoints: it has no routes",
        ),
        (
            "http://echo.demo.svc.cluster.local:80/",
            "10.96.0.1:80",
            "demo/echo:80",
            "goes to the service's own endpoints: it has no routes",
        ),
        (
            "http://10.96.0.1:6379",
            "10.96.0.1:6379",
            "demo/echo:6379",
            "relayed as bytes: routes and what is per request do not apply",
        ),
        (
            "http://10.0.0.2:8080/",
            "10.0.0.2:8080",
            "demo/echo:80",
            "goes to 10.0.0.2:8080 itself, which the pod dials: nothing is chosen",
        ),
        (
            "http://pet:8080/",
            "10.0.0.9:8080",
            "demo/pet:8080",
            "goes to 10.0.0.9:8080 itself, which the pod dials: nothing is chosen",
        ),
        (
            "http://echo:81/",
            "10.96.0.1:81",
            "",
            "goes to the address unseen: the mesh does not serve it",
        ),
        (
            "http://[fd00::1]/",
            "[fd00::1]:80",
            "",
            "goes to the address unseen: the mesh does not serve it",
        ),
    ];
    for (url, address, port, outcome) in outcomes {
        let found = ask(url, Ok(kernel(0))).unwrap();
        assert_eq!(
            (&*found.address, &*found.port, &*found.outcome),
            (address, port, outcome),
            "{url}"
        );
    }
    for (url, why) in [
        (
            "http://nobody/",
            "no service demo/nobody with an address: `derny services` lists those that there are",
        ),
        ("/path", "/path names no host: write http://HOST/PATH"),
    ] {
        assert_eq!(ask(url, Ok(kernel(0))).unwrap_err().to_string(), why);
    }
}

#[test]
fn candidates_come_with_what_discovery_says() {
    let found = ask("http://echo/", Ok(kernel(0))).unwrap();
    let [backend] = found.backends.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (&*backend.port, backend.exists, &*backend.algorithm),
        ("demo/echo:80", true, "peakEwma")
    );
    let candidates: Vec<_> = backend
        .candidates
        .iter()
        .map(|c| (&*c.address, c.weight, &*c.zone, c.state().word(), c.uses.len()))
        .collect();
    assert_eq!(
        candidates,
        [
            ("10.0.0.1:8080", 1, "", "terminating", 0),
            ("10.0.0.2:8080", 2, "a", "ready", 0)
        ]
    );
    let dialled = ask("http://10.0.0.2:8080/", Ok(kernel(0))).unwrap();
    assert_eq!(dialled.backends[0].candidates.len(), 1);
}

#[test]
fn the_kernels_tables_decide_whether_it_is_redirected() {
    let ask = |kernel| {
        let found = ask("http://echo/", kernel).unwrap();
        (found.redirected, found.redirection)
    };
    let (redirected, lines) = ask(Ok(kernel(20)));
    assert_eq!(redirected, Some(true));
    assert_eq!(
        lines,
        [
            "the kernel knows demo/client: slot 3, netns cookie 4097",
            "10.96.0.1:80 is destination 1 (demo/echo:80), redirected 12 times",
            "the heartbeat is 20ms old, within 1s",
        ]
    );
    let check = |kernel, redirected: Option<bool>, line: usize, says: &str| {
        let (found, lines) = ask(kernel);
        assert_eq!((found, &*lines[line]), (redirected, says));
    };
    let stale = "the heartbeat is 1s1ms old, beyond 1s";
    check(Ok(kernel(1001)), Some(false), 2, stale);
    let (pods, destinations) = (vec![], vec![]);
    let unknown = "the kernel does not know demo/client: no such file";
    check(Ok(Kernel { pods, ..kernel(0) }), Some(false), 0, unknown);
    let held = |group| ObservedHeld {
        group: GroupId(group),
        hits: 0,
        label: "demo/client".to_owned(),
    };
    let refused = "demo/client is not enrolled yet and its namespace is strict: connections are refused";
    for (group, says) in [(42, refused), (43, unknown)] {
        let (pods, held) = (vec![], vec![held(group)]);
        let held = Kernel {
            pods,
            held,
            ..kernel(0)
        };
        check(Ok(held), Some(false), 0, says);
    }
    for (answered_by, says) in [
        (
            AnsweredBy::Nobody,
            "; nobody answers for it now: connections are refused",
        ),
        (
            AnsweredBy::Node,
            "; no endpoint of it is known that the agent may choose: the connection is left to the node",
        ),
    ] {
        let mut kernel = kernel(0);
        kernel.destinations[0].answered_by = answered_by;
        let line = format!("10.96.0.1:80 is destination 1 (demo/echo:80), redirected 12 times{says}");
        check(Ok(kernel), Some(false), 1, &line);
    }
    let elsewhere = "10.96.0.1:80 is no address of the mesh: the connection is left alone";
    check(
        Ok(Kernel {
            destinations,
            ..kernel(0)
        }),
        Some(false),
        1,
        elsewhere,
    );
    let unread = "the kernel's tables cannot be read: no";
    check(Err("no".to_owned()), None, 0, unread);
}

#[test]
fn services_are_named_in_part_or_in_full() {
    let (snapshot, _) = snapshot();
    let ports = |text: &str| {
        let ports = endpoints::ports(&snapshot, text)?;
        Ok::<_, Unanswered>(ports.iter().map(|p| p.name.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(ports("").unwrap().len(), 3);
    assert_eq!(ports("echo").unwrap(), ["demo/echo:80", "demo/echo:6379"]);
    assert_eq!(ports("demo/echo:80").unwrap(), ["demo/echo:80"]);
    assert!(matches!(ports("other/echo"), Err(Unanswered::NotFound(_))));
    assert!(matches!(ports("echo:x"), Err(Unanswered::Invalid(_))));
}

#[test]
fn a_candidate_names_what_excludes_it() {
    let used = |standing: proto::Standing, takes_requests: bool, full: bool| proto::EndpointUse {
        standing: standing.into(),
        reason: "successRate".to_owned(),
        takes_requests,
        full,
        ..Default::default()
    };
    let check = |state: proto::EndpointState, used: Option<proto::EndpointUse>, expect: &str| {
        let mut candidate = proto::ServiceEndpoint {
            state: state.into(),
            uses: used.into_iter().collect(),
            check: (state == proto::EndpointState::Unhealthy).then(|| proto::HealthCheckState {
                failure: "no answer within 1s".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        endpoints::name_what_excludes(&mut candidate);
        assert_eq!(candidate.excluded_by, expect);
    };
    use proto::{
        EndpointState::{Ready, Terminating, Unhealthy},
        Standing::{Ejected, In},
    };
    check(Ready, None, "");
    check(Ready, Some(used(In, true, false)), "");
    check(Terminating, None, "it is going away");
    check(Unhealthy, None, "its health check fails: no answer within 1s");
    check(
        Unhealthy,
        Some(used(In, false, false)),
        "its health check fails: no answer within 1s",
    );
    // In panic everybody takes requests.
    check(Unhealthy, Some(used(In, true, false)), "");
    check(
        Ready,
        Some(used(Ejected, false, false)),
        "it is ejected: successRate",
    );
    check(Ready, Some(used(Ejected, true, false)), "");
    check(
        Ready,
        Some(used(In, true, true)),
        "it has as many requests as perEndpoint.maxRequests allows",
    );
}
