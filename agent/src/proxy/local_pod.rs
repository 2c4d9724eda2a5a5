//! A pod as one worker knows it, from its enrolment until nothing of it is left.
//!
//! ```text
//! enrol ─▶ listening ──withdraw──▶ draining: GOAWAY, connection: close ──▶ ended: every task of the pod
//!              └──────network namespace gone────────────────────────────────▲
//! ```

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    guards::{Guards, Registry},
    local_ports::called,
    own_addresses::OwnAddresses,
};
use crate::{
    drain,
    model::{Ending, EnrolmentId, InboundPort, Pod},
    pool::{DialAs, Pools, Sockets},
    record::{Counters, PodCounters, ScopeKey},
    retry::AttemptBody,
    share::{Account, Holding, Local, Peers, Share, Task},
};

/// How long a withdrawn pod's listeners, and those of an agent that ends, go on accepting: connections that the
/// kernel redirected before it was told are in their backlog.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// A pod whose connections the kernel redirects, with this worker's listeners in it.
#[derive(Debug)]
pub struct EnrolledPod {
    pub id: EnrolmentId,
    pub pod: Arc<Pod>,
    pub addresses: Vec<IpAddr>,
    pub sockets: Arc<dyn Sockets + Send + Sync>,
    /// Who pays for it.
    pub account: Arc<Account>,
    pub outbound: Vec<std::net::TcpListener>,
    pub inbound: Vec<std::net::TcpListener>,
}

/// Owns what the worker has for the pod: its pools, and every task that holds a socket in its network namespace. A
/// connection that was accepted for one enrolment is served by this value to its end and never by the next one.
#[derive(Debug)]
pub(super) struct LocalPod {
    pub(super) id: EnrolmentId,
    pub(super) pod: Arc<Pod>,
    pub(super) addresses: OwnAddresses,
    pub(super) sockets: Rc<dyn Sockets>,
    pub(super) pools: Pools<AttemptBody>,
    /// What it pays with. Everything that runs for the pod is spawned here.
    pub(super) share: Rc<Local>,
    /// Who calls its inbound ports.
    pub(super) peers: Rc<Peers>,
    /// Combinations of labels that its connections are counted under.
    series: RefCell<HashMap<ScopeKey, Holding>>,
    pub(super) counters: PodCounters,
    /// Signals that connections are to be finished.
    pub(super) drain: drain::Watch,
    /// The same for those that others have opened.
    pub(super) inbound_drain: drain::Watch,
    inbound: Vec<(InboundPort, Arc<Guards>)>,
}

impl LocalPod {
    /// With the triggers of its drains.
    pub(super) fn new(
        registry: &Registry,
        counters: &Counters,
        enrolled: &EnrolledPod,
    ) -> (Rc<Self>, Triggers) {
        let (all, drain) = drain::channel();
        let (of_inbound, inbound_drain) = drain::channel();
        let (id, pod) = (enrolled.id, enrolled.pod.clone());
        let guarded = |port: &InboundPort| {
            let guards = registry.inbound(called(&pod, port.port), id, &port.limits);
            (*port, guards)
        };
        let inbound = pod.inbound.iter().map(guarded).collect();
        let share = Local::new(enrolled.account.clone());
        let sockets: Rc<dyn Sockets> = Rc::new(enrolled.sockets.clone());
        let local = Self {
            id,
            addresses: OwnAddresses::new(&enrolled.addresses),
            pools: Pools::new(sockets.clone(), share.clone()),
            sockets,
            share,
            peers: Rc::default(),
            series: RefCell::default(),
            counters: counters.pod(id),
            drain,
            inbound_drain,
            inbound,
            pod,
        };
        let triggers = Triggers {
            all,
            inbound: of_inbound,
        };
        (Rc::new(local), triggers)
    }

    /// The inbound port, and what bounds calls to it.
    pub(super) fn inbound(&self, port: u16) -> Option<&(InboundPort, Arc<Guards>)> {
        self.inbound.iter().find(|(inbound, _)| inbound.port == port)
    }

    /// `key`, or the common one of all that are more than the pod may have.
    pub(super) fn series(&self, key: ScopeKey) -> ScopeKey {
        let mut series = self.series.borrow_mut();
        if series.contains_key(&key) {
            return key;
        }
        match self.share.take(Share::Series, 1) {
            Some(paid) => drop(series.insert(key.clone(), paid)),
            None => return ScopeKey::other(key.direction),
        }
        key
    }

    pub(super) fn ports(&self) -> &[(InboundPort, Arc<Guards>)] {
        &self.inbound
    }
}

impl Drop for LocalPod {
    /// The last connection has ended: what is left are connections to endpoints that nobody uses.
    fn drop(&mut self) {
        self.share.end();
    }
}

