//! Plugged-in CAs: layouts, checks, responses, changes.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};

use super::support::{csr, openssl_verify};
use super::{HOUR, id, now};
use crate::cert::{CaCert, sign_root, to_pem};
use crate::key::PrivateKey;
use crate::{Authority, CaCerts, CaError, RootPolicy, Source, TtlPolicy, watch};

const ALICE: &str = "spiffe://cluster.local/ns/a/sa/alice";

/// A CA made by another tool than ours.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 1, 1);
    params
}

fn make(params: CertificateParams, above: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let cert = match above {
        None => params.self_signed(&key).unwrap(),
        Some(above) => {
            let mut params = params.clone();
            params.use_authority_key_identifier_extension = true;
            let issuer = Issuer::from_params(&above.params, &above.key);
            params.signed_by(&key, &issuer).unwrap()
        }
    };
    let pem = cert.pem().replace("\r\n", "\n");
    Made { params, key, pem }
}

fn root(name: &str) -> Made {
    make(params(name), None)
}

fn below(name: &str, above: &Made) -> Made {
    make(params(name), Some(above))
}

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
}

fn write_istio(dir: &Path, signer: &Made, chain: &str, roots: &str) {
    let key = signer.key.serialize_pem();
    write(
        dir,
        &[
            ("ca-cert.pem", signer.pem.as_str()),
            ("ca-key.pem", &key),
            ("cert-chain.pem", chain),
            ("root-cert.pem", roots),
        ],
    );
}

fn load(dir: &Path) -> Result<crate::Loaded, CaError> {
    CaCerts::detect(dir, true)
        .and_then(|found| found.expect("there is a plugged-in CA").load(now()))
}

fn respond(dir: &Path) -> Vec<String> {
    let authority = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
    authority
        .install(load(dir).unwrap().signer, RootPolicy::Fixed)
        .unwrap();
    authority.sign(&csr(), &id(ALICE), 0, now()).unwrap()
}

#[test]
fn responses_hold_each_intermediate_alone_and_the_whole_bundle_last() {
    let (old, other) = (root("root"), root("other"));
    let upper = below("upper", &old);
    let lower = below("lower", &upper);
    let both = format!("{}{}", old.pem, other.pem);
    let chain = format!("{}{}", lower.pem, upper.pem);
    let cases: [(&str, &Made, &str, &str, Vec<&str>); 4] = [
        (
            "two intermediates",
            &lower,
            &chain,
            &old.pem,
            vec![&lower.pem, &upper.pem, &old.pem],
        ),
        (
            "two roots",
            &lower,
            &chain,
            &both,
            vec![&lower.pem, &upper.pem, &both],
        ),
        ("signed by the root", &old, "", &old.pem, vec![&old.pem]),
        (
            "one intermediate",
            &upper,
            &upper.pem,
            &old.pem,
            vec![&upper.pem, &old.pem],
        ),
    ];
    for (case, signer, chain, roots, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        write_istio(dir.path(), signer, chain, roots);
        let response = respond(dir.path());
        assert_eq!(response[1..], expected, "{case}");
        assert_eq!(
            response[0].matches("BEGIN CERTIFICATE").count(),
            1,
            "{case}"
        );
        assert_ne!(
            openssl_verify(&response, roots, now()),
            Some(false),
            "{case}"
        );
        assert_ne!(
            openssl_verify(&response, &other.pem, now()),
            Some(true),
            "{case}"
        );
    }
}

#[test]
fn the_layout_of_a_tls_secret_is_read() {
    let root = root("root");
    let signer = below("signer", &root);
    let dir = tempfile::tempdir().unwrap();
    let key = signer.key.serialize_pem();
    write(
        dir.path(),
        &[
            ("tls.crt", signer.pem.as_str()),
            ("tls.key", &key),
            ("ca.crt", &root.pem),
        ],
    );
    let response = respond(dir.path());
    assert_eq!(response[1..], [signer.pem, root.pem.clone(), root.pem]);
}

#[test]
fn names_with_repeated_attributes_are_kept_byte_for_byte() {
    let key = PrivateKey::generate().unwrap();
    let name = "CN=issuing,DC=corp,DC=example,DC=com".parse().unwrap();
    let der = sign_root(name, &key, None, now() - HOUR, now() + HOUR).unwrap();
    assert!(CaCert::parse(&der).is_ok());
    let dir = tempfile::tempdir().unwrap();
    let (pem, key) = (to_pem(&der), key.pem().to_string());
    write(
        dir.path(),
        &[
            ("ca-cert.pem", pem.as_str()),
            ("ca-key.pem", &key),
            ("root-cert.pem", &pem),
            ("cert-chain.pem", ""),
        ],
    );
    let response = respond(dir.path());
    assert_ne!(openssl_verify(&response, &pem, now()), Some(false));
}

