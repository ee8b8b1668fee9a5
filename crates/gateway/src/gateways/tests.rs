#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fmt::Write as _;

use model::Kind;
use model::gateway::TlsMode;

use crate::testworld::{Running, World};

mod edge_cases;

fn pem() -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

fn literal(text: &str) -> String {
    format!("{:?}", text.replace("\r\n", "\n"))
}

/// Secrets `good`, `opaque` and `ca` of `gw`, `far` of `certs`, and `broken`; ConfigMaps `roots`
/// and `bad-roots`.
fn certificates() -> String {
    let (cert, key) = pem();
    let (cert, key) = (literal(&cert), literal(&key));
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{namespace: gw, name: good}}
type: kubernetes.io/tls
stringData: {{tls.crt: {cert}, tls.key: {key}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: gw, name: opaque}}
type: Opaque
stringData: {{cert: {cert}, key: {key}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: certs, name: far}}
stringData: {{tls.crt: {cert}, tls.key: {key}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: gw, name: broken}}
stringData: {{tls.crt: nothing, tls.key: {key}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: gw, name: ca}}
stringData: {{ca.crt: {cert}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{namespace: gw, name: roots}}
data: {{ca.crt: {cert}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{namespace: gw, name: bad-roots}}
data: {{ca.crt: nothing}}
"
    )
}

/// A Gateway of a class with listeners in flow style, one a line, and further lines of its spec.
fn gateway(class: &str, listeners: &str, more: &str) -> String {
    let mut out = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{namespace: gw, name: web, generation: 3}}
spec:
  gatewayClassName: {class}
{more}
  listeners:
"
    );
    for line in listeners.trim().lines() {
        writeln!(out, "  - {{{}}}", line.trim()).unwrap();
    }
    out
}

fn join(parts: &[&str]) -> String {
    parts.join("\n---\n")
}

/// What is said of the listeners of a Gateway, the good conditions left out.
fn listeners(world: &World) -> Vec<String> {
    world.listeners(Kind::Gateway, "gw/web")
}

fn accepted(world: &World) -> String {
    let all = world.conditions(Kind::Gateway, "gw/web");
    all.into_iter()
        .find(|one| one.starts_with("Accepted"))
        .unwrap()
}

const HTTPS: &str = "name: l, port: 443, protocol: HTTPS, tls:";

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
fn certificates_that_cannot_be_served_are_said_per_listener() {
    let unresolved = |reason: &str| {
        format!("l 0 HTTPRoute,GRPCRoute Programmed=False/Invalid ResolvedRefs=False/{reason}")
    };
    let refused = |reason: &str| {
        format!(
            "l 0 HTTPRoute,GRPCRoute Accepted=False/NoValidCACertificate Programmed=False/Invalid ResolvedRefs=False/{reason}"
        )
    };
    let whole = "l 0 HTTPRoute,GRPCRoute".to_owned();
    for (refs, said, credentials) in [
        ("{name: good}", whole.clone(), 1),
        // 34: the type of a Secret is not looked at.
        ("{name: opaque}", whole.clone(), 1),
        ("{name: good}, {name: opaque}", whole.clone(), 2),
        ("{name: gone}", unresolved("InvalidCertificateRef"), 0),
        ("{name: broken}", unresolved("InvalidCertificateRef"), 0),
        (
            "{name: good, group: example.com}",
            unresolved("InvalidCertificateRef"),
            0,
        ),
        (
            "{name: roots, kind: ConfigMap}",
            unresolved("InvalidCertificateRef"),
            0,
        ),
        ("", unresolved("InvalidCertificateRef"), 0),
        // 35: the good one is served and the other told.
        (
            "{name: good}, {name: gone}",
            format!("{whole} ResolvedRefs=False/InvalidCertificateRef"),
            1,
        ),
        (
            "{name: gone}, {name: good}",
            format!("{whole} ResolvedRefs=False/InvalidCertificateRef"),
            1,
        ),
        (
            "{name: good}, {name: opaque}, {name: good}",
            unresolved("InvalidCertificateRef"),
            0,
        ),
        // 33
        (
            "{name: far, namespace: certs}",
            refused("RefNotPermitted"),
            0,
        ),
        (
            "{name: gone, namespace: certs}",
            refused("RefNotPermitted"),
            0,
        ),
    ] {
        let yaml = gateway(
            "istio",
            &format!("{HTTPS} {{certificateRefs: [{refs}]}}"),
            "",
        );
        let world = World::new(&join(&[&yaml, &certificates()]));
        assert_eq!(listeners(&world), [said.as_str()], "{refs}");
        let row = &world.row().listeners[0];
        let found = row.tls.as_ref().map_or(0, |tls| tls.credentials.len());
        assert_eq!(found, credentials, "{refs}");
        assert_eq!(row.is_served, credentials > 0, "{refs}");
        let valid = if row.is_valid {
            "True/Accepted"
        } else {
            "False/ListenersNotValid"
        };
        assert_eq!(accepted(&world), format!("Accepted={valid}"), "{refs}");
    }
}

