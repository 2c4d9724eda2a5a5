//! One pod's account at one worker. Everything here belongs to the worker's thread.

use std::{cell::Cell, fmt, rc::Rc, sync::Arc};

use super::{clock, flow::Flow, kind::Share, ledger::Account, task::Task, tasks::Tasks, turns};

/// Which part of what its pod has left one connection may take: a pod that opens many connections finds each smaller
/// than the last, and not all of them refused after the first few. HTTP/2 needs fewer connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Part {
    OfHttp1 = 2048,
    OfHttp2 = 256,
}

/// What one connection is granted of the `wanted` bytes while its pod has `left`; never less than `floor`, with which
/// it can just work.
fn granted(wanted: u64, floor: u64, part: Part, left: u64) -> u64 {
    wanted.min((left / part as u64).max(floor))
}

/// A pod as one worker bills it.
pub struct Local {
    account: Arc<Account>,
    /// Taken from the account and held by nobody.
    spare: [Cell<u64>; Share::COUNT],
    pub(super) flow: Arc<Flow>,
    tasks: Tasks,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Local").field(&self.account).finish()
    }
}

/// A part of a pod's share, given back when it is dropped.
#[derive(Debug)]
pub struct Holding {
    of: Rc<Local>,
    share: Share,
    amount: u64,
}

impl Local {
    pub fn new(account: Arc<Account>) -> Rc<Self> {
        let pod = Rc::new(Self {
            flow: Flow::new(account.clone(), turns::elsewhere()),
            account,
            spare: Default::default(),
            tasks: Tasks::default(),
        });
        turns::enter(&pod);
        pod
    }

