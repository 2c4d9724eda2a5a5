//! What is wrong with a configuration, where, and what to write instead.

use std::{fmt, io, path::PathBuf};

use serde::Serialize;

use crate::model::{Pattern, PatternError, PatternShare};

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
    /// The regular expressions of a route are more, or take more, than is left to its namespace.
    #[error(
        "its regular expressions are over the share of its namespace (--max-route-patterns, --max-route-pattern-bytes): \
         write fewer or simpler ones"
    )]
    OverShare,
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

impl Problem {
    fn new(
        at: At<'_>,
        value: impl fmt::Display,
        fault: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            path: at.to_string(),
            value: value.to_string(),
            fault: fault.into(),
            remedy: remedy.into(),
        }
    }
}

/// Faults in one line.
pub(super) fn one_line(problems: &[Problem]) -> String {
    let words: Vec<String> = problems.iter().map(Problem::to_string).collect();
    words.join("; ")
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

/// Collects faults while a check goes on, and what the patterns take that it has compiled.
#[derive(Debug)]
pub(super) struct Faults {
    problems: Vec<Problem>,
    /// Rules with faults, by their positions: the others count without them.
    set_aside: Vec<(usize, Vec<Problem>)>,
    /// References to what is known to be no target, which costs nothing but the reference.
    foreign: Vec<Problem>,
    share: PatternShare,
    taken: PatternShare,
    is_over_share: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self::within(PatternShare::UNLIMITED)
    }
}

impl Faults {
    /// Patterns may take so much together.
    pub(super) fn within(share: PatternShare) -> Self {
        Self {
            problems: Vec::new(),
            set_aside: Vec::new(),
            foreign: Vec::new(),
            share,
            taken: PatternShare::default(),
            is_over_share: false,
        }
    }

    /// The compiled pattern; `None` when that is one too many, and nothing more is compiled from then on.
    pub(super) fn pattern(&mut self, text: &str) -> Result<Option<Pattern>, PatternError> {
        if self.is_over_share || self.taken.count >= self.share.count {
            self.is_over_share = true;
            return Ok(None);
        }
        let pattern = Pattern::new(text)?;
        self.taken = self.taken.with(PatternShare::of(&pattern));
        self.is_over_share = !self.share.covers(self.taken);
        Ok((!self.is_over_share).then_some(pattern))
    }

    /// What the patterns take.
    pub(super) fn patterns(&self) -> PatternShare {
        self.taken
    }

    pub(super) fn add(
        &mut self,
        at: At<'_>,
        value: impl fmt::Display,
        fault: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem::new(at, value, fault, remedy));
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    /// Sets aside what was found since there were `begun`, in the rule at `position`; the first of it in words.
    pub(super) fn set_aside(&mut self, position: usize, begun: usize) -> Option<String> {
        let found = self.problems.split_off(begun);
        let first = found.first()?.to_string();
        self.set_aside.push((position, found));
        Some(first)
    }

    /// What was set aside.
    pub(super) fn aside(&self) -> &[(usize, Vec<Problem>)] {
        &self.set_aside
    }

    /// What was set aside counts like all other faults.
    pub(super) fn count_all(&mut self) {
        let aside = std::mem::take(&mut self.set_aside).into_iter();
        self.problems.extend(aside.flat_map(|(_, problems)| problems));
    }

    /// A reference of a kind that is no target here.
    pub(super) fn add_foreign(
        &mut self,
        at: At<'_>,
        value: impl fmt::Display,
        fault: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.foreign.push(Problem::new(at, value, fault, remedy));
    }

    pub(super) fn foreign(&self) -> &[Problem] {
        &self.foreign
    }

    /// Puts what a later section's check has found behind what is here.
    pub(super) fn append(&mut self, later: Faults) {
        self.problems.extend(later.problems);
        self.set_aside.extend(later.set_aside);
        self.foreign.extend(later.foreign);
        self.taken = self.taken.with(later.taken);
        self.is_over_share |= later.is_over_share;
    }

    /// `value` when nothing was found.
    pub(super) fn or<T>(self, value: T) -> Result<T, Error> {
        if self.is_over_share {
            Err(Error::OverShare)
        } else if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(Error::Faults(self.problems))
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
