//! What must exist before the agent compiles. One function per job.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    build_kernel_programs()?;
    admin_proto()
}

/// `proto/admin.proto` → `derny.admin.v1.rs`, client and server. protox reads it, so that no `protoc` is needed.
fn admin_proto() -> Result<()> {
    const PROTO: &str = "proto/admin.proto";
    println!("cargo:rerun-if-changed={PROTO}");
    let files = protox::compile([PROTO], ["proto"]).with_context(|| format!("reading {PROTO}"))?;
    tonic_prost_build::configure()
        // For `-o json`. An enum goes out by its name and not by its number.
        .message_attribute(
            ".",
            "#[derive(serde::Serialize)] #[serde(rename_all = \"camelCase\")]",
        )
        .field_attribute("Pod.state", "#[serde(serialize_with = \"pod_state_word\")]")
        .field_attribute(
            "ServiceEndpoint.state",
            "#[serde(serialize_with = \"endpoint_state_word\")]",
        )
        .field_attribute(
            "EndpointUse.standing",
            "#[serde(serialize_with = \"standing_word\")]",
        )
        .field_attribute("RuleMatch.verdict", "#[serde(serialize_with = \"verdict_word\")]")
        .compile_fds(files)
        .with_context(|| format!("writing the code for {PROTO}"))
}

/// Compiles `../ebpf` and leaves the object in `OUT_DIR`, where the `intercept` room embeds it.
fn build_kernel_programs() -> Result<()> {
    for input in [
        "ebpf/src",
        "ebpf/Cargo.toml",
        "ebpf/common/src",
        "ebpf/common/Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo:rerun-if-changed=../{input}");
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let linker = find_linker();
    let (Some(toolchain), Some(linker)) = (Toolchain::find(target), linker.as_ref()) else {
        bail!("{}", remedy(target, linker.as_deref()));
    };

    let target_dir = out_dir.join("ebpf");
    let mut cargo = toolchain.cargo()?;
    cargo
        .current_dir("../ebpf")
        .args(["build", "--release", "--target", target, "--target-dir"])
        .arg(&target_dir)
        // Line tables and types become the BTF that socket storage needs and that `bpftool` prints.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\u{1f}-Clink-arg=--btf")
        .env(
            format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_")),
            linker,
        );
    let output = cargo
        .output()
        .with_context(|| format!("{cargo:?} did not start"))?;
    if !output.status.success() {
        bail!(
            "the kernel programs did not compile: {cargo:?}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let object = target_dir.join(target).join("release/derny-ebpf");
    fs::copy(&object, out_dir.join("derny-ebpf.o")).with_context(|| format!("no {}", object.display()))?;
    Ok(())
}

/// A compiler that has `core` for the BPF target, or can build it.
enum Toolchain {
    /// Debian's rustc-web: a stable compiler with a prebuilt `core`.
    Debian { rustc: PathBuf },
    /// A nightly of rustup's with the standard library's source.
    Rustup { toolchain: String },
}

impl Toolchain {
    fn find(target: &str) -> Option<Self> {
        let rustc = PathBuf::from("/usr/bin/rustc");
        let has_core = sysroot(clean(&rustc))
            .is_some_and(|sysroot| sysroot.join("lib/rustlib").join(target).join("lib").is_dir());
        if has_core {
            return Some(Self::Debian { rustc });
        }
        let listed = clean("rustup").args(["toolchain", "list"]).output().ok()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let toolchain = listed
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .find(|name| {
                let mut rustc = clean("rustup");
                rustc.args(["run", name, "rustc"]);
                name.starts_with("nightly")
                    && sysroot(rustc).is_some_and(|it| it.join("lib/rustlib/src/rust/library/core").is_dir())
            })?;
        Some(Self::Rustup {
            toolchain: toolchain.to_owned(),
        })
    }

    fn cargo(&self) -> Result<Command> {
        Ok(match self {
            Self::Debian { rustc } => {
                let mut cargo = clean(env::var_os("CARGO").context("CARGO is not set")?);
                // The BPF target and its inline assembly are unstable features.
                cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Rustup { toolchain } => {
                let mut cargo = clean("rustup");
                cargo.args(["run", toolchain, "cargo", "-Zbuild-std=core"]);
                cargo
            }
        })
    }
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).output().ok()?;
    output
        .status
        .success()
        .then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// A command without what cargo and rustup tell this build script about the agent's own build: compiler,
/// wrappers (clippy's is one), flags, profile and target directory.
fn clean(program: impl Into<OsString>) -> Command {
    let mut command = Command::new(program.into());
    for (key, _) in env::vars_os() {
        let Some(name) = key.to_str() else { continue };
        let leaks = [
            "RUSTC",
            "RUSTDOC",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CARGO_ENCODED_RUSTFLAGS",
        ]
        .iter()
        .chain(&[
            "CARGO_BUILD_",
            "CARGO_TARGET_",
            "CARGO_PROFILE_",
            "CARGO_UNSTABLE_",
            "CARGO_FEATURE_",
        ])
        .any(|prefix| name.starts_with(prefix));
        if leaks {
            command.env_remove(key);
        }
    }
    command
}

/// `bpf-linker` on the path, or where `cargo install` puts it.
fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    env::split_paths(&path)
        .chain(cargo_home.into_iter().chain(home).map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|linker| linker.is_file())
}

fn remedy(target: &str, linker: Option<&Path>) -> String {
    let missing = if linker.is_none() {
        "bpf-linker".to_owned()
    } else {
        format!("a compiler for {target}")
    };
    format!(
        "the kernel programs need {missing}, which was not found. `cargo xtask setup` installs it. By hand:

on Debian 12:
    apt-get install rustc-web libstd-rust-web-dev-bpf rust-web-llvm llvm-22-dev libpolly-22-dev libzstd-dev zlib1g-dev
    LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22
elsewhere:
    rustup toolchain install nightly --component rust-src
    cargo install bpf-linker --version 0.13.0
"
    )
}
