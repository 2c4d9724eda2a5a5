//! Between whom a connection is.

use std::{cell::Cell, rc::Rc, sync::Arc};

use super::{json::Members, log_queue::Share, scope::Scope};

/// Who is on the line; the same for all requests of a connection.
#[derive(Debug)]
pub struct Line {
    /// The calling pod, or the peer's address where the caller is not of this node.
    pub caller: String,
    pub scope: Rc<Scope>,
    /// The pod of this node at its end.
    pub(super) lines: Rc<PodLines>,
    /// What its access lines have in common.
    pub(super) known: Members,
}

/// The lines of one pod at one worker.
#[derive(Debug)]
pub struct PodLines {
    pub(super) share: Arc<Share>,
    /// Of its lines in the worker's buffer.
    pub(super) bytes: Cell<usize>,
    pub(super) lines: Cell<u64>,
}
