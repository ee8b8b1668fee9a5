//! §9.1 (exportTo, durations), §9.4.

mod destination_rules;
mod entries;
mod virtual_services;

use super::*;

const NETWORKING: &str = "networking.istio.io";

#[test]
fn sidecars() {
    let egress = |egress: Value| json!({"egress": [egress]});
    let ingress = |edit: Value| {
        let mut one = json!({"port": {"number": 80, "protocol": "HTTP", "name": "a"}, "defaultEndpoint": "127.0.0.1:80"});
        merge(&mut one, &edit);
        json!({"ingress": [one.clone()]})
    };
    let twice = json!({"egress": [{"hosts": ["./a"]}, {"hosts": ["./b"]}]});
    let rows: Vec<Row> = vec![
        ("hosts", json!({}), Warn("kind-not-supported")),
        (
            "targetPort on ingress",
            ingress(json!({"port": {"targetPort": 1}})),
            Reject("spec.ingress[0].port.targetPort"),
        ),
        (
            "ingress without port",
            ingress(json!({"port": "-"})),
            Reject("spec.ingress[0].port"),
        ),
        (
            "ingress elsewhere",
            ingress(json!({"defaultEndpoint": "10.0.0.1:80"})),
            Reject("spec.ingress[0].defaultEndpoint"),
        ),
        ("duplicate listeners", twice, Reject("spec.egress[1]")),
        (
            "empty egress hosts",
            egress(json!({"hosts": []})),
            Reject("spec.egress[0].hosts"),
        ),
        (
            "a host without namespace",
            egress(json!({"hosts": ["a"]})),
            Reject("spec.egress[0].hosts[0]"),
        ),
        (
            "bind without port",
            egress(json!({"hosts": ["./a"], "bind": "10.0.0.1"})),
            Reject("spec.egress[0].bind"),
        ),
        (
            "captured socket",
            egress(
                json!({"hosts": ["./a"], "bind": "unix:///a", "port": {"number": 0, "protocol": "HTTP"}, "captureMode": "IPTABLES"}),
            ),
            Reject("spec.egress[0].captureMode"),
        ),
        (
            "egress_proxy of another mode",
            json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY", "egressProxy": {"host": "a", "port": {"number": 1}}}}),
            Reject("spec.outboundTrafficPolicy.egressProxy"),
        ),
        (
            "ALLOW_ANY_DYNAMIC_DNS",
            json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY_DYNAMIC_DNS"}}),
            Reject("spec.outboundTrafficPolicy.mode"),
        ),
        (
            "duplicate host",
            egress(json!({"hosts": ["./a", "./a"]})),
            Warn("the same"),
        ),
        (
            "*/* with others",
            egress(json!({"hosts": ["*/*", "./a"]})),
            Warn("superfluous"),
        ),
    ];
    check_rows(
        NETWORKING,
        "Sidecar",
        &json!({"egress": [{"hosts": ["./*"]}]}),
        &rows,
    );
}

#[test]
fn gateways() {
    let server = |edit: Value| {
        let mut server =
            json!({"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]});
        merge(&mut server, &edit);
        json!({"servers": [server]})
    };
    let https =
        |tls: Value| server(json!({"port": {"number": 443, "protocol": "HTTPS"}, "tls": tls}));
    let rows: Vec<Row> = vec![
        ("a server", json!({}), Warn("kind-not-supported")),
        ("no servers", json!({"servers": []}), Reject("spec.servers")),
        (
            "no servers at all",
            json!({"servers": "-"}),
            Reject("spec.servers"),
        ),
        (
            "no port",
            server(json!({"port": "-"})),
            Reject("spec.servers[0].port"),
        ),
        (
            "port 0",
            server(json!({"port": {"number": 0}})),
            Reject("spec.servers[0].port.number"),
        ),
        (
            "a bad protocol",
            server(json!({"port": {"protocol": "FTP"}})),
            Reject("spec.servers[0].port.protocol"),
        ),
        (
            "no hosts",
            server(json!({"hosts": []})),
            Reject("spec.servers[0].hosts"),
        ),
        (
            "a bad host",
            server(json!({"hosts": ["a b"]})),
            Reject("spec.servers[0].hosts[0]"),
        ),
        (
            "a host of a namespace",
            server(json!({"hosts": ["own/*.example.com"]})),
            Warn("kind-not-supported"),
        ),
        (
            "duplicate port names",
            json!({"servers": [{"port": {"number": 80, "name": "a", "protocol": "HTTP"}, "hosts": ["*"]}, {"port": {"number": 81, "name": "a", "protocol": "HTTP"}, "hosts": ["*"]}]}),
            Reject("spec.servers[1].port.name"),
        ),
        (
            "TLS required for HTTPS",
            server(json!({"port": {"protocol": "HTTPS"}})),
            Reject("spec.servers[0].tls"),
        ),
        (
            "TLS on HTTP",
            server(json!({"tls": {"mode": "SIMPLE"}})),
            Reject("spec.servers[0].tls"),
        ),
        (
            "redirect on HTTP",
            server(json!({"tls": {"httpsRedirect": true}})),
            Warn("kind-not-supported"),
        ),
        (
            "a Secret",
            https(json!({"mode": "SIMPLE", "credentialName": "a"})),
            Warn("kind-not-supported"),
        ),
        (
            "SIMPLE without certificate",
            https(json!({"mode": "SIMPLE"})),
            Reject("spec.servers[0].tls.serverCertificate"),
        ),
        (
            "MUTUAL without CA",
            https(json!({"mode": "MUTUAL", "serverCertificate": "/a", "privateKey": "/b"})),
            Reject("spec.servers[0].tls.caCertificates"),
        ),
        (
            "credentialName and credentialNames",
            https(json!({"mode": "SIMPLE", "credentialName": "a", "credentialNames": ["b"]})),
            Reject("spec.servers[0].tls"),
        ),
        (
            "credentialName and tlsCertificates",
            https(
                json!({"mode": "SIMPLE", "credentialName": "a", "tlsCertificates": [{"serverCertificate": "/a", "privateKey": "/b"}]}),
            ),
            Reject("spec.servers[0].tls"),
        ),
    ];
    let good = json!({"servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]});
    check_rows(NETWORKING, "Gateway", &good, &rows);
}
