//! `cargo xtask image`: one program, linked statically, alone in a container image. No daemon and no base image.

mod elf;

use std::{
    fs,
    io::BufRead as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use derny_tests::image::{Image, Platform};

use crate::{setup, shell};

const GNU: &str = "x86_64-unknown-linux-gnu";
const MUSL: &str = "x86_64-unknown-linux-musl";

/// What an image is made of.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Program {
    Derny,
    /// The server of the tests, which `deploy/example` runs in the place of an application.
    DernyTestd,
}

impl Program {
    /// The package, and the binary in it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Derny => ("derny", "derny"),
            Self::DernyTestd => ("derny-tests", "derny-testd"),
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Derny => "Per-node service-mesh agent",
            Self::DernyTestd => "Stands in for an application",
        }
    }
}

/// What `cargo xtask image` is told.
pub(crate) struct Options {
    pub(crate) program: Program,
    /// Where the archive goes.
    pub(crate) output: PathBuf,
    /// `dist` for what ships; `release` compiles faster.
    pub(crate) profile: String,
    /// `None`: musl where it can be had, else glibc.
    pub(crate) target: Option<String>,
    /// The reference by which the archive's reader is to know the image.
    pub(crate) name: Option<String>,
}

impl Options {
    /// Where the end-to-end tests look for it.
    pub(crate) fn for_tests() -> Self {
        Self {
            program: Program::Derny,
            output: shell::workspace().join("target/derny-image-test.tar"),
            profile: "release".to_owned(),
            target: None,
            name: None,
        }
    }
}

/// Builds, packs, and says the digest.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let target = options.target.clone().unwrap_or_else(default_target);
    let platform = Platform::of(&target)?;
    let (package, binary_name) = options.program.names();
    let program = build((package, binary_name), &target, &options.profile)?;
    let binary = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    if let Some(interpreter) = elf::interpreter(&binary)? {
        bail!(
            "{} asks for {interpreter}, which an image without files does not have",
            program.display()
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| format!("localhost/{binary_name}:{version}"));
    let image = Image {
        name: &name,
        program: binary_name,
        description: options.program.description(),
        version,
        revision: revision(),
        platform,
        binary: &binary,
    };
    let packed = image.pack()?;
    if let Some(directory) = options.output.parent() {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    fs::write(&options.output, &packed.archive)
        .with_context(|| format!("writing {}", options.output.display()))?;
    println!("{name}@{}", packed.digest);
    println!(
        "{}: {target}, profile {}, binary {} MiB, archive {} MiB",
        options.output.display(),
        options.profile,
        binary.len() >> 20,
        packed.archive.len() >> 20,
    );
    Ok(())
}

/// musl needs the target's libraries from rustup and a C compiler for the crates that bring C with them.
fn default_target() -> String {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", MUSL]);
    let installed = rustc.output().ok().is_some_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&path).is_dir()
    });
    match installed && shell::on_path("musl-gcc") {
        true => MUSL.to_owned(),
        false => GNU.to_owned(),
    }
}

/// The flags go to the target alone and not to build scripts and macros, which are shared with every other build. The
/// dependencies are compiled once more, into a directory of the target's name.
fn build((package, binary): (&str, &str), target: &str, profile: &str) -> Result<PathBuf> {
    let flags = format!("target.{target}.rustflags=[\"-Ctarget-feature=+crt-static\"]");
    let mut cargo = shell::cargo();
    // Flags of the environment would count in the place of ours.
    cargo
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
        .args([
            "build",
            "--profile",
            profile,
            "--package",
            package,
            "--bin",
            binary,
        ])
        .args(["--target", target, "--config", &flags])
        .arg("--message-format=json-render-diagnostics");
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo build")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut program = None;
    for line in std::io::BufReader::new(stdout).lines() {
        let line = line.context("reading what cargo build says")?;
        let message: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if message["reason"] == "compiler-artifact" && message["target"]["name"] == binary {
            program = message["executable"].as_str().map(PathBuf::from).or(program);
        }
    }
    let status = child.wait().context("waiting for cargo build")?;
    ensure!(status.success(), "cargo build: {status}");
    program.context("cargo build named no program")
}

/// The commit, when there is one and the tree is as it says.
fn revision() -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(shell::workspace()).args(arguments);
        let output = git.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    git(&["status", "--porcelain"])?.is_empty().then_some(())?;
    git(&["rev-parse", "HEAD"])
}