    /// Runs `task` when it is the pod's turn, until it is done or [`Local::end`] ends it.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let Some(place) = self.tasks.place() else { return };
        let index = place.index();
        // Where it stays: a large future is not to be moved by each of those who wrap it.
        let task = Box::pin(task);
        let task = self.task(async move {
            let _place = place;
            task.await;
        });
        self.tasks.began(index, task);
    }

    /// Ends every task that was spawned, and with it whatever it holds: the pod is withdrawn.
    pub fn end(&self) {
        self.tasks.end();
    }

    #[cfg(test)]
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Like [`Local::spawn`], for a task that is to end when the handle is dropped.
    pub fn task(&self, task: impl Future<Output = ()> + 'static) -> Task {
        turns::spawn(&self.flow, task)
    }

    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// `amount` of `share`; `None`, and counted, when that is more than the pod may have.
    pub fn take(self: &Rc<Self>, share: Share, amount: u64) -> Option<Holding> {
        let taken = self.take_spare(share, amount);
        if taken.is_none() {
            self.account.exceeded(share);
        }
        taken
    }

    /// [`Local::take`] of what can be done without, so that it is not counted when there is none.
    pub fn take_spare(self: &Rc<Self>, share: Share, amount: u64) -> Option<Holding> {
        self.draw(share, amount).then(|| Holding {
            of: self.clone(),
            share,
            amount,
        })
    }

    /// Memory for one connection: `wanted`, or less when the pod has not much left.
    pub fn take_part(self: &Rc<Self>, wanted: u64, floor: u64, part: Part) -> Option<Holding> {
        let left = self.account.left(Share::Memory) + self.spare[Share::Memory as usize].get();
        self.take(Share::Memory, granted(wanted, floor, part, left))
    }

    fn draw(&self, share: Share, amount: u64) -> bool {
        let spare = &self.spare[share as usize];
        if let Some(rest) = spare.get().checked_sub(amount) {
            spare.set(rest);
            return true;
        }
        let missing = amount - spare.get();
        // A whole lease while there is plenty, else just what is missing.
        for wanted in [missing.max(share.lease()), missing] {
            if self.account.take(share, wanted) {
                spare.set(spare.get() + wanted - amount);
                return true;
            }
        }
        false
    }

    fn put_back(&self, share: Share, amount: u64) {
        let spare = &self.spare[share as usize];
        spare.set(spare.get() + amount);
        if spare.get() >= 2 * share.lease() || share.lease() == 1 {
            let keep = if share.lease() == 1 { 0 } else { share.lease() };
            self.account.give_back(share, spare.replace(keep) - keep);
        }
    }

    /// Gives back what nobody holds.
    pub fn settle(&self) {
        for share in Share::ALL {
            let spare = self.spare[share as usize].take();
            if spare > 0 {
                self.account.give_back(share, spare);
            }
        }
    }

    /// A connection of the pod was taken.
    pub fn connected(&self) {
        self.account.connected();
    }

    /// A connection of the pod was refused, since its share is used up.
    pub fn refused(&self) {
        self.account.refused(clock::millis());
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Holding {
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Gives back what is more than `amount`.
    pub fn shrink_to(&mut self, amount: u64) {
        let surplus = self.amount.saturating_sub(amount);
        self.amount -= surplus;
        self.of.put_back(self.share, surplus);
    }

    /// Takes `more` of the same; false, and counted, when the pod may not have it.
    pub fn grow(&mut self, more: u64) -> bool {
        let grown = self.of.draw(self.share, more);
        if grown {
            self.amount += more;
        } else {
            self.of.account.exceeded(self.share);
        }
        grown
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.of.put_back(self.share, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::PodName,
        share::{Bound, Ledger, Limits},
    };

    const MIB: u64 = 1 << 20;

    fn pod(ledger: &Ledger, name: &str) -> Rc<Local> {
        Local::new(ledger.open(PodName {
            namespace: "demo".into(),
            name: name.into(),
        }))
    }

    fn ledger(memory: u64) -> Ledger {
        Ledger::new(Limits {
            memory: Bound {
                node: memory,
                pod: memory,
            },
            ..Limits::none()
        })
    }

    fn held(ledger: &Ledger) -> Vec<u64> {
        let samples = ledger.samples(tokio::time::Instant::now().into_std());
        samples.iter().map(|sample| sample.held(Share::Memory)).collect()
    }

    #[test]
    fn windows_get_smaller_and_another_pod_still_gets_one() {
        let ledger = ledger(64 * MIB);
        let (greedy, other) = (pod(&ledger, "a"), pod(&ledger, "b"));
        let mut holdings = Vec::new();
        while let Some(holding) = greedy.take_part(4 * MIB, 65_536, Part::OfHttp2) {
            holdings.push(holding);
        }
        assert!(holdings.len() > 400, "{}", holdings.len());
        assert!(holdings[0].amount() > 65_536 && holdings.last().unwrap().amount() == 65_536);
        assert!(other.take_part(4 * MIB, 65_536, Part::OfHttp2).is_some());
        let sample = &ledger.samples(tokio::time::Instant::now().into_std())[0];
        assert_eq!(sample.exceeded[Share::Memory as usize], 1);
    }

    #[test]
    fn what_is_dropped_is_given_back() {
        let ledger = ledger(64 * MIB);
        let pod = pod(&ledger, "a");
        let mut holding = pod.take(Share::Memory, 1000).unwrap();
        assert!(holding.grow(5 * MIB) && !holding.grow(60 * MIB));
        assert_eq!(holding.amount(), 1000 + 5 * MIB);
        let streams: Vec<Holding> = (0..100).filter_map(|_| pod.take(Share::Memory, 10_000)).collect();
        assert_eq!(streams.len(), 100);
        assert!(held(&ledger)[0] >= 1000 + 5 * MIB + 1_000_000);
        drop((holding, streams));
        pod.settle();
        assert_eq!(held(&ledger), [0]);
    }

    #[test]
    fn a_pod_that_is_refused_for_too_long_is_overloaded_until_it_has_room() {
        let ledger = Ledger::new(Limits {
            connections: Bound { node: 20, pod: 20 },
            ..Limits::none()
        });
        let pod = pod(&ledger, "a");
        let patience = std::time::Duration::from_millis(100);
        let mut held: Vec<Holding> = (0..10).filter_map(|_| pod.take(Share::Connections, 1)).collect();
        let account = pod.account().clone();
        account.refused(5_000);
        assert!(!account.is_overloaded(patience));
        account.refused(5_101);
        assert!(account.is_overloaded(patience));
        held.pop();
        assert!(account.is_overloaded(patience), "it has room for one");
        held.truncate(4);
        assert!(!account.is_overloaded(patience));
        account.refused(9_000);
        account.connected();
        account.refused(9_200);
        assert!(!account.is_overloaded(patience), "one was taken in between");
    }
}
