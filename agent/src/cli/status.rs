//! `derny status`

use super::{
    failure::Failure,
    output::{self, Output, age},
};
use crate::admin::proto::{ContestedAddress, Kubernetes, OtherProgram, PodCost, RefusedBudget, Status};

/// Lines about others' programs. A balancer in each pod's group would fill the screen.
const SHOWN: usize = 6;

/// Prints it; a finding when the agent is not ready.
pub(super) fn show(status: &Status, output: Output) -> Result<(), Failure> {
    let now = output::now();
    output::print(output, status, |status| table(status, now))?;
    if status.not_ready.is_empty() {
        Ok(())
    } else {
        Err(Failure::Finding)
    }
}

/// `now` in milliseconds since the Unix epoch.
fn table(status: &Status, now: u64) -> String {
    let since = |then: u64| age(now.saturating_sub(then));
    let ready = match status.not_ready.as_slice() {
        [] => "yes".to_owned(),
        names => format!("no, waiting for {}", names.join(", ")),
    };
    let heartbeat = match status.heartbeat_age_ms {
        Some(ms) => format!("{} ago", age(ms)),
        None => "none: the kernel redirects nothing".to_owned(),
    };
    let mut facts = vec![
        ("ready", ready),
        (
            "agent",
            format!(
                "{}, pid {}, up {}",
                status.version,
                status.pid,
                since(status.started_at_ms)
            ),
        ),
        (
            "zone",
            match status.zone.as_str() {
                "" => "not known".to_owned(),
                zone => zone.to_owned(),
            },
        ),
        (
            "workers",
            format!(
                "{}, slowest moved {} ago",
                status.workers,
                age(status.slowest_worker_ms)
            ),
        ),
        (
            "accepting",
            match status.cannot_accept {
                true => "NO: a worker cannot take connections".to_owned(),
                false => "yes".to_owned(),
            },
        ),
        ("heartbeat", heartbeat),
        ("pods", pods(status)),
        (
            "services",
            format!("{}, at {} addresses", status.services, status.destinations),
        ),
        (
            "configuration",
            match status.config_path.is_empty() {
                true => "no file".to_owned(),
                false => {
                    let read = since(status.config_loaded_at_ms);
                    format!("{}, read {read} ago", status.config_path)
                }
            },
        ),
        (
            "snapshot",
            format!("{}, {} old", status.snapshot_version, age(status.snapshot_age_ms)),
        ),
    ];
    facts.extend(contested(&status.contested));
    facts.extend(refused(&status.refused));
    facts.extend(shares(status));
    facts.extend(order(&status.other_programs));
    if let Some(error) = &status.config_error {
        let when = format!(
            "the file was refused {} ago; the last good one is in force",
            since(error.at_ms)
        );
        facts.push(("", when));
        facts.extend(error.message.lines().map(|line| ("", line.to_owned())));
    }
    if let Some(kubernetes) = &status.kubernetes {
        facts.extend(cluster(kubernetes));
    }
    output::facts(facts)
}

fn pods(status: &Status) -> String {
    let mut text = format!(
        "{} enrolled, {} waiting",
        status.pods_enrolled, status.pods_waiting
    );
    if status.pods_held > 0 {
        text.push_str(&format!(" ({} refused what they dial)", status.pods_held));
    }
    if status.pods_left_alone > 0 {
        text.push_str(&format!(", {} left alone", status.pods_left_alone));
    }
    text
}

/// Addresses that services of several namespaces claim.
fn contested(addresses: &[ContestedAddress]) -> Vec<(&'static str, String)> {
    let mut lines: Vec<String> = addresses
        .iter()
        .take(SHOWN)
        .map(|of| format!("{} is claimed by {}", of.address, of.services.join(" and ")))
        .collect();
    if addresses.len() > SHOWN {
        lines.push(format!("and {} more: `-o json` has all", addresses.len() - SHOWN));
    }
    let names = std::iter::once("contested").chain(std::iter::repeat(""));
    names.zip(lines).collect()
}

/// Namespaces that wanted more than their share.
fn refused(budgets: &[RefusedBudget]) -> Vec<(&'static str, String)> {
    let mut lines: Vec<String> = budgets
        .iter()
        .take(SHOWN)
        .map(|of| {
            let RefusedBudget {
                budget,
                namespace,
                times,
            } = of;
            format!("{budget} of namespace {namespace}: refused {times} times")
        })
        .collect();
    if budgets.len() > SHOWN {
        lines.push(format!("and {} more: `-o json` has all", budgets.len() - SHOWN));
    }
    let names = std::iter::once("over budget").chain(std::iter::repeat(""));
    names.zip(lines).collect()
}

/// The most costly pods, and those that the agent cannot serve.
fn shares(status: &Status) -> Vec<(&'static str, String)> {
    let cost = |cost: &PodCost| {
        let (cpu, memory) = (age(cost.cpu_ms), cost.memory_bytes >> 10);
        format!("{}: {cpu} of CPU, {memory} KiB set aside", cost.pod)
    };
    let aside = |pod: &String| format!("{pod} has used up its share: its new connections PASS THE AGENT BY");
    let heaviest = status.heaviest.iter().map(|one| ("heaviest", cost(one)));
    let aside = (status.pods_aside.iter()).map(|pod| ("stands aside", aside(pod)));
    heaviest.chain(aside).collect()
}

