//! What was known of pods, on disk: an agent that starts while the API server is away goes on with it.
//!
//! A pod that has gone meanwhile has no control group with its UID any more, so what is old here enrols nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::objects::{Namespace, Pod};

/// Of the form of the file. A file of another one is not read.
const VERSION: u32 = 1;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    version: u32,
    /// The fields that count, and no others.
    pub(super) pods: Vec<Pod>,
    pub(super) namespaces: Vec<Namespace>,
}

impl Saved {
    pub(super) fn new(pods: Vec<Pod>, namespaces: Vec<Namespace>) -> Self {
        Self {
            version: VERSION,
            pods,
            namespaces,
        }
    }

    /// Beside the file that keeps the services.
    pub(super) fn path(state_file: &Path) -> PathBuf {
        let mut path = state_file.as_os_str().to_owned();
        path.push(".pods");
        path.into()
    }

    /// Puts it in the place of what is at `path`, whole or not at all. Blocks.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let next = path.with_added_extension("next");
        fs::write(&next, serde_json::to_vec(self)?)?;
        fs::rename(&next, path)
    }

    /// `None`: there is none.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let saved: Self = serde_json::from_slice(&bytes)?;
        Ok((saved.version == VERSION).then_some(saved))
    }
}
