//! Access lines on their way from the workers to the log's thread: bounded by bytes, and fairly so.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, channel},
    },
};

use crate::model::PodName;

/// What a batch takes beside its lines, for each pod in it. An upper bound.
const PART_BYTES: usize = 128;

/// What one pod has in the queue, from all workers.
#[derive(Debug, Default)]
pub(super) struct Share {
    queued: AtomicUsize,
}

/// Lines of one worker, of one or more pods.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) share: Arc<Share>,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) enum Message {
    Lines(Batch),
    /// There is something to see to.
    Wake,
    /// Answered when everything before it has been written.
    Flush(SyncSender<()>),
}

/// The workers' end. Adding never waits.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    /// Unbounded as such: [`Queue::has_room`] bounds the bytes in it.
    messages: Sender<Message>,
    level: Arc<Level>,
    shares: Arc<Mutex<HashMap<PodName, Weak<Share>>>>,
}

/// How full the queue is.
#[derive(Debug)]
pub(super) struct Level {
    most: usize,
    queued: AtomicUsize,
}

impl Queue {
    pub(super) fn new(most: usize) -> (Self, Receiver<Message>) {
        let (messages, receiver) = channel();
        let level = Arc::new(Level {
            most,
            queued: AtomicUsize::new(0),
        });
        let queue = Self {
            messages,
            level,
            shares: Arc::default(),
        };
        (queue, receiver)
    }

    /// The share of a pod, the same for all workers. Locks: to be called once for a pod and worker.
    pub(super) fn share(&self, pod: &PodName) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(pod).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share::default());
        shares.insert(pod.clone(), Arc::downgrade(&share));
        share
    }

    /// Whether a pod may add a line to the `held` bytes that it has at this worker.
    pub(super) fn has_room(&self, share: &Share, held: usize) -> bool {
        may_have(
            held + share.queued.load(Relaxed),
            self.level.queued.load(Relaxed),
            self.level.most,
        )
    }

    pub(super) fn push(&self, batch: Batch) {
        for part in &batch.parts {
            part.share.queued.fetch_add(part.weight(), Relaxed);
        }
        self.level.queued.fetch_add(batch.weight(), Relaxed);
        self.send(Message::Lines(batch));
    }

    /// Nothing when the thread has ended.
    pub(super) fn send(&self, message: Message) {
        let _ = self.messages.send(message);
    }

    pub(super) fn level(&self) -> Arc<Level> {
        self.level.clone()
    }
}

impl Part {
    fn weight(&self) -> usize {
        self.bytes + PART_BYTES
    }
}

impl Batch {
    fn weight(&self) -> usize {
        self.bytes.capacity() + self.parts.len() * PART_BYTES
    }
}

impl Level {
    /// A batch has left the queue.
    pub(super) fn left(&self, batch: &Batch) {
        for part in &batch.parts {
            part.share.queued.fetch_sub(part.weight(), Relaxed);
        }
        self.queued.fetch_sub(batch.weight(), Relaxed);
    }
}

/// Each pod may have as much as is still free (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory
/// packet switches", 1998, with a factor of 1): one pod that floods a slow sink gets half of the queue, two get a third
/// each, and as much again stays free for the lines of the others.
fn may_have(own: usize, queued: usize, most: usize) -> bool {
    own < most.saturating_sub(queued)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodName {
        PodName {
            namespace: "demo".into(),
            name: name.into(),
        }
    }

    fn batch(share: &Arc<Share>, bytes: usize) -> Batch {
        Batch {
            bytes: vec![b'x'; bytes],
            parts: vec![Part {
                share: share.clone(),
                bytes,
            }],
        }
    }

    #[test]
    fn floods_leave_room_for_the_others() {
        const MOST: usize = 1 << 20;
        for floods in 1..8 {
            let (queue, _receiver) = Queue::new(MOST);
            let shares: Vec<_> = (0..floods).map(|n| queue.share(&pod(&n.to_string()))).collect();
            while shares.iter().any(|share| queue.has_room(share, 0)) {
                for share in shares.iter().filter(|share| queue.has_room(share, 0)) {
                    queue.push(batch(share, 1000));
                }
            }
            let free = MOST - queue.level.queued.load(Relaxed);
            assert!(free > MOST / (floods + 2), "{free} with {floods}");
            assert!(queue.has_room(&queue.share(&pod("quiet")), 1000));
        }
    }

    #[test]
    fn what_has_left_makes_room() {
        let (queue, receiver) = Queue::new(10_000);
        let share = queue.share(&pod("web"));
        queue.push(batch(&share, 6000));
        assert!(!queue.has_room(&share, 0));
        let Message::Lines(batch) = receiver.recv().unwrap() else {
            unreachable!("lines were pushed")
        };
        queue.level().left(&batch);
        assert!(queue.has_room(&share, 9_999) && !queue.has_room(&share, 10_000));
        assert!(Arc::ptr_eq(&share, &queue.share(&pod("web"))));
    }
}
