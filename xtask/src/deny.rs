//! `cargo deny`, as `.deny.toml` says.

use anyhow::Result;

use crate::{setup, shell};

const VERSION: &str = "0.18.9";

/// Needs no network beside the registry's index. Advisories are looked up elsewhere: they change without a commit, and
/// what was good must stay so.
pub(crate) fn run() -> Result<()> {
    let program = setup::cargo_program("cargo-deny", VERSION)?;
    let mut deny = std::process::Command::new(program);
    deny.current_dir(shell::workspace());
    deny.args([
        "--workspace",
        "--all-features",
        "check",
        "--config",
        ".deny.toml",
        "bans",
        "licenses",
        "sources",
    ]);
    shell::run(&mut deny)
}
