//! A node with the programs loaded, and an engine that says who it is.

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener},
    path::PathBuf,
    process::{self, Command},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use derny::{
    intercept::{Enrolled, Kernel, Options, Origins, SlotCounters},
    model::{
        AnsweredBy, DestinationId, EnrolmentId, InboundPort, Pod as PodWord, PodAddresses, PodName, Protocol,
        Slot,
    },
};
use derny_tests::{Node, Pod, eventually};
use serde_json::{Value, json};

/// A virtual address that nobody answers but the agent.
pub(crate) const VIP: &str = "10.96.0.7:80";
pub(crate) const VIP6: &str = "[fd96::7]:80";
pub(crate) const ID: u32 = 98_765;
/// Where the applications of the pods listen.
pub(crate) const APP: u16 = 8080;

const STALE_AFTER: Duration = Duration::from_millis(500);

pub(crate) struct Mesh {
    pub(crate) kernel: Kernel,
    pub(crate) node: Node,
    beating: Option<Beating>,
}

impl Mesh {
    /// The programs loaded and a living agent.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut mesh = Self::loaded(change);
        mesh.revive();
        mesh
    }

    /// The programs loaded, and never a sign of life.
    pub(crate) fn without_a_beat() -> Self {
        Self::loaded(|_| {})
    }

    /// On a node that is there already.
    pub(crate) fn on(node: Node, change: impl FnOnce(&mut Options)) -> Self {
        let mut mesh = Self::loaded_on(node, change);
        mesh.revive();
        mesh
    }

    fn loaded(change: impl FnOnce(&mut Options)) -> Self {
        Self::loaded_on(Node::new().unwrap(), change)
    }

    fn loaded_on(node: Node, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options {
            cgroup: node.host().kubepods(),
            own_cgroup: Some(own_cgroup()),
            stale_after: STALE_AFTER,
            max_destinations: 1024,
            max_inbound: 128,
            log_level: 0,
        };
        change(&mut options);
        let kernel = Kernel::load(&options).unwrap();
        Self {
            kernel,
            node,
            beating: None,
        }
    }

    /// No sign of life any more, and the last one is stale.
    pub(crate) fn fall_silent(&mut self) {
        self.beating = None;
        let observer = self.kernel.observer().unwrap();
        eventually("the heartbeat is stale", Duration::from_secs(5), || {
            observer.heartbeat_age().unwrap().unwrap() > STALE_AFTER
        })
        .unwrap();
    }

    pub(crate) fn revive(&mut self) {
        self.beating = Some(Beating::start(&self.kernel));
    }

    /// Enrols the pod with an engine of one worker.
    pub(crate) fn enrol(&mut self, slot: u16, pod: &Pod, inbound: &[u16]) -> Enrolled {
        let mut enrolled = self
            .kernel
            .enrol(self::slot(slot), &word(pod, inbound), 1)
            .unwrap();
        self.serve(&mut enrolled);
        enrolled
    }

    /// Takes the listeners, and has an engine at each.
    pub(crate) fn serve(&self, enrolled: &mut Enrolled) {
        let origins = self.kernel.origins().unwrap();
        let listeners = enrolled.listeners.remove(0);
        for listener in listeners.outbound {
            engine(listener, "outbound", Some((origins.clone(), enrolled.id)));
        }
        for listener in listeners.inbound {
            engine(listener, "inbound", None);
        }
    }

    pub(crate) fn redirect(&mut self, address: SocketAddr) {
        self.answered_by(address, AnsweredBy::Agent);
    }

    pub(crate) fn answered_by(&mut self, address: SocketAddr, by: AnsweredBy) {
        self.kernel
            .serve(address, DestinationId::new(ID).unwrap(), "shop/cart:80", by)
            .unwrap();
    }

    /// What became of the connections of a pod; `None`: of no pod.
    pub(crate) fn counters(&self, slot: Option<u16>) -> SlotCounters {
        let all = self.kernel.observer().unwrap().counters().unwrap();
        let wanted = slot.map(self::slot);
        all.into_iter().find(|counters| counters.slot == wanted).unwrap()
    }

    /// Asserts that the pod's connections took these paths and no others.
    #[track_caller]
    pub(crate) fn assert_counted(&self, slot: u16, fill: impl FnOnce(&mut SlotCounters)) {
        let mut expected = SlotCounters::default();
        expected.slot = Some(self::slot(slot));
        fill(&mut expected);
        assert_eq!(self.counters(Some(slot)), expected);
    }
}

