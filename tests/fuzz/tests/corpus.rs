//! What has been found once stays mended.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// One test, since the memory of the process is counted.
#[test]
fn every_input_of_the_corpus_is_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let targets: BTreeSet<PathBuf> = derny_fuzz::targets().map(|name| corpus.join(name)).collect();
    assert_eq!(targets, entries(&corpus), "each target has a corpus");
    for directory in targets {
        let target = directory.file_name().unwrap().to_str().unwrap();
        for input in entries(&directory) {
            let taken = derny_fuzz::run(target, &fs::read(&input).unwrap());
            taken.unwrap_or_else(|fault| panic!("{}: {fault}", input.display()));
        }
    }
}
