//! The task that keeps what is known of the API server's objects, and tells the publisher what changes.

mod saving;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{
    board::KubeBoard,
    client::{Cluster, Selection},
    demand::{Admitted, InUse, KubeDemand, Use, admit},
    leader,
    lease::Identity,
    objects,
    reading::{self, RouteReading},
    shares,
    status::{Verdict, verdicts},
    watch::{Event, Watch},
    world::World,
};
use crate::{
    drain,
    model::{Budget, PatternShare, Refusals, ServiceName, Update},
    ready,
};

/// Events on their way from the watches; a full channel holds the watches up.
const NEWS: usize = 256;
/// Events that are taken together, at most.
const AT_ONCE: usize = 1024;
/// How often services that are no longer used are looked for, and what is known is saved.
const TICK: Duration = Duration::from_secs(2);
/// A kind that cannot be listed holds the services up for so long, after they have been.
const PATIENCE: Duration = Duration::from_secs(5);
/// What an agent that ends waits for, so that another may write statuses at once.
const RELEASED: Duration = Duration::from_secs(1);
const ZONE: &str = "topology.kubernetes.io/zone";
const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// What may be set.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A service that nobody has used for so long is not watched any more.
    pub endpoints_idle: Duration,
    /// Where what is known is saved; nowhere without it.
    pub state_file: Option<PathBuf>,
    /// Of the own Node, for its zone.
    pub node_name: Option<String>,
    /// The node's zone, where somebody else has said it: that goes before the Node's label.
    pub zone: Option<Arc<str>>,
    /// What the regular expressions of one namespace's routes may take.
    pub patterns: PatternShare,
    /// Services of which one namespace may have the endpoints watched.
    pub max_watched: usize,
    /// Where what was refused to namespaces is counted.
    pub refusals: Refusals,
}

/// What comes to a source from its own process.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub demand: KubeDemand,
    /// Services that a file gives, and this source leaves to it.
    pub taken: watch::Receiver<Arc<BTreeSet<ServiceName>>>,
    /// Services that pods declare to use, whether they have dialled them or not.
    pub declared: watch::Receiver<Arc<BTreeSet<Use>>>,
}

/// An API server as a source of services, routes and policies.
#[derive(Debug)]
pub struct KubeSource {
    cluster: Cluster,
    options: Options,
    inputs: Inputs,
}

#[derive(Debug)]
enum News {
    Service(Event<objects::Service>),
    Policy(Event<objects::TrafficPolicy>),
    Route(shares::Told),
    Node(Event<objects::Node>),
    Slice(ServiceName, Event<objects::EndpointSlice>),
}

impl KubeSource {
    pub fn new(cluster: Cluster, options: Options, inputs: Inputs) -> Self {
        Self {
            cluster,
            options,
            inputs,
        }
    }

    pub fn board(&self) -> KubeBoard {
        self.cluster.board()
    }

    /// Tells all changes until the drain begins or nobody receives. `first` is dropped when all that there is at the
    /// start has been told.
    pub async fn run(self, updates: mpsc::Sender<Vec<Update>>, first: ready::Guard, drain: drain::Watch) {
        let (send, news) = mpsc::channel(NEWS);
        let _until_released = drain.guard();
        let verdicts = watch::Sender::new(Arc::default());
        let writing = leader::run(self.cluster.clone(), self.identity(), verdicts.subscribe());
        let mut writing = pin!(writing);
        let mut world = World::default();
        world.set_zone(self.options.zone.clone());
        world.set_node(self.options.node_name.as_deref().map(Into::into));
        let options = &self.options;
        let (shares, restored) =
            reading::restored(options.state_file.clone(), options.patterns, &options.refusals).await;
        let mut running = Running {
            _kinds: self.kinds(&send),
            _routes: RouteReading::start(
                &self.cluster,
                shares,
                self.options.refusals.clone(),
                send.clone(),
                News::Route,
            ),
            source: self,
            world,
            in_use: InUse::default(),
            watches: BTreeMap::new(),
            admitted: Admitted::default(),
            send,
            listed_at: None,
            told_zone: None,
            unsaved: false,
            has_node: false,
            saving: None,
            verdicts,
        };
        if let Some((saved, routes)) = restored {
            running.restore(saved, routes);
        }
        tokio::select! {
            () = running.run(news, updates, first, drain) => {}
            () = &mut writing => {}
        }
        // Nobody says anything any more: it releases its lease, and is done.
        let _ = tokio::time::timeout(RELEASED, writing).await;
    }

