use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use derny_tests::{Process, clients};
use serde_json::Value;

const RENDERED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn deploy() -> PathBuf {
    clients::workspace().join("deploy")
}

/// `kubectl kustomize` of a directory below `deploy/`.
pub(crate) fn kustomize(directory: &str) -> Vec<Value> {
    let path = deploy().join(directory);
    let command = clients::kubectl(["kustomize".as_ref(), path.as_os_str()]).unwrap();
    objects(&said(command))
}

/// The chart with these values, definitions included, as `helm template --include-crds` prints it.
pub(crate) fn helm(values: &Value) -> Vec<Value> {
    objects(&said(helm_command(values)))
}

/// What Helm says against these values.
pub(crate) fn helm_refuses(values: &Value) -> String {
    let output = run(helm_command(values));
    assert!(
        !output.status.success(),
        "{values} was rendered: {}",
        output.stdout
    );
    output.stderr
}

fn helm_command(values: &Value) -> std::process::Command {
    let mut command = clients::python("helm.py").unwrap();
    command.arg(deploy().join("helm/derny")).arg(values.to_string());
    command
}

fn said(command: std::process::Command) -> String {
    run(command).success().unwrap()
}

pub(crate) fn run(mut command: std::process::Command) -> derny_tests::Output {
    use std::process::Stdio;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Process::spawn(command).unwrap().output(RENDERED_WITHIN).unwrap()
}

/// All documents of a YAML text.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// The only object of a kind and name.
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects
        .iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    match (found.next(), found.next()) {
        (Some(object), None) => object,
        (None, _) => panic!("no {kind} {name}"),
        _ => panic!("several {kind} {name}"),
    }
}

/// Every file below `deploy/` with this extension.
pub(crate) fn files(extension: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&deploy(), extension, &mut found);
    found
}

#[test]
fn every_file_parses() {
    let is_template = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "templates");
    let yaml: Vec<PathBuf> = files("yaml")
        .into_iter()
        .filter(|path| !is_template(path))
        .collect();
    assert!(yaml.len() > 20, "{yaml:?}");
    for path in yaml {
        assert!(
            !objects(&fs::read_to_string(&path).unwrap()).is_empty(),
            "{}",
            path.display()
        );
    }
    for path in files("json") {
        let text = fs::read_to_string(&path).unwrap();
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
