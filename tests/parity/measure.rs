//! One row behind one proxy: calls, and what was observed of them in words and times.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::Result;
use derny_tests::{
    calls::{Answer, Call, Caller, Protocol},
    observe::{now, pause_until},
};

use crate::{
    row::{Look, Row, Traffic},
    upstream::{Arrival, Seen, Site},
};

/// From one paced call to the next, which begins when the one before has ended.
const PACE: Duration = Duration::from_millis(20);
/// The same for calls in turn. Envoy ejects a moment after the failure that makes it.
const TURN: Duration = Duration::from_millis(10);
/// An endpoint that got nothing for so long was left out. An endpoint in rotation waits for a few paces.
const GAP: Duration = Duration::from_millis(500);
/// How late an endpoint may get its last request after the check that decided.
const SLACK: Duration = Duration::from_millis(150);

/// What was observed.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Compared with what the row expects.
    pub(crate) words: String,
    pub(crate) times: Vec<(&'static str, Duration)>,
}

/// What a row can do to the port of its first endpoint.
pub(crate) trait FirstPort {
    fn open(&mut self) -> Result<()>;
    fn close(&mut self);
}

pub(crate) fn measure(
    row: &Row,
    caller: &Caller,
    target: &str,
    site: &Site,
    port: &mut dyn FirstPort,
) -> Result<Measured> {
    let call = Call {
        target: target.to_owned(),
        ..row.call.clone()
    };
    let at_once = |count: usize| -> Result<Vec<Answer>> {
        let begun: Vec<_> = (0..count).map(|_| caller.begin(&call)).collect::<Result<_>>()?;
        begun.into_iter().map(|begun| begun.end()).collect()
    };
    match row.traffic {
        Traffic::One => Ok(one(&call, &caller.call(&call)?, &site.seen())),
        Traffic::OneBefore(time) => {
            let begun = caller.begin(&call)?;
            pause_until(now() + time);
            port.open()?;
            Ok(one(&call, &begun.end()?, &site.seen()))
        }
        Traffic::AtOnce(count) => Ok(several(&call, &at_once(count)?, &site.seen(), 0)),
        Traffic::AtOnceWarm(count) => {
            caller.call(&call)?;
            Ok(several(&call, &at_once(count)?, &site.seen(), 1))
        }
        Traffic::InTurn(count) => {
            let mut answers = Vec::new();
            for _ in 0..count {
                let next = now() + TURN;
                answers.push(caller.call(&call)?);
                pause_until(next);
            }
            let failed = answers.iter().filter(|answer| !is_good(&call, answer)).count();
            Ok(Measured {
                words: format!("{failed} of {count} fail"),
                times: Vec::new(),
            })
        }
        Traffic::Paced(lasting, look) => {
            let begun = now();
            let (mut closed, mut opened) = (None, None);
            while begun.elapsed() < lasting {
                let next = now() + PACE;
                if let Look::Closed { from, until } = look {
                    if closed.is_none() && begun.elapsed() >= from {
                        port.close();
                        closed = Some(now());
                    }
                    if opened.is_none() && begun.elapsed() >= until {
                        port.open()?;
                        opened = Some(now());
                    }
                }
                caller.call(&call)?;
                pause_until(next);
            }
            let end = now();
            let seen = site.seen();
            Ok(match (look, closed, opened) {
                (Look::Ejections, ..) => ejections(&seen, end),
                (Look::Used, ..) => used(&seen, row.script.endpoints.len(), end),
                (Look::Checks, ..) => checks(&seen),
                (Look::Closed { .. }, Some(closed), Some(opened)) => left(&seen, closed, opened),
                (Look::Closed { .. }, ..) => nothing("the port never closed"),
            })
        }
    }
}

fn is_good(call: &Call, answer: &Answer) -> bool {
    let grpc = call.protocol != Protocol::Grpc || answer.grpc_status == Some(0);
    answer.status == 200 && grpc && answer.error.is_none()
}

/// How a call ended, in a word or two.
fn ending(call: &Call, answer: &Answer) -> String {
    let mut text = match (call.protocol, answer.grpc_status) {
        _ if answer.status == 0 => "no answer".to_owned(),
        (Protocol::Grpc, Some(status)) => format!("grpc {status}"),
        (Protocol::Grpc, None) => format!("{} without grpc status", answer.status),
        _ => answer.status.to_string(),
    };
    if answer.overloaded {
        text += " overloaded";
    }
    if answer.status != 0 && answer.error.is_some() {
        text += ", broken off";
    }
    text
}

fn attempts(seen: &[Arrival]) -> String {
    let endpoints: BTreeSet<usize> = seen.iter().map(|arrival| arrival.endpoint).collect();
    match (seen.len(), endpoints.len()) {
        (0, _) => "none seen".to_owned(),
        (1, _) => "1 attempt".to_owned(),
        (attempts, 1) => format!("{attempts} attempts at 1 endpoint"),
        (attempts, endpoints) => format!("{attempts} attempts at {endpoints} endpoints"),
    }
}

