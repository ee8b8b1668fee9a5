#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::SpiffeId;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::{CaError, DevCa, Issued, PeerError, peer_spiffe_id};

mod chain;
mod csr;
mod rotation;
mod service;
mod sign;
mod support;

use support::root_der;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    SystemTime::now()
}

fn ca(dir: &Path) -> DevCa {
    DevCa::load_or_create(dir, "cluster.local", now()).unwrap()
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn alice(ca: &DevCa) -> Issued {
    ca.issue_workload(&id("spiffe://cluster.local/ns/a/sa/alice"), HOUR, now())
        .unwrap()
}

#[test]
fn root_is_created_once_private_and_reloaded_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let first = ca(&state).root_pem().to_owned();
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("ca")), 0o700);
    assert_eq!(mode(&state.join("ca/root-key.pem")), 0o600);
    assert_eq!(ca(&state).root_pem(), first);
    let left: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["ca"], "no temporary directory stays behind");
}

#[test]
fn concurrent_creation_yields_one_root() {
    let dir = tempfile::tempdir().unwrap();
    let roots: Vec<String> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| ca(dir.path()).root_pem().to_owned()))
            .collect();
        tasks.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
}

#[test]
fn damaged_state_is_an_error_and_stays_untouched() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 6] = [
        (
            "corrupt key",
            |ca| fs::write(ca.join("root-key.pem"), "garbage").unwrap(),
            "Corrupt",
        ),
        (
            "corrupt cert",
            |ca| fs::write(ca.join("root-cert.pem"), "garbage").unwrap(),
            "Corrupt",
        ),
        (
            "key gone",
            |ca| fs::remove_file(ca.join("root-key.pem")).unwrap(),
            "Incomplete",
        ),
        (
            "cert gone",
            |ca| fs::remove_file(ca.join("root-cert.pem")).unwrap(),
            "Incomplete",
        ),
        (
            "another key",
            |ca| {
                let key = KeyPair::generate().unwrap().serialize_pem();
                fs::write(ca.join("root-key.pem"), key).unwrap();
            },
            "Corrupt",
        ),
        (
            "key open to the group",
            |ca| {
                let open = fs::Permissions::from_mode(0o640);
                fs::set_permissions(ca.join("root-key.pem"), open).unwrap();
            },
            "Exposed",
        ),
    ];
    for (case, damage, variant) in cases {
        let dir = tempfile::tempdir().unwrap();
        ca(dir.path());
        let ca_dir = dir.path().join("ca");
        damage(&ca_dir);
        let content = |dir: &Path| {
            let mut files: Vec<_> = fs::read_dir(dir)
                .unwrap()
                .map(|e| e.unwrap().path())
                .map(|path| (path.clone(), fs::read(path).unwrap()))
                .collect();
            files.sort();
            files
        };
        let before = content(&ca_dir);
        let error = DevCa::load_or_create(dir.path(), "cluster.local", now()).unwrap_err();
        assert!(
            format!("{error:?}").starts_with(variant),
            "{case}: {error:?}"
        );
        assert!(!format!("{error} {error:?}").contains("PRIVATE"), "{case}");
        assert_eq!(content(&ca_dir), before, "{case}");
    }
}

#[test]
fn expired_root_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    ca(dir.path());
    let later = now() + 3651 * DAY;
    assert!(matches!(
        DevCa::load_or_create(dir.path(), "cluster.local", later),
        Err(CaError::Expired { .. })
    ));
}

#[test]
fn workload_leaf_has_one_critical_uri_and_both_usages() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    let issued = alice(&ca);
    let (_, cert) = x509_parser::parse_x509_certificate(issued.leaf_der()).unwrap();
    let san = cert.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical);
    assert_eq!(san.value.general_names.len(), 1);
    assert_eq!(cert.subject().iter().count(), 0);
    let eku = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(eku.server_auth && eku.client_auth);
    assert!(!cert.is_ca());
    assert_eq!(
        peer_spiffe_id(issued.leaf_der()),
        Ok(id("spiffe://cluster.local/ns/a/sa/alice"))
    );
    let chain: Vec<_> = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(chain, [issued.leaf_der().clone(), root_der(ca.root_pem())]);
}

#[test]
fn leaf_never_outlives_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    let name = id("spiffe://cluster.local/ns/a/sa/alice");
    for ttl in [HOUR, 4000 * DAY, Duration::MAX] {
        let issued = ca.issue_workload(&name, ttl, now()).unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(issued.leaf_der()).unwrap();
        let end = UNIX_EPOCH
            + Duration::from_secs(cert.validity().not_after.timestamp().try_into().unwrap());
        assert!(
            end <= ca.authority().signer().unwrap().not_after(),
            "{ttl:?}"
        );
        assert_eq!(
            end == ca.authority().signer().unwrap().not_after(),
            ttl != HOUR,
            "{ttl:?}"
        );
    }
}

