//! Pages of metrics: rendered off the window's thread, one at a time, and shared by all who asked meanwhile.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::View;

/// After a page has taken so long, rendering rests for four times as long: a fifth of a core is all that readers can
/// take, however many they are.
const REST: u32 = 4;
/// Bytes of pages that somebody still reads. Beyond that the newest is given out again instead of another.
const LIVING_BYTES: usize = 64 << 20;
/// Readers that wait for the next page; more wait to be let in line.
const LINE: usize = 256;

type Reader = oneshot::Sender<Bytes>;

/// Where to ask for a page.
#[derive(Clone, Debug)]
pub(super) struct Pages(mpsc::Sender<Reader>);

impl Pages {
    /// Pages of `view`, for as long as somebody may ask.
    pub(super) fn of(view: Arc<dyn View>) -> Self {
        let (ask, asked) = mpsc::channel(LINE);
        tokio::spawn(render(view, asked));
        Self(ask)
    }

    /// A page that is no older than the question, unless readers of older ones keep too much memory. `None` when the
    /// agent ends.
    pub(super) async fn page(&self) -> Option<Bytes> {
        let (reader, page) = oneshot::channel();
        self.0.send(reader).await.ok()?;
        page.await.ok()
    }
}

async fn render(view: Arc<dyn View>, mut asked: mpsc::Receiver<Reader>) {
    let mut living = Living::default();
    let mut rested = Instant::now();
    while let Some(first) = asked.recv().await {
        tokio::time::sleep_until(rested).await;
        let mut readers = vec![first];
        while let Ok(reader) = asked.try_recv() {
            readers.push(reader);
        }
        readers.retain(|reader| !reader.is_closed());
        if readers.is_empty() {
            continue;
        }
        let page = match living.too_large() {
            Some(newest) => newest,
            None => {
                let begun = Instant::now();
                let view = view.clone();
                // It panics only when the view does, and then it does again.
                let Ok(text) = tokio::task::spawn_blocking(move || view.metrics()).await else {
                    return;
                };
                rested = rest_until(begun, Instant::now());
                living.add(text)
            }
        };
        for reader in readers {
            let _ = reader.send(Bytes::from_owner(Page(page.clone())));
        }
    }
}

fn rest_until(begun: Instant, ended: Instant) -> Instant {
    ended
        + ended
            .duration_since(begun)
            .saturating_mul(REST)
            .min(Duration::from_secs(60))
}

struct Page(Arc<str>);

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Pages that are being read.
#[derive(Debug, Default)]
struct Living(Vec<Weak<str>>);

impl Living {
    fn add(&mut self, text: String) -> Arc<str> {
        let page: Arc<str> = text.into();
        self.0.push(Arc::downgrade(&page));
        page
    }

    /// The newest page, when all together are too large for one more.
    fn too_large(&mut self) -> Option<Arc<str>> {
        self.0.retain(|page| page.strong_count() > 0);
        let pages: Vec<Arc<str>> = self.0.iter().filter_map(Weak::upgrade).collect();
        let bytes: usize = pages.iter().map(|page| page.len()).sum();
        (bytes > LIVING_BYTES).then(|| pages.last().cloned()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendering_takes_a_fifth_of_a_core() {
        let begun = Instant::now();
        let ended = begun + Duration::from_millis(20);
        assert_eq!(rest_until(begun, ended) - begun, Duration::from_millis(100));
    }

    #[test]
    fn pages_that_are_read_are_bounded() {
        let mut living = Living::default();
        let text = || "x".repeat(LIVING_BYTES / 2 + 1);
        let first = living.add(text());
        assert_eq!(living.too_large(), None);
        let second = living.add(text());
        assert!(Arc::ptr_eq(&living.too_large().unwrap(), &second));
        drop(first);
        assert_eq!(living.too_large(), None);
    }
}
