//! What the user wrote → checked values.
//!
//! ```text
//! YAML ─▶ JSON value ─▶ schema (types, unknown fields) ─▶ check (ranges, names, duplicates) ─▶ model
//! ```
//! The schema's structs are also the custom resource's; only the file has YAML in front of them.

mod schema;
mod traffic_policy;
mod parse;
mod check;
mod object;
pub mod crd;
mod error;
pub mod duration;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

pub use check::{ProtocolHints, protocol, zone};
pub use error::{Error, Problem};
pub use object::{
    PolicyObject, PolicyTarget, RouteObject, RouteParent, route, service_parents, traffic_policy,
};

use crate::model::{Dns, Pod, Service, ServiceName, ServicePortName};

/// A whole configuration without a fault in it. Policies are already part of the ports that they name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// The node's own zone.
    pub zone: Option<Arc<str>>,
    /// By name in ascending order, each once; at most [`MAX_SLOTS`](crate::model::MAX_SLOTS).
    pub pods: Vec<Arc<Pod>>,
    /// By name in ascending order, each once.
    pub services: Vec<Arc<Service>>,
    /// Ports of these services whose endpoints come from names; they have none here.
    pub dns: BTreeMap<ServicePortName, Dns>,
}

impl Checked {
    /// Endpoint addresses that stand under more than one service, with the services in order of name: whoever
    /// dials such an address directly reaches it by the first one's policy.
    pub fn shared_endpoints(&self) -> Vec<(SocketAddr, Vec<ServiceName>)> {
        let mut owners = BTreeMap::<SocketAddr, Vec<ServiceName>>::new();
        for service in &self.services {
            for endpoint in service.ports.iter().flat_map(|port| &port.endpoints) {
                let owners = owners.entry(endpoint.address).or_default();
                if owners.last() != Some(&service.name) {
                    owners.push(service.name.clone());
                }
            }
        }
        owners.retain(|_, services| services.len() > 1);
        owners.into_iter().collect()
    }
}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Checked, Error> {
    let content = read(path)?;
    from_yaml(&content)
}

/// Reads a file without looking into it.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// Checks the text of a file. Reports every fault that the check finds, not only the first.
pub fn from_yaml(content: &[u8]) -> Result<Checked, Error> {
    check::check(&parse::parse(content)?)
}

/// The same for a file that is a value already.
pub fn from_value(value: serde_json::Value) -> Result<Checked, Error> {
    check::check(&parse::file(value)?)
}

/// Reads one document of YAML or JSON, whatever it is about.
pub fn yaml(content: &[u8]) -> Result<serde_json::Value, Error> {
    parse::yaml(content)
}
