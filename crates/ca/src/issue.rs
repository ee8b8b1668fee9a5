//! Leaf certificates and the TLS server configuration.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::SpiffeId;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::peer::SpiffeClientVerifier;
use crate::root::set_validity;
use crate::{CaError, DevCa, files};

/// Life of the serving certificate, before it is clamped to the root's.
/// Source: spec/control-plane.md §1.2.
const SERVER_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Names on one serving certificate.
const SERVER_NAMES_MAX: usize = 256;

/// A new certificate and its private key.
pub struct Issued {
    /// The leaf, then the root.
    pub chain_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: String,
    leaf_der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("chain_pem", &self.chain_pem)
            .finish_non_exhaustive()
    }
}

impl Issued {
    /// The leaf in DER form.
    pub fn leaf_der(&self) -> &CertificateDer<'static> {
        &self.leaf_der
    }
}

/// Where the certificate files of a workload were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFiles {
    /// The leaf, then the root.
    pub cert_chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The root.
    pub root: PathBuf,
}

// === impl DevCa ===

impl DevCa {
    /// A certificate for a workload: one critical URI name, empty subject, valid
    /// for `ttl` from `now` but never longer than the root.
    ///
    /// # Errors
    /// [`CaError::Name`] for an identity of another trust domain or one that does
    /// not read back as itself.
    pub fn issue_workload(
        &self,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let uri = id.to_string();
        let is_plain = uri
            .chars()
            .all(|c| c.is_ascii_graphic() && !"%?#\\\"".contains(c));
        if !is_plain || uri.parse::<SpiffeId>().as_ref() != Ok(id) {
            return Err(CaError::Name("not a workload identity".to_owned()));
        }
        if id.trust_domain != self.trust_domain {
            return Err(CaError::Name(format!(
                "{uri} is outside of the trust domain {}",
                self.trust_domain
            )));
        }
        let uri = uri.as_str().try_into().map_err(CaError::crypto)?;
        self.issue(vec![SanType::URI(uri)], ttl, now)
    }

    /// A serving certificate for host names and addresses.
    ///
    /// # Errors
    /// [`CaError::Name`] when no name is given, too many, or one is not ASCII.
    pub fn issue_server(
        &self,
        dns: &[&str],
        ips: &[IpAddr],
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        if dns.is_empty() && ips.is_empty() || dns.len() + ips.len() > SERVER_NAMES_MAX {
            return Err(CaError::Name(
                "a serving certificate needs 1 to 256 names".to_owned(),
            ));
        }
        let mut sans = Vec::with_capacity(dns.len() + ips.len());
        for name in dns {
            let name = (*name)
                .try_into()
                .map_err(|_| CaError::Name(format!("{name:?} is not a host name")))?;
            sans.push(SanType::DnsName(name));
        }
        sans.extend(ips.iter().copied().map(SanType::IpAddress));
        self.issue(sans, SERVER_TTL, now)
    }

    /// Writes `cert-chain.pem`, `key.pem` and `root-cert.pem` for a workload into
    /// `dir`: mode 0600, each file replaced atomically.
    ///
    /// # Errors
    /// As [`DevCa::issue_workload`], and [`CaError::Io`].
    pub fn write_workload_files(
        &self,
        dir: &Path,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<WorkloadFiles, CaError> {
        let issued = self.issue_workload(id, ttl, now)?;
        files::create_dir(dir)?;
        let paths = WorkloadFiles {
            cert_chain: dir.join("cert-chain.pem"),
            key: dir.join("key.pem"),
            root: dir.join("root-cert.pem"),
        };
        files::write_private(&paths.root, self.root_pem.as_bytes())?;
        files::write_private(&paths.key, issued.key_pem.as_bytes())?;
        files::write_private(&paths.cert_chain, issued.chain_pem.as_bytes())?;
        Ok(paths)
    }

    /// A TLS configuration for serving under the given names: TLS 1.2 and 1.3,
    /// ALPN `h2`, a client certificate of this mesh required.
    ///
    /// # Errors
    /// As [`DevCa::issue_server`].
    pub fn server_config(
        &self,
        dns: &[&str],
        ips: &[IpAddr],
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, CaError> {
        let issued = self.issue_server(dns, ips, now)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            SpiffeClientVerifier::new(self.root_der.clone(), self.trust_domain.clone(), &provider)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.key_der));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(CaError::crypto)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(vec![issued.leaf_der, self.root_der.clone()], key)
            .map_err(CaError::crypto)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Streams live long; a resumed session would skip the check of the certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn issue(&self, sans: Vec<SanType>, ttl: Duration, now: SystemTime) -> Result<Issued, CaError> {
        if self.not_after <= now {
            return Err(CaError::Expired {
                path: self.root_path(),
            });
        }
        let key = KeyPair::generate().map_err(CaError::crypto)?;
        let mut params = CertificateParams::default();
        // The empty subject is what makes the encoder mark the names critical.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = sans;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let end = now
            .checked_add(ttl)
            .map_or(self.not_after, |end| end.min(self.not_after));
        set_validity(&mut params, now, end)?;
        let cert = params
            .signed_by(&key, &self.issuer)
            .map_err(CaError::crypto)?;
        Ok(Issued {
            chain_pem: format!("{}{}", cert.pem(), self.root_pem),
            key_pem: key.serialize_pem(),
            leaf_der: cert.der().clone(),
            key_der: key.serialize_der(),
        })
    }
}
