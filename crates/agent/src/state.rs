//! What the parts of the agent share: roots and certificate, in one watched value.

use std::sync::Arc;

use tokio::sync::watch;

use crate::bundle::Bundle;
use crate::certificate::Credentials;

/// Resource name of the certificate. Source: spec/envoy-config.md §7.1.
pub(crate) const CERTIFICATE: &str = "default";
/// Resource name of the roots.
pub(crate) const ROOTS: &str = "ROOTCA";

/// The secrets as they are now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    /// Roots of the root file.
    pub(crate) file_roots: Bundle,
    /// The certificate in use.
    pub(crate) credentials: Option<Arc<Credentials>>,
    /// Why there is no newer one.
    pub(crate) failure: Option<String>,
}

pub(crate) type SecretsTx = watch::Sender<Secrets>;
pub(crate) type SecretsRx = watch::Receiver<Secrets>;

// === impl Secrets ===

impl Secrets {
    /// What is trusted: the root file and the latest answer of the authority together, so
    /// that both sides of a rotation are known at any time.
    pub(crate) fn bundle(&self) -> Bundle {
        match &self.credentials {
            Some(credentials) => self.file_roots.union(&credentials.roots),
            None => self.file_roots.clone(),
        }
    }

    /// An encoded secret by its resource name, if it exists yet.
    pub(crate) fn resource(&self, name: &str) -> Option<Vec<u8>> {
        match name {
            CERTIFICATE => self.credentials.as_ref().map(|credentials| {
                envoy::emit::tls_secret(name, &credentials.chain_pem, &credentials.key_pem)
            }),
            ROOTS => {
                let bundle = self.bundle();
                (!bundle.is_empty()).then(|| envoy::emit::validation_secret(name, &bundle.to_pem()))
            }
            _ => None,
        }
    }
}
