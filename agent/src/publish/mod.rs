//! A view → the workers and the kernel's tables. The one place that has both in hand.

mod addresses;
mod changes;
mod group;
mod holds;
mod leaving;
mod times;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use changes::Changes;
use holds::{Holds, Step};
use leaving::Leaving;
pub use times::EnrolmentTimes;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
pub use workers::Workers;

use crate::{
    drain,
    intercept::{self, Addresses, Kernel},
    model::{Ending, GroupId, Pod, PodName, PodState, PodStatus, Slot, Update},
    ready,
    snapshot::{Reducer, Snapshot},
};

/// How often waiting pods are tried again and enrolled ones are looked after.
const LOOK: Duration = Duration::from_millis(500);
/// The same while a pod has begun to wait within [`LOOK`]: its network is being made.
const SHORT_LOOK: Duration = Duration::from_millis(10);

/// Batches of updates that become one view, at most.
const AT_ONCE: usize = 16;

/// What the windows see of the publisher's work.
#[derive(Clone, Debug)]
pub struct Published {
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// In ascending order of slot.
    pub pods: watch::Receiver<Arc<Vec<PodStatus>>>,
    /// When the snapshot last changed.
    pub changed_at: watch::Receiver<Instant>,
    /// How long it took to enrol pods.
    pub enrolments: Arc<EnrolmentTimes>,
    /// Pairs of address and port that were not steered, because they were over their pod's share.
    pub over_share: Arc<AtomicU64>,
    /// How often the pods' control group was found to be gone or another one.
    pub group_losses: Arc<AtomicU64>,
}

/// Owns the kernel's tables and the newest view.
pub struct Publisher<W> {
    reducer: Reducer,
    current: Arc<Snapshot>,
    kernel: Kernel,
    workers: W,
    worker_count: usize,
    states: BTreeMap<Slot, PodState>,
    holds: Holds,
    leaving: Leaving,
    drain_timeout: Duration,
    /// Pods whose connections the kernel leaves alone, as the workers cannot take them.
    aside: BTreeSet<Slot>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    pods: watch::Sender<Arc<Vec<PodStatus>>>,
    changed_at: watch::Sender<Instant>,
    enrolments: Arc<EnrolmentTimes>,
    over_share: Arc<AtomicU64>,
    /// The node's own addresses, as the kernel's table has them.
    node: Vec<IpAddr>,
    group: group::Watch,
    /// Until when to look often.
    hurry_until: Instant,
}

impl<W: Workers> Publisher<W> {
    /// `snapshot` is what the workers follow; it must not have been sent to yet.
    pub fn new(
        kernel: Kernel,
        workers: W,
        worker_count: usize,
        drain_timeout: Duration,
        snapshot: watch::Sender<Arc<Snapshot>>,
        ready: ready::Ready,
    ) -> Self {
        Self {
            reducer: Reducer::default(),
            current: Arc::default(),
            kernel,
            workers,
            worker_count,
            states: BTreeMap::new(),
            holds: Holds::default(),
            leaving: Leaving::default(),
            drain_timeout,
            aside: BTreeSet::new(),
            snapshot,
            pods: watch::Sender::default(),
            changed_at: watch::Sender::new(Instant::now()),
            enrolments: Arc::default(),
            over_share: Arc::default(),
            node: Vec::new(),
            group: group::Watch::new(ready),
            hurry_until: Instant::now(),
        }
    }

    pub fn published(&self) -> Published {
        Published {
            snapshot: self.snapshot.subscribe(),
            pods: self.pods.subscribe(),
            changed_at: self.changed_at.subscribe(),
            enrolments: self.enrolments.clone(),
            over_share: self.over_share.clone(),
            group_losses: self.group.losses(),
        }
    }

