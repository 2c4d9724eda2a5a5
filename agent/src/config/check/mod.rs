//! Schema → model. Each function reports what it finds and goes on, so that one run shows every fault.

pub(super) mod words;
mod protocol;
mod pods;
pub(super) mod policy;
pub(super) mod policies;
mod dns;
mod services;
pub(super) mod routes;

#[cfg(test)]
mod tests;

pub use protocol::{ProtocolHints, protocol};

use super::{
    Checked, Error,
    error::{At, Faults},
    schema::File,
};

/// A zone's name from outside the file; why not, in words.
pub fn zone(text: &str) -> Result<String, String> {
    match words::is_zone(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("not a zone: {}", words::ZONE)),
    }
}

pub(super) fn check(file: &File) -> Result<Checked, Error> {
    let mut faults = Faults::default();
    let zone = file.node.zone.as_deref();
    let zone = zone.and_then(|zone| words::zone(zone, At::Section("node").field("zone"), &mut faults));
    let pods = pods::check(&file.pods, &mut faults);
    // Policies are resolved into the ports of the services, but their faults are told where they stand: last.
    let mut policy_faults = Faults::default();
    let attached = policies::check(&file.policies, &file.services, &mut policy_faults);
    let services::Services { mut services, dns } = services::check(&file.services, &attached, &mut faults);
    faults.append(policy_faults);
    routes::check(&file.routes, &file.services, &mut faults).attach(&mut services);
    faults.or(Checked {
        zone,
        pods,
        services,
        dns,
    })
}
