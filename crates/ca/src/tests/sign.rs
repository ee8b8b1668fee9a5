//! What a certificate says, for every rule of it.

use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::support::{MemoryStore, authority, csr, openssl_verify, secs};
use super::{id, now};
use crate::{Authority, Csr, SignError, TtlPolicy};

const ALICE: &str = "spiffe://cluster.local/ns/a/sa/alice";
const DAY_SECS: i64 = 24 * 3600;

fn with_leaf<T>(response: &[String], look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let der = pem::parse(&response[0]).unwrap().into_contents();
    let (rest, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(rest.is_empty());
    look(&cert)
}

#[test]
fn a_leaf_is_an_x509_svid() {
    let authority = authority(&MemoryStore::default(), now());
    let response = authority.sign(&csr(), &id(ALICE), 0, now()).unwrap();
    assert_eq!(response.len(), 2, "leaf and root bundle");
    assert_eq!(response[1], authority.bundle().unwrap().pem());
    assert!(response.iter().all(|element| element.ends_with("-----\n")));
    with_leaf(&response, |cert| {
        assert_eq!(cert.version().0, 2, "v3");
        assert_eq!(cert.subject().iter().count(), 0, "empty subject");
        let san = cert.subject_alternative_name().unwrap().unwrap();
        assert!(san.critical);
        assert_eq!(san.value.general_names, [GeneralName::URI(ALICE)]);
        let constraints = cert.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && !constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, None);
        let usage = cert.key_usage().unwrap().unwrap();
        // digitalSignature and keyEncipherment alone: bits 0 and 2.
        assert_eq!((usage.critical, usage.value.flags), (true, 0b101));
        let extended = cert.extended_key_usage().unwrap().unwrap();
        assert!(extended.value.server_auth && extended.value.client_auth);
        assert!(!extended.value.any && !extended.value.code_signing);
        assert!(extended.value.other.is_empty() && !extended.critical);
        let serial = cert.raw_serial();
        assert!(
            serial.len() == 16 && serial[0] & 0x80 == 0,
            "128 bits, positive"
        );
        let has_authority = cert.extensions().iter().any(|e| {
            matches!(
                e.parsed_extension(),
                ParsedExtension::AuthorityKeyIdentifier(_)
            )
        });
        assert!(has_authority);
        assert_eq!(cert.extensions().len(), 5, "and nothing else");
    });
    assert_ne!(openssl_verify(&response, &response[1], now()), Some(false));
}

#[test]
fn nothing_of_a_request_but_its_key_is_certified() {
    let authority = authority(&MemoryStore::default(), now());
    for name in [
        "p256-ca",
        "p256-other-san",
        "p256-extensions",
        "rsa2048",
        "ed25519",
        "p384",
    ] {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/csr");
        let pem = std::fs::read_to_string(format!("{dir}/{name}.pem")).unwrap();
        let csr = Csr::from_pem(&pem).unwrap();
        let response = authority.sign(&csr, &id(ALICE), 0, now()).unwrap();
        with_leaf(&response, |cert| {
            assert_eq!(cert.public_key().raw, csr.spki_der(), "{name}");
            let san = cert.subject_alternative_name().unwrap().unwrap();
            assert!(san.critical, "{name}");
            assert_eq!(san.value.general_names, [GeneralName::URI(ALICE)], "{name}");
            assert!(!cert.is_ca(), "{name}");
            assert_eq!(cert.extensions().len(), 5, "{name}");
            let text = cert.subject().to_string();
            let expected = if csr.has_common_name() {
                format!("CN={ALICE}")
            } else {
                String::new()
            };
            assert_eq!(text, expected, "{name}");
        });
        assert_ne!(
            openssl_verify(&response, &response[1], now()),
            Some(false),
            "{name}"
        );
    }
}

