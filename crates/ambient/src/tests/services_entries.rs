//! Claims about the visibility of ServiceEntries, and what they are told.
//! Source: spec/workload-discovery.md §3.4 to §3.6, §8 rows 28 to 32; spec/policy-and-traffic.md
//! §10.6.

use model::derived::{NeedsWaypoint, Visibility};
use proto::workload as wds;

use super::world::{World, world};
use crate::emit::address_of_service;

const PORTS: &str = "ports: [{number: 80, name: http, protocol: HTTP}]";

fn entry(ns: &str, name: &str, year: u16, annotations: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{namespace: {ns}, name: {name}, creationTimestamp: \"{year}-01-01T00:00:00Z\", annotations: {{{annotations}}}}}\nspec: {{{spec}}}\n"
    )
}

fn namespace(name: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
    )
}

fn mesh(visibility: &str) -> String {
    format!("---\nkind: MeshConfig\nserviceEntryVisibility: {visibility}\n")
}

/// Key, visibility and canonical of each service.
fn seen(world: &World) -> Vec<(&str, Visibility, bool)> {
    let rows = world.services.iter();
    rows.map(|(key, row)| (key.as_str(), row.visibility, row.canonical))
        .collect()
}

#[test]
fn the_first_policy_that_matches_the_namespace_decides_who_sees_its_entries() {
    use Visibility::{Namespace, None, Public};
    // Settings, labels of the namespace, outcome.
    let cases = [
        ("{}", "", Public),
        ("{defaultVisibility: NAMESPACE}", "", Namespace),
        ("{defaultVisibility: NONE}", "", None),
        (
            "{defaultVisibility: NONE, policies: [{visibility: NAMESPACE, matchingRules: [{namespaceSelector: {matchLabels: {t: x}}}]}, {visibility: PUBLIC}]}",
            "t: x",
            Namespace,
        ),
        (
            "{defaultVisibility: NONE, policies: [{visibility: NAMESPACE, matchingRules: [{namespaceSelector: {matchLabels: {t: x}}}]}, {visibility: PUBLIC}]}",
            "t: y",
            Public,
        ),
        // All rules of a policy must match; an unset outcome is PUBLIC.
        (
            "{defaultVisibility: NONE, policies: [{matchingRules: [{namespaceSelector: {matchExpressions: [{key: t, operator: Exists}]}}, {namespaceSelector: {matchLabels: {u: x}}}]}]}",
            "t: x",
            None,
        ),
        (
            "{defaultVisibility: NONE, policies: [{matchingRules: [{namespaceSelector: {matchExpressions: [{key: t, operator: Exists}]}}, {namespaceSelector: {matchLabels: {u: x}}}]}]}",
            "{t: x, u: x}",
            Public,
        ),
        // A rule that cannot be read matches nothing.
        (
            "{defaultVisibility: NAMESPACE, policies: [{visibility: PUBLIC, matchingRules: [{namespaceSelector: {matchExpressions: [{key: t, operator: Near}]}}]}]}",
            "t: x",
            Namespace,
        ),
    ];
    for (settings, labels, expected) in cases {
        let labels = labels.trim_matches(['{', '}']);
        let spec = format!("hosts: [x.example], resolution: DNS, {PORTS}");
        let yaml = mesh(settings) + &namespace("a", labels) + &entry("a", "se", 2020, "", &spec);
        let world = world(&yaml);
        let found = world.services.get("a/x.example");
        let found = found.map_or(None, |row| row.visibility);
        assert_eq!(found, expected, "{settings} {labels}");
        assert_eq!(
            world.workloads.is_empty(),
            expected == None,
            "workloads go with their service: {settings}"
        );
        let is_told = (world.codes().iter()).any(|code| code == "se-hidden ServiceEntry a/se");
        assert_eq!(is_told, expected == None, "{settings}");
    }
}

