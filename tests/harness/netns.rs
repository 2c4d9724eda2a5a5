//! Network namespaces by name, as `ip netns` makes them (`/run/netns/<name>`).

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns},
};

/// Where `ip netns` keeps its names.
pub const DIRECTORY: &str = "/run/netns";

/// A network namespace that goes when this value goes, unless something still runs in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
}

impl Netns {
    /// Makes a namespace with `lo` up.
    pub fn create(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        run("ip", &["netns", "add", &name], None)?;
        let netns = Self {
            path: Path::new(DIRECTORY).join(&name),
            name,
        };
        run("ip", &["-n", &netns.name, "link", "set", "lo", "up"], None)?;
        Ok(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets made there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        run_in(&self.path, work)
    }

    /// Sees to it that `command` runs inside the namespace. The mount namespace stays, and with it `/sys`.
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        enter(&self.path, command)
    }

    /// Carries out `lines` of `ip`'s batch language inside the namespace.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        run("ip", &["-n", &self.name, "-batch", "-"], Some(lines))
    }

    /// Writes `net.*` settings, such as `("ipv4/ip_forward", "1")`. A setting that this kernel lacks is skipped.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        // `/proc/sys/net` shows the namespace of the thread that looks.
        self.run(|| {
            for (name, value) in settings {
                let path = Path::new("/proc/sys/net").join(name);
                match std::fs::write(&path, value) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).with_context(|| format!("writing {}", path.display()));
                    }
                    _ => {}
                }
            }
            Ok(())
        })?
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Takes the name of a namespace away. One that is gone already is no error.
pub(crate) fn remove(path: &Path) {
    // A name that has been mounted over twice needs as many turns; EINVAL says that none is left.
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    let _ = std::fs::remove_file(path);
}

/// Runs `work` on a thread of its own inside the namespace that `path` names.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET).context("setns")?;
            Ok(work())
        });
        match entered.join() {
            Ok(result) => result,
            // The assertion that failed inside is the caller's.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Sees to it that `command` runs inside the namespace that `path` names.
pub fn enter(path: &Path, command: &mut Command) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    // SAFETY: between fork and exec only setns is called, which is async-signal-safe and allocates nothing; the file
    // lives in the closure.
    unsafe {
        command.pre_exec(move || {
            if libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) == 0 {
                Ok(())
            } else {
                Err(Errno::last().into())
            }
        });
    }
    Ok(())
}

/// Runs a system tool to its end; what it says on stderr becomes the error.
pub(crate) fn run(program: &str, args: &[&str], input: Option<&str>) -> Result<()> {
    use std::{io::Write, process::Stdio};
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}; `cargo xtask setup` installs it"))?;
    if let Some(input) = input {
        let mut stdin = child
            .stdin
            .take()
            .ok_or_else(|| anyhow!("{program} has no stdin"))?;
        stdin
            .write_all(input.as_bytes())
            .with_context(|| format!("writing to {program}"))?;
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("waiting for {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program} {}: {}\n{}",
            args.join(" "),
            said.trim(),
            input.unwrap_or_default()
        );
    }
    Ok(())
}
