//! What is read of the API's objects: these fields and no others.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::watch::Watched;

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
}

/// Whose callers an endpoint is for, where the cluster's controllers keep traffic in its zone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hints {
    pub(crate) for_zones: Vec<ForZone>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ForZone {
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