#[test]
fn half_a_plugged_in_ca_is_an_error_that_names_what_is_missing() {
    let root = root("root");
    let dir = tempfile::tempdir().unwrap();
    assert!(CaCerts::detect(dir.path(), true).unwrap().is_none());
    assert!(
        CaCerts::detect(&dir.path().join("absent"), true)
            .unwrap()
            .is_none()
    );
    let cases: [(&[&str], &str); 7] = [
        (&["root-cert.pem"], "ca-cert.pem"),
        (
            &["ca-cert.pem", "ca-key.pem", "root-cert.pem"],
            "cert-chain.pem",
        ),
        (
            &["ca-cert.pem", "root-cert.pem", "cert-chain.pem"],
            "ca-key.pem",
        ),
        (
            &["ca-cert.pem", "ca-key.pem", "cert-chain.pem"],
            "root-cert.pem",
        ),
        (&["tls.crt"], "tls.key"),
        (&["tls.crt", "tls.key"], "ca.crt"),
        (&["tls.key", "ca.crt"], "tls.crt"),
    ];
    for (present, absent) in cases {
        let dir = tempfile::tempdir().unwrap();
        for name in present {
            write(dir.path(), &[(name, root.pem.as_str())]);
        }
        let state = tempfile::tempdir().unwrap();
        let error = Source::select(Some(dir.path()), true, false, state.path()).err();
        match error {
            Some(CaError::Partial { missing, .. }) => assert_eq!(missing, absent),
            other => panic!("{present:?}: {other:?}"),
        }
        assert_eq!(
            fs::read_dir(state.path()).unwrap().count(),
            0,
            "no root of our own"
        );
    }
}

#[test]
fn parts_that_do_not_fit_name_their_file() {
    type Parts<'a> = (&'a str, &'a str, &'a str, &'a str);
    let root = root("root");
    let stranger = self::root("stranger");
    let signer = below("signer", &root);
    let mut leaf = params("leaf");
    leaf.is_ca = IsCa::NoCa;
    let leaf = make(leaf, Some(&root));
    let mut old = params("old");
    old.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let old = make(old, Some(&root));
    let key = signer.key.serialize_pem();
    let leaf_key = leaf.key.serialize_pem();
    let old_key = old.key.serialize_pem();
    let stranger_key = stranger.key.serialize_pem();
    let exposed = format!("{}{key}", root.pem);
    let cases: [(&str, Parts<'_>, &str); 9] = [
        (
            "not a CA",
            (&leaf.pem, &leaf_key, &leaf.pem, &root.pem),
            "ca-cert.pem",
        ),
        (
            "foreign key",
            (&signer.pem, &stranger_key, &signer.pem, &root.pem),
            "ca-key.pem",
        ),
        (
            "garbage key",
            (&signer.pem, "x", &signer.pem, &root.pem),
            "ca-key.pem",
        ),
        (
            "foreign root",
            (&signer.pem, &key, &signer.pem, &stranger.pem),
            "ca-cert.pem",
        ),
        (
            "no chain",
            (&signer.pem, &key, "", &root.pem),
            "cert-chain.pem",
        ),
        (
            "foreign chain",
            (&signer.pem, &key, &root.pem, &root.pem),
            "cert-chain.pem",
        ),
        (
            "no root",
            (&signer.pem, &key, &signer.pem, ""),
            "root-cert.pem",
        ),
        (
            "key in bundle",
            (&signer.pem, &key, &signer.pem, &exposed),
            "root-cert.pem",
        ),
        (
            "expired",
            (&old.pem, &old_key, &old.pem, &root.pem),
            "ca-cert.pem",
        ),
    ];
    for (case, (cert, key, chain, roots), file) in cases {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("ca-cert.pem", cert),
                ("ca-key.pem", key),
                ("cert-chain.pem", chain),
                ("root-cert.pem", roots),
            ],
        );
        let error = load(dir.path()).unwrap_err();
        assert!(error.to_string().contains(file), "{case}: {error}");
        assert_eq!(
            matches!(error, CaError::Expired { .. }),
            case == "expired",
            "{case}: {error}"
        );
        assert!(!format!("{error:?}").contains("PRIVATE"), "{case}");
    }
}

