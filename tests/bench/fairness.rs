//! What one pod's flood does to another pod's calls, at one worker: how long they take, whom the agent bills, and
//! whether it gives its memory back.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use derny_tests::{
    agent::{Agent, AgentOptions},
    clients,
    config::Config,
    node::Node,
    observe::{eventually, now, pause_until},
    pod::Pod,
    process::Process,
    upstream::{HTTP_PORT, TCP_PORT, Testd},
    vip::Vip,
};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::traffic;

/// How long each flood lasts.
const FLOOD: Duration = Duration::from_secs(8);
/// After that, how long the agent has to give memory back.
const REST: Duration = Duration::from_secs(30);
/// What it may keep.
const KEPT: u64 = 10 << 20;

/// A flood, and how long the other pod's calls may take beside it.
struct Row {
    name: &'static str,
    flood: Flood,
    goal: Goal,
}

enum Flood {
    None,
    /// Arguments of h2load, and the path.
    H2load(&'static [&'static str], &'static str),
    /// A kind of `flood.py`, and its connections.
    Script(&'static str, usize),
}

/// The median at most so many times that of calls alone, and the 99th percentile at most so many ms above it.
#[derive(Clone, Copy)]
struct Goal(f64, f64);

const USUAL: Goal = Goal(2.0, 5.0);
/// Until the engine has a budget for control frames, turns alone bound them.
const CONTROL_FRAMES: Goal = Goal(5.0, 20.0);

const fn row(name: &'static str, flood: Flood, goal: Goal) -> Row {
    Row { name, flood, goal }
}

const ROWS: [Row; 10] = [
    row("alone", Flood::None, Goal(f64::INFINITY, f64::INFINITY)),
    row(
        "HTTP/1.1, 64 kept",
        Flood::H2load(&["--h1", "-c", "64"], "/bytes/128"),
        USUAL,
    ),
    row(
        "HTTP/1.1, 512 kept",
        Flood::H2load(&["--h1", "-c", "512"], "/bytes/128"),
        USUAL,
    ),
    row(
        "HTTP/2, 16×32",
        Flood::H2load(&["-c", "16", "-m", "32"], "/bytes/128"),
        USUAL,
    ),
    row(
        "bulk, 8 × 10 MB",
        Flood::H2load(&["--h1", "-c", "8"], "/bytes/10000000"),
        USUAL,
    ),
    row("TCP bulk, 8", Flood::Script("tcp", 8), USUAL),
    row("PING", Flood::Script("ping", 4), CONTROL_FRAMES),
    row("SETTINGS", Flood::Script("settings", 4), CONTROL_FRAMES),
    row("WINDOW_UPDATE", Flood::Script("window-update", 4), CONTROL_FRAMES),
    row("large heads, 16", Flood::Script("heads", 16), USUAL),
];

/// One call of the pod that is not greedy.
#[derive(Deserialize)]
struct Call {
    ms: f64,
    ok: bool,
    #[serde(default)]
    error: String,
}

/// What one row came to.
struct Measured {
    p50: f64,
    p99: f64,
    calls: usize,
    failed: Vec<String>,
    /// CPU seconds, billed to the pods and used by the process.
    billed: f64,
    used: f64,
    /// Bytes set aside for the greedy pod, and by which the process had grown, at the end of the flood.
    aside: f64,
    grown: u64,
    /// By which it is larger than before after a rest.
    kept: u64,
}

pub(crate) fn run(quick: bool) -> Result<bool> {
    let node = Node::new()?;
    let [server, theirs, victim, greedy] =
        ["server", "theirs", "victim", "greedy"].map(|name| node.pod(name));
    let (server, theirs, victim, greedy) = (server?, theirs?, victim?, greedy?);
    let servers = [Testd::start(&server)?, Testd::start(&theirs)?];
    for server in &servers {
        traffic::pin(server.id(), traffic::WORLD)?;
    }
    // Part of the flood, which is not to keep the calm pod's server waiting either.
    traffic::go_last(servers[1].id())?;
    let calm = node.service("calm", 80, HTTP_PORT, &[&server])?;
    let http = node.service("http", 80, HTTP_PORT, &[&theirs])?;
    let tcp = node.service("tcp", 80, TCP_PORT, &[&theirs])?;
    let config = Config::default()
        .pod(&victim, "victim")
        .pod(&greedy, "greedy")
        .service(&calm, Some("http"))
        .service(&http, Some("http"))
        .service(&tcp, Some("tcp"));
    println!(
        "{:<20}{:>9}{:>9}{:>8}{:>8}{:>9}{:>9}{:>10}{:>10}{:>10}  goal",
        "load",
        "p50 ms",
        "p99 ms",
        "calls",
        "failed",
        "CPU s",
        "billed",
        "grown MiB",
        "aside MiB",
        "kept MiB"
    );
    let mut alone = None;
    let mut missed = false;
    for row in &ROWS {
        let agent = Agent::start(&node, AgentOptions::new(config.clone()))?;
        traffic::pin(agent.id()?, traffic::PROXY)?;
        let target = match row.flood {
            Flood::Script("tcp", _) => &tcp,
            _ => &http,
        };
        let measured = measure(&agent, row, (&victim, &calm), (&greedy, target), quick)?;
        let (p50, p99) = *alone.get_or_insert((measured.p50, measured.p99));
        let kept_goal = row.goal.0 * p50 >= measured.p50
            && p99 + row.goal.1 >= measured.p99
            && measured.failed.is_empty()
            && (quick || measured.kept <= KEPT);
        missed |= !kept_goal;
        show(row, &measured, kept_goal);
    }
    Ok(missed)
}

fn show(row: &Row, measured: &Measured, kept_goal: bool) {
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    println!(
        "{:<20}{:>9.2}{:>9.2}{:>8}{:>8}{:>9.2}{:>8.1}%{:>10.1}{:>10.1}{:>10.1}  {}",
        row.name,
        measured.p50,
        measured.p99,
        measured.calls,
        measured.failed.len(),
        measured.used,
        100.0 * measured.billed / measured.used,
        mib(measured.grown as f64),
        mib(measured.aside),
        mib(measured.kept as f64),
        if kept_goal { "kept" } else { "MISSED" }
    );
    for error in measured.failed.iter().take(3) {
        println!("    {error}");
    }
}

fn measure(
    agent: &Agent,
    row: &Row,
    (victim, calm): (&Pod, &Vip),
    (greedy, target): (&Pod, &Vip),
    quick: bool,
) -> Result<Measured> {
    // So that what the first calls cost is not taken for what the flood left.
    calls(victim, calm, Duration::from_secs(2), || Ok(()))?;
    let resident = agent.resident()?;
    let billed = || Ok::<_, anyhow::Error>(agent.metrics()?.sum("derny_pod_cpu_seconds_total", &[]));
    let (billed_before, used_before) = (billed()?, agent.cpu()?);
    let mut flood = start(&row.flood, greedy, target)?;
    let (mut aside, mut grown) = (0.0, 0);
    let calls = calls(victim, calm, FLOOD, || {
        aside = agent
            .metrics()?
            .sum("derny_pod_memory_bytes", &[("pod", "greedy")]);
        grown = agent.resident()?.saturating_sub(resident);
        Ok(())
    })?;
    if let Some(flood) = &mut flood {
        flood.kill9()?;
    }
    pause_until(now() + Duration::from_millis(500));
    let (billed, used) = (
        billed()? - billed_before,
        (agent.cpu()? - used_before).as_secs_f64(),
    );
    let rest = if quick { Duration::from_secs(2) } else { REST };
    // Gone earlier is gone; what is there at the end counts.
    let _ = eventually("memory is given back", rest, || {
        agent.resident().is_ok_and(|bytes| bytes <= resident + KEPT)
    });
    let mut times: Vec<f64> = calls.iter().map(|call| call.ms).collect();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or(f64::NAN)
    };
    Ok(Measured {
        p50: at(50),
        p99: at(99),
        calls: calls.len(),
        failed: calls
            .into_iter()
            .filter(|call| !call.ok)
            .map(|call| call.error)
            .collect(),
        billed,
        used,
        aside,
        grown,
        kept: agent.resident()?.saturating_sub(resident),
    })
}

