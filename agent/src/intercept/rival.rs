//! Other agents on the same control groups. Two would mix: each redirects what it serves, to listeners that may stand in a
//! slot of the other's.
//!
//! An agent that has begun to end has detached its connect programs ([`super::Kernel::stop`]), so its successor need not
//! wait for its last connection.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    InterceptError,
    attach::CONNECT4,
    order::{self, Hook},
};

/// A loaded `derny_connect4` that sees connections of the same pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// The kernel's number of the program.
    pub program: u32,
    /// What it is attached to.
    pub group: PathBuf,
    /// Who holds it, where this process can see that.
    pub process: Option<u32>,
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, group, .. } = self;
        write!(
            f,
            "{CONNECT4}, program {program} at control group {}",
            group.display()
        )?;
        match self.process {
            Some(process) => write!(f, ", of process {process}"),
            None => write!(f, ", of a process that is not seen from here"),
        }
    }
}

/// One at this control group, above or below.
///
/// # Errors
/// The kernel does not tell which programs there are.
pub fn find_rival(group: &Path) -> Result<Option<Rival>, InterceptError> {
    find(group, u32::MAX)
}

/// One that was loaded before the program of this number.
pub(super) fn find(group: &Path, before: u32) -> Result<Option<Rival>, InterceptError> {
    let attached = order::attached_around(group, Hook::Connect4)?;
    let candidates: Vec<(PathBuf, u32)> = attached.into_iter().filter(|(_, id)| *id < before).collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    let names = order::names();
    let rival = candidates
        .into_iter()
        .find(|(_, id)| names.get(id).is_some_and(|name| name == CONNECT4));
    Ok(rival.map(|(group, program)| Rival {
        program,
        group,
        process: holder(program),
    }))
}

/// A process that has the program open.
fn holder(program: u32) -> Option<u32> {
    let line = format!("prog_id:\t{program}");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|process| {
        let open = fs::read_dir(format!("/proc/{process}/fdinfo"));
        let mut texts = open
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path()).ok());
        texts.any(|text| text.lines().any(|it| it == line))
    })
}
