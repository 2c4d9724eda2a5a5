//! Programs of others at the agent's hooks: who runs first.

use std::{path::Path, process::Command, time::Duration};

use derny::intercept::{Hook, Kernel, Options, Order, OtherProgram};
use derny_tests::{Agent, AgentOptions, Config, Node, eventually};
use serde_json::Value;

use crate::mesh::Mesh;

/// A change is seen within this.
const SEEN: Duration = Duration::from_secs(5);

/// Somebody else's programs: the agent's own, loaded once more.
fn other(node: &Node, cgroup: &Path) -> Kernel {
    let own_cgroup = node.host().kubepods().join("../system");
    Kernel::load(&Options {
        cgroup: cgroup.to_owned(),
        own_cgroup: Some(own_cgroup.canonicalize().unwrap()),
        stale_after: Duration::from_secs(1),
        max_destinations: 16,
        max_inbound: 128,
        log_level: 0,
    })
    .unwrap()
}

/// `name hook order` of the connecting programs.
fn words(mesh: &Mesh) -> Vec<String> {
    let others = mesh.kernel.program_order().unwrap().look().unwrap();
    let connecting = |program: &&OtherProgram| matches!(program.hook, Hook::Connect4 | Hook::SockOps);
    let words = others.iter().filter(connecting).map(|program| {
        let (hook, order) = (program.hook.as_str(), program.order.as_str());
        format!("{} {hook} {order}", program.name)
    });
    words.collect()
}

/// Waits until nobody else is seen. A program stays attached for as long as any process has it open: also one that
/// another test has forked, until it runs what it was forked for.
fn alone(mesh: &Mesh) {
    eventually("the others are gone", SEEN, || words(mesh).is_empty()).unwrap();
}

#[test]
fn who_runs_before_the_agents_programs_is_seen_by_where_they_are_attached() {
    let node = Node::new().unwrap();
    let pods = node.host().kubepods();
    let first = other(&node, &pods);
    let mesh = Mesh::on(node, |_| {});
    let at_hooks = |order: &str| {
        [("derny_connect4", "connect4"), ("derny_tuple", "sock_ops")]
            .map(|(name, hook)| format!("{name} {hook} {order}"))
    };
    assert_eq!(words(&mesh), at_hooks("before"));
    let before = mesh.kernel.program_order().unwrap().look().unwrap();
    assert_eq!(before.len(), 7, "{before:?}");
    assert!(
        before
            .iter()
            .all(|program| program.order == Order::Before && program.group == pods)
    );
    drop(first);
    alone(&mesh);

    // The same group, later.
    let later = other(&mesh.node, &pods);
    assert_eq!(words(&mesh), at_hooks("after"));
    drop(later);
    alone(&mesh);
    // A group above.
    let above = other(&mesh.node, pods.parent().unwrap());
    assert_eq!(words(&mesh), at_hooks("after"));
    drop(above);
    alone(&mesh);
    // One pod's.
    let pod = mesh.node.pod("a").unwrap();
    let below = other(&mesh.node, pod.cgroup());
    assert_eq!(words(&mesh), at_hooks("below"));
    let found = mesh.kernel.program_order().unwrap().look().unwrap();
    assert!(
        found.iter().all(|program| program.group == pod.cgroup()),
        "{found:?}"
    );
    drop(below);
    alone(&mesh);
}

#[test]
fn a_program_that_the_agents_replaces_is_named() {
    let mesh = Mesh::new();
    let pods = mesh.node.host().kubepods();
    let pod = mesh.node.pod("a").unwrap();
    let _other = other(&mesh.node, pod.cgroup());
    let found = mesh.kernel.program_order().unwrap().look().unwrap();
    let connect4 = found
        .iter()
        .find(|program| program.name == "derny_connect4")
        .unwrap();
    // Attached the old way, without BPF_F_ALLOW_MULTI: programs of lower groups run instead.
    let bpftool = |action: &str, flags: &[&str]| {
        let mut command = Command::new("bpftool");
        command.args(["cgroup", action]).arg(pods.parent().unwrap());
        command.args(["cgroup_inet4_connect", "id", &connect4.id.to_string()]);
        assert!(command.args(flags).status().unwrap().success(), "{command:?}");
    };
    bpftool("attach", &["override"]);
    assert!(
        words(&mesh).contains(&"derny_connect4 connect4 replaced".to_owned()),
        "{:?}",
        words(&mesh)
    );
    bpftool("detach", &[]);
    assert!(
        !words(&mesh).iter().any(|line| line.contains("replaced")),
        "{:?}",
        words(&mesh)
    );
}

#[test]
fn the_agent_says_at_its_start_who_is_before_it() {
    let node = Node::new().unwrap();
    let alone = Agent::start(&node, AgentOptions::new(Config::default())).unwrap();
    let status = alone.cli_json(&["status"]).unwrap();
    assert_eq!(status["otherPrograms"], Value::Array(vec![]), "{status}");
    let said = "another program runs before the agent's";
    assert!(!alone.log().contains(said), "{}", alone.log());
    let before = |agent: &Agent, n: f64| {
        agent.metric("derny_kernel_other_programs", &[("order", "before")], |found| {
            found == n
        })
    };
    before(&alone, 0.0).unwrap();
    drop(alone);

    let pods = node.host().kubepods();
    let mut other = other(&node, &pods);
    // An agent does not start beside another's connect programs.
    other.stop();
    let agent = Agent::start(&node, AgentOptions::new(Config::default())).unwrap();
    before(&agent, 5.0).unwrap();
    eventually("the log says so", SEEN, || {
        let log = agent.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(said)).collect();
        lines.len() == 5 && lines.iter().any(|line| line.contains("derny_peername4"))
    })
    .unwrap();
    let status = agent.cli_json(&["status"]).unwrap();
    let first = &status["otherPrograms"][0];
    assert_eq!(
        (
            &first["order"],
            &first["hook"],
            &first["name"],
            &first["controlGroup"]
        ),
        (
            &"before".into(),
            &"getpeername4".into(),
            &"derny_peername4".into(),
            &pods.display().to_string().into()
        )
    );
    let table = agent.cli(&["status"]).unwrap().success().unwrap();
    assert!(table.contains("`derny_peername4` at getpeername4 of"), "{table}");
    assert!(table.contains("BEFORE Derny's"), "{table}");
    drop(other);
}
