//! `derny status`

use super::{
    Failure,
    output::{self, Output, age},
};
use crate::admin::proto::{Kubernetes, Status};

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
        ("heartbeat", heartbeat),
        (
            "pods",
            match status.pods_left_alone {
                0 => format!(
                    "{} enrolled, {} waiting",
                    status.pods_enrolled, status.pods_waiting
                ),
                others => format!(
                    "{} enrolled, {} waiting, {others} left alone",
                    status.pods_enrolled, status.pods_waiting
                ),
            },
        ),
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
    for object in &kubernetes.rejected {
        let instead = match object.last_good_in_force {
            true => "its last good version is in force",
            false => "it is not in force",
        };
        facts.push((
            "",
            format!("{} {} was refused; {instead}", object.resource, object.object),
        ));
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
