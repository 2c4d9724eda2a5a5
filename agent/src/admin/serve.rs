//! One accept loop for both windows.

use std::{future::Future, io, time::Duration};

use tokio::task::JoinSet;

use crate::drain;

/// How many connections one window serves at a time. Each is a scrape, a probe or an operator.
const MAX_CONNECTIONS: usize = 64;

/// How long accepting rests after an error: most of them (no descriptors left) do not go away at once.
const BACKOFF: Duration = Duration::from_millis(100);

/// Serves until the drain begins; then what is being served is cut off, since a window's answers are short and
/// its callers ask again.
pub(super) async fn serve<S, A, C>(
    mut accept: impl FnMut() -> A,
    connection: impl Fn(S) -> C,
    window: &'static str,
    drain: drain::Watch,
) where
    A: Future<Output = io::Result<S>>,
    C: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            Some(_) = open.join_next() => {}
            accepted = accept(), if open.len() < MAX_CONNECTIONS => match accepted {
                Ok(stream) => {
                    open.spawn(connection(stream));
                }
                Err(error) => {
                    tracing::warn!(window, %error, "cannot accept");
                    tokio::time::sleep(BACKOFF).await;
                }
            },
        }
    }
}
