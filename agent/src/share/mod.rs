//! What one pod may hold of the engine, and its turn at it.
//!
//! ```text
//! Ledger (node) ─▶ Account (pod, all workers) ─▶ Local (pod, this worker) ─▶ Holding
//!                                                   └─▶ Flow ─▶ Turns: whose task runs next
//! ```

mod kind;
mod ledger;
mod local;
mod peers;
mod clock;
mod flow;
mod task;
mod turns;
mod tasks;
mod paced;

pub use clock::now;
pub use kind::{Bound, Limits, Share};
pub use ledger::{Account, Ledger, Sample};
pub use local::{Holding, Local, Part};
pub use paced::{Paced, breathe, go_on};
pub use peers::{Peer, Peers};
pub use task::Task;
pub use turns::Turns;

/// A pod without bounds, for tests of other rooms.
#[cfg(test)]
pub(crate) fn unbounded() -> std::rc::Rc<Local> {
    let pod = crate::model::PodName {
        namespace: "demo".into(),
        name: "web-1".into(),
    };
    Local::new(Ledger::new(Limits::none()).open(pod))
}
