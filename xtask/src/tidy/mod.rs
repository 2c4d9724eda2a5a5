//! The repository's own rules: who may import what, how long a file is, and that maps and metrics are documented.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::workspace;

/// What the documentation tells to run.
mod commands;
/// What the layout comes to in figures.
mod figures;
/// Which file uses which.
mod modules;
/// Who may import what.
mod rooms;
/// What a file says.
mod source;

use modules::{Module, Modules};
use source::Source;

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
    let mut modules = Vec::new();
    let sources = files(&root, &["agent", "ebpf", "xtask", "tests"], "rs")?;
    for path in &sources {
        let text = read(path)?;
        let name = path.strip_prefix(&root).unwrap_or(path);
        let lines = without_tests(&text).lines().count();
        check_length(name, lines, &mut faults);
        if let Ok(inside) = name.strip_prefix("agent/src") {
            let source = Source::parse(&text).with_context(|| format!("reading {}", name.display()))?;
            modules.extend(Module::new(inside, lines, source));
        }
    }
    let modules = Modules::new(modules);
    faults.extend(rooms::faults(&modules));
    let figures = figures::Figures::of(&modules);
    faults.extend(figures.faults());
    check_documented(
        &root,
        "ebpf/src/maps.rs",
        Source::map_names,
        "docs/kernel.md",
        &mut faults,
    )?;
    check_documented(
        &root,
        "agent/src/record/names.rs",
        Source::metric_names,
        "docs/metrics.md",
        &mut faults,
    )?;
    check_commands(&root, &mut faults)?;
    table_in_docs(&root.join(TABLE_PAGE), table, &mut faults)?;
    if faults.is_empty() {
        println!("{figures}");
        println!("tidy: {} files, nothing to report", sources.len());
        return Ok(());
    }
    bail!("not tidy:\n  {}", faults.join("\n  "))
}

/// The file up to its unit tests.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests")
        .map_or(text, |end| &text[..end + 1])
}

/// A file that holds nothing but tests may be as long as they are many.
fn check_length(name: &Path, lines: usize, faults: &mut Vec<String>) {
    let is_tests = (name.file_name()).is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"));
    if lines > MAX_LINES && !is_tests {
        faults.push(format!(
            "{}: {lines} lines before its tests, more than {MAX_LINES}: split it",
            name.display()
        ));
    }
}

/// Every name that `names` finds in `code` must occur in `page` as `` `name` ``. There must be some: a rule that finds
/// nothing to look at guards nothing.
fn check_documented(
    root: &Path,
    code: &str,
    names: fn(&Source) -> Vec<String>,
    page: &str,
    faults: &mut Vec<String>,
) -> Result<()> {
    let source = Source::parse(&read(&root.join(code))?).with_context(|| format!("reading {code}"))?;
    let names = names(&source);
    ensure!(
        !names.is_empty(),
        "{code} names nothing that {page} could document"
    );
    let text = read(&root.join(page))?;
    for name in names {
        // A metric's unit and `_total` are added to its name when it is shown.
        if !text.contains(&format!("`{name}")) {
            faults.push(format!("{page}: `{name}` of {code} is not documented"));
        }
    }
    Ok(())
}

/// The pages name no subcommand that is not there.
fn check_commands(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    const CODE: &str = "agent/src/cli/mod.rs";
    let source = Source::parse(&read(&root.join(CODE))?).with_context(|| format!("reading {CODE}"))?;
    let variants = source.variants("Command").into_iter();
    let known: Vec<String> = variants.map(|variant| commands::word(&variant)).collect();
    ensure!(!known.is_empty(), "{CODE} has no subcommands");
    for page in files(root, &["docs", "deploy"], "md")?
        .into_iter()
        .chain([root.join("README.md")])
    {
        for word in commands::unknown(&read(&page)?, &known) {
            let name = page.strip_prefix(root).unwrap_or(&page);
            faults.push(format!("{}: there is no `derny {word}`", name.display()));
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

/// All files with this extension below these directories, but for those that are built.
fn files(root: &Path, below: &[&str], wanted: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = below.iter().map(|it| root.join(it)).collect();
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == wanted) {
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
