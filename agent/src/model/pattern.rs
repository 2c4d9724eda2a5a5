//! Regular expressions of routes, compiled so that what each takes is known and bounded.
//!
//! An expression becomes a whole automaton where that is small: it is shared by all workers, and a match takes a step for
//! each byte and no memory. Where it would be large, the states are made as they are needed, in a cache of which each
//! worker has one.

use std::{fmt, sync::Arc};

use regex_automata::{
    Anchored, Input,
    dfa::{Automaton as _, StartKind, dense},
    meta,
    nfa::thompson::{self, WhichCaptures},
};
use regex_syntax::hir::{Hir, HirKind, Look};

/// A regular expression (RE2 syntax) that has been compiled; it must match the whole value.
#[derive(Clone)]
pub struct Pattern(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    leading_elements: Box<str>,
    engine: Engine,
    bytes: usize,
}

enum Engine {
    Whole(Box<dense::DFA<Vec<u32>>>),
    AsNeeded(Box<meta::Regex>),
}

/// How many patterns, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatternShare {
    pub count: usize,
    pub bytes: usize,
}

impl PatternShare {
    pub const UNLIMITED: Self = Self {
        count: usize::MAX,
        bytes: usize::MAX,
    };

    pub fn of(pattern: &Pattern) -> Self {
        Self {
            count: 1,
            bytes: pattern.bytes(),
        }
    }

    pub fn with(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// What is left of it.
    pub fn without(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_sub(other.count),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// So much that it covers either.
    pub fn max(self, other: Self) -> Self {
        Self {
            count: self.count.max(other.count),
            bytes: self.bytes.max(other.bytes),
        }
    }

    pub fn covers(self, other: Self) -> bool {
        other.count <= self.count && other.bytes <= self.bytes
    }
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("{0}")]
    Syntax(String),
    #[error("needs more than {0} bytes when compiled")]
    TooBig(usize),
}

impl Pattern {
    /// Bytes of an automaton that is made whole.
    const WHOLE: usize = 512 * 1024;
    /// Bytes while it is being made.
    const MAKING: usize = 1024 * 1024;
    /// Bytes of the program of one that is not; one that needs more is refused.
    const PROGRAM: usize = 256 * 1024;
    /// Bytes of the states that a worker keeps of such a one.
    const CACHE: usize = 128 * 1024;

    pub fn new(text: &str) -> Result<Self, PatternError> {
        let syntax = |error: regex_syntax::Error| PatternError::Syntax(error.to_string());
        let written = regex_syntax::parse(text).map_err(syntax)?;
        let leading_elements = leading_elements(&written).into();
        let anchored = Hir::concat(vec![Hir::look(Look::Start), written, Hir::look(Look::End)]);
        let engine = match whole(&anchored)? {
            Some(whole) => Engine::Whole(Box::new(whole)),
            None => Engine::AsNeeded(Box::new(as_needed(&anchored)?)),
        };
        let bytes = match &engine {
            Engine::Whole(whole) => whole.memory_usage(),
            Engine::AsNeeded(regex) => {
                regex.memory_usage() + regex.create_cache().memory_usage() + Self::CACHE
            }
        };
        Ok(Self(Arc::new(Compiled {
            text: text.into(),
            leading_elements,
            engine,
            bytes: bytes + text.len(),
        })))
    }

    /// As the user wrote it.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The path elements that every text begins with which the expression matches: `/a/b` for `/a/b/c[0-9]*`, since
    /// the last may go on.
    pub fn leading_elements(&self) -> &str {
        &self.0.leading_elements
    }

    /// What it takes of memory, at most: with what the first worker keeps of it.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    pub fn matches(&self, value: &str) -> bool {
        let input = Input::new(value).anchored(Anchored::Yes).earliest(true);
        match &self.0.engine {
            // It fails at bytes at which it was told to stop, and it was told none.
            Engine::Whole(whole) => matches!(whole.try_search_fwd(&input), Ok(Some(_))),
            Engine::AsNeeded(regex) => regex.is_match(input),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text()).finish()
    }
}

