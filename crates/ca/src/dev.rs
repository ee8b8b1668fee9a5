//! An authority over a root under a state directory, with everything that
//! development and tests want of it in one place.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::{SpiffeId, Str};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

use crate::peer::SpiffeClientVerifier;
use crate::root::{self, FileStore};
use crate::{Authority, CaError, ClientAuth, Issued, RootPolicy, TtlPolicy, files};

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

/// An [`Authority`] whose root is read from, or created in, a state directory.
#[derive(Debug)]
pub struct DevCa {
    authority: Arc<Authority>,
    root_pem: String,
    root_path: PathBuf,
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
        let authority = Authority::new(trust_domain, TtlPolicy::default())?;
        let store = FileStore::new(dir);
        let signer = root::load_or_create(&store, trust_domain, now)?;
        let root_pem = signer.bundle().pem().to_owned();
        authority.install(signer, RootPolicy::Renewable)?;
        Ok(Self {
            authority: Arc::new(authority),
            root_pem,
            root_path: store.root_path(),
        })
    }

    /// The authority itself.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The root certificate in PEM form: what every client must trust.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The trust domain of every identity that this CA certifies.
    pub fn trust_domain(&self) -> Str {
        self.authority.trust_domain()
    }

    /// The path of the root certificate.
    pub fn root_path(&self) -> PathBuf {
        self.root_path.clone()
    }

    /// See [`Authority::issue_workload`].
    ///
    /// # Errors
    /// As there.
    pub fn issue_workload(
        &self,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        self.authority.issue_workload(id, ttl, now)
    }

    /// See [`Authority::issue_server`].
    ///
    /// # Errors
    /// As there.
    pub fn issue_server(
        &self,
        dns: &[&str],
        ips: &[IpAddr],
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        self.authority.issue_server(dns, ips, now)
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
            SpiffeClientVerifier::watching(&self.authority, ClientAuth::Required, &provider);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(CaError::crypto)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(issued.tls_chain().to_vec(), issued.tls_key()?)
            .map_err(CaError::crypto)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Streams live long; a resumed session would skip the check of the certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}
