//! The task that keeps what is known of this node's pods, and tells the publisher what changes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{board::PodBoard, facts::LABEL, join::Join, objects, saved::Saved};
use crate::{
    discover::{
        kube::{
            client::{Cluster, Error, Selection},
            demand::Use,
            saved_file,
            watch::{Event, Watch},
        },
        node::Sandboxes,
    },
    drain,
    model::{PodName, Update},
    ready,
};

/// Events on their way from the watches; a full channel holds the watches up.
const NEWS: usize = 256;
/// Events that are taken together, at most.
const AT_ONCE: usize = 1024;
/// After control groups could not be read.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what is known is saved, when it has changed.
const SAVE: Duration = Duration::from_secs(2);

/// The API server and this machine's control groups as a source of pods.
#[derive(Debug)]
pub struct PodSource {
    cluster: Cluster,
    node_name: String,
    sandboxes: Sandboxes,
    join: Join,
    board: PodBoard,
    declared: watch::Sender<Arc<BTreeSet<Use>>>,
    /// Pods that a file gives, and this source leaves to it.
    taken: watch::Receiver<Arc<BTreeSet<PodName>>>,
    /// Where what is known is saved; nowhere without it.
    saved_at: Option<PathBuf>,
    unsaved: bool,
    saving: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum News {
    Pod(Event<objects::Pod>),
    Namespace(Event<objects::Namespace>),
}

impl PodSource {
    /// `cgroup` is the lowest control group that holds all pods. Reads what is there, and what an earlier agent saved
    /// beside `state_file`. Must be called inside a runtime.
    pub fn open(
        cluster: Cluster,
        node_name: String,
        cgroup: &Path,
        state_file: Option<&Path>,
    ) -> Result<Self, Error> {
        let sandboxes = Sandboxes::open(cgroup).map_err(|source| Error::ControlGroups {
            path: cgroup.to_owned(),
            source,
        })?;
        let saved_at = state_file.map(Saved::path);
        Ok(Self {
            cluster,
            node_name,
            sandboxes,
            join: saved_at.as_deref().map(restored).unwrap_or_default(),
            board: PodBoard::default(),
            declared: watch::Sender::default(),
            taken: watch::Sender::default().subscribe(),
            saved_at,
            unsaved: false,
            saving: None,
        })
    }

    /// Leaves the pods to a file that it gives, from the first on.
    pub fn leave(&mut self, mut by_file: watch::Receiver<Arc<BTreeSet<PodName>>>) {
        by_file.mark_changed();
        self.taken = by_file;
    }

    pub fn board(&self) -> PodBoard {
        self.board.clone()
    }

    /// The services that pods of this node declare to use.
    pub fn declared(&self) -> watch::Receiver<Arc<BTreeSet<Use>>> {
        self.declared.subscribe()
    }

    /// Tells all changes until the drain begins or nobody receives. `first` is dropped when the pods that there are at
    /// the start have been told.
    pub async fn run(mut self, updates: mpsc::Sender<Vec<Update>>, first: ready::Guard, drain: drain::Watch) {
        let (send, mut news) = mpsc::channel(NEWS);
        let own = Selection {
            fields: Some(format!("spec.nodeName={}", self.node_name)),
            ..Selection::default()
        };
        let labelled = Selection {
            labels: Some(LABEL.to_owned()),
            ..Selection::default()
        };
        let _watches = [
            Watch::start(&self.cluster, own, send.clone(), News::Pod),
            Watch::start(&self.cluster, labelled, send, News::Namespace),
        ];
        let mut first = Some(first);
        let mut saves = tokio::time::interval(SAVE);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.signaled() => break,
                Some(event) = news.recv() => {
                    self.take(event);
                    for _ in 1..AT_ONCE {
                        let Ok(event) = news.try_recv() else { break };
                        self.take(event);
                    }
                    self.unsaved = true;
                }
                Ok(()) = self.taken.changed() => {
                    let taken = self.taken.borrow_and_update().clone();
                    self.join.taken(taken);
                }
                // The first comes at once: what was restored is told then.
                _ = saves.tick() => self.save(),
                changed = self.sandboxes.changed() => match changed {
                    Ok(pods) => pods.iter().for_each(|uid| self.join.processes(uid)),
                    Err(error) => {
                        tracing::error!(%error, "the control groups of pods cannot be watched; trying again");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
            let sandboxes = &self.sandboxes;
            let changes = self.join.changes(|uid| sandboxes.get(uid), Instant::now());
            self.board.show(self.join.shown(|uid| sandboxes.get(uid)));
            self.declare();
            if !changes.is_empty() && updates.send(changes).await.is_err() {
                break;
            }
            if self.join.is_whole() {
                first = None;
            }
        }
        drop(first);
    }

    fn take(&mut self, event: News) {
        match event {
            News::Pod(event) => self.join.pod(event),
            News::Namespace(event) => self.join.namespace(event),
        }
    }

    /// Writes what has changed since the last time, on a thread of its own.
    fn save(&mut self) {
        let Some(path) = self.saved_at.clone() else { return };
        let busy = self.saving.as_ref().is_some_and(|saving| !saving.is_finished());
        if !self.unsaved || busy || !self.join.is_whole() {
            return;
        }
        self.unsaved = false;
        let saved = self.join.to_save();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = saved_file::write(&path, &saved) {
                tracing::warn!(path = %path.display(), %error, "the pods of this node not saved");
            }
        }));
    }

    fn declare(&self) {
        let declared = self.join.declared();
        self.declared.send_if_modified(|known| {
            let changed = **known != declared;
            if changed {
                *known = Arc::new(declared);
            }
            changed
        });
    }
}

fn restored(path: &Path) -> Join {
    let mut join = Join::default();
    match saved_file::read::<Saved>(path) {
        Ok(Some(saved)) => {
            tracing::info!(path = %path.display(), pods = saved.pods.len(), "pods that an earlier agent knew");
            join.restore(saved);
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "pods of an earlier agent not read"),
    }
    join
}