/// Calls at a steady pace for so long; `look` is called just before the end.
fn calls(pod: &Pod, to: &Vip, time: Duration, look: impl FnOnce() -> Result<()>) -> Result<Vec<Call>> {
    let python = clients::python("paced_calls.py")?;
    let mut command = on_the_worlds_core("-10", &python);
    command
        .args(["--target", &to.address().to_string()])
        .stdout(Stdio::piped());
    let mut process = pod.spawn(command)?;
    let stdout = process.child().stdout.take().context("stdout is piped")?;
    let reading = thread::spawn(move || {
        let lines = BufReader::new(stdout).lines();
        lines
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str(&line).ok())
            .collect()
    });
    pause_until(now() + time);
    look()?;
    process.signal(Signal::SIGTERM)?;
    process.wait(Duration::from_secs(10))?;
    reading
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of calls panicked"))
}

fn start(flood: &Flood, pod: &Pod, to: &Vip) -> Result<Option<Process>> {
    let mut command = match flood {
        Flood::None => return Ok(None),
        Flood::H2load(arguments, path) => {
            let mut h2load = Command::new("h2load");
            h2load
                .args(*arguments)
                .args(["-t", "1", "-D", "3600"])
                .arg(to.url(path));
            on_the_worlds_core("19", &h2load)
        }
        Flood::Script(kind, connections) => {
            let mut python = clients::python("flood.py")?;
            python.args(["--kind", kind, "--connections", &connections.to_string()]);
            python.args(["--target", &to.address().to_string()]);
            on_the_worlds_core("19", &python)
        }
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = pod.spawn(command)?;
    pause_until(now() + Duration::from_secs(1));
    Ok(Some(process))
}

/// Beside the proxy's core: the calm pod's calls are not to wait for the flood's own CPU.
fn on_the_worlds_core(nice: &str, program: &Command) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", traffic::WORLD, "nice", "-n", nice]);
    command.arg(program.get_program()).args(program.get_args());
    for (key, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    command
}