/// What is claimed, the signer, the chain, the root, and which file is at fault.
type Case<'a> = (&'a str, &'a Made, String, &'a Made, Result<(), &'a str>);

#[test]
fn path_lengths_and_usages_of_every_ca_are_kept_to() {
    let limited = |name: &str, max: u8, above: Option<&Made>| {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(max));
        make(params, above)
    };
    let (none, one) = (limited("root", 0, None), limited("root", 1, None));
    let root = root("root");
    let mut signs_nothing = params("signer");
    signs_nothing.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let signs_nothing = make(signs_nothing, Some(&root));
    let (under_none, under_one) = (below("upper", &none), below("upper", &one));
    let short = limited("upper", 0, Some(&root));
    let (last, too_far, too_low) = (
        limited("signer", 0, Some(&root)),
        below("lower", &under_one),
        below("lower", &short),
    );
    let chain = |low: &Made, high: &Made| format!("{}{}", low.pem, high.pem);
    let cases: [Case<'_>; 7] = [
        (
            "a root that signs leaves",
            &none,
            String::new(),
            &none,
            Ok(()),
        ),
        ("the last CA", &last, last.pem.clone(), &root, Ok(())),
        (
            "as many as allowed",
            &under_one,
            under_one.pem.clone(),
            &one,
            Ok(()),
        ),
        (
            "one more than the root allows",
            &under_none,
            under_none.pem.clone(),
            &none,
            Err("root-cert.pem"),
        ),
        (
            "two where the root allows one",
            &too_far,
            chain(&too_far, &under_one),
            &one,
            Err("root-cert.pem"),
        ),
        (
            "below the last CA",
            &too_low,
            chain(&too_low, &short),
            &root,
            Err("cert-chain.pem"),
        ),
        (
            "a key that may not sign certificates",
            &signs_nothing,
            signs_nothing.pem.clone(),
            &root,
            Err("ca-cert.pem"),
        ),
    ];
    for (case, signer, chain, root, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        write_istio(dir.path(), signer, &chain, &root.pem);
        match (load(dir.path()), expected) {
            (Ok(_), Ok(())) => {
                let response = respond(dir.path());
                let verified = openssl_verify(&response, &root.pem, now());
                assert_ne!(verified, Some(false), "{case}");
            }
            (Err(error), Err(file)) => {
                assert!(error.to_string().contains(file), "{case}: {error}");
            }
            (found, _) => panic!("{case}: {found:?}"),
        }
    }
}

