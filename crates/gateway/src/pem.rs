//! What Secrets and ConfigMaps hold for TLS: PEM in, PEM out, and only the blocks that are meant
//! to be served pass. Messages name keys and never values.
//! Source: spec/envoy-config.md §7.2; spec/gateway-api.md §3.7.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use model::SecretBytes;
use model::secret::SecretData;

/// Characters of a line of PEM.
const LINE_CHARS: usize = 64;

/// Why something cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is nothing; what there could be.
    Absent(&'static str),
    /// A key and what is wrong with it.
    Key(&'static str, &'static str),
    /// Another key does not fit this one.
    Mismatch(&'static str, &'static str),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(what) => write!(f, "There is neither {what}"),
            Self::Key(key, reason) => write!(f, "{key} {reason}"),
            Self::Mismatch(key, cert) => write!(f, "{key} is not the key of {cert}"),
        }
    }
}

/// A certificate and its private key, written anew.
pub struct KeyPair {
    /// The certificate and those that vouch for it.
    pub chain: Certificates,
    /// The private key, PEM.
    pub key: Zeroizing<Vec<u8>>,
}

/// The pair of a Secret that counts.
///
/// # Errors
/// Why there is none that can be served.
pub fn key_pair(data: &SecretData) -> Result<KeyPair, Unusable> {
    let pairs = [("cert", "key"), ("tls.crt", "tls.key")];
    let found = pairs.into_iter().find_map(|(cert, key)| {
        let values = (data.get(cert)?, data.get(key)?);
        Some((cert, key, values))
    });
    let (cert_name, key_name, (cert, key)) =
        found.ok_or(Unusable::Absent("tls.crt with tls.key nor cert with key"))?;
    let chain = certificates(cert.expose()).map_err(|why| Unusable::Key(cert_name, why))?;
    let (key, public_key) =
        private_key(key.expose()).map_err(|why| Unusable::Key(key_name, why))?;
    if public_key != chain.public_key {
        return Err(Unusable::Mismatch(key_name, cert_name));
    }
    Ok(KeyPair { chain, key })
}

/// Authorities, written anew.
pub struct Authorities {
    /// Their certificates.
    pub certificates: Certificates,
    /// The revocation lists, PEM, if there are any.
    pub revocations: Option<Vec<u8>>,
}

/// The authorities of a Secret or ConfigMap that count. A revocation list that cannot be read
/// voids them: what it revokes would be trusted.
///
/// # Errors
/// Why there are none that can be served.
pub fn authorities(data: &SecretData) -> Result<Authorities, Unusable> {
    let first = |names: [&'static str; 2]| {
        let mut found = names.into_iter();
        found.find_map(|name| Some((name, data.get(name).map(SecretBytes::expose)?)))
    };
    let (name, value) = first(["cacert", "ca.crt"]).ok_or(Unusable::Absent("ca.crt nor cacert"))?;
    let certificates = certificates(value).map_err(|why| Unusable::Key(name, why))?;
    let revocations = match first(["crl", "ca.crl"]) {
        None => None,
        Some((name, value)) => Some(revocations(value).map_err(|why| Unusable::Key(name, why))?),
    };
    Ok(Authorities {
        certificates,
        revocations,
    })
}

/// Certificates in order, written anew.
pub struct Certificates {
    /// PEM.
    pub pem: Vec<u8>,
    /// The public key of the first.
    pub public_key: Vec<u8>,
    /// When the first ends, seconds since the epoch.
    pub expires_s: i64,
}

/// The certificates of a value. Other blocks, private keys above all, are left out.
///
/// # Errors
/// What is wrong, in words without any part of the value.
fn certificates(value: &[u8]) -> Result<Certificates, &'static str> {
    let mut out: Option<Certificates> = None;
    for block in Pem::iter_from_buffer(value) {
        let block = block.map_err(|_| "is not valid PEM")?;
        let contents = Zeroizing::new(block.contents);
        if block.label != "CERTIFICATE" {
            continue;
        }
        let (_, found) = X509Certificate::from_der(&contents)
            .map_err(|_| "has a block that is no certificate")?;
        let out = out.get_or_insert_with(|| Certificates {
            pem: Vec::new(),
            public_key: found.public_key().subject_public_key.data.to_vec(),
            expires_s: found.validity().not_after.timestamp(),
        });
        write("CERTIFICATE", &contents, &mut out.pem);
    }
    out.ok_or("has no certificate in PEM")
}

/// The revocation lists of a value, written anew.
///
/// # Errors
/// As above.
fn revocations(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    for block in Pem::iter_from_buffer(value) {
        let block = block.map_err(|_| "is not valid PEM")?;
        let contents = Zeroizing::new(block.contents);
        if block.label == "X509 CRL" {
            CertificateRevocationList::from_der(&contents)
                .map_err(|_| "has a block that is no revocation list")?;
            write("X509 CRL", &contents, &mut out);
        }
    }
    if out.is_empty() {
        return Err("has no revocation list in PEM");
    }
    Ok(out)
}

/// The private key of a value, written anew, and its public key.
///
/// # Errors
/// As above.
fn private_key(value: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), &'static str> {
    for block in Pem::iter_from_buffer(value) {
        let block = block.map_err(|_| "is not valid PEM")?;
        let contents = Zeroizing::new(block.contents);
        if !matches!(
            block.label.as_str(),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY"
        ) {
            continue;
        }
        let pair = rcgen::KeyPair::try_from(contents.as_slice())
            .map_err(|_| "is not a private key that can be used")?;
        let mut pem = Zeroizing::new(Vec::new());
        write(&block.label, &contents, &mut pem);
        return Ok((pem, pair.public_key_raw().to_vec()));
    }
    Err("has no private key in PEM")
}

fn write(label: &str, contents: &[u8], out: &mut Vec<u8>) {
    let text = Zeroizing::new(STANDARD.encode(contents));
    out.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in text.as_bytes().chunks(LINE_CHARS) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
}
