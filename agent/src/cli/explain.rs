//! `derny explain`

use anyhow::{Context as _, Result};
use clap::Args;
use http::Uri;

use super::{
    endpoints,
    failure::Failure,
    output::{self, Output, or_dash},
};
use crate::admin::proto::{Answer, ExplainRequest, ExplainedBackend, Explanation, Header, RuleMatch};

/// A request that nobody sends.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The pod that would send it
    #[arg(long, value_name = "NAMESPACE/POD")]
    from: String,

    /// Where to; the host is an address or a service's name
    #[arg(value_name = "URL")]
    url: String,

    /// A gRPC call; the URL's path does not count then
    #[arg(long, value_name = "SERVICE/METHOD", conflicts_with = "method")]
    grpc: Option<String>,

    #[arg(long, default_value = "GET")]
    method: String,

    /// May be given several times
    #[arg(long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
}

impl ExplainArgs {
    pub(super) fn request(self) -> Result<ExplainRequest> {
        let (namespace, pod) = self
            .from
            .split_once('/')
            .with_context(|| format!("--from {}: write it as NAMESPACE/POD", self.from))?;
        let mut headers = self
            .headers
            .iter()
            .map(|text| {
                let (name, value) = text
                    .split_once(':')
                    .with_context(|| format!("--header {text}: write it as NAME:VALUE"))?;
                Ok(Header {
                    name: name.to_owned(),
                    value: value.trim().to_owned(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let text = match self.url.contains("://") {
            true => self.url,
            false => format!("http://{}", self.url),
        };
        let uri: Uri = text
            .parse()
            .with_context(|| format!("{text} is no URL: write it as http://echo.demo:8080/path"))?;
        let (method, url) = match &self.grpc {
            None => (self.method, text),
            Some(call) => {
                let scheme = uri.scheme_str().unwrap_or("http");
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                headers.push(Header {
                    name: "content-type".to_owned(),
                    value: "application/grpc".to_owned(),
                });
                let call = call.strip_prefix('/').unwrap_or(call);
                ("POST".to_owned(), format!("{scheme}://{authority}/{call}"))
            }
        };
        Ok(ExplainRequest {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            method,
            url,
            headers,
        })
    }
}

pub(super) fn show(explanation: &Explanation, output: Output) -> Result<(), Failure> {
    output::print(output, explanation, text)
}

fn text(explanation: &Explanation) -> String {
    let redirected = match explanation.redirected {
        None => "not known",
        Some(true) => "yes",
        Some(false) => "no",
    };
    let mut facts = vec![
        ("address", explanation.address.clone()),
        ("redirected", redirected.to_owned()),
    ];
    facts.extend(explanation.redirection.iter().map(|line| ("", line.clone())));
    facts.push(("service port", or_dash(explanation.port.clone())));
    if !explanation.protocol.is_empty() {
        facts.push(("protocol", explanation.protocol.clone()));
    }
    facts.push(("outcome", explanation.outcome.clone()));
    facts.extend(
        explanation
            .answer
            .as_ref()
            .map(|answer| ("location", answer.location.clone())),
    );
    let mut parts = vec![output::facts(facts)];
    if !explanation.rules.is_empty() {
        parts.push(output::table(
            ["ROUTE", "RULE", "WANTS", "VERDICT"],
            explanation.rules.iter().map(rule_row),
        ));
    }
    parts.extend(explanation.backends.iter().map(backend));
    if !explanation.policy.is_empty() {
        let rows = explanation
            .policy
            .iter()
            .map(|f| [f.name.clone(), f.value.clone()]);
        parts.push(output::table(["POLICY", ""], rows));
    }
    parts.join("\n\n")
}

fn rule_row(rule: &RuleMatch) -> [String; 4] {
    let number = match rule.name.as_str() {
        "" => rule.rule.to_string(),
        name => format!("{} ({name})", rule.rule),
    };
    let verdict = rule.verdict().word();
    let verdict = match rule.because.as_slice() {
        [] => verdict.to_owned(),
        because => format!("{verdict}: {}", because.join(", ")),
    };
    [rule.route.clone(), number, rule.wants.clone(), verdict]
}

fn backend(backend: &ExplainedBackend) -> String {
    let ExplainedBackend {
        port,
        weight,
        algorithm,
        ..
    } = backend;
    if !backend.fault.is_empty() {
        let fault = &backend.fault;
        return format!("backend with weight {weight}: {fault}: refused with 500");
    }
    match (backend.exists, backend.candidates.as_slice()) {
        (false, _) => format!("backend {port}, weight {weight}: there is no such service port"),
        (true, []) => format!("backend {port}, weight {weight}: no endpoint"),
        (true, candidates) => {
            let mut parts = vec![format!("backend {port}, weight {weight}, {algorithm}")];
            parts.extend(sent(backend));
            parts.push(endpoints::table(candidates));
            let excluded = candidates
                .iter()
                .filter(|candidate| !candidate.excluded_by.is_empty());
            parts.extend(excluded.map(|one| format!("not {}: {}", one.address, one.excluded_by)));
            parts.join("\n")
        }
    }
}

/// The request as it would arrive, or the answer in its place.
fn sent(backend: &ExplainedBackend) -> Option<String> {
    if let Some(Answer { code, location }) = &backend.answer {
        return Some(match location.as_str() {
            "" => format!("answered with {code}, to a CORS preflight"),
            location => format!("answered with {code}, a redirect to {location}"),
        });
    }
    let request = backend.request.as_ref()?;
    let mut facts = vec![
        ("request", format!("{} {}", request.method, request.path)),
        ("authority", request.authority.clone()),
    ];
    let set = request
        .set
        .iter()
        .map(|header| format!("{}: {}", header.name, header.value));
    facts.extend(set.map(|header| ("sets", header)));
    facts.extend(request.removed.iter().map(|name| ("removes", name.clone())));
    facts.extend(backend.mirrors.iter().map(|mirror| ("copied to", mirror.clone())));
    Some(output::facts(facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::{Fact, ForwardedRequest, MatchVerdict, ServiceEndpoint};

    fn args(url: &str, grpc: Option<&str>, headers: &[&str]) -> ExplainArgs {
        ExplainArgs {
            from: "demo/client-1".to_owned(),
            url: url.to_owned(),
            grpc: grpc.map(str::to_owned),
            method: "PUT".to_owned(),
            headers: headers.iter().map(|h| (*h).to_owned()).collect(),
        }
    }

    #[test]
    fn flags_become_a_request() {
        let request = args("echo.demo:80/a?b=c", None, &["x-v: 2"]).request().unwrap();
        assert_eq!((&*request.namespace, &*request.pod), ("demo", "client-1"));
        assert_eq!(
            (&*request.method, &*request.url),
            ("PUT", "http://echo.demo:80/a?b=c")
        );
        assert_eq!(
            (&*request.headers[0].name, &*request.headers[0].value),
            ("x-v", "2")
        );

        let request = args("http://echo:80/x", Some("/e.v1.Echo/Say"), &[])
            .request()
            .unwrap();
        assert_eq!(
            (&*request.method, &*request.url),
            ("POST", "http://echo:80/e.v1.Echo/Say")
        );
        assert_eq!(request.headers[0].value, "application/grpc");

        assert!(args("http://", None, &[]).request().is_err());
        assert!(args("echo", None, &["x"]).request().is_err());
    }

    #[test]
    fn shows_the_way_from_the_kernel_to_the_policy() {
        let backend = |port: &str, exists| ExplainedBackend {
            port: port.to_owned(),
            weight: 1,
            exists,
            ..Default::default()
        };
        let explanation = Explanation {
            address: "10.96.0.10:80".to_owned(),
            redirected: Some(true),
            redirection: vec!["the heartbeat is 20ms old".to_owned()],
            port: "demo/echo:80".to_owned(),
            protocol: "http".to_owned(),
            rules: vec![RuleMatch {
                route: "demo/r".to_owned(),
                rule: 1,
                name: "beta".to_owned(),
                wants: "path = /a".to_owned(),
                verdict: MatchVerdict::No.into(),
                because: vec!["path is /b".to_owned()],
            }],
            outcome: "404".to_owned(),
            backends: vec![backend("demo/a:1", true), backend("demo/b:2", false)],
            policy: vec![Fact {
                name: "retry".to_owned(),
                value: "never".to_owned(),
            }],
            ..Default::default()
        };
        assert_eq!(
            text(&explanation),
            "address       10.96.0.10:80\n\
             redirected    yes\n\
             \x20             the heartbeat is 20ms old\n\
             service port  demo/echo:80\n\
             protocol      http\n\
             outcome       404\n\n\
             ROUTE   RULE      WANTS      VERDICT\n\
             demo/r  1 (beta)  path = /a  no: path is /b\n\n\
             backend demo/a:1, weight 1: no endpoint\n\n\
             backend demo/b:2, weight 1: there is no such service port\n\n\
             POLICY\n\
             retry   never"
        );
    }

    #[test]
    fn shows_the_request_as_it_arrives_and_who_does_not_get_it() {
        let header = Header {
            name: "x-v".to_owned(),
            value: "2".to_owned(),
        };
        let shown = backend(&ExplainedBackend {
            port: "demo/a:1".to_owned(),
            weight: 1,
            exists: true,
            algorithm: "random".to_owned(),
            candidates: vec![ServiceEndpoint {
                address: "10.0.0.1:1".to_owned(),
                excluded_by: "it is ejected: successRate".to_owned(),
                ..Default::default()
            }],
            request: Some(ForwardedRequest {
                method: "GET".to_owned(),
                path: "/pets".to_owned(),
                authority: "pet".to_owned(),
                set: vec![header],
                removed: vec!["te".to_owned()],
            }),
            mirrors: vec!["demo/b:2".to_owned()],
            answer: None,
            fault: String::new(),
        });
        let (head, rest) = shown.split_once("\nSERVICE").unwrap();
        assert_eq!(
            head,
            "backend demo/a:1, weight 1, random\n\
             request    GET /pets\n\
             authority  pet\n\
             sets       x-v: 2\n\
             removes    te\n\
             copied to  demo/b:2"
        );
        assert!(
            rest.ends_with("\nnot 10.0.0.1:1: it is ejected: successRate"),
            "{rest}"
        );
    }
}
