use super::*;

#[test]
fn rules_are_told_with_the_reason_and_lead_to_their_backends() {
    let routes = "
routes:
- {kind: HTTPRoute, name: r, namespace: demo, parentRefs: [{name: echo, port: 80}], rules: [
    {matches: [{path: {type: Exact, value: /a}, headers: [{name: x-v, value: '2'}]}], timeouts: {request: 2s},
     backendRefs: [{name: pet, port: 8080, weight: 3}]},
    {matches: [{path: {value: /old}}],
     filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, hostname: new.example}}]},
    {matches: [{path: {value: /none}}], backendRefs: [{name: pet, port: 8080, weight: 0}]}]}
";
    let checked = config::from_yaml(format!("{CONFIG}{routes}").as_bytes()).unwrap();
    let updates = checked.services.iter().cloned().map(Update::Service).collect();
    let mut reducer = Reducer::default();
    reducer.apply(updates, tokio::time::Instant::now().into_std());
    let pods = [PodStatus {
        pod: checked.pods[0].clone(),
        slot: slot(),
        state: PodState::Waiting {
            reason: String::new(),
        },
    }];
    let ask = |path: &str, version: &str| {
        let request = proto::ExplainRequest {
            namespace: "demo".to_owned(),
            pod: "client".to_owned(),
            method: "GET".to_owned(),
            url: format!("http://echo{path}"),
            headers: vec![proto::Header {
                name: "x-v".to_owned(),
                value: version.to_owned(),
            }],
        };
        explain(&reducer.view(), &pods, Ok(kernel(0)), &request).unwrap()
    };

    let found = ask("/a", "2");
    assert_eq!(
        found.outcome,
        "rule 0 of demo/r sends it to its backends, by weight"
    );
    let [pet] = found.backends.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!((&*pet.port, pet.weight, pet.exists), ("demo/pet:8080", 3, true));
    assert_eq!(pet.candidates[0].address, "10.0.0.9:8080");
    let of_rule = found.policy.last().unwrap();
    assert_eq!((&*of_rule.name, &*of_rule.value), ("rule timeouts.request", "2s"));

    let found = ask("/a", "1");
    assert_eq!(
        found.outcome,
        "refused with 404 (gRPC: UNIMPLEMENTED): no rule matches"
    );
    let first = found.rules.iter().find(|rule| rule.rule == 0).unwrap();
    assert_eq!(
        (first.verdict().word(), &*first.because),
        ("no", &["header x-v is 1".to_owned()][..])
    );

    let found = ask("/old/x", "1");
    assert_eq!(found.outcome, "rule 1 of demo/r answers with 301, a redirect");
    assert_eq!(found.answer.unwrap().location, "http://new.example/old/x");
    let found = ask("/none", "1");
    assert_eq!(
        found.outcome,
        "rule 2 of demo/r has no backend with a weight: refused with 500"
    );
}

#[test]
fn a_request_is_told_as_the_endpoint_would_get_it() {
    let routes = "
routes:
- {kind: HTTPRoute, name: r, namespace: demo, parentRefs: [{name: echo, port: 80}], rules: [
    {matches: [{path: {value: /v1}}], filters: [
      {type: URLRewrite, urlRewrite: {hostname: pet.internal, path: {type: ReplacePrefixMatch, replacePrefixMatch: /pets}}},
      {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-v, value: '2'}], remove: [x-secret]}},
      {type: RequestMirror, requestMirror: {percent: 10, backendRef: {name: pet, port: 8080}}}],
     backendRefs: [{name: pet, port: 8080, filters: [
      {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-backend, value: pet}]}}]}]}]}