    fn identity(&self) -> Identity {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = self.options.node_name.clone().unwrap_or_else(host);
        Identity {
            name: format!("{}-{}", name.trim(), std::process::id()),
            namespace: self.cluster.namespace().to_owned(),
        }
    }

    /// The watches that there are in any case.
    fn kinds(&self, news: &mpsc::Sender<News>) -> Vec<Watch> {
        let all = Selection::default;
        let mut kinds = vec![
            Watch::start(&self.cluster, all(), news.clone(), News::Service),
            Watch::start(&self.cluster, all(), news.clone(), News::Policy),
        ];
        if let Some(name) = &self.options.node_name {
            let own = Selection {
                fields: Some(format!("metadata.name={name}")),
                ..all()
            };
            kinds.push(Watch::start(&self.cluster, own, news.clone(), News::Node));
        }
        kinds
    }
}

struct Running {
    source: KubeSource,
    world: World,
    in_use: InUse,
    /// One for each service in use.
    watches: BTreeMap<ServiceName, Watch>,
    admitted: Admitted,
    send: mpsc::Sender<News>,
    _kinds: Vec<Watch>,
    _routes: RouteReading,
    listed_at: Option<Instant>,
    /// The zone that was told last.
    told_zone: Option<Arc<str>>,
    unsaved: bool,
    /// Whether the API server has the own Node.
    has_node: bool,
    saving: Option<JoinHandle<()>>,
    /// For whoever writes statuses.
    verdicts: watch::Sender<Arc<Vec<Verdict>>>,
}

