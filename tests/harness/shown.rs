//! What `derny pods` says.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Agent, observe::eventually_some};

/// How long a change may take to show.
const SEEN: Duration = Duration::from_secs(10);

impl Agent {
    /// What is said of a pod; null when the agent does not know it.
    pub fn shown_pod(&self, name: &str) -> Result<Value> {
        let pods = self.cli_json(&["pods"])?;
        let mut pods = pods.as_array().context("`derny pods` says no list")?.iter();
        Ok(pods
            .find(|shown| shown["name"] == name)
            .cloned()
            .unwrap_or_default())
    }

    /// Waits until a pod is in this state, for this reason; what is said of it then.
    pub fn pod_stands(&self, name: &str, state: &str, reason: &str) -> Result<Value> {
        let what = format!("{name} is {state}, {reason}");
        let stands = eventually_some(&what, SEEN, || {
            let shown = self.shown_pod(name).ok()?;
            let said = shown["reason"].as_str().unwrap_or_default();
            (shown["state"] == state && said.contains(reason)).then_some(shown)
        });
        stands.with_context(|| format!("{:?}\n{}", self.shown_pod(name), self.log()))
    }
}