#[test]
fn an_entry_that_its_namespace_alone_sees_is_never_canonical() {
    let spec = format!("hosts: [x.example], resolution: DNS, {PORTS}");
    let entries = entry("a", "older", 2020, "", &spec) + &entry("b", "younger", 2021, "", &spec);
    let all = world(&entries);
    let public = Visibility::Public;
    assert_eq!(
        seen(&all),
        [
            ("a/x.example", public, true),
            ("b/x.example", public, false)
        ]
    );
    let hidden = "{policies: [{visibility: NAMESPACE, matchingRules: [{namespaceSelector: {matchLabels: {own: \"\"}}}]}]}";
    let own = Visibility::Namespace;
    let some = mesh(hidden) + &namespace("a", "own: \"\"") + &entries;
    let world_some = world(&some);
    assert_eq!(
        seen(&world_some),
        [("a/x.example", own, false), ("b/x.example", public, true)]
    );
    let wire = address_of_service(&world_some.services["a/x.example"]).r#type;
    let Some(wds::address::Type::Service(message)) = wire else {
        panic!("{wire:?}")
    };
    assert_eq!(
        message.visibility,
        i32::from(wds::service::Visibility::Namespace)
    );
    let none = world(&(some + &namespace("b", "own: \"\"")));
    assert_eq!(
        seen(&none),
        [("a/x.example", own, false), ("b/x.example", own, false)]
    );
}

#[test]
fn a_service_is_public_and_canonical_whatever_entries_are() {
    let host = "web.a.svc.cluster.local";
    let spec = format!("hosts: [{host}], resolution: DNS, {PORTS}");
    let yaml = mesh("{defaultVisibility: NAMESPACE}")
        + "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: web}\nspec: {clusterIP: 10.9.0.1, ports: [{port: 80}]}\n"
        + &entry("b", "se", 2020, "", &spec);
    assert_eq!(
        seen(&world(&yaml)),
        [
            ("a/web.a.svc.cluster.local", Visibility::Public, true),
            ("b/web.a.svc.cluster.local", Visibility::Namespace, false)
        ]
    );
}

#[test]
fn wildcards_and_racing_connections_need_a_waypoint() {
    use NeedsWaypoint::{RacingConnect, Wildcard};
    let race = "istio.io/connect-strategy: race_first_tcp_connect";
    let other = "istio.io/connect-strategy: DEFAULT";
    // Annotations, host, resolution; what it needs, what it is told.
    let cases = [
        ("", "x.example", "DNS", None, None),
        (other, "x.example", "DNS", None, None),
        (
            race,
            "x.example",
            "DNS",
            Some(RacingConnect),
            Some("se-needs-waypoint"),
        ),
        (
            "",
            "*.example",
            "DYNAMIC_DNS",
            Some(Wildcard),
            Some("se-wildcard-no-waypoint"),
        ),
        (
            "",
            "*.example",
            "DNS",
            Some(Wildcard),
            Some("se-wildcard-no-waypoint"),
        ),
        (
            race,
            "*.example",
            "DYNAMIC_DNS",
            Some(RacingConnect),
            Some("se-needs-waypoint"),
        ),
        ("", "x.example", "NONE", None, Some("se-tcp-no-address")),
    ];
    for (annotations, host, resolution, needs, code) in cases {
        let spec = format!("hosts: [\"{host}\"], resolution: {resolution}, {PORTS}");
        let world = world(&entry("a", "se", 2020, annotations, &spec));
        let row = &world.services[&format!("a/{host}")];
        assert_eq!(
            row.needs_waypoint, needs,
            "{annotations} {host} {resolution}"
        );
        let codes: Vec<String> = code
            .iter()
            .map(|code| format!("{code} ServiceEntry a/se"))
            .collect();
        assert_eq!(world.codes(), codes, "{annotations} {host} {resolution}");
    }
}

#[test]
fn with_a_waypoint_the_needs_are_met_but_not_without_an_address() {
    let waypoint = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: a}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\nstatus: {addresses: [{type: IPAddress, value: 10.9.9.9}]}\n";
    let bound = namespace("a", "istio.io/use-waypoint: wp") + waypoint;
    let race = "istio.io/connect-strategy: RACE_FIRST_TCP_CONNECT";
    let cases = [
        (race, "x.example", "DNS", None),
        ("", "*.example", "DYNAMIC_DNS", None),
        ("", "*.example", "DNS", Some("se-wildcard-no-waypoint")),
        ("", "x.example", "NONE", Some("se-passthrough-policy")),
    ];
    for (annotations, host, resolution, code) in cases {
        let spec = format!("hosts: [\"{host}\"], resolution: {resolution}, {PORTS}");
        let world = world(&(bound.clone() + &entry("a", "se", 2020, annotations, &spec)));
        let codes: Vec<String> = code
            .iter()
            .map(|code| format!("{code} ServiceEntry a/se"))
            .collect();
        assert_eq!(world.codes(), codes, "{annotations} {host} {resolution}");
    }
}

