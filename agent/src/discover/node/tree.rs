//! The pods' control groups, watched by inotify: which pods there are, and when one's processes should be looked at.
//!
//! Of a pod two things are watched: its directory, in which each container makes its own, and `cgroup.events`, which the
//! kernel touches when the first process enters the pod or one below it, and when the last has left.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::layout::{Directory, PodUid};
use crate::model::GroupId;

#[derive(Debug)]
pub(super) struct Tree {
    inotify: AsyncFd<Descriptor>,
    root: PathBuf,
    /// The root that is watched; `None` when it is not there.
    root_group: Option<GroupId>,
    watched: HashMap<WatchDescriptor, Watched>,
    pods: HashMap<PodUid, Pod>,
}

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[derive(Clone, Debug)]
enum Watched {
    /// A directory of pods.
    Level(PathBuf),
    /// The directory or the `cgroup.events` of a pod.
    Pod(PodUid),
}

#[derive(Debug)]
struct Pod {
    directory: PathBuf,
    group: GroupId,
    watches: Vec<WatchDescriptor>,
}

impl Tree {
    /// Watches what is below `root`, the lowest control group that holds all pods.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // SAFETY: the descriptor is the one that `inotify` owns, and is neither replaced nor closed while that lives.
        let inotify = unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }?;
        let mut tree = Self {
            inotify,
            root: root.to_owned(),
            root_group: group_of(root),
            watched: HashMap::new(),
            pods: HashMap::new(),
        };
        tree.enter(root.to_owned(), &mut BTreeSet::new())?;
        Ok(tree)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &PodUid> {
        self.pods.keys()
    }

    /// `None` when the pod has no control group (any more).
    pub(super) fn directory(&self, pod: &PodUid) -> Option<&Path> {
        self.pods.get(pod).map(|pod| pod.directory.as_path())
    }

    /// As [`Self::directory`].
    pub(super) fn group(&self, pod: &PodUid) -> Option<GroupId> {
        self.pods.get(pod).map(|pod| pod.group)
    }

    /// The pods of which something has changed, one at least. Nothing is lost when this is dropped while it waits.
    pub(super) async fn changed(&mut self) -> io::Result<BTreeSet<PodUid>> {
        let mut changed = BTreeSet::new();
        while changed.is_empty() {
            let mut guard = self.inotify.readable().await?;
            let events = match guard.get_inner().0.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    guard.clear_ready();
                    continue;
                }
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for event in events {
                self.take(event, &mut changed);
            }
        }
        Ok(changed)
    }

    /// Watches the root that has taken the place of the one that was watched. The pods of which something has changed then;
    /// none while it is the same or not there.
    pub(super) fn follow_root(&mut self) -> BTreeSet<PodUid> {
        let mut changed = BTreeSet::new();
        let now = group_of(&self.root);
        if now != self.root_group {
            self.root_group = now;
            if now.is_some() {
                tracing::warn!(path = %self.root.display(), "the control group of all pods has been made anew");
                self.read_again(&mut changed);
            }
        }
        changed
    }

    fn take(&mut self, event: InotifyEvent, changed: &mut BTreeSet<PodUid>) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            tracing::warn!(
                "more has happened to control groups than was read in time; reading all of them again"
            );
            self.read_again(changed);
            return;
        }
        let watched = match event.mask.contains(AddWatchFlags::IN_IGNORED) {
            true => self.watched.remove(&event.wd),
            false => self.watched.get(&event.wd).cloned(),
        };
        match watched {
            Some(Watched::Pod(uid)) => {
                changed.insert(uid);
            }
            Some(Watched::Level(level)) => {
                let Some(name) = event.name.as_deref().and_then(|name| name.to_str()) else {
                    return;
                };
                let path = level.join(name);
                if event.mask.contains(AddWatchFlags::IN_CREATE) {
                    self.meet(path, name, changed);
                } else if let Directory::Pod(uid) = Directory::of(name)
                    && self.directory(&uid) == Some(&path)
                {
                    self.forget(&uid);
                    changed.insert(uid);
                }
            }
            // Of a pod that was forgotten meanwhile.
            None => {}
        }
    }

    /// Watches a directory of pods, and takes those that are in it.
    fn enter(&mut self, level: PathBuf, changed: &mut BTreeSet<PodUid>) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        let watch = self.inotify.get_ref().0.add_watch(&level, flags)?;
        self.watched.insert(watch, Watched::Level(level.clone()));
        // From here on nothing is missed; what comes meanwhile may be met twice.
        for entry in fs::read_dir(&level)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str()
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
            {
                self.meet(entry.path(), name, changed);
            }
        }
        Ok(())
    }

    /// Takes a directory that is new, or was met before.
    fn meet(&mut self, path: PathBuf, name: &str, changed: &mut BTreeSet<PodUid>) {
        match Directory::of(name) {
            Directory::Level => {
                if let Err(error) = self.enter(path.clone(), changed)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::error!(path = %path.display(), %error, "pods of this control group are not seen");
                }
            }
            Directory::Pod(uid) => {
                if self.directory(&uid) != Some(&path) {
                    self.forget(&uid);
                    self.watch_pod(uid.clone(), path);
                }
                changed.insert(uid);
            }
            Directory::Monitor | Directory::Other => {}
        }
    }

    fn watch_pod(&mut self, uid: PodUid, directory: PathBuf) {
        // Gone already, its parent tells of that.
        let Ok(metadata) = fs::metadata(&directory) else {
            return;
        };
        let group = GroupId(metadata.ino());
        let wanted = [
            (
                directory.clone(),
                AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONLYDIR,
            ),
            (directory.join("cgroup.events"), AddWatchFlags::IN_MODIFY),
        ];
        let mut watches = Vec::with_capacity(wanted.len());
        for (path, flags) in wanted {
            match self.inotify.get_ref().0.add_watch(&path, flags) {
                Ok(watch) => {
                    self.watched.insert(watch, Watched::Pod(uid.clone()));
                    watches.push(watch);
                }
                // Gone meanwhile.
                Err(Errno::ENOENT) => {}
                Err(error) => tracing::error!(path = %path.display(), %error, "not watched"),
            }
        }
        let pod = Pod {
            directory,
            group,
            watches,
        };
        self.pods.insert(uid, pod);
    }

    fn forget(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.remove(uid) else { return };
        for watch in pod.watches {
            self.watched.remove(&watch);
            // The kernel has dropped that of a directory that is no more.
            let _ = self.inotify.get_ref().0.rm_watch(watch);
        }
    }

    fn read_again(&mut self, changed: &mut BTreeSet<PodUid>) {
        let gone = self.pods.iter().filter(|(_, pod)| !pod.directory.is_dir());
        let gone: Vec<PodUid> = gone.map(|(uid, _)| uid.clone()).collect();
        gone.iter().for_each(|uid| self.forget(uid));
        changed.extend(gone);
        if let Err(error) = self.enter(self.root.clone(), changed) {
            tracing::error!(path = %self.root.display(), %error, "pods are not seen");
        }
    }
}

fn group_of(path: &Path) -> Option<GroupId> {
    fs::metadata(path).ok().map(|metadata| GroupId(metadata.ino()))
}
