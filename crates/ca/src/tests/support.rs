//! What several tests need.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::root::{Created, RootStore, StoredRoot};
use crate::{Authority, CaError, Csr, Part, RootPolicy, TtlPolicy, root};

pub(super) fn root_der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A store in memory.
#[derive(Default)]
pub(super) struct MemoryStore(pub(super) Mutex<Option<StoredRoot>>);

impl RootStore for MemoryStore {
    fn load(&self) -> Result<Option<StoredRoot>, CaError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn create(&self, root: &StoredRoot) -> Result<Created, CaError> {
        let mut kept = self.0.lock().unwrap();
        if kept.is_some() {
            return Ok(Created::Theirs);
        }
        *kept = Some(root.clone());
        Ok(Created::Ours)
    }

    fn replace(&self, old: &StoredRoot, new: &StoredRoot) -> Result<(), CaError> {
        let mut kept = self.0.lock().unwrap();
        if kept.as_ref() != Some(old) {
            return Err(CaError::Conflict);
        }
        *kept = Some(new.clone());
        Ok(())
    }

    fn place(&self, part: Part) -> PathBuf {
        PathBuf::from(format!("memory/{part:?}"))
    }
}

/// An authority over a fresh root.
pub(super) fn authority(store: &MemoryStore, now: SystemTime) -> Authority {
    let authority = Authority::new("cluster.local", TtlPolicy::default()).unwrap();
    let signer = root::load_or_create(store, "cluster.local", now).unwrap();
    authority.install(signer, RootPolicy::Renewable).unwrap();
    authority
}

/// A request as pilot-agent and ztunnel would send it, over a new key.
pub(super) fn csr_pem() -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

pub(super) fn csr() -> Csr {
    Csr::from_pem(&csr_pem()).unwrap()
}

/// Seconds since 1970.
pub(super) fn secs(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .cast_signed()
}

/// Verifies a response as a client does that trusts `roots`: the leaf through the
/// middle elements. `None` when there is no openssl here, which CI does not accept.
pub(super) fn openssl_verify(response: &[String], roots: &str, at: SystemTime) -> Option<bool> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (leaf, middle) = (&response[0], &response[1..response.len() - 1]);
    let mut args: Vec<OsString> = ["verify", "-x509_strict", "-no-CApath", "-no-CAstore"]
        .map(OsString::from)
        .to_vec();
    args.extend(["-attime".into(), secs(at).to_string().into()]);
    args.extend(["-CAfile".into(), write("roots.pem", roots).into()]);
    if !middle.is_empty() {
        let chain = write("chain.pem", &middle.concat());
        args.extend(["-untrusted".into(), chain.into()]);
    }
    let leaf = write("leaf.pem", leaf);
    for purpose in ["sslclient", "sslserver"] {
        let mut command = Command::new("openssl");
        command.args(&args).args(["-purpose", purpose]).arg(&leaf);
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                eprintln!("{}", String::from_utf8_lossy(&output.stderr));
                return Some(false);
            }
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "openssl: {error}");
                eprintln!("no openssl here: chains were not verified with it");
                return None;
            }
        }
    }
    Some(true)
}