/// `None` when it would be large, or has a word boundary of Unicode.
fn whole(hir: &Hir) -> Result<Option<dense::DFA<Vec<u32>>>, PatternError> {
    let config = thompson::Config::new()
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(Pattern::PROGRAM));
    let program = thompson::Compiler::new()
        .configure(config)
        .build_from_hir(hir)
        .map_err(|_| PatternError::TooBig(Pattern::PROGRAM))?;
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(Pattern::WHOLE))
        .determinize_size_limit(Some(Pattern::MAKING));
    Ok(dense::Builder::new()
        .configure(config)
        .build_from_nfa(&program)
        .ok())
}

fn as_needed(hir: &Hir) -> Result<meta::Regex, PatternError> {
    let config = meta::Config::new()
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(Pattern::PROGRAM))
        .hybrid_cache_capacity(Pattern::CACHE)
        .onepass(false)
        // Its memory grows with the value.
        .backtrack(false)
        .dfa(false);
    let built = meta::Builder::new().configure(config).build_from_hir(hir);
    built.map_err(|_| PatternError::TooBig(Pattern::PROGRAM))
}

fn leading_elements(hir: &Hir) -> String {
    let mut leading = Vec::new();
    literal(hir, &mut leading);
    let mut leading = String::from_utf8(leading).unwrap_or_default();
    if !leading.starts_with('/') {
        return String::new();
    }
    leading.truncate(leading.rfind('/').unwrap_or(0));
    leading
}

/// Appends the text that `hir` begins with; true when it is nothing but that text.
fn literal(hir: &Hir, leading: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(text) => {
            leading.extend_from_slice(&text.0);
            true
        }
        HirKind::Capture(capture) => literal(&capture.sub, leading),
        HirKind::Concat(parts) => parts.iter().all(|part| literal(part, leading)),
        HirKind::Class(_) | HirKind::Repetition(_) | HirKind::Alternation(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_value_and_no_part() {
        let check = |text: &str, value: &str, expect: bool| {
            assert_eq!(
                Pattern::new(text).unwrap().matches(value),
                expect,
                "{text} {value}"
            );
        };
        check("a|ab", "ab", true);
        check("a|b", "ab", false);
        check("(?i)/users/[0-9]+", "/Users/7", true);
        check("(?m)a$", "a\nb", false);
        check("", "", true);
        check(r"/\w+/é?", "/ü/é", true);
        // Made as needed: a word boundary of Unicode, and one whose automaton is large.
        check(r"/a\b.*", "/a/b", true);
        check(r"/a\b.*", "/ab", false);
        check("[ab]*a[ab]{15}", &format!("a{}", "b".repeat(15)), true);
        check("[ab]*a[ab]{15}", &"b".repeat(16), false);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["(", "a)|(b", "[", "(?=a)"] {
            assert!(
                matches!(Pattern::new(text), Err(PatternError::Syntax(_))),
                "{text}"
            );
        }
        assert_eq!(
            Pattern::new(r"\w{200}").unwrap_err(),
            PatternError::TooBig(Pattern::PROGRAM)
        );
    }

    #[test]
    fn what_a_pattern_takes_is_known() {
        let usual = Pattern::new("/api/v[0-9]+/users/[^/]+").unwrap();
        assert!(matches!(usual.0.engine, Engine::Whole(_)));
        assert!(usual.bytes() < 32 * 1024, "{}", usual.bytes());
        let large = Pattern::new("[ab]*a[ab]{20}").unwrap();
        assert!(matches!(large.0.engine, Engine::AsNeeded(_)));
        assert!(
            (Pattern::CACHE..2 * Pattern::WHOLE).contains(&large.bytes()),
            "{}",
            large.bytes()
        );
    }

    proptest! {
        /// Both ways of matching agree with another engine.
        #[test]
        fn it_matches_what_a_plain_engine_matches(text in "[ab]{0,3}(\\(a\\|b\\)|\\.\\*|a\\+|[ab]\\?|\\\\w|\\$|\\^){0,3}", value in "[ab]{0,6}") {
            let expect = meta::Regex::new(&format!("^(?:{text})$")).unwrap();
            let pattern = Pattern::new(&text).unwrap();
            prop_assert_eq!(pattern.matches(&value), expect.is_match(&value), "{} {}", &text, &value);
            let hir = Hir::concat(vec![
                Hir::look(Look::Start), regex_syntax::parse(&text).unwrap(), Hir::look(Look::End),
            ]);
            prop_assert_eq!(as_needed(&hir).unwrap().is_match(&value), expect.is_match(&value));
        }
    }
}
