//! The namespaces and capabilities that a container of the DaemonSet has, without a container runtime.

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use derny_tests::{AgentOptions, Process, World, agent::only, eventually, upstream::TestdOptions};
use nix::errno::Errno;

use crate::rendered::{find, kustomize};

const SOON: Duration = Duration::from_secs(10);
/// `nobody`: an application that does not run as root.
const SOMEBODY: &str = "65534";

/// Those of the DaemonSet, as setpriv(1) names them.
pub(crate) fn capabilities() -> Vec<String> {
    let base = kustomize("kustomize/base");
    let spec = &find(&base, "DaemonSet", "derny")["spec"]["template"]["spec"];
    let context = &spec["containers"][0]["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
    let added = context["capabilities"]["add"].as_array().unwrap().iter();
    added.map(|name| name.as_str().unwrap().to_lowercase()).collect()
}

/// A world whose client is named by a process of its own, which belongs to another user than root. `change` is told
/// the node's prefix.
pub(crate) fn world(change: impl FnOnce(&str, &mut AgentOptions)) -> anyhow::Result<(World, Process)> {
    let mut process = None;
    let world = World::with(1, &TestdOptions::default(), |options| {
        let netns = options.config.pods[0].netns.clone();
        let name = netns
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_suffix("-client"));
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={netns}"))
            .args([
                "setpriv",
                "--reuid",
                SOMEBODY,
                "--regid",
                SOMEBODY,
                "--clear-groups",
            ])
            .args(["sleep", "600"]);
        let application = Process::spawn(command).unwrap();
        let link = format!("/proc/{}/ns/net", application.id());
        let same = || std::fs::read_link(&link).ok() != std::fs::read_link("/proc/self/ns/net").ok();
        eventually("the application is in its namespace", SOON, same).unwrap();
        options.config.pods[0].netns = link;
        process = Some(application);
        change(name.unwrap(), options);
    })?;
    Ok((world, process.unwrap()))
}

pub(crate) fn is_served(world: &World) {
    let answer = world.get("http", "/", &[]).unwrap();
    assert!(answer.is_object(), "{answer}");
    world
        .agent
        .access_line("the request", |line| line["service"] == "demo/http:80")
        .unwrap();
}

#[test]
fn with_the_capabilities_of_the_manifest_a_pod_is_enrolled_and_served() {
    let (world, _application) = world(|_, options| options.under = only(&capabilities())).unwrap();
    is_served(&world);
    assert_eq!(effective(world.agent.id().unwrap()), capabilities().len());
}

/// How many capabilities a process has.
pub(crate) fn effective(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    let mask = u64::from_str_radix(mask.unwrap(), 16).unwrap();
    usize::try_from(mask.count_ones()).unwrap()
}

#[test]
fn without_any_one_of_them_it_is_not() {
    let all = capabilities();
    for left_out in &all {
        let rest: Vec<String> = all.iter().filter(|name| *name != left_out).cloned().collect();
        match world(|_, options| options.under = only(&rest)) {
            Err(error) => println!("without {left_out}: {error:#}"),
            Ok((world, _application)) => {
                let pods = world.agent.cli_json(&["pods"]).unwrap().to_string();
                // A pod that waits is left alone, and served directly.
                let answer = world.get("http", "/", &[]).map(|answer| answer.to_string());
                assert!(
                    pods.contains("waiting") || answer.is_err(),
                    "{left_out} is not needed: {answer:?} with {pods}"
                );
                println!("without {left_out}: {answer:?} with {pods}");
            }
        }
    }
}

/// As in a container: a cgroup namespace of its own, in which `/proc/self/cgroup` says `/`, beside the host's tree.
#[test]
fn in_a_cgroup_namespace_of_its_own_the_agent_finds_its_own_cgroup() {
    let root = cgroup2();
    let before = attached(&root);
    let (world, _application) = world(|_, options| {
        options.under = [
            vec!["unshare".to_owned(), "--cgroup".to_owned()],
            only(&capabilities()),
        ]
        .concat();
    })
    .unwrap();
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/cgroup")).unwrap();
    let id = world.agent.id().unwrap().to_string();
    assert_ne!(namespace(&id), namespace("self"));

    let pods = world.node.host().kubepods();
    let own = pods.with_file_name("system");
    let processes = std::fs::read_to_string(own.join("cgroup.procs")).unwrap();
    assert!(processes.lines().any(|line| line == id), "{processes}");
    assert_eq!(attached(&own), 1, "derny_origin");
    assert_eq!(attached(&pods), 1, "derny_tuple");
    assert_eq!(attached(&root), before, "nothing at the root");
    is_served(&world);
}

/// Where cgroup v2 is mounted.
fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|fields| fields[2] == "cgroup2").unwrap();
    PathBuf::from(line[1])
}

/// How many `sock_ops` programs are attached to this very cgroup, by `BPF_PROG_QUERY` of bpf(2).
fn attached(cgroup: &Path) -> u32 {
    const BPF_PROG_QUERY: libc::c_int = 16;
    const BPF_CGROUP_SOCK_OPS: u32 = 3;
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        /// Zero: only the number is asked for.
        prog_ids: u64,
        prog_count: u32,
        padding: u32,
    }
    let directory = File::open(cgroup).unwrap();
    let mut query = Query {
        target_fd: u32::try_from(directory.as_raw_fd()).unwrap(),
        attach_type: BPF_CGROUP_SOCK_OPS,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes at most the size that it is told, and no array is given.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    assert_eq!(result, 0, "{}: {}", cgroup.display(), Errno::last());
    query.prog_count
}
