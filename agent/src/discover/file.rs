//! The configuration file, watched.
//!
//! It is polled rather than watched by inotify: that sees every way in which a file comes to be another one (an
//! editor's rename, a ConfigMap's swap of symbolic links, a bind mount) with one `stat` each half second.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::MissedTickBehavior,
};

use super::{Names, merge::Merge};
use crate::{
    config::{self, Checked},
    drain,
    model::{PodName, ServiceName},
};

/// How often the file is looked at. A change that is seen is read one such time later, when it still is the same
/// change: a file that is being written in place is left to be finished.
const POLL: Duration = Duration::from_millis(500);

/// Below this age a modification time does not prove that the content is what was read: the next write may carry
/// the same one (2 s is the coarsest clock of a file system in use).
const RACY: Duration = Duration::from_secs(2);

/// What an operator wants to know about a source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceState {
    /// When the configuration in force was read.
    pub loaded_at: SystemTime,
    /// Why what is there now is not in force. `None` when it is.
    pub last_error: Option<LastError>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LastError {
    pub at: SystemTime,
    /// One line for each fault.
    pub message: String,
}

/// A configuration file that was good when it was opened.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    /// The node's zone, when it is not for the file to say.
    zone: Option<Arc<str>>,
    current: Checked,
    /// What was found at the last look, good or not: each content is judged once.
    found: Found,
    stamp: Option<Stamp>,
    state: watch::Sender<SourceState>,
    services: watch::Sender<Arc<BTreeSet<ServiceName>>>,
    pods: watch::Sender<Arc<BTreeSet<PodName>>>,
}

#[derive(Debug, PartialEq)]
enum Found {
    Content(Vec<u8>),
    /// The error's text.
    Unreadable(String),
}

impl FileSource {
    /// Reads and checks the file. An error here is one of the start: there is no last good answer yet. `zone` goes
    /// before the file's.
    pub fn open(path: &Path, zone: Option<Arc<str>>) -> Result<Self, config::Error> {
        let stamp = Stamp::of(path, SystemTime::now());
        let content = config::read(path)?;
        let current = in_zone(zone.as_ref(), config::from_yaml(&content)?);
        let state = SourceState {
            loaded_at: SystemTime::now(),
            last_error: None,
        };
        Ok(Self {
            path: path.to_owned(),
            zone,
            found: Found::Content(content),
            stamp,
            state: watch::Sender::new(state),
            services: watch::Sender::new(Arc::new(service_names(&current))),
            pods: watch::Sender::new(Arc::new(pod_names(&current))),
            current,
        })
    }

    /// What is in force.
    pub fn current(&self) -> &Checked {
        &self.current
    }

    pub fn state(&self) -> watch::Receiver<SourceState> {
        self.state.subscribe()
    }

    /// The services that the file gives: from before they are told until after they have been withdrawn, so that
    /// another source can leave them to this one.
    pub fn services(&self) -> watch::Receiver<Arc<BTreeSet<ServiceName>>> {
        self.services.subscribe()
    }

    /// The pods that the file gives, for as long.
    pub fn pods(&self) -> watch::Receiver<Arc<BTreeSet<PodName>>> {
        self.pods.subscribe()
    }

    /// Sends all that is in force, then every change, until the drain begins or nobody receives. `nudge` makes it
    /// read at once, without waiting for a writer. Names that the configuration declares are resolved by `names`.
    pub async fn run(
        mut self,
        mut names: Names,
        updates: mpsc::Sender<Vec<crate::model::Update>>,
        nudge: Arc<Notify>,
        drain: drain::Watch,
    ) {
        let mut merge = Merge::default();
        let mut changes = merge.declare(self.current.clone());
        names.follow(merge.questions());
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pending = None;
        loop {
            if !changes.is_empty() && updates.send(std::mem::take(&mut changes)).await.is_err() {
                return;
            }
            let due = tokio::select! {
                () = drain.signaled() => return,
                news = names.next() => {
                    changes = merge.answer(&news.question, news.addresses);
                    continue;
                }
                () = nudge.notified() => true,
                _ = ticks.tick() => self.due(&mut pending),
            };
            if !due {
                continue;
            }
            let Some(next) = self.reload().await else { continue };
            let (services, pods) = (service_names(&next), pod_names(&next));
            take_more(&self.services, &services);
            take_more(&self.pods, &pods);
            changes = merge.declare(next.clone());
            names.follow(merge.questions());
            self.current = next;
            if !changes.is_empty() && updates.send(std::mem::take(&mut changes)).await.is_err() {
                return;
            }
            self.services.send_replace(Arc::new(services));
            self.pods.send_replace(Arc::new(pods));
        }
    }

