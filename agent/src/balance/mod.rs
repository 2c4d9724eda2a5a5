//! Backend + load → one endpoint; and how much at a time. Pure: `now` and `rng` are arguments, nothing here waits.
//!
//! A worker has one [`Balancer`] per (source workload, service port). Workers share the [`Outliers`] and the
//! [`Breaker`] of that pair, in atomics.

/// Instants in atomics.
mod ticks;
/// How slow an endpoint is.
mod latency;
/// Who is left out because it fails.
mod outlier;
/// What a request says that was given up.
mod silence;
/// One endpoint to one worker.
mod load;
/// Who gets requests at the moment.
mod rotation;
/// Weighted draws.
mod weights;
/// The better of two.
mod contender;
/// The power of two choices.
mod p2c;
/// In turn.
mod round_robin;
/// One of several, by one of these.
mod group;
/// The caller's zone first.
mod zones;
/// Keys and points.
mod hash;
/// Keys on a ring of points.
mod ring;
/// Keys in a table of slots.
mod maglev;
/// A key's endpoint.
mod table;
/// All of it.
mod balancer;
/// Bounds on what is going on.
mod breaker;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;

pub use balancer::{Balancer, Candidate};
pub use breaker::{Breaker, Level, Levels, Permit};
pub use hash::hash_key;
pub use load::{EndpointLoad, InFlight};
pub use outlier::{EjectReason, Event, EventKind, Host, Outliers, ReturnedBy, Standing, Trial, Verdict};
pub use rotation::Rotation;
pub use table::{HashTable, Made, TableMaker, Wanted};
