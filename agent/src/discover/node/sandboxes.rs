//! Which pods have control groups on this machine, and the network namespaces of the processes in them. It keeps the
//! namespaces open.
//!
//! A runtime puts the first process of a sandbox into the pod's control group and lets it enter the pod's network
//! after that, a few milliseconds later. The kernel tells of the first and not of the second, so a pod that has changed
//! is looked at again, at growing intervals, for some seconds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    layout::PodUid,
    procs::{self, Found, NodeNetworks},
    tree::Tree,
};
use crate::model::{GroupId, OpenNetns};

/// Between the first looks at a pod whose process is in the node's network so far. Later ones are put off by a quarter of the
/// time that has passed, so that a pod is not seen later than by a quarter of the time that its runtime took.
const FIRST_LOOKS: Duration = Duration::from_millis(1);
/// The same for a pod that has a network, and will hardly have another: then doubled. While a hundred pods start, each look
/// is time that the next pod waits.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(10);
/// No more looks after that. Whatever happens to the pod's control group later begins them anew.
const LAST_LOOK: Duration = Duration::from_secs(8);

/// A pod that has a control group.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::discover) struct Sandbox {
    /// There before the first process.
    pub(in crate::discover) group: GroupId,
    pub(in crate::discover) network: Network,
}

/// Where the processes of a pod are.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::discover) enum Network {
    /// It has none.
    NoProcess,
    /// All are in the node's.
    Node { since: Option<Instant> },
    /// The oldest is in one that belongs to strangers.
    Foreign { since: Option<Instant> },
    /// One is in a network of its own.
    Own {
        netns: Arc<OpenNetns>,
        since: Option<Instant>,
    },
}