#[test]
fn a_grant_lets_a_listener_have_a_secret_of_another_namespace() {
    let grant = "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {namespace: certs, name: g}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: gw}]
  to: [{group: '', kind: Secret}]
";
    let yaml = gateway(
        "istio",
        &format!("{HTTPS} {{certificateRefs: [{{name: far, namespace: certs}}]}}"),
        "",
    );
    let world = World::new(&join(&[&yaml, &certificates(), grant]));
    assert_eq!(listeners(&world), ["l 0 HTTPRoute,GRPCRoute"]);
    let row = world.row();
    assert_eq!(
        row.listeners[0].tls.as_ref().unwrap().credentials,
        ["kubernetes-gateway://certs/far"]
    );
    assert!(row.grants.names.contains_key("certs/far"));
    // That of a ListenerSet is its own matter.
    let world = World::new(&join(&[
        &yaml,
        &certificates(),
        &grant.replace("kind: Gateway", "kind: ListenerSet"),
    ]));
    assert!(listeners(&world)[0].ends_with("RefNotPermitted"));
    assert!(world.row().grants.names.is_empty());
}

#[test]
fn clients_are_asked_for_certificates_as_frontend_and_options_say() {
    let of = |frontend: &str, options: &str| {
        let listener =
            format!("{HTTPS} {{certificateRefs: [{{name: good}}], options: {{{options}}}}}");
        let more = format!("  tls: {{frontend: {{{frontend}}}}}");
        World::new(&join(&[
            &gateway("istio", &listener, &more),
            &certificates(),
        ]))
    };
    let validation = |refs: &str, mode: &str| {
        format!("default: {{validation: {{mode: {mode}, caCertificateRefs: [{refs}]}}}}")
    };
    let option = "gateway.istio.io/tls-terminate-mode";
    let map = "{group: '', kind: ConfigMap, name: roots}";
    let secret = "{group: '', kind: Secret, name: ca}";
    for (frontend, options, mode, authority, untrusted) in [
        (String::new(), String::new(), TlsMode::Simple, None, false),
        (
            validation(map, "AllowValidOnly"),
            String::new(),
            TlsMode::Mutual,
            Some("configmap://gw/roots"),
            false,
        ),
        (
            validation(secret, "AllowValidOnly"),
            String::new(),
            TlsMode::Mutual,
            Some("kubernetes-gateway://gw/ca-cacert"),
            false,
        ),
        (
            validation(map, "AllowInsecureFallback"),
            String::new(),
            TlsMode::OptionalMutual,
            Some("configmap://gw/roots"),
            true,
        ),
        (
            validation(map, "AllowInsecureFallback"),
            format!("{option}: MUTUAL"),
            TlsMode::Mutual,
            Some("configmap://gw/roots"),
            false,
        ),
        (
            String::new(),
            format!("{option}: MUTUAL"),
            TlsMode::Mutual,
            Some("kubernetes-gateway://gw/good-cacert"),
            false,
        ),
        (
            String::new(),
            format!("{option}: OPTIONAL_MUTUAL"),
            TlsMode::OptionalMutual,
            Some("kubernetes-gateway://gw/good-cacert"),
            false,
        ),
        (
            String::new(),
            format!("{option}: ISTIO_MUTUAL"),
            TlsMode::IstioMutual,
            None,
            false,
        ),
        (
            String::new(),
            format!("{option}: ISTIO_SIMPLE"),
            TlsMode::IstioSimple,
            None,
            false,
        ),
    ] {
        let case = format!("{frontend} {options}");
        let world = of(&frontend, &options);
        let row = world.row();
        let tls = row.listeners[0]
            .tls
            .as_ref()
            .unwrap_or_else(|| panic!("{case}"));
        assert_eq!(tls.mode, mode, "{case}");
        assert_eq!(tls.authority.as_deref(), authority, "{case}");
        assert_eq!(tls.accepts_untrusted, untrusted, "{case}");
        let insecure = world.conditions(Kind::Gateway, "gw/web");
        let insecure = insecure
            .contains(&"InsecureFrontendValidationMode=True/ConfigurationChanged".to_owned());
        assert_eq!(insecure, frontend.contains("Insecure"), "{case}");
    }
    // Who meant to ask for certificates gets no listener that asks for none.
    assert!(!of("", &format!("{option}: MUTAUL")).row().listeners[0].is_served);
    for (refs, reason) in [
        (
            "{group: '', kind: ConfigMap, name: gone}",
            "InvalidCACertificateRef",
        ),
        (
            "{group: '', kind: ConfigMap, name: bad-roots}",
            "InvalidCACertificateRef",
        ),
        ("", "InvalidCACertificateRef"),
        (
            "{group: '', kind: ConfigMap, name: roots}, {group: '', kind: Secret, name: ca}",
            "InvalidCACertificateRef",
        ),
        (
            "{group: '', kind: Service, name: x}",
            "InvalidCACertificateKind",
        ),
        (
            "{group: '', kind: ConfigMap, name: x, namespace: certs}",
            "RefNotPermitted",
        ),
    ] {
        let world = of(&validation(refs, "AllowValidOnly"), "");
        assert_eq!(
            listeners(&world),
            [format!(
                "l 0 HTTPRoute,GRPCRoute Accepted=False/NoValidCACertificate Programmed=False/Invalid ResolvedRefs=False/{reason}"
            )],
            "{refs}"
        );
    }
    // The port's own counts, and HTTP is not concerned.
    let frontend = format!(
        "{}, perPort: [{{port: 443, tls: {{}}}}]",
        validation("", "AllowValidOnly")
    );
    assert_eq!(listeners(&of(&frontend, "")), ["l 0 HTTPRoute,GRPCRoute"]);
}

