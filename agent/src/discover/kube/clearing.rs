//! The end of Derny in a cluster: what its agents have said of objects is taken back.

use kube::{
    api::{Patch, PatchParams},
    core::request::Request,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::{Cluster, Failure, Selection},
    objects::Watched as _,
    objects::{GrpcRoute, HttpRoute, Resource, TrafficPolicy},
    status::CONTROLLER,
};

/// Statuses that still say something. Trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("statuses of {resource} were not cleared: {reason}")]
pub struct NotCleared {
    resource: &'static str,
    reason: String,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    resource_version: String,
}

/// Takes the agents' conditions out of all routes and policies, and gives how many objects had any. What others wrote
/// stays. For a cluster where no agent runs any more: one that leads would write them again.
///
/// # Errors
/// The first object whose status could not be written.
pub async fn clear_statuses(cluster: &Cluster) -> Result<usize, NotCleared> {
    let mut cleared = 0;
    for of in [HttpRoute::OF, GrpcRoute::OF, TrafficPolicy::OF] {
        match clear(cluster, &of, &mut cleared).await {
            // A kind that is not installed has no objects.
            Ok(()) | Err(Failure::NotFound(_)) => {}
            Err(failure) => {
                return Err(NotCleared {
                    resource: of.plural,
                    reason: failure.to_string(),
                });
            }
        }
    }
    Ok(cleared)
}

async fn clear(cluster: &Cluster, of: &Resource, cleared: &mut usize) -> Result<(), Failure> {
    let mut next = None;
    loop {
        let page = cluster.list::<Object>(of, &Selection::default(), next).await?;
        for object in page.items {
            let Some(status) = without_ours(&object.status) else {
                continue;
            };
            // With the version, so that what others write into the same list meanwhile is not lost.
            let version = &object.metadata.resource_version;
            let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}));
            let patch = Request::new(of.path(Some(&object.metadata.namespace))).patch_subresource(
                "status",
                &object.metadata.name,
                &PatchParams::default(),
                &patch,
            );
            cluster.text(of, "patch", patch).await?;
            *cleared += 1;
        }
        // The last page may have an empty token.
        next = page.metadata.next.filter(|next| !next.is_empty());
        if next.is_none() {
            return Ok(());
        }
    }
}

/// The status as a merge patch is to leave it; `None` when nothing in it is ours. A route's list of parents is required,
/// a policy's conditions are all ours.
fn without_ours(status: &Value) -> Option<Value> {
    if let Some(parents) = status["parents"].as_array() {
        let others: Vec<&Value> = parents
            .iter()
            .filter(|parent| parent["controllerName"] != CONTROLLER)
            .collect();
        return (others.len() < parents.len()).then(|| json!({"parents": others}));
    }
    status["conditions"]
        .is_array()
        .then(|| json!({"conditions": null}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_stays() {
        let parent = |controller: &str| json!({"controllerName": controller, "conditions": []});
        let both = json!({"parents": [parent("a.example/b"), parent(CONTROLLER)]});
        assert_eq!(
            without_ours(&both),
            Some(json!({"parents": [parent("a.example/b")]}))
        );
        assert_eq!(without_ours(&json!({"parents": [parent("a.example/b")]})), None);
        let policy = json!({"conditions": [{"type": "Accepted"}]});
        assert_eq!(without_ours(&policy), Some(json!({"conditions": null})));
        assert_eq!(without_ours(&Value::Null), None);
    }
}
