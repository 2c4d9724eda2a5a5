//! Who may import what: the agent's rooms as data.

use super::modules::{Module, Modules, Used};

struct Room {
    name: &'static str,
    /// What it is for, in a few words.
    line: &'static str,
    /// Rooms, or modules of rooms, that it may import.
    may: &'static [&'static str],
    /// Foreign crates that it never touches.
    never: &'static [&'static str],
}

/// In the order of `agent/src/lib.rs`.
const ROOMS: [Room; 28] = [
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
        &["model"],
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
        &["share", "record", "transport"],
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
        &["model", "share", "record", "transport"],
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
    room(
        "proxy",
        "the story",
        &[
            "model",
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
        ],
        &["aya"],
    ),
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
        "options",
        "what the agent is told at its start",
        &["config", "transport"],
        &["tokio", "aya", "hyper"],
    ),
    room("admin", "windows", &["drain"], &["aya"]),
    room(
        "inspect",
        "what the agent shows of itself",
        &[
            "model",
            "config",
            "intercept",
            "share",
            "route",
            "balance",
            "respond",
            "record",
            "proxy",
            "discover",
            "health",
            "snapshot",
            "publish",
            "admin",
            "drain",
            "ready",
            "live",
            "telemetry",
        ],
        &["aya", "hyper"],
    ),
    room(
        "cli",
        "one file per subcommand",
        &[
            "model",
            "config",
            "import",
            "admin",
            "intercept",
            "telemetry",
            "options",
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
        never,
    }
}

/// Where the code and the table differ. Unit tests may import what they like.
pub(super) fn faults(modules: &Modules) -> Vec<String> {
    let of_modules = modules.iter().flat_map(breaches);
    let of_the_table = ROOMS.iter().flat_map(|room| room.says_too_much(modules));
    of_modules.chain(of_the_table).collect()
}

/// What a module imports although its room may not.
fn breaches(module: &Module) -> Vec<String> {
    let name = module.name.join("::");
    let Some(room) = ROOMS.iter().find(|room| room.name == module.room()) else {
        return vec![format!(
            "{name}: this room is not in the table of xtask/src/tidy/rooms.rs"
        )];
    };
    let fault = |used| match used {
        Used::Own(path) => {
            let path = path.join("::");
            (!room.allows(&path)).then(|| format!("{name}: may not import `crate::{path}`"))
        }
        Used::Other(path) => {
            let of = path.first().map_or("", String::as_str);
            room.never
                .contains(&of)
                .then(|| format!("{name}: may not use the crate `{of}`"))
        }
    };
    let mut faults: Vec<_> = module.paths().filter_map(fault).collect();
    faults.sort();
    faults.dedup();
    faults
}

impl Room {
    /// Modules that are not there, and rights that nobody uses.
    fn says_too_much(&self, modules: &Modules) -> Vec<String> {
        let mut faults = Vec::new();
        let named = [&[self.name], self.may].concat();
        for name in named
            .into_iter()
            .filter(|name| *name != "*" && !modules.has(name))
        {
            faults.push(format!(
                "xtask/src/tidy/rooms.rs: `{}` names `{name}`, which is no module",
                self.name
            ));
        }
        for right in self.may.iter().filter(|right| **right != "*") {
            let is_used = (modules.iter().filter(|module| module.room() == self.name))
                .flat_map(|module| module.paths())
                .any(|used| matches!(used, Used::Own(path) if is_within(&path.join("::"), right)));
            if !is_used {
                faults.push(format!(
                    "xtask/src/tidy/rooms.rs: `{}` may import `{right}` and does not",
                    self.name
                ));
            }
        }
        faults
    }

    fn allows(&self, path: &str) -> bool {
        let within = |prefix: &str| is_within(path, prefix);
        let known = ROOMS.iter().any(|room| within(room.name));
        // Macros and items at the root belong to no room.
        !known || within(self.name) || self.may.iter().any(|may| *may == "*" || within(may))
    }
}

fn is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The table for the documentation.
pub(super) fn markdown() -> String {
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
        text += &format!(
            "| `{}` | {} | {} | {} |\n",
            room.name,
            room.line,
            list(room.may),
            list(room.never)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::source::Source, *};

    fn check(path: &str, code: &str, expected: &[&str]) {
        let module = Module::new(Path::new(path), 1, Source::parse(code).unwrap());
        let found: Vec<_> = module.iter().flat_map(breaches).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn imports_are_held_to_the_table() {
        check("pool/http1.rs", "use crate::{model::Slot, share::Share};", &[]);
        check("pool/mod.rs", "use super::model::Slot;", &[]);
        check(
            "pool/http1.rs",
            "use crate::balance::Picker;",
            &["pool::http1: may not import `crate::balance::Picker`"],
        );
        check(
            "pool/http1.rs",
            "fn f() { println!(\"{}\", super::super::balance::G) }",
            &["pool::http1: may not import `crate::balance::G`"],
        );
        check(
            "balance/mod.rs",
            "use tokio::time;",
            &["balance: may not use the crate `tokio`"],
        );
        check("proxy/http.rs", "use crate::snapshot::Snapshot;", &[]);
        check(
            "drain.rs",
            "use crate::model;",
            &["drain: may not import `crate::model`"],
        );
        check("app.rs", "use crate::{proxy, intercept};", &[]);
        check("lib.rs", "pub mod x;", &[]);
        check(
            "attic/mod.rs",
            "",
            &["attic: this room is not in the table of xtask/src/tidy/rooms.rs"],
        );
    }

    #[test]
    fn a_table_that_says_too_much_is_found() {
        let room = room("pool", "", &["model", "share", "attic", "model::gone"], &[]);
        let module = |path: &str, code| Module::new(Path::new(path), 1, Source::parse(code).unwrap());
        let modules = Modules::new(
            [
                module("model.rs", ""),
                module("share.rs", ""),
                module("pool.rs", "use crate::model::Slot;"),
            ]
            .into_iter()
            .flatten(),
        );
        let found = room.says_too_much(&modules);
        assert_eq!(
            found,
            [
                "xtask/src/tidy/rooms.rs: `pool` names `attic`, which is no module",
                "xtask/src/tidy/rooms.rs: `pool` names `model::gone`, which is no module",
                "xtask/src/tidy/rooms.rs: `pool` may import `share` and does not",
                "xtask/src/tidy/rooms.rs: `pool` may import `attic` and does not",
                "xtask/src/tidy/rooms.rs: `pool` may import `model::gone` and does not",
            ]
        );
    }
}
