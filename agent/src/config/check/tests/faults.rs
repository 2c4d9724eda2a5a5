//! What is refused, and in which words.

use super::*;

#[test]
fn faults_of_pods() {
    check(
        "pods: [{name: A_b, netns: ns}, {name: b, netns: /n}, {name: b, netns: /m, workload: ''}]",
        &[
            "pods[0].name: `A_b` is not a DNS label: use 1 to 63 of a-z, 0-9 and -, with no - at either end",
            "pods[0].netns: `ns` is not an absolute path: write /run/netns/NAME or /proc/PID/ns/net",
            "pods[2].workload: `` is not a DNS label: use 1 to 63 of a-z, 0-9 and -, with no - at either end",
        ],
    );
    check(
        "pods: [{name: b, netns: /n}, {name: b, netns: /n}]",
        &[
            "pods[1].netns: `/n` is the network namespace of pods[0] too: give each pod its own, or remove one",
            "pods[1].name: `default/b` is there already: rename or remove one of the two",
        ],
    );
    check(
        "pods: [{name: b, netns: /n, inbound: [{port: 0}, {port: 8, protocol: h3}, {port: 8}]}]",
        &[
            "pods[0].inbound[0].port: `0` is not a port: use 1 to 65535",
            "pods[0].inbound[1].protocol: `h3` is not known: use one of detect, http, http2, grpc, tcp, tls",
            "pods[0].inbound[2].port: `8` is there already: name each port once",
        ],
    );
}

#[test]
fn faults_of_services() {
    let endpoint = |text: &str| with_port(&format!("endpoints: [{{address: '{text}'}}]"));
    let at = "services[0].ports[0].endpoints[0].address";
    for text in [
        "10.0.0.300:80",
        "10.0.0.3",
        "echo:80",
        "fd00::3:80",
        "10.0.0.3:99999",
        "",
    ] {
        let expect =
            format!("{at}: `{text}` is not an address and port: write it as 10.0.0.3:80 or [fd00::3]:80");
        check(&endpoint(text), &[&expect]);
    }
    for (text, expect) in [
        (
            "10.0.0.3:0",
            "has no port: write the port that the pod listens on, 1 to 65535",
        ),
        (
            "0.0.0.0:80",
            "is no single host's address: write the address that the pods dial",
        ),
        (
            "[ff02::1]:80",
            "is no single host's address: write the address that the pods dial",
        ),
        (
            "[::ffff:10.0.0.3]:80",
            "is an IPv4 address in IPv6's clothes: write the IPv4 address 10.0.0.3",
        ),
        (
            "127.192.0.1:80",
            "is in 127.192.0.0/10: use another; redirected connections live in this one",
        ),
    ] {
        check(&endpoint(text), &[&format!("{at}: `{text}` {expect}")]);
    }
    check(
        &with_port(
            "endpoints: [{address: '10.0.0.1:80', weight: 0}, {address: '10.0.0.2:80'}, {address: '10.0.0.2:80'}]",
        ),
        &[
            "services[0].ports[0].endpoints[0].weight: `0` is not a weight: use 1 to 1000000, or remove the endpoint \
             that shall get no request",
            "services[0].ports[0].endpoints[2].address: `10.0.0.2:80` is there already: name each endpoint once; a \
             larger share is a larger `weight`",
        ],
    );
    check(
        "services: [{name: a, addresses: [10.0.0.1, 10.0.0.1, x], ports: [{port: 70000, name: '80'}, {port: 1, \
         name: p}, {port: 1, name: p}]}]",
        &[
            "services[0].addresses[1]: `10.0.0.1` is there already: name each address once",
            "services[0].addresses[2]: `x` is not an address: write it as 10.96.0.10 or fd00::10, without a port",
            "services[0].ports[0].name: `80` is not a port name: use at most 15 characters, at least one of them a \
             letter",
            "services[0].ports[0].port: `70000` is not a port: use 1 to 65535",
            "services[0].ports[2].name: `p` is there already: give each port its own name",
            "services[0].ports[2].port: `1` is there already: name each port once",
        ],
    );
    check(
        "services: [{name: a, addresses: [10.0.0.1], ports: [{port: 1}]}, {name: b, addresses: [10.0.0.1], ports: \
         [{port: 1}, {port: 2}]}, {name: a, ports: []}]",
        &[
            "services[1].addresses: `10.0.0.1:1` belongs to the service default/a already: give each service its own \
             address or port",
            "services[2].name: `default/a` is there already: rename or remove one of the two",
        ],
    );
}

#[test]
fn faults_of_policies() {
    check(
        &with_policy(
            "loadBalancer: {algorithm: fastest}, connectionPool: {connectTimeout: 0s, idleTimeout: 2h, windowSize: \
             65535}, detectTimeout: soon",
        ),
        &[
            "policies[0].loadBalancer.algorithm: `fastest` is not known: use one of peakEwma, leastRequest, roundRobin, \
             random, ringHash, maglev",
            "policies[0].connectionPool.connectTimeout: `0s` is out of range: use 1ms to 1m",
            "policies[0].connectionPool.idleTimeout: `2h` is out of range: use 1s to 1h",
            "policies[0].connectionPool.windowSize: `65535` is out of range: use 65536 to 16777216",
            "policies[0].detectTimeout: `soon` is not a duration: write it like 250ms, 15s or 1m30s, from 10ms to 1m",
        ],
    );
    let port = with_port("name: grpc-main");
    let target = |target: &str| format!("{port}\npolicies: [{{targetRefs: [{{{target}}}]}}]");
    check(
        &format!("{port}\npolicies: [{{targetRefs: []}}]"),
        &["policies[0].targetRefs: `[]` names no target: \
        name at least one service, or remove the policy"],
    );
    check(
        &target("kind: Pod, name: echo"),
        &["policies[0].targetRefs[0].kind: `Pod` cannot have a policy: use \
        Service"],
    );
    check(
        &target("kind: Service, name: echo, namespace: demo"),
        &["policies[0].targetRefs[0]: `demo/echo` does not \
        exist: add the service, or correct name and namespace (without one it is `default`)"],
    );
    check(
        &target("kind: Service, name: echo, sectionName: grpc"),
        &["policies[0].targetRefs[0].sectionName: `grpc` \
        is not a port of default/echo: use one of grpc-main (80)"],
    );
}

#[test]
fn faults_of_all_sections_come_in_the_files_order() {
    let yaml = "policies: [{targetRefs: []}]\nservices: [{name: B, ports: []}]\npods: [{name: A, netns: /a}]";
    let error = from_yaml(yaml.as_bytes()).expect_err(yaml);
    let paths: Vec<_> = error
        .problems()
        .iter()
        .map(|p| p.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        paths,
        ["pods[0].name", "services[0].name", "policies[0].targetRefs"]
    );
}
