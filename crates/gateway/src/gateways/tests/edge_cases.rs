//! Rows of spec/gateway-api.md §9 and marks `[Q]` of §3 that other tests do not show.

use super::*;

/// What the first listener says of its references.
fn unresolved(world: &World) -> String {
    let status = world.status(Kind::Gateway, "gw/web").unwrap();
    let listener = &status.listeners.as_ref().unwrap()[0];
    let mut conditions = listener.conditions.iter();
    let found = conditions.find(|one| one.ty == "ResolvedRefs").unwrap();
    format!("{} {}", found.reason, found.message)
}

#[test]
fn case_33_nobody_learns_whether_a_secret_that_he_may_not_have_exists() {
    let of = |name: &str| {
        let listener = format!("{HTTPS} {{certificateRefs: [{{name: {name}, namespace: certs}}]}}");
        let world = World::new(&join(&[&gateway("istio", &listener, ""), &certificates()]));
        let notes = format!("{:?}", world.gateways.notes().collect::<Vec<_>>());
        (
            unresolved(&world).replace(name, "it"),
            notes.replace(name, "it"),
        )
    };
    let (said, told) = of("far");
    assert!(said.starts_with("RefNotPermitted "), "{said}");
    assert_eq!((said, told), of("absent"));
}

#[test]
fn case_16_what_an_overlay_cannot_be_is_not_said_of_the_gateway() {
    let map = "
apiVersion: v1
kind: ConfigMap
metadata: {namespace: gw, name: overlay}
data: {daemonset: '{}'}
";
    let more = "  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: overlay}}";
    let yaml = gateway("istio", "name: l, port: 80, protocol: HTTP", more);
    let world = World::new(&join(&[&yaml, map]));
    assert_eq!(accepted(&world), "Accepted=True/Accepted");
}

#[test]
fn case_10_and_29_a_gateway_with_addresses_that_cannot_be_is_served() {
    for (addresses, annotation) in [
        (
            "{type: IPAddress, value: 1.2.3.4}, {type: Hostname, value: ingress}",
            "{}",
        ),
        (
            "{type: Hostname, value: ingress}",
            "{networking.istio.io/service-type: ClusterIP}",
        ),
    ] {
        let more = format!("  addresses: [{addresses}]");
        let yaml = gateway("istio", "name: l, port: 80, protocol: HTTP", &more);
        let yaml = yaml.replace("generation: 3", &format!("annotations: {annotation}"));
        let row = World::new(&yaml).row();
        assert!(!row.is_managed, "{addresses}");
        assert!(row.listeners[0].is_served, "{addresses}");
    }
}

/// A grant says the name of the object, for authorities as for certificates.
#[test]
fn a_grant_names_the_authorities_that_it_opens() {
    let (cert, _) = pem();
    let of = |granted: &str| {
        let map = format!(
            "
apiVersion: v1
kind: ConfigMap
metadata: {{namespace: certs, name: roots}}
data: {{ca.crt: {}}}
",
            literal(&cert)
        );
        let grant = format!(
            "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{namespace: certs, name: g}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: Gateway, namespace: gw}}]
  to: [{{group: '', kind: ConfigMap, name: {granted}}}]
"
        );
        let listener = format!("{HTTPS} {{certificateRefs: [{{name: good}}]}}");
        let more = "  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: roots, namespace: certs}]}}}}";
        let world = World::new(&join(&[
            &gateway("istio", &listener, more),
            &certificates(),
            &map,
            &grant,
        ]));
        unresolved(&world)
    };
    assert!(of("roots").starts_with("ResolvedRefs "), "{}", of("roots"));
    assert!(of("other").starts_with("RefNotPermitted "));
    assert!(of("roots-cacert").starts_with("RefNotPermitted "));
}

#[test]
fn the_condition_about_insecure_clients_goes_with_what_it_is_about() {
    let of = |more: &str| {
        let yaml = gateway("istio", "name: l, port: 80, protocol: HTTP", more);
        let all = World::new(&yaml).conditions(Kind::Gateway, "gw/web");
        all.iter().any(|one| one.starts_with("InsecureFrontend"))
    };
    let mode = |mode: &str| {
        format!(
            "  tls: {{frontend: {{default: {{validation: {{mode: {mode}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: x}}]}}}}}}}}"
        )
    };
    assert!(of(&mode("AllowInsecureFallback")));
    assert!(!of(&mode("AllowValidOnly")));
    assert!(!of(""));
}

/// Routes are counted for the Gateway or the ListenerSet that they name, though both have one
/// name in one namespace.
#[test]
fn a_listener_set_of_the_name_of_its_gateway_counts_its_own_routes() {
    let yaml = gateway(
        "istio",
        "name: l, port: 80, protocol: HTTP",
        "  allowedListeners: {namespaces: {from: Same}}",
    );
    let set = "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {namespace: gw, name: web}
spec: {parentRef: {name: web}, listeners: [{name: l, port: 81, protocol: HTTP}]}
";
    let route = |name: &str, kind: &str| {
        format!(
            "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{namespace: gw, name: {name}}}
spec: {{parentRefs: [{{kind: {kind}, name: web}}]}}
"
        )
    };
    let world = World::new(&join(&[
        &yaml,
        set,
        &route("a", "Gateway"),
        &route("b", "ListenerSet"),
        &route("c", "ListenerSet"),
    ]));
    assert_eq!(listeners(&world), ["l 1 HTTPRoute,GRPCRoute"]);
    assert_eq!(
        world.listeners(Kind::ListenerSet, "gw/web"),
        ["l 2 HTTPRoute,GRPCRoute"]
    );
}
