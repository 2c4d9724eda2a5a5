//! What must be installed before anything builds: on Debian it installs, elsewhere it says what is missing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use derny_tests::clients;

use crate::shell::{on_path, run as run_command, succeeds};

/// Programs that the build, the demo and the tests start, and the Debian package of each.
const PROGRAMS: [(&str, &str); 16] = [
    ("cc", "gcc"),
    ("c++", "g++"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("curl", "curl"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("redis-server", "redis-server"),
    ("strace", "strace"),
    ("bpftool", "bpftool"),
    ("openssl", "openssl"),
    ("dnsmasq", "dnsmasq-base"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("containerd", "containerd"),
    ("runc", "runc"),
];

/// A compiler with a prebuilt `core` for the BPF target.
const DEBIAN_BPF_RUST: [&str; 3] = ["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-llvm"];
/// What `bpf-linker` is built against there.
const DEBIAN_LLVM: [&str; 4] = ["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

const BPF_TARGET: &str = "bpfel-unknown-none";
const BPF_LINKER_VERSION: &str = "0.13.0";

/// What this machine lacks.
#[derive(Debug, Default, PartialEq)]
struct Missing {
    /// Debian's names.
    packages: Vec<&'static str>,
    bpf_compiler: bool,
    bpf_linker: bool,
}

/// Installs what is missing. Changes nothing, and takes a blink, when all is there.
pub(crate) fn run() -> Result<()> {
    let missing = Missing::look();
    if missing != Missing::default() {
        if !is_debian() {
            bail!("{}", missing.remedy());
        }
        missing.install()?;
    }
    clients::install().context("installing the test clients from PyPI and npm")
}

/// A program of a crate in this version, built when it is not there. Without optimization: what these do themselves is
/// little.
pub(crate) fn cargo_program(name: &str, version: &str) -> Result<PathBuf> {
    let program = cargo_bin(name);
    let said = Command::new(&program).arg("--version").output();
    let is_there = said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).trim().ends_with(version));
    if !is_there {
        println!("setup: building {name} {version}, which takes up to some minutes");
        let mut cargo = cargo();
        cargo
            .args(["install", name, "--version", version])
            .args(["--locked", "--debug", "--force"]);
        run_command(&mut cargo)?;
    }
    Ok(program)
}

/// For programs that are not of this workspace, and not to be built into its directory.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.env_remove("CARGO_TARGET_DIR");
    cargo
}

impl Missing {
    fn look() -> Self {
        let mut packages: Vec<&str> = PROGRAMS
            .iter()
            .filter(|(program, _)| !on_path(program))
            .map(|(_, package)| *package)
            .collect();
        if derny_tests::containers::plugins().is_none() {
            packages.push("containernetworking-plugins");
        }
        if !succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
            packages.push("python3-venv");
        }
        let bpf_compiler = !(debian_compiler() || nightly_compiler());
        let bpf_linker = !(on_path("bpf-linker") || cargo_bin("bpf-linker").is_file());
        Self {
            packages,
            bpf_compiler,
            bpf_linker,
        }
    }

    fn install(&self) -> Result<()> {
        let mut packages = self.packages.clone();
        if self.bpf_compiler {
            packages.extend(DEBIAN_BPF_RUST);
        }
        if self.bpf_linker {
            packages.extend(DEBIAN_LLVM);
        }
        if !packages.is_empty() {
            println!("setup: installing Debian packages: {}", packages.join(" "));
            let apt = || {
                let mut command = Command::new("apt-get");
                command.env("DEBIAN_FRONTEND", "noninteractive");
                command
            };
            run_command(apt().args(["update", "--quiet"]))?;
            let install = ["install", "--quiet", "--yes", "--no-install-recommends"];
            run_command(apt().args(install).args(&packages)).with_context(|| self.remedy())?;
        }
        if self.bpf_linker {
            println!("setup: building bpf-linker {BPF_LINKER_VERSION}, which takes a minute");
            ensure!(
                Path::new(LLVM_PREFIX).is_dir(),
                "{LLVM_PREFIX} is missing although llvm-22-dev is installed"
            );
            let mut cargo = cargo();
            cargo
                .env("LLVM_PREFIX", LLVM_PREFIX)
                .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION])
                .args(["--no-default-features", "--features", "llvm-22"]);
            run_command(&mut cargo)?;
        }
        Ok(())
    }

    /// For people on other systems.
    fn remedy(&self) -> String {
        let mut lines =
            vec!["this machine lacks something, and only on Debian 12 is it installed for you:".to_owned()];
        if !self.packages.is_empty() {
            lines.push(format!(
                "  programs, by the names of Debian's packages: {}",
                self.packages.join(" ")
            ));
        }
        if self.bpf_compiler {
            lines.push(format!(
                "  a compiler for {BPF_TARGET}: `rustup toolchain install nightly --component rust-src`, or Debian 12's {}",
                DEBIAN_BPF_RUST.join(" ")
            ));
        }
        if self.bpf_linker {
            lines.push(format!(
                "  its linker: `cargo install bpf-linker --version {BPF_LINKER_VERSION}`"
            ));
        }
        lines.join("\n")
    }
}

fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "ID=debian") && on_path("apt-get")
}

/// Whether the system's own compiler has `core` for the BPF target.
fn debian_compiler() -> bool {
    let mut rustc = Command::new("/usr/bin/rustc");
    rustc
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["--print", "target-libdir", "--target", BPF_TARGET]);
    printed_path(&mut rustc).is_some_and(|directory| directory.is_dir())
}

/// Whether rustup has a nightly with the standard library's source.
fn nightly_compiler() -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    printed_path(&mut rustc).is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
}

fn printed_path(command: &mut Command) -> Option<PathBuf> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Where `cargo install` puts a program.
fn cargo_bin(program: &str) -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    home.unwrap_or_default().join("bin").join(program)
}
