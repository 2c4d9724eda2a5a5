//! Containers run the programs of this machine and of this workspace, which they see at their own paths, read-only: so
//! a [`Command`] means in a container what it means beside it. An image of one's own for each would have to be
//! built from as many libraries.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::cri::v1::{KeyValue, Mount};
use crate::{agent::binary, clients};

/// Where programs and their libraries are, as far as a machine has them; some are links.
const SYSTEM: [&str; 5] = ["/usr", "/bin", "/lib", "/lib64", "/sbin"];

/// What containers see besides their image.
pub(super) fn mounts() -> Result<Vec<Mount>> {
    let workspace = clients::workspace();
    let built = binary("DERNY_TESTD_BIN", "derny-testd")?;
    let built = built
        .parent()
        .context("a program without a directory")?
        .to_owned();
    let mut paths: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    // A worktree may share the clients with another by a link, and Python may be one's own.
    let clients = workspace.join("target/test-clients");
    let python = clients.join("venv/bin/python").canonicalize();
    paths.extend(
        python
            .iter()
            .filter_map(|program| Some(program.parent()?.parent()?.to_owned())),
    );
    paths.extend([clients.canonicalize().unwrap_or(clients), built, workspace]);
    paths.retain(|path| path.exists());
    // The outer ones first.
    paths.sort();
    paths.dedup();
    Ok(paths.iter().map(|path| read_only(path)).collect())
}

fn read_only(path: &Path) -> Mount {
    Mount {
        container_path: path.display().to_string(),
        host_path: path.display().to_string(),
        readonly: true,
    }
}

/// Program and arguments.
pub(super) fn words(command: &Command) -> Vec<String> {
    let arguments = command.get_args();
    std::iter::once(command.get_program())
        .chain(arguments)
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// The environment that the command sets, and where programs are.
pub(super) fn environment(command: &Command) -> Vec<KeyValue> {
    let set = command.get_envs().filter_map(|(key, value)| {
        Some(KeyValue {
            key: key.to_string_lossy().into_owned(),
            value: value?.to_string_lossy().into_owned(),
        })
    });
    let path = KeyValue {
        key: "PATH".to_owned(),
        value: "/usr/bin:/bin".to_owned(),
    };
    set.chain([path]).collect()
}
