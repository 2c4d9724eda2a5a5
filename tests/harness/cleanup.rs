//! What goes when the process ends, however it ends. All of it is found by name: `derny-<id>`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{cgroup, netns};

/// Nodes of this process that stand.
static STANDING: Mutex<Vec<NodeId>> = Mutex::new(Vec::new());
static COUNT: AtomicU32 = AtomicU32::new(0);
static WATCH: Once = Once::new();

/// `t<pid>n<count>`: unique on this machine while the process lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(String);

impl NodeId {
    /// A new id, registered for removal on Ctrl-C and its kin.
    pub(crate) fn register() -> Result<Self> {
        WATCH.call_once(|| {
            if let Err(error) = watch_signals() {
                eprintln!("derny-tests: Ctrl-C will leave things behind: {error:#}");
            }
            sweep_dead();
        });
        let id = Self(format!(
            "t{}n{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        standing().push(id.clone());
        Ok(id)
    }

    /// What everything of the node is called, or begins with followed by `-`.
    pub(crate) fn prefix(&self) -> String {
        format!("derny-{}", self.0)
    }

    pub(crate) fn cgroup(&self) -> Result<PathBuf> {
        Ok(cgroup::root()?.join(self.prefix()))
    }

    /// Sockets, configuration and logs.
    pub(crate) fn run_directory(&self) -> PathBuf {
        Path::new("/run").join(self.prefix())
    }

    /// Leaves everything standing; nobody removes it but [`remove_by_name`].
    pub(crate) fn keep(&self) {
        standing().retain(|id| id != self);
    }

    pub(crate) fn remove(&self) {
        self.keep();
        remove_by_name(&self.prefix());
    }
}

fn standing() -> std::sync::MutexGuard<'static, Vec<NodeId>> {
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills and removes everything of the node `prefix`: processes first, since they hold the rest.
pub(crate) fn remove_by_name(prefix: &str) {
    if let Ok(root) = cgroup::root() {
        cgroup::remove(&root.join(prefix));
    }
    // A container runtime makes the same groups in the hierarchies of the first version, where there are any.
    for root in cgroup::mounted("cgroup").unwrap_or_default() {
        cgroup::remove(&root.join(prefix));
    }
    let dashed = format!("{prefix}-");
    for entry in fs::read_dir(netns::DIRECTORY).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&dashed) {
            netns::remove(&entry.path());
        }
    }
    let _ = fs::remove_dir_all(Path::new("/run").join(prefix));
}

/// Removes what runs that were killed left behind: nodes whose process is gone. A node that was kept on purpose
/// holds a file that says so.
fn sweep_dead() {
    for entry in fs::read_dir("/run").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = owner(&name) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() && !entry.path().join(KEPT).exists() {
            remove_by_name(&name);
        }
    }
}

/// Marks a node that outlives its process.
pub(crate) const KEPT: &str = "kept";

/// The process id in `derny-t<pid>n<count>`.
fn owner(name: &str) -> Option<u32> {
    let (pid, count) = name.strip_prefix("derny-t")?.split_once('n')?;
    count.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn watch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("watching signals")?;
    thread::Builder::new()
        .name("derny-cleanup".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Held to the end: threads that come to drop their node wait here instead of reporting its loss.
                let ids = standing();
                // Twice, since a thread that was making a pod may have gone on during the first pass.
                for id in ids.iter().chain(ids.iter()) {
                    remove_by_name(&id.prefix());
                }
                if !ids.is_empty() {
                    eprintln!("\ninterrupted: all that was made is removed");
                }
                std::process::exit(128 + signal);
            }
        })
        .context("starting the cleanup thread")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_nodes_have_an_owner() {
        assert_eq!(owner("derny-t123n4"), Some(123));
        assert_eq!(owner("derny-t123n4-pod"), None);
        assert_eq!(owner("derny-kernel"), None);
        assert_eq!(owner("derny"), None);
    }
}
