//! The programs of the control groups, attached.
//!
//! Programs of the pods' group go when that is removed, and are attached to the one that is made in its place.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSockAddr, SockOps, cgroup_sock_addr::CgroupSockAddrLink,
        sock_ops::SockOpsLink,
    },
};
use aya_obj::generated::bpf_attach_type;

use super::{
    InterceptError, Kernel, cgroup,
    load::program,
    rival::{self, Rival},
    syscalls,
};
use crate::model::GroupId;

pub(super) const CONNECT4: &str = "derny_connect4";
const CONNECT: [&str; 2] = [CONNECT4, "derny_connect6"];
const PEERNAME: [&str; 2] = ["derny_peername4", "derny_peername6"];
const SOCKNAME: [&str; 2] = ["derny_sockname4", "derny_sockname6"];
const TUPLE: &str = "derny_tuple";
const ORIGIN: &str = "derny_origin";
const DIAL: [&str; 2] = ["derny_dial4", "derny_dial6"];

/// At the pods' control group. Dropping a link detaches its program.
pub(super) struct Attached {
    group: GroupId,
    /// Last attached and first detached, also when the agent is killed: while it redirects, its listeners are there.
    connect: Vec<OwnedFd>,
    _names: [Vec<CgroupSockAddrLink>; 2],
    _tuple: SockOpsLink,
}

/// At the agent's own control group.
pub(super) struct AttachedOwn {
    _origin: SockOpsLink,
    _dial: Vec<CgroupSockAddrLink>,
}

/// What has become of the pods' control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodsGroup {
    /// The programs are attached to it.
    Attached,
    /// It has been made anew, and the programs are attached to the new one.
    AttachedAgain,
}

impl Kernel {
    /// Sees whether the control group that the programs are attached to is still the one of that name, and attaches them to
    /// the one that has taken its place.
    ///
    /// # Errors
    /// There is none, or it cannot be attached to: nothing is redirected. Trying again may help.
    pub fn follow_group(&mut self) -> Result<PodsGroup, InterceptError> {
        let path = &self.options.cgroup;
        let now = group_of(path)?;
        match &self.attached {
            // An agent that ends attaches nothing more.
            Some(attached) if attached.group == now || attached.connect.is_empty() => Ok(PodsGroup::Attached),
            _ => {
                self.attached = None;
                self.attached = Some(attach(&mut self.programs, path)?);
                Ok(PodsGroup::AttachedAgain)
            }
        }
    }

    /// Redirects no connection from now on, for good: another agent may take this one's place. What connections that were
    /// redirected need stays.
    pub fn stop(&mut self) {
        if let Some(attached) = &mut self.attached {
            attached.connect.clear();
        }
    }

    /// Another agent whose programs see the same connections and were loaded before this one's.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn earlier_rival(&self) -> Result<Option<Rival>, InterceptError> {
        let own = self.programs.program(CONNECT4);
        let own = own.ok_or(InterceptError::NoProgram { name: CONNECT4 })?;
        let own = own.info().map_err(InterceptError::program(CONNECT4))?.id();
        rival::find(&self.options.cgroup, own)
    }
}

/// Loads the programs of the control groups.
pub(super) fn load(programs: &mut Ebpf) -> Result<(), InterceptError> {
    for name in [ORIGIN, TUPLE] {
        let loaded: &mut SockOps = program(programs, name)?;
        loaded.load().map_err(InterceptError::program(name))?;
    }
    for name in PEERNAME.into_iter().chain(SOCKNAME).chain(CONNECT).chain(DIAL) {
        let loaded: &mut CgroupSockAddr = program(programs, name)?;
        loaded.load().map_err(InterceptError::program(name))?;
    }
    Ok(())
}

/// The programs of the agent's own group, before those of the pods': without them, a redirected connection within the node
/// would be steered twice, and one to the agent itself would go round.
pub(super) fn attach_own(programs: &mut Ebpf, own: &File) -> Result<AttachedOwn, InterceptError> {
    let origin = sock_ops(programs, ORIGIN, own)?;
    let dial = DIAL.into_iter().map(|name| sock_addr(programs, name, own));
    Ok(AttachedOwn {
        _origin: origin,
        _dial: dial.collect::<Result<_, _>>()?,
    })
}

pub(super) fn attach(programs: &mut Ebpf, path: &Path) -> Result<Attached, InterceptError> {
    let pods = cgroup::open(path)?;
    let group = group_of(path)?;
    let tuple = sock_ops(programs, TUPLE, &pods)?;
    let mut sock_addr = |names: [&'static str; 2]| {
        let links = names.into_iter().map(|name| sock_addr(programs, name, &pods));
        links.collect::<Result<Vec<_>, _>>()
    };
    let names = [sock_addr(PEERNAME)?, sock_addr(SOCKNAME)?];
    let at = [
        bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
        bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
    ];
    let connect = (CONNECT.into_iter().zip(at)).map(|(name, at)| connect(programs, name, &pods, at));
    let connect = connect.collect::<Result<_, _>>()?;
    Ok(Attached {
        group,
        connect,
        _names: names,
        _tuple: tuple,
    })
}

fn connect(
    programs: &mut Ebpf,
    name: &'static str,
    group: &File,
    at: bpf_attach_type,
) -> Result<OwnedFd, InterceptError> {
    let program: &mut CgroupSockAddr = program(programs, name)?;
    let program = program.fd().map_err(InterceptError::program(name))?;
    let link = syscalls::link(program.as_fd(), group.as_fd(), at);
    link.map(syscalls::let_go_first)
        .map_err(|source| InterceptError::Attach { name, source })
}

fn group_of(path: &Path) -> Result<GroupId, InterceptError> {
    let metadata = fs::metadata(path).map_err(|source| InterceptError::Cgroup {
        path: path.to_owned(),
        source,
    })?;
    Ok(GroupId(metadata.ino()))
}

// `Single` is the only mode that a link takes, and for links it means that other programs stay and run too.

fn sock_ops(programs: &mut Ebpf, name: &'static str, group: &File) -> Result<SockOpsLink, InterceptError> {
    let program: &mut SockOps = program(programs, name)?;
    let link = program.attach(group, CgroupAttachMode::Single);
    link.and_then(|link| program.take_link(link))
        .map_err(InterceptError::program(name))
}

fn sock_addr(
    programs: &mut Ebpf,
    name: &'static str,
    group: &File,
) -> Result<CgroupSockAddrLink, InterceptError> {
    let program: &mut CgroupSockAddr = program(programs, name)?;
    let link = program.attach(group, CgroupAttachMode::Single);
    link.and_then(|link| program.take_link(link))
        .map_err(InterceptError::program(name))
}
