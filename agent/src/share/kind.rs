//! What is shared, and how much of it there is.

/// What a pod has a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Share {
    /// Accepted connections, from and to the pod.
    Connections,
    /// Open sockets, accepted and dialled.
    Descriptors,
    /// Bytes that the pod's connections, streams and retry copies may come to hold.
    Memory,
    /// HTTP/2 streams that are open.
    Streams,
    /// Series of metrics.
    Series,
}

impl Share {
    pub const ALL: [Self; 5] = [
        Self::Connections,
        Self::Descriptors,
        Self::Memory,
        Self::Streams,
        Self::Series,
    ];
    pub const COUNT: usize = Self::ALL.len();

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Streams => "streams",
            Self::Series => "series",
        }
    }

    /// What is taken from the pod's account at a time, so that a request need not touch what other workers write.
    /// 1: each is taken alone.
    pub(super) const fn lease(self) -> u64 {
        match self {
            Self::Connections | Self::Descriptors | Self::Series => 1,
            Self::Memory => 256 * 1024,
            Self::Streams => 32,
        }
    }
}

/// How much of one thing there is on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// For all pods together.
    pub node: u64,
    /// The most that one pod may hold, whatever is free.
    pub pod: u64,
}

/// The bounds of everything that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections: Bound,
    pub descriptors: Bound,
    pub memory: Bound,
    pub streams: Bound,
    pub series: Bound,
}

impl Limits {
    pub(super) fn of(&self, share: Share) -> Bound {
        match share {
            Share::Connections => self.connections,
            Share::Descriptors => self.descriptors,
            Share::Memory => self.memory,
            Share::Streams => self.streams,
            Share::Series => self.series,
        }
    }

    /// No bound at all.
    pub fn none() -> Self {
        // Half of what there is, so that sums do not overflow.
        const ALL: Bound = Bound {
            node: u64::MAX / 2,
            pod: u64::MAX / 2,
        };
        Self {
            connections: ALL,
            descriptors: ALL,
            memory: ALL,
            streams: ALL,
            series: ALL,
        }
    }
}

impl Bound {
    /// How much more a pod that holds `mine` may take while all pods hold `all`.
    ///
    /// A pod may hold as much as it leaves free for others (Choudhury and Hahne, "Dynamic queue length thresholds for
    /// shared-memory packet switches", 1998): one greedy pod gets half, two get a third each, and there is always
    /// something left for the next.
    pub(super) fn left(self, mine: u64, all: u64) -> u64 {
        let free = self.node.saturating_sub(all);
        let fair = free.saturating_sub(mine).div_ceil(2).min(free);
        fair.min(self.pod.saturating_sub(mine))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_pod_gets_half_and_two_a_third_each() {
        let bound = Bound { node: 900, pod: 900 };
        assert_eq!(bound.left(0, 0), 450);
        assert_eq!(bound.left(450, 450), 0);
        assert_eq!(bound.left(300, 600), 0);
        assert_eq!(bound.left(0, 600), 150);
        assert_eq!(Bound { node: 900, pod: 100 }.left(40, 40), 60);
    }

    proptest! {
        /// Whoever came before, a pod that holds nothing may take something while there is anything.
        #[test]
        fn there_is_always_something_for_the_next(node in 2u64..100_000, takes in prop::collection::vec((0usize..8, 1u64..5_000), 0..200)) {
            let bound = Bound { node, pod: node };
            let mut held = [0u64; 8];
            for (pod, wanted) in takes {
                let all = held.iter().sum();
                held[pod] += wanted.min(bound.left(held[pod], all));
                prop_assert!(held.iter().sum::<u64>() <= node);
            }
            let all: u64 = held.iter().sum();
            if all < node {
                prop_assert!(bound.left(0, all) > 0, "{held:?} of {node}");
            }
        }
    }
}
