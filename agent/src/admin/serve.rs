//! One accept loop for all windows.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};

use super::places::{Bounds, Peer, Places};
use crate::drain;

/// How long accepting rests after an error: most of them (no descriptors left) do not go away at once.
const BACKOFF: Duration = Duration::from_millis(100);
/// So many connections are taken in each [`PACE`]; the others wait in the backlog. It bounds what callers can cost.
const IN_PACE: u32 = 64;
const PACE: Duration = Duration::from_millis(100);

/// Connections of a window that were ended because their place was needed.
#[derive(Clone, Debug, Default)]
pub struct Displaced(Arc<AtomicU64>);

impl Displaced {
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Serves until the drain begins; then what is being served is cut off, since a window's answers are short and
/// its callers ask again.
pub(super) async fn serve<S, A, C>(
    mut accept: impl FnMut() -> A,
    connection: impl Fn(S) -> C,
    window: &'static str,
    bounds: Bounds,
    displaced: Displaced,
    drain: drain::Watch,
) where
    A: Future<Output = io::Result<(S, Peer)>>,
    C: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    let mut places: Places<AbortHandle> = Places::new(bounds);
    let mut held = std::collections::HashMap::<Id, (Peer, u64)>::new();
    let mut pace = Pace::new(Instant::now());
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            Some(ended) = open.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                if let Some((peer, number)) = held.remove(&id) {
                    places.leave(peer, number);
                }
            }
            accepted = accept() => match accepted {
                Ok((stream, peer)) => {
                    let task = open.spawn(connection(stream));
                    let id = task.id();
                    let (number, loser) = places.enter(peer, task);
                    held.insert(id, (peer, number));
                    if let Some(loser) = loser {
                        loser.abort();
                        displaced.0.fetch_add(1, Relaxed);
                    }
                    if let Some(rest) = pace.rest(Instant::now()) {
                        tokio::time::sleep(rest).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(window, %error, "cannot accept");
                    tokio::time::sleep(BACKOFF).await;
                }
            },
        }
    }
}

/// How many connections have been taken lately.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    taken: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { begun: now, taken: 0 }
    }

    /// One more was taken: how long to rest, if at all.
    fn rest(&mut self, now: Instant) -> Option<Duration> {
        let since = now.duration_since(self.begun);
        if since >= PACE {
            *self = Self::new(now);
        }
        self.taken += 1;
        (self.taken >= IN_PACE).then(|| PACE.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_pace_waits() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let rests = (0..IN_PACE).filter_map(|_| pace.rest(begun)).count();
        assert_eq!(rests, 1);
        assert_eq!(pace.rest(begun + PACE / 2), Some(PACE / 2));
        assert_eq!(pace.rest(begun + PACE), None);
    }
}