/// Of one pod's connections.
#[derive(Debug)]
pub(super) struct Triggers {
    all: drain::Trigger,
    inbound: drain::Trigger,
}

impl Triggers {
    fn signal(&self) {
        self.inbound.signal();
        self.all.signal();
    }
}

/// The enrolments of one worker that have not ended.
#[derive(Debug, Default)]
pub(super) struct LocalPods(RefCell<HashMap<EnrolmentId, Entry>>);

#[derive(Debug)]
struct Entry {
    pod: Weak<LocalPod>,
    share: Rc<Local>,
    accepting: Vec<Task>,
    /// `None` once the drain has begun.
    triggers: Option<Triggers>,
}

impl LocalPods {
    /// `accepting` are the tasks that accept the pod's connections. Each holds the pod, which goes with them when it has no
    /// connection.
    pub(super) fn add(&self, pod: &Rc<LocalPod>, triggers: Triggers, accepting: Vec<Task>) {
        let entry = Entry {
            pod: Rc::downgrade(pod),
            share: pod.share.clone(),
            accepting,
            triggers: Some(triggers),
        };
        if pod.pod.is_ending {
            entry.drain_inbound();
        }
        self.0.borrow_mut().insert(pod.id, entry);
    }

    /// The pod is being deleted: its callers are told to go elsewhere, while it finishes what they have asked for.
    pub(super) fn drain_inbound(&self, id: EnrolmentId) {
        let mut entries = self.0.borrow_mut();
        let same = entries
            .iter_mut()
            .filter(|(of, _)| of.netns_cookie == id.netns_cookie && of.generation <= id.generation);
        same.for_each(|(_, entry)| entry.drain_inbound());
    }

    /// `None` when it has ended.
    pub(super) fn get(&self, id: EnrolmentId) -> Option<Rc<LocalPod>> {
        self.0.borrow().get(&id)?.pod.upgrade()
    }

    /// Ends an enrolment, and with it those of the same network namespace that it had replaced.
    pub(super) fn withdraw(&self, id: EnrolmentId, ending: Ending, drain_timeout: Duration) {
        let mut entries = self.0.borrow_mut();
        entries.retain(|_, entry| entry.pod.strong_count() > 0);
        let same = entries
            .iter_mut()
            .filter(|(of, _)| of.netns_cookie == id.netns_cookie && of.generation <= id.generation);
        for (_, entry) in same {
            match ending {
                Ending::Replaced => entry.drain(None),
                Ending::Drained => entry.drain(Some(drain_timeout)),
                Ending::Gone => entry.end(),
            }
        }
    }

    /// The agent ends: connections in hand are finished, and no more are taken.
    pub(super) async fn drain(&self) {
        for entry in self.0.borrow().values() {
            entry.triggers.iter().for_each(Triggers::signal);
        }
        tokio::time::sleep(LINGER).await;
        for entry in self.0.borrow_mut().values_mut() {
            entry.accepting.drain(..).for_each(Task::end);
        }
    }

    /// Ends everything at once.
    pub(super) fn end(&self) {
        self.0.borrow_mut().values_mut().for_each(Entry::end);
    }

    /// Closes connections to endpoints that have been idle for longer than allowed.
    pub(super) fn sweep(&self, now: Instant) {
        for pod in self.0.borrow().values().filter_map(|entry| entry.pod.upgrade()) {
            pod.pools.sweep(now);
        }
    }
}

impl Entry {
    /// Lets connections be finished, for ever without a `limit`.
    fn drain(&mut self, limit: Option<Duration>) {
        if let Some(triggers) = &self.triggers {
            triggers.signal();
        }
        let accepting = std::mem::take(&mut self.accepting);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(LINGER).await;
            accepting.into_iter().for_each(Task::end);
        });
        if let Some(limit) = limit {
            let (triggers, share) = (self.triggers.take(), self.share.clone());
            tokio::task::spawn_local(async move {
                match triggers {
                    Some(triggers) => drop(triggers.all.drain(limit.max(LINGER)).await),
                    None => tokio::time::sleep(limit).await,
                }
                share.end();
            });
        }
    }

    fn drain_inbound(&self) {
        if let Some(triggers) = &self.triggers {
            triggers.inbound.signal();
        }
    }

    /// Ends whatever there is.
    fn end(&mut self) {
        self.accepting.drain(..).for_each(Task::end);
        self.share.end();
    }
}

impl Sockets for Arc<dyn Sockets + Send + Sync> {
    fn tcp_socket(&self, to: SocketAddr, dial_as: DialAs) -> io::Result<socket2::Socket> {
        (**self).tcp_socket(to, dial_as)
    }

    fn tcp_socket_beyond(&self, to: SocketAddr, dial_as: DialAs) -> io::Result<socket2::Socket> {
        (**self).tcp_socket_beyond(to, dial_as)
    }
}
