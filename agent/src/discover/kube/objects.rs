//! What is read of the API's objects: these fields and no others.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

/// Where a kind is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resource {
    /// Empty for the core kinds.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// As in the path: `services`.
    pub(crate) plural: &'static str,
}

impl Resource {
    /// The path of the kind, in one namespace or in all.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let Self {
            group,
            version,
            plural,
        } = self;
        let api = match group.is_empty() {
            true => format!("/api/{version}"),
            false => format!("/apis/{group}/{version}"),
        };
        match namespace {
            Some(namespace) => format!("{api}/namespaces/{namespace}/{plural}"),
            None => format!("{api}/{plural}"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) resource_version: String,
    /// RFC 3339, to the second, in UTC: as text it is in the order of time.
    pub(crate) creation_timestamp: Option<String>,
    /// Counts the changes of `spec`.
    pub(crate) generation: Option<i64>,
    /// Those of [`LABELS`].
    #[serde(deserialize_with = "labels", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Those of [`ANNOTATIONS`].
    #[serde(deserialize_with = "annotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Another proxy than the node's serves the service (Kubernetes, "Well-Known Labels").
pub(crate) const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// No proxy serves it.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
/// Who writes an EndpointSlice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const LABELS: &[&str] = &[PROXY_NAME, HEADLESS, MANAGED_BY];
/// The service has endpoints in other clusters, which Cilium alone knows; the second is its older name.
pub(crate) const GLOBAL: [&str; 2] = ["service.cilium.io/global", "io.cilium/global-service"];
/// Which calls of a route may be done twice.
pub(crate) const IDEMPOTENT: &str = "derny.dev/retry-idempotent";
const ANNOTATIONS: &[&str] = &[GLOBAL[0], GLOBAL[1], IDEMPOTENT];

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_option(Wanted(LABELS))
}

fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_option(Wanted(ANNOTATIONS))
}

/// Reads a map, or null, and keeps these of its keys: the others may be many and long.
struct Wanted(&'static [&'static str]);

impl<'de> Visitor<'de> for Wanted {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.0.contains(&key.as_str()) {
                true => drop(kept.insert(key, map.next_value()?)),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(kept)
    }
}

/// A kind that can be watched. The type has the fields that are wanted and no others.
pub(crate) trait Watched: DeserializeOwned + Clone + Send + 'static {
    const OF: Resource;
    /// Where the object stands in the history of its kind.
    fn version(&self) -> &str;
}

macro_rules! watched {
    ($($kind:ty: $group:literal $version:literal $plural:literal;)*) => {$(
        impl Watched for $kind {
            const OF: Resource = Resource { group: $group, version: $version, plural: $plural };
            fn version(&self) -> &str {
                &self.metadata.resource_version
            }
        }
    )*};
}

