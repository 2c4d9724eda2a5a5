//! bpf(2) where aya does not go: copies of a program, and links whose descriptors are ours to number.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_insn, bpf_prog_type};
use nix::sys::resource::{Resource, getrlimit};

/// Descriptors of a process that is killed are let go of by the kernel in the reverse order of their numbers: close_files
/// goes through them upwards, and each release becomes a task work (task_work_run, last in, first out). From here on there
/// are no others but where an agent has as many connections.
const LAST: RawFd = 131_072;
/// How many there are of which that is wanted, at most.
const ROOM: RawFd = 16;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads here.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// That of `BPF_LINK_CREATE`.
#[repr(C)]
struct Link {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// That of `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct Element {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Load>() == 72 && size_of::<Link>() == 16 && size_of::<Element>() == 32);

/// Without the verifier's log: aya has loaded the same program with it. `name` has at most 15 bytes.
pub(super) fn load(
    name: &str,
    of_type: bpf_prog_type,
    attach_type: bpf_attach_type,
    instructions: &[bpf_insn],
    license: &CStr,
) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..name.len()].copy_from_slice(name.as_bytes());
    let attributes = Load {
        prog_type: of_type as u32,
        insn_cnt: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: attach_type as u32,
    };
    // SAFETY: the pointers lead to what lives until the call has returned.
    unsafe { descriptor(bpf_cmd::BPF_PROG_LOAD, &attributes) }
}

/// Attaches a program. Closed, the link detaches it.
pub(super) fn link(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: bpf_attach_type,
) -> io::Result<OwnedFd> {
    let attributes = Link {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: target.as_raw_fd().cast_unsigned(),
        attach_type: attach_type as u32,
        flags: 0,
    };
    // SAFETY: no pointers.
    unsafe { descriptor(bpf_cmd::BPF_LINK_CREATE, &attributes) }
}

/// Has `socket` keep `value` in a socket storage, whose values are of that size. aya wants the map for itself for that.
pub(super) fn store<V: aya::Pod>(
    storage: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    value: &V,
) -> io::Result<()> {
    let key = socket.as_raw_fd();
    let attributes = Element {
        map_fd: storage.as_raw_fd().cast_unsigned(),
        zero: 0,
        key: std::ptr::from_ref(&key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    // SAFETY: the pointers lead to what lives until the call has returned.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &attributes) }.map(drop)
}

/// The same with a number that is let go of before the others when the process is killed: one of the last that the process
/// may have. As it was where there is none.
pub(super) fn let_go_first(descriptor: OwnedFd) -> OwnedFd {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let last = RawFd::try_from(allowed).unwrap_or(LAST).min(LAST) - ROOM;
    // SAFETY: the call takes two numbers besides an open descriptor.
    let number = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) };
    match number {
        ..0 => descriptor,
        // SAFETY: a new descriptor that nobody else has.
        _ => unsafe { OwnedFd::from_raw_fd(number) },
    }
}

/// # Safety
/// As for [`bpf`], and the command gives a descriptor, which is close-on-exec.
unsafe fn descriptor<T>(command: bpf_cmd, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: as the caller says. The kernel has opened the descriptor for the caller.
    unsafe { bpf(command, attributes).map(|number| OwnedFd::from_raw_fd(number)) }
}

/// # Safety
/// `attributes` is the command's part of `union bpf_attr`.
unsafe fn bpf<T>(command: bpf_cmd, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match RawFd::try_from(result).unwrap_or(-1) {
        ..0 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}