/// One line for each program that an operator should know of, and how many there are besides.
fn order(programs: &[OtherProgram]) -> Vec<(&'static str, String)> {
    let words = |program: &OtherProgram| {
        let verdict = match program.order.as_str() {
            "before" => "runs BEFORE Derny's for all pods",
            "below" => "runs BEFORE Derny's for pods of that group",
            "replaced" => "NO LONGER RUNS for pods, as Derny's replaces it",
            _ => return None,
        };
        let OtherProgram {
            hook,
            id,
            name,
            control_group,
            ..
        } = program;
        Some(format!(
            "program {id} `{name}` at {hook} of {control_group} {verdict}"
        ))
    };
    let mut odd: Vec<String> = programs.iter().filter_map(words).collect();
    let (after, odd_ones) = (programs.len() - odd.len(), odd.len());
    if odd_ones > SHOWN {
        odd.truncate(SHOWN);
        odd.push(format!("and {} more: `-o json` has all", odd_ones - SHOWN));
    }
    if after > 0 {
        odd.push(format!("{after} of others run after Derny's, as they should"));
    }
    let mut name = "kernel order";
    let lines = odd.into_iter();
    lines.map(|line| (std::mem::take(&mut name), line)).collect()
}

fn cluster(kubernetes: &Kubernetes) -> Vec<(&'static str, String)> {
    let heard = match kubernetes.silence_ms {
        Some(ms) => format!("heard of {} ago", age(ms)),
        None => "never heard of".to_owned(),
    };
    let up = if kubernetes.up {
        "up"
    } else {
        "AWAY: what is known stays in force"
    };
    let watched = kubernetes.watched_services;
    let mut facts = vec![(
        "API server",
        format!("{up}, {heard}, endpoints of {watched} services watched"),
    )];
    for trouble in &kubernetes.troubles {
        facts.push((
            "",
            format!("{}: {}", trouble.requests.join(", "), trouble.message),
        ));
    }
    for object in &kubernetes.rejected {
        let standing = match (object.in_force_in_part, object.last_good_in_force) {
            (true, _) => "is in force in part",
            (false, true) => "was refused; its last good version is in force",
            (false, false) => "was refused; it is not in force",
        };
        facts.push(("", format!("{} {} {standing}", object.resource, object.object)));
        facts.push(("", object.message.clone()));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::ConfigError;

    #[test]
    fn says_what_is_wrong() {
        let mut status = Status {
            version: "0.1.0".to_owned(),
            pid: 7,
            started_at_ms: 1_000,
            workers: 2,
            zone: "europe-west1-b".to_owned(),
            config_path: "/etc/derny.yaml".to_owned(),
            config_loaded_at_ms: 61_000,
            snapshot_version: 3,
            heartbeat_age_ms: Some(90),
            pods_enrolled: 6,
            services: 2,
            destinations: 8,
            ..Status::default()
        };
        let text = table(&status, 121_000);
        assert!(
            text.starts_with("ready          yes\nagent          0.1.0, pid 7, up 2m\n"),
            "{text}"
        );
        assert!(text.contains("heartbeat      90ms ago\n"), "{text}");
        assert!(text.contains("zone           europe-west1-b\n"), "{text}");

        let program = |order: &str| OtherProgram {
            hook: "connect4".to_owned(),
            id: 7,
            name: "cil_sock4".to_owned(),
            control_group: "/sys/fs/cgroup".to_owned(),
            order: order.to_owned(),
        };
        status.other_programs = vec![program("before"), program("after")];
        (status.pods_waiting, status.pods_held, status.pods_left_alone) = (3, 2, 1);
        let text = table(&status, 121_000);
        let pods = "pods           6 enrolled, 3 waiting (2 refused what they dial), 1 left alone\n";
        assert!(text.contains(pods), "{text}");
        assert!(
            text.contains(
                "kernel order   program 7 `cil_sock4` at connect4 of /sys/fs/cgroup runs BEFORE Derny's"
            ),
            "{text}"
        );
        assert!(text.contains("1 of others run after Derny's"), "{text}");
        status.other_programs = (0..9).map(|_| program("below")).collect();
        assert!(table(&status, 121_000).contains("and 3 more"));

        status.contested = vec![ContestedAddress {
            address: "10.0.0.3:8080".to_owned(),
            services: vec!["demo/echo:80".to_owned(), "evil/echo:80".to_owned()],
            redirected: false,
        }];
        let contested = "contested      10.0.0.3:8080 is claimed by demo/echo:80 and evil/echo:80\n";
        assert!(
            table(&status, 121_000).contains(contested),
            "{}",
            table(&status, 121_000)
        );

        status.heartbeat_age_ms = None;
        status.not_ready = vec!["kernel programs".to_owned()];
        let message = "pods[0].name: `A` is not\npods[1].port: `0` is not".to_owned();
        status.config_error = Some(ConfigError {
            at_ms: 111_000,
            message,
        });
        let text = table(&status, 121_000);
        assert!(
            text.starts_with("ready          no, waiting for kernel programs\n"),
            "{text}"
        );
        assert!(text.contains("none: the kernel redirects nothing"), "{text}");
        assert!(text.contains("refused 10s ago"), "{text}");
        assert!(
            text.ends_with("pods[0].name: `A` is not\n               pods[1].port: `0` is not"),
            "{text}"
        );
    }
}
