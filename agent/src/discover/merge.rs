//! What was declared and what names resolve to → whole services. Pure.
//!
//! Nothing behind this knows a name: an address that the DNS gives is an endpoint like one that was written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{diff, dns::Question};
use crate::{
    config::Checked,
    model::{Dns, DnsMode, Endpoint, Service, ServicePort, Update},
};

/// What is in force of a configuration.
#[derive(Debug, Default)]
pub(super) struct Merge {
    declared: Checked,
    /// Of the declared names. `None`: it failed, and there has been no answer yet. Absent: still awaited.
    answers: BTreeMap<Question, Option<Vec<IpAddr>>>,
    /// What was told.
    shown: Checked,
}

impl Merge {
    /// The names that are to be resolved.
    pub(super) fn questions(&self) -> BTreeSet<Question> {
        self.declared.dns.values().map(Question::from).collect()
    }

    /// Takes another configuration; says what changes by it.
    pub(super) fn declare(&mut self, next: Checked) -> Vec<Update> {
        self.declared = next;
        let wanted = self.questions();
        self.answers.retain(|question, _| wanted.contains(question));
        let services = self
            .declared
            .services
            .iter()
            .filter_map(|service| self.show(service));
        let next = Checked {
            zone: self.declared.zone.clone(),
            pods: self.declared.pods.clone(),
            services: services.collect(),
            dns: BTreeMap::new(),
        };
        let changes = diff(&self.shown, &next);
        self.shown = next;
        changes
    }

    /// Takes what came of a question; says what changes by it.
    pub(super) fn answer(&mut self, question: &Question, addresses: Option<Vec<IpAddr>>) -> Vec<Update> {
        self.answers.insert(question.clone(), addresses);
        let ports = self
            .declared
            .dns
            .iter()
            .filter(|(_, dns)| Question::from(*dns) == *question);
        let services: BTreeSet<_> = ports.map(|(port, _)| &port.service).collect();
        let declared = &self.declared.services;
        let next: Vec<_> = services
            .into_iter()
            .filter_map(|name| declared.binary_search_by(|s| s.name.cmp(name)).ok())
            .filter_map(|index| self.show(&declared[index]))
            .collect();
        let mut changes = Vec::new();
        for service in next {
            match self
                .shown
                .services
                .binary_search_by(|s| s.name.cmp(&service.name))
            {
                Ok(index) if self.shown.services[index] == service => continue,
                Ok(index) => self.shown.services[index] = service.clone(),
                Err(index) => self.shown.services.insert(index, service.clone()),
            }
            changes.push(Update::Service(service));
        }
        changes
    }

    /// The service with its endpoints. While a name of it is still awaited it stays as it was, and one that is new
    /// is not there yet: its callers reach it as they did without the mesh, and not as a service of no endpoint.
    fn show(&self, service: &Arc<Service>) -> Option<Arc<Service>> {
        let dns = |port: &ServicePort| self.declared.dns.get(&port.name);
        if service.ports.iter().all(|port| dns(port).is_none()) {
            return Some(service.clone());
        }
        let mut shown = Service::clone(service);
        for port in &mut shown.ports {
            let Some(dns) = dns(port) else { continue };
            let Some(answer) = self.answers.get(&Question::from(dns)) else {
                let before = &self.shown.services;
                let index = before.binary_search_by(|s| s.name.cmp(&service.name)).ok()?;
                return Some(before[index].clone());
            };
            let merged = ServicePort {
                endpoints: endpoints(dns, answer.as_deref().unwrap_or_default()).into(),
                ..ServicePort::clone(port)
            };
            *port = Arc::new(merged);
        }
        Some(Arc::new(shown))
    }
}

