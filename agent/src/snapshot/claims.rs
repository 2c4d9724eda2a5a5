//! Which address is which destination, and whose.
//!
//! Two services may list the same endpoint. The address is one destination all the same; of several claimants a
//! virtual address wins over an endpoint, and then the first service by name, so that the answer does not depend
//! on the order in which they came.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{Destination, Target};
use crate::model::{DestinationId, ServiceName};

/// How long a destination that nobody serves is remembered: longer than a SYN and its retransmissions live.
const REMEMBERED: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Claims {
    by_address: HashMap<SocketAddr, Claim>,
    gone: VecDeque<(Instant, SocketAddr)>,
    next: u32,
    /// Ids whose addresses were forgotten. Reused only when the numbers have run out.
    free: VecDeque<DestinationId>,
}

#[derive(Debug)]
struct Claim {
    id: DestinationId,
    /// Ordered by who wins: by rank, then by the service's name. Nearly always one, of tens of thousands in a large
    /// cluster, so it lies in here.
    claimants: SmallVec<[(Rank, Target); 1]>,
    gone_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Virtual,
    Endpoint,
}

impl Claim {
    fn destination(&self, address: SocketAddr) -> (DestinationId, Destination) {
        let winner = self.claimants.first().map(|(_, target)| target.clone());
        let target = winner.unwrap_or(Target::Gone);
        (self.id, Destination { address, target })
    }

    fn forget(&mut self, service: &ServiceName) {
        self.claimants
            .retain(|(_, target)| service_of(target) != Some(service));
    }
}

fn service_of(target: &Target) -> Option<&ServiceName> {
    target.port().map(|port| &port.service)
}

impl Claims {
    /// `target`'s service answers at `address`. The destination as it is now; `None` when ids ran out.
    pub(super) fn claim(
        &mut self,
        address: SocketAddr,
        target: Target,
    ) -> Option<(DestinationId, Destination)> {
        let service = service_of(&target)?.clone();
        let rank = if matches!(target, Target::Service(_)) {
            Rank::Virtual
        } else {
            Rank::Endpoint
        };
        if !self.by_address.contains_key(&address) {
            let id = self.new_id()?;
            self.by_address.insert(
                address,
                Claim {
                    id,
                    claimants: SmallVec::new(),
                    gone_since: None,
                },
            );
        }
        let claim = self.by_address.get_mut(&address)?;
        claim.gone_since = None;
        claim.forget(&service);
        let before = |(of, other): &(Rank, Target)| (*of, service_of(other)) < (rank, Some(&service));
        let place = claim.claimants.partition_point(before);
        claim.claimants.insert(place, (rank, target));
        Some(claim.destination(address))
    }

    /// `service` no longer answers at `address`. The destination as it is now.
    pub(super) fn withdraw(
        &mut self,
        address: SocketAddr,
        service: &ServiceName,
        now: Instant,
    ) -> Option<(DestinationId, Destination)> {
        let claim = self.by_address.get_mut(&address)?;
        claim.forget(service);
        if claim.claimants.is_empty() && claim.gone_since.is_none() {
            claim.gone_since = Some(now);
            self.gone.push_back((now, address));
        }
        Some(claim.destination(address))
    }

    /// Forgets what has been gone for long, and says which ids that were.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<DestinationId> {
        let mut expired = Vec::new();
        while let Some((since, address)) = self.gone.front().copied() {
            if now.saturating_duration_since(since) < REMEMBERED {
                break;
            }
            self.gone.pop_front();
            // Claimed again, or gone again later: then this entry is stale.
            if self
                .by_address
                .get(&address)
                .is_some_and(|c| c.gone_since == Some(since))
                && let Some(claim) = self.by_address.remove(&address)
            {
                self.free.push_back(claim.id);
                expired.push(claim.id);
            }
        }
        expired
    }

    fn new_id(&mut self) -> Option<DestinationId> {
        match DestinationId::new(self.next) {
            Some(id) => {
                self.next += 1;
                Some(id)
            }
            None => self.free.pop_front(),
        }
    }
}
