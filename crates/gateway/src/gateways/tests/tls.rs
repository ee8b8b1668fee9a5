//! TLS of listeners.

use model::Kind;
use model::gateway::TlsMode;

use super::{HTTPS, accepted, certificates, gateway, join, listeners};
use crate::testworld::World;

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
