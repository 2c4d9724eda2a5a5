//! Which cgroups the programs are attached to.

use std::{
    collections::VecDeque,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::InterceptError;

/// Where kubelets put their pods, below the mount of cgroup v2: systemd's driver, cgroupfs', and both as kind
/// and other nested nodes name them.
const PODS: [&str; 4] = [
    "kubepods.slice",
    "kubepods",
    "kubelet.slice/kubelet-kubepods.slice",
    "kubelet/kubepods",
];

/// The lowest cgroup v2 that holds all pods. Programs of a lower cgroup run first, so the agent sees the address
/// that a pod dialled before a CNI at the root translates it. Works where cgroup v2 is mounted alone and where
/// it stands beside v1 (hybrid).
///
/// # Errors
/// [`InterceptError::NoCgroup2`], or [`InterceptError::NoPodsCgroup`] when this is not a Kubernetes node.
pub fn find_pods_cgroup() -> Result<PathBuf, InterceptError> {
    pods_below(&mounts()?)
}

/// The agent's own: the one that lists it. `/proc/self/cgroup` names it, but in a container with a cgroup namespace of
/// its own that says `/`, which below the host's mount is the root with every process of the node in it. Then the
/// tree is searched.
///
/// # Errors
/// [`InterceptError::NoCgroup2`], or [`InterceptError::NoOwnCgroup`] when no mount shows it.
pub(super) fn find_own() -> Result<PathBuf, InterceptError> {
    let text = read("/proc/self/cgroup")?;
    own_below(
        &mounts()?,
        own_path(&text).unwrap_or_default(),
        std::process::id(),
    )
}

pub(super) fn open(path: &Path) -> Result<File, InterceptError> {
    File::open(path).map_err(|source| InterceptError::Cgroup {
        path: path.to_owned(),
        source,
    })
}

/// At least one. A container may see its own beside the host's.
fn mounts() -> Result<Vec<PathBuf>, InterceptError> {
    let mounts = cgroup2_mounts(&read("/proc/self/mounts")?);
    if mounts.is_empty() {
        Err(InterceptError::NoCgroup2)
    } else {
        Ok(mounts)
    }
}

fn pods_below(mounts: &[PathBuf]) -> Result<PathBuf, InterceptError> {
    let candidates = mounts.iter().flat_map(|mount| PODS.map(|name| mount.join(name)));
    let found: Vec<(usize, PathBuf)> = candidates
        .filter(|path| path.is_dir())
        .map(|path| (pods_in(&path), path))
        .collect();
    // The first of those that have most.
    let best = found.iter().rev().max_by_key(|(pods, _)| *pods);
    let (_, taken) = best.ok_or_else(|| InterceptError::NoPodsCgroup {
        mounts: list(mounts),
        looked_for: PODS.join(", "),
    })?;
    let others: Vec<String> = found
        .iter()
        .filter(|(_, path)| path != taken && !is_same(path, taken))
        .map(|(pods, path)| format!("{} with {pods}", path.display()))
        .collect();
    if !others.is_empty() {
        tracing::warn!(taken = %taken.display(), others = others.join(", "), "several control groups are named as the pods'; the one with most pods is taken, and `--cgroup` says otherwise");
    }
    Ok(taken.clone())
}

/// How many pods have processes there: of the best effort and burstable ones each has a group below that of its class.
fn pods_in(path: &Path) -> usize {
    let below = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        groups
            .map(|entry| entry.path())
            .filter(|path| has_processes(path))
            .collect()
    };
    let is_class = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let name = name.strip_suffix(".slice").unwrap_or(name);
        ["burstable", "besteffort"]
            .iter()
            .any(|class| name.ends_with(class))
    };
    let (classes, guaranteed): (Vec<_>, Vec<_>) = below(path).into_iter().partition(is_class);
    guaranteed.len() + classes.iter().map(|class| below(class).len()).sum::<usize>()
}

