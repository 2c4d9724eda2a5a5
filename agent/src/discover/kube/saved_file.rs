//! What is known, in a file: an agent that starts while the API server is away goes on with it.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Of the form of the files. A file of another one is not read.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    saved: T,
}

/// Puts it in the place of what is at `path`, whole or not at all. Blocks.
pub(super) fn write(path: &Path, saved: &impl Serialize) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let next = path.with_added_extension("next");
    let mut file = BufWriter::new(File::create(&next)?);
    let version = VERSION;
    serde_json::to_writer(&mut file, &Versioned { version, saved })?;
    file.flush()?;
    fs::rename(&next, path)
}

/// `None`: there is none, or it is of another form. Blocks.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let read: Versioned<T> = serde_json::from_slice(&bytes)?;
    Ok((read.version == VERSION).then_some(read.saved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written_unless_its_form_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/state.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None, "there is none");
        let saved = std::collections::BTreeMap::from([("a".to_owned(), 1)]);
        write(&path, &saved).unwrap();
        assert_eq!(read(&path).unwrap(), Some(saved));
        fs::write(&path, r#"{"version": 2, "a": 1}"#).unwrap();
        assert_eq!(
            read::<std::collections::BTreeMap<String, u8>>(&path).unwrap(),
            None
        );
        fs::write(&path, "{").unwrap();
        read::<std::collections::BTreeMap<String, u8>>(&path).unwrap_err();
    }
}
