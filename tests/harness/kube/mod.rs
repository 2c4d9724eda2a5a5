//! A Kubernetes API server for tests, and a client to it.
//!
//! ```text
//! test ──▶ Api::client ──────────────────────┐
//!                                            ▼
//! agent, in the node's namespace ──▶ Proxy ──▶ API server, on the machine's loopback
//! ```
//! The agent reaches the server through a proxy that can be told to answer badly.

mod server;
mod small;
mod proxy;
/// Objects as they are written.
pub mod objects;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

pub use proxy::{Fault, Proxy};

use crate::{Node, background::Background};

/// Who applies, for server-side apply.
const MANAGER: &str = "derny-tests";
/// Objects that are applied at a time.
const AT_ONCE: usize = 32;

/// A server with the kinds that the agent knows, and a proxy to it.
pub struct Cluster {
    runtime: Background,
    client: Client,
    server: server::Server,
    pub proxy: Proxy,
    agents_kubeconfig: PathBuf,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    pub fn start(node: &Node) -> Result<Self> {
        let runtime = Background::start()?;
        let server = server::Server::start(node, runtime.handle())?;
        let client = runtime.block_on(client(server.kubeconfig()))?;
        let proxy = Proxy::start(node, runtime.handle(), client.clone())?;
        let agents_kubeconfig = node.host().run_directory().join("kubeconfig");
        std::fs::write(&agents_kubeconfig, proxy.kubeconfig()).context("writing the agent's kubeconfig")?;
        let cluster = Self {
            runtime,
            client,
            server,
            proxy,
            agents_kubeconfig,
        };
        cluster.define_kinds()?;
        Ok(cluster)
    }

    /// What the agent is told.
    pub fn arguments(&self) -> Vec<String> {
        let kubeconfig = self.agents_kubeconfig.display().to_string();
        ["--kubernetes", "--kubeconfig", &kubeconfig]
            .map(str::to_owned)
            .to_vec()
    }

    /// For clients other than the agent.
    pub fn kubeconfig(&self) -> &std::path::Path {
        self.server.kubeconfig()
    }

    /// `kill -9` of the server, where it is this test's own.
    pub fn kill9(&mut self) -> Result<()> {
        self.server.kill9()
    }

    /// Starts it once more, with all that it knew.
    pub fn start_again(&mut self) -> Result<()> {
        self.server.start_again()
    }

    /// Applies objects on the server's side, in no order.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.runtime.block_on(async {
            let mut running = tokio::task::JoinSet::new();
            for object in objects {
                if running.len() >= AT_ONCE
                    && let Some(done) = running.join_next().await
                {
                    done.context("applying")??;
                }
                running.spawn(apply(self.client.clone(), object.clone()));
            }
            while let Some(done) = running.join_next().await {
                done.context("applying")??;
            }
            Ok(())
        })
    }

    /// Writes the `status` of an object, as its controller does.
    pub fn apply_status(&self, object: &Value) -> Result<()> {
        let (api, name) = api(&self.client, object)?;
        let params = PatchParams::apply(MANAGER).force();
        self.runtime
            .block_on(api.patch_status(&name, &params, &Patch::Apply(object)))
            .with_context(|| format!("applying the status of {name}"))?;
        Ok(())
    }

    /// Applies one object that the server is to refuse; what it says.
    pub fn refusal(&self, object: &Value) -> Result<String> {
        match self.apply(std::slice::from_ref(object)) {
            Ok(()) => anyhow::bail!("the server took {object}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    pub fn delete(&self, object: &Value) -> Result<()> {
        self.delete_with(object, &DeleteParams::default())
    }

    /// As a kubelet deletes a pod when its containers have ended.
    pub fn delete_at_once(&self, object: &Value) -> Result<()> {
        self.delete_with(object, &DeleteParams::default().grace_period(0))
    }

    /// As `kubectl delete pod`: it is marked as terminating, and stays until the kubelet deletes it.
    pub fn delete_gracefully(&self, object: &Value, grace: Duration) -> Result<()> {
        let seconds = u32::try_from(grace.as_secs()).context("grace period")?;
        self.delete_with(object, &DeleteParams::default().grace_period(seconds))
    }

    fn delete_with(&self, object: &Value, params: &DeleteParams) -> Result<()> {
        let (api, name) = api(&self.client, object)?;
        self.runtime
            .block_on(api.delete(&name, params))
            .with_context(|| format!("deleting {name}"))?;
        Ok(())
    }

    /// The object as the server has it.
    pub fn get(&self, object: &Value) -> Result<Value> {
        let (api, name) = api(&self.client, object)?;
        let got = self
            .runtime
            .block_on(api.get(&name))
            .with_context(|| format!("getting {name}"))?;
        serde_json::to_value(got).context("an object as JSON")
    }

    /// Whether an Event in this namespace has this reason. `None` when the server has no Events.
    pub fn is_told(&self, namespace: &str, reason: &str) -> Result<Option<bool>> {
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"namespace": namespace, "name": ""}});
        let (api, _) = api(&self.client, &event)?;
        let list = self.runtime.block_on(api.list(&ListParams::default()));
        match list {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            list => {
                let list = list.with_context(|| format!("listing events of {namespace}"))?;
                Ok(Some(
                    list.items.iter().any(|event| event.data["reason"] == reason),
                ))
            }
        }
    }

    /// Whether the server holds objects to the schemas of their kinds. The small one in this process does not.
    pub fn validates(&self) -> bool {
        self.server.validates()
    }

    fn define_kinds(&self) -> Result<()> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut kinds = vec![root.join("../deploy/crds/trafficpolicy.yaml")];
        kinds.extend(server::gateway_definitions());
        let mut definitions = Vec::new();
        for path in kinds {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let definition: Value =
                serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
            definitions.push(definition);
        }
        if definitions.len() == 1 {
            definitions.extend(objects::gateway_definitions());
        }
        self.apply(&definitions)?;
        for definition in &definitions {
            let established = || {
                let conditions = self.get(definition).ok()?["status"]["conditions"].clone();
                let mut conditions = conditions.as_array()?.iter();
                conditions
                    .any(|c| c["type"] == "Established" && c["status"] == "True")
                    .then_some(())
            };
            crate::observe::eventually_some("a kind is established", Duration::from_secs(20), established)?;
        }
        Ok(())
    }
}

async fn client(kubeconfig: &std::path::Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig).context("reading the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn apply(client: Client, object: Value) -> Result<()> {
    let (api, name) = api(&client, &object)?;
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .with_context(|| format!("applying {name}"))?;
    Ok(())
}

/// The API of an object's kind, and the object's name.
fn api(client: &Client, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let text = |field: &Value| field.as_str().map(str::to_owned);
    let kind = text(&object["kind"]).context("an object without a kind")?;
    let api_version = text(&object["apiVersion"]).context("an object without an apiVersion")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let plural = match kind.to_lowercase() {
        kind if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
        kind => format!("{kind}s"),
    };
    let kind = GroupVersionKind::gvk(group, version, &kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, &plural);
    let name = text(&object["metadata"]["name"]).context("an object without a name")?;
    let api = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok((api, name))
}
