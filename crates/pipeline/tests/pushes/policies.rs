//! Policies and mesh config.

use super::*;

#[test]
fn a_policy_pushes_itself_and_who_lists_it() {
    let policy = |spec: &str| istio("AuthorizationPolicy", "a/z", "", spec);
    let selects = |app: &str, port: u16| {
        policy(&format!(
            "selector: {{matchLabels: {{app: {app}}}}}, rules: [{{to: [{{operation: {{ports: [\"{port}\"]}}}}]}}]"
        ))
    };
    plain(
        &(small() + &pod("a/yy", "10.0.0.3", "app: yy")),
        &[
            (&policy("rules: [{}]"), "policies: a/z"),
            (&policy("action: DENY, rules: [{}]"), "policies: a/z"),
            (&selects("x", 80), "sent: pod/a/p; policies: a/z"),
            (&selects("x", 81), "policies: a/z"),
            (&selects("yy", 81), "sent: pod/a/p, pod/a/yy"),
            (
                &policy("action: AUDIT, selector: {matchLabels: {app: yy}}"),
                "sent: pod/a/yy; no policies: a/z",
            ),
            (&selects("yy", 81), "sent: pod/a/yy; policies: a/z"),
            (
                "- AuthorizationPolicy a/z\n",
                "sent: pod/a/yy; no policies: a/z",
            ),
        ],
    );
}

#[test]
fn peer_authentication_pushes_whose_references_change() {
    let peer = |key: &str, spec: &str| istio("PeerAuthentication", key, "", spec);
    let fixed = "istio-system/istio_converted_static_strict";
    let on = |mode: &str| format!("mtls: {{mode: {mode}}}");
    // A workload without a mode of its own, whose port follows its namespace.
    let ported = "selector: {matchLabels: {app: x}}, portLevelMtls: {8080: {mode: PERMISSIVE}}";
    let own = "a/converted_peer_authentication_x";
    let steps = [
        (
            peer("a/ns", &on("PERMISSIVE")),
            format!("policies: {fixed}"),
        ),
        (
            peer("a/ns", &on("STRICT")),
            "sent: pod/a/p, pod/a/q".to_owned(),
        ),
        (
            peer("a/x", ported),
            format!("sent: pod/a/p; policies: {own}"),
        ),
        // Nothing is left to except, and so nothing to refer to.
        (
            peer("a/ns", &on("DISABLE")),
            format!("sent: pod/a/p, pod/a/q; no policies: {own}"),
        ),
        (
            peer("istio-system/mesh", &on("STRICT")),
            "sent: pod/b/p".to_owned(),
        ),
        (
            "- PeerAuthentication a/ns\n".to_owned(),
            format!("sent: pod/a/p, pod/a/q; policies: {own}"),
        ),
        (
            "- PeerAuthentication a/x\n".to_owned(),
            format!("sent: pod/a/p; no policies: {own}"),
        ),
        (
            "- PeerAuthentication istio-system/mesh\n".to_owned(),
            format!("sent: pod/a/p, pod/a/q, pod/b/p; no policies: {fixed}"),
        ),
    ];
    let steps: Vec<(&str, &str)> = steps
        .iter()
        .map(|(e, x)| (e.as_str(), x.as_str()))
        .collect();
    plain(&(small() + &pod("b/p", "10.0.0.3", "")), &steps);
}

#[test]
fn mesh_config_pushes_what_depends_on_it() {
    let config = |text: &str| format!("---\nkind: MeshConfig\n{text}\n");
    let entry = istio(
        "ServiceEntry",
        "b/e",
        "",
        "hosts: [h.example], ports: [{number: 80, name: p, protocol: TCP}], resolution: STATIC, addresses: [10.7.0.1]",
    );
    let base = small()
        + &gateway("a/wp", "", "Same", ADDRESS)
        + &pod(
            "a/w1",
            "10.0.0.7",
            "gateway.networking.k8s.io/gateway-name: wp",
        )
        + &namespace("a", "team: red", "")
        + &namespace("b", "", "")
        + &istio("PeerAuthentication", "a/strict", "", "mtls: {mode: STRICT}")
        + &istio("AuthorizationPolicy", "b/here", "", "rules: [{}]")
        + &istio(
            "AuthorizationPolicy",
            "istio-system/mesh",
            "",
            "rules: [{}]",
        )
        + &entry;
    let pods = "pod/a/p, pod/a/q, pod/a/w1";
    let steps = [
        (
            // A policy of the old root is one of its namespace; the static one moves.
            config("rootNamespace: b"),
            format!(
                "sent: {pods}; policies: b/here, b/istio_converted_static_strict, istio-system/mesh; no policies: istio-system/istio_converted_static_strict"
            ),
        ),
        (
            config("rootNamespace: b\ntrustDomain: td1"),
            format!("sent: {pods}; policies: a/istio_allow_waypoint_a_wp"),
        ),
        (
            config(
                "rootNamespace: b\ntrustDomain: td1\nserviceEntryVisibility: {defaultVisibility: NAMESPACE}",
            ),
            "sent: b/h.example".to_owned(),
        ),
        (
            config(
                "rootNamespace: b\ntrustDomain: td1\nserviceEntryVisibility: {defaultVisibility: NONE}",
            ),
            "removed: b/h.example".to_owned(),
        ),
        (
            config("rootNamespace: b\ntrustDomain: td1"),
            "sent: b/h.example".to_owned(),
        ),
        (
            config(
                "rootNamespace: b\ntrustDomain: td1\ndiscoverySelectors: [{matchLabels: {team: red}}]",
            ),
            "removed: b/h.example; no policies: b/here".to_owned(),
        ),
        (
            namespace("a", "", ""),
            format!(
                "removed: a/s, {pods}; no policies: a/istio_allow_waypoint_a_wp, b/istio_converted_static_strict"
            ),
        ),
    ];
    let steps: Vec<(&str, &str)> = steps
        .iter()
        .map(|(e, x)| (e.as_str(), x.as_str()))
        .collect();
    check(with_waypoint_policies(), &base, &steps);
}
