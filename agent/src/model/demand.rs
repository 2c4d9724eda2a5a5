//! What the engine asks of discovery.

use std::sync::Arc;

use super::ServicePortName;

/// Tells discovery which service ports are used, so that it learns who answers for those and for no others. Both are
/// hints: they never wait, and one that is lost is given again.
pub trait Demand: Send + Sync {
    /// Somebody in this namespace would wait for the endpoints of this port. False when they are not to be hoped for by
    /// now.
    fn wanted(&self, by: &Arc<str>, port: &ServicePortName) -> bool;

    /// These ports had requests lately, from callers of these namespaces: what is known of them stays of use.
    fn used(&self, ports: Vec<(Arc<str>, ServicePortName)>);
}

/// Nobody is asked, where everything is known from the start.
impl Demand for () {
    fn wanted(&self, _: &Arc<str>, _: &ServicePortName) -> bool {
        false
    }

    fn used(&self, _: Vec<(Arc<str>, ServicePortName)>) {}
}
