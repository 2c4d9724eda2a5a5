//! What the layout of the agent comes to in figures, which may fall and not rise.

use std::fmt;

use super::modules::Modules;

/// Files that use each other, at most so many groups of them.
const MAX_CIRCLES: usize = 4;
/// Pairs of rooms that use each other.
const MAX_MUTUAL_ROOMS: usize = 0;
/// Lines of `app`, which puts the rooms together and should have no ideas of its own. To become 700.
const MAX_WIRING: usize = 1260;
/// Of all lines, those of the largest room. To become 12 %.
const MAX_SHARE: f64 = 0.163;

const WIRING: &str = "app";

pub(super) struct Figures {
    circles: Vec<Vec<String>>,
    mutual: Vec<(String, String)>,
    wiring: usize,
    largest: (String, f64),
}

impl Figures {
    pub(super) fn of(modules: &Modules) -> Self {
        let lines = modules.lines();
        let all: usize = lines.values().sum();
        let largest = lines.iter().max_by_key(|(_, lines)| **lines);
        Self {
            circles: modules.circles(),
            mutual: modules.mutual_rooms(),
            wiring: lines.get(WIRING).copied().unwrap_or_default(),
            largest: largest.map_or((String::new(), 0.0), |(room, lines)| {
                ((*room).to_owned(), *lines as f64 / all as f64)
            }),
        }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.circles.len() > MAX_CIRCLES {
            faults.push(format!(
                "more than {MAX_CIRCLES} circles of files: {:?}",
                self.circles
            ));
        }
        for circle in &self.circles {
            let room = |name: &String| name.split("::").next().map(str::to_owned);
            if circle.iter().any(|name| room(name) != room(&circle[0])) {
                faults.push(format!("a circle of files of several rooms: {circle:?}"));
            }
        }
        if self.mutual.len() > MAX_MUTUAL_ROOMS {
            faults.push(format!("rooms use each other: {:?}", self.mutual));
        }
        if self.wiring > MAX_WIRING {
            faults.push(format!(
                "`{WIRING}` has {} lines, more than {MAX_WIRING}",
                self.wiring
            ));
        }
        if self.largest.1 > MAX_SHARE {
            let (room, share) = &self.largest;
            faults.push(format!(
                "`{room}` has {:.1} % of the lines, more than {:.1} %",
                100.0 * share,
                100.0 * MAX_SHARE
            ));
        }
        faults
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (room, share) = &self.largest;
        write!(
            f,
            "tidy: {} circles of files (at most {MAX_CIRCLES}), {} pairs of rooms that use each other, \
             `{WIRING}` {} lines (at most {MAX_WIRING}), largest room `{room}` {:.1} % (at most {:.1} %)",
            self.circles.len(),
            self.mutual.len(),
            self.wiring,
            100.0 * share,
            100.0 * MAX_SHARE
        )
    }
}
