//! Control groups of the second version, also where the first is mounted beside it.

use std::{
    fs::{self, File, OpenOptions},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;

use crate::observe::eventually;

/// Where the second version's hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid systems.
pub(crate) fn root() -> Result<PathBuf> {
    let mut mounted = mounted("cgroup2")?.into_iter();
    mounted
        .next()
        .ok_or_else(|| anyhow!("no cgroup2 hierarchy is mounted"))
}

/// Where hierarchies are mounted: of the second version `cgroup2`, those of the first `cgroup`.
pub(crate) fn mounted(kind: &str) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == kind).then(|| PathBuf::from(path))
    });
    Ok(found.collect())
}

/// Makes a group and all above it.
pub(crate) fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating control group {}", path.display()))
}

/// Sees to it that `command` is in the group before its first instruction.
pub(crate) fn enter(path: &Path, command: &mut Command) -> Result<()> {
    let procs = path.join("cgroup.procs");
    let file: File = OpenOptions::new()
        .write(true)
        .open(&procs)
        .with_context(|| format!("opening {}", procs.display()))?;
    // SAFETY: between fork and exec only write is called, on a file that lives in the closure.
    unsafe {
        command.pre_exec(move || {
            // "0" means the writer itself.
            let wrote = libc::write(file.as_raw_fd(), c"0".as_ptr().cast(), 1);
            if wrote == 1 {
                Ok(())
            } else {
                Err(Errno::last().into())
            }
        });
    }
    Ok(())
}

/// Kills every process of the group and of those below, and removes them all. One that is gone is no error.
pub(crate) fn remove(path: &Path) {
    if !path.exists() {
        return;
    }
    let _ = fs::write(path.join("cgroup.kill"), "1");
    let _ = eventually("the control group is empty", Duration::from_secs(5), || {
        remove_tree(path).is_ok()
    });
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