#[test]
fn protocols_and_shapes_are_those_of_the_class() {
    let unsupported = "Accepted=False/UnsupportedProtocol";
    for (class, listener, said, valid) in [
        (
            "istio",
            "name: l, port: 80, protocol: HTTP",
            "l 0 HTTPRoute,GRPCRoute".to_owned(),
            true,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: TCP",
            "l 0 TCPRoute".to_owned(),
            true,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: TLS, tls: {mode: Passthrough}",
            "l 0 TLSRoute".to_owned(),
            true,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: TLS, tls: {certificateRefs: [{name: good}]}",
            "l 0 TLSRoute,TCPRoute".to_owned(),
            true,
        ),
        // 31, 32
        (
            "istio",
            "name: l, port: 80, protocol: UDP",
            format!("l 0  {unsupported}"),
            false,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: http",
            format!("l 0  {unsupported}"),
            false,
        ),
        (
            "istio",
            "name: l, port: 15008, protocol: HBONE",
            format!("l 0  {unsupported}"),
            false,
        ),
        // Not built, and nothing is said against it.
        (
            "istio",
            "name: l, port: 443, protocol: HTTPS",
            "l 0 HTTPRoute,GRPCRoute".to_owned(),
            true,
        ),
        (
            "istio-waypoint",
            "name: l, port: 15008, protocol: HBONE",
            "l 0 HTTPRoute,GRPCRoute".to_owned(),
            true,
        ),
        // 69
        (
            "istio-waypoint",
            "name: l, port: 80, protocol: HTTP",
            format!("l 0 HTTPRoute,GRPCRoute {unsupported}"),
            true,
        ),
        (
            "istio-east-west",
            "name: l, port: 15008, protocol: HBONE, tls: {mode: Terminate}",
            "l 0".to_owned(),
            true,
        ),
        (
            "istio-eastwest",
            "name: l, port: 15008, protocol: HBONE, tls: {mode: Passthrough}",
            "l 0".to_owned(),
            true,
        ),
        (
            "istio-east-west",
            "name: l, port: 15443, protocol: TLS, tls: {mode: Passthrough}",
            "l 0 TLSRoute".to_owned(),
            true,
        ),
        (
            "istio-east-west",
            "name: l, port: 80, protocol: HTTP",
            format!("l 0 HTTPRoute,GRPCRoute {unsupported}"),
            true,
        ),
        (
            "istio-east-west",
            "name: l, port: 15008, protocol: HBONE",
            format!("l 0  {unsupported}"),
            true,
        ),
        // 36
        (
            "istio",
            "name: l, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}]}",
            "l 0  ResolvedRefs=False/InvalidRouteKinds".to_owned(),
            true,
        ),
        (
            "istio",
            "name: l, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}, {kind: X}]}",
            "l 0 GRPCRoute ResolvedRefs=False/InvalidRouteKinds".to_owned(),
            true,
        ),
    ] {
        let world = World::new(&join(&[&gateway(class, listener, ""), &certificates()]));
        assert_eq!(listeners(&world), [said.trim_end()], "{class} {listener}");
        assert_eq!(
            world.row().listeners[0].is_valid,
            valid,
            "{class} {listener}"
        );
        let served = valid && !said.contains(unsupported) && !listener.ends_with("HTTPS");
        assert_eq!(
            world.row().listeners[0].is_served,
            served,
            "{class} {listener}"
        );
    }
}