/// Whether there is a process in the group or in one below.
fn has_processes(path: &Path) -> bool {
    let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// A container may see one group by several mounts.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|of| (of.dev(), of.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// `named` is what the kernel says of process `pid`, in whose namespace its number is read too.
fn own_below(mounts: &[PathBuf], named: &str, pid: u32) -> Result<PathBuf, InterceptError> {
    let named = named.trim_start_matches('/');
    let mut candidates = mounts.iter().map(|mount| mount.join(named));
    candidates
        .find(|path| holds(path, pid))
        .or_else(|| mounts.iter().find_map(|mount| search(mount, pid)))
        .ok_or_else(|| InterceptError::NoOwnCgroup {
            pid,
            mounts: list(mounts),
        })
}

/// A walk over some hundred directories, once at the start.
fn search(mount: &Path, pid: u32) -> Option<PathBuf> {
    let mut left = VecDeque::from([mount.to_owned()]);
    while let Some(path) = left.pop_front() {
        if holds(&path, pid) {
            return Some(path);
        }
        // A group that ends while it is looked at holds nobody.
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(directories.map(|entry| entry.path()));
    }
    None
}

/// Whether the process is in this very group, not in one below.
fn holds(path: &Path, pid: u32) -> bool {
    let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    listed.lines().any(|line| line.parse() == Ok(pid))
}

fn list(mounts: &[PathBuf]) -> String {
    let mounts: Vec<String> = mounts.iter().map(|mount| mount.display().to_string()).collect();
    mounts.join(", ")
}

/// In `/proc/self/mounts`, a line is device, mount point, type and options.
fn cgroup2_mounts(mounts: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point.replace("\\040", " ")))
    };
    mounts.lines().filter_map(point).collect()
}

/// In `/proc/self/cgroup`, the v2 hierarchy has number 0 and no controllers.
fn own_path(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::"))
}

fn read(path: &str) -> Result<String, InterceptError> {
    fs::read_to_string(path).map_err(|source| InterceptError::Read {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_is_found_alone_and_beside_v1() {
        let alone = "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(cgroup2_mounts(alone), [Path::new("/sys/fs/cgroup")]);
        assert_eq!(cgroup2_mounts(hybrid), [Path::new("/sys/fs/cgroup/unified")]);
        assert!(cgroup2_mounts(v1).is_empty());
    }

    #[test]
    fn the_own_cgroup_is_the_v2_line() {
        let hybrid = "4:memory:/a\n1:cpu:/b\n0::/system.slice/derny.service\n";
        assert_eq!(own_path(hybrid), Some("/system.slice/derny.service"));
        assert_eq!(own_path("1:cpu:/b\n"), None);
    }

    fn group(path: &Path, processes: &str) -> PathBuf {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("cgroup.procs"), processes).unwrap();
        path.to_owned()
    }

    #[test]
    fn the_own_cgroup_is_the_one_that_lists_the_process() {
        let host = tempfile::tempdir().unwrap();
        let root = group(host.path(), "1\n2\n");
        let pod = group(&host.path().join("kubepods/besteffort/pod1"), "");
        group(&pod.join("pause"), "420\n");
        let own = group(&pod.join("agent"), "41\n42\n");
        let named = |path: &str| own_below(std::slice::from_ref(&root), path, 42).unwrap();
        assert_eq!(named("/kubepods/besteffort/pod1/agent"), own);
        assert_eq!(named("/"), own, "in a namespace of its own");
        assert_eq!(named("/../../elsewhere"), own, "seen from another's namespace");

        // The container's own mount is as good: the group is the same.
        let container = group(&tempfile::tempdir().unwrap().keep(), "42\n");
        let mounts = [container.clone(), root.clone()];
        assert_eq!(own_below(&mounts, "/", 42).unwrap(), container);
        fs::remove_dir_all(container).unwrap();

        let error = own_below(&[root], "/", 43).unwrap_err().to_string();
        assert!(
            error.contains("43") && error.contains(&*host.path().to_string_lossy()),
            "{error}"
        );
    }

    #[test]
    fn of_several_the_one_with_the_pods_is_taken() {
        let mount = tempfile::tempdir().unwrap();
        let populated = |path: &str| {
            let path = mount.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        };
        fs::create_dir_all(mount.path().join("kubepods.slice/kubepods-burstable.slice")).unwrap();
        fs::create_dir_all(mount.path().join("kubepods")).unwrap();
        let found = || pods_below(&[mount.path().to_owned()]).unwrap();
        assert_eq!(found(), mount.path().join("kubepods.slice"), "none has any");
        for path in ["kubepods/burstable", "kubepods/burstable/pod1", "kubepods/pod2"] {
            populated(path);
        }
        assert_eq!(found(), mount.path().join("kubepods"));
        populated("kubepods.slice/kubepods-burstable.slice");
        populated("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3.slice");
        assert_eq!(found(), mount.path().join("kubepods"), "it has more");
    }

    #[test]
    fn every_kubelets_layout_is_known_and_its_absence_is_named() {
        let empty = tempfile::tempdir().unwrap();
        for name in PODS {
            let mount = tempfile::tempdir().unwrap();
            fs::create_dir_all(mount.path().join(name)).unwrap();
            let mounts = [empty.path().to_owned(), mount.path().to_owned()];
            assert_eq!(pods_below(&mounts).unwrap(), mount.path().join(name));
        }
        let error = pods_below(&[empty.path().to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("kubepods.slice") && error.contains(&*empty.path().to_string_lossy()),
            "{error}"
        );
    }
}