#[test]
fn a_common_name_that_is_too_long_is_left_out() {
    let authority = authority(&MemoryStore::default(), now());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "x");
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let csr = Csr::from_pem(&pem).unwrap();
    // The rest of the URI has 31 characters.
    for (len, named) in [(33, true), (34, false)] {
        let identity = id(&format!(
            "spiffe://cluster.local/ns/a/sa/{}",
            "s".repeat(len)
        ));
        assert_eq!(identity.to_string().len() <= 64, named);
        let response = authority.sign(&csr, &identity, 0, now()).unwrap();
        with_leaf(&response, |cert| {
            assert_eq!(
                cert.subject().iter_common_name().count(),
                usize::from(named)
            );
            assert!(cert.subject_alternative_name().unwrap().unwrap().critical);
        });
    }
}

#[test]
fn life_follows_the_table() {
    let authority = authority(&MemoryStore::default(), now());
    let at = now();
    let max = 90 * DAY_SECS;
    for (asked, life) in [
        (0, Some(DAY_SECS)),
        (-1, Some(DAY_SECS)),
        (i64::MIN, Some(DAY_SECS)),
        (1, Some(1)),
        (3600, Some(3600)),
        (max, Some(max)),
        (max + 1, None),
        (i64::MAX / 1_000_000_000 + 1, None),
        (i64::MAX, None),
    ] {
        match (authority.sign(&csr(), &id(ALICE), asked, at), life) {
            (Ok(response), Some(life)) => with_leaf(&response, |cert| {
                let validity = cert.validity();
                assert_eq!(validity.not_before.timestamp(), secs(at) - 120, "{asked}");
                assert_eq!(validity.not_after.timestamp(), secs(at) + life, "{asked}");
            }),
            (Err(error), None) => {
                let max_secs = max.unsigned_abs();
                assert_eq!(
                    error,
                    SignError::Ttl {
                        asked_secs: asked,
                        max_secs
                    }
                );
                assert_eq!(error.label(), "TTL_ERROR");
            }
            (result, _) => panic!("{asked}: {result:?}"),
        }
    }
}

#[test]
fn nothing_outlives_the_signer_and_an_expired_one_signs_nothing() {
    let authority = authority(&MemoryStore::default(), now());
    let end = authority.signer().unwrap().not_after();
    let late = end - Duration::from_secs(600);
    let response = authority.sign(&csr(), &id(ALICE), DAY_SECS, late).unwrap();
    with_leaf(&response, |cert| {
        assert_eq!(cert.validity().not_after.timestamp(), secs(end));
    });
    let error = authority.sign(&csr(), &id(ALICE), 60, end).unwrap_err();
    assert_eq!(error.label(), "CERT_GEN_ERROR");
}

#[test]
fn an_authority_without_signer_is_not_ready() {
    let authority = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
    let error = authority.sign(&csr(), &id(ALICE), 0, now()).unwrap_err();
    assert_eq!((error.label(), authority.bundle()), ("CA_NOT_READY", None));
}

#[test]
fn foreign_trust_domains_are_not_certified() {
    let authority = authority(&MemoryStore::default(), now());
    for foreign in [
        "spiffe://other/ns/a/sa/b",
        "spiffe://Cluster.local/ns/a/sa/b",
        "spiffe://cluster.local/ns/../sa/b",
    ] {
        let error = authority.sign(&csr(), &id(foreign), 0, now()).unwrap_err();
        assert_eq!(error.label(), "CERT_GEN_ERROR", "{foreign}");
    }
}

#[test]
fn lives_that_make_no_sense_are_refused() {
    let hour = Duration::from_secs(3600);
    assert!(TtlPolicy::new(Duration::ZERO, hour).is_err());
    assert!(TtlPolicy::new(2 * hour, hour).is_err());
    assert!(TtlPolicy::new(hour, Duration::MAX).is_err());
    assert_eq!(TtlPolicy::new(hour, hour).unwrap().resolve(0), Ok(hour));
}