#[test]
fn gateways_between_networks_have_no_listener_while_there_is_one_network() {
    let listener = "name: l, port: 15008, protocol: HBONE, tls: {mode: Terminate}";
    let running = Running {
        one_network: true,
        ..Running::default()
    };
    let world = World::with(&gateway("istio-eastwest", listener, ""), running);
    assert!(world.row().listeners.is_empty());
    assert_eq!(accepted(&world), "Accepted=False/Invalid");
}

#[test]
fn of_listeners_that_cannot_be_told_apart_the_first_stays() {
    let of = |text: &str| {
        let world = World::new(&join(&[&gateway("istio", text, ""), &certificates()]));
        let row = world.row();
        let shown = row.listeners.iter().map(|one| match &one.conflict {
            Some(defect) => format!("{} {}", one.name, defect.reason),
            None => one.name.to_string(),
        });
        (shown.collect::<Vec<_>>().join(", "), accepted(&world))
    };
    let tls = "tls: {certificateRefs: [{name: good}]}";
    let through = "tls: {mode: Passthrough}";
    for (text, expected) in [
        // 37
        (format!("name: a, port: 80, protocol: HTTP, hostname: a.com\nname: b, port: 80, protocol: HTTPS, hostname: a.com, {tls}"), "a, b ProtocolConflict"),
        (format!("name: a, port: 443, protocol: HTTPS, hostname: a.com, {tls}\nname: b, port: 443, protocol: TLS, hostname: b.com, {through}"), "a, b"),
        // 38
        ("name: a, port: 80, protocol: TCP\nname: b, port: 80, protocol: HTTP".to_owned(), "a, b ProtocolConflict"),
        ("name: a, port: 80, protocol: TCP\nname: b, port: 80, protocol: TCP".to_owned(), "a, b ProtocolConflict"),
        ("name: a, port: 80, protocol: HTTP\nname: b, port: 80, protocol: HTTP, hostname: ''".to_owned(), "a, b HostnameConflict"),
        ("name: a, port: 80, protocol: HTTP\nname: b, port: 81, protocol: HTTP".to_owned(), "a, b"),
        // One that is out is in nobody's way.
        ("name: a, port: 80, protocol: HTTP, hostname: x.com\nname: b, port: 80, protocol: TCP\nname: c, port: 80, protocol: HTTP, hostname: y.com".to_owned(), "a, b ProtocolConflict, c"),
    ] {
        let (shown, said) = of(&text);
        assert_eq!(shown, expected, "{text}");
        let reason = if expected.contains("Conflict") { "ListenersNotValid" } else { "Accepted" };
        assert_eq!(said, format!("Accepted=True/{reason}"), "{text}");
    }
    let world = World::new(&gateway(
        "istio",
        "name: a, port: 80, protocol: HTTP\nname: b, port: 80, protocol: HTTP",
        "",
    ));
    assert_eq!(
        listeners(&world)[1],
        "b 0 HTTPRoute,GRPCRoute Accepted=False/HostnameConflict Conflicted=True/HostnameConflict Programmed=False/HostnameConflict"
    );
}

