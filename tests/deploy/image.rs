//! The image, run by containerd with the DaemonSet's capabilities, a read-only root and the default seccomp profile.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use derny_tests::{Process, clients, eventually};
use nix::sys::signal::Signal;

use crate::{container, rendered::run};

const STARTED: Duration = Duration::from_secs(30);
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

/// A containerd of this test's own. Dropping it ends the container, then containerd.
struct Containerd {
    /// Of the node.
    prefix: String,
    run_directory: PathBuf,
    directory: PathBuf,
    container: String,
    process: Process,
}

impl Containerd {
    fn start(prefix: &str) -> Self {
        let run_directory = Path::new("/run").join(prefix);
        let directory = run_directory.join("containerd");
        std::fs::create_dir_all(&directory).unwrap();
        let config = directory.join("config.toml");
        let at = |name: &str| directory.join(name).display().to_string();
        let (root, state, socket) = (at("root"), at("state"), at("socket"));
        let text = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = Command::new("containerd");
        command
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let containerd = Self {
            container: format!("{prefix}-agent"),
            prefix: prefix.to_owned(),
            run_directory,
            process: Process::spawn(command).unwrap(),
            directory,
        };
        let answers = || run(containerd.ctr(&["version"])).status.success();
        eventually("containerd answers", STARTED, answers).unwrap();
        containerd
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.directory.join("socket"))
            .args(arguments);
        command
    }

    /// `ctr run` up to the program in the container, which sees the host's processes, the node's network, and of its
    /// files what the agent of a test needs.
    fn run(&self) -> Vec<String> {
        let bind = |path: &Path, how: &str| {
            let path = path.display();
            format!("--mount=type=bind,src={path},dst={path},options=rbind:{how}")
        };
        let mut words: Vec<String> = vec!["ctr".into(), "--address".into()];
        words.push(self.directory.join("socket").display().to_string());
        words.extend(["run", "--rm", "--snapshotter=native", "--read-only", "--seccomp"].map(str::to_owned));
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

impl Drop for Containerd {
    fn drop(&mut self) {
        // The container outlives containerd otherwise.
        let _ = run(self.ctr(&["tasks", "kill", "--signal", "SIGKILL", &self.container]));
        let gone = || {
            let _ = run(self.ctr(&["tasks", "delete", &self.container]));
            let _ = run(self.ctr(&["containers", "delete", &self.container]));
            !run(self.ctr(&["containers", "list", "--quiet"]))
                .stdout
                .contains(&self.container)
        };
        let _ = eventually("the container is gone", STARTED, gone);
        let _ = self.process.signal(Signal::SIGTERM);
        let _ = self.process.wait(STARTED);
    }
}

#[test]
fn the_image_enrols_and_serves_a_pod() {
    let image = image();
    let mut kept = None;
    let (world, application) = container::world(|prefix, options| {
        let containerd = Containerd::start(prefix);
        let import = containerd.ctr(&[
            "images",
            "import",
            "--snapshotter=native",
            &image.display().to_string(),
        ]);
        let imported = run(import).success().unwrap();
        assert!(imported.contains(NAME), "{imported}");
        options.under = containerd.run();
        options.program = Some("/derny".into());
        kept = Some(containerd);
    })
    .unwrap();
    container::is_served(&world);

    let containerd = kept.unwrap();
    let tasks = run(containerd.ctr(&["tasks", "list"])).success().unwrap();
    let id = tasks.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap();
    assert_eq!(
        container::effective(id.parse().unwrap()),
        container::capabilities().len()
    );
    let executable = std::fs::read_link(format!("/proc/{id}/exe")).unwrap();
    assert_eq!(executable, Path::new("/derny"), "of the image");
    drop(containerd);
    drop((world, application));
}
