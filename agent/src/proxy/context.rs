//! What all connections of one worker share.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{local_pod::LocalPods, local_ports::LocalPorts, view::View};
use crate::{
    accept::Acceptor,
    drain,
    model::{Demand, Origins},
    record::Recorder,
    transport::Limits,
};

pub(super) struct Worker {
    pub(super) view: View,
    pub(super) local_ports: LocalPorts,
    pub(super) pods: LocalPods,
    pub(super) recorder: Rc<Recorder>,
    pub(super) acceptor: Acceptor,
    pub(super) origins: Box<dyn Origins>,
    pub(super) rng: RefCell<fastrand::Rng>,
    /// Each connection holds the worker, and by this the end of the agent.
    pub(super) _drain: drain::Guard,
    pub(super) demand: Arc<dyn Demand>,
    pub(super) endpoints_wait: Duration,
    /// How many workers there are: each has its part of what a pod may hold.
    pub(super) workers: u64,
    pub(super) limits: Limits,
    /// Connections accepted so far.
    pub(super) connections: Cell<u64>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    /// The number of a connection, which no other of this worker has.
    pub(super) fn next_connection(&self) -> u64 {
        let number = self.connections.get();
        self.connections.set(number + 1);
        number
    }
}
