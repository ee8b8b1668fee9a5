//! The root: created once, then only read.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Str;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::time::ASN1Time;

use crate::{CaError, files};

/// Life of a new root: 3650 days.
const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far certificates are dated back for clocks that lag.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(120);
/// Directory of the root inside the state directory.
const CA_DIR: &str = "ca";
const CERT_FILE: &str = "root-cert.pem";
const KEY_FILE: &str = "root-key.pem";
/// Subject of the root.
const SUBJECT: &str = "ambientd";

/// A certificate authority whose only key is its root, for development meshes.
pub struct DevCa {
    pub(crate) trust_domain: Str,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) root_der: CertificateDer<'static>,
    pub(crate) root_pem: String,
    /// End of the root's validity.
    pub(crate) not_after: SystemTime,
    dir: PathBuf,
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa")
            .field("trust_domain", &self.trust_domain)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

// === impl DevCa ===

impl DevCa {
    /// Reads the root under `<dir>/ca`, or creates it when that directory does
    /// not exist. Two processes that create at once end up with one root.
    ///
    /// # Errors
    /// Everything that is present but missing, broken, expired or open to others
    /// is an error and stays as it is; see [`CaError`].
    pub fn load_or_create(
        dir: &Path,
        trust_domain: &str,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let ca_dir = dir.join(CA_DIR);
        if !has_entries(&ca_dir)? {
            create(&ca_dir, now)?;
        }
        Self::load(&ca_dir, trust_domain, now)
    }

    fn load(ca_dir: &Path, trust_domain: &str, now: SystemTime) -> Result<Self, CaError> {
        check_trust_domain(trust_domain)?;
        let cert_path = ca_dir.join(CERT_FILE);
        let key_path = ca_dir.join(KEY_FILE);
        let root_pem = files::read_text(&cert_path)?;
        files::require_private(&key_path)?;
        let key = KeyPair::from_pem(&files::read_text(&key_path)?)
            .map_err(|_| CaError::corrupt(&key_path, "not a private key in PEM form"))?;
        let root_der = CertificateDer::from_pem_slice(root_pem.as_bytes())
            .map_err(|_| CaError::corrupt(&cert_path, "not a certificate in PEM form"))?;
        let not_after =
            check_root(&root_der, &key).map_err(|reason| CaError::corrupt(&cert_path, reason))?;
        if not_after <= now {
            return Err(CaError::Expired { path: cert_path });
        }
        let issuer = Issuer::from_ca_cert_der(&root_der, key)
            .map_err(|e| CaError::corrupt(&cert_path, e.to_string()))?;
        Ok(Self {
            trust_domain: trust_domain.into(),
            issuer,
            root_der,
            root_pem,
            not_after,
            dir: ca_dir.to_owned(),
        })
    }

    /// The root certificate in PEM form: what every client must trust.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The trust domain of every identity that this CA certifies.
    pub fn trust_domain(&self) -> &Str {
        &self.trust_domain
    }

    /// The path of the root certificate.
    pub fn root_path(&self) -> PathBuf {
        self.dir.join(CERT_FILE)
    }
}

fn has_entries(dir: &Path) -> Result<bool, CaError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(CaError::io(dir, e)),
    }
}

/// Writes key and certificate into a fresh directory and renames it into place,
/// so that neither a crash nor a second process can leave half a root.
fn create(ca_dir: &Path, now: SystemTime) -> Result<(), CaError> {
    let key = KeyPair::generate().map_err(CaError::crypto)?;
    let params = root_params(now)?;
    let cert = params.self_signed(&key).map_err(CaError::crypto)?;
    let temporary = files::sibling(ca_dir);
    files::create_dir(&temporary)?;
    let placed = files::write_new(&temporary.join(KEY_FILE), key.serialize_pem().as_bytes())
        .and_then(|()| files::write_new(&temporary.join(CERT_FILE), cert.pem().as_bytes()))
        .and_then(|()| fs::rename(&temporary, ca_dir))
        .and_then(|()| files::sync_parent(ca_dir));
    match placed {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = fs::remove_dir_all(&temporary);
            // Another process was faster: its root is the root.
            if has_entries(ca_dir)? {
                Ok(())
            } else {
                Err(CaError::io(ca_dir, error))
            }
        }
    }
}

fn root_params(now: SystemTime) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, SUBJECT);
    subject.push(DnType::CommonName, SUBJECT);
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, now + ROOT_TTL)?;
    Ok(params)
}

/// Validity from `now` minus the allowance for lagging clocks until `end`.
pub(crate) fn set_validity(
    params: &mut CertificateParams,
    now: SystemTime,
    end: SystemTime,
) -> Result<(), CaError> {
    let at = |time: SystemTime| {
        let secs = time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let secs = i64::try_from(secs).unwrap_or(i64::MAX);
        ASN1Time::from_timestamp(secs)
            .map(|t| t.to_datetime())
            .map_err(CaError::crypto)
    };
    params.not_before = at(now.checked_sub(CLOCK_SKEW).unwrap_or(UNIX_EPOCH))?;
    params.not_after = at(end)?;
    Ok(())
}

/// The end of the root's validity, or why it cannot serve as the root.
fn check_root(root: &CertificateDer<'_>, key: &KeyPair) -> Result<SystemTime, String> {
    let (rest, cert) =
        x509_parser::parse_x509_certificate(root).map_err(|_| "not a certificate".to_owned())?;
    if !rest.is_empty() {
        return Err("bytes after the certificate".to_owned());
    }
    if !cert.is_ca() {
        return Err("not the certificate of a CA".to_owned());
    }
    if cert.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err("does not belong to the private key beside it".to_owned());
    }
    cert.verify_signature(None)
        .map_err(|_| "not signed by its own key".to_owned())?;
    let end = u64::try_from(cert.validity().not_after.timestamp())
        .map_err(|_| "has no usable end of validity".to_owned())?;
    Ok(UNIX_EPOCH + Duration::from_secs(end))
}

fn check_trust_domain(trust_domain: &str) -> Result<(), CaError> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if trust_domain.is_empty() || trust_domain.len() > 255 || !trust_domain.chars().all(is_plain) {
        return Err(CaError::Name(format!(
            "{:?} is not a trust domain",
            trust_domain.chars().take(255).collect::<String>()
        )));
    }
    Ok(())
}
