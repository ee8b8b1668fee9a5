//! Claims about services. Source: spec/workload-discovery.md §8.

use model::derived::{AppProtocol, Distribution, WdsProtocol};
use model::input::Transport;
use proto::workload as wds;
use proto::workload::load_balancing::{HealthPolicy, Mode, Scope};

use super::world::{World, world};
use crate::emit::{address_of_service, service_aliases};
use crate::protocol::{self, Protocols};
use crate::service::parse_vip;

fn service(metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{namespace: a, name: web, {metadata}}}\nspec: {{{spec}}}\n"
    )
}

fn entry(ns: &str, name: &str, created: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{namespace: {ns}, name: {name}, creationTimestamp: \"{created}\"}}\nspec: {{{spec}}}\n"
    )
}

fn message(world: &World, key: &str) -> wds::Service {
    match address_of_service(&world.services[key]).r#type {
        Some(wds::address::Type::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

const WEB: &str = "a/web.a.svc.cluster.local";

#[test]
fn a_service_is_encoded_with_every_field() {
    let yaml = service(
        "",
        "clusterIPs: [10.9.0.1, \"fd00::9\"], ipFamilies: [IPv4, IPv6], selector: {app: web}, ports: [{name: http-web, port: 80, targetPort: 8080}, {name: x, port: 81, targetPort: named, appProtocol: kubernetes.io/h2c}, {name: dns, port: 53, protocol: UDP}]",
    ) + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system, labels: {topology.istio.io/network: n1}}\n";
    let world = world(&yaml);
    let address = |bytes: Vec<u8>| wds::NetworkAddress {
        network: "n1".into(),
        address: bytes.into(),
        length: None,
    };
    let port = |service_port, target_port, app: wds::AppProtocol| wds::Port {
        service_port,
        target_port,
        app_protocol: app.into(),
    };
    let mut v6 = vec![0; 16];
    (v6[0], v6[15]) = (0xfd, 9);
    let expected = wds::Service {
        name: "web".into(),
        namespace: "a".into(),
        hostname: "web.a.svc.cluster.local".into(),
        addresses: vec![address(vec![10, 9, 0, 1]), address(v6)],
        ports: vec![
            port(80, 8080, wds::AppProtocol::Http11),
            port(81, 0, wds::AppProtocol::Http2),
            port(53, 53, wds::AppProtocol::Unknown),
        ],
        ip_families: wds::IpFamilies::Dual.into(),
        canonical: true,
        ..wds::Service::default()
    };
    assert_eq!(message(&world, WEB), expected);
    assert_eq!(
        service_aliases(&world.services[WEB]),
        ["n1/10.9.0.1", "n1/fd00::9"]
    );
}

#[test]
fn a_headless_service_has_no_address_and_an_external_name_no_service() {
    let headless = world(&service(
        "",
        "clusterIP: None, selector: {app: web}, ports: [{port: 80}]",
    ));
    assert_eq!(message(&headless, WEB).addresses, []);
    let external = world(&service(
        "labels: {istio.io/use-waypoint: wp}",
        "type: ExternalName, externalName: x.example",
    ));
    assert!(external.services.is_empty());
    assert_eq!(external.codes(), ["wp-externalname Service a/web"]);
}

#[test]
fn load_balancing_follows_the_first_word_that_is_understood() {
    let zone = (
        Mode::Failover,
        HealthPolicy::OnlyHealthy,
        vec![Scope::Network, Scope::Region, Scope::Zone],
    );
    let strict = (Mode::Strict, HealthPolicy::OnlyHealthy, vec![Scope::Node]);
    let all = (Mode::UnspecifiedMode, HealthPolicy::AllowAll, vec![]);
    let annotated = "annotations: {networking.istio.io/traffic-distribution: PreferClose}";
    let garbage = "annotations: {networking.istio.io/traffic-distribution: garbage}";
    // Service metadata, Service spec, Namespace metadata, expected.
    let cases = [
        ("", "", "", None),
        ("", "publishNotReadyAddresses: true", "", Some(all)),
        (
            annotated,
            "trafficDistribution: Unknown",
            "",
            Some(zone.clone()),
        ),
        (
            "",
            "trafficDistribution: PreferClose",
            garbage,
            Some(zone.clone()),
        ),
        (garbage, "", annotated, None),
        ("", "", annotated, Some(zone)),
        (annotated, "internalTrafficPolicy: Local", "", Some(strict)),
    ];
    for (metadata, spec, namespace, expected) in cases {
        let yaml = service(
            metadata,
            &format!("clusterIP: 10.9.0.1, ports: [{{port: 80}}], {spec}"),
        ) + &format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: a, {namespace}}}\n"
        );
        let world = world(&yaml);
        let expected = expected.map(|(mode, health, scopes)| wds::LoadBalancing {
            mode: mode.into(),
            health_policy: health.into(),
            routing_preference: scopes.into_iter().map(i32::from).collect(),
        });
        assert_eq!(
            message(&world, WEB).load_balancing,
            expected,
            "{metadata} {spec} {namespace}"
        );
    }
}

