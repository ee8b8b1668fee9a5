//! Claims about authorization. Source: spec/workload-discovery.md §8.

mod peers;
mod waypoints;

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

/// Waypoint `a/wp` with instances under account `wp`, service `a/web` bound to it and captured
/// pod `a/web` behind that.
fn behind() -> String {
    pod("a")
        + NAMESPACES
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {namespace: a, name: wp}\nspec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\nstatus: {addresses: [{type: IPAddress, value: 10.9.0.9}]}\n"
        + "---\napiVersion: v1\nkind: Pod\nmetadata: {namespace: a, name: wp-1, labels: {gateway.networking.k8s.io/gateway-name: wp}}\nspec: {serviceAccountName: wp, containers: []}\nstatus: {podIP: 10.0.0.9}\n"
        + "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: web, labels: {istio.io/use-waypoint: wp}}\nspec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}\n"
}

/// Name of the policy that all STRICT workloads list.
const STATIC: &str = "istio-system/istio_converted_static_strict";

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