#[test]
fn keys_of_every_encoding_are_read() {
    for (algorithm, command) in [
        ("PKCS#1", "openssl genrsa -traditional 2048"),
        ("SEC1", "openssl ecparam -name secp384r1 -genkey -noout"),
        (
            "SEC1 with parameters",
            "openssl ecparam -name prime256v1 -genkey",
        ),
        ("PKCS#8 RSA", "openssl genpkey -algorithm rsa"),
        (
            "PKCS#8 EC",
            "openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256",
        ),
        ("PKCS#8 Ed25519", "openssl genpkey -algorithm ed25519"),
    ] {
        let mut words = command.split(' ');
        let output = std::process::Command::new(words.next().unwrap())
            .args(words)
            .output();
        let Ok(output) = output else {
            assert!(std::env::var_os("CI").is_none(), "no openssl");
            return;
        };
        let pem = String::from_utf8(output.stdout).unwrap();
        let key = PrivateKey::from_pem(pem.clone().into()).unwrap_or_else(|| panic!("{algorithm}"));
        assert_eq!(**key.pem(), pem, "kept as it is");
        let der = sign_root(
            "O=x".parse().unwrap(),
            &key,
            None,
            now() - HOUR,
            now() + HOUR,
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cert = to_pem(&der);
        write(
            dir.path(),
            &[
                ("ca-cert.pem", cert.as_str()),
                ("ca-key.pem", &pem),
                ("cert-chain.pem", ""),
                ("root-cert.pem", &cert),
            ],
        );
        let response = respond(dir.path());
        assert_ne!(
            openssl_verify(&response, &cert, now()),
            Some(false),
            "{algorithm}"
        );
    }
}

#[test]
fn roots_change_only_by_way_of_both() {
    type Step<'a> = (&'a Made, &'a str, bool);
    let (old, new) = (root("old"), root("new"));
    let both = format!("{}{}", old.pem, new.pem);
    let signer_of = |made: &Made, roots: &str| {
        let dir = tempfile::tempdir().unwrap();
        write_istio(dir.path(), made, "", roots);
        load(dir.path()).unwrap().signer
    };
    let cases: [(RootPolicy, &[Step<'_>]); 4] = [
        (
            RootPolicy::Fixed,
            &[
                (&old, &old.pem, true),
                (&new, &new.pem, false),
                (&old, &both, false),
            ],
        ),
        (
            RootPolicy::Overlapping,
            &[(&old, &old.pem, true), (&new, &new.pem, false)],
        ),
        (
            RootPolicy::Overlapping,
            &[
                (&old, &old.pem, true),
                (&old, &both, true),
                (&new, &both, true),
                (&new, &new.pem, true),
            ],
        ),
        (
            RootPolicy::Renewable,
            &[
                (&old, &old.pem, true),
                (&new, &new.pem, false),
                (&new, &both, true),
            ],
        ),
    ];
    for (policy, steps) in cases {
        let authority = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
        for (n, (made, roots, allowed)) in steps.iter().enumerate() {
            let before = authority.bundle();
            let result = authority.install(signer_of(made, roots), policy);
            assert_eq!(result.is_ok(), *allowed, "{policy:?} step {n}: {result:?}");
            if !allowed {
                assert_eq!(authority.bundle(), before, "{policy:?} step {n}");
            }
        }
    }
}

fn crl(of: &Made) -> String {
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2048, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let issuer = Issuer::from_params(&of.params, &of.key);
    params
        .signed_by(&issuer)
        .unwrap()
        .pem()
        .unwrap()
        .replace("\r\n", "\n")
}

#[test]
fn every_ca_of_the_chain_needs_its_revocation_list() {
    let root = root("root");
    let upper = below("upper", &root);
    let lower = below("lower", &upper);
    let forged = Made {
        params: upper.params.clone(),
        key: KeyPair::generate().unwrap(),
        pem: String::new(),
    };
    let all = format!("{}{}", crl(&lower), crl(&upper));
    let cases = [
        ("all", all.clone(), true),
        ("one missing", crl(&lower), false),
        ("forged", format!("{}{}", crl(&lower), crl(&forged)), false),
        ("garbage", "x".to_owned(), false),
        ("certificate", format!("{all}{}", root.pem), false),
    ];
    for (case, text, good) in cases {
        let dir = tempfile::tempdir().unwrap();
        write_istio(
            dir.path(),
            &lower,
            &format!("{}{}", lower.pem, upper.pem),
            &root.pem,
        );
        write(dir.path(), &[("ca-crl.pem", text.as_str())]);
        match load(dir.path()) {
            Ok(loaded) => assert!(good && loaded.crl_pem == all, "{case}"),
            Err(error) => assert!(
                !good && error.to_string().contains("ca-crl.pem"),
                "{case}: {error}"
            ),
        }
        let off = CaCerts::detect(dir.path(), false).unwrap().unwrap();
        assert_eq!(off.load(now()).unwrap().crl_pem, "", "{case}: switched off");
    }
}

#[tokio::test]
async fn a_new_intermediate_is_taken_while_running_and_a_broken_one_is_not() {
    let root = root("root");
    let (first, second) = (below("first", &root), below("second", &root));
    let dir = tempfile::tempdir().unwrap();
    write_istio(dir.path(), &first, &first.pem, &root.pem);
    let source = Source::select(Some(dir.path()), true, false, dir.path()).unwrap();
    let authority = Arc::new(Authority::new("cluster.local", TtlPolicy::default()).unwrap());
    source.start(&authority, SystemTime::now()).unwrap();
    let before = authority.signer().unwrap();

    // Half a change does not load, and changes nothing.
    write(dir.path(), &[("ca-cert.pem", second.pem.as_str())]);
    assert!(source.reload(&authority, SystemTime::now()).is_err());
    assert!(Arc::ptr_eq(&before, &authority.signer().unwrap()));

    let mut changes = authority.watch();
    changes.mark_unchanged();
    let dir_path = dir.path().to_owned();
    let following = tokio::spawn({
        let authority = Arc::clone(&authority);
        async move { watch(source, Some(&dir_path), authority).await }
    });
    // The watch may begin after a write: write until it is seen.
    let write_again = async {
        loop {
            write_istio(dir.path(), &second, &second.pem, &root.pem);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = write_again => {}
        changed = tokio::time::timeout(Duration::from_secs(30), changes.changed()) => {
            changed.expect("the change is seen").unwrap();
        }
    }
    let response = authority
        .sign(&csr(), &id(ALICE), 0, SystemTime::now())
        .unwrap();
    assert_eq!(response[1..], [second.pem, root.pem]);
    following.abort();
}
