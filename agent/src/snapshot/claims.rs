//! Which address is which destination, and whose.
//!
//! Anybody may write an EndpointSlice with any address in a namespace of his own. What he says there counts for callers of
//! that namespace, and for those of others while nobody else claims the address:
//!
//! ```text
//! a virtual address goes before endpoints       the API server gives it to one service
//! the caller's own namespace                    of several services there, the first by name
//! the one namespace that claims it
//! several others claim it                       nobody's: it is not redirected for such a caller
//! ```
//! The kernel knows an address and not the caller's namespace. It redirects a contested one while a pod of this node has a
//! claim of its own to it, and the engine then relays other callers' bytes to the address unseen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{Destination, Target};
use crate::model::{AnsweredBy, DestinationId, ServiceName};

/// How long a destination that nobody serves is remembered: longer than a SYN and its retransmissions live.
const REMEMBERED: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Claims {
    by_address: HashMap<SocketAddr, Claim>,
    /// Addresses that several namespaces claim.
    contested: BTreeSet<SocketAddr>,
    /// How many pods of this node are of each namespace.
    pods: BTreeMap<Arc<str>, usize>,
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
    fn forget(&mut self, service: &ServiceName) {
        self.claimants
            .retain(|(_, target)| service_of(target) != Some(service));
    }

    /// The claims that count, one of each namespace.
    fn by_namespace(&self) -> BTreeMap<&Arc<str>, &Target> {
        let mut claims = BTreeMap::new();
        let best = self.claimants.first().map(|(rank, _)| *rank);
        for (_, target) in self.claimants.iter().filter(|(rank, _)| Some(*rank) == best) {
            if let Some(service) = service_of(target) {
                claims.entry(&service.namespace).or_insert(target);
            }
        }
        claims
    }

    /// `has_pods` tells whether a namespace has pods on this node.
    fn destination(&self, address: SocketAddr, has_pods: impl Fn(&str) -> bool) -> Destination {
        let claims = self.by_namespace();
        let mut targets = claims.values();
        match (targets.next(), targets.next()) {
            (None, _) => Destination::new(address, Target::Gone),
            (Some(target), None) => Destination::new(address, (*target).clone()),
            (Some(_), Some(_)) => Destination {
                address,
                target: Target::Contested,
                is_redirected: claims.keys().any(|namespace| has_pods(namespace)),
                answered_by: AnsweredBy::Agent,
                own: claims
                    .into_iter()
                    .map(|(namespace, target)| (namespace.clone(), target.clone()))
                    .collect(),
            },
        }
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
        self.destination(address)
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
        self.destination(address)
    }

    /// A pod of this namespace has come to the node. The destinations that are otherwise for that.
    pub(super) fn pod_comes(&mut self, namespace: &Arc<str>) -> Vec<(DestinationId, Destination)> {
        let pods = self.pods.entry(namespace.clone()).or_default();
        *pods += 1;
        match *pods {
            1 => self.contested(namespace),
            _ => Vec::new(),
        }
    }

    /// The reverse of [`Self::pod_comes`].
    pub(super) fn pod_goes(&mut self, namespace: &Arc<str>) -> Vec<(DestinationId, Destination)> {
        match self.pods.get_mut(namespace) {
            Some(pods) if *pods > 1 => {
                *pods -= 1;
                Vec::new()
            }
            Some(_) => {
                self.pods.remove(namespace);
                self.contested(namespace)
            }
            None => Vec::new(),
        }
    }

    /// The contested destinations of a namespace, as they are now.
    fn contested(&self, namespace: &Arc<str>) -> Vec<(DestinationId, Destination)> {
        let of_namespace = self.contested.iter().filter_map(|address| {
            let claim = self.by_address.get(address)?;
            let is_claimed = claim.by_namespace().contains_key(namespace);
            is_claimed.then(|| {
                (
                    claim.id,
                    claim.destination(*address, |it| self.pods.contains_key(it)),
                )
            })
        });
        of_namespace.collect()
    }

    fn destination(&mut self, address: SocketAddr) -> Option<(DestinationId, Destination)> {
        let claim = self.by_address.get(&address)?;
        let destination = claim.destination(address, |namespace| self.pods.contains_key(namespace));
        match destination.target {
            Target::Contested => self.contested.insert(address),
            _ => self.contested.remove(&address),
        };
        Some((claim.id, destination))
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

#[cfg(test)]
mod tests;
