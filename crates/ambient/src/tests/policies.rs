//! Claims about authorization. Source: spec/workload-discovery.md §8.

use model::derived::{Features, L4Match, PolicyScope, StringCondition};
use model::input::AuthorizationPolicy;
use model::{AuthorizationRow, ObjectKey};
use prost::Message;
use proto::security as sec;

use super::world::{World, world, world_edited, world_with};
use crate::emit::authorization;

/// Ambient pod `ns/web` with label `app: web`.
fn pod(ns: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: {ns}, name: web, labels: {{app: web}}, annotations: {{ambient.istio.io/redirection: enabled}}}}\nspec: {{serviceAccountName: web, containers: []}}\nstatus: {{podIP: 10.0.0.1}}\n"
    )
}

fn policy(ns: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{namespace: {ns}, name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn peer(ns: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{namespace: {ns}, name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn listed(world: &World, pod: &str) -> Vec<String> {
    world
        .pod(pod)
        .policies
        .iter()
        .map(|name| name.to_string())
        .collect()
}

fn ports(ports: &[u16]) -> L4Match {
    L4Match {
        destination_ports: ports.to_vec(),
        ..L4Match::default()
    }
}

fn principals(text: &str) -> L4Match {
    let principals = vec![StringCondition::Exact(text.into())];
    L4Match {
        principals,
        ..L4Match::default()
    }
}

fn plaintext() -> L4Match {
    L4Match {
        not_principals: vec![StringCondition::Presence],
        ..L4Match::default()
    }
}

/// The namespaces that policies here name.
const NAMESPACES: &str = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n";

const SPIFFE: &str = "cluster.local/ns/b/sa/c";

#[test]
fn rules_become_groups_of_what_ztunnel_evaluates() {
    type Groups = Vec<Vec<Vec<L4Match>>>;
    let from = format!("from: [{{source: {{principals: [{SPIFFE}]}}}}]");
    let deny_noop = "authz-l7-ztunnel-deny-noop AuthorizationPolicy a/p";
    let deny_wide = "authz-l7-ztunnel-deny-wide AuthorizationPolicy a/p";
    let allow = "authz-l7-ztunnel-allow AuthorizationPolicy a/p";
    let trust = "authz-trustdomains-ztunnel AuthorizationPolicy a/p";
    let to = |operation: &str| format!("to: [{{operation: {{{operation}}}}}]");
    // Spec, groups, codes.
    let cases: Vec<(String, Groups, Vec<&str>)> = vec![
        (String::new(), vec![], vec![]),
        ("rules: [{}]".into(), vec![vec![]], vec![]),
        (format!("rules: [{{{}}}]", to("methods: [GET]")), vec![], vec![allow]),
        (
            format!("rules: [{{{}, {from}}}, {{{from}}}]", to("methods: [GET], ports: [\"80\"]")),
            vec![vec![vec![principals(SPIFFE)]]],
            vec![allow],
        ),
        (
            format!("rules: [{{{from}, {}}}]", to("ports: [\"80\", \"81\"]")),
            vec![vec![vec![ports(&[80, 81])], vec![principals(SPIFFE)]]],
            vec![],
        ),
        (
            "rules: [{from: [{source: {trustDomains: [td], namespaces: [b]}}]}]".into(),
            vec![],
            vec![trust],
        ),
        (
            format!("action: DENY, rules: [{{{}}}]", to("ports: [\"80\"], methods: [GET]")),
            vec![vec![vec![ports(&[80])]]],
            vec![deny_wide],
        ),
        (
            format!("action: DENY, rules: [{{{}}}]", to("methods: [GET]")),
            vec![vec![vec![L4Match::default()]]],
            vec![deny_noop],
        ),
        (
            format!("action: DENY, rules: [{{{from}, {}}}]", to("paths: [/x]")),
            vec![vec![vec![L4Match::default()], vec![principals(SPIFFE)]]],
            vec![deny_noop],
        ),
        (
            "action: DENY, rules: [{to: [{operation: {ports: [\"80\"]}}, {operation: {methods: [GET]}}]}]".into(),
            vec![vec![vec![ports(&[80]), L4Match::default()]]],
            vec![deny_noop],
        ),
        (
            "action: DENY, rules: [{when: [{key: \"request.headers[x]\", values: [v]}]}]".into(),
            vec![vec![vec![L4Match::default()]]],
            vec![deny_noop],
        ),
        (
            "action: DENY, rules: [{from: [{source: {trustDomains: [td], namespaces: [b]}}]}]".into(),
            vec![vec![vec![L4Match {
                namespaces: vec![StringCondition::Exact("b".into())],
                ..L4Match::default()
            }]]],
            vec![trust],
        ),
        (
            "action: DENY, rules: [{from: [{source: {notPrincipals: [\"*\"]}}]}]".into(),
            vec![vec![vec![plaintext()]]],
            vec![],
        ),
    ];
    for (spec, groups, codes) in cases {
        let world = world(&(policy("a", "p", &spec) + &pod("a") + NAMESPACES));
        let expected = AuthorizationRow {
            key: ObjectKey::new("a", "p"),
            scope: PolicyScope::Namespace,
            deny: spec.contains("DENY"),
            dry_run: false,
            groups,
        };
        assert_eq!(world.authorizations["a/p"], expected, "{spec}");
        assert_eq!(world.codes(), codes, "{spec}");
    }
}

#[test]
fn every_l4_field_is_converted() {
    let source = "principals: [cluster.local/ns/b/sa/c, \"*\", \"*/sa/c\", \"cluster.local/*\"], notNamespaces: [x], ipBlocks: [10.0.0.1, 10.1.2.3/16], notIpBlocks: [\"fd00::/8\"]";
    // Accounts cannot be combined with principals or namespaces.
    let accounts = "serviceAccounts: [b/c, d], notServiceAccounts: [e]";
    let when = "{key: destination.ip, values: [10.0.0.9]}, {key: destination.port, notValues: [\"80\"]}, {key: source.principal, values: [cluster.local/ns/b/sa/c]}, {key: source.namespace, notValues: [x]}, {key: source.ip, values: [10.0.0.1]}";
    let spec = format!(
        "rules: [{{from: [{{source: {{{source}}}}}, {{source: {{{accounts}}}}}], when: [{when}]}}]"
    );
    let world = world(&(policy("a", "p", &spec) + NAMESPACES));
    let exact = |text: &str| StringCondition::Exact(text.into());
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let from = L4Match {
        principals: vec![
            exact(SPIFFE),
            StringCondition::Presence,
            StringCondition::Suffix("/sa/c".into()),
            StringCondition::Prefix("cluster.local/".into()),
        ],
        not_namespaces: vec![exact("x")],
        source_ips: vec![(ip("10.0.0.1"), 32), (ip("10.1.2.3"), 16)],
        not_source_ips: vec![(ip("fd00::"), 8)],
        ..L4Match::default()
    };
    let from_accounts = L4Match {
        service_accounts: vec![("b".into(), "c".into()), ("a".into(), "d".into())],
        not_service_accounts: vec![("a".into(), "e".into())],
        ..L4Match::default()
    };
    let expected = vec![
        vec![from, from_accounts],
        vec![L4Match {
            destination_ips: vec![(ip("10.0.0.9"), 32)],
            ..L4Match::default()
        }],
        vec![L4Match {
            not_destination_ports: vec![80],
            ..L4Match::default()
        }],
        vec![principals(SPIFFE)],
        vec![L4Match {
            not_namespaces: vec![exact("x")],
            ..L4Match::default()
        }],
        vec![L4Match {
            source_ips: vec![(ip("10.0.0.1"), 32)],
            ..L4Match::default()
        }],
    ];
    assert_eq!(world.authorizations["a/p"].groups, [expected]);
    assert_eq!(world.codes(), Vec::<String>::new());
}

#[test]
fn a_value_that_is_no_port_or_address_never_widens_a_policy() {
    type Groups = Vec<Vec<Vec<L4Match>>>;
    // Parsing lets no such value through, so they take the place of good ones here.
    let spoil = |policy: &mut AuthorizationPolicy| {
        let rules = policy.rules.iter_mut();
        let lists = rules.flat_map(|rule| {
            let to = rule.to.iter_mut().map(|to| &mut to.ports);
            let from = rule.from.iter_mut().map(|from| &mut from.ip_blocks);
            to.chain(from)
        });
        for value in lists.flat_map(|list| list.values.iter_mut().chain(&mut list.not_values)) {
            match value.as_str() {
                "9" => *value = "99999".into(),
                "9.9.9.9" => *value = "10.0.0.0/33".into(),
                _ => {}
            }
        }
    };
    let from = |source: &str| format!("rules: [{{from: [{{source: {{{source}}}}}]}}]");
    let never = || -> Groups { vec![vec![vec![L4Match::default()]]] };
    let named = || -> Groups { vec![vec![vec![principals(SPIFFE)]]] };
    let to = |operation: &str| format!("rules: [{{to: [{{operation: {{{operation}}}}}]}}]");
    // Spec, groups of ALLOW, groups of DENY.
    let cases: Vec<(String, Groups, Groups)> = vec![
        (to("ports: [\"9\"]"), never(), never()),
        (
            to("ports: [\"80\", \"9\"]"),
            vec![vec![vec![ports(&[80])]]],
            vec![vec![vec![ports(&[80])]]],
        ),
        (
            from(&format!("ipBlocks: [9.9.9.9], principals: [{SPIFFE}]")),
            never(),
            named(),
        ),
        (
            from(&format!("notIpBlocks: [9.9.9.9], principals: [{SPIFFE}]")),
            never(),
            named(),
        ),
        (from("notIpBlocks: [9.9.9.9]"), never(), vec![vec![vec![]]]),
    ];
    for (spec, allowed, denied) in cases {
        for (action, groups) in [("ALLOW", allowed), ("DENY", denied)] {
            let yaml = policy("a", "p", &format!("action: {action}, {spec}")) + NAMESPACES;
            let world = world_edited(&yaml, spoil);
            assert_eq!(
                world.authorizations["a/p"].groups, groups,
                "{action} {spec}"
            );
            assert_eq!(
                world.codes(),
                ["authz-value-invalid AuthorizationPolicy a/p"],
                "{action} {spec}"
            );
        }
    }
}

#[test]
fn emptiness_survives_encoding() {
    let world = world(&(policy("a", "all", "rules: [{}]") + &policy("a", "none", "")));
    let decoded = |name: &str| {
        let bytes = authorization(&world.authorizations[name]).encode_to_vec();
        sec::Authorization::decode(bytes.as_slice()).unwrap()
    };
    assert_eq!(decoded("a/all").groups, [sec::Group { rules: vec![] }]);
    assert_eq!(decoded("a/none").groups, []);
    assert_eq!(decoded("a/none").scope, i32::from(sec::Scope::Namespace));
}

#[test]
fn findings_on_what_ztunnel_ignores_need_a_pod_that_it_serves() {
    let l7 = "rules: [{to: [{operation: {methods: [GET]}}]}]";
    let selecting = format!("selector: {{matchLabels: {{app: other}}}}, {l7}");
    // Namespace and spec of the policy, namespace of the pod, told.
    let cases = [
        ("a", l7, "a", true),
        ("a", l7, "b", false),
        ("a", selecting.as_str(), "a", false),
        ("istio-system", l7, "b", true),
    ];
    for (ns, spec, pod_ns, told) in cases {
        let world = world(&(policy(ns, "p", spec) + &pod(pod_ns)));
        assert_eq!(!world.codes().is_empty(), told, "{ns} {spec} {pod_ns}");
    }
}

#[test]
fn what_ztunnel_does_not_take_is_not_sent_and_is_told() {
    let dry_run = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {namespace: a, name: p, annotations: {istio.io/dry-run: \"true\"}}\nspec: {selector: {matchLabels: {app: web}}}\n".to_owned();
    let selector = "selector: {matchLabels: {app: web}}, rules: [{}]";
    let cases = [
        (
            policy(
                "a",
                "p",
                &format!("action: CUSTOM, provider: {{name: x}}, {selector}"),
            ),
            "authz-action-ztunnel",
        ),
        (
            policy("a", "p", &format!("action: AUDIT, {selector}")),
            "authz-action-ztunnel",
        ),
        (dry_run, "authz-dryrun-ztunnel"),
    ];
    for (yaml, code) in cases {
        let world = world(&(yaml.clone() + &pod("a")));
        assert!(world.authorizations.is_empty(), "{yaml}");
        assert_eq!(listed(&world, "a/web"), Vec::<String>::new(), "{yaml}");
        assert_eq!(
            world.codes(),
            [format!("{code} AuthorizationPolicy a/p")],
            "{yaml}"
        );
    }
    let targeted = policy(
        "a",
        "p",
        "targetRefs: [{group: \"\", kind: Service, name: web}], rules: [{to: [{operation: {methods: [GET]}}]}]",
    );
    let world = world(&(targeted + &pod("a")));
    assert!(world.authorizations.is_empty());
    assert_eq!(world.codes(), Vec::<String>::new());
}

#[test]
fn scope_and_selector_decide_who_lists_a_policy() {
    let selector = "selector: {matchLabels: {app: web}}";
    let yaml = policy("a", "one", selector)
        + &policy("a", "other", "selector: {matchLabels: {app: web, tier: x}}")
        + &policy("b", "foreign", selector)
        + &policy("istio-system", "everywhere", selector)
        + &policy("istio-system", "global", "")
        + &policy("a", "namespaced", "")
        + &policy("a", "any", "selector: {}")
        + &pod("a");
    let world = world(&yaml);
    assert_eq!(
        listed(&world, "a/web"),
        ["a/any", "a/one", "istio-system/everywhere"]
    );
    let scope = |name: &str| world.authorizations[name].scope;
    assert_eq!(scope("istio-system/everywhere"), PolicyScope::Selector);
    assert_eq!(scope("a/any"), PolicyScope::Selector);
    assert_eq!(scope("istio-system/global"), PolicyScope::Global);
    assert_eq!(scope("a/namespaced"), PolicyScope::Namespace);
}

#[test]
fn an_unreadable_policy_denies_in_its_namespace_and_says_so() {
    for ns in ["a", "istio-system"] {
        let world = world(&policy(
            ns,
            "p",
            "action: NONSENSE, selector: {matchLabels: {app: web}}",
        ));
        let expected = AuthorizationRow {
            key: ObjectKey::new(ns, "p"),
            scope: PolicyScope::Namespace,
            deny: false,
            dry_run: false,
            groups: vec![],
        };
        assert_eq!(world.authorizations[&format!("{ns}/p")], expected);
        assert_eq!(
            world.codes(),
            [format!("authz-invalid-denies AuthorizationPolicy {ns}/p")]
        );
        let found = &world.findings[0];
        assert_eq!(found.field, "spec.action");
        assert!(found.message.contains("NONSENSE"), "{}", found.message);
        let tells = found.message.contains("in other namespaces");
        assert_eq!(tells, ns == "istio-system", "{}", found.message);
    }
}

#[test]
fn principals_that_never_match_are_told_wherever_they_are_enforced() {
    // Principal, code.
    let cases = [
        (SPIFFE, None),
        ("*", None),
        ("*/ns/b/sa/c", None),
        (
            "spiffe://cluster.local/ns/b/sa/c",
            Some("authz-principal-scheme"),
        ),
        ("b/c", Some("authz-principal-shape")),
        ("cluster.local/ns//sa/c", Some("authz-principal-shape")),
        (
            "cluster.local/ns/*/sa/c",
            Some("authz-principal-wildcard-middle"),
        ),
        ("*x*", Some("authz-principal-wildcard-middle")),
        ("td/ns/b/sa/c", Some("authz-unknown-trust-domain")),
    ];
    for (text, code) in cases {
        for target in [
            "",
            "targetRefs: [{group: \"\", kind: Service, name: web}], ",
        ] {
            let spec =
                format!("{target}rules: [{{from: [{{source: {{principals: [\"{text}\"]}}}}]}}]");
            let world = world(&(policy("a", "p", &spec) + NAMESPACES));
            let found: Vec<_> = world.findings.iter().map(|note| note.code).collect();
            assert_eq!(found, Vec::from_iter(code), "{text} {target}");
        }
    }
}

/// Name of the policy that all STRICT workloads list.
const STATIC: &str = "istio-system/istio_converted_static_strict";
/// Name of what is converted from PeerAuthentication `a/w`.
const CONVERTED: &str = "a/converted_peer_authentication_w";

#[test]
fn modes_are_resolved_before_they_are_converted() {
    type Groups = Vec<Vec<Vec<L4Match>>>;
    let own = |mode: &str, ports: &str| {
        let ports = match ports {
            "" => String::new(),
            ports => format!(", portLevelMtls: {{{ports}}}"),
        };
        let spec =
            format!("selector: {{matchLabels: {{app: web}}}}, mtls: {{mode: {mode}}}{ports}");
        peer("a", "w", &spec)
    };
    let mesh = |mode: &str| peer("istio-system", "m", &format!("mtls: {{mode: {mode}}}"));
    let ns = |mode: &str| peer("a", "ns", &format!("mtls: {{mode: {mode}}}"));
    let except = |port: u16| -> Groups {
        let exempt = L4Match {
            not_destination_ports: vec![port],
            ..L4Match::default()
        };
        vec![vec![vec![plaintext()], vec![exempt]]]
    };
    let strict_port = |port: u16| L4Match {
        destination_ports: vec![port],
        ..plaintext()
    };
    let only = |port: u16| -> Groups { vec![vec![vec![strict_port(port)]]] };
    // Objects; references of the pod; content of the converted policy, if any.
    let cases: Vec<(String, Option<&str>, Option<Groups>)> = vec![
        (mesh("STRICT"), Some(STATIC), None),
        (mesh("PERMISSIVE"), None, None),
        (mesh("STRICT") + &ns("PERMISSIVE"), None, None),
        (mesh("STRICT") + &ns("UNSET"), Some(STATIC), None),
        (ns("STRICT"), Some(STATIC), None),
        (ns("STRICT") + &own("DISABLE", ""), None, None),
        (
            own("STRICT", "8080: {mode: PERMISSIVE}"),
            Some(CONVERTED),
            Some(except(8080)),
        ),
        (own("STRICT", "8080: {mode: STRICT}"), Some(STATIC), None),
        (
            own("PERMISSIVE", "9090: {mode: STRICT}"),
            Some(CONVERTED),
            Some(only(9090)),
        ),
        (
            own("UNSET", "9090: {mode: STRICT}"),
            Some(CONVERTED),
            Some(only(9090)),
        ),
        (
            own(
                "DISABLE",
                "9090: {mode: STRICT}, 9091: {mode: STRICT}, 9092: {mode: DISABLE}",
            ),
            Some(CONVERTED),
            Some(vec![
                vec![vec![strict_port(9090)]],
                vec![vec![strict_port(9091)]],
            ]),
        ),
        (
            mesh("STRICT") + &own("UNSET", "8080: {mode: DISABLE}"),
            Some(CONVERTED),
            Some(except(8080)),
        ),
        (
            mesh("STRICT") + &ns("UNSET") + &own("UNSET", "8080: {mode: PERMISSIVE}"),
            Some(CONVERTED),
            Some(except(8080)),
        ),
        (
            mesh("STRICT") + &own("PERMISSIVE", "9090: {mode: STRICT}"),
            Some(CONVERTED),
            Some(only(9090)),
        ),
    ];
    for (yaml, reference, converted) in cases {
        let world = world(&(yaml.clone() + &pod("a")));
        assert_eq!(listed(&world, "a/web"), Vec::from_iter(reference), "{yaml}");
        let row = world.authorizations.get(CONVERTED);
        assert_eq!(row.map(|row| row.groups.clone()), converted, "{yaml}");
        assert!(row.is_none_or(|row| row.deny && row.scope == PolicyScope::Selector));
        assert_eq!(
            world.authorizations[STATIC].groups,
            [vec![vec![plaintext()]]],
            "{yaml}"
        );
        // Whatever a workload lists exists: ztunnel skips names that it does not know.
        for name in listed(&world, "a/web") {
            assert!(world.authorizations.contains_key(&name), "{name} {yaml}");
        }
    }
}

#[test]
fn without_peer_authentication_there_is_no_static_policy() {
    let world = world(&pod("a"));
    assert!(world.authorizations.is_empty());
    assert_eq!(listed(&world, "a/web"), Vec::<String>::new());
}

#[test]
fn the_oldest_peer_authentication_of_a_level_wins() {
    let at = |name: &str, time: &str, mode: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{namespace: a, name: {name}, creationTimestamp: \"{time}\"}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        )
    };
    let yaml = at("a-young", "2021-01-01T00:00:00Z", "PERMISSIVE")
        + &at("old", "2020-01-01T00:00:00Z", "STRICT")
        + &pod("a");
    assert_eq!(listed(&world(&yaml), "a/web"), [STATIC]);
}

#[test]
fn what_peer_authentication_cannot_do_is_told() {
    let selector = "selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}";
    let ignored = world(&(peer("istio-system", "p", selector) + &pod("istio-system")));
    assert_eq!(listed(&ignored, "istio-system/web"), Vec::<String>::new());
    assert_eq!(
        ignored.codes(),
        ["pa-root-selector PeerAuthentication istio-system/p"]
    );
    let disabled = world(&(peer("a", "p", "mtls: {mode: DISABLE}") + &pod("a")));
    assert_eq!(
        disabled.codes(),
        ["pa-disable-ambient PeerAuthentication a/p"]
    );
    let unreadable = world(&(peer("a", "p", "mtls: {mode: NONSENSE}") + &pod("a") + &pod("b")));
    assert_eq!(listed(&unreadable, "a/web"), [STATIC]);
    assert_eq!(listed(&unreadable, "b/web"), Vec::<String>::new());
    assert_eq!(
        unreadable.codes(),
        ["pa-invalid-strict PeerAuthentication a/p"]
    );
    let found = &unreadable.findings[0];
    assert!(
        found.message.contains("namespace a is"),
        "{}",
        found.message
    );
    assert_eq!(found.field, "spec.mtls.mode");
    assert!(found.message.contains("NONSENSE"), "{}", found.message);
}

#[test]
fn an_unreadable_peer_authentication_of_the_mesh_opens_nothing() {
    let yaml = peer("istio-system", "p", "mtls: {mode: STRCIT}")
        + &peer("istio-system", "q", "mtls: {mode: PERMISSIVE}")
        + &peer("b", "p", "mtls: {mode: PERMISSIVE}")
        + &pod("a")
        + &pod("b")
        + &pod("istio-system");
    let world = world(&yaml);
    assert_eq!(listed(&world, "a/web"), [STATIC]);
    assert_eq!(listed(&world, "istio-system/web"), [STATIC]);
    assert_eq!(listed(&world, "b/web"), Vec::<String>::new());
    let found = &world.findings[0];
    assert_eq!(found.code, "pa-invalid-strict");
    assert!(found.message.contains("the mesh, "), "{}", found.message);
}

#[test]
fn a_dry_run_is_sent_only_where_the_installation_wants_it() {
    let yaml = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {namespace: a, name: p, annotations: {istio.io/dry-run: \"true\"}}\nspec: {action: DENY, selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {methods: [GET]}}]}]}\n".to_owned() + &pod("a");
    let features = Features {
        dry_run_policies: true,
        ..Features::default()
    };
    let world = world_with(&yaml, features);
    let expected = AuthorizationRow {
        key: ObjectKey::new("a", "p"),
        scope: PolicyScope::Selector,
        deny: true,
        dry_run: true,
        groups: vec![vec![vec![L4Match::default()]]],
    };
    assert_eq!(world.authorizations["a/p"], expected);
    assert!(authorization(&expected).dry_run);
    assert_eq!(listed(&world, "a/web"), ["a/p"]);
    let found = &world.findings[0];
    assert_eq!(
        (found.code, found.severity),
        ("authz-l7-ztunnel-deny-noop", model::Severity::Info)
    );
}

/// Waypoint `a/wp` with instances under account `wp`, service `a/web` bound to it and captured
/// pod `a/web` behind that.
fn behind() -> String {
    pod("a")
        + NAMESPACES
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {namespace: a, name: wp}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\nstatus: {addresses: [{type: IPAddress, value: 10.9.0.9}]}\n"
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {namespace: a, name: wp-1, labels: {gateway.networking.k8s.io/gateway-name: wp}}\nspec: {serviceAccountName: wp, containers: []}\nstatus: {podIP: 10.0.0.9}\n"
        + "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: web, labels: {istio.io/use-waypoint: wp}}\nspec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}\n"
}

#[test]
fn a_waypoint_is_allowed_at_what_is_bound_to_it_where_the_installation_wants_it() {
    const NAME: &str = "a/istio_allow_waypoint_a_wp";
    let features = Features {
        allow_waypoint_policies: true,
        ..Features::default()
    };
    let yaml = behind()
        + &policy("a", "own", "selector: {matchLabels: {app: web}}")
        + &peer("a", "ns", "mtls: {mode: STRICT}");
    let allowed = world_with(&yaml, features);
    let expected = AuthorizationRow {
        key: ObjectKey::new("a", "istio_allow_waypoint_a_wp"),
        scope: PolicyScope::Selector,
        deny: false,
        dry_run: false,
        groups: vec![vec![vec![principals("cluster.local/ns/a/sa/wp")]]],
    };
    assert_eq!(allowed.authorizations[NAME], expected);
    // After the policies of users and those of PeerAuthentication; not on the waypoint itself.
    assert_eq!(listed(&allowed, "a/web"), ["a/own", STATIC, NAME]);
    assert_eq!(listed(&allowed, "a/wp-1"), [STATIC]);
    assert_eq!(allowed.codes(), Vec::<String>::new());
    // Without instances its accounts are not known.
    let without = yaml.replace("gateway-name: wp", "gateway-name: other");
    let without = world_with(&without, features);
    assert!(!without.authorizations.contains_key(NAME));
    assert_eq!(listed(&without, "a/web"), ["a/own", STATIC]);
    let off = world(&yaml);
    assert!(!off.authorizations.contains_key(NAME));
    assert_eq!(listed(&off, "a/web"), ["a/own", STATIC]);
}

#[test]
fn policies_that_shut_out_or_do_not_see_past_a_waypoint_are_told() {
    let from = |source: &str| format!("rules: [{{from: [{{source: {{{source}}}}}]}}]");
    let waypoint = from("principals: [cluster.local/ns/a/sa/wp]");
    // Spec, another policy, code.
    let cases = [
        (String::new(), String::new(), "authz-deny-all-waypoint"),
        (
            from("namespaces: [b]"),
            String::new(),
            "authz-l4-source-at-waypoint authz-waypoint-not-allowed",
        ),
        (
            "rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]".into(),
            String::new(),
            "",
        ),
        (from("namespaces: [b]"), waypoint.clone(), ""),
        (String::new(), waypoint.clone(), ""),
        (waypoint.clone(), String::new(), ""),
        (from("namespaces: [a]"), String::new(), ""),
        (from("serviceAccounts: [wp]"), String::new(), ""),
        ("rules: [{}]".into(), String::new(), ""),
        (
            "rules: [{to: [{operation: {ports: [\"8080\"]}}]}]".into(),
            String::new(),
            "",
        ),
        (
            format!("action: DENY, {}", from("namespaces: [b]")),
            String::new(),
            "authz-l4-source-at-waypoint",
        ),
        (
            format!("action: DENY, {}", from("notNamespaces: [b]")),
            String::new(),
            "",
        ),
        (format!("action: DENY, {waypoint}"), String::new(), ""),
        (
            format!(
                "selector: {{matchLabels: {{app: other}}}}, {}",
                from("namespaces: [b]")
            ),
            String::new(),
            "",
        ),
    ];
    for (spec, other, code) in cases {
        for ns in ["a", "istio-system"] {
            let more = if other.is_empty() {
                String::new()
            } else {
                policy("a", "other", &other)
            };
            // A bare account is one of the policy's own namespace.
            let spec = spec.replace("[wp]", "[a/wp]");
            let world = world(&(behind() + &policy(ns, "p", &spec) + &more));
            let codes = code.split_whitespace();
            let expected: Vec<_> = codes
                .map(|code| format!("{code} AuthorizationPolicy {ns}/p"))
                .collect();
            assert_eq!(world.codes(), expected, "{ns} {spec} | {other}");
        }
    }
}

#[test]
fn peers_that_do_not_exist_are_told() {
    let from = |source: &str| format!("rules: [{{from: [{{source: {{{source}}}}}]}}]");
    // Source, field of the finding.
    let cases = [
        ("principals: [cluster.local/ns/a/sa/web]", None),
        (
            "principals: [cluster.local/ns/a/sa/wbe]",
            Some("principals[0]"),
        ),
        (
            "principals: [cluster.local/ns/gone/sa/web]",
            Some("principals[0]"),
        ),
        (
            "notPrincipals: [cluster.local/ns/a/sa/wbe]",
            Some("notPrincipals[0]"),
        ),
        ("serviceAccounts: [web]", None),
        ("serviceAccounts: [web, a/wbe]", Some("serviceAccounts[1]")),
        ("namespaces: [b, gone]", Some("namespaces[1]")),
        ("namespaces: [go*]", None),
        // Nothing is known of what runs in b.
        ("serviceAccounts: [b/any]", None),
        ("principals: [\"*/ns/a/sa/wbe\"]", None),
    ];
    for (source, field) in cases {
        for target in [
            "",
            "targetRefs: [{group: \"\", kind: Service, name: web}], ",
        ] {
            let spec = format!("{target}{}", from(source));
            let world = world(&(policy("a", "p", &spec) + &pod("a") + NAMESPACES));
            let found: Vec<_> = world
                .findings
                .iter()
                .map(|f| (f.code, f.field.as_str()))
                .collect();
            let field = field.map(|field| format!("spec.rules[0].from[0].source.{field}"));
            let expected = field
                .iter()
                .map(|field| ("authz-unknown-identity", field.as_str()));
            assert_eq!(found, expected.collect::<Vec<_>>(), "{source} {target}");
        }
    }
}

#[test]
fn the_account_that_may_be_meant_is_named() {
    let rules = |account: &str| {
        format!("rules: [{{from: [{{source: {{serviceAccounts: [a/{account}]}}}}]}}]")
    };
    // What stands there; the account that exists is web.
    for (account, is_like) in [
        ("chart-web", true),
        ("web-server", true),
        ("web2", false),
        ("other", false),
    ] {
        let world = world(&(policy("a", "p", &rules(account)) + &pod("a") + NAMESPACES));
        assert_eq!(
            world.codes(),
            ["authz-unknown-identity AuthorizationPolicy a/p"]
        );
        let fix = &world.findings[0].fix;
        assert_eq!(fix.starts_with("Write web,"), is_like, "{account}: {fix}");
    }
}

#[test]
fn ztunnel_knows_no_aliases_of_trust_domains() {
    let config = "---\nkind: MeshConfig\ntrustDomain: td\ntrustDomainAliases: [old]\n";
    let spec =
        |td: &str| format!("rules: [{{from: [{{source: {{principals: [{td}/ns/a/sa/web]}}}}]}}]");
    let alias = "authz-td-alias-ztunnel AuthorizationPolicy a/p";
    let unknown = "authz-unknown-trust-domain AuthorizationPolicy a/p";
    for (td, code) in [
        ("td", Some(alias)),
        ("old", Some(alias)),
        ("foreign", Some(unknown)),
    ] {
        let world = world(&(policy("a", "p", &spec(td)) + config + &pod("a") + NAMESPACES));
        assert_eq!(world.codes(), Vec::from_iter(code), "{td}");
    }
}

#[test]
fn entries_that_are_served_count_as_much_as_pods() {
    let entry = |tunnel: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{namespace: a, name: vm, labels: {{app: vm, networking.istio.io/tunnel: {tunnel}}}}}\nspec: {{address: 10.0.0.7, serviceAccount: vm}}\n"
        )
    };
    let l7 = "selector: {matchLabels: {app: vm}}, rules: [{to: [{operation: {methods: [GET]}}]}]";
    for ns in ["a", "istio-system"] {
        for (tunnel, told) in [("http", true), ("none", false)] {
            let world = world(&(policy(ns, "p", l7) + &entry(tunnel)));
            assert_eq!(!world.codes().is_empty(), told, "{ns} {tunnel}");
        }
    }
}

#[test]
fn the_younger_of_two_peer_authentications_of_one_scope_is_told() {
    let selector = "selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}";
    // Specs of a and b, told.
    let cases = [
        ("mtls: {mode: STRICT}", "mtls: {mode: PERMISSIVE}", true),
        (selector, selector, true),
        ("mtls: {mode: STRICT}", selector, false),
    ];
    for (first, second, told) in cases {
        let world = world(&(peer("a", "one", first) + &peer("a", "two", second)));
        let expected = told.then(|| "pa-duplicate-scope PeerAuthentication a/two".to_owned());
        assert_eq!(world.codes(), Vec::from_iter(expected), "{first} {second}");
    }
}

#[test]
fn ports_of_services_in_peer_authentication_are_told() {
    let ports = |port: u16| {
        peer(
            "a",
            "p",
            &format!(
                "selector: {{matchLabels: {{app: web}}}}, mtls: {{mode: STRICT}}, portLevelMtls: {{{port}: {{mode: PERMISSIVE}}}}"
            ),
        )
    };
    let told = "pa-port-is-service-port PeerAuthentication a/p";
    // 80 is the service's port, 8080 that of the pods, 9999 nobody's.
    for (port, code) in [(80, Some(told)), (8080, None), (9999, None)] {
        let found = world(&(behind() + &ports(port)));
        assert_eq!(found.codes(), Vec::from_iter(code), "{port}");
        let named = behind().replace("targetPort: 8080", "targetPort: main");
        let unsure = world(&(named + &ports(port)));
        assert_eq!(unsure.codes(), Vec::<String>::new(), "{port}");
    }
}

#[test]
fn what_other_control_planes_enforce_differently_is_told_as_advice() {
    let mesh = peer("istio-system", "m", "mtls: {mode: STRICT}");
    let own = |mode: &str| {
        peer(
            "a",
            "w",
            &format!(
                "selector: {{matchLabels: {{app: web}}}}, portLevelMtls: {{8080: {{mode: {mode}}}}}"
            ),
        )
    };
    let unset = peer("a", "ns", "mtls: {mode: UNSET}");
    let cases = [
        (
            own("DISABLE"),
            Some("pa-port-disable-inherited PeerAuthentication a/w"),
        ),
        (own("PERMISSIVE"), None),
        (
            own("PERMISSIVE") + &unset,
            Some("pa-unset-namespace-hides-mesh PeerAuthentication a/w"),
        ),
    ];
    for (yaml, code) in cases {
        let world = world(&(mesh.clone() + &yaml + &pod("a")));
        assert_eq!(world.codes(), Vec::from_iter(code), "{yaml}");
    }
}

#[test]
fn the_canary_is_allowed_beside_the_primary() {
    let canary = behind().replace(
        "labels: {istio.io/use-waypoint: wp}",
        "labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-canary: wq}, annotations: {istio.io/use-waypoint-canary-weight: \"10\"}",
    ) + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {namespace: a, name: wq}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\nstatus: {addresses: [{type: IPAddress, value: 10.9.0.8}]}\n"
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {namespace: a, name: wq-1, labels: {gateway.networking.k8s.io/gateway-name: wq}}\nspec: {serviceAccountName: wq, containers: []}\nstatus: {podIP: 10.0.0.8}\n";
    let features = Features {
        allow_waypoint_policies: true,
        ..Features::default()
    };
    let allowed = world_with(&canary, features);
    assert_eq!(
        listed(&allowed, "a/web"),
        ["a/istio_allow_waypoint_a_wp", "a/istio_allow_waypoint_a_wq"]
    );
}
