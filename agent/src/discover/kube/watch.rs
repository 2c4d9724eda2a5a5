//! One list and everything that changes in it, for as long as somebody listens.
//!
//! ```text
//!            ┌──────────── 410: what was watched is forgotten ────────────┐
//!            ▼                                                            │
//!   ┌─▶ list, page by page ──▶ watch from the list's version ──▶ event ───┤
//!   │        │ failure           ▲         │ ends, or fails              │
//!   └─ wait ─┘                   └── wait ─┴── from the last version ◀────┘ bookmark
//! ```
//! Nothing is taken back while the server is away: whoever listens keeps what it was told last.

use std::{ops::ControlFlow, pin::pin, time::Duration};

use kube::core::WatchEvent;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_stream::StreamExt as _;

use super::{
    client::{Cluster, Failure, Selection},
    objects::Watched,
};

/// Pauses between tries: from half to the whole of this, doubled with each failure in a row, up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A watch that lasted so long has worked, although nothing came.
const WORKED: Duration = Duration::from_secs(10);

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event<T> {
    /// A whole list follows, as `Applied`; what is not in it until `Listed` is gone. May come again at any time,
    /// also before `Listed`.
    Listing,
    /// It is new or different.
    Applied(T),
    Listed,
    /// It was deleted. This is how it was last.
    Gone(T),
    /// The server does not serve this kind; it is asked again. What was told of it before stands.
    Absent,
}

impl<T> Event<T> {
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Event<U> {
        match self {
            Self::Listing => Event::Listing,
            Self::Applied(object) => Event::Applied(f(object)),
            Self::Listed => Event::Listed,
            Self::Gone(object) => Event::Gone(f(object)),
            Self::Absent => Event::Absent,
        }
    }
}

/// A watch that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    /// Watches what `what` says of the kind `T`. Events go to `news` as `wrap` makes them; a full channel holds the
    /// watch up.
    pub(crate) fn start<T: Watched, M: Send + 'static>(
        cluster: &Cluster,
        what: Selection,
        news: mpsc::Sender<M>,
        wrap: impl Fn(Event<T>) -> M + Send + Sync + 'static,
    ) -> Self {
        let course = Course {
            cluster: cluster.clone(),
            what,
            news,
            wrap,
            backoff: Backoff::default(),
            returns: cluster.board().returns(),
            logged: None,
        };
        Self(tokio::spawn(async move {
            let mut course = course;
            // Ends when nobody listens any more.
            let _ = course.run().await;
        }))
    }
}

struct Course<M, F> {
    cluster: Cluster,
    what: Selection,
    news: mpsc::Sender<M>,
    wrap: F,
    backoff: Backoff,
    /// Changes when any of this node's watches hears the server after a silence.
    returns: watch::Receiver<u64>,
    /// The failure that was logged last, since it last worked.
    logged: Option<&'static str>,
}

/// How a watch ended.
enum Ended {
    /// As all do after a while; to be taken up where it was.
    Quietly,
    Failed(Failure),
}

impl<M, F> Course<M, F> {
    async fn run<T: Watched>(&mut self) -> ControlFlow<()>
    where
        F: Fn(Event<T>) -> M,
    {
        let mut first = true;
        loop {
            if !std::mem::take(&mut first) {
                self.cluster.board().relisted(T::OF.plural);
            }
            let mut version = self.list::<T>().await?;
            loop {
                let since = Instant::now();
                let at = version.clone();
                let ended = self.watch::<T>(&mut version).await?;
                match ended {
                    Ended::Failed(Failure::Gone(_) | Failure::NotFound(_)) => break,
                    Ended::Failed(failure) => {
                        if since.elapsed() >= WORKED {
                            self.worked::<T>();
                        }
                        self.pause::<T>(&failure).await;
                    }
                    Ended::Quietly if version != at || since.elapsed() >= WORKED => self.worked::<T>(),
                    Ended::Quietly => {
                        self.pause::<T>(&Failure::Unavailable("the watch ended at once".into()))
                            .await;
                    }
                }
            }
            // Who is told "gone" at once, again and again, must not list again and again.
            self.wait(Duration::ZERO).await;
        }
    }

