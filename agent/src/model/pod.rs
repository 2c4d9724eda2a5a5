//! A pod of this node: one network namespace.

use std::{
    fmt,
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{InboundLimits, Protocol, Slot};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: PodName,
    /// What the pod is a replica of; the label of its metrics.
    pub workload: Arc<str>,
    pub netns: PodNetns,
    pub addresses: PodAddresses,
    /// Ports on which calls to this pod pass the engine, in ascending order, each once.
    pub inbound: Vec<InboundPort>,
    /// It is being deleted: its callers are to go elsewhere while its network is still there.
    pub is_ending: bool,
    /// Since when there is a pod that is to be enrolled like this, where somebody watched it come. Enrolment is
    /// timed from here.
    pub since: Option<Instant>,
}

impl Pod {
    /// Whether it is the same pod, to be enrolled in the same way: a pod's addresses and its end are followed while it is
    /// enrolled.
    pub fn is_enrolled_as(&self, other: &Self) -> bool {
        let Self {
            name,
            workload,
            netns,
            addresses: _,
            inbound,
            is_ending: _,
            since,
        } = self;
        (name, workload, netns, inbound, since)
            == (
                &other.name,
                &other.workload,
                &other.netns,
                &other.inbound,
                &other.since,
            )
    }
}

/// Which addresses are a pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PodAddresses {
    /// Those of its interfaces, without the loopback's and link-local ones: nobody says anything else. Whoever may
    /// configure the pod's network says so.
    #[default]
    Interfaces,
    /// These, whatever its interfaces have; none so long as whoever knows has not said.
    Given(Vec<IpAddr>),
}

/// How a pod's network namespace is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodNetns {
    /// A file that names it: `/run/netns/x` or `/proc/PID/ns/net`. It may come to name another one, or none.
    Path(PathBuf),
    /// The namespace itself. Discovery says when it is the pod's no more.
    Open(Arc<OpenNetns>),
}

impl PodNetns {
    /// What it is called; for an open one, where it was found.
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Open(open) => &open.found,
        }
    }
}

impl<P: Into<PathBuf>> From<P> for PodNetns {
    fn from(path: P) -> Self {
        Self::Path(path.into())
    }
}

/// A network namespace that this value keeps alive, so that its identity is given to no other.
#[derive(Debug)]
pub struct OpenNetns {
    pub file: File,
    pub identity: NetnsIdentity,
    /// Under which name it was opened, for people: by now that may name another.
    pub found: PathBuf,
}

impl PartialEq for OpenNetns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for OpenNetns {}

/// Device and inode of a namespace: the same for every path that names it, and not given out again while one of them
/// is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsIdentity {
    pub dev: u64,
    pub ino: u64,
}

/// A control group of the second version: the inode number of its directory, by which the kernel's programs know it. Not
/// given to another group while the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundPort {
    pub port: u16,
    pub protocol: Protocol,
    pub limits: InboundLimits,
}

/// One enrolment of a pod: from when the kernel redirects its connections until it is withdrawn and all that was made
/// for it has ended.
///
/// It is the identity by which everything of a pod is kept, in the agent and in the kernel. A [`Slot`] is a place, and
/// the next pod gets it; a name comes back with the next pod of a StatefulSet. This is never given out twice: the kernel
/// does not use a cookie of a network namespace again, and the generation tells enrolments of one namespace apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnrolmentId {
    /// Of the network namespace, as the kernel programs know it.
    pub netns_cookie: u64,
    /// Counts the enrolments of this agent.
    pub generation: u64,
}

impl fmt::Display for EnrolmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.netns_cookie, self.generation)
    }
}

/// How an enrolment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The pod is enrolled anew in the same network namespace. Requests are finished, and connections that are relayed go
    /// on, until the pod is withdrawn.
    Replaced,
    /// The pod leaves the mesh and may live on: what is in flight has some time to be finished.
    Drained,
    /// Its network namespace has gone: there is nobody left to finish anything for.
    Gone,
}

/// What has become of a pod that the configuration names.
#[derive(Clone, Debug, PartialEq)]
pub struct PodStatus {
    pub pod: Arc<Pod>,
    pub slot: Slot,
    pub state: PodState,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PodState {
    /// The kernel redirects its connections.
    Enrolled {
        id: EnrolmentId,
        /// The pod's own.
        addresses: Vec<IpAddr>,
        /// Pairs of address and port that are not steered, because they are over the pod's share.
        over_share: usize,
        at: SystemTime,
    },
    /// It is left alone; enrolment is tried again. The reason is a sentence for an operator.
    Waiting { reason: String },
}

/// A pod of this node that a source knows and the snapshot does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bystander {
    pub name: PodName,
    pub workload: Arc<str>,
    pub standing: Standing,
    /// A sentence for an operator.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is to be enrolled, and cannot be yet.
    Waiting,
    /// It is not to be enrolled.
    LeftAlone,
}
