//! gRPC: real clients of three languages, statuses, errors of the engine's own, cancellation.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{Output, World, clients, eventually};
use serde_json::Value;

fn python(world: &World, script: &str, arguments: &[&str]) -> Output {
    let mut command = clients::python(script).unwrap();
    command
        .args(["--target", &world.target("grpc").unwrap()])
        .args(arguments);
    world.client.run(command).unwrap()
}

fn last_line(output: Output) -> Value {
    let said = output.success().unwrap();
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

#[test]
fn grpcio_spreads_calls_of_one_channel_and_streams() {
    let world = World::new(3).unwrap();
    let summary = last_line(python(&world, "grpc_load.py", &["--calls", "300", "--quiet"]));
    assert_eq!(summary["summary"]["failed"], 0, "{summary}");
    for server in ["server-1", "server-2", "server-3"] {
        assert_eq!(summary["summary"]["endpoints"][server], 100, "{summary}");
    }
    last_line(python(&world, "grpc_streams.py", &[]));
    let streams = |line: &Value| line["path"] == "/derny.test.v1.Echo/Bidi";
    let line = world.agent.access_line("the last stream", streams).unwrap();
    assert_eq!(
        (&line["grpc_status"], &line["flags"]),
        (&0.into(), &"-".into()),
        "{line}"
    );
}

#[test]
fn grpc_js_calls_and_streams() {
    let world = World::new(2).unwrap();
    let mut client = clients::node_js("grpc_client.js").unwrap();
    client.arg(world.target("grpc").unwrap());
    let said = last_line(world.client.run(client).unwrap());
    assert_eq!(
        (&said["unary"]["server-1"], &said["unary"]["server-2"]),
        (&50.into(), &50.into())
    );
}

#[test]
fn tonic_calls_streams_and_gets_statuses_from_headers_and_trailers() {
    let world = World::new(2).unwrap();
    let command = clients::testc(["tonic", &world.target("grpc").unwrap()]).unwrap();
    let said = last_line(world.client.run(command).unwrap());
    assert_eq!((&said["server-1"], &said["server-2"]), (&15.into(), &15.into()));
    // Both statuses count, wherever they stood.
    let two = |sum: f64| sum == 2.0;
    world
        .agent
        .metric(
            "derny_requests_total",
            &[("grpc_status", "9"), ("flag", "-")],
            two,
        )
        .unwrap();
}

#[test]
fn a_detected_port_speaks_grpc_as_well() {
    let world = World::new(2).unwrap();
    let command = clients::testc(["tonic", &world.target("any-http").unwrap()]).unwrap();
    last_line(world.client.run(command).unwrap());
}

#[test]
fn callers_are_told_in_their_own_form_why_no_endpoint_could_be_reached() {
    let mut world = World::new(2).unwrap();
    world.kill_server(0).unwrap();
    world.kill_server(1).unwrap();

    let said = python(&world, "grpc_load.py", &["--calls", "1"])
        .success()
        .unwrap();
    let call: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(call["code"], "UNAVAILABLE", "{call}");
    let details = call["details"].as_str().unwrap();
    assert!(
        details.starts_with("derny: demo/grpc:80: no connection to 10.0.0."),
        "{call}"
    );
    let line = world
        .agent
        .access_line("the call", |line| line["protocol"] == "grpc")
        .unwrap();
    assert_eq!(
        (&line["code"], &line["grpc_status"], &line["flags"]),
        (&200.into(), &14.into(), &"UF".into())
    );

    for flag in ["--http1.1", "--http2-prior-knowledge"] {
        let answer = world
            .curl(&[flag, "--include", &world.url("http", "/x").unwrap()])
            .unwrap()
            .stdout;
        assert!(
            answer.starts_with("HTTP/") && answer.contains(" 503"),
            "{answer:?}"
        );
        assert!(answer.contains("server: derny\r\n"), "{answer:?}");
        assert!(
            answer.contains("derny: demo/http:80: no connection to 10.0.0."),
            "{answer:?}"
        );
    }
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_endpoint() {
    let world = World::new(1).unwrap();
    let target = world.target("grpc").unwrap();
    let arguments = ["tonic", &target, "--calls", "50", "--cancel-after", "200"];
    world
        .client
        .run(clients::testc(arguments).unwrap())
        .unwrap()
        .success()
        .unwrap();

    let count = || {
        world
            .curl(&[&world.url("http", "/cancelled").unwrap()])
            .unwrap()
            .stdout
    };
    eventually("the endpoint sees it", Duration::from_secs(5), || count() == "50").unwrap();
    let all = |sum: f64| sum == 50.0;
    world
        .agent
        .metric(
            "derny_requests_total",
            &[("protocol", "grpc"), ("flag", "DC")],
            all,
        )
        .unwrap();
    let closed = |sum: f64| sum == 0.0;
    world
        .agent
        .metric("derny_connections_active", &[], closed)
        .unwrap();
}

/// A server of gRPC's own with its defaults, and a stream that says something at its begin and its end.
const SILENT_SERVER: &str = "
import grpc, time
from concurrent import futures
def watch(request, context):
    yield b'first'
    time.sleep(7)
    yield b'last'
handler = grpc.unary_stream_rpc_method_handler(watch, lambda b: b, lambda b: b)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('x.Y', {'Watch': handler}),))
server.add_insecure_port('0.0.0.0:8080')
server.start()
print('listening', flush=True)
server.wait_for_termination()
";

#[test]
fn a_stream_that_is_silent_outlives_http2_keepalive() {
    let mut world = World::with(1, &Default::default(), |options| {
        let policy = options.config.policy_of("grpc").unwrap();
        let pool = serde_json::json!({"http2Keepalive": "1s"});
        policy.more.insert("connectionPool".to_owned(), pool);
    })
    .unwrap();
    world.kill_server(0).unwrap();
    let python = clients::python("grpc_load.py").unwrap();
    let run = |script: &str| {
        let mut command = Command::new(python.get_program());
        command.args(["-c", script]);
        command
    };
    let mut command = run(SILENT_SERVER);
    command.stdout(Stdio::piped());
    let mut server = world.servers[0].pod.spawn(command).unwrap();
    let said = server.child().stdout.take().unwrap();
    assert_eq!(BufReader::new(said).lines().next().unwrap().unwrap(), "listening");
    let script = format!(
        "import grpc; c = grpc.insecure_channel('{}').unary_stream('/x.Y/Watch')\nprint(len(list(c(b'', timeout=30))))",
        world.target("grpc").unwrap()
    );
    assert_eq!(world.client.run(run(&script)).unwrap().success().unwrap(), "2\n");
}
