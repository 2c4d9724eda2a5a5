//! What the publisher asks of the workers.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    intercept::Enrolled,
    model::{Ending, EnrolmentId, Pod, Slot},
};

/// The workers, as far as enrolment goes.
pub trait Workers {
    /// Each worker accepts connections of this pod from now on.
    fn enrol(&self, slot: Slot, pod: &Arc<Pod>, enrolled: Enrolled);
    /// The pod's own addresses are these now.
    fn addresses(&self, id: EnrolmentId, own: &[IpAddr]);
    /// The pod is being deleted: its callers are to go elsewhere.
    fn ending(&self, id: EnrolmentId);
    /// Everything that was made for the enrolment, which had this slot, ends.
    fn withdraw(&self, slot: Slot, id: EnrolmentId, ending: Ending);
    /// One that was withdrawn ends otherwise than it was said then.
    fn end(&self, id: EnrolmentId, ending: Ending);
    /// Pods of which no connection can be taken, and has not been for longer than the kernel waits for a sign of life.
    fn overloaded(&self) -> BTreeSet<Slot>;
}
