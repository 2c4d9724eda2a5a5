//! How kubelets and container runtimes name the control groups of pods. Pure.
//!
//! ```text
//! cgroupfs  kubepods/burstable/pod<UID>/<container>
//!           kubepods/pod<UID>/crio-<container>                           guaranteed pods have no level
//! systemd   kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID with _>.slice/<runtime>-<container>.scope
//! nested    kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/…          kind and its like
//! ```

use std::{fmt, sync::Arc};

/// A pod's UID as the API writes it; of a static pod the hash of its manifest.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::discover) struct PodUid(Arc<str>);

impl PodUid {
    pub(in crate::discover) fn new(uid: &str) -> Self {
        Self(uid.into())
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a directory at or below the pods' control group is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::discover) enum Directory {
    /// Holds the pods of one quality of service.
    Level,
    Pod(PodUid),
    /// Below a pod, a monitor of the runtime that is in the node's network: CRI-O's conmon.
    Monitor,
    Other,
}

impl Directory {
    pub(in crate::discover) fn of(name: &str) -> Self {
        if name.starts_with("crio-conmon-") {
            return Self::Monitor;
        }
        match name.strip_suffix(".slice") {
            Some(unit) => Self::of_slice(unit),
            None => match name {
                "burstable" | "besteffort" => Self::Level,
                name => Self::pod(name.strip_prefix("pod"), |uid| uid.to_owned()),
            },
        }
    }

    /// A slice is named by its whole path, with `-` between the parts. The UID's own were made `_`.
    fn of_slice(unit: &str) -> Self {
        let (parent, last) = unit.rsplit_once('-').unwrap_or(("", unit));
        let below_pods = |path: &str| {
            let path = ["-burstable", "-besteffort"]
                .iter()
                .find_map(|level| path.strip_suffix(level))
                .unwrap_or(path);
            path == "kubepods" || path.ends_with("-kubepods")
        };
        match last {
            "burstable" | "besteffort" if below_pods(parent) => Self::Level,
            last if below_pods(parent) => Self::pod(last.strip_prefix("pod"), |uid| uid.replace('_', "-")),
            _ => Self::Other,
        }
    }

    /// A UID is of hexadecimal digits and dashes, which keeps `podruntime` and its like out.
    fn pod(uid: Option<&str>, plain: impl Fn(&str) -> String) -> Self {
        match uid.map(plain) {
            Some(uid) if uid.len() >= 8 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') => {
                Self::Pod(PodUid::new(&uid))
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "8f3c1f0a-5d2e-4b6f-9c0d-1a2b3c4d5e6f";

    /// What the directories of a path are, from below the mount.
    fn path(path: &str) -> Vec<Directory> {
        path.split('/').map(Directory::of).collect()
    }

    #[test]
    fn every_layout_leads_to_the_pod() {
        let under = UID.replace('-', "_");
        let container = "4f".repeat(32);
        let pod = || Directory::Pod(PodUid::new(UID));
        let check = |text: &str, expect: &[Directory]| {
            let text = text
                .replace("UID", UID)
                .replace("UNDER", &under)
                .replace("ID", &container);
            assert_eq!(path(&text), expect, "{text}");
        };
        use Directory::{Level, Monitor, Other};
        // cgroupfs: containerd, CRI-O; guaranteed pods stand beside the levels.
        check("kubepods/burstable/podUID/ID", &[Other, Level, pod(), Other]);
        check("kubepods/besteffort/podUID/ID", &[Other, Level, pod(), Other]);
        check("kubepods/podUID/crio-ID", &[Other, pod(), Other]);
        check("kubepods/podUID/crio-conmon-ID", &[Other, pod(), Monitor]);
        // systemd.
        check(
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUNDER.slice/cri-containerd-ID.scope",
            &[Other, Level, pod(), Other],
        );
        check(
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUNDER.slice/crio-ID.scope",
            &[Other, Level, pod(), Other],
        );
        check(
            "kubepods.slice/kubepods-podUNDER.slice/crio-conmon-ID.scope",
            &[Other, pod(), Monitor],
        );
        check(
            "kubepods.slice/kubepods-podUNDER.slice/docker-ID.scope",
            &[Other, pod(), Other],
        );
        // A node in a container.
        check(
            "kubelet/kubepods/burstable/podUID/ID",
            &[Other, Other, Level, pod(), Other],
        );
        check(
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
             kubelet-kubepods-besteffort-podUNDER.slice/cri-containerd-ID.scope",
            &[Other, Other, Level, pod(), Other],
        );
        check(
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUNDER.slice",
            &[Other, Other, pod()],
        );
    }

    #[test]
    fn a_static_pod_is_known_by_its_hash() {
        let hash = "0123456789abcdef0123456789abcdef";
        let expect = Directory::Pod(PodUid::new(hash));
        assert_eq!(Directory::of(&format!("pod{hash}")), expect);
        assert_eq!(
            Directory::of(&format!("kubepods-burstable-pod{hash}.slice")),
            expect
        );
    }

    #[test]
    fn what_is_no_pod_is_not_taken_for_one() {
        for name in [
            "",
            ".slice",
            "-.slice",
            "pod",
            "pod.slice",
            "podruntime",
            "podruntime.slice",
            "kubepods-pod.slice",
            "system.slice",
            "user-1000.slice",
            "podman-12345678.slice",
            "other-pod12345678.slice",
            "burstable.slice",
            "kubepods-podxyzxyzxyz.slice",
        ] {
            assert_eq!(Directory::of(name), Directory::Other, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_name_is_too_strange(name in ".{0,80}") {
            Directory::of(&name);
        }

        #[test]
        fn names_like_the_real_ones_are_judged_without_a_fault(
            parts in proptest::collection::vec(prop_oneof![
                Just("kubepods"), Just("kubelet"), Just("-"), Just("_"), Just("pod"), Just("burstable"), Just("besteffort"),
                Just(".slice"), Just("crio-"), Just("conmon-"), Just("0123abcd"), Just("é"),
            ], 0..8),
        ) {
            let name = parts.concat();
            if let Directory::Pod(uid) = Directory::of(&name) {
                prop_assert!(uid.to_string().len() >= 8);
            }
        }

        #[test]
        fn a_uid_survives_both_drivers(uid in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}") {
            let expect = Directory::Pod(PodUid::new(&uid));
            prop_assert_eq!(&Directory::of(&format!("pod{uid}")), &expect);
            let slice = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
            prop_assert_eq!(Directory::of(&slice), expect);
        }
    }
}
