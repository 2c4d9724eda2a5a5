//! A caller that goes away cancels its request at the endpoint, and nothing of it is left in the engine.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use derny_tests::{World, clients, eventually, observe::now};
use nix::sys::signal::Signal;
use serde_json::json;

use super::world;

/// From the caller's end until the endpoint knows.
const AT_ONCE: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(10);
const H2: &str = "--http2-prior-knowledge";

/// How many requests the endpoint knows to be cancelled. Asked beside the engine.
fn cancelled(world: &World) -> usize {
    let url = format!(
        "http://{}/cancelled",
        world.servers[0].pod.address(derny_tests::upstream::HTTP_PORT)
    );
    let asked = world.servers[0].pod.run(clients::curl([&url]));
    asked.unwrap().success().unwrap().parse().unwrap()
}

/// Waits until the endpoint knows of so many, and holds that to [`AT_ONCE`] since `gone`.
fn known(world: &World, what: &str, count: usize, gone: Instant) {
    eventually(what, SOON, || cancelled(world) >= count).unwrap();
    let took = now() - gone;
    assert!(took < AT_ONCE, "{what}: {took:?}");
    assert_eq!(cancelled(world), count, "{what}");
}

/// Nothing is under way any more, as far as anybody can see.
fn nothing_left(world: &World) {
    for gauge in ["derny_connections_active", "derny_upstream_connections_active"] {
        world.agent.metric(gauge, &[], |open| open == 0.0).unwrap();
    }
    let endpoints = world.agent.cli_json(&["endpoints"]).unwrap();
    for endpoint in endpoints.as_array().unwrap() {
        for one in endpoint["uses"].as_array().unwrap() {
            assert!(one["inFlight"].as_u64().unwrap_or(0) == 0, "{endpoint}");
        }
    }
}

/// Python in the client's pod, with a slow `call` of the gRPC service and the signal that [`SIGUSR1`] is.
///
/// [`SIGUSR1`]: Signal::SIGUSR1
fn grpcio(world: &World, script: &str) -> Command {
    let python = clients::python("grpc_load.py").unwrap();
    let target = world.target("grpc").unwrap();
    // Threads that grpc starts must not take the signal.
    let script = format!(
        "import signal\ntold = [signal.SIGUSR1]\nsignal.pthread_sigmask(signal.SIG_BLOCK, told)\nimport grpc\n\
         call = grpc.insecure_channel('{target}').unary_unary('/derny.test.v1.Echo/Unary')\n\
         slow = [('x-test-delay', '20000')]\n{script}"
    );
    let mut command = Command::new(python.get_program());
    command.args(["-c", &script]);
    command
}

/// Waits until one call of a service is under way.
fn under_way(world: &World, service: &str) {
    let service = format!("demo/{service}");
    eventually("it is under way", SOON, || {
        let endpoints = world.agent.cli_json(&["endpoints", &service]).unwrap();
        endpoints.to_string().contains("\"inFlight\":1")
    })
    .unwrap();
}

#[test]
fn however_a_caller_goes_the_endpoint_knows_at_once() {
    let world = world(1, &json!({}));
    for (count, (flag, service)) in [
        ("--http1.1", "http"),
        (H2, "http"),
        (H2, "http2"),
        ("--http1.1", "http2"),
    ]
    .into_iter()
    .enumerate()
    {
        let url = world.url(service, "/delay/20s").unwrap();
        let given_up = world.curl(&[flag, "--max-time", "0.3", &url]).unwrap();
        let gone = now();
        assert_eq!(given_up.status.code(), Some(28), "{given_up:?}");
        known(&world, &format!("{flag} to {service}"), count + 1, gone);
    }
    // A caller that is killed, with its request half sent.
    let url = world.url("http", "/sum").unwrap();
    let mut half = clients::curl([
        "--limit-rate",
        "1000",
        "--max-time",
        "20",
        "-T",
        "/proc/self/exe",
        &url,
    ]);
    half.stdout(std::process::Stdio::null());
    let mut half = world.client.spawn(half).unwrap();
    under_way(&world, "http");
    half.kill9().unwrap();
    known(&world, "half a request", 5, now());
    // gRPC: cancelled by the caller, and by its deadline, which the engine keeps as well.
    let script =
        "one = call.future(b'', metadata=slow)\nsignal.sigwait(told)\none.cancel()\nsignal.sigwait(told)";
    let mut caller = world.client.spawn(grpcio(&world, script)).unwrap();
    under_way(&world, "grpc");
    caller.signal(Signal::SIGUSR1).unwrap();
    known(&world, "a gRPC call", 6, now());
    caller.kill9().unwrap();
    let script = "try: call(b'', metadata=slow, timeout=0.5)\nexcept grpc.RpcError as e: assert e.code().name == 'DEADLINE_EXCEEDED', e";
    world
        .client
        .run(grpcio(&world, script))
        .unwrap()
        .success()
        .unwrap();
    known(&world, "a deadline", 7, now());
}

#[test]
fn hundreds_of_cancelled_calls_leave_nothing_behind() {
    let world = World::with(1, &Default::default(), |options| {
        for service in ["http", "grpc", "http2"] {
            let policy = options.config.policy_of(service).unwrap();
            policy.connection_pool = Some(derny_tests::config::ConnectionPool {
                idle_timeout: Some("1s".to_owned()),
                ..Default::default()
            });
        }
    })
    .unwrap();
    for (flag, service) in [("--http1.1", "http"), (H2, "http2")] {
        let url = world.url(service, "/delay/20s").unwrap();
        let script =
            format!("seq 100 | xargs -P 50 -I N curl -s -o /dev/null {flag} --max-time 0.4 {url} || true");
        world.shell(&script).unwrap();
    }
    // Answers that are given up in their middle.
    let url = world.url("http2", "/ticks/1000/50ms").unwrap();
    world
        .shell(&format!(
            "seq 50 | xargs -P 50 -I N curl -s -o /dev/null {H2} --max-time 0.4 {url} || true"
        ))
        .unwrap();
    let target = world.target("grpc").unwrap();
    let arguments = ["tonic", &target, "--calls", "300", "--cancel-after", "200"];
    world
        .client
        .run(clients::testc(arguments).unwrap())
        .unwrap()
        .success()
        .unwrap();
    eventually("the endpoint knows", SOON, || cancelled(&world) == 500).unwrap();
    nothing_left(&world);
    world
        .agent
        .metric("derny_requests_total", &[("flag", "DC")], |gone| gone == 550.0)
        .unwrap();
}