pub(crate) fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

pub(crate) fn word(pod: &Pod, inbound: &[u16]) -> PodWord {
    PodWord {
        name: PodName {
            namespace: "shop".into(),
            name: pod.name().into(),
        },
        workload: pod.name().into(),
        netns: pod.netns_path().into(),
        addresses: PodAddresses::default(),
        since: None,
        is_ending: false,
        inbound: inbound
            .iter()
            .map(|port| InboundPort {
                port: *port,
                protocol: Protocol::Detect,
                limits: Default::default(),
            })
            .collect(),
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a client in a pod saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) said: String,
    pub(crate) error: String,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) all: Value,
}

/// Dials from a process of the pod. `options` are those of `dial.py`; the family is that of the address unless
/// it is given.
pub(crate) fn dial(pod: &Pod, to: SocketAddr, options: Value) -> Seen {
    Seen::of(&pod.run(dialling(to, options)).unwrap().success().unwrap())
}

/// A client as [`dial`] runs it.
pub(crate) fn dialling(to: SocketAddr, options: Value) -> Command {
    let mut description = json!({
        "family": if to.is_ipv4() { 4 } else { 6 },
        "to": pair(to),
    });
    let description_map = description.as_object_mut().unwrap();
    description_map.extend(options.as_object().unwrap().clone());
    let mut command = Command::new("python3");
    command.args(["-c", include_str!("dial.py"), &description.to_string()]);
    command
}

impl Seen {
    /// What `dial.py` printed.
    pub(crate) fn of(printed: &str) -> Self {
        let all: Value = serde_json::from_str(printed).unwrap();
        let text = |key: &str| all[key].as_str().unwrap_or_default().to_owned();
        let address = |key: &str| {
            let pair = all[key].as_array()?;
            Some(SocketAddr::new(
                pair[0].as_str().unwrap().parse().unwrap(),
                u16::try_from(pair[1].as_u64().unwrap()).unwrap(),
            ))
        };
        Self {
            said: text("said"),
            error: text("error"),
            peer: address("peer"),
            local: address("local"),
            all,
        }
    }
}

pub(crate) fn pair(address: SocketAddr) -> Value {
    json!([address.ip().to_string(), address.port()])
}

/// An application of the pod on every address of its own: says `app` and who called.
pub(crate) fn app(pod: &Pod, ip: IpAddr, port: u16) {
    let listener = pod.inside(|| TcpListener::bind((ip, port)).unwrap()).unwrap();
    engine(listener, "app", None);
}

/// Answers every connection with what it is: `outbound ID from IP`, `inbound ADDRESS from IP`, `app from IP`.
pub(crate) fn engine(listener: TcpListener, role: &'static str, origins: Option<(Origins, EnrolmentId)>) {
    listener.set_nonblocking(false).unwrap();
    // Ends with the process: a thread in accept cannot be asked to stop.
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let local = stream.local_addr().unwrap();
            let what = match (role, &origins) {
                ("outbound", Some((origins, id))) => origins
                    .destination(id.netns_cookie, local, peer)
                    .map_or("nothing".to_owned(), |id| id.to_string()),
                ("inbound", _) => local.to_string(),
                _ => "here".to_owned(),
            };
            let _ = write!(stream, "{role} {what} from {}", peer.ip());
            // What the client sent must be read, or closing resets the connection.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = io::copy(&mut stream, &mut io::sink());
        }
    });
}

/// A thread that gives the sign of life.
struct Beating {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Beating {
    fn start(kernel: &Kernel) -> Self {
        let heartbeat = kernel.heartbeat().unwrap();
        heartbeat.beat().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                heartbeat.beat().unwrap();
                thread::park_timeout(Duration::from_millis(50));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}

/// A cgroup of this process's own, in which the engine's sockets are made: the origins of connections are taken
/// from there alone. Left and removed when the process exits.
fn own_cgroup() -> PathBuf {
    static OWN: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    extern "C" fn leave() {
        if let Some((root, own)) = OWN.get() {
            let _ = fs::write(root.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(own);
        }
    }
    let (_, own) = OWN.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .find(|line| line.contains(" cgroup2 "))
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap();
        let root = PathBuf::from(root);
        let own = root.join(format!("derny-kernel-test-{}", process::id()));
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup.procs"), "0").unwrap();
        // SAFETY: the handler touches files only.
        assert_eq!(unsafe { libc::atexit(leave) }, 0);
        (root, own)
    });
    own.clone()
}
