#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use flow::{Derived, Table};
use gateway::gateways::{self, GatewayView};
use gateway::grants::{self, GrantView};
use gateway::index::ListenerSetByParent;
use model::input::{
    CertificateRef, FrontendTls, FrontendValidation, Gateway, GatewayClass, Listener, ListenerSet,
    ListenerTls, Namespace, ReferenceGrant,
};
use model::secret::{ConfigMap, CredentialGrants, Material, MaterialKey, Secret, SecretData};
use model::{Finding, GatewayRow, MeshRow, Meta, ObjectKey, Parsed, SecretBytes, Str};
use prost::Message as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use super::materials::{self, MaterialView};
use super::{GrantByAuthority, GrantByCertificate, GrantByConfigMap};
use crate::index::GrantByNamespace;

/// A certificate, its private key, and a list of what it revoked.
struct Pki {
    cert: String,
    key: String,
    crl: String,
}

fn pki() -> Pki {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    params.not_after = date_time_ymd(2020, 1, 1);
    let cert = params.self_signed(&key).unwrap().pem();
    let crl = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2040, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = crl.signed_by(&Issuer::from_params(&params, &key)).unwrap();
    Pki {
        cert,
        key: key.serialize_pem(),
        crl: crl.pem().unwrap(),
    }
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn parsed<T>(at: &str, body: T) -> (ObjectKey, Parsed<T>) {
    let meta = Meta {
        key: key(at),
        ..Meta::default()
    };
    let body = Ok(body);
    let notes = Vec::new();
    (key(at), Parsed { meta, body, notes })
}

fn table<T: PartialEq + Send + Sync + 'static>(
    mut table: Table<ObjectKey, Parsed<T>>,
    rows: Vec<(ObjectKey, Parsed<T>)>,
) -> Table<ObjectKey, Parsed<T>> {
    table.commit(
        rows.into_iter()
            .map(|(key, row)| (key, Some(Arc::new(row)))),
    );
    table
}