#[test]
fn a_service_beats_an_entry_of_its_host_and_the_entry_loses_its_endpoints() {
    let yaml = service("", "clusterIP: 10.9.0.1, ports: [{port: 80}]")
        + &entry(
            "a",
            "dup",
            "2020-01-01T00:00:00Z",
            "hosts: [web.a.svc.cluster.local], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 192.0.2.1}]",
        );
    let world = world(&yaml);
    let owners: Vec<_> = world
        .services
        .values()
        .map(|row| row.source.kind.as_str())
        .collect();
    assert_eq!(owners, ["Service"]);
    assert!(world.workloads.is_empty());
    assert_eq!(world.codes(), ["se-duplicate-host ServiceEntry a/dup"]);
}

#[test]
fn one_of_all_claims_to_a_host_name_is_canonical() {
    let spec = "hosts: [web.a.svc.cluster.local], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]";
    let foreign = entry("b", "se", "2020-01-01T00:00:00Z", spec);
    let with_service = world(&(service("", "clusterIP: 10.9.0.1, ports: [{port: 80}]") + &foreign));
    let canonical = |world: &World| -> Vec<(String, bool)> {
        world
            .services
            .iter()
            .map(|(key, row)| (key.clone(), row.canonical))
            .collect()
    };
    let b = "b/web.a.svc.cluster.local".to_owned();
    assert_eq!(
        canonical(&with_service),
        [(WEB.to_owned(), true), (b.clone(), false)]
    );
    let younger = entry("a", "se", "2021-01-01T00:00:00Z", spec);
    let entries = world(&(foreign + &younger));
    assert_eq!(canonical(&entries), [(WEB.to_owned(), false), (b, true)]);
}

#[test]
fn the_older_entry_wins_a_host_of_one_namespace() {
    let spec = |port| {
        format!(
            "hosts: [x.example], resolution: DNS, ports: [{{number: {port}, name: http, protocol: HTTP}}]"
        )
    };
    let yaml = entry("a", "older", "2020-01-01T00:00:00Z", &spec(80))
        + &entry("a", "a-younger", "2021-01-01T00:00:00Z", &spec(81));
    let world = world(&yaml);
    assert_eq!(world.services["a/x.example"].name, "older");
    assert_eq!(
        world.codes(),
        ["se-duplicate-host ServiceEntry a/a-younger"]
    );
}

#[test]
fn an_entry_has_the_addresses_that_it_writes_or_was_given() {
    type Case = (
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        Option<&'static [&'static str]>,
    );
    // Resolution, host, metadata labels, addresses, allocated; expected aliases, or none served.
    let given = "status: {addresses: [{value: 240.240.0.1, host: x.example}, {value: 240.240.0.2, host: \"*.example\"}]}";
    let cases: [Case; 7] = [
        (
            "STATIC",
            "x.example",
            "",
            "[10.0.0.5/32, 10.1.2.3/16]",
            Some(&["/10.0.0.5", "/10.1.0.0/16"]),
        ),
        ("STATIC", "x.example", "", "[10.0.0.5, bad]", None),
        ("DNS", "x.example", "", "[]", Some(&["/240.240.0.1"])),
        ("NONE", "x.example", "", "[]", Some(&[])),
        ("DNS", "*.example", "", "[]", Some(&[])),
        (
            "DYNAMIC_DNS",
            "*.example",
            "",
            "[]",
            Some(&["/240.240.0.2"]),
        ),
        (
            "DNS",
            "x.example",
            "networking.istio.io/enable-autoallocate-ip: \"False\"",
            "[]",
            Some(&[]),
        ),
    ];
    for (resolution, host, labels, addresses, expected) in cases {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{namespace: a, name: se, labels: {{{labels}}}}}\nspec: {{hosts: [\"{host}\"], resolution: {resolution}, addresses: {addresses}, ports: [{{number: 80, name: http, protocol: HTTP}}]}}\n{given}\n"
        );
        let world = world(&yaml);
        let row = world.services.get(&format!("a/{host}"));
        let aliases = row.map(|row| {
            service_aliases(row)
                .iter()
                .map(|a| a.to_string())
                .collect::<Vec<_>>()
        });
        assert_eq!(
            aliases.as_deref(),
            expected
                .map(|all| all.iter().map(|a| a.to_string()).collect::<Vec<_>>())
                .as_deref(),
            "{resolution} {host} {addresses}"
        );
        let refused = world.codes() == ["se-address-invalid ServiceEntry a/se"];
        assert_eq!(refused, expected.is_none(), "{addresses}");
    }
}

