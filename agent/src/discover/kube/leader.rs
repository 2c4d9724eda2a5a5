//! One agent of the cluster writes statuses: the one that holds a Lease.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::{
    api::{GetParams, Patch, PatchParams, PostParams},
    core::request::Request,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    attached::ObjectName,
    client::{Cluster, Failure},
    objects::Resource,
    status::Verdict,
};

const LEASE: &str = "derny-status";
const LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    version: "v1",
    plural: "leases",
};
/// A lease that has not been renewed for so long is anybody's.
const LASTS: Duration = Duration::from_secs(60);
/// How often the leader renews, and looks for verdicts that it could not write.
const RENEW: Duration = Duration::from_secs(20);
/// How often the others look, up to twice this: statuses are for people, and a cluster has many agents.
const LOOK: Duration = Duration::from_secs(45);

/// Who this is, and where the lease stands.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) namespace: String,
}

/// What somebody else's lease looked like, and since when.
#[derive(Debug)]
struct Seen {
    version: String,
    since: Instant,
}

/// Follows the verdicts, and writes them while it holds the lease. For ever.
pub(super) async fn run(
    cluster: Cluster,
    identity: Identity,
    mut verdicts: watch::Receiver<Arc<Vec<Verdict>>>,
) {
    let mut leader = Leader {
        cluster,
        identity,
        seen: None,
        written: HashMap::new(),
    };
    loop {
        let holds = match leader.hold().await {
            Ok(holds) => holds,
            Err(failure) => {
                tracing::debug!(error = %failure, "lease not held");
                false
            }
        };
        if !holds {
            leader.written.clear();
            let jitter = LOOK.mul_f64(fastrand::f64());
            tokio::time::sleep(LOOK + jitter).await;
            continue;
        }
        let renew = Instant::now() + RENEW;
        loop {
            let newest = verdicts.borrow_and_update().clone();
            leader.write(&newest).await;
            match tokio::time::timeout_at(renew, verdicts.changed()).await {
                Ok(Ok(())) => {}
                // Nobody says anything any more.
                Ok(Err(_)) => return,
                Err(_) => break,
            }
        }
    }
}

struct Leader {
    cluster: Cluster,
    identity: Identity,
    /// Somebody else's lease.
    seen: Option<Seen>,
    /// What the objects say already.
    written: HashMap<(Resource, ObjectName), Verdict>,
}

impl Leader {
    /// Takes or renews the lease; whether it is held now.
    async fn hold(&mut self) -> Result<bool, Failure> {
        let path = LEASES.path(Some(&self.identity.namespace));
        let leases = || Request::new(&path);
        let got = leases().get(LEASE, &GetParams::default());
        let lease = match self.cluster.text(&LEASES, "get", got).await {
            Ok(text) => text,
            Err(Failure::NotFound(_)) => {
                let lease = self.lease(Value::Null);
                let create = leases().create(&PostParams::default(), lease.to_string().into_bytes());
                self.cluster.text(&LEASES, "create", create).await?;
                return Ok(true);
            }
            Err(failure) => return Err(failure),
        };
        let lease: Value = serde_json::from_str(&lease).map_err(|e| Failure::Undecodable(e.to_string()))?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if holder != self.identity.name && !holder.is_empty() && !self.has_lapsed(&lease) {
            return Ok(false);
        }
        let next = self.lease(lease["metadata"]["resourceVersion"].clone());
        let replace = leases().replace(LEASE, &PostParams::default(), next.to_string().into_bytes());
        match self.cluster.text(&LEASES, "update", replace).await {
            Ok(_) => Ok(true),
            // Somebody else was faster.
            Err(Failure::Conflict(_)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// By this clock alone: that of the holder may be another.
    fn has_lapsed(&mut self, lease: &Value) -> bool {
        let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        match &self.seen {
            Some(seen) if seen.version == version => seen.since.elapsed() >= LASTS,
            _ => {
                self.seen = Some(Seen {
                    version: version.to_owned(),
                    since: Instant::now(),
                });
                false
            }
        }
    }

    fn lease(&self, version: Value) -> Value {
        let mut metadata = json!({"name": LEASE, "namespace": self.identity.namespace});
        if !version.is_null() {
            metadata["resourceVersion"] = version;
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.identity.name,
                "leaseDurationSeconds": LASTS.as_secs(),
                "renewTime": format!("{:.6}", k8s_openapi::jiff::Timestamp::now()),
            },
        })
    }

    /// Writes the verdicts that are not written yet. One that fails is tried again with the next renewal.
    async fn write(&mut self, verdicts: &[Verdict]) {
        let before = std::mem::take(&mut self.written);
        for verdict in verdicts {
            let key = (verdict.of, verdict.object.clone());
            if before.get(&key) == Some(verdict) {
                self.written.insert(key, verdict.clone());
                continue;
            }
            match self.write_one(verdict).await {
                // An object that is gone needs no status.
                Ok(()) | Err(Failure::NotFound(_)) => drop(self.written.insert(key, verdict.clone())),
                Err(failure) => {
                    tracing::debug!(resource = verdict.of.plural, object = %verdict.object, error = %failure, "status not written");
                }
            }
        }
    }

    async fn write_one(&self, verdict: &Verdict) -> Result<(), Failure> {
        let name = &verdict.object.name;
        let objects = || Request::new(verdict.of.path(Some(&verdict.object.namespace)));
        let got = objects().get(name, &GetParams::default());
        let text = self.cluster.text(&verdict.of, "get", got).await?;
        let object: Value = serde_json::from_str(&text).map_err(|e| Failure::Undecodable(e.to_string()))?;
        let now = format!("{:.0}", k8s_openapi::jiff::Timestamp::now());
        let Some(status) = verdict.merge(&object["status"], &now) else {
            return Ok(());
        };
        // With the version, so that what others write into the same list meanwhile is not lost.
        let version = &object["metadata"]["resourceVersion"];
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}));
        let patch = objects().patch_subresource("status", name, &PatchParams::default(), &patch);
        self.cluster.text(&verdict.of, "patch", patch).await?;
        Ok(())
    }
}
