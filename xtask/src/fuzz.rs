//! Fuzzing by cargo-fuzz, on a bounded number of inputs.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{setup, shell};

const VERSION: &str = "0.13.2";
const CRATE: &str = "tests/fuzz";
/// Longer inputs repeat themselves.
const LONGEST: &str = "-max_len=8192";
/// Nothing is to take longer on any input, in seconds: it would be a worker's time.
const SLOWEST: &str = "-timeout=5";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Of `tests/fuzz/targets` [default: all]
    target: Option<String>,
    #[arg(long, default_value_t = 100_000)]
    inputs: u64,
    /// One target goes on no longer than this
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Of the random numbers: the same inputs as long as the program and the corpus are the same
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

/// Runs the targets one after the other. What they learn is kept in `target/fuzz/` for the next time; the corpus of the
/// repository is read only.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let program = setup::cargo_program("cargo-fuzz", VERSION)?;
    let cargo_fuzz = |task: &str| {
        let mut command = Command::new(&program);
        command.current_dir(shell::workspace());
        command.args([task, "--fuzz-dir", CRATE]);
        command
    };
    let targets = match &options.target {
        Some(target) => vec![target.clone()],
        None => {
            let listed = cargo_fuzz("list").output().context("cargo-fuzz list")?;
            let listed = String::from_utf8(listed.stdout).context("cargo-fuzz list")?;
            listed.lines().map(str::to_owned).collect()
        }
    };
    ensure!(!targets.is_empty(), "{CRATE} has no targets");
    for target in targets {
        let [learned, failed] = ["learned", "failed"].map(|kind| format!("target/fuzz/{kind}/{target}/"));
        for directory in [&learned, &failed] {
            let path = shell::workspace().join(directory);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let mut command = cargo_fuzz("run");
        // A sanitizer needs a nightly compiler. The oracles are our own, and almost all of the code is safe.
        command.args(["--sanitizer", "none", "--features", "libfuzzer"]);
        // It builds in four minutes instead of seven, for inputs that are as good.
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        command.env("CARGO_PROFILE_RELEASE_INCREMENTAL", "false");
        command.args(["--codegen-units", "16", &target]);
        command.args([&learned, &format!("{CRATE}/corpus/{target}")]);
        command.args([
            "--",
            LONGEST,
            SLOWEST,
            "-verbosity=0",
            "-print_funcs=0",
            &format!("-artifact_prefix={failed}"),
        ]);
        command.arg(format!("-runs={}", options.inputs));
        command.arg(format!("-max_total_time={}", options.seconds));
        command.arg(format!("-seed={}", options.seed));
        shell::run(&mut command)?;
    }
    Ok(())
}
