//! `derny endpoints`

use super::{
    failure::Failure,
    output::{self, Output, age, or_dash},
};
use crate::admin::proto::{EndpointUse, ServiceEndpoint, Standing};

pub(super) fn show(endpoints: &[ServiceEndpoint], output: Output) -> Result<(), Failure> {
    output::print(output, endpoints, table)
}

/// A line for each workload that uses an endpoint; one line for an endpoint that nobody uses.
pub(super) fn table(endpoints: &[ServiceEndpoint]) -> String {
    let header = [
        "SERVICE",
        "ADDRESS",
        "WEIGHT",
        "ZONE",
        "STATE",
        "CALLER",
        "LATENCY",
        "IN-FLIGHT",
        "EJECTED",
    ];
    let rows = endpoints.iter().flat_map(|endpoint| {
        let uses = endpoint.uses.iter().map(move |one| row(endpoint, Some(one)));
        let unused = endpoint.uses.is_empty().then(|| row(endpoint, None));
        uses.chain(unused)
    });
    output::table(header, rows)
}

fn row(endpoint: &ServiceEndpoint, used: Option<&EndpointUse>) -> [String; 9] {
    let ServiceEndpoint {
        namespace,
        service,
        port,
        ..
    } = endpoint;
    let of_use = |field: fn(&EndpointUse) -> String| or_dash(used.map(field).unwrap_or_default());
    [
        format!("{namespace}/{service}:{port}"),
        endpoint.address.clone(),
        endpoint.weight.to_string(),
        or_dash(endpoint.zone.clone()),
        state(endpoint, used),
        of_use(|u| format!("{}/{}", u.namespace, u.workload)),
        of_use(|u| u.latency_ms.map(|ms| format!("{ms:.1}ms")).unwrap_or_default()),
        of_use(|u| u.in_flight.to_string()),
        of_use(|u| u.times_ejected.to_string()),
    ]
}

/// What keeps requests away, and until when.
fn state(endpoint: &ServiceEndpoint, used: Option<&EndpointUse>) -> String {
    let said = said(endpoint);
    let standing = match used {
        Some(used) if used.standing() == Standing::Ejected => {
            let since = used.ejected_since_ms.map(|ms| format!(" for {}", age(ms)));
            let back = used.returns_in_ms.map(|ms| format!(", trial in {}", age(ms)));
            format!(
                "ejected{}: {}{}",
                since.unwrap_or_default(),
                used.reason,
                back.unwrap_or_default()
            )
        }
        Some(used) if used.standing() == Standing::Trial => "trial".to_owned(),
        _ => return said,
    };
    match said.as_str() {
        "ready" => standing,
        said => format!("{said}, {standing}"),
    }
}

/// What discovery and the node's own check say.
fn said(endpoint: &ServiceEndpoint) -> String {
    let declared = endpoint.state().word();
    let Some(check) = &endpoint.check else {
        return declared.to_owned();
    };
    let found = format!("{} for {}", check.verdict, age(check.since_ms));
    let found = match check.failure.as_str() {
        "" => found,
        failure => format!("{found}: {failure}"),
    };
    match declared {
        "ready" | "unhealthy" => found,
        other => format!("{other}, {found}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::{EndpointState, HealthCheckState};

    fn endpoint(address: &str, state: EndpointState, uses: Vec<EndpointUse>) -> ServiceEndpoint {
        ServiceEndpoint {
            namespace: "demo".to_owned(),
            service: "echo".to_owned(),
            port: 80,
            address: address.to_owned(),
            weight: 1,
            zone: String::new(),
            state: state.into(),
            uses,
            ..Default::default()
        }
    }

    #[test]
    fn shows_each_caller_and_what_keeps_requests_away() {
        let used = |standing: Standing, reason: &str| EndpointUse {
            namespace: "demo".to_owned(),
            workload: "web".to_owned(),
            standing: standing.into(),
            reason: reason.to_owned(),
            returns_in_ms: (standing == Standing::Ejected).then_some(12_300),
            times_ejected: 2,
            latency_ms: Some(1.26),
            in_flight: 3,
            takes_requests: false,
            ejected_since_ms: (standing == Standing::Ejected).then_some(17_700),
            full: false,
        };
        let check = |verdict: &str, since_ms, failure: &str| {
            Some(HealthCheckState {
                verdict: verdict.to_owned(),
                since_ms,
                failure: failure.to_owned(),
            })
        };
        let text = table(&[
            ServiceEndpoint {
                check: check("healthy", 60_000, ""),
                ..endpoint("10.0.0.2:80", EndpointState::Ready, vec![used(Standing::In, "")])
            },
            endpoint("10.0.0.3:80", EndpointState::Terminating, vec![]),
        ]);
        assert_eq!(
            text,
            "SERVICE       ADDRESS      WEIGHT  ZONE  STATE           CALLER    LATENCY  IN-FLIGHT  EJECTED\n\
             demo/echo:80  10.0.0.2:80  1       -     healthy for 1m  demo/web  1.3ms    3          2\n\
             demo/echo:80  10.0.0.3:80  1       -     terminating     -         -        -          -"
        );

        let ejected = used(Standing::Ejected, "consecutive5xx");
        let of = |state_: EndpointState, used: &EndpointUse| state(&endpoint("", state_, vec![]), Some(used));
        assert_eq!(
            of(EndpointState::Ready, &ejected),
            "ejected for 17s: consecutive5xx, trial in 12s"
        );
        assert_eq!(
            of(EndpointState::Unhealthy, &ejected),
            "unhealthy, ejected for 17s: consecutive5xx, trial in 12s"
        );
        assert_eq!(of(EndpointState::Ready, &used(Standing::Trial, "")), "trial");

        let failing = |declared: EndpointState| ServiceEndpoint {
            check: check("unhealthy", 3_000, "no answer within 1s"),
            ..endpoint("", declared, vec![])
        };
        assert_eq!(
            state(&failing(EndpointState::Unhealthy), None),
            "unhealthy for 3s: no answer within 1s"
        );
        assert_eq!(
            state(&failing(EndpointState::Terminating), None),
            "terminating, unhealthy for 3s: no answer within 1s"
        );
    }
}
