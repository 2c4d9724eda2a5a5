//! The wiring: which room gets which end of what. The only place that imports everything.

mod successor;
mod threads;
mod limits;
mod memory;
mod notices;
mod cluster;
mod bounds;
mod opened;
mod watchdog;

pub use cluster::clear_statuses;
use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use crate::{
    discover::{FileSource, Names, Servers, kube},
    drain, health,
    inspect::{self, AllDisplaced},
    intercept,
    live::Live,
    model::Refusals,
    options::{AccessLog, KernelLog, RunArgs},
    proxy, publish, ready,
    record::{Hub, Sink, Writer},
    share::Ledger,
    snapshot::Snapshot,
};

/// Batches of updates on their way from discovery to the publisher.
const UPDATES: usize = 16;
/// Addresses that the kernel can redirect.
const MAX_DESTINATIONS: u32 = 131_072;
/// How long cutting connections off may hold the end of the process up.
const CUTTING: Duration = Duration::from_millis(500);
/// How long enrolling pods may keep the publisher from anything else.
const ENROLMENTS: Duration = Duration::from_secs(60);

/// Runs the agent until SIGTERM or SIGINT. Everything is opened before anything is served, so that a bad port or
/// a bad file fails the start.
pub fn run(args: RunArgs) -> Result<()> {
    let zone = args.zone.as_deref().map(Into::into);
    let source = args
        .config
        .as_deref()
        .map(|path| FileSource::open(path, zone))
        .transpose()?;
    let descriptors = threads::raise_file_limit();
    let cgroup = match &args.cgroup {
        Some(path) => path.clone(),
        None => intercept::find_pods_cgroup()?,
    };
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("control runtime")?;
    control.block_on(successor::wait_for_other(&cgroup, args.wait_for_other))?;
    let kernel = intercept::Kernel::load(&intercept::Options {
        cgroup: cgroup.clone(),
        own_cgroup: None,
        stale_after: args.stale_after,
        max_destinations: MAX_DESTINATIONS,
        max_inbound: args.max_inbound,
        log_level: match args.kernel_log {
            KernelLog::Off => 0,
            KernelLog::Debug => 4,
        },
    })?;
    successor::alone(&kernel)?;
    tracing::info!(cgroup = %cgroup.display(), "kernel programs loaded");
    let live = Live::new(Instant::now());
    let sink = match &args.access_log {
        AccessLog::Off => Sink::Off,
        AccessLog::Stdout => Sink::Stdout,
        AccessLog::File(path) => Sink::File(path.clone()),
    };
    let writing = live.part("the access log", None);
    let writer = Writer::start(sink, bounds::log(&args.bounds), writing).context("access log")?;

    let window_thread = threads::WindowThread::new()?;
    let displaced = AllDisplaced::default();
    let opened = window_thread.block_on(opened::open(&args, &displaced))?;

    let cluster = match args.kubernetes.enabled {
        true => Some(control.block_on(kube::Cluster::connect(args.kubernetes.kubeconfig.as_deref()))?),
        false => None,
    };
    let demand = cluster
        .as_ref()
        .map(|cluster| kube::KubeDemand::new(cluster.board()));
    let pods = match (&cluster, &args.kubernetes.node_name) {
        (Some(cluster), Some(node)) => {
            let state_file = args.kubernetes.state_file.as_deref();
            let open = async { kube::PodSource::open(cluster.clone(), node.clone(), &cgroup, state_file) };
            let mut pods = control.block_on(open)?;
            if let Some(file) = &source {
                pods.leave(file.pods());
            }
            Some(pods)
        }
        _ => None,
    };

    let started = Instant::now();
    let standstill = inspect::standstill(args.stale_after);
    let workers = args.worker_count().get();
    let hub = Hub::new(bounds::series(&args.bounds));
    let ledger = Ledger::new(limits::limits(&args.shares, &limits::System::read(descriptors)));
    let ready = ready::Ready::new();
    let (trigger, drain) = drain::channel();
    let (cutting, cut) = drain::channel();
    let (snapshot, _) = watch::channel(Arc::new(Snapshot::default()));
    let refusals = Refusals::default();
    let tables =
        proxy::HashTables::start(args.max_hash_table_bytes, refusals.clone()).context("hash tables")?;
    let registry = proxy::Registry::new(tables);

    let mut threads = threads::Workers::default();
    for index in 0..workers {
        threads.start(threads::WorkerParts {
            index,
            started,
            snapshot: snapshot.subscribe(),
            registry: &registry,
            origins: kernel.origins()?,
            hub: &hub,
            writer: &writer,
            drain: &drain,
            cut: &cut,
            demand: match &demand {
                Some(demand) => Arc::new(demand.clone()),
                None => Arc::new(()),
            },
            endpoints_wait: args.kubernetes.endpoints_wait,
            drain_timeout: args.drain_timeout,
            workers,
            limits: args.connections.limits(),
        })?;
    }
    let progress = threads.progress();
    threads::heartbeat(
        kernel.heartbeat()?,
        progress.clone(),
        (args.stale_after, args.hang_timeout),
        live.part("the heartbeat", Some(standstill)),
        drain.clone(),
    )?;

    // The node reaches every pod; the marked sockets of its namespace are what probes are sent from.
    let node =
        intercept::Netns::open(Path::new("/proc/self/ns/net")).context("the node's network namespace")?;
    let max_probes = usize::try_from(args.max_probes).unwrap_or(usize::MAX);
    let share = usize::try_from(args.max_namespace_probes).unwrap_or(usize::MAX);
    let prober = health::Prober::new(max_probes, share, refusals.clone(), {
        let registry = registry.clone();
        move |passed| registry.probe_passed(passed.port, passed.endpoint, Instant::now().into_std())
    });
    let names = Names::new(match args.dns_servers.as_slice() {
        [] => Servers::System,
        given => Servers::Given(given.to_vec()),
    });
    let observer = kernel.observer()?;
    let order = inspect::Watcher::start(kernel.program_order()?);
    let following = snapshot.subscribe();
    let followed = snapshot.subscribe();
    let publisher = publish::Publisher::new(
        kernel,
        threads.handles(ledger.clone(), args.stale_after),
        workers,
        args.drain_timeout,
        snapshot,
        ready.clone(),
    );
    let (updates, receive) = mpsc::channel(UPDATES);
    // An empty configuration is in force at once: discovery has nothing to send.
    let current = source.as_ref().map(FileSource::current);
    let empty = current.is_none_or(|current| current.pods.is_empty() && current.services.is_empty());
    let first = (!empty).then(|| ready.task("the first configuration to be in force"));
    let said_zone = source.as_ref().map_or_else(
        || args.zone.as_deref().map(Into::into),
        |source| source.current().zone.clone(),
    );
    let taken = source.as_ref().map(FileSource::services);
    let noticing = cluster.clone();
    let kube = cluster.zip(demand).map(|(cluster, demand)| {
        let declared = pods.as_ref().map(kube::PodSource::declared);
        let refusals = refusals.clone();
        cluster::source(
            cluster,
            &args.kubernetes,
            demand,
            taken,
            declared,
            said_zone,
            refusals,
        )
    });
    if let Some(cluster) = noticing {
        let (published, refusals) = (publisher.published(), refusals.clone());
        let mut recently = notices::Recently::default();
        let standing = move || {
            // Cloned: a worker that comes for the next snapshot waits for whoever holds this one borrowed.
            let snapshot = published.snapshot.borrow().clone();
            let mut all = recently.refused(refusals.all(), Instant::now());
            all.extend(notices::contested(&snapshot));
            all
        };
        let node = args.kubernetes.node_name.clone().unwrap_or_default();
        control.spawn(kube::tell(cluster, node, standing, drain.clone()));
    }
    let windows = Arc::new(inspect::Windows {
        config_path: args.config.clone().unwrap_or_default(),
        published: publisher.published(),
        source: source.as_ref().map(FileSource::state),
        kube: kube.as_ref().map(kube::KubeSource::board),
        pods: pods.as_ref().map(kube::PodSource::board),
        health: prober.board(),
        dns: names.board(),
        hub,
        ledger,
        observer,
        order: order.board(),
        registry: registry.clone(),
        refusals,
        progress,
        writer: writer.clone(),
        displaced,
        live: live.clone(),
        ready: ready.clone(),
        stale_after: args.stale_after,
        started_at: std::time::SystemTime::now(),
    });
    let publishing = live.part("the publisher", Some(standstill.max(ENROLMENTS)));
    let publisher = threads::publisher(publisher, receive, first, publishing, drain.clone())?;

    let reload = Arc::new(Notify::new());
    window_thread.serve(opened.serve(windows, drain.clone()))?;
    let must_run = |name: &str| live.part(name, None);
    control.spawn(threads::beating(live.part("discovery", Some(standstill))));
    control.spawn(order.run(drain.clone()));
    let looking_after = threads::look_after(registry, following, drain.clone());
    control.spawn(must_run("outlier detection").of(looking_after));
    let probing = prober.run(followed, updates.clone(), Arc::new(node), drain.clone());
    control.spawn(must_run("the prober").of(probing));
    if let Some(kube) = kube {
        let first = ready.task("the services of the API server");
        let run = kube.run(updates.clone(), first, drain.clone());
        control.spawn(must_run("discovery of services").of(run));
    }
    if let Some(pods) = pods {
        let first = ready.task("the pods of this node in the API");
        let run = pods.run(updates.clone(), first, drain.clone());
        control.spawn(must_run("discovery of pods").of(run));
    }
    if let Some(source) = source {
        let run = source.run(names, updates, reload.clone(), drain.clone());
        control.spawn(must_run("the configuration file's source").of(run));
    }
    tracing::info!(workers, cgroup = %cgroup.display(), http = %args.http_address, "derny runs");

    control.block_on(async {
        let mut end = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
        loop {
            tokio::select! {
                _ = end.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    reload.notify_one();
                    writer.reopen();
                }
            }
        }
        tracing::info!(seconds = args.drain_timeout.as_secs_f64(), "draining");
        drop(drain);
        let drained = trigger.drain(args.drain_timeout).await;
        tracing::info!(?drained, "drained");
        if drained == drain::Drained::Deadline {
            drop(cut);
            cutting.drain(CUTTING).await;
        }
        anyhow::Ok(())
    })?;
    // The kernel's programs go with the publisher's thread.
    drop(publisher);
    writer.flush(Duration::from_secs(1));
    Ok(())
}