    /// Whether the file has changed since it was read, and has come to rest since the last look.
    fn due(&self, pending: &mut Option<Option<Stamp>>) -> bool {
        let now = Stamp::of(&self.path, SystemTime::now());
        if now.is_some_and(|now| self.stamp.is_some_and(|read| read.proves(&now))) {
            *pending = None;
            return false;
        }
        let rested = *pending == Some(now);
        *pending = Some(now);
        rested
    }

    /// Reads the file; gives what is to be in force when that is something else than before.
    async fn reload(&mut self) -> Option<Checked> {
        let path = self.path.clone();
        // A file system that hangs must not take discovery with it.
        let read = tokio::task::spawn_blocking(move || {
            let stamp = Stamp::of(&path, SystemTime::now());
            (stamp, config::read(&path))
        });
        let (stamp, content) = read.await.ok()?;
        self.stamp = stamp;
        let found = match content {
            Ok(content) => Found::Content(content),
            Err(error) => Found::Unreadable(error.to_string()),
        };
        if found == self.found {
            return None;
        }
        self.found = found;
        let judged = match &self.found {
            Found::Content(content) => config::from_yaml(content)
                .map(|next| in_zone(self.zone.as_ref(), next))
                .map_err(|error| error.to_string()),
            Found::Unreadable(error) => Err(error.clone()),
        };
        let path = self.path.display();
        match judged {
            Ok(next) => {
                tracing::info!(%path, pods = next.pods.len(), services = next.services.len(), "configuration read");
                self.state.send_replace(SourceState {
                    loaded_at: SystemTime::now(),
                    last_error: None,
                });
                Some(next)
            }
            Err(message) => {
                tracing::error!(%path, error = message, "configuration refused; the last good one stays in force");
                let error = LastError {
                    at: SystemTime::now(),
                    message,
                };
                self.state.send_modify(|state| state.last_error = Some(error));
                None
            }
        }
    }
}

/// `given` goes before what the file says: one file may serve many nodes.
fn in_zone(given: Option<&Arc<str>>, mut checked: Checked) -> Checked {
    if let Some(zone) = given {
        checked.zone = Some(zone.clone());
    }
    checked
}

/// Adds to what the file is said to give. Nobody else is to tell of these from now on, nor yet of those that it gave.
fn take_more<T: Ord + Clone>(given: &watch::Sender<Arc<BTreeSet<T>>>, more: &BTreeSet<T>) {
    let both = given.borrow().union(more).cloned().collect();
    given.send_replace(Arc::new(both));
}

fn service_names(of: &Checked) -> BTreeSet<ServiceName> {
    of.services.iter().map(|service| service.name.clone()).collect()
}

fn pod_names(of: &Checked) -> BTreeSet<PodName> {
    of.pods.iter().map(|pod| pod.name.clone()).collect()
}

/// What tells one state of a file from another without reading it. Symbolic links are followed.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    /// Whether the last modification was at least [`RACY`] ago when this was taken.
    settled: bool,
}

impl Stamp {
    /// `None` when there is no such file; reading it will say why.
    fn of(path: &Path, now: SystemTime) -> Option<Self> {
        let metadata: io::Result<fs::Metadata> = fs::metadata(path);
        let metadata = metadata.ok()?;
        let modified = metadata.modified().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            settled: now.duration_since(modified).is_ok_and(|age| age >= RACY),
        })
    }

    /// Whether a file that had this stamp when it was read, and has `now`, still has the content that was read.
    fn proves(&self, now: &Self) -> bool {
        self.settled && self == now
    }
}