    /// Takes updates until the drain begins; then withdraws every pod and holds none, so that new connections pass the
    /// agent by while it finishes those that it has. `first` is dropped when the first batch is in force.
    pub async fn run(
        mut self,
        mut updates: mpsc::Receiver<Vec<Update>>,
        mut first: Option<ready::Guard>,
        drain: drain::Watch,
    ) {
        self.follow_node();
        let mut looked = Instant::now();
        // At its own pace: asking for addresses costs the more the more pods there are, also while one is waited for.
        let mut node = tokio::time::interval_at(looked + LOOK, LOOK);
        node.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pause = match looked < self.hurry_until {
                true => SHORT_LOOK,
                false => LOOK,
            };
            tokio::select! {
                batch = updates.recv() => match batch {
                    Some(mut batch) => {
                        // What has come meanwhile is one view with it: a hundred pods that start at once are not a hundred
                        // views that each worker looks at.
                        for _ in 1..AT_ONCE {
                            let Ok(more) = updates.try_recv() else { break };
                            batch.extend(more);
                        }
                        self.apply(batch);
                        first = None;
                    }
                    // Discovery has ended, and so will the process.
                    None => drain.signaled().await,
                },
                _ = node.tick() => {
                    self.follow_node();
                    self.group.look(&mut self.kernel);
                }
                () = tokio::time::sleep_until(looked + pause) => {
                    self.look();
                    looked = Instant::now();
                }
                () = drain.signaled() => break,
            }
        }
        drop(first);
        self.kernel.stop();
        for group in self.holds.release_all() {
            release(&mut self.kernel, group);
        }
        let slots: Vec<Slot> = self.states.keys().copied().collect();
        slots
            .into_iter()
            .for_each(|slot| self.withdraw(slot, Ending::Drained));
    }

    fn apply(&mut self, batch: Vec<Update>) {
        for refused in self.reducer.apply(batch, Instant::now().into_std()) {
            tracing::error!(error = %refused, "update refused");
        }
        self.follow();
    }

    /// Makes the kernel and the workers follow the reducer.
    fn follow(&mut self) {
        let next = self.reducer.view();
        let changes = Changes::between(&self.current, &next);
        for pod in &changes.strict {
            self.settle(pod, &next);
        }
        for address in changes.stop_redirecting {
            if let Err(error) = self.kernel.stop_redirecting(address) {
                tracing::error!(%address, %error, "still redirected");
            }
        }
        for (slot, ending) in changes.withdraw {
            self.hold_before_withdrawal(slot, &next);
            self.withdraw(slot, ending);
        }
        self.current = next.clone();
        self.snapshot.send_replace(next);
        self.changed_at.send_replace(Instant::now());
        for (address, id, label, answered_by) in changes.redirect {
            if let Err(error) = self.kernel.serve(address, id, &label, answered_by) {
                tracing::error!(%address, service = label, %error, "not redirected");
            }
        }
        for (slot, pod) in changes.enrol {
            self.enrol(slot, &pod);
        }
        for (slot, pod) in changes.follow {
            self.follow_addresses(slot, &pod);
            self.follow_ending(slot, &pod);
        }
        self.show_pods();
    }

    fn enrol(&mut self, slot: Slot, pod: &Arc<Pod>) {
        let state = match self.kernel.enrol(slot, pod, self.worker_count) {
            Ok(enrolled) => {
                let Addresses {
                    own: addresses,
                    over_share,
                } = enrolled.addresses.clone();
                let id = enrolled.id;
                tracing::info!(pod = %pod.name, %slot, ?addresses, "pod enrolled");
                self.count_over_share(&pod.name, over_share);
                self.holds.enrolled(&pod.name);
                self.settle(&pod.name, &self.current.clone());
                self.workers.enrol(slot, pod, enrolled);
                if let Some(since) = pod.since {
                    self.enrolments.observe(Instant::now().into_std() - since);
                }
                PodState::Enrolled {
                    id,
                    addresses,
                    over_share,
                    at: SystemTime::now(),
                }
            }
            Err(error) => {
                let reason = error.to_string();
                let known =
                    matches!(self.states.get(&slot), Some(PodState::Waiting { reason: r }) if *r == reason);
                if !matches!(self.states.get(&slot), Some(PodState::Waiting { .. })) {
                    self.hurry_until = Instant::now() + LOOK;
                }
                if !known {
                    tracing::warn!(pod = %pod.name, error = reason, "pod not enrolled; trying again");
                }
                PodState::Waiting { reason }
            }
        };
        self.states.insert(slot, state);
        self.follow_ending(slot, pod);
    }

    /// Sees to it that a pod is held or not, as `view` wants it.
    fn settle(&mut self, pod: &PodName, view: &Snapshot) {
        let strict = view.strict.get(pod).copied();
        for step in self.holds.settle(pod, strict) {
            match step {
                Step::Hold(group) => match self.kernel.hold(group, pod) {
                    Ok(()) => tracing::info!(%pod, "what the pod dials is refused until it is enrolled"),
                    Err(error) => {
                        tracing::error!(%pod, %error, "strict, and what it dials goes past the agent");
                    }
                },
                Step::Release(group) => release(&mut self.kernel, group),
            }
        }
    }

    /// A pod that `view` wants strict is held before its redirection ends, as it may be enrolled anew at once or never.
    fn hold_before_withdrawal(&mut self, slot: Slot, view: &Snapshot) {
        if let Some(pod) = self.current.pods.get(&slot).cloned() {
            self.holds.withdrawn(&pod.name);
            self.settle(&pod.name, view);
        }
    }

    fn withdraw(&mut self, slot: Slot, ending: Ending) {
        if let Some(PodState::Enrolled { id, .. }) = self.states.remove(&slot) {
            self.aside.remove(&slot);
            let netns = self.kernel.withdraw(slot);
            self.workers.withdraw(slot, id, ending);
            if ending != Ending::Gone
                && let Some(netns) = netns
            {
                self.leaving.add(id, netns, Instant::now(), self.drain_timeout);
            }
        }
    }

    /// An agent may be older than its node's network: the bridge of the pods comes with the first of them.
    fn follow_node(&mut self) {
        let addresses = match intercept::node_addresses() {
            Ok(addresses) => addresses,
            Err(error) => return tracing::error!(%error, "the node's addresses are not known"),
        };
        if addresses == self.node {
            return;
        }
        match self.kernel.set_node_addresses(&addresses) {
            Ok(()) => tracing::info!(?addresses, "addresses of the node"),
            Err(error) => tracing::error!(%error, "probes from some of the node's addresses pass the engine"),
        }
        self.node = addresses;
    }

    /// Lets the kernel leave the connections of pods alone that the workers cannot serve, and no longer.
    fn step_aside(&mut self) {
        let overloaded = self.workers.overloaded();
        for slot in self.aside.symmetric_difference(&overloaded) {
            let aside = overloaded.contains(slot);
            if let Err(error) = self.kernel.set_aside(*slot, aside) {
                tracing::error!(%slot, %error, "the kernel was not told of a pod's overload");
            }
            let Some(pod) = self.current.pods.get(slot) else {
                continue;
            };
            match aside {
                true => {
                    tracing::warn!(pod = %pod.name, "no connection of the pod can be taken: new ones pass the agent by")
                }
                false => tracing::info!(pod = %pod.name, "connections of the pod can be taken again"),
            }
        }
        self.aside = overloaded;
    }

    /// Tries waiting pods again, lets go of pods whose network namespace has gone, and forgets old destinations.
    fn look(&mut self) {
        self.step_aside();
        let mut changed = false;
        for id in self.leaving.gone(Instant::now()) {
            self.workers.end(id, Ending::Gone);
        }
        let pods: Vec<(Slot, Arc<Pod>)> = self.current.pods.iter().map(|(s, p)| (*s, p.clone())).collect();
        for (slot, pod) in pods {
            match self.states.get(&slot) {
                Some(PodState::Enrolled { .. }) if self.kernel.netns_gone(slot) => {
                    tracing::info!(pod = %pod.name, %slot, "network namespace has gone");
                    self.hold_before_withdrawal(slot, &self.current.clone());
                    self.withdraw(slot, Ending::Gone);
                    let reason = format!(
                        "{} no longer names the pod's network namespace",
                        pod.netns.path().display()
                    );
                    self.states.insert(slot, PodState::Waiting { reason });
                    changed = true;
                }
                Some(PodState::Waiting { .. }) | None => {
                    self.enrol(slot, &pod);
                    changed = true;
                }
                Some(PodState::Enrolled { .. }) => changed |= self.follow_addresses(slot, &pod),
            }
        }
        if self.reducer.expire(Instant::now().into_std()) {
            self.follow();
        } else if changed {
            self.show_pods();
        }
    }

    fn show_pods(&self) {
        let placed = self.current.pods.iter().filter_map(|(slot, pod)| {
            let state = self.states.get(slot)?.clone();
            Some(PodStatus {
                pod: pod.clone(),
                slot: *slot,
                state,
            })
        });
        self.pods.send_replace(Arc::new(placed.collect()));
    }
}

fn release(kernel: &mut Kernel, group: GroupId) {
    if let Err(error) = kernel.release(group) {
        tracing::error!(?group, %error, "a pod's control group is still held");
    }
}
