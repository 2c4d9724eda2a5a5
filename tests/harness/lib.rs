//! A node, its pods, servers, clients and agent on one machine, for the tests, the demo and the benches.
//!
//! Everything that a [`Node`] makes outside its process is named `derny-<id>-…` and goes when the node is dropped,
//! when a test panics, and on Ctrl-C. What a killed run left behind is removed by the next [`Node::new`].
//! The machine's own network is not touched.

/// Network namespaces by name.
pub mod netns;
/// Control groups of the second version, also where the first is mounted beside it.
mod cgroup;
/// A process inside a pod: spawn, wait with a deadline, signal; killed when dropped.
pub mod process;
/// The machine: a bridge, routed pods, virtual addresses of services.
pub mod node;
/// Virtual addresses of services: what kube-proxy does.
pub mod vip;
/// A pod: network namespace, addresses, control group.
pub mod pod;
/// What goes when the process ends, however it ends.
mod cleanup;

/// The agent's configuration file.
pub mod config;
/// One GET, with nothing but a socket.
mod http_get;
/// The agent under test.
pub mod agent;
/// What the agent says of pods.
mod shown;
/// The server under the agent: `derny-testd`.
pub mod upstream;
/// Real, unmodified clients.
pub mod clients;
/// Callers that do what no client would.
pub mod wire;
/// HTTP and gRPC calls from inside a pod.
pub mod calls;
/// Clients at work in the background, and what they report.
pub mod load;
/// A real name server beside the pods.
pub mod dns;
/// A client, servers, services of every protocol and an agent, ready made.
pub mod world;
/// A container image with one program.
pub mod image;
/// containerd on a node: sandboxes and containers of pods.
pub mod containers;
/// A Kubernetes API server, a client to it and a proxy that breaks things.
#[cfg(feature = "servers")]
pub mod kube;
/// A runtime on a thread of its own, for clients that are called from tests.
#[cfg(feature = "servers")]
mod background;
/// The agent's sockets by network namespace.
#[cfg(feature = "servers")]
pub mod holdings;
/// Waiting for a condition, and reading what is observed.
pub mod observe;

/// Messages and clients of `tests/proto/echo.proto`.
#[cfg(feature = "servers")]
pub mod proto {
    tonic::include_proto!("derny.test.v1");
}

pub use agent::{Agent, AgentOptions, derny};
pub use config::Config;
pub use netns::Netns;
pub use node::Node;
pub use observe::eventually;
pub use pod::Pod;
pub use process::{Output, Process};
pub use upstream::Testd;
pub use vip::Vip;
pub use wire::Wire;
pub use world::World;
