//! Which pods of strict namespaces are held in the kernel: what they dial is refused. Pure.
//!
//! ```text
//!            strict, not enrolled                enrolled
//!  (free) ─────────────────────────▶ (held) ─────────────────▶ (free, redirected)
//!                                       ▲   about to be withdrawn      │
//!                                       └──────────────────────────────┘
//! ```
//! Each arrow is told to the kernel so that there is no moment in between: a pod is held before its redirection ends, and
//! released after it has begun.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{GroupId, PodName};

/// What the kernel is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hold(GroupId),
    Release(GroupId),
}

#[derive(Debug, Default)]
pub(super) struct Holds {
    enrolled: BTreeSet<PodName>,
    held: BTreeMap<PodName, GroupId>,
}

impl Holds {
    /// The kernel redirects what it dials.
    pub(super) fn enrolled(&mut self, pod: &PodName) {
        self.enrolled.insert(pod.clone());
    }

    /// The kernel is about to redirect it no more.
    pub(super) fn withdrawn(&mut self, pod: &PodName) {
        self.enrolled.remove(pod);
    }

    /// Brings a pod to where it should be, in this order. `strict` is its control group, when it may dial nothing until it
    /// is enrolled.
    pub(super) fn settle(
        &mut self,
        pod: &PodName,
        strict: Option<GroupId>,
    ) -> impl Iterator<Item = Step> + use<> {
        let wanted = strict.filter(|_| !self.enrolled.contains(pod));
        let had = self.held.get(pod).copied();
        let steps = match wanted == had {
            true => [None, None],
            false => [wanted.map(Step::Hold), had.map(Step::Release)],
        };
        match wanted {
            Some(group) => drop(self.held.insert(pod.clone(), group)),
            None => drop(self.held.remove(pod)),
        }
        steps.into_iter().flatten()
    }

    /// Forgets all of them; they are to be released.
    pub(super) fn release_all(&mut self) -> impl Iterator<Item = GroupId> + use<> {
        std::mem::take(&mut self.held).into_values()
    }
}

#[cfg(test)]
mod tests {
    use Step::{Hold, Release};

    use super::*;

    fn name() -> PodName {
        PodName {
            namespace: "demo".into(),
            name: "a".into(),
        }
    }

    const ONE: GroupId = GroupId(1);
    const TWO: GroupId = GroupId(2);

    #[test]
    fn a_pod_is_held_exactly_while_it_is_strict_and_not_enrolled() {
        let mut holds = Holds::default();
        let settle = |holds: &mut Holds, strict, expect: &[Step]| {
            assert_eq!(holds.settle(&name(), strict).collect::<Vec<_>>(), expect);
        };
        settle(&mut holds, None, &[]);
        settle(&mut holds, Some(ONE), &[Hold(ONE)]);
        settle(&mut holds, Some(ONE), &[]);
        holds.enrolled(&name());
        settle(&mut holds, Some(ONE), &[Release(ONE)]);
        settle(&mut holds, None, &[]);
        settle(&mut holds, Some(ONE), &[]);
        holds.withdrawn(&name());
        settle(&mut holds, Some(ONE), &[Hold(ONE)]);
        // Made anew in another control group, held all the time.
        settle(&mut holds, Some(TWO), &[Hold(TWO), Release(ONE)]);
        settle(&mut holds, None, &[Release(TWO)]);
        settle(&mut holds, Some(ONE), &[Hold(ONE)]);
        assert_eq!(holds.release_all().collect::<Vec<_>>(), [ONE]);
        assert_eq!(holds.release_all().count(), 0);
    }
}
