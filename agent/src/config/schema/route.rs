//! `routes`: the Gateway API's HTTPRoute and GRPCRoute, with their names beside the spec.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use super::{default_namespace, default_weight, duration};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Route {
    pub(in crate::config) kind: String,
    pub(in crate::config) name: String,
    #[serde(default = "default_namespace")]
    pub(in crate::config) namespace: String,
    pub(in crate::config) parent_refs: Vec<Ref>,
    pub(in crate::config) rules: Vec<Rule>,
}

/// A parent, a backend or a mirror. The namespace is the route's when it is not given.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Ref {
    #[serde(default)]
    pub(in crate::config) group: String,
    #[serde(default = "service")]
    pub(in crate::config) kind: String,
    pub(in crate::config) name: String,
    pub(in crate::config) namespace: Option<String>,
    pub(in crate::config) port: Option<u64>,
    /// Of a parent: one port by its name.
    pub(in crate::config) section_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Rule {
    pub(in crate::config) name: Option<String>,
    #[serde(default)]
    pub(in crate::config) matches: Vec<Match>,
    #[serde(default)]
    pub(in crate::config) filters: Vec<Filter>,
    #[serde(default)]
    pub(in crate::config) backend_refs: Vec<BackendRef>,
    pub(in crate::config) timeouts: Option<Timeouts>,
    pub(in crate::config) retry: Option<Retry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Match {
    pub(in crate::config) path: Option<PathMatch>,
    pub(in crate::config) method: Option<MethodMatch>,
    #[serde(default)]
    pub(in crate::config) headers: Vec<ValueMatch>,
    #[serde(default)]
    pub(in crate::config) query_params: Vec<ValueMatch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct PathMatch {
    #[serde(rename = "type", default = "path_prefix")]
    pub(in crate::config) kind: String,
    #[serde(default = "slash")]
    pub(in crate::config) value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct ValueMatch {
    #[serde(rename = "type", default = "exact")]
    pub(in crate::config) kind: String,
    pub(in crate::config) name: String,
    pub(in crate::config) value: String,
}

/// One field of two kinds: a name in an HTTPRoute, an object in a GRPCRoute.
#[derive(Debug)]
pub(in crate::config) enum MethodMatch {
    Http(String),
    Grpc(GrpcMethod),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct GrpcMethod {
    #[serde(rename = "type", default = "exact")]
    pub(in crate::config) kind: String,
    pub(in crate::config) service: Option<String>,
    pub(in crate::config) method: Option<String>,
}

/// A [`Ref`] with two fields more. Written out: with serde's `flatten` an unknown field would pass.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct BackendRef {
    #[serde(default)]
    pub(in crate::config) group: String,
    #[serde(default = "service")]
    pub(in crate::config) kind: String,
    pub(in crate::config) name: String,
    pub(in crate::config) namespace: Option<String>,
    pub(in crate::config) port: Option<u64>,
    #[serde(default = "default_weight")]
    pub(in crate::config) weight: u64,
    #[serde(default)]
    pub(in crate::config) filters: Vec<Filter>,
}

/// The field that `type` names, and no other, is there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Filter {
    #[serde(rename = "type")]
    pub(in crate::config) kind: String,
    pub(in crate::config) request_header_modifier: Option<HeaderModifier>,
    pub(in crate::config) response_header_modifier: Option<HeaderModifier>,
    pub(in crate::config) url_rewrite: Option<UrlRewrite>,
    pub(in crate::config) request_redirect: Option<RequestRedirect>,
    pub(in crate::config) request_mirror: Option<RequestMirror>,
    pub(in crate::config) cors: Option<Cors>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct HeaderModifier {
    #[serde(default)]
    pub(in crate::config) set: Vec<Header>,
    #[serde(default)]
    pub(in crate::config) add: Vec<Header>,
    #[serde(default)]
    pub(in crate::config) remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Header {
    pub(in crate::config) name: String,
    pub(in crate::config) value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct UrlRewrite {
    pub(in crate::config) hostname: Option<String>,
    pub(in crate::config) path: Option<PathChange>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct PathChange {
    #[serde(rename = "type")]
    pub(in crate::config) kind: String,
    pub(in crate::config) replace_full_path: Option<String>,
    pub(in crate::config) replace_prefix_match: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct RequestRedirect {
    pub(in crate::config) scheme: Option<String>,
    pub(in crate::config) hostname: Option<String>,
    pub(in crate::config) path: Option<PathChange>,
    pub(in crate::config) port: Option<u64>,
    #[serde(default = "found")]
    pub(in crate::config) status_code: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct RequestMirror {
    pub(in crate::config) backend_ref: Ref,
    pub(in crate::config) percent: Option<u64>,
    pub(in crate::config) fraction: Option<Fraction>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Cors {
    #[serde(default)]
    pub(in crate::config) allow_origins: Vec<String>,
    #[serde(default)]
    pub(in crate::config) allow_credentials: bool,
    #[serde(default)]
    pub(in crate::config) allow_methods: Vec<String>,
    #[serde(default)]
    pub(in crate::config) allow_headers: Vec<String>,
    #[serde(default)]
    pub(in crate::config) expose_headers: Vec<String>,
    #[serde(default = "five")]
    pub(in crate::config) max_age: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Fraction {
    pub(in crate::config) numerator: u64,
    #[serde(default = "hundred")]
    pub(in crate::config) denominator: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Timeouts {
    #[serde(default, deserialize_with = "duration")]
    pub(in crate::config) request: Option<String>,
    #[serde(default, deserialize_with = "duration")]
    pub(in crate::config) backend_request: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::config) struct Retry {
    #[serde(default)]
    pub(in crate::config) codes: Vec<u64>,
    pub(in crate::config) attempts: Option<u64>,
    /// Derny's own, and the only one that a GRPCRoute has.
    pub(in crate::config) idempotent: Option<bool>,
    #[serde(default, deserialize_with = "duration")]
    pub(in crate::config) backoff: Option<String>,
}

impl<'de> Deserialize<'de> for MethodMatch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = MethodMatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("GET or another method in an HTTPRoute, or service and method in a GRPCRoute")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(MethodMatch::Http(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                GrpcMethod::deserialize(de::value::MapAccessDeserializer::new(map)).map(MethodMatch::Grpc)
            }
        }
        from.deserialize_any(Either)
    }
}

fn service() -> String {
    "Service".to_owned()
}

fn path_prefix() -> String {
    "PathPrefix".to_owned()
}

fn exact() -> String {
    "Exact".to_owned()
}

fn slash() -> String {
    "/".to_owned()
}

fn found() -> u64 {
    302
}

fn five() -> u64 {
    5
}

fn hundred() -> u64 {
    100
}
