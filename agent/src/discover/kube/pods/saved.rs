//! What is known of pods, as it is saved.
//!
//! A pod that has gone meanwhile has no control group with its UID any more, so what is old here enrols nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::objects::{Namespace, Pod};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The fields that count, and no others.
    pub(super) pods: Vec<Pod>,
    pub(super) namespaces: Vec<Namespace>,
}

impl Saved {
    /// Beside the file that keeps the services.
    pub(super) fn path(state_file: &Path) -> PathBuf {
        let mut path = state_file.as_os_str().to_owned();
        path.push(".pods");
        path.into()
    }
}
