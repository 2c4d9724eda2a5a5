//! Who may import what: the agent's rooms as data.

use std::path::Path;

use super::source::{crate_paths, mentions, without_comments, without_tests};

struct Room {
    name: &'static str,
    /// What it is for, in a few words.
    line: &'static str,
    /// Rooms, or modules of rooms, that it may import.
    may: &'static [&'static str],
    /// Modules that it may not import although it may import their room.
    but_not: &'static [&'static str],
    /// Foreign crates that it never touches.
    never: &'static [&'static str],
}

/// In the order of `agent/src/lib.rs`.
const ROOMS: [Room; 26] = [
    room(
        "model",
        "the words",
        &[],
        &["tokio", "serde", "prost", "aya", "hyper"],
    ),
    room(
        "config",
        "user's words → checked values",
        &["model"],
        &["tokio", "aya", "hyper"],
    ),
    room(
        "intercept",
        "the only room that knows the kernel",
        &["model", "config"],
        &["hyper", "tonic"],
    ),
    room(
        "share",
        "what a pod may hold, and its turn",
        &["model"],
        &["aya", "hyper"],
    ),
    room(
        "transport",
        "one TCP connection and its peer",
        &[],
        &["aya", "hyper"],
    ),
    room(
        "accept",
        "bytes in, protocol decided",
        &["model", "config", "share", "record", "drain", "transport"],
        &["aya", "hyper"],
    ),
    room(
        "route",
        "a request → its rule, backend and changes",
        &["model"],
        &["tokio", "aya", "hyper"],
    ),
    room(
        "balance",
        "pure choice; `now` and `rng` are given",
        &["model"],
        &["tokio", "aya", "hyper"],
    ),
    room(
        "pool",
        "connections out",
        &["model", "config", "share", "record", "drain", "transport"],
        &["aya"],
    ),
    room(
        "retry",
        "again, or not",
        &["model", "share", "respond", "record"],
        &["tokio", "aya", "hyper"],
    ),
    room(
        "respond",
        "what the caller gets",
        &["model", "record"],
        &["tokio", "aya"],
    ),
    room(
        "record",
        "the only room that names metrics",
        &["model", "share"],
        &["hyper", "aya"],
    ),
    Room {
        but_not: &["snapshot::apply"],
        ..room(
            "proxy",
            "the story",
            &[
                "model",
                "config",
                "share",
                "accept",
                "route",
                "balance",
                "pool",
                "retry",
                "respond",
                "record",
                "snapshot",
                "drain",
                "transport",
                "live",
            ],
            &["aya"],
        )
    },
    room(
        "discover",
        "the world → updates",
        &["model", "config", "drain", "ready"],
        &["aya", "hyper"],
    ),
    room(
        "health",
        "active checks → endpoint state",
        &["model", "pool", "snapshot", "drain"],
        &["aya"],
    ),
    room(
        "snapshot",
        "pure reducer",
        &["model", "route"],
        &["tokio", "aya", "hyper"],
    ),
    room(
        "publish",
        "a view → workers and kernel",
        &["model", "snapshot", "intercept", "drain", "ready"],
        &["aya", "hyper"],
    ),
    room(
        "import",
        "another proxy's configuration → ours",
        &["config"],
        &["tokio", "aya", "hyper"],
    ),
    room(
        "admin",
        "windows",
        &[
            "model",
            "snapshot",
            "intercept",
            "record",
            "drain",
            "ready",
            "telemetry",
        ],
        &["aya"],
    ),
    room(
        "cli",
        "one file per subcommand",
        &[
            "model",
            "config",
            "share",
            "import",
            "admin",
            "intercept",
            "telemetry",
            "transport",
            "app",
        ],
        &["aya", "hyper"],
    ),
    room(
        "drain",
        "begin to end a task, and know when it has",
        &[],
        &["aya", "hyper"],
    ),
    room(
        "ready",
        "ready when nothing is left to wait for",
        &[],
        &["aya", "hyper"],
    ),
    room(
        "live",
        "alive while everything runs that must",
        &[],
        &["aya", "hyper"],
    ),
    room("telemetry", "the agent's own log", &[], &["aya", "hyper"]),
    room("fuzz", "what reads bytes that others choose", &["*"], &["aya"]),
    room("app", "the wiring", &["*"], &[]),
];

