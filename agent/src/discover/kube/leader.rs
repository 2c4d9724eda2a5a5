//! One agent of the cluster writes statuses: the one that holds a Lease.

use std::{collections::HashMap, sync::Arc};

use kube::{
    api::{GetParams, Patch, PatchParams},
    core::request::Request,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    attached::ObjectName,
    client::{Cluster, Failure},
    lease::{Identity, Lease},
    objects::Resource,
    status::Verdict,
};

/// Follows the verdicts, and writes them while it holds the lease, until nobody says anything any more.
pub(super) async fn run(
    cluster: Cluster,
    identity: Identity,
    mut verdicts: watch::Receiver<Arc<Vec<Verdict>>>,
) {
    let mut lease = Lease::new(cluster.clone(), identity);
    let mut writer = Writer {
        cluster,
        written: HashMap::new(),
    };
    loop {
        let turn = lease.turn().await;
        let next = Instant::now() + turn.next;
        if !turn.is_held {
            writer.written.clear();
        }
        loop {
            if turn.is_held {
                let newest = verdicts.borrow_and_update().clone();
                writer.write(&newest, next).await;
            }
            match tokio::time::timeout_at(next, verdicts.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return lease.release().await,
                Err(_) => break,
            }
        }
    }
}

struct Writer {
    cluster: Cluster,
    /// What the objects say already.
    written: HashMap<(Resource, ObjectName), Verdict>,
}

impl Writer {
    /// Writes the verdicts that are not written yet, until the lease is to be renewed. One that fails, or comes too
    /// late, is tried again after that.
    async fn write(&mut self, verdicts: &[Verdict], until: Instant) {
        let before = std::mem::take(&mut self.written);
        for verdict in verdicts {
            let key = (verdict.of, verdict.object.clone());
            if before.get(&key) == Some(verdict) {
                self.written.insert(key, verdict.clone());
                continue;
            }
            if Instant::now() >= until {
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