fn one(call: &Call, answer: &Answer, seen: &Seen) -> Measured {
    Measured {
        words: format!("{}; {}", ending(call, answer), attempts(&seen.requests)),
        times: vec![("answer", Duration::from_secs_f64(answer.took_ms / 1000.0))],
    }
}

fn several(call: &Call, answers: &[Answer], seen: &Seen, before: usize) -> Measured {
    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    for answer in answers {
        *endings.entry(ending(call, answer)).or_default() += 1;
    }
    let mut words = String::new();
    for (ending, count) in endings {
        // Writing to a String does not fail.
        let _ = write!(words, "{count} × {ending}, ");
    }
    let _ = write!(words, "{} attempts", seen.requests.len() - before);
    let slowest = answers.iter().map(|answer| answer.took_ms).fold(0.0, f64::max);
    let quickest = answers
        .iter()
        .map(|answer| answer.took_ms)
        .fold(f64::MAX, f64::min);
    let time = |millis: f64| Duration::from_secs_f64(millis / 1000.0);
    Measured {
        words,
        times: vec![("quickest", time(quickest)), ("slowest", time(slowest))],
    }
}

/// Requests of the first endpoint in bursts, each with how long nothing came behind it.
fn bursts(seen: &Seen, end: Instant) -> Vec<(usize, Duration)> {
    let mut at: Vec<Instant> = of_first(seen);
    at.push(end);
    let mut bursts = Vec::new();
    let mut count = 0;
    for pair in at.windows(2) {
        count += 1;
        let gap = pair[1] - pair[0];
        if gap >= GAP {
            bursts.push((std::mem::take(&mut count), gap));
        }
    }
    bursts
}

fn of_first(seen: &Seen) -> Vec<Instant> {
    let first = seen.requests.iter().filter(|arrival| arrival.endpoint == 0);
    first.map(|arrival| arrival.at).collect()
}

fn ejections(seen: &Seen, end: Instant) -> Measured {
    const NAMES: [&str; 2] = ["out for", "then for"];
    let mut bursts = bursts(seen, end);
    // How many fit into the time is not the question.
    bursts.truncate(NAMES.len());
    let counts: Vec<String> = bursts.iter().map(|(count, _)| count.to_string()).collect();
    Measured {
        words: if counts.is_empty() {
            "never out".to_owned()
        } else {
            format!("out after {}", counts.join(", then after "))
        },
        times: NAMES
            .into_iter()
            .zip(bursts.iter().map(|(_, gap)| *gap))
            .collect(),
    }
}

fn used(seen: &Seen, endpoints: usize, end: Instant) -> Measured {
    let late = seen.requests.iter().filter(|arrival| arrival.at + GAP > end);
    let used: BTreeSet<usize> = late.map(|arrival| arrival.endpoint).collect();
    nothing(&format!("{} of {endpoints} used at the end", used.len()))
}

fn checks(seen: &Seen) -> Measured {
    let at = of_first(seen);
    let Some(pair) = at.windows(2).find(|pair| pair[1] - pair[0] >= GAP) else {
        return nothing("never out");
    };
    let probes = || seen.probes.iter().filter(|probe| probe.endpoint == 0);
    let failed = probes()
        .filter(|probe| !probe.passes && probe.at <= pair[0] + SLACK)
        .count();
    let bad = probes().rposition_of_failure();
    let good = probes().skip(bad + 1).filter(|probe| probe.at <= pair[1]).count();
    Measured {
        words: format!("out after {failed} failed, back after {good} good"),
        times: vec![("out for", pair[1] - pair[0])],
    }
}

trait RpositionOfFailure {
    /// The place of the last probe that failed.
    fn rposition_of_failure(self) -> usize;
}

impl<'a, I: Iterator<Item = &'a crate::upstream::ProbeSeen>> RpositionOfFailure for I {
    fn rposition_of_failure(self) -> usize {
        self.enumerate()
            .filter(|(_, probe)| !probe.passes)
            .map(|(place, _)| place)
            .last()
            .unwrap_or(0)
    }
}

fn left(seen: &Seen, closed: Instant, opened: Instant) -> Measured {
    let at = of_first(seen);
    match at.windows(2).find(|pair| pair[1] - pair[0] >= GAP) {
        None => nothing("never out"),
        Some(pair) => Measured {
            words: "out, and back".to_owned(),
            times: vec![
                ("out after", pair[0].saturating_duration_since(closed)),
                ("back after", pair[1].saturating_duration_since(opened)),
            ],
        },
    }
}

fn nothing(words: &str) -> Measured {
    Measured {
        words: words.to_owned(),
        times: Vec::new(),
    }
}
