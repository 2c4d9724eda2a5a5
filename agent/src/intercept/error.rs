//! What can go wrong at the kernel's door.

use std::{error::Error, io, path::PathBuf};

use aya::{maps::MapError, programs::ProgramError};

use crate::model::{PodName, Slot};

/// The programs or their maps are not as they should be. Whose fault: the machine's or the operator's.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    #[error(
        "no cgroup v2 hierarchy is mounted; redirection needs one: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup2,
    #[error(
        "no cgroup that holds all pods below {mounts}: none of {looked_for} is there; name it in the configuration"
    )]
    NoPodsCgroup { mounts: String, looked_for: String },
    #[error(
        "the agent's own cgroup is not below {mounts}: none there lists process {pid}; a container needs the host's /sys/fs/cgroup"
    )]
    NoOwnCgroup { pid: u32, mounts: String },
    #[error("cgroup {path} cannot be opened: {source}")]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the kernel programs cannot be loaded: {}", chain(source))]
    Object { source: aya::EbpfError },
    #[error("kernel program {name} is not in the object")]
    NoProgram { name: &'static str },
    #[error("kernel program {name} cannot be loaded or attached: {}", chain(source))]
    Program {
        name: &'static str,
        source: ProgramError,
    },
    #[error("kernel program derny_lookup cannot be copied: {reason}")]
    Copy { reason: String },
    #[error("kernel program {name} cannot be attached: {source}")]
    Attach { name: &'static str, source: io::Error },
    #[error("kernel program derny_lookup cannot be attached to a pod's network namespace: {source}")]
    Steer { source: io::Error },
    #[error("the kernel does not tell of its program {name}: {}", chain(source))]
    Asked { name: String, source: ProgramError },
    #[error("map {name} is not in the object")]
    NoMap { name: &'static str },
    #[error("map {name}: {}", chain(source))]
    Map { name: &'static str, source: MapError },
    #[error("{table} is full at {capacity} entries; {key} is left alone")]
    Full {
        table: &'static str,
        capacity: u32,
        key: String,
    },
    #[error("the kernel's log cannot be read: {reason}")]
    Log { reason: String },
    #[error("which programs are at {hook} of control group {path} cannot be read: {source}")]
    Order {
        path: PathBuf,
        hook: &'static str,
        source: io::Error,
    },
    #[error("the list of loaded programs cannot be read: {}", chain(source))]
    Programs { source: ProgramError },
}

/// A pod that cannot be enrolled is left alone; trying again later may help.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("slot {slot} of {pod} is taken by {by}")]
    SlotTaken { pod: PodName, slot: Slot, by: PodName },
    #[error("{pod} and {other} name the same network namespace {path}")]
    NetnsTaken {
        pod: PodName,
        other: PodName,
        path: PathBuf,
    },
    #[error(
        "{path} of {pod} is the agent's own network namespace; pods in the host's network are not enrolled"
    )]
    HostNetwork { pod: PodName, path: PathBuf },
    #[error("network namespace {path} of {pod}: {source}")]
    Netns {
        pod: PodName,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{pod} has ports to steer and no address yet")]
    NoAddress { pod: PodName },
    #[error("the loopback of {pod} is down")]
    LoopbackDown { pod: PodName },
    #[error("no listener in {pod}: {source}")]
    Listen { pod: PodName, source: io::Error },
    #[error("{pod} cannot be enrolled: {source}")]
    Kernel {
        pod: PodName,
        source: Box<InterceptError>,
    },
}

impl InterceptError {
    pub(super) fn map(name: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { name, source }
    }

    pub(super) fn program(name: &'static str) -> impl Fn(ProgramError) -> Self {
        move |source| Self::Program { name, source }
    }
}

/// aya's errors say what failed and leave the reason to their sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
