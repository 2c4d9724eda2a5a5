//! Headings, tables, the progress line.

use std::{
    fmt::Display,
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

use derny_tests::{
    load::Load,
    observe::{now, pause_until},
};

use super::{
    measured::Spread,
    world::{Service, World},
};

/// How often the progress line is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);

pub(crate) fn opening(world: &World, took: Duration) {
    println!("\nA node with seven pods, up in {} ms:", took.as_millis());
    let row = |service: &Service| {
        let pods: Vec<String> = service
            .pods
            .iter()
            .map(|pod| format!("{} {}", pod.name(), pod.ip()))
            .collect();
        println!(
            "  service {:4} {}  →  {}",
            service.vip.name(),
            service.vip.address(),
            pods.join(", ")
        );
    };
    row(&world.echo);
    row(&world.web);
    let clients: Vec<String> = world
        .clients
        .iter()
        .map(|pod| format!("{} {}", pod.name(), pod.ip()))
        .collect();
    println!("  clients {}", clients.join(", "));
}

pub(crate) fn heading(step: &str, text: &str) {
    println!("\n{step}. {text}");
}

/// Calls by endpoint, with a bar.
pub(crate) fn spread(spread: &Spread) {
    let most = spread.values().copied().max().unwrap_or(0).max(1);
    println!("   {:<10} {:>6}", "endpoint", "calls");
    for (endpoint, calls) in spread {
        println!("   {endpoint:<10} {calls:>6}  {}", "█".repeat(calls * 40 / most));
    }
}

/// Names with figures, one a line.
pub(crate) fn figures(rows: &[(&str, &dyn Display)]) {
    let width = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    for (name, figure) in rows {
        println!("   {name:<width$}  {figure}");
    }
}

/// Text of another program, indented.
pub(crate) fn quote(text: &str) {
    for line in text.lines() {
        println!("   │ {line}");
    }
}

/// Lets clients work for a while, with a line on the terminal that says how they fare.
pub(crate) fn watch(what: &str, loads: &[&Load], lasting: Duration) {
    let end = now() + lasting;
    while now() < end {
        progress(what, loads, end);
        pause_until((now() + REDRAW).min(end));
    }
    clear();
}

fn progress(what: &str, loads: &[&Load], end: Instant) {
    if !stderr().is_terminal() {
        return;
    }
    let (calls, failed) = loads.iter().fold((0, 0), |(calls, failed), load| {
        let (more_calls, more_failed) = load.counts();
        (calls + more_calls, failed + more_failed)
    });
    let left = end.saturating_duration_since(now()).as_secs_f64();
    eprint!("\r\x1b[K   {what}: {calls} calls, {failed} failed, {left:.1} s to go");
    let _ = stderr().flush();
}

fn clear() {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
        let _ = stderr().flush();
    }
}