    /// Reads the whole list, again until that succeeds; its version.
    async fn list<T: Watched>(&mut self) -> ControlFlow<(), String>
    where
        F: Fn(Event<T>) -> M,
    {
        'again: loop {
            let mut next = None;
            let mut began = false;
            loop {
                let page = match self.cluster.list::<T>(&T::OF, &self.what, next.take()).await {
                    Ok(page) => page,
                    Err(failure) => {
                        if matches!(failure, Failure::NotFound(_)) {
                            self.tell(Event::Absent).await?;
                        }
                        self.pause::<T>(&failure).await;
                        continue 'again;
                    }
                };
                if !std::mem::replace(&mut began, true) {
                    self.tell(Event::Listing).await?;
                }
                for item in page.items {
                    self.tell(Event::Applied(item)).await?;
                }
                next = page.metadata.next.filter(|token| !token.is_empty());
                if next.is_none() {
                    self.tell(Event::Listed).await?;
                    self.logged_again::<T>();
                    return ControlFlow::Continue(page.metadata.resource_version);
                }
            }
        }
    }

    /// Tells what happens after `version`, which moves on with it.
    async fn watch<T: Watched>(&mut self, version: &mut String) -> ControlFlow<(), Ended>
    where
        F: Fn(Event<T>) -> M,
    {
        let events = match self.cluster.watch::<T>(&T::OF, &self.what, version).await {
            Ok(events) => events,
            Err(failure) => return ControlFlow::Continue(Ended::Failed(failure)),
        };
        let board = self.cluster.board();
        let _open = board.watch(T::OF.plural);
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            let (object, wrap): (T, fn(T) -> Event<T>) = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (object, Event::Applied),
                Ok(WatchEvent::Deleted(object)) => (object, Event::Gone),
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    *version = bookmark.metadata.resource_version;
                    self.worked::<T>();
                    continue;
                }
                Ok(WatchEvent::Error(status)) => {
                    let failure = Failure::from(kube::Error::Api(status));
                    board.request(T::OF.plural, "watch", failure.as_str());
                    return ControlFlow::Continue(Ended::Failed(failure));
                }
                // One object that is not understood is no reason to lose the others.
                Err(Failure::Undecodable(error)) => {
                    tracing::error!(
                        resource = T::OF.plural,
                        error,
                        "an object was not understood and is left out"
                    );
                    board.request(T::OF.plural, "watch", "undecodable");
                    continue;
                }
                // Also an answer that was no watch at all.
                Err(failure) => {
                    board.request(T::OF.plural, "watch", failure.as_str());
                    return ControlFlow::Continue(Ended::Failed(failure));
                }
            };
            object.version().clone_into(version);
            self.worked::<T>();
            self.tell(wrap(object)).await?;
        }
        ControlFlow::Continue(Ended::Quietly)
    }

    async fn tell<T>(&self, event: Event<T>) -> ControlFlow<()>
    where
        F: Fn(Event<T>) -> M,
    {
        match self.news.send((self.wrap)(event)).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Something came: the next failure is the first.
    fn worked<T: Watched>(&mut self) {
        self.backoff = Backoff::default();
        self.cluster.board().heard();
        self.returns.mark_unchanged();
        self.logged_again::<T>();
    }

    fn logged_again<T: Watched>(&mut self) {
        if self.logged.take().is_some() {
            tracing::info!(resource = T::OF.plural, "the API server answers again");
        }
    }

    /// Says what failed, each kind of failure once, and waits.
    async fn pause<T: Watched>(&mut self, failure: &Failure) {
        let kind = failure.as_str();
        if self.logged.replace(kind) != Some(kind) {
            let resource = T::OF.plural;
            match failure {
                // A kind that nobody has installed is nobody's error.
                Failure::NotFound(_) => {
                    tracing::info!(resource, "the API server does not serve this kind yet")
                }
                _ => tracing::warn!(resource, error = %failure, "not watched; what is known stays in force"),
            }
        }
        let asked = match failure {
            Failure::Throttled { wait, .. } => wait.unwrap_or_default().min(LONGEST_PAUSE),
            _ => Duration::ZERO,
        };
        self.wait(asked).await;
    }

    /// Waits for the next try, not much longer than until the server is back from a silence. What it fails with then,
    /// since it is not whole at once, is a first failure and not one more of the silence.
    async fn wait(&mut self, at_least: Duration) {
        let mut rng = fastrand::Rng::new();
        let pause = self.backoff.next(&mut rng).max(at_least);
        tokio::select! {
            biased;
            _ = self.returns.changed() => self.backoff = Backoff::default(),
            () = tokio::time::sleep(pause) => return,
        }
        tokio::time::sleep(self.backoff.next(&mut rng).max(at_least)).await;
    }
}

/// How long to wait before the next try. Pure.
#[derive(Debug, Default)]
struct Backoff {
    /// In a row.
    failures: u32,
}

impl Backoff {
    fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        doubled.min(LONGEST_PAUSE).mul_f64(0.5 + 0.5 * rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_are_spread() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        let mut most = FIRST_PAUSE;
        for _ in 0..100 {
            let pause = backoff.next(&mut rng);
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            most = (most * 2).min(LONGEST_PAUSE);
        }
    }
}
