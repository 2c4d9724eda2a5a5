//! A Lease: which agent of the cluster writes statuses.
//!
//! Its holder renews it by the clock. The others look at it now and then, each the more rarely the more nodes there
//! are, so that the cluster as a whole looks about twice a second. Who finds it late looks once more when it would have
//! lapsed, and takes it when it has not changed meanwhile: clocks of others decide when to look, never who holds it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{
    api::{GetParams, ListParams, PostParams},
    core::request::Request,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    client::{Cluster, Failure},
    objects::Watched as _,
    objects::{Node, Resource},
};

const NAME: &str = "derny-status";
const LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    version: "v1",
    plural: "leases",
};
/// A lease that has been seen unchanged for so long is anybody's.
const LASTS: Duration = Duration::from_secs(15);
/// How often its holder renews it.
const RENEW: Duration = Duration::from_secs(5);
/// When its holder tries again that could not.
const AGAIN: Duration = Duration::from_secs(2);
/// A holder that has not renewed it for so long holds it no more, before anybody else may.
const HELD: Duration = Duration::from_secs(10);
/// A renewal that is older, by the clocks of holder and onlooker, is late.
const LATE: Duration = Duration::from_secs(8);
/// Between two looks of all agents together, on average.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// Bounds of the time between two looks of one agent, on average.
const LOOKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// How many nodes there may be, where no holder has said it.
const UNCOUNTED: u32 = 100;
/// How often the holder counts them.
const COUNT: Duration = Duration::from_secs(600);
/// Where it writes how many there are.
const NODES: &str = "derny.dev/nodes";

/// Who this is, and where the lease stands.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) namespace: String,
}

/// How it stands, and when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) is_held: bool,
    pub(super) next: Duration,
}

pub(super) struct Lease {
    cluster: Cluster,
    identity: Identity,
    own: Option<Own>,
    seen: Option<Seen>,
    nodes: Option<u32>,
    counted: Option<Instant>,
    rng: fastrand::Rng,
}

/// The lease as this agent wrote it.
struct Own {
    version: String,
    at: Instant,
}

/// Somebody else's lease, since this version of it was seen first.
#[derive(Debug)]
struct Seen {
    version: String,
    since: Instant,
    is_late: bool,
}

impl Lease {
    pub(super) fn new(cluster: Cluster, identity: Identity) -> Self {
        Self {
            cluster,
            identity,
            own: None,
            seen: None,
            nodes: None,
            counted: None,
            rng: fastrand::Rng::new(),
        }
    }

    /// Takes, renews or looks at the lease.
    pub(super) async fn turn(&mut self) -> Turn {
        let is_held = match self.hold().await {
            Ok(is_held) => is_held,
            Err(failure) => {
                tracing::debug!(error = %failure, "lease not held");
                if self.own.as_ref().is_some_and(|own| own.at.elapsed() < HELD) {
                    return Turn {
                        is_held: true,
                        next: AGAIN,
                    };
                }
                false
            }
        };
        if is_held {
            self.seen = None;
            return Turn { is_held, next: RENEW };
        }
        self.own = None;
        let next = pause(self.seen.as_ref(), self.nodes, Instant::now(), &mut self.rng);
        Turn { is_held, next }
    }

    /// Leaves it to whoever looks next, when it is held.
    pub(super) async fn release(mut self) {
        let Some(own) = self.own.take() else { return };
        let mut lease = self.object(Some(own.version));
        if let Some(spec) = lease["spec"].as_object_mut() {
            spec.remove("holderIdentity");
        }
        if let Err(failure) = self.replace(&lease).await {
            tracing::debug!(error = %failure, "lease not released: it lapses");
        }
    }

