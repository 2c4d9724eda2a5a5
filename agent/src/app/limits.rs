//! How much of everything there is for the pods, by what the agent was told and what the system lets it have.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    options::ShareArgs,
    share::{Bound, Limits},
};

/// The part of the agent's memory limit that connections may come to hold, in percent. The rest is for the agent
/// itself, and for what an allocation costs beyond its bytes.
const PERCENT: u64 = 60;
/// The budget where nothing limits the agent's memory: this, and not more than a quarter of the machine's.
const UNLIMITED: u64 = 1 << 30;
/// Descriptors that are not for connections: listeners and namespaces of pods, files, windows. This, and an eighth.
const RESERVED: u64 = 256;

/// What the system lets this process have.
#[derive(Clone, Copy, Debug)]
pub(super) struct System {
    /// Open files.
    pub(super) descriptors: u64,
    /// Bytes of the lowest limit of its control groups.
    pub(super) memory: Option<u64>,
    /// Bytes of the machine.
    pub(super) machine: u64,
}

pub(super) fn limits(args: &ShareArgs, system: &System) -> Limits {
    let descriptors = (system.descriptors - system.descriptors / 8)
        .saturating_sub(RESERVED)
        .max(64);
    let memory = args.memory_budget.unwrap_or_else(|| match system.memory {
        Some(limit) => limit / 100 * PERCENT,
        None => UNLIMITED.min(system.machine / 4),
    });
    let bound = |node: u64, pod: Option<u64>| Bound {
        node,
        pod: pod.unwrap_or(node),
    };
    // A connection has two sockets in the end.
    let connections = args.max_connections.unwrap_or(descriptors / 2).min(descriptors);
    Limits {
        connections: bound(connections, args.pod_connections),
        descriptors: bound(descriptors, None),
        memory: bound(memory, args.pod_memory),
        streams: bound(args.max_streams, args.pod_streams),
        series: bound(u64::MAX / 4, Some(args.pod_series)),
    }
}

impl System {
    /// `descriptors` is how many files this process may have open.
    pub(super) fn read(descriptors: u64) -> Self {
        Self {
            descriptors,
            memory: memory_limit(),
            machine: meminfo().unwrap_or(UNLIMITED * 4),
        }
    }
}

fn meminfo() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The lowest limit of the control groups that this process is in, of either version.
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = [
        ("/sys/fs/cgroup", "memory.max", "0::"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", ":memory:"),
    ];
    let of_mount = |(mount, file, mark): (&str, &str, &str)| {
        let line = groups.lines().find(|line| line.contains(mark))?;
        let own = line.rsplit_once(':')?.1.trim_start_matches('/');
        // In a container the path may be the host's, while the mount shows the own group alone.
        let all = Path::new(own).ancestors().map(|path| Path::new(mount).join(path));
        all.filter_map(|group| limit_of(group.join(file))).min()
    };
    mounts.into_iter().filter_map(of_mount).min()
}

/// `max`, and the largest number of the first version, are no limit.
fn limit_of(file: PathBuf) -> Option<u64> {
    let bytes = fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Only {
        #[command(flatten)]
        shares: ShareArgs,
    }

    fn of(arguments: &str, memory: Option<u64>) -> Limits {
        let arguments = ["derny"].into_iter().chain(arguments.split_whitespace());
        let system = System {
            descriptors: 65_536,
            memory,
            machine: 8 << 30,
        };
        limits(&Only::parse_from(arguments).shares, &system)
    }

    #[test]
    fn the_systems_limits_bound_what_is_shared() {
        let limits = of("", Some(1 << 30));
        assert_eq!(limits.memory.node, 644_245_080);
        assert_eq!(limits.descriptors.node, 57_088);
        assert_eq!(
            limits.connections,
            Bound {
                node: 28_544,
                pod: 28_544
            }
        );
        assert_eq!(of("", None).memory.node, 1 << 30);
    }

    #[test]
    fn an_operator_may_want_others() {
        let limits = of(
            "--memory-budget 64Mi --pod-memory 8Mi --pod-connections 100",
            None,
        );
        assert_eq!(
            limits.memory,
            Bound {
                node: 64 << 20,
                pod: 8 << 20
            }
        );
        assert_eq!(limits.connections.pod, 100);
        assert_eq!(of("--max-connections 999999", None).connections.node, 57_088);
    }
}
