//! The accounts of all pods of the node.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::kind::{Limits, Share};
use crate::model::PodName;

/// How long an account is shown after its pod has gone: late enough for a last scrape.
const SHOWN_AFTER: Duration = Duration::from_secs(120);

type Amounts = [AtomicU64; Share::COUNT];

/// Owned by the process. Cloned, it is the same.
#[derive(Clone, Debug)]
pub struct Ledger {
    node: Arc<Node>,
    accounts: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug)]
struct Node {
    limits: Limits,
    held: Amounts,
}

#[derive(Debug)]
struct Entry {
    account: Arc<Account>,
    /// When it was first seen that nobody uses it any more.
    closed: Option<Instant>,
}

/// What one enrolled pod holds at all workers, and what it has cost. Ends with the enrolment: the same pod enrolled
/// anew gets another.
pub struct Account {
    pod: PodName,
    node: Arc<Node>,
    held: Amounts,
    exceeded: Amounts,
    cpu_nanos: AtomicU64,
    refusals: Refusals,
}

/// Since when a pod's connections have been refused, in milliseconds of [`super::clock`]; 0: they are not.
#[derive(Debug, Default)]
struct Refusals {
    since: AtomicU64,
    last: AtomicU64,
    /// Whether the kernel was asked to leave the pod's connections alone.
    aside: AtomicBool,
}

/// What an account says when somebody looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub pod: PodName,
    pub held: [u64; Share::COUNT],
    pub exceeded: [u64; Share::COUNT],
    pub cpu: Duration,
    /// The kernel leaves its connections alone, since they cannot be taken.
    pub aside: bool,
}

impl Sample {
    pub fn held(&self, share: Share) -> u64 {
        self.held[share as usize]
    }
}

impl Ledger {
    pub fn new(limits: Limits) -> Self {
        Self {
            node: Arc::new(Node {
                limits,
                held: Amounts::default(),
            }),
            accounts: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account of a pod that is enrolled now.
    pub fn open(&self, pod: PodName) -> Arc<Account> {
        let account = Arc::new(Account {
            pod,
            node: self.node.clone(),
            held: Amounts::default(),
            exceeded: Amounts::default(),
            cpu_nanos: AtomicU64::new(0),
            refusals: Refusals::default(),
        });
        self.lock().push(Entry {
            account: account.clone(),
            closed: None,
        });
        account
    }

    /// All accounts, one for each name: a pod that was enrolled anew has had several.
    pub fn samples(&self, now: Instant) -> Vec<Sample> {
        let mut accounts = self.lock();
        accounts.retain_mut(|entry| {
            if Arc::strong_count(&entry.account) > 1 {
                return true;
            }
            let closed = *entry.closed.get_or_insert(now);
            now.saturating_duration_since(closed) < SHOWN_AFTER
        });
        let mut samples: Vec<Sample> = accounts.iter().map(|entry| entry.account.sample()).collect();
        drop(accounts);
        samples.sort_by(|a, b| a.pod.cmp(&b.pod));
        samples.dedup_by(|next, first| {
            let same = next.pod == first.pod;
            if same {
                first.add(next);
            }
            same
        });
        samples
    }
}

impl Sample {
    fn add(&mut self, other: &Self) {
        let add = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.held, &other.held);
        add(&mut self.exceeded, &other.exceeded);
        self.cpu += other.cpu;
        self.aside |= other.aside;
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("pod", &self.pod)
            .finish_non_exhaustive()
    }
}

impl Account {
    pub fn pod(&self) -> &PodName {
        &self.pod
    }

    /// Takes `amount` when the pod may have that much more. Workers that take at the same moment may both be refused
    /// what one of them could have had.
    pub(super) fn take(&self, share: Share, amount: u64) -> bool {
        let (mine, all) = (&self.held[share as usize], &self.node.held[share as usize]);
        let (had, were) = (mine.fetch_add(amount, Relaxed), all.fetch_add(amount, Relaxed));
        if amount <= self.node.limits.of(share).left(had, were) {
            return true;
        }
        mine.fetch_sub(amount, Relaxed);
        all.fetch_sub(amount, Relaxed);
        false
    }

    pub(super) fn give_back(&self, share: Share, amount: u64) {
        self.held[share as usize].fetch_sub(amount, Relaxed);
        self.node.held[share as usize].fetch_sub(amount, Relaxed);
    }

    /// How much more the pod may take.
    pub fn left(&self, share: Share) -> u64 {
        let mine = self.held[share as usize].load(Relaxed);
        let all = self.node.held[share as usize].load(Relaxed);
        self.node.limits.of(share).left(mine, all)
    }

    /// The pod was refused something because its share is used up.
    pub fn exceeded(&self, share: Share) {
        let count = &self.exceeded[share as usize];
        if count.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(pod = %self.pod, share = share.as_str(), "the pod has used up its share");
        }
    }

    pub(super) fn billed(&self, nanos: u64) {
        self.cpu_nanos.fetch_add(nanos, Relaxed);
    }

    /// A connection of the pod was taken.
    pub(super) fn connected(&self) {
        if self.refusals.since.load(Relaxed) != 0 {
            self.refusals.since.store(0, Relaxed);
        }
    }

    /// A connection of the pod was refused at `now`.
    pub(super) fn refused(&self, now_millis: u64) {
        let since = &self.refusals.since;
        let _ = since.compare_exchange(0, now_millis.max(1), Relaxed, Relaxed);
        self.refusals.last.store(now_millis, Relaxed);
    }

    /// Whether all connections of the pod have been refused for longer than `patience`, and since then it has not given
    /// back so much that new ones could be taken for a while. To be asked from time to time.
    pub fn is_overloaded(&self, patience: Duration) -> bool {
        let Refusals { since, last, aside } = &self.refusals;
        if aside.load(Relaxed) {
            let needed = [Share::Connections, Share::Descriptors, Share::Memory];
            if needed.into_iter().all(|share| self.has_room(share)) {
                aside.store(false, Relaxed);
                since.store(0, Relaxed);
            }
        } else {
            let begun = since.load(Relaxed);
            let for_millis = last.load(Relaxed).saturating_sub(begun);
            let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
            aside.store(begun != 0 && for_millis > patience, Relaxed);
        }
        aside.load(Relaxed)
    }

    /// Whether the pod could take an eighth more than it has.
    fn has_room(&self, share: Share) -> bool {
        let held = self.held[share as usize].load(Relaxed);
        self.left(share) > held / 8
    }

    fn sample(&self) -> Sample {
        let read = |amounts: &Amounts| std::array::from_fn(|i| amounts[i].load(Relaxed));
        Sample {
            pod: self.pod.clone(),
            held: read(&self.held),
            exceeded: read(&self.exceeded),
            cpu: Duration::from_nanos(self.cpu_nanos.load(Relaxed)),
            aside: self.refusals.aside.load(Relaxed),
        }
    }
}
