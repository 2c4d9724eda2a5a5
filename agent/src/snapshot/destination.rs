//! What an address that pods dial stands for.

use std::{net::SocketAddr, sync::Arc};

use crate::model::{AnsweredBy, ServicePortName};

/// An address that pods dial and the mesh serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub address: SocketAddr,
    /// What it is to callers of all namespaces but those in `own`.
    pub target: Target,
    /// What it is to callers of namespaces that claim it, when several do; empty otherwise.
    pub own: Arc<[(Arc<str>, Target)]>,
    /// Whether the kernel redirects it.
    pub is_redirected: bool,
    /// Not the agent, where all who claim it agree and know no endpoint, and not by HTTP, where that can be said.
    pub answered_by: AnsweredBy,
}

impl Destination {
    /// An address that is the same to all callers.
    pub fn new(address: SocketAddr, target: Target) -> Self {
        Self {
            address,
            is_redirected: target.port().is_some(),
            target,
            own: Arc::default(),
            answered_by: AnsweredBy::Agent,
        }
    }

    /// What it is to callers of this namespace.
    pub fn target_of(&self, namespace: &str) -> &Target {
        let own = self.own.iter().find(|(of, _)| **of == *namespace);
        own.map_or(&self.target, |(_, target)| target)
    }

    /// All that it is to anybody.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.own.iter().map(|(_, target)| target).chain([&self.target])
    }

    /// The service ports that claim it.
    pub fn claimants(&self) -> impl Iterator<Item = &ServicePortName> {
        self.targets().filter_map(Target::port)
    }

    /// [`Self::claimants`] in words.
    pub fn claimed_by(&self) -> String {
        let names: Vec<String> = self.claimants().map(ToString::to_string).collect();
        names.join(" and ")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A virtual address: balanced over the endpoints.
    Service(ServicePortName),
    /// An endpoint's own address, as a client of a headless service dials it: the choice is the caller's.
    Endpoint(ServicePortName),
    /// Nobody serves it any more. Kept for a while for connections that were redirected before that was known;
    /// they are relayed to the address unseen.
    Gone,
    /// Services of several namespaces claim it. Connections of callers of other namespaces are relayed to the address
    /// unseen.
    Contested,
}

impl Target {
    /// The service port whose policy applies.
    pub fn port(&self) -> Option<&ServicePortName> {
        match self {
            Self::Service(name) | Self::Endpoint(name) => Some(name),
            Self::Gone | Self::Contested => None,
        }
    }
}