#[test]
fn export_to_has_no_effect_and_that_is_told() {
    for (list, is_told) in [("[\".\"]", true), ("[\"*\"]", false), ("[b, \"*\"]", false)] {
        let spec = format!("hosts: [x.example], resolution: DNS, exportTo: {list}, {PORTS}");
        let world = world(&entry("a", "se", 2020, "", &spec));
        let public = [("a/x.example", Visibility::Public, true)];
        assert_eq!(seen(&world), public);
        let told = world.codes() == ["se-exportto-ambient ServiceEntry a/se"];
        assert_eq!(told, is_told, "{list}");
    }
}

#[test]
fn shapes_that_kubernetes_refuses_are_told_with_their_effect() {
    let refused = "se-not-admissible";
    // Spec, code and field.
    let cases = [
        (
            "hosts: [x.example], resolution: STATIC, endpoints: [{address: 10.0.0.1}], workloadSelector: {labels: {a: b}}",
            refused,
            "spec.workloadSelector",
        ),
        (
            "hosts: [x.example], resolution: STATIC, workloadSelector: {}",
            refused,
            "spec.workloadSelector",
        ),
        (
            "hosts: [x.example], addresses: [10.0.0.9], endpoints: [{address: 10.0.0.1}]",
            refused,
            "spec.endpoints",
        ),
        (
            "hosts: [x.example], resolution: DNS_ROUND_ROBIN, endpoints: [{address: a.example}, {address: b.example}]",
            refused,
            "spec.endpoints",
        ),
        (
            "hosts: [x.example], resolution: DYNAMIC_DNS",
            refused,
            "spec.hosts[0]",
        ),
        (
            "hosts: [x.example], resolution: DNS, addresses: [10.0.0.0/24]",
            refused,
            "spec.addresses[0]",
        ),
        (
            "hosts: [x.example], resolution: STATIC, endpoints: [{address: 10.0.0.1}, {address: a.example}]",
            refused,
            "spec.endpoints[1].address",
        ),
        (
            "hosts: [x.example], resolution: STATIC, endpoints: [{address: \"unix:///x\"}]",
            "se-endpoint-unusable",
            "spec.endpoints[0].address",
        ),
        (
            "hosts: [x.example], resolution: STATIC",
            "se-no-endpoints",
            "spec.endpoints",
        ),
        (
            "hosts: [x.example], resolution: DNS, addresses: [10.0.0.9, x]",
            "se-address-invalid",
            "spec.addresses[1]",
        ),
    ];
    for (spec, code, field) in cases {
        let world = world(&entry("a", "se", 2020, "", &format!("{spec}, {PORTS}")));
        let found: Vec<_> = world
            .findings
            .iter()
            .map(|f| (f.code, f.field.as_str()))
            .collect();
        assert_eq!(found, [(code, field)], "{spec}");
    }
}

#[test]
fn a_port_whose_name_and_protocol_disagree_is_told() {
    // Name, protocol, told.
    let cases = [
        ("http", "HTTP", false),
        ("http2-api", "GRPC", false),
        ("mysql", "TCP", false),
        ("https", "TLS", false),
        ("https", "HTTP", true),
        ("http", "TCP", true),
        ("api", "HTTP", false),
        ("api", "HTTPX", true),
        ("http", "", true),
    ];
    for (name, protocol, is_told) in cases {
        let spec = format!(
            "hosts: [x.example], resolution: DNS, ports: [{{number: 80, name: {name}, protocol: \"{protocol}\"}}]"
        );
        let world = world(&entry("a", "se", 2020, "", &spec));
        let told = world.codes() == ["se-protocol ServiceEntry a/se"];
        assert_eq!(told, is_told, "{name} {protocol}: {:?}", world.codes());
    }
}