impl Running {
    async fn run(
        mut self,
        mut news: mpsc::Receiver<News>,
        updates: mpsc::Sender<Vec<Update>>,
        first: ready::Guard,
        drain: drain::Watch,
    ) {
        let mut first = Some(first);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut objects_changed = false;
            tokio::select! {
                () = drain.signaled() => break,
                Some(event) = news.recv() => {
                    objects_changed |= self.take(event);
                    for _ in 1..AT_ONCE {
                        let Ok(event) = news.try_recv() else { break };
                        objects_changed |= self.take(event);
                    }
                    self.unsaved = true;
                }
                () = self.source.inputs.demand.somebody_waits() => {}
                Ok(()) = self.source.inputs.declared.changed() => {}
                Ok(()) = self.source.inputs.taken.changed() => {
                    let taken = self.source.inputs.taken.borrow_and_update().clone();
                    self.world.taken(taken);
                }
                _ = ticks.tick() => self.save(),
            }
            self.follow_use();
            let may_tell = self.may_tell();
            if objects_changed && may_tell {
                self.show();
            }
            if !may_tell {
                continue;
            }
            let mut changes = self.world.changes();
            if self.told_zone.as_ref() != self.world.zone() {
                self.told_zone = self.world.zone().cloned();
                changes.push(Update::Zone(self.told_zone.clone()));
            }
            if !changes.is_empty() && updates.send(changes).await.is_err() {
                break;
            }
            first = None;
        }
        drop(first);
    }

    /// True when it was anything but endpoints.
    fn take(&mut self, event: News) -> bool {
        match event {
            News::Service(event) => self.world.service(event),
            News::Policy(event) => self.world.policy(event),
            News::Route(told) => self.world.route(told),
            News::Node(Event::Listing) => self.has_node = false,
            News::Node(Event::Listed) => self.look_for_node(),
            News::Node(Event::Applied(node)) => {
                self.has_node = true;
                self.look_for_node();
                if self.source.options.zone.is_some() {
                    return true;
                }
                let zone = node
                    .metadata
                    .labels
                    .get(ZONE)
                    .map(|zone| Arc::from(zone.as_str()));
                self.world.set_zone(zone);
            }
            News::Node(_) => {}
            News::Slice(service, event) => {
                self.world.slice(&service, event);
                return false;
            }
        }
        true
    }

    /// A wrong name is not seen by anything else: there are just no pods of that node.
    fn look_for_node(&self) {
        let name = self.source.options.node_name.as_deref().unwrap_or_default();
        let trouble = (!self.has_node)
            .then(|| format!("there is no Node `{name}`, as `--node-name` says: its pods are not found"));
        if let Some(trouble) = &trouble {
            tracing::warn!("{trouble}");
        }
        self.source.cluster.board().trouble("nodes", "find", trouble);
    }

    /// Watches the endpoints of what is in use, and of nothing else.
    fn follow_use(&mut self) {
        let now = Instant::now();
        let inputs = &mut self.source.inputs;
        self.in_use.touch(inputs.demand.take(), now);
        let declared = inputs.declared.borrow_and_update().clone();
        self.in_use.touch(declared.iter().cloned(), now);
        self.in_use.expire(self.source.options.endpoints_idle, now);
        // A service that is in use is not forgotten because the server that would name it is slow to.
        if !self.world.has_services() {
            return;
        }
        let options = &self.source.options;
        let wanted = self.world.wanted(self.in_use.services());
        let admitted = admit(wanted, &self.admitted.services, options.max_watched);
        for (service, by) in &admitted.refused {
            let is_new = !self.admitted.refused.contains_key(service);
            if is_new && options.refusals.count(Budget::WatchedServices, by) {
                let share = options.max_watched;
                tracing::warn!(namespace = %by, %service, share, "a namespace uses more services than may be watched for it; calls of the others go to their own addresses");
            }
        }
        self.admitted = admitted;
        let idle: Vec<ServiceName> = (self.watches.keys())
            .filter(|name| !self.admitted.services.contains_key(*name))
            .cloned()
            .collect();
        for service in idle {
            tracing::debug!(%service, "endpoints no longer watched");
            self.watches.remove(&service);
            self.world.forget_endpoints(&service);
        }
        for service in self.admitted.services.keys().cloned() {
            if self.watches.contains_key(&service) {
                continue;
            }
            tracing::debug!(%service, "endpoints watched");
            self.world.watch_endpoints(&service);
            let selection = Selection {
                namespace: Some(service.namespace.to_string()),
                labels: Some(format!("{SERVICE_OF_SLICE}={}", service.name)),
                fields: None,
            };
            let name = service.clone();
            let wrap = move |event| News::Slice(name.clone(), event);
            let watch = Watch::start(&self.source.cluster, selection, self.send.clone(), wrap);
            self.watches.insert(service, watch);
        }
    }

    /// Whether what is known is whole enough to be told: a service is not shown without its policy and routes, unless
    /// these cannot be had.
    fn may_tell(&mut self) -> bool {
        if self.world.is_whole() {
            return true;
        }
        let listed = self.world.has_services();
        let since = *self.listed_at.get_or_insert_with(Instant::now);
        if !listed {
            self.listed_at = None;
        }
        listed && since.elapsed() >= PATIENCE
    }

    /// Shows an operator what is not as he wrote it.
    fn show(&self) {
        let faults = self.world.faults();
        let services = self.world.services.values();
        let left_alone = services.filter_map(|of| Some((of.name.clone(), of.kind.left_alone()?)));
        self.source.cluster.board().show(faults, left_alone.collect());
        // What was saved says nothing new of any object.
        if self.source.cluster.board().is_up() {
            self.verdicts.send_replace(Arc::new(verdicts(&self.world)));
        }
    }
}
