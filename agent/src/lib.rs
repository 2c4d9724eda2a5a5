//! Derny's agent, in reading order: the words, what the user wrote, the way of a request, the way of a
//! configuration, and what stands around both.

/// The words of the mesh: addresses, pods, services, endpoints, policies. No IO.
pub mod model;
/// What the user wrote → checked values.
pub mod config;

/// The kernel's side door: eBPF programs, maps, network namespaces. The only room that knows aya and setns.
pub mod intercept;
/// What one pod may hold of the engine, and its turn at it.
pub mod share;
/// One TCP connection: what moves on it, and whether its peer is still there.
pub mod transport;
/// A connection comes in: listen inside a pod, decide the protocol.
pub mod accept;
/// A request and a service's routes → the rule, its backend, and what is changed on the way.
pub mod route;
/// Which endpoint gets this request.
pub mod balance;
/// (source pod, endpoint) → a usable connection.
pub mod pool;
/// An attempt's outcome → again, or not; and the body that can be sent twice.
pub mod retry;
/// What the caller gets: a relayed answer, or a local error that says why.
pub mod respond;
/// What is left of an exchange: counters and one access line.
pub mod record;
/// The story: calls the rooms above, in order.
pub mod proxy;

/// The world → updates of the model.
pub mod discover;
/// Active checks → the state of an endpoint.
pub mod health;
/// Updates → the next immutable view, and what changed.
pub mod snapshot;
/// A view → the workers and the kernel's tables.
pub mod publish;

/// Another proxy's configuration → ours.
pub mod import;

/// What the agent is told at its start: flags and environment variables.
pub mod options;
/// Windows: the Unix socket of the command line, metrics, probes.
pub mod admin;
/// What the agent shows of itself, from the rooms that decide.
pub mod inspect;
/// One file per subcommand.
pub mod cli;
/// Begin to end a task, and know when it has.
pub mod drain;
/// Ready when nothing is left to wait for.
pub mod ready;
/// Alive while everything runs that must.
pub mod live;
/// The agent's own log.
pub mod telemetry;
/// What reads bytes that others choose, for `tests/fuzz`.
#[doc(hidden)]
pub mod fuzz;
/// The wiring.
pub mod app;
