//! A plugged-in CA: files that an operator or a Secret puts into a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use x509_cert::der::Encode;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use zeroize::Zeroizing;

use crate::signer::{Part, Signer, SignerError, SignerParts};
use crate::{CaError, files};

/// Files of Istio's layout: certificate, key, roots, chain.
const ISTIO_FILES: [&str; 4] = [
    "ca-cert.pem",
    "ca-key.pem",
    "root-cert.pem",
    "cert-chain.pem",
];
/// Files of a TLS Secret.
const TLS_FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
const CRL_FILE: &str = "ca-crl.pem";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Istio,
    TlsSecret,
}

/// What a directory gave.
#[derive(Debug)]
pub struct Loaded {
    /// What signs.
    pub signer: Signer,
    /// The revocation lists, empty when there are none.
    pub crl_pem: String,
}

/// A directory with a whole plugged-in CA (`ROOT_CA_DIR`).
#[derive(Clone, Debug)]
pub struct CaCerts {
    dir: PathBuf,
    use_crl: bool,
}

// === impl CaCerts ===

impl CaCerts {
    /// Looks for a plugged-in CA; `None` when not one of its files is there.
    /// `use_crl` is `PILOT_ENABLE_CA_CRL`.
    ///
    /// # Errors
    /// [`CaError::Partial`] when only some are: a root of our own in its place would
    /// be trusted by nobody.
    ///
    /// Source: spec/control-plane.md §4.7.
    pub fn detect(dir: &Path, use_crl: bool) -> Result<Option<Self>, CaError> {
        let found = Self {
            dir: dir.to_owned(),
            use_crl,
        };
        Ok(found.layout()?.map(|_| found))
    }

    /// The directory to watch for changes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn layout(&self) -> Result<Option<Layout>, CaError> {
        let base = self.base();
        // What cannot be looked at is not absent.
        let exists = |name: &str| {
            let path = base.join(name);
            path.try_exists().map_err(|e| CaError::io(&path, e))
        };
        let present = |names: &[&'static str]| {
            names
                .iter()
                .map(|name| Ok((*name, exists(name)?)))
                .collect::<Result<Vec<_>, CaError>>()
        };
        let (istio, tls) = (present(&ISTIO_FILES)?, present(&TLS_FILES)?);
        let any = |files: &[(&str, bool)]| files.iter().any(|(_, there)| *there);
        let (layout, wanted) = if exists("tls.crt")? {
            (Layout::TlsSecret, tls)
        } else if any(&istio) {
            (Layout::Istio, istio)
        } else if any(&tls) {
            (Layout::TlsSecret, tls)
        } else {
            return Ok(None);
        };
        match wanted.iter().find(|(_, there)| !there) {
            None => Ok(Some(layout)),
            Some((missing, _)) => Err(CaError::Partial {
                dir: self.dir.clone(),
                missing: (*missing).to_owned(),
            }),
        }
    }

    /// Mounted Secrets change by one rename of `..data`: all files are read from the
    /// directory that it names now, so that old and new are never mixed.
    fn base(&self) -> PathBuf {
        fs::canonicalize(self.dir.join("..data")).unwrap_or_else(|_| self.dir.clone())
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    /// See [`CaError`]; it names the file to repair.
    pub fn load(&self, now: SystemTime) -> Result<Loaded, CaError> {
        let layout = self.layout()?.ok_or_else(|| CaError::Partial {
            dir: self.dir.clone(),
            missing: "every file".to_owned(),
        })?;
        let base = self.base();
        let read = |name: &str| files::read_text(&base.join(name));
        let parts = match layout {
            Layout::Istio => SignerParts {
                cert_pem: read("ca-cert.pem")?,
                key_pem: Zeroizing::new(read("ca-key.pem")?),
                chain_pem: read("cert-chain.pem")?,
                bundle_pem: read("root-cert.pem")?,
            },
            Layout::TlsSecret => {
                let (cert, root) = (read("tls.crt")?, read("ca.crt")?);
                SignerParts {
                    chain_pem: format!("{cert}\n{root}"),
                    cert_pem: cert,
                    key_pem: Zeroizing::new(read("tls.key")?),
                    bundle_pem: root,
                }
            }
        };
        let signer = Signer::new(parts, now).map_err(|e| match e {
            SignerError::Unfit { part, reason } => {
                CaError::corrupt(&self.place(layout, part), reason)
            }
            SignerError::Expired(part) => CaError::Expired {
                path: self.place(layout, part),
            },
        })?;
        let crl_path = base.join(CRL_FILE);
        // What cannot be looked at is not taken for absent: that would drop what was revoked.
        let has_crl = self.use_crl
            && crl_path
                .try_exists()
                .map_err(|e| CaError::io(&crl_path, e))?;
        let crl_pem = if has_crl {
            let text = files::read_text(&crl_path)?;
            check_crl(&text, &signer).map_err(|e| CaError::corrupt(&self.dir.join(CRL_FILE), e))?
        } else {
            String::new()
        };
        Ok(Loaded { signer, crl_pem })
    }

    fn place(&self, layout: Layout, part: Part) -> PathBuf {
        self.dir.join(match (layout, part) {
            (Layout::Istio, Part::Certificate) => "ca-cert.pem",
            (Layout::Istio, Part::Key) => "ca-key.pem",
            (Layout::Istio, Part::Roots) => "root-cert.pem",
            (Layout::Istio, Part::Chain) => "cert-chain.pem",
            (Layout::TlsSecret, Part::Certificate | Part::Chain) => "tls.crt",
            (Layout::TlsSecret, Part::Key) => "tls.key",
            (Layout::TlsSecret, Part::Roots) => "ca.crt",
        })
    }
}

/// The revocation lists of a text, written anew, if there is one for every CA of the
/// chain and that CA signed it.
fn check_crl(text: &str, signer: &Signer) -> Result<String, String> {
    let blocks = pem::parse_many(text).map_err(|_| "not in PEM form")?;
    if blocks.len() != text.matches("-----BEGIN ").count()
        || blocks.iter().any(|b| b.tag() != "X509 CRL")
    {
        return Err("holds something else than revocation lists".to_owned());
    }
    let lists = blocks
        .iter()
        .map(
            |b| match CertificateRevocationList::from_der(b.contents()) {
                Ok(([], list)) => Ok(list),
                _ => Err("not a revocation list".to_owned()),
            },
        )
        .collect::<Result<Vec<_>, _>>()?;
    for authority in signer.authorities() {
        let subject = authority.subject.to_der().map_err(|e| e.to_string())?;
        let (_, cert) = x509_parser::parse_x509_certificate(&authority.der)
            .map_err(|_| "the chain does not parse")?;
        let is_signed = lists.iter().any(|list| {
            list.issuer().as_raw() == subject && list.verify_signature(cert.public_key()).is_ok()
        });
        if !is_signed {
            return Err(format!(
                "has no list that {} signed, and every CA of the chain needs one",
                cert.subject()
            ));
        }
    }
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Ok(blocks
        .iter()
        .map(|b| pem::encode_config(b, config))
        .collect())
}