#[test]
fn foreign_or_crooked_identity_is_not_certified() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    for bad in [
        SpiffeId::new("other.td", "a", "b"),
        SpiffeId::new("cluster.local", "a/b", "c"),
        SpiffeId::new("cluster.local", "", "c"),
        SpiffeId::new("cluster.local", "a", "b c"),
        SpiffeId::new("cluster.local", "a", "b%2fc"),
        SpiffeId::new("cluster.local", "ä", "b"),
    ] {
        let result = ca.issue_workload(&bad, HOUR, now());
        assert!(matches!(result, Err(CaError::Name(_))), "{bad:?}");
    }
    for bad in ["", "Cluster.Local", "a b", "a/b"] {
        assert!(
            DevCa::load_or_create(dir.path(), bad, now()).is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn workload_files_are_private_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    let out = dir.path().join("certs/alice");
    let name = id("spiffe://cluster.local/ns/a/sa/alice");
    let paths = ca.write_workload_files(&out, &name, HOUR, now()).unwrap();
    let first = fs::read(&paths.cert_chain).unwrap();
    let again = ca.write_workload_files(&out, &name, HOUR, now()).unwrap();
    assert_eq!(paths, again);
    assert_ne!(fs::read(&paths.cert_chain).unwrap(), first);
    for path in [&paths.cert_chain, &paths.key, &paths.root] {
        assert_eq!(mode(path), 0o600, "{path:?}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 3);
}

#[test]
fn debug_output_shows_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    let text = format!("{ca:?} {:?}", alice(&ca));
    assert!(!text.contains("PRIVATE"), "{text}");
}

/// A leaf of the CA with names of our choosing, past the checks of the CA.
fn leaf_with(ca: &DevCa, sans: Vec<SanType>) -> (CertificateDer<'static>, KeyPair) {
    let root_key = fs::read_to_string(ca.root_path().with_file_name("root-key.pem")).unwrap();
    let root_key = KeyPair::from_pem(&root_key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(ca.root_pem(), root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = sans;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.signed_by(&key, &issuer).unwrap().der().clone(), key)
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn peer_identity_demands_exactly_one_spiffe_uri() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    let good = "spiffe://cluster.local/ns/a/sa/b";
    let dns = SanType::DnsName("a.b".try_into().unwrap());
    let cases = [
        (vec![], Err(PeerError::UriCount(0))),
        (vec![dns.clone()], Err(PeerError::UriCount(0))),
        (
            vec![uri(good), uri("spiffe://cluster.local/ns/a/sa/c")],
            Err(PeerError::UriCount(2)),
        ),
        (
            vec![uri("https://example.com/ns/a/sa/b")],
            Err(PeerError::NotSpiffe),
        ),
        (
            vec![uri("spiffe://cluster.local/ns/a/sa/b/extra")],
            Err(PeerError::NotSpiffe),
        ),
        (vec![uri(good), dns], Ok(id(good))),
    ];
    for (sans, expected) in cases {
        assert_eq!(
            peer_spiffe_id(&leaf_with(&ca, sans.clone()).0),
            expected,
            "{sans:?}"
        );
    }
    assert_eq!(peer_spiffe_id(b"garbage"), Err(PeerError::Malformed));
}

/// Runs a handshake in memory; `Ok` when both sides finished it.
fn handshake(server: &Arc<ServerConfig>, client: ClientConfig) -> Result<(), rustls::Error> {
    let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(server.alpn_protocol(), Some(b"h2".as_slice()));
    Ok(())
}

fn client(ca: &DevCa, cert: Option<(CertificateDer<'static>, Vec<u8>)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root_der(ca.root_pem())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match cert {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(vec![cert], PrivateKeyDer::try_from(key).unwrap())
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[test]
fn handshake_admits_only_workloads_of_this_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let foreign_dir = tempfile::tempdir().unwrap();
    let ours = ca(dir.path());
    let foreign = ca(foreign_dir.path());
    let other_domain = DevCa::load_or_create(dir.path(), "other.td", now()).unwrap();
    let server = ours
        .server_config(&["istiod.istio-system.svc"], &[], now())
        .unwrap();

    let of = |issued: Issued| {
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
        Some((issued.leaf_der().clone(), key.secret_der().to_vec()))
    };
    let raw = |(cert, key): (CertificateDer<'static>, KeyPair)| Some((cert, key.serialize_der()));
    let good = "spiffe://cluster.local/ns/a/sa/b";
    let late = now() - 3 * DAY;
    let expired = ours.issue_workload(&id(good), HOUR, late).unwrap();
    let elsewhere = other_domain
        .issue_workload(&id("spiffe://other.td/ns/a/sa/b"), HOUR, now())
        .unwrap();
    let cases = [
        ("good", of(alice(&ours)), true),
        ("none", None, false),
        ("foreign root", of(alice(&foreign)), false),
        ("no name", raw(leaf_with(&ours, vec![])), false),
        (
            "two URIs",
            raw(leaf_with(&ours, vec![uri(good), uri(good)])),
            false,
        ),
        (
            "not SPIFFE",
            raw(leaf_with(&ours, vec![uri("https://x/ns/a/sa/b")])),
            false,
        ),
        ("foreign trust domain", of(elsewhere), false),
        ("expired", of(expired), false),
    ];
    for (case, cert, admitted) in cases {
        let result = handshake(&server, client(&ours, cert));
        assert_eq!(result.is_ok(), admitted, "{case}: {result:?}");
    }
}

#[test]
fn server_certificate_needs_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    assert!(matches!(
        ca.issue_server(&[], &[], now()),
        Err(CaError::Name(_))
    ));
    let local = "127.0.0.1".parse().unwrap();
    assert!(ca.issue_server(&["localhost"], &[local], now()).is_ok());
}