";
    let checked = config::from_yaml(format!("{CONFIG}{routes}").as_bytes()).unwrap();
    let updates = checked.services.iter().cloned().map(Update::Service).collect();
    let mut reducer = Reducer::default();
    reducer.apply(updates, tokio::time::Instant::now().into_std());
    let pods = [PodStatus {
        pod: checked.pods[0].clone(),
        slot: slot(),
        state: PodState::Enrolled {
            id: crate::model::EnrolmentId {
                netns_cookie: 4097,
                generation: 1,
            },
            addresses: vec![[10, 1, 0, 5].into()],
            over_share: 0,
            at: std::time::UNIX_EPOCH,
        },
    }];
    let header = |name: &str, value: &str| proto::Header {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let request = proto::ExplainRequest {
        namespace: "demo".to_owned(),
        pod: "client".to_owned(),
        method: "PUT".to_owned(),
        url: "http://echo/v1/cat?age=3".to_owned(),
        headers: vec![
            header("x-v", "1"),
            header("x-secret", "no"),
            header("connection", "keep-alive"),
            header("x-kept", "yes"),
        ],
    };
    let found = explain(&reducer.view(), &pods, Ok(kernel(0)), &request).unwrap();
    let [pet] = found.backends.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(pet.mirrors, ["demo/pet:8080, 10 of 100"]);
    let sent = pet.request.as_ref().unwrap();
    assert_eq!(
        (&*sent.method, &*sent.path, &*sent.authority),
        ("PUT", "/pets/cat?age=3", "pet.internal")
    );
    let set: Vec<_> = sent.set.iter().map(|h| (&*h.name, &*h.value)).collect();
    assert_eq!(
        set,
        [
            ("x-backend", "pet"),
            ("x-derny-attempt", "1"),
            ("x-forwarded-for", "10.1.0.5"),
            ("x-request-id", "a new UUIDv7"),
            ("x-v", "2"),
        ]
    );
    assert_eq!(sent.removed, ["connection", "x-secret"]);
}

/// A file may have routes of several namespaces, of either kind.
#[test]
fn routes_of_a_namespace_are_for_its_callers() {
    let route = |kind: &str, namespace: &str| {
        format!(
            "- {{kind: {kind}, name: r, namespace: {namespace}, parentRefs: [{{name: echo, namespace: demo, port: 80}}], \
             rules: [{{backendRefs: [{{name: pet, namespace: demo, port: 8080}}]}}]}}\n"
        )
    };
    let outcome = |routes: &str| {
        let checked = config::from_yaml(format!("{CONFIG}routes:\n{routes}").as_bytes()).unwrap();
        let updates = checked.services.iter().cloned().map(Update::Service).collect();
        let mut reducer = Reducer::default();
        reducer.apply(updates, tokio::time::Instant::now().into_std());
        let ask = |namespace: &str| {
            let mut pod = (*checked.pods[0]).clone();
            pod.name.namespace = namespace.into();
            let pods = [PodStatus {
                pod: pod.into(),
                slot: slot(),
                state: PodState::Waiting {
                    reason: String::new(),
                },
            }];
            let request = proto::ExplainRequest {
                namespace: namespace.to_owned(),
                pod: "client".to_owned(),
                method: "GET".to_owned(),
                url: "http://10.96.0.1/".to_owned(),
                headers: vec![],
            };
            let explained = explain(&reducer.view(), &pods, Ok(kernel(0)), &request).unwrap();
            let fact = explained.policy.iter().find(|fact| fact.name == "routes");
            let said = fact.map(|fact| &*fact.value);
            let own = "those of web, for its own callers, in the place of any of demo";
            assert_eq!(said, (namespace == "web").then_some(own));
            explained.outcome
        };
        [ask("web"), ask("demo")]
    };
    let consumer = route("HTTPRoute", "web");
    let by = |namespace: &str| format!("rule 0 of {namespace}/r sends it to its backends, by weight");
    let alone = "goes to the service's own endpoints: its routes are for callers of other namespaces";
    assert_eq!(outcome(&consumer), [by("web"), alone.to_owned()]);
    let both = format!("{consumer}{}", route("GRPCRoute", "demo"));
    let refused = "refused with 404 (gRPC: UNIMPLEMENTED): no rule matches";
    assert_eq!(outcome(&both), [by("web"), refused.to_owned()]);
}
