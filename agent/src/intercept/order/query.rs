//! Which programs a control group has at a hook, asked of the kernel (`BPF_PROG_QUERY`).

use std::{fs::File, io, os::fd::AsRawFd as _};

/// A hook where the agent has a program on the pods' control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    Connect4,
    Connect6,
    GetPeerName4,
    GetPeerName6,
    GetSockName4,
    GetSockName6,
    SockOps,
}

impl Hook {
    pub(super) const ALL: [Self; 7] = [
        Self::Connect4,
        Self::Connect6,
        Self::GetPeerName4,
        Self::GetPeerName6,
        Self::GetSockName4,
        Self::GetSockName6,
        Self::SockOps,
    ];

    /// As documents and `bpftool` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::GetPeerName4 => "getpeername4",
            Self::GetPeerName6 => "getpeername6",
            Self::GetSockName4 => "getsockname4",
            Self::GetSockName6 => "getsockname6",
            Self::SockOps => "sock_ops",
        }
    }

    /// `enum bpf_attach_type` of `linux/bpf.h`.
    fn attach_type(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::GetPeerName4 => 29,
            Self::GetPeerName6 => 30,
            Self::GetSockName4 => 31,
            Self::GetSockName6 => 32,
            Self::SockOps => 3,
        }
    }
}

/// Of which programs is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those that are attached to this very group.
    Attached,
    /// Those that run for a process in it, in this order: its own and those of groups above.
    Effective,
}

/// The part of `union bpf_attr` that is this command's. The kernel writes to it up to its end, which newer kernels have
/// moved.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    zero: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
    spare: [u64; 8],
}

const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
/// More at one hook of one group have not been seen.
const USUAL: usize = 64;

/// The kernel's numbers of the programs.
pub(super) fn programs(group: &File, hook: Hook, reach: Reach) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; USUAL];
    loop {
        let mut query = Query {
            target_fd: group.as_raw_fd().cast_unsigned(),
            attach_type: hook.attach_type(),
            query_flags: match reach {
                Reach::Attached => 0,
                Reach::Effective => BPF_F_QUERY_EFFECTIVE,
            },
            prog_ids: ids.as_mut_ptr() as u64,
            prog_count: u32::try_from(ids.len()).unwrap_or(u32::MAX),
            ..Query::default()
        };
        // SAFETY: the kernel reads and writes one `Query`, and writes at most `prog_count` numbers to `ids`.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
        let count = usize::try_from(query.prog_count).unwrap_or(usize::MAX);
        if result == 0 {
            ids.truncate(count);
            return Ok(ids);
        }
        let error = io::Error::last_os_error();
        // It has said how many there are.
        if error.raw_os_error() != Some(libc::ENOSPC) || count <= ids.len() {
            return Err(error);
        }
        ids.resize(count, 0);
    }
}