const fn room(
    name: &'static str,
    line: &'static str,
    may: &'static [&'static str],
    never: &'static [&'static str],
) -> Room {
    Room {
        name,
        line,
        may,
        but_not: &[],
        never,
    }
}

/// What a file below `agent/src` imports although its room may not. Unit tests may import what they like.
pub(crate) fn breaches(path: &Path, text: &str) -> Vec<String> {
    let Some(name) = path.iter().next().and_then(|first| first.to_str()) else {
        return Vec::new();
    };
    let name = name.trim_end_matches(".rs");
    let only_tests = path.file_name().is_some_and(|file| file == "tests.rs");
    if name == "lib" || name == "main" || only_tests {
        return Vec::new();
    }
    match ROOMS.iter().find(|room| room.name == name) {
        Some(room) => room.breaches(&without_comments(without_tests(text))),
        None => vec![format!(
            "the room `{name}` is not in the table of xtask/src/tidy/rooms.rs"
        )],
    }
}

impl Room {
    fn breaches(&self, code: &str) -> Vec<String> {
        let paths = crate_paths(code).into_iter().filter(|path| !self.allows(path));
        let crates = self.never.iter().filter(|name| mentions(code, name));
        paths
            .map(|path| format!("`{}` may not import `crate::{path}`", self.name))
            .chain(crates.map(|name| format!("`{}` may not use the crate `{name}`", self.name)))
            .collect()
    }

    fn allows(&self, path: &str) -> bool {
        let within = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let known = ROOMS.iter().any(|room| within(room.name));
        // Macros and items at the root belong to no room.
        !known
            || within(self.name)
            || (self.may.iter().any(|may| *may == "*" || within(may))
                && !self.but_not.iter().any(|not| within(not)))
    }
}

/// The table for the documentation.
pub(crate) fn markdown() -> String {
    let list = |names: &[&str]| match names {
        [] => "–".to_owned(),
        ["*"] => "everything".to_owned(),
        names => names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut text = "| room | one line | may import | never |\n|---|---|---|---|\n".to_owned();
    for room in &ROOMS {
        let never = [room.but_not, room.never].concat();
        text += &format!(
            "| `{}` | {} | {} | {} |\n",
            room.name,
            room.line,
            list(room.may),
            list(&never)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, code: &str, expected: &[&str]) {
        assert_eq!(breaches(Path::new(path), code), expected);
    }

    #[test]
    fn imports_are_held_to_the_table() {
        check("pool/http1.rs", "use crate::{model::Slot, config::Bounds};", &[]);
        check(
            "pool/http1.rs",
            "use crate::balance::Picker;",
            &["`pool` may not import `crate::balance::Picker`"],
        );
        check(
            "balance/mod.rs",
            "use tokio::time;",
            &["`balance` may not use the crate `tokio`"],
        );
        check("proxy/http.rs", "use crate::snapshot::Snapshot;", &[]);
        check(
            "proxy/http.rs",
            "use crate::snapshot::apply::apply;",
            &["`proxy` may not import `crate::snapshot::apply::apply`"],
        );
        check(
            "drain.rs",
            "use crate::model;",
            &["`drain` may not import `crate::model`"],
        );
        check("app.rs", "use crate::{proxy, intercept};", &[]);
        check("lib.rs", "pub mod x;", &[]);
        check(
            "attic/mod.rs",
            "",
            &["the room `attic` is not in the table of xtask/src/tidy/rooms.rs"],
        );
    }

    #[test]
    fn tests_may_import_what_they_like() {
        check(
            "model/mod.rs",
            "pub struct A;\n\n#[cfg(test)]\nmod tests {\n use crate::proxy;\n}\n",
            &[],
        );
    }
}