fn data(values: &[(&'static str, &str)]) -> SecretData {
    let value = |(key, text): &(&'static str, &str)| (*key, SecretBytes::new(text.as_bytes()));
    values.iter().map(value).collect()
}

#[derive(Default)]
struct World {
    secrets: Vec<(ObjectKey, Parsed<Secret>)>,
    config_maps: Vec<(ObjectKey, Parsed<ConfigMap>)>,
    gateways: Vec<(ObjectKey, Parsed<Gateway>)>,
    reference_grants: Vec<(ObjectKey, Parsed<ReferenceGrant>)>,
}

struct Derivation {
    grants: Vec<(ObjectKey, CredentialGrants)>,
    materials: Vec<(MaterialKey, Material)>,
    codes: Vec<String>,
    findings: Vec<Finding>,
}

impl World {
    fn secret(mut self, at: &str, ty: &str, values: &[(&'static str, &str)]) -> Self {
        let ty = Str::from(ty);
        let data = data(values);
        self.secrets.push(parsed(at, Secret { ty, data }));
        self
    }

    fn gateway(mut self, at: &str, gateway: Gateway) -> Self {
        self.gateways.push(parsed(at, gateway));
        self
    }

    /// From Gateways of `from` to Secrets of `to`, of one name or all.
    fn granted(mut self, from: &str, to: &str, name: Option<&str>) -> Self {
        let grant = ReferenceGrant {
            from: vec![(
                "gateway.networking.k8s.io".into(),
                "Gateway".into(),
                from.into(),
            )],
            to: vec![(Str::new(), "Secret".into(), name.map(Str::from))],
        };
        let at = format!("{to}/grant");
        self.reference_grants.push(parsed(&at, grant));
        self
    }

    fn derive(self) -> Derivation {
        let material_keys = self
            .secrets
            .iter()
            .map(|(k, _)| MaterialKey::Secret(k.clone()));
        let of_maps = self.config_maps.iter();
        let of_maps = of_maps.map(|(k, _)| MaterialKey::ConfigMap(k.clone()));
        let material_keys = material_keys.chain(of_maps).collect();
        let gateway_keys = self.gateways.iter().map(|(k, _)| k.clone()).collect();
        let secrets = table(Table::new("secrets"), self.secrets);
        let config_maps = table(Table::new("config_maps"), self.config_maps);
        let gateways = table(Table::new("gateways"), self.gateways);
        let classes: Table<ObjectKey, Parsed<GatewayClass>> = Table::new("classes");
        let reference_grants = table(
            Table::new("reference_grants").with_index::<GrantByNamespace>(),
            self.reference_grants,
        );
        let mut granted: Derived<_, ObjectKey, CredentialGrants, Finding> = Derived::new("grants")
            .with_index::<GrantByCertificate>()
            .with_index::<GrantByAuthority>()
            .with_index::<GrantByConfigMap>();
        let sets: Table<ObjectKey, Parsed<ListenerSet>> =
            Table::new("sets").with_index::<ListenerSetByParent>();
        let namespaces: Table<ObjectKey, Parsed<Namespace>> = Table::new("namespaces");
        let mesh: Table<(), MeshRow> = Table::new("mesh");
        let view = GatewayView {
            gateways: gateways.view(),
            gateway_classes: classes.view(),
            listener_sets: sets.view(),
            reference_grants: reference_grants.view(),
            secrets: secrets.view(),
            config_maps: config_maps.view(),
            namespaces: namespaces.view(),
            mesh: mesh.view(),
        };
        let mut judged: Derived<_, ObjectKey, GatewayRow, Finding> = Derived::new("gateways");
        let keys: flow::Dirty<ObjectKey> = gateway_keys;
        judged.update(keys.clone(), |p, reads| gateways::derive(p, &view, reads));
        let view = GrantView {
            gateways: judged.view(),
        };
        granted.update(keys, |p, reads| grants::derive(p, &view, reads));
        let mut made: Derived<_, MaterialKey, Material, Finding> = Derived::new("materials");
        let view = MaterialView {
            secrets: secrets.view(),
            config_maps: config_maps.view(),
            grants: granted.view(),
        };
        made.update(material_keys, |p, reads| materials::derive(p, &view, reads));
        let mut findings: Vec<Finding> = judged.notes().flat_map(|(_, n)| n.to_vec()).collect();
        findings.extend(made.notes().flat_map(|(_, n)| n.to_vec()));
        let code = |f: &Finding| format!("{} {} {}", f.code, f.object.kind, f.object.key);
        let mut codes: Vec<String> = findings.iter().map(code).collect();
        codes.sort();
        let mut grants: Vec<_> = granted
            .table()
            .iter()
            .map(|(key, row)| (key.clone(), CredentialGrants::clone(row)))
            .collect();
        grants.sort_by(|a, b| a.0.cmp(&b.0));
        let mut materials: Vec<_> = made
            .table()
            .iter()
            .map(|(key, row)| (key.clone(), Material::clone(row)))
            .collect();
        materials.sort_by(|a, b| a.0.cmp(&b.0));
        Derivation {
            grants,
            materials,
            codes,
            findings,
        }
    }
}

fn text(source: Option<DataSource>) -> String {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Chain, key, and staple of a body; authorities and revocations likewise.
fn parts(body: &SecretBytes) -> Vec<String> {
    let secret = tls::Secret::decode(body.expose()).unwrap();
    assert_eq!(secret.name, "");
    match secret.r#type.unwrap() {
        tls::secret::Type::TlsCertificate(certificate) => {
            let chain = text(certificate.certificate_chain);
            let mut out = vec![chain, text(certificate.private_key)];
            out.extend(certificate.ocsp_staple.map(|staple| text(Some(staple))));
            out
        }
        tls::secret::Type::ValidationContext(context) => {
            let mut out = vec![text(context.trusted_ca)];
            out.extend(context.crl.map(|crl| text(Some(crl))));
            out
        }
        other => panic!("{other:?}"),
    }
}

fn unix(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}

fn material(values: &[(&'static str, &str)]) -> (Material, Vec<Finding>) {
    let mut found = World::default()
        .secret("a/s", "kubernetes.io/tls", values)
        .derive();
    (found.materials.remove(0).1, found.findings)
}

#[test]
fn a_pair_is_served_inline_with_its_staple_and_the_generic_keys_come_first() {
    let (one, other) = (pki(), pki());
    let (found, findings) = material(&[
        ("cert", &one.cert),
        ("key", &one.key),
        ("tls.crt", &other.cert),
        ("tls.key", &other.key),
        ("tls.ocsp-staple", "staple"),
    ]);
    assert_eq!(
        parts(found.certificate.as_ref().unwrap()),
        [unix(&one.cert), unix(&one.key), "staple".to_owned()]
    );
    assert_eq!(found.authority, None);
    assert_eq!(found.expires_s, Some(1_577_836_800), "2020-01-01");
    assert!(found.is_of_concern && findings.is_empty());
}

#[test]
fn keys_of_every_form_are_matched_with_their_certificate() {
    const SEC1: [&str; 2] = [
        include_str!("tests/sec1.crt"),
        include_str!("tests/sec1.pem"),
    ];
    const PKCS1: [&str; 2] = [
        include_str!("tests/pkcs1.crt"),
        include_str!("tests/pkcs1.pem"),
    ];
    for [cert, key] in [SEC1, PKCS1] {
        let (found, findings) = material(&[("tls.crt", cert), ("tls.key", key)]);
        let sent = parts(found.certificate.as_ref().unwrap());
        assert_eq!(sent[0], cert);
        // Without parameters before it.
        let at = key.rfind("-----BEGIN").unwrap();
        assert_eq!(sent[1], key[at..]);
        assert!(findings.is_empty());
    }
    let (found, findings) = material(&[("tls.crt", SEC1[0]), ("tls.key", PKCS1[1])]);
    assert_eq!(found.certificate, None);
    assert!(
        findings[0]
            .message
            .starts_with("tls.key is not the key of tls.crt")
    );
}

#[test]
fn what_a_proxy_would_refuse_is_not_served_and_told_without_values() {
    let (one, other) = (pki(), pki());
    let broken = one.cert.replacen('M', "!", 1);
    for (values, said) in [
        (vec![], "There is neither"),
        (vec![("tls.crt", one.cert.as_str())], "There is neither"),
        // Halves of two pairs are no pair.
        (
            vec![("cert", &one.cert), ("tls.key", &one.key)],
            "There is neither",
        ),
        (
            vec![("tls.crt", &one.cert), ("tls.key", &other.key)],
            "tls.key is not the key of tls.crt",
        ),
        (
            vec![("tls.crt", &one.key), ("tls.key", &one.key)],
            "tls.crt has no certificate in PEM",
        ),
        (
            vec![("tls.crt", &broken), ("tls.key", &one.key)],
            "tls.crt is not valid PEM",
        ),
        (
            vec![("tls.crt", &one.cert), ("tls.key", &one.cert)],
            "tls.key has no private key in PEM",
        ),
        (
            vec![("tls.crt", &one.cert), ("tls.key", "secret-word")],
            "tls.key has no private key in PEM",
        ),
    ] {
        let (found, findings) = material(&values);
        assert_eq!(found.certificate, None, "{said}");
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert_eq!(finding.code, "secret-unusable");
        assert!(finding.message.starts_with(said), "{}", finding.message);
        let shown = format!("{findings:?}{found:?}");
        assert!(!shown.contains("secret-word") && !shown.contains("BEGIN"));
    }
}

#[test]
fn authorities_hold_certificates_and_revocations_alone() {
    let one = pki();
    let mixed = format!("{}text\n{}{}", one.key, one.cert, one.cert);
    let (found, findings) = material(&[
        ("tls.crt", &one.cert),
        ("tls.key", &one.key),
        ("ca.crt", &mixed),
        ("ca.crl", &one.crl),
    ]);
    let twice = format!("{0}{0}", unix(&one.cert));
    assert_eq!(
        parts(found.authority.as_ref().unwrap()),
        [twice, unix(&one.crl)]
    );
    assert!(findings.is_empty());

    // A list that cannot be read voids the authorities: what it revokes would be trusted.
    for values in [
        vec![("ca.crt", one.cert.as_str()), ("ca.crl", "nothing")],
        vec![("ca.crt", &one.cert), ("crl", &one.cert)],
        vec![("ca.crt", &one.key)],
    ] {
        let mut all = vec![("tls.crt", one.cert.as_str()), ("tls.key", &one.key)];
        all.extend(values);
        let (found, findings) = material(&all);
        assert_eq!(found.authority, None);
        assert!(found.certificate.is_some());
        assert_eq!(findings[0].code, "secret-ca-unusable");
    }
}

#[test]
fn nobody_is_told_of_secrets_that_nobody_refers_to() {
    let found = World::default()
        .secret("a/helm", "helm.sh/release.v1", &[])
        .secret("a/opaque", "Opaque", &[("tls.crt", "no"), ("ca.crt", "no")])
        .derive();
    assert_eq!(found.codes, [""; 0]);
    // They have rows: that they exist counts.
    assert_eq!(found.materials.len(), 2);
}

// === grants ===

fn reference(ns: Option<&str>, name: &str) -> CertificateRef {
    CertificateRef {
        group: Str::new(),
        kind: "Secret".into(),
        ns: ns.map(Str::from),
        name: name.into(),
    }
}

fn listener(port: u16, certificates: Vec<CertificateRef>) -> Listener {
    Listener {
        name: "l".into(),
        port,
        protocol: "HTTPS".into(),
        tls: Some(ListenerTls {
            certificates,
            ..ListenerTls::default()
        }),
        ..Listener::default()
    }
}

fn gateway(listeners: Vec<Listener>) -> Gateway {
    Gateway {
        class: "istio".into(),
        listeners,
        is_managed: true,
        ..Gateway::default()
    }
}

/// `name: secret secret` per name.
fn names(found: &Derivation) -> Vec<String> {
    let row = &found.grants[0].1;
    let line = |(name, keys): (&Str, &Vec<ObjectKey>)| {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        format!("{name}: {}", keys.join(" "))
    };
    row.names.iter().map(line).collect()
}

#[test]
fn a_gateway_may_have_what_its_listeners_name_at_home_or_by_grant() {
    let refs = || vec![reference(None, "own"), reference(Some("b"), "far")];
    let world = || {
        World::default()
            .secret("a/own", "", &[])
            .secret("b/far", "", &[])
            .gateway("a/gw", gateway(vec![listener(443, refs())]))
    };
    let both = ["a/own: a/own", "b/far: b/far"];
    let denied = "gw-certificate-no-grant Gateway a/gw";
    for (case, found, granted) in [
        ("none", world(), false),
        ("all", world().granted("a", "b", None), true),
        ("this", world().granted("a", "b", Some("far")), true),
        (
            "another name",
            world().granted("a", "b", Some("other")),
            false,
        ),
        ("another namespace", world().granted("c", "b", None), false),
        (
            "where the Gateway is",
            world().granted("a", "a", None),
            false,
        ),
    ] {
        let found = found.derive();
        let told = found.codes.iter().any(|code| code == denied);
        assert_eq!(told, !granted, "{case}");
        assert_eq!(names(&found), both[..if granted { 2 } else { 1 }], "{case}");
    }
}

#[test]
fn listeners_that_end_no_tls_grant_nothing() {
    let of = |change: fn(&mut Listener)| {
        let mut one = listener(443, vec![reference(None, "own")]);
        change(&mut one);
        let found = World::default()
            .gateway("a/gw", gateway(vec![one]))
            .derive();
        names(&found)
    };
    assert_eq!(of(|_| ()), ["a/own: a/own"]);
    assert_eq!(of(|l| l.tls.as_mut().unwrap().passthrough = true), [""; 0]);
    assert_eq!(of(|l| l.protocol = "HTTP".into()), [""; 0]);
    assert_eq!(of(|l| l.tls = None), [""; 0]);
    for mode in ["ISTIO_MUTUAL", "ISTIO_SIMPLE"] {
        let mut one = listener(443, vec![reference(None, "own")]);
        let tls = one.tls.as_mut().unwrap();
        let option = "gateway.istio.io/tls-terminate-mode";
        tls.options.insert(option.into(), mode.into());
        let found = World::default()
            .gateway("a/gw", gateway(vec![one]))
            .derive();
        assert_eq!(names(&found), [""; 0]);
    }
    // More than a listener can have: none of them.
    let three = ["x", "y", "z"].map(|name| reference(None, name)).to_vec();
    let found = World::default()
        .gateway("a/gw", gateway(vec![listener(443, three)]))
        .derive();
    assert_eq!(names(&found), [""; 0]);
    assert_eq!(found.codes, ["gw-certificate-ref Gateway a/gw"]);
}

#[test]
fn authorities_of_clients_come_from_the_object_named_or_the_one_beside_it() {
    let with = |frontend: FrontendTls| Gateway {
        frontend,
        ..gateway(vec![listener(443, vec![reference(None, "own")])])
    };
    let of = |certificate| FrontendValidation {
        authorities: vec![certificate],
        ..FrontendValidation::default()
    };
    let default = |certificate| FrontendTls {
        default: Some(of(certificate)),
        ..FrontendTls::default()
    };
    let derive = |frontend| World::default().gateway("a/gw", with(frontend)).derive();
    assert_eq!(
        names(&derive(default(reference(None, "ca")))),
        ["a/ca-cacert: a/ca-cacert a/ca", "a/own: a/own"]
    );
    // A grant of one object does not reach the one beside it.
    let found = World::default()
        .secret("b/ca", "", &[])
        .secret("a/own", "", &[])
        .granted("a", "b", Some("ca"))
        .gateway("a/gw", with(default(reference(Some("b"), "ca"))))
        .derive();
    assert_eq!(names(&found), ["a/own: a/own", "b/ca-cacert: b/ca"]);
    assert_eq!(
        found.codes,
        [
            "secret-ca-unusable Secret b/ca",
            "secret-unusable Secret a/own"
        ]
    );
    // Ports have their own.
    let mut frontend = default(reference(None, "ca"));
    let per_port = &mut frontend.per_port;
    per_port.insert(443, Some(of(reference(None, "port"))));
    per_port.insert(8443, Some(of(reference(None, "other"))));
    assert_eq!(
        names(&derive(frontend)),
        ["a/own: a/own", "a/port-cacert: a/port-cacert a/port"]
    );
    // A private key is never granted by the way.
    let found = derive(default(reference(None, "ca")));
    assert!(!found.grants[0].1.names.contains_key("a/ca"));
}
