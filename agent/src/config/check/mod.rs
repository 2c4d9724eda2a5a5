//! Schema → model. Each function reports what it finds and goes on, so that one run shows every fault.

mod words;
mod protocol;
mod pods;
mod policy;
mod policies;
mod dns;
mod services;

#[cfg(test)]
mod tests;

pub use protocol::{ProtocolHints, protocol};

use super::{Checked, Error, error::Faults, schema::File};

pub(super) fn check(file: &File) -> Result<Checked, Error> {
    let mut faults = Faults::default();
    let pods = pods::check(&file.pods, &mut faults);
    // Policies are resolved into the ports of the services, but their faults are told where they stand: last.
    let mut policy_faults = Faults::default();
    let attached = policies::check(&file.policies, &file.services, &mut policy_faults);
    let services::Services { services, dns } = services::check(&file.services, &attached, &mut faults);
    faults.append(policy_faults);
    faults.or(Checked { pods, services, dns })
}