impl PartialEq for Stamp {
    /// The age is not part of what a file is.
    fn eq(&self, other: &Self) -> bool {
        (self.device, self.inode, self.size, self.modified)
            == (other.device, other.inode, other.size, other.modified)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::{discover::Servers, model::Update};

    /// A source that runs, and what it is told.
    struct Running {
        dir: TempDir,
        updates: mpsc::Receiver<Vec<Update>>,
        state: watch::Receiver<SourceState>,
        nudge: Arc<Notify>,
        _trigger: drain::Trigger,
    }

    fn with_pod(name: &str) -> String {
        format!("pods: [{{name: {name}, netns: /run/netns/{name}}}]")
    }

    impl Running {
        async fn start(content: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("derny.yaml");
            fs::write(&path, content).unwrap();
            Self::watch(dir, &path).await
        }

        async fn watch(dir: TempDir, path: &Path) -> Self {
            let source = FileSource::open(path, None).unwrap();
            let (send, updates) = mpsc::channel(4);
            let (trigger, watch) = drain::channel();
            let (state, nudge) = (source.state(), Arc::new(Notify::new()));
            tokio::spawn(source.run(Names::new(Servers::System), send, nudge.clone(), watch));
            let mut running = Self {
                dir,
                updates,
                state,
                nudge,
                _trigger: trigger,
            };
            running.expect(&["+demo"]).await;
            running
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("derny.yaml")
        }

        /// Waits for one batch of pod changes, written `+name` and `-name`.
        async fn expect(&mut self, expect: &[&str]) {
            let batch = tokio::time::timeout(Duration::from_secs(10), self.updates.recv()).await;
            let batch = batch.expect("an update in time").expect("a source that runs");
            let words: Vec<String> = batch
                .iter()
                .map(|update| match update {
                    Update::Pod(pod) => format!("+{}", pod.name.name),
                    Update::PodGone(name) => format!("-{}", name.name),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(words, expect);
        }

        async fn error(&mut self) -> String {
            let failed = self.state.wait_for(|state| state.last_error.is_some());
            let state = tokio::time::timeout(Duration::from_secs(10), failed).await;
            state
                .expect("an error in time")
                .unwrap()
                .last_error
                .clone()
                .unwrap()
                .message
        }
    }

    #[tokio::test]
    async fn sees_a_write_a_rename_and_a_swapped_link() {
        let mut source = Running::start(&with_pod("demo")).await;
        fs::write(source.path(), with_pod("deno")).unwrap();
        source.expect(&["-demo", "+deno"]).await;

        let next = source.dir.path().join("next");
        fs::write(&next, with_pod("renamed")).unwrap();
        fs::rename(&next, source.path()).unwrap();
        source.expect(&["-deno", "+renamed"]).await;

        // As the kubelet changes a mounted ConfigMap: `derny.yaml` → `..data/derny.yaml`, `..data` → `..N`.
        let dir = tempfile::tempdir().unwrap();
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, dir.path().join("new")).unwrap();
            fs::rename(dir.path().join("new"), dir.path().join(name)).unwrap();
        };
        for (version, pod) in [("..1", "demo"), ("..2", "swapped")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("derny.yaml"), with_pod(pod)).unwrap();
        }
        link("..1", "..data");
        link("..data/derny.yaml", "derny.yaml");
        let (root, path) = (dir.path().to_owned(), dir.path().join("derny.yaml"));
        let mut source = Running::watch(dir, &path).await;
        std::os::unix::fs::symlink("..2", root.join("new")).unwrap();
        fs::rename(root.join("new"), root.join("..data")).unwrap();
        source.expect(&["-demo", "+swapped"]).await;
    }

    #[tokio::test]
    async fn a_bad_file_never_replaces_a_good_one() {
        let mut source = Running::start(&with_pod("demo")).await;
        let loaded = source.state.borrow().loaded_at;
        fs::write(source.path(), "pods: [{name: X, netns: /x}]").unwrap();
        assert!(
            source
                .error()
                .await
                .starts_with("pods[0].name: `X` is not a DNS label")
        );
        assert_eq!(source.state.borrow().loaded_at, loaded);

        fs::remove_file(source.path()).unwrap();
        let gone = source.state.wait_for(|s| {
            s.last_error
                .as_ref()
                .is_some_and(|e| e.message.contains("cannot read"))
        });
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("the loss is seen in time")
            .unwrap();

        // The good content again is no change, and the error is gone.
        fs::write(source.path(), with_pod("demo")).unwrap();
        let cured = source.state.wait_for(|state| state.last_error.is_none());
        tokio::time::timeout(Duration::from_secs(10), cured)
            .await
            .expect("the cure is seen in time")
            .unwrap();
        assert!(source.updates.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_nudge_reads_at_once() {
        let mut source = Running::start(&with_pod("demo")).await;
        let start = tokio::time::Instant::now();
        fs::write(source.path(), with_pod("other")).unwrap();
        source.nudge.notify_one();
        source.expect(&["-demo", "+other"]).await;
        assert!(start.elapsed() < POLL, "{:?}", start.elapsed());
    }

    #[test]
    fn a_missing_or_bad_file_is_an_error_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("derny.yaml");
        assert!(matches!(
            FileSource::open(&path, None),
            Err(config::Error::Read { .. })
        ));
        fs::write(&path, "pods: 1").unwrap();
        assert!(matches!(
            FileSource::open(&path, None),
            Err(config::Error::Shape { .. })
        ));
    }

    #[test]
    fn a_given_zone_goes_before_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("derny.yaml");
        fs::write(&path, "node: {zone: a}").unwrap();
        let zone = |given: Option<&str>| {
            let source = FileSource::open(&path, given.map(Into::into)).unwrap();
            source.current().zone.clone()
        };
        assert_eq!(zone(None).as_deref(), Some("a"));
        assert_eq!(zone(Some("b")).as_deref(), Some("b"));
    }

    #[test]
    fn a_young_stamp_proves_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let modified = fs::metadata(file.path()).unwrap().modified().unwrap();
        let young = Stamp::of(file.path(), modified + RACY / 2).unwrap();
        let old = Stamp::of(file.path(), modified + RACY).unwrap();
        assert!(old.proves(&young) && !young.proves(&old));
        fs::write(file.path(), "longer").unwrap();
        assert!(!old.proves(&Stamp::of(file.path(), modified + RACY).unwrap()));
    }
}
