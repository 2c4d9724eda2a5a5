//! Whose uploads share a connection. The window of a connection is the endpoint's to give, and one that counts what its
//! application has not read leaves no window to the other streams. So a large upload never shares a connection with an
//! upload of another caller, and where uploads do not move, requests with a body go elsewhere.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::Caller;

/// An upload that waits for longer is not just waiting for the next window update.
const HELD_UP: Duration = Duration::from_millis(100);
/// An upload of more bytes may leave the others without a window: the least that a connection has is twice as much
/// (RFC 9113 section 6.9.2).
pub const SMALL_UPLOAD: u64 = 32 * 1024;

/// What is known of a request's body before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploading {
    No,
    /// [`SMALL_UPLOAD`] bytes or fewer, or messages that are to be small until more bytes than that were sent.
    Small,
    Large,
}

/// The uploads of one connection.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    open: RefCell<SmallVec<[Open; 4]>>,
    /// How many wait for a window.
    waiting: Cell<u32>,
    /// The last time one of them moved, or began to wait while no other did.
    moved: Cell<Option<Instant>>,
}

/// Of one caller.
#[derive(Debug)]
struct Open {
    caller: Caller,
    all: u32,
    large: u32,
}

impl Uploads {
    /// Whether one more upload may share the connection with those that are there.
    pub(super) fn admits(&self, caller: Caller, upload: Uploading, now: Instant) -> bool {
        let open = self.open.borrow();
        let mut others = open.iter().filter(|open| open.caller != caller);
        let apart = match upload {
            Uploading::No => return true,
            Uploading::Small => others.all(|other| other.large == 0),
            Uploading::Large => others.next().is_none(),
        };
        apart && !self.held_up(now)
    }

    fn held_up(&self, now: Instant) -> bool {
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
    caller: Caller,
    is_large: bool,
    sent: u64,
    waiting: bool,
}

impl Upload {
    pub(super) fn new(of: &Rc<Uploads>, caller: Caller, upload: Uploading) -> Self {
        let is_large = upload == Uploading::Large;
        let mut open = of.open.borrow_mut();
        match open.iter_mut().find(|open| open.caller == caller) {
            Some(open) => {
                open.all += 1;
                open.large += u32::from(is_large);
            }
            None => open.push(Open {
                caller,
                all: 1,
                large: is_large.into(),
            }),
        }
        Self {
            of: of.clone(),
            caller,
            is_large,
            sent: 0,
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

    /// So many bytes have been sent.
    pub fn moves(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if self.sent > SMALL_UPLOAD && !self.is_large {
            self.is_large = true;
            let mut open = self.of.open.borrow_mut();
            if let Some(open) = open.iter_mut().find(|open| open.caller == self.caller) {
                open.large += 1;
            }
        }
        if self.waiting {
            self.ends_waiting();
            self.of.moved.set(Some(Instant::now()));
        }
    }

    fn ends_waiting(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.of.waiting.set(self.of.waiting.get() - 1);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.ends_waiting();
        let mut open = self.of.open.borrow_mut();
        if let Some(at) = open.iter().position(|open| open.caller == self.caller) {
            open[at].all -= 1;
            open[at].large -= u32::from(self.is_large);
            if open[at].all == 0 {
                open.swap_remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Caller = Caller::Connection(1);
    const OTHER: Caller = Caller::Connection(2);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_held_up_while_its_uploads_wait_and_none_moves() {
        let uploads = Rc::new(Uploads::default());
        let small = || Upload::new(&uploads, ONE, Uploading::Small);
        let (mut one, mut other) = (small(), small());
        one.waits();
        assert!(!uploads.held_up(Instant::now()));
        tokio::time::advance(2 * HELD_UP).await;
        assert!(uploads.held_up(Instant::now()));
        other.waits();
        assert!(uploads.held_up(Instant::now()), "it came later");
        other.moves(1);
        assert!(!uploads.held_up(Instant::now()), "it moves");
        tokio::time::advance(2 * HELD_UP).await;
        assert!(uploads.held_up(Instant::now()));
        drop(one);
        assert!(!uploads.held_up(Instant::now()), "nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_upload_is_beside_nobody_elses() {
        let uploads = Rc::new(Uploads::default());
        let admitted = || {
            [ONE, OTHER].map(|who| {
                [Uploading::No, Uploading::Small, Uploading::Large]
                    .map(|upload| uploads.admits(who, upload, Instant::now()))
            })
        };
        assert_eq!(admitted(), [[true; 3]; 2]);
        let mut small = Upload::new(&uploads, ONE, Uploading::Small);
        small.moves(32 * 1024);
        assert_eq!(admitted(), [[true; 3], [true, true, false]]);
        small.moves(1);
        assert_eq!(
            admitted(),
            [[true; 3], [true, false, false]],
            "it has become large"
        );
        let large = Upload::new(&uploads, ONE, Uploading::Large);
        drop(small);
        assert_eq!(admitted(), [[true; 3], [true, false, false]]);
        drop(large);
        assert_eq!(admitted(), [[true; 3]; 2]);
    }
}
