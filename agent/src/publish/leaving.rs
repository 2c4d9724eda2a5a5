//! Pods that have been withdrawn and may still finish what is in flight: for as long as their network is there.

use std::time::Duration;

use tokio::time::Instant;

use crate::{intercept::NamedNetns, model::EnrolmentId};

#[derive(Debug, Default)]
pub(super) struct Leaving(Vec<(EnrolmentId, NamedNetns, Instant)>);

impl Leaving {
    /// The workers end it by themselves after `limit`.
    pub(super) fn add(&mut self, id: EnrolmentId, netns: NamedNetns, now: Instant, limit: Duration) {
        self.0.push((id, netns, now + limit));
    }

    /// Those whose network namespace has gone, each once.
    pub(super) fn gone(&mut self, now: Instant) -> Vec<EnrolmentId> {
        self.0.retain(|(_, _, until)| now < *until);
        let gone = self.0.extract_if(.., |(_, netns, _)| netns.is_gone());
        gone.map(|(id, ..)| id).collect()
    }
}
