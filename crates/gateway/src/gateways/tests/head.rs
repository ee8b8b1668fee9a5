//! What is decided of a Gateway as a whole.

use model::Kind;

use super::{accepted, certificates, gateway, join, listeners};
use crate::testworld::World;

#[test]
fn names_and_targets_follow_class_and_annotations() {
    let row = World::new(&gateway("istio", "name: l, port: 80, protocol: HTTP", "")).row();
    assert_eq!(row.deployment, "web-istio");
    assert_eq!(row.service_account, "web-istio");
    assert_eq!(row.grants.account, Some("web-istio".into()));
    assert_eq!(row.targets[0].hostname, "web-istio.gw.svc.cluster.local");
    let waypoint = "name: mesh, port: 15008, protocol: HBONE";
    assert_eq!(
        World::new(&gateway("istio-waypoint", waypoint, ""))
            .row()
            .deployment,
        "web"
    );
    // 3
    let class = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: edge, generation: 2}
spec: {controllerName: istio.io/gateway-controller}
";
    let edge = World::new(&join(&[
        &gateway("edge", "name: l, port: 80, protocol: HTTP", ""),
        class,
    ]));
    assert_eq!(edge.row().deployment, "web-edge");
    assert_eq!(
        edge.conditions(Kind::GatewayClass, "edge"),
        ["Accepted=True/Accepted"]
    );
    // 4: a class object is trusted.
    let foreign = class
        .replace("edge", "istio")
        .replace("istio.io/", "example.com/");
    let foreign = World::new(&join(&[
        &gateway("istio", "name: l, port: 80, protocol: HTTP", ""),
        &foreign,
    ]));
    assert_eq!(foreign.conditions(Kind::Gateway, "gw/web"), [""; 0]);
    assert_eq!(foreign.conditions(Kind::GatewayClass, "istio"), [""; 0]);
    // 6
    let named = gateway("istio-waypoint", waypoint, "").replace(
        "generation: 3",
        "annotations: {gateway.istio.io/name-override: x}",
    );
    let named = World::new(&named).row();
    assert_eq!(
        (named.deployment.as_str(), named.service_account.as_str()),
        ("x", "web")
    );
    assert_eq!(named.targets[0].hostname, "x.gw.svc.cluster.local");
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let of = |addresses: &str, annotation: &str| {
        let more = format!("  addresses: [{addresses}]");
        let yaml = gateway("istio", "name: l, port: 80, protocol: HTTP", &more);
        let meta = format!("annotations: {{{annotation}}}");
        let world = World::new(&yaml.replace("generation: 3", &meta));
        let targets = world
            .row()
            .targets
            .iter()
            .map(|t| t.hostname.to_string())
            .collect::<Vec<_>>();
        (
            accepted(&world),
            targets.join(" "),
            world.row().listeners.len(),
        )
    };
    let host = "ingress.gw.svc.cluster.local";
    // 27
    assert_eq!(
        of("{type: Hostname, value: ingress}", ""),
        ("Accepted=True/Accepted".into(), host.into(), 1)
    );
    // 29: manual, refused, and served all the same.
    assert_eq!(
        of(
            "{type: IPAddress, value: 1.2.3.4}, {type: Hostname, value: ingress}",
            ""
        ),
        ("Accepted=False/UnsupportedAddress".into(), host.into(), 1)
    );
    // 30: nothing to look at.
    let world = World::new(&gateway(
        "istio",
        "name: l, port: 80, protocol: HTTP",
        "  addresses: [{type: NamedAddress, value: x}]",
    ));
    assert_eq!(
        world.conditions(Kind::Gateway, "gw/web"),
        [
            "Accepted=False/UnsupportedAddress",
            "Programmed=False/UnsupportedAddress",
            "ResolvedRefs=True/ResolvedRefs"
        ]
    );
    assert_eq!(listeners(&world), [""; 0]);
    // 10
    let annotation = "networking.istio.io/service-type: ClusterIP";
    let found = of("{type: Hostname, value: a.b}", annotation);
    assert_eq!(
        (found.0.as_str(), found.1.as_str()),
        ("Accepted=False/DeprecatedField", "a.b")
    );
    // An empty value asks for any address.
    assert_eq!(of("{value: ''}", "").1, "web-istio.gw.svc.cluster.local");
}

#[test]
fn parameters_are_a_config_map_that_exists() {
    let of = |reference: &str| {
        let more = format!("  infrastructure: {{parametersRef: {{{reference}}}}}");
        let yaml = gateway("istio", "name: l, port: 80, protocol: HTTP", &more);
        accepted(&World::new(&join(&[&yaml, &certificates()])))
    };
    assert_eq!(
        of("group: '', kind: ConfigMap, name: roots"),
        "Accepted=True/Accepted"
    );
    // 14, 15
    assert_eq!(
        of("group: '', kind: ConfigMap, name: gone"),
        "Accepted=False/InvalidParameters"
    );
    assert_eq!(
        of("group: '', kind: Foo, name: roots"),
        "Accepted=False/InvalidParameters"
    );
}

#[test]
fn a_remote_gateway_echoes_its_addresses() {
    // 44
    let more =
        "  addresses: [{type: IPAddress, value: 1.2.3.4}, {type: Hostname, value: far.example}]";
    let world = World::new(&gateway(
        "istio-remote",
        "name: l, port: 15008, protocol: HBONE",
        more,
    ));
    assert_eq!(
        world.conditions(Kind::Gateway, "gw/web"),
        ["Accepted=True/Accepted", "Programmed=True/Programmed"]
    );
    let status = world.status(Kind::Gateway, "gw/web").unwrap();
    assert_eq!(status.gateway_addresses.as_ref().unwrap().len(), 2);
    assert_eq!(status.listeners.as_deref(), Some(&[][..]));
}

#[test]
fn the_certificate_for_backends_is_looked_at_after_its_grant() {
    for (reference, said) in [
        ("{name: good}", "True/ResolvedRefs"),
        ("{name: gone}", "False/InvalidClientCertificateRef"),
        ("{name: broken}", "False/InvalidClientCertificateRef"),
        ("{name: x, kind: Foo}", "False/InvalidClientCertificateRef"),
        ("{name: gone, namespace: certs}", "False/RefNotPermitted"),
    ] {
        let more = format!("  tls: {{backend: {{clientCertificateRef: {reference}}}}}");
        let yaml = gateway("istio", "name: l, port: 80, protocol: HTTP", &more);
        let world = World::new(&join(&[&yaml, &certificates()]));
        let all = world.conditions(Kind::Gateway, "gw/web");
        assert!(
            all.contains(&format!("ResolvedRefs={said}")),
            "{reference}: {all:?}"
        );
    }
}
