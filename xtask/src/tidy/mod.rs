//! The repository's own rules: who may import what, how long a file is, and that maps and metrics are documented.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::workspace;

mod rooms;
mod source;

/// Lines of a file before its tests.
const MAX_LINES: usize = 400;

/// Where the table of import rules stands in the documentation.
const TABLE_PAGE: &str = "docs/architecture.md";
const TABLE_BEGIN: &str = "<!-- import rules: written by `cargo xtask tidy --write` -->";
const TABLE_END: &str = "<!-- end of import rules -->";

/// What to do with the table of import rules in the documentation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Check,
    Write,
}

pub(crate) fn run(table: Table) -> Result<()> {
    let root = workspace();
    let mut faults = Vec::new();
    let files = rust_files(&root)?;
    for path in &files {
        let text = read(path)?;
        let name = path.strip_prefix(&root).unwrap_or(path);
        check_length(name, &text, &mut faults);
        if let Ok(inside) = name.strip_prefix("agent/src") {
            faults.extend(
                rooms::breaches(inside, &text)
                    .into_iter()
                    .map(|it| format!("{}: {it}", name.display())),
            );
        }
    }
    check_documented(
        &root,
        "ebpf/src/maps.rs",
        source::map_names,
        "docs/kernel.md",
        &mut faults,
    )?;
    check_documented(
        &root,
        "agent/src/record/names.rs",
        source::string_constants,
        "docs/metrics.md",
        &mut faults,
    )?;
    table_in_docs(&root.join(TABLE_PAGE), table, &mut faults)?;
    if faults.is_empty() {
        println!("tidy: {} files, nothing to report", files.len());
        return Ok(());
    }
    bail!("not tidy:\n  {}", faults.join("\n  "))
}

/// A file that holds nothing but tests may be as long as they are many.
fn check_length(name: &Path, text: &str, faults: &mut Vec<String>) {
    if name
        .file_name()
        .is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"))
    {
        return;
    }
    let lines = source::without_tests(text).lines().count();
    if lines > MAX_LINES {
        faults.push(format!(
            "{}: {lines} lines before its tests, more than {MAX_LINES}: split it",
            name.display()
        ));
    }
}

/// Every name that `names` finds in `code` must occur in `page` as `` `name` ``. Nothing is asked while the code
/// does not exist.
fn check_documented(
    root: &Path,
    code: &str,
    names: fn(&str) -> Vec<String>,
    page: &str,
    faults: &mut Vec<String>,
) -> Result<()> {
    if !root.join(code).exists() {
        return Ok(());
    }
    let names = names(&read(&root.join(code))?);
    if names.is_empty() {
        return Ok(());
    }
    let Ok(text) = fs::read_to_string(root.join(page)) else {
        faults.push(format!("{page} is missing: it documents what {code} names"));
        return Ok(());
    };
    for name in names {
        // A metric's unit and `_total` are added to its name when it is shown.
        if !text.contains(&format!("`{name}")) {
            faults.push(format!("{page}: `{name}` of {code} is not documented"));
        }
    }
    Ok(())
}

/// Compares the table in the documentation with the data, or writes it there.
fn table_in_docs(page: &Path, table: Table, faults: &mut Vec<String>) -> Result<()> {
    let Ok(text) = fs::read_to_string(page) else {
        ensure!(table == Table::Check, "{TABLE_PAGE} does not exist");
        return Ok(());
    };
    let between = text.split_once(TABLE_BEGIN).and_then(|(before, rest)| {
        let (old, after) = rest.split_once(TABLE_END)?;
        Some((before, old, after))
    });
    let Some((before, old, after)) = between else {
        faults.push(format!(
            "{TABLE_PAGE} lacks the lines {TABLE_BEGIN:?} and {TABLE_END:?}"
        ));
        return Ok(());
    };
    let new = format!("\n{}", rooms::markdown());
    if old != new {
        match table {
            Table::Check => faults.push(format!(
                "{TABLE_PAGE} is not up to date: cargo xtask tidy --write"
            )),
            Table::Write => fs::write(page, format!("{before}{TABLE_BEGIN}{new}{TABLE_END}{after}"))
                .with_context(|| format!("writing {}", page.display()))?,
        }
    }
    Ok(())
}

/// All Rust files of the workspace, but for those that are built.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = ["agent", "ebpf", "xtask", "tests"].map(|it| root.join(it)).into();
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
