//! Windows of the running agent: a Unix socket for its command line, and HTTP for scrapes and probes.
//!
//! Nothing here knows what it shows: it is given a [`View`].

mod places;
mod serve;
mod unix;
mod pages;
mod http;
mod rpc;
mod client;

use std::{io, net::SocketAddr, path::PathBuf};

pub use client::{Client, ClientError};
pub use http::{HttpWindow, Shows};
pub use places::Bounds;
pub use serve::Displaced;
pub use unix::UnixWindow;

/// The messages of `proto/admin.proto`, with client and server.
pub mod proto {
    #![expect(clippy::default_trait_access, reason = "generated code")]

    tonic::include_proto!("derny.admin.v1");

    impl PodState {
        /// The word in tables and in JSON.
        pub fn word(self) -> &'static str {
            match self {
                Self::Unspecified => "unknown",
                Self::Enrolled => "enrolled",
                Self::Waiting => "waiting",
                Self::LeftAlone => "left alone",
            }
        }
    }

    impl EndpointState {
        pub fn word(self) -> &'static str {
            match self {
                Self::Unspecified => "unknown",
                Self::Ready => "ready",
                Self::Terminating => "terminating",
                Self::Unhealthy => "unhealthy",
            }
        }
    }

    impl Standing {
        pub fn word(self) -> &'static str {
            match self {
                Self::Unspecified => "unknown",
                Self::In => "in",
                Self::Ejected => "ejected",
                Self::Trial => "trial",
            }
        }
    }

    impl MatchVerdict {
        pub fn word(self) -> &'static str {
            match self {
                Self::Unspecified => "unknown",
                Self::Chosen => "chosen",
                Self::Outranked => "outranked",
                Self::No => "no",
            }
        }
    }

    fn pod_state_word<S: serde::Serializer>(state: &i32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(PodState::try_from(*state).unwrap_or_default().word())
    }

    fn endpoint_state_word<S: serde::Serializer>(state: &i32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(EndpointState::try_from(*state).unwrap_or_default().word())
    }

    fn standing_word<S: serde::Serializer>(standing: &i32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(Standing::try_from(*standing).unwrap_or_default().word())
    }

    fn verdict_word<S: serde::Serializer>(verdict: &i32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(MatchVerdict::try_from(*verdict).unwrap_or_default().word())
    }
}

/// Why a question has no answer: a sentence for who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It names something that is not there.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be understood.
    #[error("{0}")]
    Invalid(String),
}

/// What the windows show. Called on the windows' own thread, never on a worker; each call should take no longer than
/// some milliseconds, but for [`View::metrics`], which is called on a thread where it may take its time.
pub trait View: Send + Sync + 'static {
    fn status(&self) -> proto::Status;
    /// In order of name.
    fn pods(&self) -> Vec<proto::Pod>;
    /// One for each port of a service, in order of name and port.
    fn services(&self) -> Vec<proto::Service>;
    /// Of one service (`name`, `namespace/name`, `namespace/name:port`) or, when that is empty, of all; in order of
    /// service, port and address.
    fn endpoints(&self, service: &str) -> Result<Vec<proto::ServiceEndpoint>, Unanswered>;
    /// What would become of a request.
    fn explain(&self, request: &proto::ExplainRequest) -> Result<proto::Explanation, Unanswered>;
    /// The whole page in OpenMetrics' text format.
    fn metrics(&self) -> String;
    /// Names of what is awaited; empty when the agent is ready.
    fn not_ready(&self) -> Vec<String>;
    /// Whether the agent makes progress; otherwise a sentence that says what does not.
    fn live(&self) -> Result<(), String>;
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open the admin socket {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("another agent answers at {}: stop it, or choose another --admin-socket", path.display())]
    InUse { path: PathBuf },
    #[error("{} is there and is no socket: remove it, or choose another --admin-socket", path.display())]
    NoSocket { path: PathBuf },
    #[error("cannot listen on {address} for metrics and probes ({flag}): {source}")]
    Http {
        address: SocketAddr,
        flag: &'static str,
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