watched! {
    Service: "" "v1" "services";
    Node: "" "v1" "nodes";
    EndpointSlice: "discovery.k8s.io" "v1" "endpointslices";
    HttpRoute: "gateway.networking.k8s.io" "v1" "httproutes";
    GrpcRoute: "gateway.networking.k8s.io" "v1" "grpcroutes";
    TrafficPolicy: "derny.dev" "v1alpha1" "trafficpolicies";
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) metadata: Meta,
    #[serde(default)]
    pub(crate) spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    /// `ClusterIP`, also when it is not said; `NodePort`, `LoadBalancer`, `ExternalName`.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// One for each family; `None` as a word for a headless service.
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Vec<String>,
    /// The first of them, from servers that know no more than one.
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Option<String>,
    pub(crate) external_name: Option<String>,
    /// `Cluster`, also when it is not said; `Local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) internal_traffic_policy: Option<String>,
    /// `None`, also when it is not said; `ClientIP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_affinity: Option<String>,
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServicePort {
    pub(crate) name: Option<String>,
    /// `TCP` when it is not said.
    pub(crate) protocol: Option<String>,
    pub(crate) app_protocol: Option<String>,
    pub(crate) port: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Node {
    pub(crate) metadata: NodeMeta,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeMeta {
    pub(crate) resource_version: String,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: Meta,
    /// `null` where there are none, as the server writes an empty list that it has read back.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) endpoints: Vec<SliceEndpoint>,
    #[serde(default)]
    pub(crate) ports: Option<Vec<SlicePort>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SliceEndpoint {
    /// All of one endpoint; consumers take the first.
    pub(crate) addresses: Vec<String>,
    pub(crate) conditions: Conditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hints: Option<Hints>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_ref: Option<Target>,
}

/// What an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Target {
    pub(crate) kind: String,
    /// In the namespace of its service.
    pub(crate) name: String,
}

/// Whose callers an endpoint is for, where the cluster's controllers keep traffic in its zone or on its node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hints {
    pub(crate) for_zones: Vec<Hint>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) for_nodes: Vec<Hint>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hint {
    pub(crate) name: String,
}

/// `None`: not known, which reads as `ready` and as `serving`, and as not `terminating`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SlicePort {
    /// Empty for the only port of a service without a name.
    pub(crate) name: Option<String>,
    /// `None`: not restricted to a port, which names no address.
    pub(crate) port: Option<u32>,
    pub(crate) protocol: Option<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SliceEndpoint>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

macro_rules! with_spec {
    ($($(#[$doc:meta])* $kind:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(crate) struct $kind {
            pub(crate) metadata: Meta,
            #[serde(default)]
            pub(crate) spec: Value,
        }
    )*};
}

with_spec! {
    /// The spec is read by the configuration's own types.
    HttpRoute
    /// As an HTTPRoute.
    GrpcRoute
    /// As an HTTPRoute.
    TrafficPolicy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(Service::OF.path(None), "/api/v1/services");
        assert_eq!(Service::OF.path(Some("demo")), "/api/v1/namespaces/demo/services");
        assert_eq!(
            EndpointSlice::OF.path(Some("demo")),
            "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices"
        );
    }

    #[test]
    fn a_slice_without_endpoints_is_written_as_null() {
        let slice: EndpointSlice = serde_json::from_str(
            r#"{"metadata": {"name": "a-1", "namespace": "b", "resourceVersion": "7"}, "addressType": "IPv6",
            "endpoints": null, "ports": null}"#,
        )
        .unwrap();
        assert_eq!((slice.endpoints, slice.ports), (Vec::new(), None));
    }

    #[test]
    fn of_labels_and_annotations_those_are_kept_that_count() {
        let read = |metadata: serde_json::Value| -> Meta {
            let service: Service = serde_json::from_value(serde_json::json!({"metadata": metadata})).unwrap();
            service.metadata
        };
        let meta = read(
            serde_json::json!({"name": "a", "labels": {"app": "x", PROXY_NAME: "lb"}, "annotations": null}),
        );
        assert_eq!(
            meta.labels.into_iter().collect::<Vec<_>>(),
            [(PROXY_NAME.to_owned(), "lb".to_owned())]
        );
        let meta = read(serde_json::json!({"name": "a", "annotations": {"long": "…", GLOBAL[0]: "true"}}));
        assert_eq!(
            (meta.labels.len(), meta.annotations[GLOBAL[0]].as_str()),
            (0, "true")
        );
    }

    #[test]
    fn fields_that_are_not_wanted_are_passed_over() {
        let service: Service = serde_json::from_str(
            r#"{"kind": "Service", "metadata": {"name": "a", "namespace": "b", "resourceVersion": "7",
            "managedFields": [{"x": {}}]}, "spec": {"clusterIPs": ["10.0.0.1"], "sessionAffinity": "None",
            "ports": [{"port": 80, "targetPort": "http", "appProtocol": "grpc"}]}, "status": {"loadBalancer": {}}}"#,
        )
        .unwrap();
        assert_eq!((&*service.metadata.name, service.version()), ("a", "7"));
        assert_eq!(service.spec.ports[0].app_protocol.as_deref(), Some("grpc"));
    }
}