fn set(name: &str, created: u32, listeners: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{namespace: app, name: {name}, generation: 5, creationTimestamp: '2024-01-0{created}T00:00:00Z'}}
spec: {{parentRef: {{name: web, namespace: gw}}, listeners: [{listeners}]}}
"
    )
}

const ALL: &str = "  allowedListeners: {namespaces: {from: All}}";

#[test]
fn listener_sets_add_listeners_where_they_may() {
    let own = "name: own, port: 80, protocol: HTTP, hostname: own.com";
    let one = set("one", 1, "{name: l, protocol: HTTP, hostname: a.com}");
    let of = |class: &str, more: &str| World::new(&join(&[&gateway(class, own, more), &one]));
    let not_allowed = ["Accepted=False/NotAllowed", "Programmed=False/NotAllowed"];
    // 39, 40
    for (class, more) in [
        ("istio", ""),
        ("istio", "  allowedListeners: {namespaces: {}}"),
        ("istio", "  allowedListeners: {namespaces: {from: Same}}"),
        ("istio", "  allowedListeners: {namespaces: {from: None}}"),
        ("istio-waypoint", ALL),
    ] {
        let world = of(class, more);
        assert_eq!(
            world.conditions(Kind::ListenerSet, "app/one"),
            not_allowed,
            "{class} {more}"
        );
        let status = world.status(Kind::ListenerSet, "app/one").unwrap();
        assert_eq!(status.listeners.as_deref(), Some(&[][..]));
        let status = world.status(Kind::Gateway, "gw/web").unwrap();
        let count = (class == "istio").then_some(0);
        assert_eq!(status.attached_listener_sets, count, "{class} {more}");
        assert_eq!(world.row().listeners.len(), 1);
    }
    let world = of("istio", ALL);
    assert_eq!(
        world.listeners(Kind::ListenerSet, "app/one"),
        ["l 0 HTTPRoute,GRPCRoute"]
    );
    assert_eq!(
        world.conditions(Kind::ListenerSet, "app/one")[0],
        "Accepted=True/Accepted"
    );
    let status = world.status(Kind::Gateway, "gw/web").unwrap();
    assert_eq!(status.attached_listener_sets, Some(1));
    assert_eq!(status.listeners.as_ref().unwrap().len(), 1);
    // An open port is that of the protocol.
    assert_eq!(world.row().listeners[1].port, 80);
    // 41
    let orphan = World::new(&one);
    assert!(orphan.status(Kind::ListenerSet, "app/one").is_none());
    let foreign = of("example", ALL);
    assert!(foreign.status(Kind::ListenerSet, "app/one").is_none());
}

#[test]
fn the_older_listener_set_wins_and_needs_what_a_gateway_need_not() {
    let gw = gateway(
        "istio",
        "name: own, port: 80, protocol: HTTP, hostname: own.com",
        ALL,
    );
    // 42
    let young = set(
        "a-young",
        2,
        "{name: l, port: 80, protocol: HTTP, hostname: a.com}",
    );
    let old = set(
        "b-old",
        1,
        "{name: l, port: 80, protocol: HTTP, hostname: a.com}",
    );
    let world = World::new(&join(&[&gw, &young, &old]));
    assert_eq!(
        world.conditions(Kind::ListenerSet, "app/b-old")[0],
        "Accepted=True/Accepted"
    );
    assert_eq!(
        world.conditions(Kind::ListenerSet, "app/a-young"),
        [
            "Accepted=False/ListenersNotValid",
            "Programmed=False/ListenersNotValid"
        ]
    );
    assert!(
        world.listeners(Kind::ListenerSet, "app/a-young")[0]
            .contains("Conflicted=True/HostnameConflict")
    );
    for (listener, said) in [
        (
            "{name: l, protocol: TCP}",
            "l 0 TCPRoute Accepted=False/UnsupportedProtocol",
        ),
        (
            "{name: l, protocol: HTTPS}",
            "l 0 HTTPRoute,GRPCRoute Accepted=False/UnsupportedProtocol Programmed=False/Invalid",
        ),
    ] {
        let world = World::new(&join(&[&gw, &set("s", 1, listener)]));
        assert_eq!(world.listeners(Kind::ListenerSet, "app/s"), [said]);
        assert!(!world.row().listeners[1].is_valid);
    }
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
