//! Whether a connection's uploads move. The window of a connection is the endpoint's to give, and one that counts
//! what its application has not read leaves no window to the other streams. Requests with a body then go elsewhere.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::time::Instant;

/// An upload that waits for longer is not just waiting for the next window update.
const HELD_UP: Duration = Duration::from_millis(100);

/// The uploads of one connection that wait for a window.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    waiting: Cell<u32>,
    /// The last time one of them moved, or began to wait while no other did.
    moved: Cell<Option<Instant>>,
}

impl Uploads {
    pub(super) fn held_up(&self, now: Instant) -> bool {
        self.waiting.get() > 0
            && self
                .moved
                .get()
                .is_some_and(|moved| now.saturating_duration_since(moved) > HELD_UP)
    }
}

/// One request's body on its way.
#[derive(Debug)]
pub struct Upload {
    of: Rc<Uploads>,
    waiting: bool,
}

impl Upload {
    pub(super) fn new(of: &Rc<Uploads>) -> Self {
        Self {
            of: of.clone(),
            waiting: false,
        }
    }

    /// There is no window for what is in hand.
    pub fn waits(&mut self) {
        if !self.waiting {
            self.waiting = true;
            if self.of.waiting.get() == 0 {
                self.of.moved.set(Some(Instant::now()));
            }
            self.of.waiting.set(self.of.waiting.get() + 1);
        }
    }

    pub fn moves(&mut self) {
        if self.waiting {
            self.ends();
            self.of.moved.set(Some(Instant::now()));
        }
    }

    fn ends(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.of.waiting.set(self.of.waiting.get() - 1);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.ends();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_held_up_while_its_uploads_wait_and_none_moves() {
        let uploads = Rc::new(Uploads::default());
        let (mut one, mut other) = (Upload::new(&uploads), Upload::new(&uploads));
        one.waits();
        assert!(!uploads.held_up(Instant::now()));
        tokio::time::advance(2 * HELD_UP).await;
        assert!(uploads.held_up(Instant::now()));
        other.waits();
        assert!(uploads.held_up(Instant::now()), "it came later");
        other.moves();
        assert!(!uploads.held_up(Instant::now()), "it moves");
        tokio::time::advance(2 * HELD_UP).await;
        assert!(uploads.held_up(Instant::now()));
        drop(one);
        assert!(!uploads.held_up(Instant::now()), "nobody waits");
    }
}
