//! Policies of what is behind a waypoint.

use super::*;

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
