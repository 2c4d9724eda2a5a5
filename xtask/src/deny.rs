//! `cargo deny`, as `.deny.toml` says.

use anyhow::Result;

use crate::{setup, shell};

/// Needs no network beside the registry's index. Advisories are looked up elsewhere: they change without a commit, and
/// what was good must stay so.
pub(crate) fn run() -> Result<()> {
    let program = setup::deny()?;
    let mut deny = std::process::Command::new(program);
    deny.current_dir(shell::workspace());
    deny.args([
        "--workspace",
        "check",
        "--config",
        ".deny.toml",
        "bans",
        "licenses",
        "sources",
    ]);
    shell::run(&mut deny)
}
