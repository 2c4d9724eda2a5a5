//! What is wrong with a configuration, where, and what to write instead.

use std::{fmt, io, path::PathBuf};

use serde::Serialize;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Not YAML, or not one document. The message has line and column.
    #[error("not valid YAML: {0}")]
    Yaml(String),
    /// A field that does not exist, is missing or has a value of another type. The parser stops at the first.
    #[error("{path}: {message}")]
    Shape { path: String, message: String },
    /// Everything that the check found, in the order of the file's sections.
    #[error("{}", lines(.0))]
    Faults(Vec<Problem>),
}

impl Error {
    /// The error line by line, one for each thing that is to be changed.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Faults(problems) => problems.iter().map(Problem::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// One fault: ``path: `value` fault: remedy``.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where in the file: `services[0].ports[1].port`.
    pub path: String,
    pub value: String,
    /// What is wrong with the value, to be read behind it.
    pub fault: String,
    /// What to do about it, in the imperative.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            value,
            fault,
            remedy,
        } = self;
        write!(f, "{path}: `{value}` {fault}: {remedy}")
    }
}

/// Collects faults while a check goes on.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Problem>);

impl Faults {
    pub(super) fn add(
        &mut self,
        at: At<'_>,
        value: impl fmt::Display,
        fault: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Problem {
            path: at.to_string(),
            value: value.to_string(),
            fault: fault.into(),
            remedy: remedy.into(),
        });
    }

    /// Puts what a later section's check has found behind what is here.
    pub(super) fn append(&mut self, later: Faults) {
        self.0.extend(later.0);
    }

    /// `value` when nothing was found.
    pub(super) fn or<T>(self, value: T) -> Result<T, Error> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(Error::Faults(self.0))
        }
    }
}

/// A place in the file. Costs nothing until it is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum At<'a> {
    Section(&'static str),
    Field(&'a At<'a>, &'static str),
    Item(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    pub(super) fn field(&'a self, name: &'static str) -> At<'a> {
        At::Field(self, name)
    }

    pub(super) fn item(&'a self, index: usize) -> At<'a> {
        At::Item(self, index)
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Section(name) => f.write_str(name),
            At::Field(parent, name) => write!(f, "{parent}.{name}"),
            At::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
