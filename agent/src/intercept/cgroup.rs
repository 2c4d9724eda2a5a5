//! Which cgroups the programs are attached to.

use std::{
    fs::{self, File},
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

/// The agent's own. In a container with a cgroup namespace of its own, `/proc/self/cgroup` says `/`, and the
/// host's root is attached to: that holds the agent too.
pub(super) fn find_own() -> Result<PathBuf, InterceptError> {
    let text = read("/proc/self/cgroup")?;
    let path = own_path(&text).unwrap_or_default().trim_start_matches('/');
    mounts()?
        .first()
        .map(|mount| mount.join(path))
        .ok_or(InterceptError::NoCgroup2)
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
    let mut candidates = mounts.iter().flat_map(|mount| PODS.map(|name| mount.join(name)));
    candidates
        .find(|path| path.is_dir())
        .ok_or_else(|| InterceptError::NoPodsCgroup {
            mounts: mounts
                .iter()
                .map(|mount| mount.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
            looked_for: PODS.join(", "),
        })
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