/// In ascending order: a server that turns its answer round has not changed it.
fn endpoints(dns: &Dns, addresses: &[IpAddr]) -> Vec<Endpoint> {
    let taken = match dns.mode {
        DnsMode::All => addresses,
        DnsMode::Logical => addresses.get(..1).unwrap_or_default(),
    };
    let taken: BTreeSet<_> = taken.iter().map(|ip| SocketAddr::new(*ip, dns.port)).collect();
    taken.into_iter().map(Endpoint::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_yaml;

    fn config(yaml: &str) -> Checked {
        from_yaml(yaml.as_bytes()).unwrap()
    }

    fn ips(addresses: &[u8]) -> Option<Vec<IpAddr>> {
        Some(addresses.iter().map(|last| [10, 0, 0, *last].into()).collect())
    }

    fn question(name: &str) -> Question {
        Question {
            name: name.into(),
            ttl: crate::model::TtlBounds::default(),
        }
    }

    /// `name: endpoints of each port` of every service that changed, `-name` of those that went.
    fn words(changes: &[Update]) -> Vec<String> {
        let words = changes.iter().map(|update| match update {
            Update::Service(service) => {
                let ports = service.ports.iter().map(|port| {
                    let endpoints = port.endpoints.iter().map(|e| e.address.to_string());
                    endpoints.collect::<Vec<_>>().join(" ")
                });
                format!("{}: {}", service.name.name, ports.collect::<Vec<_>>().join(" | "))
            }
            Update::ServiceGone(name) => format!("-{}", name.name),
            other => panic!("{other:?}"),
        });
        words.collect()
    }

    const TWO: &str = "services:
- {name: fixed, ports: [{port: 80, endpoints: [{address: '10.1.0.1:80'}]}]}
- {name: db, ports: [{port: 1, dns: {name: a.example, port: 5}}, {port: 2, dns: {name: b.example, port: 6, mode: logical}}]}";

    #[test]
    fn a_service_appears_when_all_its_names_have_been_asked() {
        let mut merge = Merge::default();
        assert_eq!(words(&merge.declare(config(TWO))), ["fixed: 10.1.0.1:80"]);
        assert_eq!(merge.questions().len(), 2);
        assert_eq!(merge.answer(&question("a.example"), ips(&[2, 1])), []);
        // The other fails: the service is there all the same.
        let shown = merge.answer(&question("b.example"), None);
        assert_eq!(words(&shown), ["db: 10.0.0.1:5 10.0.0.2:5 | "]);
        let shown = merge.answer(&question("b.example"), ips(&[9, 8]));
        assert_eq!(words(&shown), ["db: 10.0.0.1:5 10.0.0.2:5 | 10.0.0.9:6"]);
        // Turned round: the same for `all`.
        assert_eq!(merge.answer(&question("a.example"), ips(&[1, 2])), []);
        let shown = merge.answer(&question("b.example"), ips(&[8, 9]));
        assert_eq!(words(&shown), ["db: 10.0.0.1:5 10.0.0.2:5 | 10.0.0.8:6"]);
    }

    #[test]
    fn answers_survive_another_configuration_and_go_with_their_question() {
        let mut merge = Merge::default();
        let one = |name: &str, weight: u8| {
            config(&format!(
                "services:\n- {{name: db, addresses: [10.9.0.{weight}], ports: [{{port: 1, dns: {{name: {name}, port: 5}}}}]}}"
            ))
        };
        assert_eq!(merge.declare(one("a.example", 1)), []);
        assert_eq!(
            words(&merge.answer(&question("a.example"), ips(&[1]))),
            ["db: 10.0.0.1:5"]
        );
        assert_eq!(words(&merge.declare(one("a.example", 2))), ["db: 10.0.0.1:5"]);
        // Another name: as it was, until that has been asked.
        assert_eq!(merge.declare(one("b.example", 2)), []);
        assert_eq!(merge.answer(&question("b.example"), ips(&[1])), []);
        assert_eq!(
            words(&merge.answer(&question("b.example"), ips(&[7]))),
            ["db: 10.0.0.7:5"]
        );
        // The first name's answer was forgotten with it.
        assert_eq!(merge.declare(one("a.example", 2)), []);
        assert_eq!(words(&merge.declare(Checked::default())), ["-db"]);
    }
}
