//! A Service as it is declared, in the form that is kept.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::objects;
use crate::{
    config::{ProtocolHints, RouteParent, protocol},
    model::{Protocol, ServiceName},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) name: ServiceName,
    pub(super) kind: Kind,
    /// Ports of other protocols than TCP are not here.
    pub(super) ports: Vec<DeclaredPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The ClusterIPs, that of the first family first; at least one.
    Virtual(Vec<IpAddr>),
    /// Callers dial the endpoints.
    Headless,
    /// An ExternalName: another name in the DNS, which the pod's resolver follows.
    External(Arc<str>),
    /// `internalTrafficPolicy: Local`: who calls it reaches the endpoints of its own node, which kube-proxy sees to.
    NodeLocal,
    /// `sessionAffinity: ClientIP`: kube-proxy keeps a caller at one endpoint.
    Sticky,
    /// Another proxy, of this name, serves it.
    OfOtherProxy(Arc<str>),
    /// Its label says that no proxy serves it.
    Unproxied,
    /// Some of its endpoints are known to Cilium alone.
    Global,
}

impl Kind {
    /// Why the mesh does not serve such a service, if so.
    pub(super) fn left_alone(&self) -> Option<String> {
        match self {
            Self::Virtual(_) | Self::Headless => None,
            Self::External(name) => Some(format!(
                "ExternalName: the pod's resolver follows it to {name}, which is left alone"
            )),
            Self::NodeLocal => Some(
                "internalTrafficPolicy: Local: kube-proxy keeps its calls on the node, and they are left alone".to_owned(),
            ),
            Self::Sticky => Some(
                "sessionAffinity: ClientIP: kube-proxy keeps it, and its calls are left alone; `loadBalancer` of a \
                 TrafficPolicy, with ringHash by source address, does the like for a service without it"
                    .to_owned(),
            ),
            Self::OfOtherProxy(name) => {
                Some(format!("label {}: {name} serves it, and its calls are left alone", objects::PROXY_NAME))
            }
            Self::Unproxied => Some(format!(
                "label {}: whoever put it there serves it, and its calls are left alone",
                objects::HEADLESS
            )),
            Self::Global => Some(format!(
                "annotation {}: Cilium alone knows all its endpoints, and its calls are left alone",
                objects::GLOBAL[0]
            )),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeclaredPort {
    pub(super) port: u16,
    /// Slices name their ports by it. `None` for a service's only port.
    pub(super) name: Option<Arc<str>>,
    pub(super) protocol: Protocol,
}

impl DeclaredPort {
    /// Whether requests are seen there, so that a route can choose among them.
    pub(super) fn is_routed(&self) -> bool {
        !matches!(self.protocol, Protocol::Tcp | Protocol::Tls)
    }

    /// Whether a route with this parent, which is the port's service, is for the port.
    pub(super) fn is_meant_by(&self, parent: &RouteParent) -> bool {
        let section = parent.section.as_deref();
        parent.port.is_none_or(|number| number == self.port)
            && section.is_none_or(|name| self.name.as_deref() == Some(name))
    }
}

impl Declared {
    /// `None` for a service that has no address yet.
    pub(super) fn from_object(object: &objects::Service) -> Option<Self> {
        let spec = &object.spec;
        let meta = &object.metadata;
        let is_global = |name: &&str| meta.annotations.get(*name).is_some_and(|it| it == "true");
        let written = spec.cluster_ips.iter().chain(&spec.cluster_ip);
        let kind = if spec.kind.as_deref() == Some("ExternalName") {
            Kind::External(spec.external_name.as_deref().unwrap_or_default().into())
        } else if written.clone().any(|text| text == "None") {
            Kind::Headless
        } else if let Some(name) = meta.labels.get(objects::PROXY_NAME) {
            Kind::OfOtherProxy(name.as_str().into())
        } else if meta.labels.contains_key(objects::HEADLESS) {
            Kind::Unproxied
        } else if objects::GLOBAL.iter().any(is_global) {
            Kind::Global
        } else if spec.internal_traffic_policy.as_deref() == Some("Local") {
            Kind::NodeLocal
        } else if spec.session_affinity.as_deref() == Some("ClientIP") {
            Kind::Sticky
        } else {
            let mut ips = Vec::with_capacity(spec.cluster_ips.len());
            for ip in written.filter_map(|text| text.parse::<IpAddr>().ok()) {
                if !ips.contains(&ip) {
                    ips.push(ip);
                }
            }
            if ips.is_empty() {
                return None;
            }
            Kind::Virtual(ips)
        };
        let tcp = (spec.ports.iter()).filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
        let mut ports: Vec<_> = tcp.filter_map(declared_port).collect();
        ports.sort_by_key(|port| port.port);
        ports.dedup_by_key(|port| port.port);
        Some(Self {
            name: name(&object.metadata),
            kind,
            ports,
        })
    }

    /// What gives this again when it is read.
    pub(super) fn to_object(&self) -> objects::Service {
        let mut spec = objects::ServiceSpec::default();
        let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
        match &self.kind {
            Kind::Virtual(ips) => spec.cluster_ips = ips.iter().map(IpAddr::to_string).collect(),
            Kind::Headless => spec.cluster_ips = vec!["None".to_owned()],
            Kind::External(name) => {
                spec.kind = Some("ExternalName".to_owned());
                spec.external_name = Some(name.to_string());
            }
            Kind::NodeLocal => spec.internal_traffic_policy = Some("Local".to_owned()),
            Kind::Sticky => spec.session_affinity = Some("ClientIP".to_owned()),
            Kind::OfOtherProxy(name) => drop(labels.insert(objects::PROXY_NAME.to_owned(), name.to_string())),
            Kind::Unproxied => drop(labels.insert(objects::HEADLESS.to_owned(), String::new())),
            Kind::Global => drop(annotations.insert(objects::GLOBAL[0].to_owned(), "true".to_owned())),
        }
        let port = |port: &DeclaredPort| objects::ServicePort {
            name: port.name.as_deref().map(str::to_owned),
            protocol: None,
            // The words of protocols are among those of `appProtocol`; nothing said is nothing said.
            app_protocol: (port.protocol != Protocol::Detect).then(|| port.protocol.to_string()),
            port: port.port.into(),
        };
        spec.ports = self.ports.iter().map(port).collect();
        objects::Service {
            metadata: objects::Meta {
                name: self.name.name.to_string(),
                namespace: self.name.namespace.to_string(),
                labels,
                annotations,
                ..objects::Meta::default()
            },
            spec,
        }
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        match &self.kind {
            Kind::Virtual(ips) => ips,
            _ => &[],
        }
    }

    /// The port that a policy or a route names, by its name or its number.
    pub(super) fn port(&self, section: &str) -> Option<&DeclaredPort> {
        let named = self
            .ports
            .iter()
            .find(|port| port.name.as_deref() == Some(section));
        named.or_else(|| self.ports.iter().find(|port| section.parse() == Ok(port.port)))
    }
}

pub(super) fn name(meta: &objects::Meta) -> ServiceName {
    ServiceName {
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
    }
}

fn declared_port(port: &objects::ServicePort) -> Option<DeclaredPort> {
    let hints = ProtocolHints {
        declared: None,
        app_protocol: port.app_protocol.as_deref(),
        port_name: port.name.as_deref(),
    };
    Some(DeclaredPort {
        port: u16::try_from(port.port).ok().filter(|port| *port != 0)?,
        name: port
            .name
            .as_deref()
            .filter(|name| !name.is_empty())
            .map(Arc::from),
        protocol: protocol(hints),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn declared(spec: serde_json::Value) -> Option<Declared> {
        marked(json!({}), json!({}), spec)
    }

    fn marked(
        labels: serde_json::Value,
        annotations: serde_json::Value,
        spec: serde_json::Value,
    ) -> Option<Declared> {
        let metadata = json!({"name": "a", "namespace": "b", "labels": labels, "annotations": annotations});
        let object = json!({"metadata": metadata, "spec": spec});
        Declared::from_object(&serde_json::from_value(object).unwrap())
    }

    /// `kind: port/name/protocol …`
    fn check(spec: serde_json::Value, expect: &str) {
        let words = match declared(spec) {
            None => "no address".to_owned(),
            Some(declared) => {
                let kind = match &declared.kind {
                    Kind::Virtual(ips) => ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(","),
                    Kind::Headless => "headless".to_owned(),
                    Kind::External(name) => format!("external {name}"),
                    Kind::NodeLocal => "node-local".to_owned(),
                    other => format!("{other:?}"),
                };
                let ports = declared
                    .ports
                    .iter()
                    .map(|p| format!(" {}/{}/{}", p.port, p.name.as_deref().unwrap_or("-"), p.protocol));
                let text = format!("{kind}:{}", ports.collect::<String>());
                let again = Declared::from_object(&declared.to_object()).unwrap();
                assert_eq!(again, declared, "what is saved is read again");
                text
            }
        };
        assert_eq!(words, expect);
    }

    #[test]
    fn services_of_each_kind() {
        check(
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}]}),
            "10.0.0.1: 80/-/detect",
        );
        check(
            json!({"type": "NodePort", "clusterIPs": ["fd00::1", "10.0.0.1"], "ports": [{"port": 80, "name": "http-web"}]}),
            "fd00::1,10.0.0.1: 80/http-web/http",
        );
        // From a server that writes no more than the first.
        check(json!({"clusterIP": "10.0.0.1"}), "10.0.0.1:");
        check(
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 1}]}),
            "headless: 1/-/detect",
        );
        check(
            json!({"type": "ExternalName", "externalName": "db.example"}),
            "external db.example:",
        );
        let local = json!("Local");
        check(
            json!({"clusterIP": "10.0.0.1", "internalTrafficPolicy": local, "ports": [{"port": 80}]}),
            "node-local: 80/-/detect",
        );
        // No kube-proxy stands between a headless service's caller and its endpoints.
        check(
            json!({"clusterIP": "None", "internalTrafficPolicy": local}),
            "headless:",
        );
        check(json!({"clusterIP": ""}), "no address");
        check(json!({}), "no address");
    }

    #[test]
    fn what_another_dataplane_serves_is_left_to_it() {
        let check = |labels: serde_json::Value, annotations: serde_json::Value, ip: &str, expect: Kind| {
            let spec = json!({"clusterIP": ip, "ports": [{"port": 80}]});
            let declared = marked(labels, annotations, spec).unwrap();
            assert_eq!(declared.kind, expect);
            assert_eq!(
                Declared::from_object(&declared.to_object()).unwrap(),
                declared,
                "as saved"
            );
            assert_eq!(
                expect.left_alone().is_none(),
                matches!(expect, Kind::Virtual(_) | Kind::Headless)
            );
        };
        let ip = "10.0.0.1";
        let plain = || Kind::Virtual(vec![ip.parse().unwrap()]);
        let other = json!({objects::PROXY_NAME: "lb"});
        check(other.clone(), json!({}), ip, Kind::OfOtherProxy("lb".into()));
        check(other, json!({}), "None", Kind::Headless);
        check(json!({objects::HEADLESS: ""}), json!({}), ip, Kind::Unproxied);
        check(json!({"app": "a"}), json!({"x": "true"}), ip, plain());
        for name in objects::GLOBAL {
            check(json!({}), json!({name: "true"}), ip, Kind::Global);
            check(json!({}), json!({name: "false"}), ip, plain());
        }
        let sticky = json!({"clusterIP": ip, "sessionAffinity": "ClientIP"});
        assert_eq!(declared(sticky).unwrap().kind, Kind::Sticky);
        assert_eq!(
            declared(json!({"clusterIP": ip, "sessionAffinity": "None"}))
                .unwrap()
                .kind,
            plain()
        );
    }

    #[test]
    fn ports_speak_what_app_protocol_or_name_say() {
        let ports = json!([
            {"port": 5, "name": "dns", "protocol": "UDP"},
            {"port": 4, "name": "grpc-x", "appProtocol": "kubernetes.io/h2c"},
            {"port": 3, "name": "grpc-main", "targetPort": "http"},
            {"port": 2, "name": "odd", "appProtocol": "example.com/own"},
            {"port": 1, "name": "https", "protocol": "TCP"},
            {"port": 0}, {"port": 70000},
        ]);
        check(
            json!({"clusterIP": "10.0.0.1", "ports": ports}),
            "10.0.0.1: 1/https/tls 2/odd/detect 3/grpc-main/grpc 4/grpc-x/http2",
        );
    }
}
