//! Requests are data: only a key whose owner signed is taken.

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use x509_cert::der::Encode;
use x509_cert::der::asn1::Ia5String;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::support::csr_pem;
use crate::{CSR_BYTES_MAX, Csr, CsrError};

fn file(name: &str) -> String {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/csr");
    std::fs::read_to_string(format!("{dir}/{name}.pem")).unwrap()
}

#[test]
fn only_accepted_keys_signed_by_themselves_are_taken() {
    let accepted = [
        "p256",
        "p256-ca",
        "p256-extensions",
        "p256-other-san",
        "p384",
        "ed25519",
        "rsa2048",
    ];
    for name in accepted {
        let csr = Csr::from_pem(&file(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let named = ["p256-ca", "p256-other-san"].contains(&name);
        assert_eq!(csr.has_common_name(), named, "{name}");
    }
    let refused = [
        ("p256-sha1", CsrError::Algorithm),
        ("p256-explicit", CsrError::Key),
        ("p256-compressed", CsrError::Key),
        ("p521", CsrError::Key),
        ("p224", CsrError::Key),
        ("secp256k1", CsrError::Key),
        ("ed448", CsrError::Key),
        ("rsa1024", CsrError::Key),
        ("rsa2047", CsrError::Key),
        ("rsa2048-pss", CsrError::Algorithm),
        ("garbage", CsrError::Pem),
        ("not-pkcs10", CsrError::Malformed),
        ("two-blocks", CsrError::Pem),
    ];
    for (name, error) in refused {
        assert_eq!(Csr::from_pem(&file(name)), Err(error), "{name}");
    }
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/csr"));
    assert_eq!(files.unwrap().count(), accepted.len() + refused.len());
}

#[test]
fn everything_that_is_no_request_is_refused() {
    let good = csr_pem();
    let key = KeyPair::generate().unwrap().serialize_pem();
    let cases = [
        ("empty", String::new(), CsrError::Pem),
        ("private key", key.clone(), CsrError::Pem),
        (
            "request and private key",
            format!("{good}{key}"),
            CsrError::Pem,
        ),
        (
            "key labelled as request",
            key.replace("PRIVATE KEY", "CERTIFICATE REQUEST"),
            CsrError::Malformed,
        ),
        (
            "certificate",
            good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
            CsrError::Pem,
        ),
        ("cut", good[..good.len() / 2].to_owned(), CsrError::Pem),
        (
            "second block begins",
            format!("{good}-----BEGIN CERTIFICATE REQUEST-----\n"),
            CsrError::Pem,
        ),
        ("10 MiB", "A".repeat(10 << 20), CsrError::TooLarge),
        (
            "over the limit by one",
            format!("{good}{}", "\n".repeat(CSR_BYTES_MAX + 1 - good.len())),
            CsrError::TooLarge,
        ),
    ];
    for (case, text, error) in cases {
        assert_eq!(Csr::from_pem(&text), Err(error), "{case}");
    }
    assert!(Csr::from_pem(&good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")).is_ok());
    assert!(Csr::from_pem(&good.replace('\n', "\r\n")).is_ok());
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let der = pem::parse(csr_pem()).unwrap().into_contents();
    assert!(Csr::from_der(&der).is_ok());
    // The last bytes are the signature's; the first ones of the content are the version.
    let mut wrong = der.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(Csr::from_der(&wrong), Err(CsrError::Signature));
    let mut trailing = der;
    trailing.push(0);
    assert_eq!(Csr::from_der(&trailing), Err(CsrError::Malformed));
}

#[test]
fn the_request_of_pilot_agent_is_taken() {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "");
    let uri = Ia5String::new("spiffe://cluster.local/ns/guess/sa/guess").unwrap();
    let names = SubjectAltName(vec![GeneralName::UniformResourceIdentifier(uri)]);
    let mut san = CustomExtension::from_oid_content(&[2, 5, 29, 17], names.to_der().unwrap());
    san.set_criticality(true);
    params.custom_extensions.push(san);
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let csr = Csr::from_pem(&pem).unwrap();
    assert!(!csr.has_common_name());
    // An empty common name is none.
    params.distinguished_name.push(DnType::CommonName, "");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    assert!(!Csr::from_pem(&pem).unwrap().has_common_name());
}

/// What the fuzz target does, with mutations from a fixed seed.
#[test]
fn mutated_requests_never_panic_and_are_never_taken_for_others() {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for name in ["p256-extensions", "p384", "ed25519", "rsa2048", "p521"] {
        let der = pem::parse(file(name)).unwrap().into_contents();
        let original = Csr::from_der(&der).ok();
        for _ in 0..1500 {
            let mut bytes = der.clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                    1 => bytes[at] ^= 1 << random(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, u8::try_from(random(256)).unwrap()),
                }
            }
            if let Ok(csr) = Csr::from_der(&bytes) {
                assert_eq!(Some(csr), original, "{name}");
            }
            let text = String::from_utf8_lossy(&bytes);
            assert!(Csr::from_pem(&text).is_err());
        }
    }
}
