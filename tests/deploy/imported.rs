use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use derny_tests::{Node, Output, agent, clients, kube::objects as kube_objects};
use serde_json::Value;

use crate::{
    rendered::{objects, run},
    valid::{check, real_server},
};

/// Each with a namespace of its own.
fn bootstraps() -> Vec<(String, PathBuf)> {
    let docs = clients::workspace().join("docs/examples");
    let below = std::fs::read_dir(docs.join("envoy")).unwrap();
    let mut all: Vec<PathBuf> = below.map(|entry| entry.unwrap().path()).collect();
    all.push(docs.join("envoy-sidecar.yaml"));
    all.sort();
    assert!(all.len() > 10, "{all:?}");
    let named = all.into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (format!("from-{name}"), path)
    });
    named.collect()
}

fn import(path: &PathBuf, arguments: &[&str]) -> Output {
    let mut command = Command::new(agent::derny().unwrap());
    command.args(["import", "envoy"]).arg(path).args(arguments);
    run(command)
}

#[test]
fn a_file_of_an_imported_bootstrap_passes_the_check() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (namespace, path) in bootstraps() {
        let imported = import(&path, &["--namespace", &namespace]);
        let notes = imported.stderr.clone();
        let file = directory.join(format!("derny-{namespace}.yaml"));
        std::fs::write(&file, imported.success().unwrap()).unwrap();
        let checked = agent::config_check(&file).unwrap();
        assert!(checked.status.success(), "{}: {}", path.display(), checked.stderr);
        // Whoever wants to know it from a script.
        let strict = import(&path, &["--strict"]);
        assert_eq!(
            strict.status.success(),
            !notes.contains(": no equivalent: "),
            "{}: {notes}",
            path.display()
        );
    }
}

/// As text, since kubectl reads another YAML than the agent.
#[test]
fn an_api_server_takes_the_objects_of_an_imported_bootstrap() {
    let node = Node::new().unwrap();
    let Some(cluster) = real_server(&node) else { return };
    for (namespace, path) in bootstraps() {
        let text = import(&path, &["--to", "kubernetes", "--namespace", &namespace]);
        let text = text.success().unwrap();
        let all = objects(&text);
        for object in &all {
            let name = format!(
                "{}: {} {}",
                path.display(),
                object["kind"],
                object["metadata"]["name"]
            );
            if let Some(Err(fault)) = check(object) {
                panic!("{name}: {fault}");
            }
        }
        let mut namespaces: Vec<&str> = all
            .iter()
            .map(|object| object["metadata"]["namespace"].as_str().unwrap())
            .collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let namespaces: Vec<Value> = namespaces
            .iter()
            .map(|name| kube_objects::namespace(name, ""))
            .collect();
        cluster.apply(&namespaces).unwrap();
        let kubeconfig = cluster.kubeconfig().as_os_str();
        let arguments = ["apply", "--server-side", "-f", "-"].map(AsRef::<std::ffi::OsStr>::as_ref);
        let before = ["--kubeconfig".as_ref(), kubeconfig];
        let mut command = clients::kubectl(before.into_iter().chain(arguments)).unwrap();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}\n{text}", path.display());
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        assert_eq!(lines, all.len(), "{}", path.display());
    }
}
