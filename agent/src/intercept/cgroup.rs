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
    pods_below(&mount()?)
}

/// The agent's own. In a container with a cgroup namespace of its own, `/proc/self/cgroup` says `/`, and the
/// host's root is attached to: that holds the agent too.
pub(super) fn find_own() -> Result<PathBuf, InterceptError> {
    let mount = mount()?;
    let text = read("/proc/self/cgroup")?;
    Ok(mount.join(own_path(&text).unwrap_or_default().trim_start_matches('/')))
}

pub(super) fn open(path: &Path) -> Result<File, InterceptError> {
    File::open(path).map_err(|source| InterceptError::Cgroup {
        path: path.to_owned(),
        source,
    })
}

fn mount() -> Result<PathBuf, InterceptError> {
    cgroup2_mount(&read("/proc/self/mounts")?).ok_or(InterceptError::NoCgroup2)
}

fn pods_below(mount: &Path) -> Result<PathBuf, InterceptError> {
    PODS.iter()
        .map(|name| mount.join(name))
        .find(|path| path.is_dir())
        .ok_or_else(|| InterceptError::NoPodsCgroup {
            mount: mount.to_owned(),
            looked_for: PODS.join(", "),
        })
}

/// In `/proc/self/mounts`, a line is device, mount point, type and options.
fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point.replace("\\040", " ")))
    })
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
        assert_eq!(cgroup2_mount(alone), Some("/sys/fs/cgroup".into()));
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount(v1), None);
    }

    #[test]
    fn the_own_cgroup_is_the_v2_line() {
        let hybrid = "4:memory:/a\n1:cpu:/b\n0::/system.slice/derny.service\n";
        assert_eq!(own_path(hybrid), Some("/system.slice/derny.service"));
        assert_eq!(own_path("1:cpu:/b\n"), None);
    }

    #[test]
    fn every_kubelets_layout_is_known_and_its_absence_is_named() {
        for name in PODS {
            let mount = tempfile::tempdir().unwrap();
            fs::create_dir_all(mount.path().join(name)).unwrap();
            assert_eq!(pods_below(mount.path()).unwrap(), mount.path().join(name));
        }
        let empty = tempfile::tempdir().unwrap();
        let error = pods_below(empty.path()).unwrap_err().to_string();
        assert!(
            error.contains("kubepods.slice") && error.contains(&*empty.path().to_string_lossy()),
            "{error}"
        );
    }
}