impl Network {
    /// When the first process of this network was seen; `None` when it was there before the agent.
    pub(in crate::discover) fn since(&self) -> Option<Instant> {
        match self {
            Self::NoProcess => None,
            Self::Node { since } | Self::Foreign { since } | Self::Own { since, .. } => *since,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Again {
    since: Instant,
    next: Instant,
}

/// A watch of a directory says that it has gone, and nothing says that there is another in its place.
const ROOT_LOOK: std::time::Duration = std::time::Duration::from_millis(500);

#[derive(Debug)]
pub(in crate::discover) struct Sandboxes {
    tree: Tree,
    node: NodeNetworks,
    known: HashMap<PodUid, Sandbox>,
    /// When to see whether the control group of all pods is still the same.
    roots: tokio::time::Interval,
    /// When to look again, and since when that has been done.
    again: BTreeMap<PodUid, Again>,
}

impl Sandboxes {
    /// Takes what is below `root`, the lowest control group that holds all pods, and watches it.
    pub(in crate::discover) fn open(root: &Path) -> io::Result<Self> {
        let mut sandboxes = Self {
            tree: Tree::open(root)?,
            node: NodeNetworks::read()?,
            known: HashMap::new(),
            roots: {
                let mut roots = tokio::time::interval(ROOT_LOOK);
                roots.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                roots
            },
            again: BTreeMap::new(),
        };
        let pods: Vec<PodUid> = sandboxes.tree.pods().cloned().collect();
        for uid in pods {
            sandboxes.look(&uid, None);
        }
        Ok(sandboxes)
    }

    /// `None`: it has no control group.
    pub(in crate::discover) fn get(&self, pod: &PodUid) -> Option<&Sandbox> {
        self.known.get(pod)
    }

    /// Pods whose control group, processes or network have changed, one at least. Nothing is lost when this is dropped
    /// while it waits.
    pub(in crate::discover) async fn changed(&mut self) -> io::Result<BTreeSet<PodUid>> {
        loop {
            let due = self.again.values().map(|again| again.next).min();
            let look_again = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let touched = tokio::select! {
                touched = self.tree.changed() => {
                    let touched = touched?;
                    self.again.retain(|uid, _| !touched.contains(uid));
                    touched
                }
                _ = self.roots.tick() => self.tree.follow_root(),
                () = look_again => {
                    let now = Instant::now();
                    let due = self.again.iter().filter(|(_, again)| again.next <= now);
                    due.map(|(uid, _)| uid.clone()).collect()
                }
            };
            let now = Instant::now();
            let changed: BTreeSet<PodUid> = touched
                .into_iter()
                .filter(|uid| self.look(uid, Some(now)))
                .collect();
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }

    /// Looks at a pod's processes; whether something is otherwise than before.
    fn look(&mut self, uid: &PodUid, now: Option<Instant>) -> bool {
        let before = self.known.get(uid).map(|sandbox| &sandbox.network);
        let (Some(directory), Some(group)) = (self.tree.directory(uid), self.tree.group(uid)) else {
            self.again.remove(uid);
            return self.known.remove(uid).is_some();
        };
        let open = match before {
            Some(Network::Own { netns, .. }) => Some(netns),
            _ => None,
        };
        let found = procs::look(directory, open, &self.node);
        // The first process of a pod is in the node's network for a moment, and the time runs from there.
        let since = |same: bool| match before {
            Some(before @ Network::Node { .. }) => before.since(),
            Some(before) if same => before.since(),
            _ => now,
        };
        let network = match found {
            Found::Nobody => Network::NoProcess,
            Found::InNodeNetwork => Network::Node { since: since(false) },
            Found::Foreign => Network::Foreign {
                since: since(matches!(before, Some(Network::Foreign { .. }))),
            },
            Found::Netns(netns) => Network::Own {
                since: since(open == Some(&netns)),
                netns,
            },
        };
        self.look_again(uid, &network);
        let sandbox = Sandbox { group, network };
        let changed = self.known.get(uid) != Some(&sandbox);
        self.known.insert(uid.clone(), sandbox);
        changed
    }

    fn look_again(&mut self, uid: &PodUid, network: &Network) {
        let now = Instant::now();
        let since = self.again.get(uid).map_or(now, |again| again.since);
        match next_look(network, now - since) {
            Some(pause) => {
                let next = now + pause;
                self.again.insert(uid.clone(), Again { since, next });
            }
            None => drop(self.again.remove(uid)),
        }
    }
}

/// How long to wait, so long after the change.
fn next_look(network: &Network, after: Duration) -> Option<Duration> {
    let pause = match network {
        Network::NoProcess => return None,
        Network::Node { .. } => FIRST_LOOKS.max(after / 4),
        Network::Foreign { .. } | Network::Own { .. } => FIRST_LOOK_AFTER.max(after),
    };
    (after < LAST_LOOK).then_some(pause)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use tempfile::TempDir;

    use super::*;
    use crate::model::NetnsIdentity;

    const POD: &str = "8f3c1f0a-5d2e-4b6f-9c0d-1a2b3c4d5e6f";

    /// Directories that look like control groups; writing to a file is what the kernel's notice looks like.
    struct Groups(TempDir);

    impl Groups {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("burstable")).unwrap();
            Self(dir)
        }

        fn pod(&self, uid: &str) -> std::path::PathBuf {
            let pod = self.0.path().join(format!("burstable/pod{uid}"));
            fs::create_dir_all(&pod).unwrap();
            pod
        }

        fn container(&self, uid: &str, pid: u32) {
            let pod = self.pod(uid);
            fs::create_dir_all(pod.join("c1")).unwrap();
            fs::write(pod.join("c1/cgroup.procs"), format!("0\n{pid}\n")).unwrap();
        }
    }

    async fn soon(sandboxes: &mut Sandboxes) -> Vec<String> {
        let changed = tokio::time::timeout(Duration::from_secs(10), sandboxes.changed()).await;
        changed
            .expect("a change in time")
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[tokio::test]
    async fn a_process_in_the_nodes_network_is_no_sandbox_and_its_end_is_seen() {
        let groups = Groups::new();
        let mut sandboxes = Sandboxes::open(groups.0.path()).unwrap();
        groups.container(POD, std::process::id());
        let uid = PodUid::new(POD);
        assert_eq!(soon(&mut sandboxes).await, [POD]);
        let sandbox = sandboxes.get(&uid).unwrap();
        assert!(
            matches!(sandbox.network, Network::Node { since: Some(_) }),
            "{sandbox:?}"
        );

        fs::remove_dir_all(groups.pod(POD)).unwrap();
        assert_eq!(soon(&mut sandboxes).await, [POD]);
        assert!(sandboxes.get(&uid).is_none());
        assert!(sandboxes.again.is_empty());
    }

    #[tokio::test]
    async fn a_control_group_is_told_before_its_first_process_and_made_anew_it_is_another() {
        let groups = Groups::new();
        let mut sandboxes = Sandboxes::open(groups.0.path()).unwrap();
        let uid = PodUid::new(POD);
        let (mut seen, mut open) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let directory = groups.pod(POD);
            assert_eq!(soon(&mut sandboxes).await, [POD]);
            let sandbox = sandboxes.get(&uid).unwrap().clone();
            assert_eq!(sandbox.network, Network::NoProcess);
            assert_eq!(sandbox.group.0, fs::metadata(&directory).unwrap().ino());
            seen.push(sandbox.group);
            // So that the file system does not give the number to the next one, as control groups' does not.
            open.push(fs::File::open(&directory).unwrap());
            fs::remove_dir(&directory).unwrap();
            assert_eq!(soon(&mut sandboxes).await, [POD]);
            assert!(sandboxes.get(&uid).is_none());
        }
        assert_ne!(seen[0], seen[1]);
    }

    #[test]
    fn looks_are_close_until_there_is_a_network_and_end() {
        let own = Network::Own {
            netns: Arc::new(OpenNetns {
                file: fs::File::open("/dev/null").unwrap(),
                identity: NetnsIdentity { dev: 4, ino: 5 },
                found: "/proc/7/ns/net".into(),
            }),
            since: None,
        };
        let check = |network: &Network, share: u32, least: Duration, most: u32| {
            let (mut after, mut looks) = (Duration::ZERO, 0);
            while let Some(pause) = next_look(network, after) {
                assert!(pause <= least.max(after / share), "{after:?}");
                after += pause;
                looks += 1;
            }
            assert!(after >= LAST_LOOK && after <= LAST_LOOK * 2, "{after:?}");
            assert!(looks <= most, "{looks}");
        };
        check(&Network::Node { since: None }, 4, FIRST_LOOKS, 40);
        check(&own, 1, FIRST_LOOK_AFTER, 11);
        assert_eq!(next_look(&Network::NoProcess, Duration::ZERO), None);
    }

    #[tokio::test]
    async fn what_was_there_before_has_no_beginning() {
        let groups = Groups::new();
        groups.container(POD, std::process::id());
        let sandboxes = Sandboxes::open(groups.0.path()).unwrap();
        let sandbox = sandboxes.get(&PodUid::new(POD)).unwrap();
        assert_eq!(sandbox.network, Network::Node { since: None });
    }

    #[tokio::test]
    async fn a_process_that_enters_later_is_seen_by_the_groups_events() {
        let groups = Groups::new();
        let pod = groups.pod(POD);
        fs::create_dir(pod.join("c1")).unwrap();
        fs::write(pod.join("cgroup.events"), "populated 0\n").unwrap();
        let mut sandboxes = Sandboxes::open(groups.0.path()).unwrap();
        assert_eq!(
            sandboxes.get(&PodUid::new(POD)).unwrap().network,
            Network::NoProcess
        );
        groups.container(POD, std::process::id());
        fs::write(pod.join("cgroup.events"), "populated 1\n").unwrap();
        assert_eq!(soon(&mut sandboxes).await, [POD]);
    }

    #[tokio::test]
    async fn pods_come_and_go_in_a_level_that_is_made_later() {
        let groups = Groups::new();
        let mut sandboxes = Sandboxes::open(groups.0.path()).unwrap();
        let level = groups.0.path().join("kubepods-besteffort.slice");
        fs::create_dir_all(level.join("kubepods-besteffort-pod0123abcd.slice/x")).unwrap();
        fs::write(
            level.join("kubepods-besteffort-pod0123abcd.slice/x/cgroup.procs"),
            std::process::id().to_string(),
        )
        .unwrap();
        assert_eq!(soon(&mut sandboxes).await, ["0123abcd"]);
    }
}
