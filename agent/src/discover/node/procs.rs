//! The processes of a pod, and the network namespace that they are in.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use super::layout::Directory;
use crate::model::{NetnsIdentity, OpenNetns};

/// How far below a pod's directory processes are looked for: a container that runs an init of its own makes more
/// levels below its own.
const DEPTH: usize = 4;
/// How often a pod is looked through when the process that was found ends at that moment.
const TRIES: usize = 3;

/// `linux/nsfs.h`: `_IO(0xb7, 0x1)`.
const NS_GET_USERNS: libc::c_ulong = 0xb701;

/// The network of the node itself, which no pod's is, and the user namespace that runtimes make pods' networks from.
#[derive(Clone, Debug)]
pub(super) struct NodeNetworks {
    networks: Vec<NetnsIdentity>,
    users: Vec<NetnsIdentity>,
}

impl NodeNetworks {
    /// Those of this process, and those of the first process when that is to be seen.
    pub(super) fn read() -> io::Result<Self> {
        let read = |kind: &str| {
            let mut all = vec![identity(&fs::metadata(format!("/proc/self/ns/{kind}"))?)];
            if let Ok(first) = fs::metadata(format!("/proc/1/ns/{kind}")) {
                all.push(identity(&first));
            }
            io::Result::Ok(all)
        };
        Ok(Self {
            networks: read("net")?,
            users: read("user")?,
        })
    }

    fn contain(&self, netns: NetnsIdentity) -> bool {
        self.networks.contains(&netns)
    }

    fn owns(&self, netns: &File) -> bool {
        owner(netns).is_ok_and(|owner| self.users.contains(&owner))
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
    /// The oldest process is in a network that belongs to a user namespace which is neither the node's nor its own.
    Foreign,
    Netns(Arc<OpenNetns>),
}

/// Looks through the pod's control group. `known` is kept for as long as one process is still in it; without one, the
/// namespace is that of the oldest process, which is the sandbox's own: a program in a container may have made itself
/// another, but it is younger.
pub(super) fn look(pod: &Path, known: Option<&Arc<OpenNetns>>, node: &NodeNetworks) -> Found {
    for _ in 0..TRIES {
        match scan(pod, known, node) {
            (found, None) => return found,
            (_, Some(oldest)) => {
                if let Some(found) = open(&oldest, node) {
                    return found;
                }
            }
        }
    }
    Found::Nobody
}

/// What the processes say, and the oldest of those that are in networks of which nothing is known.
fn scan(pod: &Path, known: Option<&Arc<OpenNetns>>, node: &NodeNetworks) -> (Found, Option<Process>) {
    let mut found = Found::Nobody;
    let mut oldest: Option<Process> = None;
    walk(pod, DEPTH, &mut |group| {
        for pid in pids(group) {
            // A process that has ended meanwhile is none.
            let Some(netns) = netns_of(pid) else { continue };
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
                oldest = None;
                return Walk::Enough;
            }
            let Some(started) = started(pid) else { continue };
            if oldest
                .as_ref()
                .is_none_or(|oldest| (started, pid) < (oldest.started, oldest.pid))
            {
                oldest = Some(Process {
                    started,
                    pid,
                    group: group.to_owned(),
                });
            }
        }
        Walk::On
    });
    (found, oldest)
}

/// A process outside the node's network.
struct Process {
    /// In ticks since the machine's start: a hundredth of a second, in which only one of a runtime's processes starts.
    started: u64,
    pid: u32,
    group: PathBuf,
}

/// Opens the namespace, and then looks whether the process is still the pod's: its number may have been given to
/// another one. `None` when it is not, or has ended.
fn open(process: &Process, node: &NodeNetworks) -> Option<Found> {
    let path = PathBuf::from(format!("/proc/{}/ns/net", process.pid));
    let file = File::open(&path).ok()?;
    let identity = identity(&file.metadata().ok()?);
    let owned = node.owns(&file) || is_owned_by(&file, process.pid);
    let still = !node.contain(identity)
        && started(process.pid) == Some(process.started)
        && pids(&process.group).contains(&process.pid);
    still.then(|| match owned {
        true => Found::Netns(Arc::new(OpenNetns {
            file,
            identity,
            found: path,
        })),
        false => Found::Foreign,
    })
}

fn netns_of(pid: u32) -> Option<NetnsIdentity> {
    Some(identity(&fs::metadata(format!("/proc/{pid}/ns/net")).ok()?))
}

/// Whether the network namespace belongs to the user namespace of the process, as that of a pod with one of its own
/// (`hostUsers: false`) does.
fn is_owned_by(netns: &File, pid: u32) -> bool {
    let users = fs::metadata(format!("/proc/{pid}/ns/user")).map(|users| identity(&users));
    matches!((owner(netns), users), (Ok(owner), Ok(users)) if owner == users)
}

/// The user namespace that a namespace belongs to. The kernel does not say when that is neither this process's own nor
/// one below it.
fn owner(namespace: &File) -> io::Result<NetnsIdentity> {
    // SAFETY: the descriptor is open, and the request takes no argument.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for the caller, and nobody else knows it.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(owner) });
    Ok(identity(&owner.metadata()?))
}

/// When a process began, in ticks since the machine's start.
fn started(pid: u32) -> Option<u64> {
    start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The 22nd field of `/proc/PID/stat`. The second is the program's name in parentheses, which may contain any
/// character.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_process_has_a_start_time_and_owns_no_network_of_the_node() {
        let own = std::process::id();
        assert!(started(own).unwrap() > 0);
        assert_eq!(started(u32::MAX), None);
        let node = NodeNetworks::read().unwrap();
        assert!(node.contain(netns_of(own).unwrap()));
    }

    #[test]
    fn the_name_of_a_program_does_not_change_its_start_time() {
        let rest = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2";
        for name in ["sleep", "a b) S 1", "()) (", ""] {
            assert_eq!(start_time(&format!("7 ({name}) {rest}")), Some(4711), "{name}");
        }
        assert_eq!(start_time("7 (short) S 1"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_fault(stat in ".{0,80}") {
            start_time(&stat);
        }
    }
}