    /// Whether it is held now.
    async fn hold(&mut self) -> Result<bool, Failure> {
        if let Some(own) = &self.own {
            let version = own.version.clone();
            self.count().await;
            match self.replace(&self.object(Some(version))).await {
                // Somebody has taken it, or taken it away.
                Err(Failure::Conflict(_) | Failure::NotFound(_)) => {}
                Err(failure) => return Err(failure),
                Ok(version) => return Ok(self.holds(version)),
            }
        }
        let path = LEASES.path(Some(&self.identity.namespace));
        let get = Request::new(&path).get(NAME, &GetParams::default());
        let lease = match self.cluster.text(&LEASES, "get", get).await {
            Ok(text) => text,
            Err(Failure::NotFound(_)) => {
                self.count().await;
                let lease = self.object(None).to_string().into_bytes();
                let create = Request::new(&path).create(&PostParams::default(), lease);
                return match self.cluster.text(&LEASES, "create", create).await {
                    Ok(text) => Ok(self.holds(version(&parsed(&text)?))),
                    // Somebody else was faster.
                    Err(Failure::Conflict(_)) => Ok(false),
                    Err(failure) => Err(failure),
                };
            }
            Err(failure) => return Err(failure),
        };
        let lease = parsed(&lease)?;
        let said = lease["metadata"]["annotations"][NODES].as_str();
        self.nodes = said.and_then(|text| text.parse().ok()).or(self.nodes);
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let version = version(&lease);
        let is_free = holder.is_empty() || holder == self.identity.name;
        if !is_free && !see(&mut self.seen, &version, is_late(&lease), Instant::now()) {
            return Ok(false);
        }
        self.count().await;
        match self.replace(&self.object(Some(version))).await {
            Ok(version) => Ok(self.holds(version)),
            Err(Failure::Conflict(_)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn holds(&mut self, version: String) -> bool {
        if self.own.is_none() {
            tracing::info!("this agent writes the statuses of routes and policies");
        }
        self.own = Some(Own {
            version,
            at: Instant::now(),
        });
        true
    }

    /// Writes the lease; its new version.
    async fn replace(&self, lease: &Value) -> Result<String, Failure> {
        let path = LEASES.path(Some(&self.identity.namespace));
        let body = lease.to_string().into_bytes();
        let replace = Request::new(&path).replace(NAME, &PostParams::default(), body);
        let text = self.cluster.text(&LEASES, "update", replace).await?;
        Ok(version(&parsed(&text)?))
    }

    fn object(&self, version: Option<String>) -> Value {
        let mut metadata = json!({"name": NAME, "namespace": self.identity.namespace});
        if let Some(version) = version {
            metadata["resourceVersion"] = json!(version);
        }
        if let Some(nodes) = self.nodes {
            metadata["annotations"] = json!({NODES: nodes.to_string()});
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.identity.name,
                "leaseDurationSeconds": LASTS.as_secs(),
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        })
    }

    /// Counts the nodes, when it is time to. One that cannot be told leaves the last count.
    async fn count(&mut self) {
        if self.counted.is_some_and(|at| at.elapsed() < COUNT) {
            return;
        }
        self.counted = Some(Instant::now());
        let one = ListParams::default().limit(1);
        let list = Request::new(Node::OF.path(None)).list(&one);
        let Ok(text) = self.cluster.text(&Node::OF, "list", list).await else {
            return;
        };
        self.nodes = parsed(&text).ok().and_then(|page| counted(&page)).or(self.nodes);
    }
}

fn parsed(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|e| Failure::Undecodable(e.to_string()))
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// How many objects a list has of which this is the first page.
fn counted(page: &Value) -> Option<u32> {
    let here = page["items"].as_array()?.len();
    let metadata = &page["metadata"];
    let rest = match metadata["continue"].as_str() {
        None | Some("") => 0,
        // A server may not say how many follow.
        Some(_) => metadata["remainingItemCount"].as_u64()?,
    };
    u32::try_from(rest.saturating_add(here as u64)).ok()
}

/// By the clocks of both: to be looked at once more.
fn is_late(lease: &Value) -> bool {
    let renewed = lease["spec"]["renewTime"].as_str();
    let Some(renewed) = renewed.and_then(|text| text.parse::<Timestamp>().ok()) else {
        return true;
    };
    let age = Timestamp::now().duration_since(renewed);
    Duration::try_from(age).is_ok_and(|age| age > LATE)
}

/// Remembers somebody else's lease; whether it has lapsed, by this clock alone.
fn see(seen: &mut Option<Seen>, version: &str, is_late: bool, now: Instant) -> bool {
    match seen {
        Some(seen) if seen.version == version => {
            seen.is_late = is_late;
            now.duration_since(seen.since) >= LASTS
        }
        _ => {
            *seen = Some(Seen {
                version: version.to_owned(),
                since: now,
                is_late,
            });
            false
        }
    }
}

/// Until the next look at somebody else's lease.
fn pause(seen: Option<&Seen>, nodes: Option<u32>, now: Instant, rng: &mut fastrand::Rng) -> Duration {
    if let Some(seen) = seen.filter(|seen| seen.is_late) {
        let lapses = LASTS.saturating_sub(now.duration_since(seen.since));
        // Those who saw it together do not all try to take it at once.
        return lapses + Duration::from_secs(1).mul_f64(rng.f64());
    }
    let mean = BETWEEN_LOOKS * nodes.unwrap_or(UNCOUNTED);
    mean.clamp(LOOKS.0, LOOKS.1).mul_f64(0.5 + rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_as_rare_as_there_are_nodes() {
        let mut rng = fastrand::Rng::with_seed(1);
        let now = Instant::now();
        for (nodes, mean) in [
            (Some(1), 5),
            (Some(10), 5),
            (Some(1000), 500),
            (Some(9999), 600),
            (None, 50),
        ] {
            let looks: Vec<f64> = (0..2000)
                .map(|_| pause(None, nodes, now, &mut rng).as_secs_f64())
                .collect();
            let mean = f64::from(mean);
            assert!(
                looks.iter().all(|look| (0.5..1.5).contains(&(look / mean))),
                "{nodes:?}"
            );
            let average = looks.iter().sum::<f64>() / 2000.0;
            assert!((0.97..1.03).contains(&(average / mean)), "{nodes:?}: {average}");
        }
    }

    #[test]
    fn a_lease_lapses_when_it_has_stood_still_before_ones_own_eyes() {
        let mut seen = None;
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // Late by the clocks alone is not lapsed.
        assert!(!see(&mut seen, "1", true, at(0)));
        let mut rng = fastrand::Rng::with_seed(1);
        let next = pause(seen.as_ref(), Some(1000), at(0), &mut rng);
        assert!((15.0..16.0).contains(&next.as_secs_f64()), "{next:?}");
        assert!(!see(&mut seen, "1", true, at(14)));
        assert!(see(&mut seen, "1", true, at(15)));
        // It was renewed after all.
        assert!(!see(&mut seen, "2", false, at(16)));
        assert!(!see(&mut seen, "2", true, at(30)));
        assert!(see(&mut seen, "2", true, at(31)));
    }

    #[test]
    fn a_first_page_tells_how_many_there_are() {
        let page = |metadata: Value| counted(&json!({"metadata": metadata, "items": [{}]}));
        assert_eq!(page(json!({})), Some(1));
        assert_eq!(
            page(json!({"continue": "x", "remainingItemCount": 999})),
            Some(1000)
        );
        assert_eq!(page(json!({"continue": "x"})), None);
    }

    #[test]
    fn a_renewal_is_late_by_the_clocks() {
        let renewed = |ago: i64| {
            let at = Timestamp::now() - k8s_openapi::jiff::SignedDuration::from_secs(ago);
            json!({"spec": {"renewTime": at.to_string()}})
        };
        assert!(!is_late(&renewed(4)));
        assert!(is_late(&renewed(9)));
        // A clock that is ahead.
        assert!(!is_late(&renewed(-60)));
        assert!(is_late(&json!({"spec": {}})));
    }
}
