//! The words of the mesh. Plain data: no IO, no clock, no serialisation.

mod addr;
mod protocol;
mod policy;
mod endpoint;
mod service;
mod pod;
mod update;
mod origin;

pub use addr::{DestinationId, MAX_SLOTS, Slot};
pub use endpoint::Endpoint;
pub use origin::Origins;
pub use pod::{InboundPort, Pod, PodName, PodState, PodStatus};
pub use policy::{Algorithm, ConnectionPool, Policy};
pub use protocol::Protocol;
pub use service::{Service, ServiceName, ServicePort, ServicePortName};
pub use update::Update;
