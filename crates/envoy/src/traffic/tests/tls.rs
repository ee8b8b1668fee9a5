//! How servers are spoken to.

use super::*;

fn simple() -> ClientTls {
    ClientTls {
        mode: TlsMode::Simple,
        ..ClientTls::default()
    }
}

fn plain_tls() -> UpstreamTlsIr {
    UpstreamTlsIr {
        sni: Str::new(),
        subject_alt_names: Vec::new(),
        insecure: false,
        authority: TlsAuthority::System,
        certificate: None,
        h2: false,
    }
}

fn open(tls: &ClientTls, http: bool, change: impl FnOnce(&mut Case<'_>)) -> Opening {
    open_by("app/r", tls, http, change)
}

/// What TLS settings of a rule come to.
fn open_by(rule: &str, tls: &ClientTls, http: bool, change: impl FnOnce(&mut Case<'_>)) -> Opening {
    let (ns, name) = rule.split_once('/').unwrap();
    let mut case = Case::new(&[]);
    change(&mut case);
    let seen = Seen {
        waypoint: &case.waypoint,
        direction: case.direction,
        service: &case.service,
        mesh: &case.mesh,
    };
    opening(
        Some(tls),
        Some(&ObjectKey::new(ns, name)),
        &seen,
        http,
        false,
    )
}

#[test]
fn tls_takes_names_authorities_and_certificates() {
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| Str::from(*name))
            .collect::<Vec<_>>()
    };
    let secret = |name: &str| TlsAuthority::Secret(name.into());
    let mutual = |tls: ClientTls| ClientTls {
        mode: TlsMode::Mutual,
        ..tls
    };
    let named = |name: &str| ClientTls {
        credential_name: name.into(),
        ..simple()
    };
    for (tls, expected) in [
        (simple(), plain_tls()),
        (
            ClientTls {
                sni: "s".into(),
                ..simple()
            },
            UpstreamTlsIr {
                sni: "s".into(),
                ..plain_tls()
            },
        ),
        (
            ClientTls {
                sni: "s".into(),
                subject_alt_names: names(&["t"]),
                ..simple()
            },
            UpstreamTlsIr {
                sni: "s".into(),
                subject_alt_names: names(&["t"]),
                ..plain_tls()
            },
        ),
        (
            ClientTls {
                sni: "s".into(),
                insecure_skip_verify: true,
                ..simple()
            },
            UpstreamTlsIr {
                sni: "s".into(),
                insecure: true,
                ..plain_tls()
            },
        ),
        (
            ClientTls {
                ca_certificates: "/ca".into(),
                ca_crl: "/crl".into(),
                ..simple()
            },
            UpstreamTlsIr {
                authority: TlsAuthority::File("/ca".into(), Some("/crl".into())),
                ..plain_tls()
            },
        ),
        (
            named("c"),
            UpstreamTlsIr {
                authority: secret("kubernetes://c-cacert"),
                ..plain_tls()
            },
        ),
        (
            named("configmap://shop/ca"),
            UpstreamTlsIr {
                authority: secret("configmap://shop/ca-cacert"),
                ..plain_tls()
            },
        ),
        (
            mutual(named("c")),
            UpstreamTlsIr {
                authority: secret("kubernetes://c-cacert"),
                certificate: Some(TlsCertificate::Secret("kubernetes://c".into())),
                ..plain_tls()
            },
        ),
        (
            mutual(ClientTls {
                client_certificate: "/cert".into(),
                private_key: "/key".into(),
                ..simple()
            }),
            UpstreamTlsIr {
                certificate: Some(TlsCertificate::Files("/cert".into(), "/key".into())),
                ..plain_tls()
            },
        ),
    ] {
        assert_eq!(open(&tls, true, |_| ()), Opening::Tls(expected), "{tls:?}");
    }
    // Names of the ServiceEntry count where the rule has none.
    let of_entry = open(&simple(), true, |case| {
        case.service.subject_alt_names = names(&["e"]);
    });
    let expected = UpstreamTlsIr {
        subject_alt_names: names(&["e"]),
        ..plain_tls()
    };
    assert_eq!(of_entry, Opening::Tls(expected));
    // Bytes have no host: an external one goes by its name.
    let bytes = open(&simple(), false, |case| {
        case.service.external = true;
        case.service.key.hostname = "api.example.com".into();
    });
    let expected = UpstreamTlsIr {
        sni: "api.example.com".into(),
        ..plain_tls()
    };
    assert_eq!(bytes, Opening::Tls(expected));
}

#[test]
fn files_of_a_waypoint_are_for_rules_of_its_namespace_and_of_the_root_alone() {
    let by = |mode| ClientTls {
        mode,
        ..ClientTls::default()
    };
    let (simple, mutual) = (|| by(TlsMode::Simple), || by(TlsMode::Mutual));
    let files = |tls: ClientTls| ClientTls {
        client_certificate: "/cert".into(),
        private_key: "/key".into(),
        ..tls
    };
    let authority = ClientTls {
        ca_certificates: "/ca".into(),
        ..simple()
    };
    for tls in [files(mutual()), authority] {
        for (rule, permitted) in [
            ("app/r", true),
            ("istio-system/r", true),
            ("shop/r", false),
            ("else/r", false),
        ] {
            let found = open_by(rule, &tls, true, |_| ());
            let refused = found == Opening::Refused(Refusal::Files);
            assert_eq!(refused, !permitted, "{rule} {tls:?}");
        }
    }
    // Without effect there, so no reason to refuse.
    let unused = open_by("shop/r", &files(simple()), true, |_| ());
    assert!(matches!(unused, Opening::Tls(_)));
    let named = ClientTls {
        credential_name: "c".into(),
        ..mutual()
    };
    let named = open_by("shop/r", &named, true, |_| ());
    assert!(matches!(named, Opening::Tls(_)));
}

#[test]
fn what_cannot_be_applied_is_refused_and_never_plain() {
    let of = |mode| ClientTls {
        mode,
        ..ClientTls::default()
    };
    let elsewhere = |case: &mut Case<'_>| {
        case.direction = Direction::Outbound;
        case.service.external = true;
    };
    assert_eq!(open(&of(TlsMode::Disable), true, |_| ()), Opening::Plain);
    assert_eq!(
        open(&of(TlsMode::IstioMutual), true, |_| ()),
        Opening::Plain
    );
    let refused = |why| Opening::Refused(why);
    let found = open(&of(TlsMode::IstioMutual), true, elsewhere);
    assert_eq!(found, refused(Refusal::Outside));
    let found = open(&of(TlsMode::Refuse), true, |_| ());
    assert_eq!(found, refused(Refusal::Invalid));
    for tls in [
        of(TlsMode::Mutual),
        ClientTls {
            client_certificate: "/cert".into(),
            ..of(TlsMode::Mutual)
        },
        ClientTls {
            credential_name: "configmap://shop/ca".into(),
            ..of(TlsMode::Mutual)
        },
    ] {
        let found = open(&tls, true, |_| ());
        assert_eq!(found, refused(Refusal::NoCertificate));
        let base = PortPolicy {
            tls: Some(tls),
            ..PortPolicy::default()
        };
        let out = cluster(AppProtocol::Http, Upstream::Http1, base, |_| ());
        assert_eq!(out.discovery, Discovery::Nobody);
    }
}
