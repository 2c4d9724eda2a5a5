//! The agent's modules, and which of them use which.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};

use super::source::{Names, Source};

/// A module that is a file.
pub(super) struct Module {
    /// Of the crate, `a::b` as `["a", "b"]`.
    pub(super) name: Names,
    /// Before its tests.
    pub(super) lines: usize,
    source: Source,
}

/// All files of one crate, but for those that are tests.
pub(super) struct Modules(BTreeMap<Names, Module>);

impl Module {
    /// `None` for the roots of the crate.
    pub(super) fn new(path: &Path, lines: usize, source: Source) -> Option<Self> {
        let mut name: Names = path
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        let last = name.pop()?;
        if name.is_empty() && (last == "lib" || last == "main") {
            return None;
        }
        if last != "mod" {
            name.push(last);
        }
        Some(Self { name, lines, source })
    }

    pub(super) fn room(&self) -> &str {
        self.name.first().map_or("", String::as_str)
    }

    /// What it names, from the root of the crate on; paths of other crates as they are.
    pub(super) fn paths(&self) -> impl Iterator<Item = Used> {
        self.source
            .paths()
            .into_iter()
            .filter_map(|path| used(&self.name, path))
    }
}

/// Something that a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Used {
    /// Of this crate.
    Own(Names),
    /// Of another, or below the module itself.
    Other(Names),
}

fn used(module: &[String], path: Names) -> Option<Used> {
    let up = path.iter().take_while(|name| *name == "super").count();
    let base = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().checked_sub(up)?].to_vec(),
        _ => return Some(Used::Other(path)),
    };
    let rest = &path[up.max(1)..];
    Some(Used::Own([&base, rest].concat()))
}

impl Modules {
    pub(super) fn new(modules: impl IntoIterator<Item = Module>) -> Self {
        let mut all: BTreeMap<Names, Module> = (modules.into_iter())
            .map(|module| (module.name.clone(), module))
            .collect();
        let for_tests: Vec<Names> = (all.values())
            .flat_map(|module| {
                let below = module.source.test_modules().iter();
                below.map(|name| [&module.name[..], std::slice::from_ref(name)].concat())
            })
            .collect();
        all.retain(|name, _| !for_tests.iter().any(|tests| name.starts_with(tests)));
        Self(all)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Module> {
        self.0.values()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let name: Names = name.split("::").map(str::to_owned).collect();
        self.0.contains_key(&name)
    }

    /// The modules whose items `module` uses. What a module passes on counts as the one that it comes from.
    fn uses(&self, module: &Module) -> BTreeSet<&Names> {
        let paths = module.paths().map(|path| match path {
            Used::Own(path) => path,
            Used::Other(path) => [&module.name[..], &path].concat(),
        });
        let passed_on = module.source.reexports();
        paths
            .filter(|path| !is_passed_on(&module.name, path, &passed_on))
            .filter_map(|path| self.home(path))
            .filter(|home| **home != module.name)
            .collect()
    }

    /// The module in which the item of this path is.
    fn home(&self, mut path: Names) -> Option<&Names> {
        // More often than this nothing is passed on; a circle of `pub use` does not compile.
        for _ in 0..8 {
            let (module, item) = (1..=path.len())
                .rev()
                .find_map(|length| Some((self.0.get(&path[..length])?, path.get(length))))?;
            let passed_on = item.and_then(|item| {
                let all = module.source.reexports();
                all.into_iter()
                    .find_map(|(name, from)| (name == *item).then_some(from))
            });
            let Some(from) = passed_on else {
                return Some(&module.name);
            };
            let from = match used(&module.name, from)? {
                Used::Own(path) => path,
                Used::Other(path) => [&module.name[..], &path].concat(),
            };
            path = [from, path[module.name.len() + 1..].to_vec()].concat();
        }
        None
    }

    /// Files that use each other, each of the others by way of some: the larger circles first.
    pub(super) fn circles(&self) -> Vec<Vec<String>> {
        let names: Vec<&Names> = self.0.keys().collect();
        let number = |name: &Names| names.binary_search(&name).unwrap_or_default();
        let mut graph = DiGraphMap::<usize, ()>::new();
        for module in self.iter() {
            for used in self.uses(module) {
                graph.add_edge(number(&module.name), number(used), ());
            }
        }
        let mut circles: Vec<Vec<String>> = tarjan_scc(&graph)
            .into_iter()
            .filter(|circle| circle.len() > 1)
            .map(|circle| {
                circle
                    .into_iter()
                    .map(|number| names[number].join("::"))
                    .collect()
            })
            .collect();
        circles.iter_mut().for_each(|circle| circle.sort());
        circles.sort_by_key(|circle| (usize::MAX - circle.len(), circle.clone()));
        circles
    }

    /// Pairs of rooms that use each other.
    pub(super) fn mutual_rooms(&self) -> Vec<(String, String)> {
        let edges: BTreeSet<(&str, &str)> = self
            .iter()
            .flat_map(|module| {
                let uses = self.uses(module).into_iter();
                uses.map(|used| (module.room(), used.first().map_or("", String::as_str)))
            })
            .collect();
        let mutual = edges
            .iter()
            .filter(|(from, to)| from < to && edges.contains(&(*to, *from)));
        mutual
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
            .collect()
    }

    /// Lines of each room.
    pub(super) fn lines(&self) -> BTreeMap<&str, usize> {
        let mut lines = BTreeMap::new();
        for module in self.iter() {
            *lines.entry(module.room()).or_default() += module.lines;
        }
        lines
    }
}

/// Whether the path is one of a `pub use` of the module itself.
fn is_passed_on(module: &[String], path: &[String], passed_on: &[(String, Names)]) -> bool {
    passed_on
        .iter()
        .any(|(_, from)| match used(module, from.clone()) {
            Some(Used::Own(own)) => own == path,
            Some(Used::Other(other)) => [module, &other].concat() == path,
            None => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)]) -> Modules {
        let module = |(path, text): &(&str, &str)| {
            Module::new(
                Path::new(path),
                text.lines().count(),
                Source::parse(text).unwrap(),
            )
        };
        Modules::new(files.iter().filter_map(module))
    }

    #[test]
    fn circles_are_found_through_what_is_passed_on() {
        let found = modules(&[
            ("lib.rs", "pub mod a;"),
            (
                "a/mod.rs",
                "mod b; mod c; pub use b::B; pub use c::C; #[cfg(test)] mod tests;",
            ),
            ("a/b.rs", "use super::C; pub struct B;"),
            ("a/c.rs", "use crate::a::B; pub struct C;"),
            ("a/tests.rs", "use super::b;"),
            ("d.rs", "fn f() { crate::a::B::new() }"),
        ]);
        assert_eq!(found.circles(), [["a::b", "a::c"]]);
        assert_eq!(found.mutual_rooms(), []);
    }

    #[test]
    fn a_parent_that_uses_its_child_is_no_circle_unless_that_uses_it() {
        let calm = ("a/mod.rs", "mod b; fn f() { b::g() } pub(super) struct A;");
        assert!(modules(&[calm, ("a/b.rs", "pub fn g() {}")]).circles().is_empty());
        let circle = modules(&[calm, ("a/b.rs", "pub fn g(_: super::A) {}")]).circles();
        assert_eq!(circle, [["a", "a::b"]]);
    }

    #[test]
    fn rooms_that_use_each_other_are_found() {
        let found = modules(&[
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use super::a; use crate::c::C;"),
            ("c.rs", ""),
        ]);
        assert_eq!(found.mutual_rooms(), [("a".to_owned(), "b".to_owned())]);
    }
}
