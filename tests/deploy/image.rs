//! The image, run by containerd with the DaemonSet's capabilities, a read-only root and the default seccomp profile.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use derny_tests::{
    Process, clients,
    containers::{Containerd, Kind},
    eventually,
};

use crate::container;

const ENDED: Duration = Duration::from_secs(30);
const NAME: &str = "localhost/derny:0.1.0";
/// What `ctr run` gives a container, and the DaemonSet takes away with `drop: [ALL]`.
const GIVEN: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What `cargo xtask test` built, in the release profile.
fn image() -> PathBuf {
    let path = std::env::var_os("DERNY_IMAGE").map_or_else(
        || clients::workspace().join("target/derny-image-test.tar"),
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "no {}: cargo xtask image --profile release --output target/derny-image-test.tar",
        path.display()
    );
    path
}

/// A containerd of this test's own, and the agent's container. Dropping it ends both.
struct Runtime {
    /// Of the node.
    prefix: String,
    run_directory: PathBuf,
    container: String,
    containerd: Containerd,
}

impl Runtime {
    fn start(prefix: &str) -> Self {
        let run_directory = Path::new("/run").join(prefix);
        let directory = run_directory.join("containerd");
        Self {
            container: format!("{prefix}-agent"),
            prefix: prefix.to_owned(),
            containerd: Containerd::start(&directory, &Kind::Plain, Process::spawn).unwrap(),
            run_directory,
        }
    }

    /// `ctr run` up to the program in the container, which sees the host's processes, the node's network, and of its
    /// files what the agent of a test needs.
    fn run(&self) -> Vec<String> {
        let bind = |path: &Path, how: &str| {
            let path = path.display();
            format!("--mount=type=bind,src={path},dst={path},options=rbind:{how}")
        };
        let mut words = self.containerd.client();
        words.extend(["run", "--rm", "--snapshotter=native", "--read-only", "--seccomp"].map(str::to_owned));
        words.push(format!("--cgroup=/{}/agent", self.prefix));
        words.extend(GIVEN.map(|name| format!("--cap-drop=CAP_{name}")));
        let added = container::capabilities();
        words.extend(
            added
                .iter()
                .map(|name| format!("--cap-add=CAP_{}", name.to_uppercase())),
        );
        words.push(format!("--with-ns=pid:/proc/{}/ns/pid", std::process::id()));
        words.push(format!("--with-ns=network:/run/netns/{}-node", self.prefix));
        words.push(bind(&self.run_directory, "rw"));
        words.push(bind(Path::new("/sys/fs/cgroup"), "ro"));
        words.extend([NAME.to_owned(), self.container.clone()]);
        words
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // The container outlives containerd otherwise.
        let ctr = |arguments: &[&str]| self.containerd.ctr(arguments);
        let _ = ctr(&["tasks", "kill", "--signal", "SIGKILL", &self.container]);
        let gone = || {
            let _ = ctr(&["tasks", "delete", &self.container]);
            let _ = ctr(&["containers", "delete", &self.container]);
            ctr(&["containers", "list", "--quiet"]).is_ok_and(|list| !list.contains(&self.container))
        };
        let _ = eventually("the container is gone", ENDED, gone);
    }
}

#[test]
fn the_image_enrols_and_serves_a_pod() {
    let image = image();
    let mut kept = None;
    let (world, application) = container::world(|prefix, options| {
        let runtime = Runtime::start(prefix);
        let archive = image.display().to_string();
        let import = ["images", "import", "--snapshotter=native", &archive];
        let imported = runtime.containerd.ctr(&import).unwrap();
        assert!(imported.contains(NAME), "{imported}");
        options.under = runtime.run();
        options.program = Some("/derny".into());
        kept = Some(runtime);
    })
    .unwrap();
    container::is_served(&world);

    let runtime = kept.unwrap();
    let tasks = runtime.containerd.ctr(&["tasks", "list"]).unwrap();
    let id = tasks.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap();
    assert_eq!(
        container::effective(id.parse().unwrap()),
        container::capabilities().len()
    );
    let executable = std::fs::read_link(format!("/proc/{id}/exe")).unwrap();
    assert_eq!(executable, Path::new("/derny"), "of the image");
    drop(runtime);
    drop((world, application));
}
