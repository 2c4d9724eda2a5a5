//! `derny crd`

use super::failure::Failure;
use crate::config::crd;

/// Prints the CustomResourceDefinition of TrafficPolicy.
pub(super) fn show() -> Result<(), Failure> {
    print!("{}", crd::yaml());
    Ok(())
}
