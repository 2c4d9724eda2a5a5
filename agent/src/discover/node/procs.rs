//! The processes of a pod, and the network namespace that they are in.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::layout::Directory;
use crate::model::{NetnsIdentity, OpenNetns};

/// How far below a pod's directory processes are looked for: a container that runs an init of its own makes more
/// levels below its own.
const DEPTH: usize = 4;

/// The network of the node itself, which no pod's is.
#[derive(Clone, Debug)]
pub(super) struct NodeNetworks(Vec<NetnsIdentity>);

impl NodeNetworks {
    /// That of this process, and that of the first process when that is to be seen.
    pub(super) fn read() -> io::Result<Self> {
        let mut all = vec![identity(&fs::metadata("/proc/self/ns/net")?)];
        if let Ok(first) = fs::metadata("/proc/1/ns/net") {
            all.push(identity(&first));
        }
        Ok(Self(all))
    }

    fn contain(&self, netns: NetnsIdentity) -> bool {
        self.0.contains(&netns)
    }
}

/// What a look at a pod's processes found.
#[derive(Debug)]
pub(super) enum Found {
    /// No process.
    Nobody,
    /// Processes, all in the node's network: those of a pod that uses it, or a runtime's that are about to enter the
    /// pod's.
    InNodeNetwork,
    Netns(Arc<OpenNetns>),
}

/// Looks through the pod's control group. `known` is kept for as long as one process is still in it.
pub(super) fn look(pod: &Path, known: Option<&Arc<OpenNetns>>, node: &NodeNetworks) -> Found {
    let mut found = Found::Nobody;
    walk(pod, DEPTH, &mut |group| {
        for pid in pids(group) {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            // A process that has ended meanwhile is none.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            let netns = identity(&metadata);
            if node.contain(netns) {
                if matches!(found, Found::Nobody) {
                    found = Found::InNodeNetwork;
                }
                continue;
            }
            if let Some(known) = known
                && known.identity == netns
            {
                found = Found::Netns(known.clone());
                return Walk::Enough;
            }
            if !matches!(found, Found::Netns(_))
                && let Some(open) = open(path, pid, group, node)
            {
                found = Found::Netns(Arc::new(open));
                if known.is_none() {
                    return Walk::Enough;
                }
            }
        }
        Walk::On
    });
    found
}

/// Opens the namespace, and then looks whether the process is still the pod's: its number may have been given to
/// another one.
fn open(path: PathBuf, pid: u32, group: &Path, node: &NodeNetworks) -> Option<OpenNetns> {
    let file = File::open(&path).ok()?;
    let identity = identity(&file.metadata().ok()?);
    let still = !node.contain(identity) && pids(group).contains(&pid);
    still.then_some(OpenNetns {
        file,
        identity,
        found: path,
    })
}

enum Walk {
    On,
    Enough,
}

/// Visits the group and those below it, without the runtime's monitors.
fn walk(group: &Path, depth: usize, visit: &mut impl FnMut(&Path) -> Walk) -> Walk {
    if let Walk::Enough = visit(group) {
        return Walk::Enough;
    }
    if depth == 0 {
        return Walk::On;
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        let is_monitor = matches!(
            entry.file_name().to_str().map(Directory::of),
            Some(Directory::Monitor)
        );
        let is_group = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_group
            && !is_monitor
            && let Walk::Enough = walk(&entry.path(), depth - 1, visit)
        {
            return Walk::Enough;
        }
    }
    Walk::On
}

/// Processes outside this process's own view are shown as 0. A group that has gone has none.
fn pids(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.parse().ok());
    pids.filter(|pid| *pid != 0).collect()
}

fn identity(metadata: &Metadata) -> NetnsIdentity {
    NetnsIdentity {
        dev: metadata.dev(),
        ino: metadata.ino(),
    }
}
