//! Where routes are read: their regular expressions are compiled on threads for that, so that neither a worker nor the
//! control thread waits for them. Routes are told in the order in which they came.

use std::path::PathBuf;

use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    attached::Reach,
    client::{Cluster, Selection},
    objects::{GrpcRoute, HttpRoute},
    saved_file,
    shares::{RawRoute, Shares, Told},
    state::Saved,
    watch::{Event, Watch},
};
use crate::model::{Budget, PatternShare, Refusals, RouteKind};

/// Events on their way from the watches; a full channel holds them up.
const NEWS: usize = 64;

/// The watches of both kinds of routes, and the task that reads what they tell. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct RouteReading {
    _watches: [Watch; 2],
    task: JoinHandle<()>,
}

impl Drop for RouteReading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RouteReading {
    pub(super) fn start<M: Send + 'static>(
        cluster: &Cluster,
        shares: Shares,
        refusals: Refusals,
        news: mpsc::Sender<M>,
        wrap: impl Fn(Told) -> M + Send + 'static,
    ) -> Self {
        let (send, told) = mpsc::channel(NEWS);
        let http = |event: Event<HttpRoute>| (RouteKind::Http, event.map(RawRoute::from));
        let grpc = |event: Event<GrpcRoute>| (RouteKind::Grpc, event.map(RawRoute::from));
        Self {
            _watches: [
                Watch::start(cluster, Selection::default(), send.clone(), http),
                Watch::start(cluster, Selection::default(), send, grpc),
            ],
            task: tokio::spawn(read(shares, refusals, told, news, wrap)),
        }
    }
}

async fn read<M>(
    mut shares: Shares,
    refusals: Refusals,
    mut events: mpsc::Receiver<(RouteKind, Event<RawRoute>)>,
    news: mpsc::Sender<M>,
    wrap: impl Fn(Told) -> M,
) {
    while let Some((kind, event)) = events.recv().await {
        let reading = tokio::task::spawn_blocking(move || {
            let told = shares.take(kind, event);
            (shares, told)
        });
        let told = match reading.await {
            Ok((next, told)) => {
                shares = next;
                told
            }
            Err(error) => {
                tracing::error!(%error, "routes are not read any more; those that were stay in force");
                return;
            }
        };
        for told in told {
            count(&refusals, &told);
            if news.send(wrap(told)).await.is_err() {
                return;
            }
        }
    }
}

/// What an earlier agent saved, with its routes, and the shares that these have taken.
pub(super) async fn restored(
    state_file: Option<PathBuf>,
    share: PatternShare,
    refusals: &Refusals,
) -> (Shares, Option<(Saved, Vec<Told>)>) {
    let mut shares = Shares::new(share);
    let Some(path) = state_file else {
        return (shares, None);
    };
    let reading = tokio::task::spawn_blocking(move || {
        let mut saved = match saved_file::read::<Saved>(&path) {
            Ok(saved) => saved?,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "state of an earlier agent not read");
                return None;
            }
        };
        let routes = saved.read_routes(&mut shares);
        Some((shares, saved, routes))
    });
    match reading.await.ok().flatten() {
        Some((shares, saved, routes)) => {
            routes.iter().for_each(|told| count(refusals, told));
            (shares, Some((saved, routes)))
        }
        None => (Shares::new(share), None),
    }
}

/// Counts a route that its namespace has no room for.
fn count(refusals: &Refusals, (_, event): &Told) {
    if let Event::Applied(judged) = event
        && judged
            .read
            .as_ref()
            .is_err_and(|fault| fault.reach == Reach::OverShare)
    {
        let namespace = judged.route.metadata.namespace.as_str().into();
        if refusals.count(Budget::RoutePatterns, &namespace) {
            tracing::warn!(%namespace, "regular expressions of routes take the namespace's whole share; its newest routes are refused");
        }
    }
}
