//! The file as it is written. Texts and numbers are kept as they stand; `check` makes values of them, so that
//! one run reports all that is wrong.

pub(super) mod route;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::traffic_policy::TrafficPolicy;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) node: Node,
    #[serde(default)]
    pub(super) pods: Vec<Pod>,
    #[serde(default)]
    pub(super) services: Vec<Service>,
    #[serde(default)]
    pub(super) policies: Vec<TrafficPolicy>,
    #[serde(default)]
    pub(super) routes: Vec<route::Route>,
}

/// The node that the agent runs on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Node {
    pub(super) zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pod {
    pub(super) name: String,
    #[serde(default = "default_namespace")]
    pub(super) namespace: String,
    pub(super) workload: Option<String>,
    pub(super) netns: String,
    /// Its interfaces' when it is not given.
    pub(super) addresses: Option<Vec<String>>,
    #[serde(default)]
    pub(super) inbound: Vec<Inbound>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Inbound {
    pub(super) port: u64,
    pub(super) name: Option<String>,
    pub(super) app_protocol: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) max_requests: Option<u64>,
    pub(super) max_connections: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) request_timeout: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) idle_timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: String,
    #[serde(default = "default_namespace")]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Port {
    pub(super) port: u64,
    pub(super) name: Option<String>,
    pub(super) app_protocol: Option<String>,
    pub(super) protocol: Option<String>,
    #[serde(default)]
    pub(super) endpoints: Vec<Endpoint>,
    /// In the place of `endpoints`.
    pub(super) dns: Option<Dns>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Dns {
    pub(super) name: String,
    pub(super) port: u64,
    pub(super) mode: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) min_ttl: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) max_ttl: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Endpoint {
    pub(super) address: String,
    #[serde(default = "default_weight")]
    pub(super) weight: u64,
    pub(super) state: Option<String>,
    pub(super) zone: Option<String>,
}

/// What a policy is attached to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TargetRef {
    /// Empty, as a Service's is; the Gateway API's tools write it.
    #[serde(default)]
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
    /// Not in a custom resource, which is for services of its own namespace.
    pub(super) namespace: Option<String>,
    /// Name or number of one port; all ports without it.
    #[serde(default, deserialize_with = "section_name")]
    pub(super) section_name: Option<String>,
}

pub(super) fn default_namespace() -> String {
    "default".to_owned()
}

fn default_weight() -> u64 {
    1
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    from.deserialize_any(Text("a duration with its unit, such as 250ms, 15s or 1m30s"))
}

fn section_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    from.deserialize_any(Text("a port's name, or its number in quotes, such as \"80\""))
}

/// An optional text; the string says what kind, for whoever wrote a bare number.
struct Text(&'static str);

impl de::Visitor<'_> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
