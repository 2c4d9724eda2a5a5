//! A connection comes in: accepted inside a pod's network namespace, its protocol decided.

mod listen;
mod detect;
mod client_hello;
mod replay;
mod frames;
mod framed;

pub use detect::{Detected, Expecting, detect, silent, spoke};
pub use framed::{Framed, Reading};
pub use listen::{Ability, Acceptor, Place, refuse};
pub use replay::{Ending, Replay};