#[test]
fn an_entry_without_resolution_passes_through() {
    let world = world(&entry(
        "a",
        "se",
        "2020-01-01T00:00:00Z",
        "hosts: [x.example], resolution: NONE, addresses: [10.0.0.5], ports: [{number: 80, name: http, protocol: HTTP}]",
    ));
    assert_eq!(
        world.services["a/x.example"].distribution,
        Distribution::Passthrough
    );
    let expected = wds::LoadBalancing {
        mode: Mode::Passthrough.into(),
        health_policy: HealthPolicy::AllowAll.into(),
        routing_preference: Vec::new(),
    };
    assert_eq!(
        message(&world, "a/x.example").load_balancing,
        Some(expected)
    );
}

#[test]
fn the_protocol_of_a_port_is_declared_or_well_known() {
    use AppProtocol as App;
    use WdsProtocol as Wds;
    // Transport, appProtocol, name, port, both readings.
    let cases = [
        (Transport::Tcp, None, "http-web", 80, App::Http, Wds::Http11),
        (Transport::Tcp, None, "HTTP2", 80, App::Http2, Wds::Http2),
        (Transport::Tcp, None, "grpc-api", 80, App::Grpc, Wds::Grpc),
        (
            Transport::Tcp,
            None,
            "grpc-web-api",
            80,
            App::GrpcWeb,
            Wds::Unknown,
        ),
        (Transport::Tcp, None, "https", 443, App::Https, Wds::Tls),
        (Transport::Tcp, None, "tls-x", 443, App::Tls, Wds::Tls),
        (Transport::Tcp, None, "tcp", 80, App::Tcp, Wds::Tcp),
        (Transport::Tcp, None, "redis", 6379, App::Tcp, Wds::Unknown),
        (Transport::Tcp, None, "mysql", 3306, App::Tcp, Wds::Unknown),
        (Transport::Tcp, None, "db", 3306, App::Tcp, Wds::Tcp),
        (Transport::Tcp, None, "", 80, App::Unknown, Wds::Unknown),
        (
            Transport::Tcp,
            Some("http"),
            "tcp",
            80,
            App::Http,
            Wds::Http11,
        ),
        (
            Transport::Tcp,
            Some("kubernetes.io/wss"),
            "",
            80,
            App::Https,
            Wds::Tls,
        ),
        (
            Transport::Udp,
            Some("http"),
            "http",
            53,
            App::Udp,
            Wds::Unknown,
        ),
    ];
    for (transport, app_protocol, name, port, app, wds) in cases {
        let found = protocol::of_service_port(transport, app_protocol, name, port);
        assert_eq!(found, Protocols { app, wds }, "{name} {app_protocol:?}");
    }
}

#[test]
fn a_vip_is_a_host_or_the_masked_base_of_a_block() {
    // Text, base, prefix.
    let cases = [
        ("10.0.0.5", Some(("10.0.0.5", None))),
        ("10.0.0.5/32", Some(("10.0.0.5", None))),
        ("10.0.0.5/8", Some(("10.0.0.0", Some(8)))),
        ("0.0.0.0/0", Some(("0.0.0.0", Some(0)))),
        ("10.9.8.7/0", Some(("0.0.0.0", Some(0)))),
        ("fd00::1/64", Some(("fd00::", Some(64)))),
        ("fd00::1/0", Some(("::", Some(0)))),
        ("fd00::1/128", Some(("fd00::1", None))),
        ("10.0.0.5/33", None),
        ("10.0.0.5/+8", None),
        ("10.0.0.5/", None),
        ("x/8", None),
        ("", None),
    ];
    for (text, expected) in cases {
        let expected = expected.map(|(ip, prefix)| (ip.parse().unwrap(), prefix));
        assert_eq!(parse_vip(text), expected, "{text}");
    }
}
