//! One TCP connection, whoever opened it: what moves on it, and whether its peer is still there.

mod pulse;
mod peer;
mod timer;
mod vigil;

pub use peer::{Peers, keep_alive, look_at};
pub use pulse::{Pulse, Socket};
pub use vigil::{Doing, Event, Limits, Situation, Vigil};
