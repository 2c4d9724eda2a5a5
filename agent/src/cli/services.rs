//! `derny services`

use super::{
    failure::Failure,
    output::{self, Output, or_dash},
};
use crate::admin::proto::{Endpoint, Service};

pub(super) fn show(services: &[Service], output: Output) -> Result<(), Failure> {
    output::print(output, services, table)
}

fn table(services: &[Service]) -> String {
    let header = [
        "NAMESPACE",
        "NAME",
        "PORT",
        "PROTOCOL",
        "ALGORITHM",
        "ROUTES",
        "POLICY",
        "ADDRESSES",
        "ENDPOINTS",
    ];
    output::table(header, services.iter().map(row))
}

fn row(service: &Service) -> [String; 9] {
    let endpoints: Vec<String> = service.endpoints.iter().map(endpoint).collect();
    [
        service.namespace.clone(),
        service.name.clone(),
        match service.port {
            0 => "-".to_owned(),
            port => port.to_string(),
        },
        service.protocol.clone(),
        service.algorithm.clone(),
        service.routes.to_string(),
        or_default(&service.policy),
        or_dash(service.addresses.join(" ")),
        match service.note.is_empty() {
            true => or_dash(endpoints.join(" ")),
            false => service.note.clone(),
        },
    ]
}

fn or_default(sections: &[String]) -> String {
    match sections {
        [] => "default".to_owned(),
        sections => sections.join(" "),
    }
}

/// The weight is shown where it says something.
fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint.weight {
        1 => endpoint.address.clone(),
        weight => format!("{}×{weight}", endpoint.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_each_port_with_its_endpoints() {
        let endpoint = |address: &str, weight| Endpoint {
            address: address.to_owned(),
            weight,
        };
        let service = Service {
            namespace: "demo".to_owned(),
            name: "echo".to_owned(),
            port: 80,
            protocol: "grpc".to_owned(),
            algorithm: "peakEwma".to_owned(),
            addresses: vec!["10.96.0.10".to_owned()],
            endpoints: vec![endpoint("10.0.0.2:80", 1), endpoint("10.0.0.3:80", 2)],
            routes: 2,
            policy: vec!["retry".to_owned()],
            note: String::new(),
        };
        let mut plain = service.clone();
        (plain.endpoints, plain.policy, plain.routes) = (vec![], vec![], 0);
        assert_eq!(
            table(&[service, plain]),
            "NAMESPACE  NAME  PORT  PROTOCOL  ALGORITHM  ROUTES  POLICY   ADDRESSES   ENDPOINTS\n\
             demo       echo  80    grpc      peakEwma   2       retry    10.96.0.10  10.0.0.2:80 10.0.0.3:80×2\n\
             demo       echo  80    grpc      peakEwma   0       default  10.96.0.10  -"
        );
    }
}
