//! Another proxy's configuration → ours, and a word on whatever has no equivalent.
//!
//! ```text
//! Envoy bootstrap ─▶ reading (remembers what was read) ─▶ clusters ─▶ services and policies
//!                                                     └▶ listeners ─▶ routes, and what they add to the policies
//! ```
//! What Envoy leaves to its defaults is written out where Derny's default is another, so that the result means the
//! same. A field that nobody has read when all is done is reported by its path.

mod note;
mod reading;
mod names;
mod fields;
mod cluster;
mod discovery;
mod balancing;
mod resilience;
mod health;
mod listener;
mod precedence;
mod route;
mod read_route;
mod share;
mod retry;
mod dialled;
mod assemble;
mod objects;
mod kubernetes;
mod write;

use serde_json::Value;

pub use note::{Note, NoteKind};
pub use objects::{Objects, Written};
pub use write::Form;

use reading::Log;

/// A configuration that was carried over.
#[derive(Debug)]
pub struct Imported {
    pub objects: Objects,
    /// In the order of the document.
    pub notes: Vec<Note>,
}

/// Why there is nothing to carry over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImportError {
    #[error(
        "not an Envoy bootstrap: neither static_resources.clusters nor static_resources.listeners is there"
    )]
    NotABootstrap,
}

/// Carries an Envoy bootstrap over. `namespace` is that of everything whose name does not say another.
///
/// The fields are those of `envoy.config.bootstrap.v3.Bootstrap`, in either spelling of protobuf's JSON mapping.
///
/// # Errors
/// The document has neither clusters nor listeners.
pub fn envoy(document: &Value, namespace: &str) -> Result<Imported, ImportError> {
    let log = Log::default();
    let objects = {
        let root = log.root(document);
        let resources = root.get("static_resources");
        let list = |name| resources.as_ref().and_then(|resources| resources.get(name));
        let (clusters, listeners) = (list("clusters"), list("listeners"));
        if clusters.is_none() && listeners.is_none() {
            return Err(ImportError::NotABootstrap);
        }
        // Who the sidecar is; zones count here whenever a policy says so.
        root.pass_over("node");
        root.pass_over("admin");
        if let Some(manager) = root.get("cluster_manager") {
            manager.pass_over("local_cluster_name");
        }
        let clusters = clusters.map(|list| list.items()).unwrap_or_default();
        let listeners = listeners.map(|list| list.items()).unwrap_or_default();
        assemble::assemble(&clusters, &listeners, namespace)
    };
    Ok(Imported {
        objects,
        notes: log.into_notes(document),
    })
}

#[cfg(test)]
mod tests;
